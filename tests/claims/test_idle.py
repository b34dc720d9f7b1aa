"""Latencies of an idle machine: all contestants' samplers, and none on a busy one."""

import os

import pytest
from made_up import write_settings
from tiny_cells import demonstrated, tiny

from benchmarks.claims import idle
from benchmarks.claims.latency import TURNS
from ebt_jax import cli


def test_a_busy_machine_is_refused(monkeypatch):
    monkeypatch.setattr(os, "getloadavg", lambda: (1.9, 0.0, 0.0))
    with pytest.raises(RuntimeError, match="must be idle, got a load of 1.9 over the last minute. Wait until it is below 0.5"):
        idle.check_idle()


@pytest.mark.slow
def test_every_sampler_that_takes_a_known_number_of_steps_is_timed(tmp_path):
    demonstrated(tmp_path / "data")
    found = idle.time_contestants(write_settings(tmp_path, tiny), "small", "pick-place", tmp_path / "data", cli.progress, seconds=0)
    assert {name: set(samplers) for name, samplers in found.items()} == {"equilibrium": {"2", "1"}, "regression": {"1"}}
    two, one, regression = (found[name][sampler] for name, sampler in [("equilibrium", "2"), ("equilibrium", "1"), ("regression", "1")])
    assert two["chunk_flops"] > one["chunk_flops"] > regression["chunk_flops"] > 0
    for timed in (two, one, regression):
        assert set(timed["latency_ms"]) == {"1", "32"}
        assert all(0 < times["p50"] <= times["p99"] and times["calls"] >= TURNS for times in timed["latency_ms"].values())

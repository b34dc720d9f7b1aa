"""A trace of some updates, and of no others."""

import jax
import jax.numpy as jnp
import pytest

from ebt_jax.training.profile import parse_window, profiled


@pytest.mark.parametrize("text", ["10", "10:10", "0:3", "a:b", "-1:3", ":"])
def test_a_window_that_is_none_is_refused(text):
    with pytest.raises(ValueError, match=r"profile must be START:STOP with 1 <= START < STOP, got '.*Updates 10 to 14: 10:15"):
        parse_window(text)


@pytest.mark.parametrize(("window", "traced"), [("2:4", [2, 3]), ("4:9", [4]), ("7:9", [])])
def test_the_trace_spans_the_window(window, traced, tmp_path, monkeypatch):
    """Also where the run ends inside it; and a run that never gets there writes nothing."""
    running, seen, slow = [], [], []
    monkeypatch.setattr(jax.profiler, "start_trace", running.append)
    monkeypatch.setattr(jax.profiler, "stop_trace", running.pop)
    for step in profiled(range(1, 5), parse_window(window), tmp_path, slow.append):
        seen += [step] if running == [tmp_path] else []
    assert seen == traced
    assert not running
    assert slow == ["profile", "profile"] * bool(traced)


@pytest.mark.slow
def test_a_trace_lands_in_the_folder(tmp_path):
    for _ in profiled(range(1, 4), parse_window("2:3"), tmp_path / "profile"):
        jnp.ones(3).block_until_ready()
    assert list((tmp_path / "profile").rglob("*.xplane.pb"))

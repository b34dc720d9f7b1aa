"""Real processes that train together over gloo, and what they do when one of them is killed, asked to stop, broken or stuck.

Bounds are those promised for a machine that has the time; on one that is busy with other things the limits are wide.
"""

import json
import os
import pathlib
import re
import time

import jax
import local
import numpy as np
import pytest

from ebt_jax.checkpoint import Checkpoints
from ebt_jax.loading import load

ROOT = pathlib.Path(__file__).parents[2]
TINY = ROOT / "tests/toys/tiny.py"
HEARTBEAT = 10
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"
ENDLESS = (
    f"--config={TINY}:regression",
    "--config.num_steps=100000",
    "--config.eval_interval=0",
    "--config.data.language=none",
    "--heartbeat_seconds=100",
)
IMPATIENT = "--watchdog_seconds=5"  # for jobs that shall be found stuck: on a busy machine others may be slow for longer
FAILED = {0, 75, None}.isdisjoint
"""Of exit codes: all ended, none as if it had gone well; jax's own checks end a process by a signal."""

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


@pytest.fixture
def start(tmp_path, tmp_path_factory, monkeypatch):
    """Starts a job, whose compiled programs are shared by this session's, and leaves none behind."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("JAX_COMPILATION_CACHE_DIR", str(tmp_path_factory.getbasetemp() / "xla"))
    jobs = []

    def start(*arguments, name="run", xla_flags=QUICK, **options):
        monkeypatch.setenv("XLA_FLAGS", xla_flags)
        jobs.append(local.start(arguments, tmp_path / name, log_dir=tmp_path / f"{name}_log", **options))
        return jobs[-1]

    yield start
    for job in jobs:
        job.kill()


def bound(seconds):
    """Seconds promised where the machine has cores for this test's processes, and time enough elsewhere."""
    return seconds if os.getloadavg()[0] <= (os.cpu_count() or 1) else 10 * seconds


def wait_for_text(job, rank, words, seconds=300.0):
    deadline = time.monotonic() + seconds
    while words not in job.log(rank):
        assert time.monotonic() < deadline, f"{words!r} was not said in {seconds} s:\n{job.log(rank)[-3000:]}"
        time.sleep(0.02)
    return time.monotonic()


def test_one_eight_and_two_times_four_devices_agree(start):
    """The same five updates, to 1e-6 in float32: losses, held-out losses, parameters, averages."""
    arguments = (f"--config={TINY}", "--config.num_steps=5", "--config.eval_interval=5", "--config.data.language=none")
    found = {}
    for processes, devices in ((1, 1), (1, 8), (2, 4)):
        name = f"{processes}x{devices}"
        job = start(*arguments, name=name, xla_flags="", processes=processes, devices=devices)
        assert job.wait(600) == [0] * processes, job.log(0)[-3000:]
        lines = [json.loads(line) for line in (job.workdir / "metrics.jsonl").read_text().splitlines()]
        params = [load(job.workdir, ema=ema).params for ema in (True, False)]
        values = [line[key] for line in lines for key in ("loss", "validation/loss") if key in line]
        found[name] = np.array(values), jax.device_get(params)
        assert len(values) == 6
        assert (job.workdir / "report.html").exists()
    for name in ("1x8", "2x4"):
        np.testing.assert_allclose(found[name][0], found["1x1"][0], atol=1e-6)
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found[name][1], found["1x1"][1])


def test_sigterm_to_one_stops_all_after_the_same_step(start):
    job = start(*ENDLESS)
    job.wait_for_step(15)
    struck = job.strike(1, "term")
    assert job.wait(300) == [75, 75], job.log(0)[-3000:]
    assert time.monotonic() - struck < bound(30)
    said = {re.search(r"interrupted: saved step (\d+) of 100000", job.log(rank))[1] for rank in (0, 1)}
    (step,) = map(int, said)
    with Checkpoints(job.workdir / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps[-1] == step
    again = start(*ENDLESS)
    wait_for_text(again, 1, f"resumed at step {step}")
    again.wait_for_step(step + 3)


def test_a_dead_process_ends_the_others(start):
    job = start(*ENDLESS, f"--heartbeat_seconds={HEARTBEAT}")
    job.wait_for_step(15)
    struck = job.strike(1, "kill")
    assert FAILED(job.wait(300))
    assert time.monotonic() - struck < bound(HEARTBEAT + 5)


def test_an_exception_in_one_ends_all(start):
    job = start(*ENDLESS, fault="raise", rank=1, after=25)
    raised = wait_for_text(job, 1, "injected: this shard cannot be read")
    codes = job.wait(300)
    assert codes[1] == 1
    assert FAILED(codes)
    assert time.monotonic() - raised < bound(15)
    assert "process 1 failed" in job.log(0)
    with Checkpoints(job.workdir / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps[-1] in (10, 20)  # the save at 20 may have been under way


def test_a_stalled_loader_ends_all_with_their_stacks(start):
    job = start(*ENDLESS, IMPATIENT, fault="stall", rank=1, after=15)
    job.wait_for_step(14)
    begun = time.monotonic()
    assert FAILED(job.wait(600))
    assert time.monotonic() - begun < bound(30)
    assert "in broken" in job.log(1)  # the stack of the one that is to blame
    assert any(f"process {rank} of 2 is stuck" in job.log(rank) for rank in (0, 1))


@pytest.mark.parametrize("rank", [0, 1])
def test_a_frozen_process_ends_the_others(start, rank):
    """SIGSTOP, also to the first process, where the coordination service lives. Only the watchdog sees it: heartbeats wait for ever."""
    other = 1 - rank
    job = start(*ENDLESS, IMPATIENT, "--heartbeat_seconds=3000", "--config.save_interval=300")
    saved = job.workdir / "checkpoints" / "300"
    while not saved.exists():  # and far from the next save, which may take longer than an update
        job.wait_for_step(job.last_step() + 1)
    job.strike(rank, "freeze")
    code = job.wait(600, but=[rank])[other]
    assert FAILED([code])
    assert f"process {other} of 2 is stuck" in job.log(other)
    assert "in train\n" in job.log(other)  # its stack: it waits for the other
    with Checkpoints(job.workdir / "checkpoints", read_only=True) as checkpoints:
        assert checkpoints.steps == [300]

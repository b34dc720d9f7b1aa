"""SIGKILL at random moments, start-up and saves included: every life goes on from the newest checkpoint, and nothing shows at the end."""

import json
import os
import pathlib
import subprocess
import sys

import jax
import pytest

ROOT = pathlib.Path(__file__).parents[2]
QUICK = "--xla_backend_optimization_level=0 --xla_llvm_disable_expensive_passes=true"


@pytest.mark.parametrize(
    ("kills", "num_steps"),
    [(3, 16), pytest.param(20, 400, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])],
)
def test_kills_leave_no_trace(kills, num_steps, tmp_path):
    """Restores every time, loses two intervals at most, ends bit for bit as if undisturbed."""
    output = tmp_path / "soak.json"
    command = [sys.executable, ROOT / "benchmarks/soak.py", f"--kills={kills}", f"--num_steps={num_steps}", f"--output={output}"]
    cache = {"JAX_COMPILATION_CACHE_DIR": jax.config.jax_compilation_cache_dir}
    environment = {**os.environ, **cache, "PYTHONPATH": str(ROOT), "XLA_FLAGS": QUICK}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-1500:] + done.stderr[-3000:]
    result = json.loads(output.read_text())
    assert result["kills"] == result["restored"] == kills
    assert result["kills_during_a_save"] > 0
    assert result["most_updates_lost"] <= 2 * result["save_interval"]


ANEW = """
import pathlib, sys
from benchmarks.soak import went_on_from
log = pathlib.Path(sys.argv[1])
log.write_text("resumed at step 8\\n")
end = log.stat().st_size
assert went_on_from(log, 0, 8, fresh=True) == 8
assert went_on_from(log, end, 8, fresh=False) is None
went_on_from(log, end, 8, fresh=True)
"""


def test_a_life_that_begins_anew_is_found_out(tmp_path):
    """It would end bit for bit as it should all the same: nothing but where it went on from tells it apart."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}  # a process of its own: the script's flags are not for everybody
    done = subprocess.run([sys.executable, "-c", ANEW, tmp_path / "run.log"], env=environment, capture_output=True, text=True)
    assert done.stderr.splitlines()[-1].startswith("AssertionError: a life went on from step 0, the newest checkpoint was 8"), done.stderr

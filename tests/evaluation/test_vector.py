"""Processes that hold environments: light, orderly, and loud when something goes wrong."""

import os
import subprocess
import sys

import numpy as np
import pytest

from ebt_jax.evaluation.messages import Lost, Outcome, Plan, Start
from ebt_jax.evaluation.vector import Environments

STAY = np.full((5, 2), 30.0, np.float32)


def test_workers_import_neither_jax_nor_a_model_nor_tensorflow() -> None:
    script = """
import sys
import ebt_jax.evaluation.worker
from ebt_jax import simulators
for suite, task in (("metaworld", "reach-v3"), ("pusht", "pusht")):
    simulators.make(suite, task).reset(seed=0)
print([name for name in ("jax", "flax", "tensorflow", "ebt_jax.policy") if name in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip().splitlines()[-1] == "[]"


def test_a_plan_is_executed_and_the_last_observations_come_back() -> None:
    with Environments("pusht", (), num_envs=3, num_processes=2) as environments:
        begun = environments.start({seat: Start("pusht", seat, 2) for seat in range(3)})
        assert len(begun[0].pictures) == 1
        outcomes = environments.execute({seat: Plan(STAY, keep=2) for seat in (0, 2)})
    assert set(outcomes) == {0, 2}
    assert (len(outcomes[0].rewards), len(outcomes[0].observations), len(outcomes[0].pictures)) == (5, 2, 2)
    assert not np.array_equal(outcomes[0].observations[-1]["proprio"], outcomes[2].observations[-1]["proprio"])


def test_an_environment_that_raises_says_what_and_where() -> None:
    with Environments("pusht", (), 1) as environments, pytest.raises(RuntimeError, match=r"'pusht' failed with ValueError: task must be"):
        environments.start({0: Start("tetris", 0, 0)})


def test_a_process_that_dies_loses_its_episodes_alone_and_is_replaced() -> None:
    with Environments("pusht", (), 4, 2) as environments:
        environments.start({seat: Start("pusht", seat, 0) for seat in range(4)})
        environments._workers[1]._process.kill()
        environments._workers[1]._process.wait()
        first = environments.execute({0: Plan(STAY, 1), 1: Plan(STAY, 1)})
        assert isinstance(first[0], Outcome)
        assert isinstance(first[1], Lost)
        assert all(words in first[1].message for words in ("got signal 9", "lower --num_envs"))
        assert isinstance(environments.start({1: Start("pusht", 1, 0)})[1], Outcome)
        then = environments.execute({seat: Plan(STAY, 1) for seat in range(4)})
        assert [isinstance(then[seat], Lost) for seat in range(4)] == [False, False, False, True]  # seat 3 was the first process's


def test_closing_ends_every_process() -> None:
    with Environments("pusht", (), 2, 2) as environments:
        pids = [worker._process.pid for worker in environments._workers]
        environments.start({0: Start("pusht", 0, 0)})
    for pid in pids:
        with pytest.raises(ProcessLookupError):
            os.kill(pid, 0)

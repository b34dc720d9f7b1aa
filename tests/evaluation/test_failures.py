"""An episode that cannot go on ends without success and says why; the others do not notice."""

import json
from typing import Any

import numpy as np
import pytest
from formulas import diverging

from ebt_jax import simulators
from ebt_jax.evaluation.measured import EpisodeResult, Rollouts
from ebt_jax.evaluation.messages import Outcome, Plan, Start
from ebt_jax.evaluation.results import check_failures, closed_loop_results
from ebt_jax.evaluation.rollouts import open_environments, rollout
from ebt_jax.evaluation.vector import Environments
from ebt_jax.evaluation.worker import Seat
from ebt_jax.execution import Execution
from ebt_jax.policy import NotFiniteError, Policy
from ebt_jax.simulators.pusht import PushT

SELDOM = Execution(horizon=8)


class Faulty(PushT):
    """Raises at the tenth step from one initial state, and at once from another; from a third it comes to show what is no number."""

    def reset(self, *, seed: int | None = None, options: dict[str, Any] | None = None) -> tuple[dict[str, Any], dict[str, Any]]:
        self._seed = seed
        if seed == 100_003:
            raise RuntimeError("no such scene")
        return super().reset(seed=seed, options=options)

    def step(self, action: Any) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        observation, *rest = super().step(action)
        if self._steps == 10 and self._seed == 100_001:
            raise RuntimeError("the block fell off")
        if self._steps >= 20 and self._seed == 100_002:
            observation = {**observation, "proprio": np.full_like(observation["proprio"], np.nan)}
        return observation, *rest


class Seats(Environments):
    """In this process."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs, self._seats = num_envs, [Seat("pusht", ()) for _ in range(num_envs)]

    def _ask(self, orders: dict[int, Start | Plan]) -> dict[int, Outcome]:
        return {number: self._seats[number].answer(order) for number, order in orders.items()}


def test_one_answer_that_is_no_number_costs_one_episode(wandering: Policy) -> None:
    whole = rollout(wandering, "pusht", ("pusht",), 4, seed=3, execution=SELDOM, num_envs=3).episodes
    policy = diverging(wandering, seed=3, episode=2, step=8)
    noted = lambda policy, observation, keys, output: {"first": output.actions[:, 0, 0]}
    rollouts = rollout(policy, "pusht", ("pusht",), 4, seed=3, execution=SELDOM, num_envs=3, measure=noted)
    found = [episode._replace(doubt={}) for episode in rollouts.episodes]
    assert [found[n] for n in (0, 1, 3)] == [whole[n] for n in (0, 1, 3)]
    assert (found[2].failure, found[2].success, found[2].length) == ("not_finite", False, 8)
    results = closed_loop_results(rollouts)
    task = json.loads(json.dumps(results, allow_nan=False))["tasks"]["pusht"]
    assert (task["episodes"], task["failures"]) == (4, {"not_finite": 1})
    assert [episode.get("failure") for episode in task["episode"]] == [None, None, "not_finite", None]
    assert task["doubt"]["decisions"] == 38  # of the others
    check_failures(rollouts.episodes)
    with pytest.raises(NotFiniteError):
        rollout(policy, "pusht", ("pusht",), 4, seed=3, execution=SELDOM, num_envs=3, keep_going=False)


def test_a_simulator_that_fails_costs_one_episode(wandering: Policy, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = rollout(wandering, "pusht", ("pusht",), 5, seed=0, execution=SELDOM, environments=Seats(2)).episodes
    monkeypatch.setattr(simulators, "make", lambda suite, task, cameras: Faulty(task, cameras))
    found = rollout(wandering, "pusht", ("pusht",), 5, seed=0, execution=SELDOM, environments=Seats(2)).episodes
    assert [found[n] for n in (0, 4)] == [whole[n] for n in (0, 4)]
    assert [episode.failure for episode in found] == ["", "simulator", "observation_not_finite", "simulator", ""]
    assert [episode.length for episode in found[1:4]] == [8, 24, 0]
    with pytest.raises(RuntimeError, match="episode 1 of pusht cannot go on after 8 steps: simulator. RuntimeError: the block fell off"):
        rollout(wandering, "pusht", ("pusht",), 2, seed=0, execution=SELDOM, environments=Seats(2), keep_going=False)


def test_a_process_that_dies_costs_time_and_no_result(wandering: Policy) -> None:
    """And one that dies of the same episode again ends the evaluation, with its message."""
    whole = rollout(wandering, "pusht", ("pusht",), 5, seed=0, execution=SELDOM).episodes

    def killing(times: int) -> list[EpisodeResult]:
        with open_environments(wandering, "pusht", num_envs=3, num_processes=2) as environments:
            left = [None] * times

            def kill(*_: object) -> dict[str, Any]:
                if left:
                    left.pop()
                    environments._workers[1]._process.kill()
                    environments._workers[1]._process.wait()
                return {}

            return rollout(wandering, "pusht", ("pusht",), 5, seed=0, execution=SELDOM, environments=environments, measure=kill).episodes

    assert killing(1) == whole
    with pytest.raises(RuntimeError, match=r"episode \d of pusht lost its process twice: .* got signal 9"):
        killing(1000)


def test_a_measure_is_of_the_episodes_that_have_it() -> None:
    """One that never began has no score, one that stopped at once the score it began with."""
    one = EpisodeResult("a", 0, 7, True, 1.0, 3, {"score": 1.0, "clearance": 0.5}, {})
    stopped = one._replace(number=1, success=False, length=0, metrics={"score": 0.0, "clearance": np.inf}, failure="not_finite")
    unbegun = stopped._replace(number=2, metrics={}, failure="simulator")
    task = closed_loop_results(Rollouts([one, stopped, unbegun], [], {}, 16, 1.0))["tasks"]["a"]
    assert (task["mean_score"], task["mean_clearance"], task["success_rate"]) == (0.5, 0.5, 1 / 3)
    assert task["failures"] == {"not_finite": 1, "simulator": 1}
    assert "clearance" not in task["episode"][1]


def test_a_task_without_any_result_is_an_error() -> None:
    fine = EpisodeResult("a", 0, 7, False, 0.0, 3, {}, {})
    broken = [fine._replace(number=number, failure="not_finite") for number in (1, 2)]
    check_failures([fine, *broken])
    with pytest.raises(RuntimeError, match="got not_finite 2 in all 2 episodes of b"):
        check_failures([fine, *(one._replace(task="b") for one in broken)])

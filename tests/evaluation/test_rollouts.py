"""Closed loop: a policy that is right succeeds, and nothing but policy, task, seed and episode decides the result."""

import dataclasses
import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from formulas import formula_policy, suite_specs
from jaxtyping import Array, Float

from ebt_jax.evaluation.results import closed_loop_results, conditions
from ebt_jax.evaluation.rollouts import Asking, masked_cameras, open_environments, rollout
from ebt_jax.execution import Execution
from ebt_jax.policy import Policy
from ebt_jax.simulators.disturbance import UNDISTURBED, Disturbance
from ebt_jax.specs import CameraSpec, Dimension
from ebt_jax.types import Keys


def test_reaching_for_the_goal_succeeds_and_is_filmed(reaching: Policy, tmp_path: pathlib.Path) -> None:
    found = rollout(reaching, "metaworld", ("reach-v3",), 4, seed=0, num_envs=4, num_processes=2, videos=1, video_dir=tmp_path)
    assert [episode.success for episode in found.episodes] == [True] * 4
    assert [episode.state for episode in found.episodes] == [100_000, 100_001, 100_002, 100_003]
    assert all(10 < episode.length < 200 for episode in found.episodes)
    assert [path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.mp4")] == ["reach-v3/000.mp4"]
    assert found.films == ("reach-v3/000.mp4",)


def test_results_do_not_depend_on_environments_or_processes(wandering: Policy) -> None:
    one, other = (
        rollout(wandering, "pusht", ("pusht",), 4, seed=3, num_envs=envs, num_processes=processes).episodes
        for envs, processes in ((1, 1), (3, 3))
    )
    assert one == other
    assert len({episode.total for episode in one}) > 1


def test_open_environments_serve_one_evaluation_after_the_other(wandering: Policy) -> None:
    alone = [rollout(wandering, "pusht", ("pusht",), 2, seed=seed).episodes for seed in (3, 4)]
    with open_environments(wandering, "pusht", num_envs=4, num_processes=2) as environments:
        together = [rollout(wandering, "pusht", ("pusht",), 2, seed=seed, environments=environments).episodes for seed in (3, 4)]
    assert together == alone


def test_another_seed_is_another_experiment(wandering: Policy) -> None:
    one, other = (rollout(wandering, "pusht", ("pusht",), 1, seed=seed).episodes for seed in (0, 1))
    assert one[0].state != other[0].state


def test_the_policy_is_asked_once_per_chunk(wandering: Policy) -> None:
    often, seldom = (
        rollout(wandering, "pusht", ("pusht",), 1, seed=0, execution=Execution(horizon=horizon), asking=Asking(3)) for horizon in (4, 8)
    )
    assert often.episodes[0].length == seldom.episodes[0].length == 300
    assert (len(often.num_steps), len(seldom.num_steps)) == (75, 38)
    assert set(often.num_steps) == {3}


@pytest.mark.parametrize(("horizon", "jitter"), [(4, 4.0), (3, 8 / 3)])
def test_jitter_is_of_what_was_executed_seams_included(horizon: int, jitter: float) -> None:
    """+1, -1, +1, -1 | +1, ...: every second difference is 4; cut after three, the two that meet at a seam are 2 and not 4."""
    policy = formula_policy(
        suite_specs("pusht"), lambda proprio, keys, h: jnp.broadcast_to((-1.0) ** jnp.arange(h)[None, :, None], (len(proprio), h, 2))
    )
    (episode,) = rollout(policy, "pusht", ("pusht",), 1, seed=0, execution=Execution(horizon=horizon)).episodes
    assert episode.length == 300
    assert episode.jitter == pytest.approx(jitter, rel=0.01)


def test_what_is_measured_is_noted_once_a_decision(reaching: Policy) -> None:
    """Beside the answer: 16 rows are asked, each episode keeps its own."""

    def measure(policy, observation, keys, output):
        return {"height": observation.proprio[:, -1, 2], "energy": output.energy, "unknown": output.energy * np.nan}

    rollouts = rollout(reaching, "metaworld", ("reach-v3",), 2, seed=0, measure=measure)
    assert [len(episode.doubt["height"]) for episode in rollouts.episodes] == [-(-episode.length // 4) for episode in rollouts.episodes]
    one, other = (episode.doubt["height"] for episode in rollouts.episodes)
    assert one != other
    task = closed_loop_results(rollouts)["tasks"]["reach-v3"]
    assert task["episode"][1]["doubt"]["height"] == other
    assert set(task["episode"][1]["doubt"]) == set(task["doubt"]["statistics"]) == {"height", "energy"}
    assert task["doubt"]["statistics"]["height"]["auroc"] is None  # both succeed


def test_results_hold_what_the_contract_says(wandering: Policy) -> None:
    measured = closed_loop_results(rollout(wandering, "pusht", ("pusht",), 3, seed=0))
    results = json.loads(json.dumps({**conditions(wandering.identity, "pusht", 0, 4), **measured}))
    wanted = {"suite", "policy", "tasks", "mean_success_rate", "sample_steps", "latency_ms", "execution_horizon", "seed"}
    assert wanted | {"versions", "git", "hardware", "command"} <= set(results)
    assert results["policy"] == {"path": "formula", "sha256": "0" * 64, "step": 7, "method": "formula", "robot": ""}
    task = results["tasks"]["pusht"]
    assert {"episodes", "successes", "success_rate", "wilson_95", "mean_return", "mean_score", "mean_final_coverage", "episode"} <= set(
        task
    )
    assert task["mean_score"] == pytest.approx(np.mean([episode["score"] for episode in task["episode"]]))
    assert {"seed", "success", "return", "length", "jitter"} <= set(task["episode"][0])
    assert task["mean_jitter"] == pytest.approx(np.mean([episode["jitter"] for episode in task["episode"]]))
    assert task["mean_jitter"] > 0
    assert results["sample_steps"] == {"mean": 2.0, "p50": 2.0, "p99": 2.0}
    for stage in ("encode", "minimize", "total"):
        assert 0 < results["latency_ms"][stage]["p50"] <= results["latency_ms"][stage]["p99"]


def test_a_suite_that_the_policy_was_not_trained_for_is_refused(reaching: Policy) -> None:
    with pytest.raises(ValueError, match=r"(?s)suite 'pusht' must match the specs.*control rate"):
        rollout(reaching, "pusht", ("pusht",), 1, seed=0)


def test_a_policy_that_reads_less_of_the_state_gets_that_and_no_more() -> None:
    """Its three numbers by name, in its own order."""
    whole = suite_specs("metaworld")
    state = {dimension.name: dimension for dimension in whole.observation.proprio}
    names = ("goal_x", "goal_y", "goal_z", "hand_x", "hand_y", "hand_z")
    observation = dataclasses.replace(whole.observation, proprio=tuple(state[name] for name in names))

    def rule(proprio: Float[Array, "b t p"], keys: Keys, horizon: int) -> Float[Array, "b h a"]:
        assert proprio.shape[2] == 6
        towards = jnp.clip(10 * (proprio[:, -1, :3] - proprio[:, -1, 3:]), -1, 1)
        action = jnp.concatenate([towards, -jnp.ones((len(towards), 1))], axis=-1)
        return jnp.repeat(action[:, None], horizon, axis=1)

    policy = formula_policy(dataclasses.replace(whole, observation=observation), rule)
    noisy = Disturbance(noise=1e-6)
    for disturbance in (UNDISTURBED, noisy):
        (episode,) = rollout(policy, "metaworld", ("reach-v3",), 1, seed=0, disturbance=disturbance).episodes
        assert episode.success
    unknown = dataclasses.replace(observation, proprio=(*observation.proprio, Dimension("tail_x", "m")))
    with pytest.raises(ValueError, match=r"(?s)suite 'metaworld' must match the specs.*'tail_x'\], got"):
        rollout(formula_policy(dataclasses.replace(whole, observation=unknown), rule), "metaworld", ("reach-v3",), 1, seed=0)


def test_cameras_that_no_simulator_has_are_named(caplog: pytest.LogCaptureFixture) -> None:
    """A goal, as of a policy that was trained on goals: it acts without one, and should not do so in silence."""
    specs = suite_specs("pusht")
    observation = dataclasses.replace(specs.observation, cameras=(CameraSpec("goal_primary", 8, 8),))
    policy = formula_policy(dataclasses.replace(specs, observation=observation), lambda proprio, keys, h: jnp.zeros((len(proprio), h, 2)))
    rollout(policy, "pusht", ("pusht",), 1, seed=0)
    (warning,) = [record.getMessage() for record in caplog.records if "masked" in record.getMessage()]
    assert warning.startswith("the policy acts without its cameras goal_primary, which suite 'pusht' does not have")
    assert masked_cameras(policy, "pusht") == ["goal_primary"]


def test_settings_past_the_limits_are_refused(reaching: Policy) -> None:
    with pytest.raises(ValueError, match=r"execution_horizon must be in \[1, 8\] \(the chunk, less what is committed\), got 9"):
        rollout(reaching, "metaworld", ("reach-v3",), 1, seed=0, execution=Execution(horizon=9))
    with pytest.raises(ValueError, match=r"num_envs must be in \[1, 16\]"):
        rollout(reaching, "metaworld", ("reach-v3",), 1, seed=0, num_envs=17)

"""What goes wrong is the same for all policies, happens when it should, and leaves the task solvable."""

import jax.numpy as jnp
import numpy as np
import pytest
from formulas import formula_policy, suite_specs
from jaxtyping import Array, Float

from ebt_jax import simulators
from ebt_jax.evaluation.measured import EpisodeResult, Rollouts
from ebt_jax.evaluation.results import closed_loop_results
from ebt_jax.evaluation.rollouts import rollout
from ebt_jax.normalize import Statistics, VectorStatistics
from ebt_jax.policy import Policy
from ebt_jax.simulators.disturbance import Disturbance


def still(suite: str, deviation: float = 0.0) -> Policy:
    """Moves nothing: PushT's agent is sent where it is, Meta-World's hand by nothing, its gripper closed."""

    def rule(proprio: Float[Array, "b t p"], keys: object, horizon: int) -> Float[Array, "b h a"]:
        if suite == "pusht":
            action = (proprio[:, -1, :2] - 256) / 256
        else:
            action = jnp.tile(jnp.array([0.0, 0.0, 0.0, -1.0]), (len(proprio), 1))
        return jnp.repeat(action[:, None], horizon, axis=1)

    policy = formula_policy(suite_specs(suite), rule)
    width = len(policy.specs.observation.proprio)
    statistics = Statistics(policy.statistics.action, VectorStatistics.of(deviation * np.array([[-1.0], [1.0]]) * np.ones(width)), 2, 1)
    return Policy(**{**vars(policy), "statistics": statistics})


def seen(policy: Policy, suite: str, task: str, disturbance: Disturbance, episodes: int = 2) -> list[np.ndarray]:
    """What the policy was shown at each of its decisions, [decisions p] an episode."""

    def measure(policy, observation, keys, output):
        return {str(i): column for i, column in enumerate(observation.proprio[:, -1].T)}

    found = rollout(policy, suite, (task,), episodes, seed=0, measure=measure, disturbance=disturbance, num_processes=1)
    width = len(policy.specs.observation.proprio)
    return [np.stack([one.doubt[str(i)] for i in range(width)], axis=-1) for one in found.episodes]


def test_a_push_moves_the_block_once_and_when_it_should() -> None:
    (plain, other), (pushed, _) = (seen(still("pusht"), "pusht", "pusht", Disturbance(*about)) for about in ((), (40, 60.0)))
    np.testing.assert_allclose(pushed[:11], plain[:11], atol=1e-3)  # a decision every four steps
    moved = (pushed - plain)[12:, 2:].reshape(-1, 9, 2)
    np.testing.assert_allclose(moved, np.broadcast_to(moved[:1, :1], moved.shape), atol=0.5)  # all keypoints alike, and for good
    assert np.linalg.norm(moved[0, 0]) == pytest.approx(60, abs=0.5)
    assert not np.allclose(plain[0], other[0])


def test_a_push_before_the_first_step_is_another_initial_state() -> None:
    plain, pushed = (seen(still("pusht"), "pusht", "pusht", Disturbance(push=push), 1)[0] for push in (0.0, 60.0))
    assert np.abs(pushed[0, 2:] - plain[0, 2:]).max() > 10
    np.testing.assert_array_equal(pushed[0, :2], plain[0, :2])


def test_a_push_never_goes_towards_the_agent_nor_farther_than_asked() -> None:
    """Of a hundred initial states, many of whose blocks lie outside 100 to 400 px once they are turned."""
    simulator, outside = simulators.make("pusht", "pusht"), 0
    for seed in range(100_000, 100_100):
        simulator.reset(seed=seed)
        block, agent = simulator._env.block, np.array(simulator._env.agent.position)
        before = np.array(block.position)
        simulator.push(60.0, 0.5)
        moved = np.array(block.position) - before
        outside += bool(np.any((before < 100) | (before > 400)))
        assert np.linalg.norm(moved) <= 60.001
        assert np.all(moved * (before - agent) >= 0)
        if np.all((before > 160) & (before < 340)):
            assert np.linalg.norm(moved) == pytest.approx(60)
    assert outside > 10


def test_pushes_stay_where_blocks_may_begin_and_the_score_begins_anew() -> None:
    simulator = simulators.make("pusht", "pusht")
    simulator.reset(seed=3)
    block = simulator._env.block
    block.angle, block.position = np.pi / 4, (256.0, 256.0)
    assert simulator.step(np.array([30.0, 30.0], np.float32))[2]
    assert simulator.metrics()["score"] == 1.0
    simulator.push(1000.0, 0.5)
    assert {float(x) for x in block.position} <= {100.0, 400.0}
    assert simulator.metrics()["score"] < 0.2


def test_noise_has_the_size_asked_for_and_is_drawn_for_the_state_alone() -> None:
    policy = still("metaworld", deviation=0.5)
    plain, noisy, again = (
        seen(policy, "metaworld", "door-open-v3", Disturbance(noise=noise), episodes) for noise, episodes in ((0.0, 2), (0.1, 2), (0.1, 1))
    )
    noise = np.concatenate(noisy) - np.concatenate(plain)
    assert noise.std() == pytest.approx(0.05, rel=0.1)
    assert abs(noise.mean()) < 0.005
    np.testing.assert_array_equal(again[0], noisy[0])
    assert not np.allclose(noisy[0] - plain[0], noisy[1] - plain[1])


def test_the_gripper_is_open_while_it_is_held() -> None:
    (found,) = seen(still("metaworld"), "metaworld", "reach-v3", Disturbance(at=40, release=40), 1)
    opening = found[:, 3]  # a decision every four steps
    assert opening[10] < 0.5 < 0.9 < opening[19]
    assert opening[40] == pytest.approx(opening[10], abs=0.02)


@pytest.mark.parametrize(
    ("suite", "task", "about", "message"),
    [
        ("metaworld", "door-open-v3", Disturbance(push=0.1), "no object of its own that lies free"),
        ("metaworld", "reach-v3", Disturbance(push=0.1), "no object of its own that lies free"),
        ("pusht", "pusht", Disturbance(release=5), "no gripper"),
    ],
)
def test_what_a_suite_cannot_do_is_refused(suite: str, task: str, about: Disturbance, message: str) -> None:
    with pytest.raises(RuntimeError, match=message):
        rollout(still(suite), suite, (task,), 1, seed=0, disturbance=about)


@pytest.mark.parametrize(("push", "least", "most"), [(0.0, 40, 65), (0.05, 65, 110)])
def test_an_expert_that_looks_recovers_from_a_push_on_its_way(push: float, least: int, most: int) -> None:
    simulator = simulators.make("metaworld", "push-v3")
    before, _ = simulator.reset(seed=100_000)
    steps, success = 0, False
    while not success and steps < most:
        if push and steps == 30:
            after = simulator.push(push, 0.25)["proprio"]
            np.testing.assert_allclose(after[4:6] - before["proprio"][4:6], [0, push], atol=0.005)
        before, _, success, _, _ = simulator.step(simulator.expert_action())
        steps += 1
    assert success
    assert steps > least


@pytest.mark.parametrize("wrong", [{"push": -1.0}, {"noise": float("nan")}, {"at": 5}, {"at": 5, "noise": 0.1}])
def test_what_means_nothing_is_refused(wrong: dict) -> None:
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} of a disturbance must"):
        Disturbance(**wrong)


@pytest.mark.parametrize(
    ("about", "numbers", "message"),
    [
        (Disturbance(noise=0.1), 0, "must be for a policy that reads proprioception, got 0.1 for one that reads none"),
        (Disturbance(at=300, push=1.0), 20, "at of a disturbance must be less than 300, the steps of this suite's episodes, got 300"),
    ],
)
def test_what_would_never_happen_is_refused(about: Disturbance, numbers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        about.check(numbers, 300)
    Disturbance(at=299, push=1.0).check(0, 300)
    Disturbance(noise=0.1).check(1, 300)


def test_an_episode_that_ended_before_is_no_recovery() -> None:
    """The last action that is executed after 40 steps is the 41st."""
    about = [("a", 40, True), ("a", 41, True), ("a", 90, False), ("b", 12, True)]
    episodes = [EpisodeResult(task, n, n, success, 0.0, length, {}, {}) for n, (task, length, success) in enumerate(about)]
    rollouts = Rollouts(episodes, [2], {}, 16, 1.0)
    tasks = closed_loop_results(rollouts, Disturbance(at=40, push=1.0))["tasks"]
    assert [tasks[name]["disturbed"] for name in "ab"] == [{"episodes": 2, "successes": 1}, {"episodes": 0, "successes": 0}]
    assert (tasks["a"]["successes"], tasks["b"]["successes"]) == (2, 1)
    assert "disturbed" not in closed_loop_results(rollouts)["tasks"]["a"]

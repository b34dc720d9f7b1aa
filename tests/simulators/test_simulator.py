"""What holds for every suite."""

import numpy as np
import pytest

from ebt_jax import simulators
from ebt_jax.simulators.simulator import demonstration_state, evaluation_state


@pytest.mark.parametrize(
    ("suite", "task"), [("metaworld", "reach-v3"), ("obstacle", "reach-around"), ("pusht", "pusht"), ("robosuite", "Lift")]
)
def test_observations_and_actions_are_what_the_spaces_say(suite: str, task: str) -> None:
    simulator = simulators.make(suite, task)
    embodiment = simulators.embodiment(suite)
    assert task in simulators.tasks(suite)
    observation, _ = simulator.reset(seed=3)
    assert simulator.observation_space.contains(observation)
    assert len(observation["proprio"]) == len(embodiment.proprio)
    simulator.action_space.seed(0)
    observation, reward, terminated, truncated, info = simulator.step(simulator.action_space.sample())
    assert simulator.observation_space.contains(observation)
    assert (type(reward), type(terminated), type(truncated)) == (float, bool, bool)
    assert info["success"] == terminated
    picture = simulator.picture()
    assert picture.dtype == np.uint8
    assert picture.std() > 5
    simulator.close()


@pytest.mark.parametrize("bad", [np.zeros(7, np.float32), np.full(4, np.nan, np.float32)])
def test_an_action_that_is_none_is_refused_by_name(bad: np.ndarray) -> None:
    simulator = simulators.make("metaworld", "reach-v3")
    simulator.reset(seed=0)
    with pytest.raises(ValueError, match=r"4 finite numbers \['hand_x', 'hand_y', 'hand_z', 'gripper'\]"):
        simulator.step(bad)


def test_unknown_names_list_the_known_ones() -> None:
    with pytest.raises(ValueError, match="metaworld, obstacle, pusht, robosuite"):
        simulators.make("atari", "pong")
    with pytest.raises(ValueError, match="pick-place-v3"):
        simulators.make("metaworld", "pick-place-v2")
    with pytest.raises(ValueError, match=r"cameras must be among \['primary'\]"):
        simulators.make("pusht", "pusht", ("wrist",))


def test_suites_with_experts_are_those_that_collect_offers() -> None:
    assert simulators.with_experts() == ("metaworld", "obstacle", "robosuite")
    with pytest.raises(NotImplementedError, match="PushT has no scripted expert"):
        simulators.make("pusht", "pusht").expert_action()


def test_demonstrations_and_evaluations_never_start_from_the_same_state() -> None:
    shown = {demonstration_state(seed, attempt) for seed in range(3) for attempt in range(0, 100_000, 7)}
    shown |= {demonstration_state(seed, 99_999) for seed in range(3)}
    tested = {evaluation_state(seed, episode) for seed in range(3) for episode in range(2_000)}
    assert not shown & tested
    assert evaluation_state(0, 7) == 100_007  # published PushT results
    with pytest.raises(ValueError, match="another seed"):
        demonstration_state(0, 100_000)
    with pytest.raises(ValueError, match=r"got 100000\. Evaluation with seed 0 starts from the published states 100000, 100001"):
        evaluation_state(100_000, 0)

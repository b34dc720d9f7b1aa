"""Two ways around a pillar: both are shown, either succeeds, the mean of them does not."""

import numpy as np
import pytest

from ebt_jax.simulators.demonstrate import demonstrate
from ebt_jax.simulators.metaworld import METRES
from ebt_jax.simulators.obstacle import RADIUS, Obstacle


@pytest.fixture(scope="module")
def simulator() -> Obstacle:
    return Obstacle("reach-around")


def play(simulator: Obstacle, act, steps: int = 80) -> bool:
    """Whether the goal is reached by `act`, a function of the step."""
    return any(simulator.step(act(step))[2] for step in range(steps))


def straight(simulator: Obstacle) -> np.ndarray:
    displacement = simulator._raw[36:39] - simulator._raw[:3]
    return np.append(displacement * METRES / np.abs(displacement).max(), 1).astype(np.float32)


def test_both_sides_are_shown_and_both_succeed(simulator: Obstacle) -> None:
    sides = []
    for state in range(100_000, 100_012):
        simulator.reset(seed=state)
        assert play(simulator, lambda _: simulator.expert_action()), state
        measured = simulator.metrics()
        assert measured["clearance"] > 0.01
        assert measured["side"] == simulator._tossed
        sides.append(measured["side"])
    assert set(sides) == {-1.0, 1.0}


def test_the_straight_way_fails_for_good(simulator: Obstacle) -> None:
    simulator.reset(seed=100_000)
    assert not play(simulator, lambda _: straight(simulator))
    assert simulator.metrics()["clearance"] < -0.8 * RADIUS
    assert np.linalg.norm(simulator._raw[:3] - simulator._raw[36:39]) < 0.05  # it is there, and has not succeeded


def test_the_mean_of_both_ways_is_the_straight_one(simulator: Obstacle) -> None:
    """What regression learns at the start: forward, and to no side."""
    asked = []
    for side in (1, -1):
        simulator.reset(seed=100_000)
        simulator._tossed = side
        forward, left = simulator._directions()
        action = simulator.expert_action()[:2]
        asked.append((action @ forward, action @ left))
    (ahead, aside), (also_ahead, other_side) = asked
    assert ahead > 0.003
    assert also_ahead > 0.003
    assert aside > 0.003
    assert other_side < -0.003


def test_the_expert_goes_on_along_the_side_that_it_is_on(simulator: Obstacle) -> None:
    for side in (1, -1):
        simulator.reset(seed=100_000)
        simulator._tossed = side
        for _ in range(8):
            simulator.step(simulator.expert_action())
        simulator._tossed = -side
        assert play(simulator, lambda _: simulator.expert_action())
        assert simulator.metrics()["side"] == side


def test_the_side_is_a_function_of_the_initial_state_and_cannot_be_seen(simulator: Obstacle) -> None:
    tossed, first = [], []
    for state in (*range(40), *range(40)):
        observation, _ = simulator.reset(seed=state)
        tossed.append(simulator._tossed)
        first.append(observation["proprio"])
    assert tossed[:40] == tossed[40:]
    assert 10 < tossed[:40].count(1) < 30
    goal = np.array([numbers[18] for numbers in first[:40]])
    assert abs(np.corrcoef(goal, tossed[:40])[0, 1]) < 0.5


def test_demonstrations_with_noise_do_not_touch_it(simulator: Obstacle) -> None:
    shown = [demonstrate(simulator, seed, noise=0.1) for seed in range(10)]
    assert sum(episode is not None for episode in shown) >= 9


def test_it_can_be_looked_at(simulator: Obstacle) -> None:
    simulator.reset(seed=0)
    picture = simulator.picture()
    assert picture.dtype == np.uint8
    grey = (picture == (170, 170, 165)).all(axis=-1)
    assert grey[:, : grey.shape[1] // 2].sum() > 200  # the pillar, from above


def test_there_is_nothing_to_push(simulator: Obstacle) -> None:
    simulator.reset(seed=0)
    with pytest.raises(NotImplementedError, match="none can be pushed"):
        simulator.push(0.05, 0.0)


def test_another_task_is_refused() -> None:
    with pytest.raises(ValueError, match="task must be one of reach-around, got 'reach-v3'"):
        Obstacle("reach-v3")

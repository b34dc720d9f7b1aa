"""PushT is the published task: its initial states, its physics, its pictures, its score."""

import itertools
import pathlib

import numpy as np
import pytest

from ebt_jax import simulators
from ebt_jax.data.convert import pusht_zarr
from ebt_jax.data.write import Demonstration


@pytest.fixture(scope="module")
def demonstrations(test_data: pathlib.Path) -> list[Demonstration]:
    return list(itertools.islice(pusht_zarr(str(test_data / "pusht" / "pusht_cchi_v7_replay.zarr")).episodes, 5))


def test_demonstrations_replay_exactly_from_their_own_number(demonstrations: list[Demonstration]) -> None:
    simulator = simulators.make("pusht", "pusht")
    for number, episode in enumerate(demonstrations):
        observation, _ = simulator.reset(seed=number)
        reached = []
        for action in episode.actions:
            reached.append(observation["proprio"])
            observation, *_ = simulator.step(action)
        np.testing.assert_allclose(reached, episode.observations["state"], atol=0.01)  # px
        assert 0.85 < simulator.metrics()["max_coverage"] < 1.0


def test_pictures_are_those_of_the_recording(demonstrations: list[Demonstration]) -> None:
    simulator = simulators.make("pusht", "pusht", ("primary",))
    observation, _ = simulator.reset(seed=0)
    for action, recorded in zip(demonstrations[0].actions[:40], demonstrations[0].observations["image"][:40], strict=True):
        difference = np.abs(observation["images"]["primary"].astype(int) - recorded)
        assert (difference.max(axis=-1) > 8).mean() < 0.002
        observation, *_ = simulator.step(action)


def test_the_score_is_the_best_coverage_so_far_over_95_percent() -> None:
    simulator = simulators.make("pusht", "pusht")
    simulator.reset(seed=100_000)
    assert simulator.metrics() == {"score": 0.0, "max_coverage": 0.0, "final_coverage": 0.0}
    block = simulator._env.block
    block.angle = np.pi / 4
    block.position = (256.0, 256.0)
    simulator._env.agent.position = (30.0, 30.0)
    stay = np.array([30.0, 30.0], np.float32)
    _, reward, terminated, _, info = simulator.step(stay)
    assert terminated
    assert info["success"]
    assert reward == pytest.approx(1.0)
    block.position = (100.0, 400.0)
    _, _, terminated, _, _ = simulator.step(stay)
    found = simulator.metrics()
    assert not terminated
    assert found["score"] == 1.0
    assert found["max_coverage"] > 0.95
    assert found["final_coverage"] < 0.5


def test_an_episode_lasts_300_steps() -> None:
    simulator = simulators.make("pusht", "pusht")
    simulator.reset(seed=100_001)
    corner = np.array([20.0, 20.0], np.float32)
    cut = [simulator.step(corner)[3] for _ in range(300)]
    assert not any(cut[:-1])
    assert cut[-1]


def test_the_first_picture_shows_nothing_of_the_episode_before() -> None:
    """A picture shows where the agent was sent last."""
    fresh, used = simulators.make("pusht", "pusht"), simulators.make("pusht", "pusht")
    used.reset(seed=100_001)
    used.step(np.array([400.0, 60.0], np.float32))
    for simulator in (fresh, used):
        simulator.reset(seed=100_000)
    np.testing.assert_array_equal(used.picture(), fresh.picture())
    used.step(np.array([400.0, 60.0], np.float32))
    red = (used.picture() == [255, 0, 0]).all(axis=-1)
    assert red.any()

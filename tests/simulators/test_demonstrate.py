"""Experts' episodes: reproducible, successful, labelled by what the expert meant; the bundled sample is one run of it."""

import pathlib

import numpy as np
import pytest

import ebt_jax
from ebt_jax import simulators
from ebt_jax.data.mixture import episodes, open_mixture
from ebt_jax.data.settings import DataSettings, bundled_sample_dir
from ebt_jax.simulators.demonstrate import HOLD, dataset_spec, demonstrate, demonstrations
from ebt_jax.simulators.simulator import Simulator, demonstration_state


@pytest.fixture(scope="module")
def simulator() -> Simulator:
    return simulators.make("metaworld", "pick-place-v3")


def test_an_episode_is_a_function_of_its_state_and_noise(simulator: Simulator) -> None:
    one, again = demonstrate(simulator, 5, 0.1), demonstrate(simulator, 5, 0.1)
    np.testing.assert_array_equal(one.actions, again.actions)
    np.testing.assert_array_equal(one.observations["state"], again.observations["state"])
    other = demonstrate(simulator, 5, 0.0)
    assert len(other.actions) != len(one.actions) or np.abs(other.actions - one.actions).max() > 1e-4


def test_labels_are_the_experts_and_execution_is_noisy(simulator: Simulator) -> None:
    noisy, clean = demonstrate(simulator, 6, 0.3), demonstrate(simulator, 6, 0.0)
    np.testing.assert_array_equal(noisy.actions[0], clean.actions[0])  # the same state, so the same label
    drift = np.abs(noisy.observations["state"][1, :3] - clean.observations["state"][1, :3])
    assert drift.max() > 1e-5
    assert np.all((noisy.actions >= simulator.action_space.low) & (noisy.actions <= simulator.action_space.high))


def test_an_episode_ends_a_few_steps_after_the_first_success(simulator: Simulator) -> None:
    episode = demonstrate(simulator, 7, 0.0)
    simulator.reset(seed=7)
    successes = [simulator.step(action)[2] for action in episode.actions]
    assert successes.index(True) == len(episode.actions) - HOLD
    assert episode.terminal


def test_failures_are_not_demonstrations(simulator: Simulator, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(simulator, "expert_action", lambda: np.array([0.01, 0, 0, 1], np.float32))
    assert demonstrate(simulator, 8, 0.0) is None


def test_episodes_come_in_the_order_of_their_states_from_any_number_of_processes(simulator: Simulator) -> None:
    expected = [demonstrate(simulator, demonstration_state(4, attempt), 0.1) for attempt in range(3)]
    found = list(demonstrations("metaworld", "pick-place-v3", (), 3, seed=4, noise=0.1, num_processes=2))
    for one, other in zip(expected, found, strict=True):
        assert one.source == other.source
        np.testing.assert_array_equal(one.actions, other.actions)


def test_the_bundled_sample_is_what_the_command_writes(simulator: Simulator, tmp_path: pathlib.Path) -> None:
    sample = DataSettings(
        bundled_sample_dir(), "metaworld_pick_place_v3", 1, 1, language="none", validation_fraction=0.0, cache_dir=str(tmp_path)
    )
    mixture = open_mixture(sample)
    first = next(episodes(mixture, "train"))
    again = demonstrate(simulator, demonstration_state(0, 0), 0.1)
    np.testing.assert_allclose(first.actions, again.actions, atol=1e-6)
    np.testing.assert_allclose(first.observation.proprio[:, 0], again.observations["state"], atol=1e-6)
    assert mixture.datasets[0].statistics.num_episodes == 100
    recorded = mixture.datasets[0].entry.spec
    assert dataset_spec("metaworld_pick_place_v3", "metaworld", (), recorded.source) == recorded


def test_the_sample_is_small_enough_to_come_with_the_package() -> None:
    folder = pathlib.Path(ebt_jax.__file__).parent / "sample"
    assert sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) < 5e6

"""Open-loop errors of policies whose errors are known, on the bundled sample."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from formulas import formula_policy, suite_specs
from jaxtyping import Array, Float

from ebt_jax.data.mixture import TOKENS, Mixture
from ebt_jax.data.settings import bundled_sample_dir
from ebt_jax.evaluation.open_loop import open_dataset, open_loop
from ebt_jax.policy import Policy
from ebt_jax.types import Keys

SAMPLE = "metaworld_pick_place_v3"


def constant(normalised: list[float]) -> Policy:
    """Always the same action, [-1, 1]."""

    def rule(proprio: Float[Array, "b t p"], keys: Keys, horizon: int) -> Float[Array, "b h a"]:
        return jnp.broadcast_to(jnp.array(normalised), (len(proprio), horizon, 4))

    specs = suite_specs("metaworld", action_horizon=3)
    return formula_policy(dataclasses.replace(specs, observation=dataclasses.replace(specs.observation, language=TOKENS)), rule)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    return open_dataset(constant([0.0] * 4), bundled_sample_dir(), SAMPLE, str(tmp_path_factory.mktemp("cache")))


def test_errors_are_in_robot_units_and_normalised(mixture: Mixture) -> None:
    found = open_loop(constant([0.5, 0.0, 0.0, 1.0]), mixture, "train", 0, seed=0)
    actions = mixture.datasets[0].train.index.columns["action"]
    assert (found["episodes"], found["steps"]) == (100, len(actions))
    expected = np.sqrt(((np.array([0.005, 0, 0, 1.0]) - actions) ** 2).mean(0))
    np.testing.assert_allclose(list(found["first_rmse"].values()), expected, rtol=1e-4)
    assert list(found["rmse"]) == ["hand_x", "hand_y", "hand_z", "gripper"]
    assert found["relative_mse"] == pytest.approx(found["mse"] / found["mean_action_mse"])


def test_acting_the_mean_is_the_yardstick(mixture: Mixture) -> None:
    policy = constant([0.0] * 4)
    policy = dataclasses.replace(policy, statistics=mixture.statistics)
    normalised = (mixture.statistics.action.mean - [0, 0, 0, 0.5]) / [0.01, 0.01, 0.01, 0.5]
    mean = dataclasses.replace(constant(normalised.tolist()), statistics=mixture.statistics)
    found = open_loop(mean, mixture, "train", 5, seed=0)
    assert found["relative_mse"] == pytest.approx(1.0, abs=1e-5)
    assert found["rmse"] == pytest.approx(found["mean_action_rmse"], rel=1e-4)
    assert open_loop(policy, mixture, "train", 5, seed=0)["mse"] != pytest.approx(found["mse"], rel=1e-3)


def test_a_policy_that_reads_less_of_the_state_opens_the_dataset_so(tmp_path: pathlib.Path) -> None:
    policy = constant([0.0] * 4)
    hand = dataclasses.replace(policy.specs.observation, proprio=policy.specs.observation.proprio[:3])
    opened = open_dataset(
        dataclasses.replace(policy, specs=dataclasses.replace(policy.specs, observation=hand)), bundled_sample_dir(), SAMPLE, str(tmp_path)
    )
    assert opened.specs.observation.proprio == hand.proprio
    assert opened.example_batch(2).observation.proprio.shape[2] == 3


def test_a_dataset_of_another_robot_is_refused(tmp_path: pathlib.Path) -> None:
    def rule(proprio: Float[Array, "b t p"], keys: Keys, horizon: int) -> Float[Array, "b h a"]:
        return jnp.zeros((len(proprio), horizon, 2))

    with pytest.raises(ValueError, match=r"dataset 'metaworld_pick_place_v3' must match the specs"):
        open_dataset(formula_policy(suite_specs("pusht"), rule), bundled_sample_dir(), SAMPLE, str(tmp_path))

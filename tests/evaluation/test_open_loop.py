"""Open-loop errors of policies whose errors are known, on the bundled sample."""

import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from formulas import constant_policy, formula_policy, suite_specs
from jaxtyping import Array, Float

from ebt_jax.data.mixture import Mixture, episodes, open_mixture
from ebt_jax.data.settings import DataSettings, Filters, bundled_sample_dir
from ebt_jax.evaluation.open_loop import open_dataset, open_loop, trained_on, which_episodes
from ebt_jax.policy import Experiment
from ebt_jax.types import Keys

SAMPLE = "metaworld_pick_place_v3"


RUN = Experiment((SAMPLE,), {"validation_fraction": 0.0, "validation_folds": 20, "validation_fold": 3, "seed": 7}, {"suite": ""})


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    return open_dataset(constant_policy([0.0] * 4), bundled_sample_dir(), SAMPLE, str(tmp_path_factory.mktemp("cache")))


def test_errors_are_in_robot_units_and_normalised(mixture: Mixture) -> None:
    found = open_loop(constant_policy([0.5, 0.0, 0.0, 1.0]), mixture, "train", 0, seed=0)
    actions = mixture.datasets[0].train.index.columns["action"]
    assert (found["episodes"], found["steps"]) == (100, len(actions))
    expected = np.sqrt(((np.array([0.005, 0, 0, 1.0]) - actions) ** 2).mean(0))
    np.testing.assert_allclose(list(found["first_rmse"].values()), expected, rtol=1e-4)
    assert list(found["rmse"]) == ["hand_x", "hand_y", "hand_z", "gripper"]
    assert found["relative_mse"] == pytest.approx(found["mse"] / found["mean_action_mse"])
    each = found["episode"]
    assert len({one["name"] for one in each}) == 100
    assert sum(one["length"] for one in each) == found["steps"]
    real = [3 * one["length"] - 3 for one in each]  # the last two chunks of an episode lack three rows
    assert np.average([one["mse"] for one in each], weights=real) == pytest.approx(found["mse"], rel=1e-5)


def test_acting_the_mean_is_the_yardstick(mixture: Mixture) -> None:
    policy = constant_policy([0.0] * 4)
    policy = dataclasses.replace(policy, statistics=mixture.statistics)
    normalised = (mixture.statistics.action.mean - [0, 0, 0, 0.5]) / [0.01, 0.01, 0.01, 0.5]
    mean = dataclasses.replace(constant_policy(normalised.tolist()), statistics=mixture.statistics)
    found = open_loop(mean, mixture, "train", 5, seed=0)
    assert found["relative_mse"] == pytest.approx(1.0, abs=1e-5)
    assert found["rmse"] == pytest.approx(found["mean_action_rmse"], rel=1e-4)
    assert open_loop(policy, mixture, "train", 5, seed=0)["mse"] != pytest.approx(found["mse"], rel=1e-3)


def test_the_splits_are_those_of_the_run(tmp_path: pathlib.Path) -> None:
    """Of a dataset that it learnt from, as training itself opens it; all episodes of any other."""
    folder, policy = bundled_sample_dir(), constant_policy([0.0] * 4, RUN)
    names = lambda mixture, split: [episode.name for episode in episodes(mixture, split)]
    opened = open_dataset(policy, folder, SAMPLE, str(tmp_path), as_trained=True)
    run = open_mixture(DataSettings(folder, SAMPLE, action_horizon=3, cache_dir=str(tmp_path), **RUN.held_out))
    for split, count in (("train", 95), ("validation", 5)):
        assert names(opened, split) == names(run, split)
        assert len(names(opened, split)) == count
    assert len(open_dataset(policy, folder, SAMPLE, str(tmp_path)).main.train.episodes) == 100
    elsewhere = constant_policy([0.0] * 4, RUN._replace(datasets=("another",)))
    other = open_dataset(elsewhere, folder, SAMPLE, str(tmp_path), as_trained=True)
    assert len(other.main.train.episodes) == 100
    with pytest.raises(ValueError, match="--split=train of evaluate"):
        other.split("validation")


def test_the_splits_are_filtered_as_in_the_run(tmp_path: pathlib.Path) -> None:
    folder = bundled_sample_dir()
    lengths = [
        len(episode.actions) for episode in episodes(open_dataset(constant_policy([0.0] * 4), folder, SAMPLE, str(tmp_path)), "train")
    ]
    least = int(np.median(lengths)) + 1
    policy = constant_policy([0.0] * 4, RUN._replace(held_out={**RUN.held_out, "filters": {"min_steps": least}}))
    policy = dataclasses.replace(policy, identity=policy.identity._replace(robot=SAMPLE))
    with pytest.raises(ValueError, match=r"must hold what the policy's run learnt from.* got \d+ of \d+.*Bring the files back"):
        open_dataset(policy, folder, SAMPLE, str(tmp_path), as_trained=True)  # a formula learnt from nothing
    run = open_mixture(
        DataSettings(folder, SAMPLE, action_horizon=3, cache_dir=str(tmp_path), filters=Filters(min_steps=least), **RUN.held_out)
    )
    policy = dataclasses.replace(policy, statistics=run.statistics)
    opened = open_dataset(policy, folder, SAMPLE, str(tmp_path), as_trained=True)
    kept = [len(episode.actions) for split in ("train", "validation") for episode in episodes(opened, split)]
    assert sorted(kept) == sorted(length for length in lengths if length >= least)
    assert len(open_dataset(policy, folder, SAMPLE, str(tmp_path)).main.train.episodes) == 100


@pytest.mark.parametrize(
    ("datasets", "init_from", "split", "learnt", "words"),
    [
        ((SAMPLE,), "", "train", True, "the policy was trained on"),
        ((SAMPLE,), "", "validation", False, "held out of the policy's training"),
        (("another",), "", "train", False, "of a dataset the policy was not trained on"),
        ((SAMPLE,), "runs/a", "train", True, "the policy was trained on"),
        ((SAMPLE,), "runs/a", "validation", None, "held out of its run (but it started from runs/a, which may have)"),
        (
            ("another",),
            "runs/a",
            "train",
            None,
            "of a dataset that its run did not learn from (but it started from runs/a, which may have)",
        ),
        (None, "", "train", None, "that the policy may have been trained on"),
    ],
)
def test_it_is_said_whether_episodes_were_learnt_from(
    datasets: tuple[str, ...] | None, init_from: str, split: str, learnt: bool | None, words: str
) -> None:
    policy = constant_policy([0.0] * 4, RUN._replace(datasets=datasets, init_from=init_from) if datasets else None)
    assert trained_on(policy, SAMPLE, split) is learnt
    assert which_episodes(policy, SAMPLE, split) == words


def test_a_policy_that_reads_less_of_the_state_opens_the_dataset_so(tmp_path: pathlib.Path) -> None:
    policy = constant_policy([0.0] * 4)
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

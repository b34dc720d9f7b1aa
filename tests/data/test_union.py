"""Datasets of different robots in one space: columns by name and kind, masks for what is lacking, each in its own statistics."""

import dataclasses

import numpy as np
import pytest
import toy_rlds
from toy_rlds import ARM

from ebt_jax.data.loader import make_loader, whose
from ebt_jax.data.mixture import episodes, open_mixture
from ebt_jax.data.union import merge, unite
from ebt_jax.normalize import Normalizer, Statistics, VectorStatistics, unnormalize
from ebt_jax.specs import ActionDimension


@pytest.fixture
def arm(make_folder):
    make_folder("arm", toy_rlds.STEPS, {"train": toy_rlds.arm_shards()}, ARM)


def test_numbers_are_the_same_where_name_and_kind_agree():
    absolute = dataclasses.replace(ARM, action=(ActionDimension("episode", "eef_absolute", "m"),))
    joined = unite([toy_rlds.SPEC, ARM, absolute], main=1)
    assert [dimension.name for dimension in joined.action] == ["episode", "joint_0", "gripper", "step", "episode (eef_absolute)"]
    assert [place.action.tolist() for place in joined.places] == [[0, 3, 2], [0, 1, 2], [4]]
    assert [dimension.name for dimension in joined.proprio] == ["episode", "joint_0", "step"]
    assert [place.proprio.tolist() for place in joined.places] == [[0, 2], [0, 1], [0, 1]]


def test_statistics_are_the_main_dataset_s_first():
    joined = unite([toy_rlds.SPEC, ARM], main=1)

    def of(values):
        return Statistics(VectorStatistics.of(np.array([values, values])), VectorStatistics.of(np.array([values[:2]] * 2)), 2, 1)

    merged = merge([of([1, 2, 3]), of([10, 20, 30])], joined.places, main=1)
    np.testing.assert_array_equal(merged.action.mean, [10, 20, 30, 2])
    np.testing.assert_array_equal(merged.proprio.mean, [10, 20, 2])


def test_datasets_that_differ_train_together_only_when_asked(toy, arm, settings):
    mix = {"toy": 3.0, "arm": 1.0}
    with pytest.raises(ValueError, match=r"(?s)equal specs, got 'arm' beside 'toy'.*with masks: combine=\"union\""):
        open_mixture(settings(mixture=mix))
    mixture = open_mixture(settings(mixture=mix, combine="union"))
    assert [dimension.name for dimension in mixture.specs.action.dimensions] == ["episode", "step", "gripper", "joint_0"]
    assert [dimension.name for dimension in mixture.specs.observation.proprio] == ["episode", "step", "joint_0"]
    assert (mixture.specs.action.control_rate_hz, mixture.specs.action.frame) == (10.0, "base")
    assert mixture.specs.observation.language.kind == "tokens"
    lines = mixture.describe().splitlines()
    assert "eef_delta episode step [m], gripper" in lines[1]
    assert "masked" in lines[2]
    assert lines[2].endswith("unknown  eef_delta episode [m], joint_delta joint_0 [rad], gripper")


def test_what_a_dataset_lacks_is_masked(toy, arm, settings):
    mixture = open_mixture(settings(mixture={"toy": 1.0, "arm": 1.0}, combine="union"))
    batch = next(make_loader(mixture, "train", 64, seed=0, num_threads=1, prefetch=1))
    assert batch.actions.shape == (64, 4, 4)
    has_joint = batch.action_mask[:, 0, 3]
    assert 0 < has_joint.sum() < 64
    np.testing.assert_array_equal(batch.action_mask[:, 0, 1], ~has_joint)
    assert batch.action_mask[:, 0, [0, 2]].all()
    np.testing.assert_array_equal(batch.observation.action_present, batch.action_mask[:, 0])
    assert (batch.actions[~has_joint][..., 3] == 0).all()
    assert (batch.actions[has_joint][..., 1] == 0).all()
    assert (batch.observation.proprio[~has_joint][..., 2] == 0).all()
    assert not batch.observation.language_mask[has_joint].any()
    assert batch.observation.language_mask[~has_joint].any(axis=1).all()
    assert not batch.observation.image_masks["primary"][has_joint].any()
    arm = mixture.datasets[1].action_normalizer
    back = unnormalize(batch.actions[has_joint][:, 0, [0, 3]], Normalizer(arm.shift[[0, 1]], arm.scale[[0, 1]]))
    assert set(np.rint(back[:, 0])) <= {20, 21, 22}
    assert set(np.rint(back[:, 1])) <= {5, 6, 7, 8}


def test_the_policy_s_numbers_are_the_main_dataset_s(toy, arm, settings):
    mixture = open_mixture(settings(mixture={"toy": 3.0, "arm": 1.0}, combine="union"))
    assert mixture.statistics.action.max.tolist() == [7, 8, 1, 8]
    assert len(mixture.action_normalizer.shift) == 4
    assert len(mixture.proprio_normalizer.shift) == 3
    assert mixture.example_batch().actions.shape == (1, 4, 4)


def test_whole_episodes_come_in_the_mixture_s_columns(toy, arm, settings):
    mixture = open_mixture(settings(mixture={"toy": 3.0, "arm": 1.0}, combine="union"))
    last = list(episodes(mixture, "train"))[-1]
    np.testing.assert_array_equal(last.actions[:, [0, 3, 2]], toy_rlds.arm_moves(2))
    assert (last.actions[:, 1] == 0).all()


def test_a_dataset_alone_is_its_own_union(toy, settings):
    alone, joined = (open_mixture(settings(combine=combine)) for combine in ("equal", "union"))
    assert alone.specs == joined.specs
    np.testing.assert_array_equal(alone.example_batch(5).actions, joined.example_batch(5).actions)
    np.testing.assert_array_equal(alone.action_normalizer.scale, joined.action_normalizer.scale)


def test_every_held_out_row_is_of_a_dataset_and_in_its_unit(make_folder, settings):
    """Read back in robot units by `whose` and `units`; what a dataset lacks, or counts otherwise, has scale 0."""
    spec = dataclasses.replace(ARM, action=(*ARM.action[:2], dataclasses.replace(ARM.action[2], unit="cm")))
    (episodes,) = toy_rlds.arm_shards()
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards(), "val": [[toy_rlds.make_episode(9, 3)]]}, toy_rlds.SPEC)
    make_folder("arm", toy_rlds.STEPS, {"train": [episodes[:2]], "val": [episodes[2:]]}, spec)
    mixture = open_mixture(settings(mixture={"toy": 3.0, "arm": 1.0}, combine="union"))
    assert [dimension.name for dimension in mixture.specs.action.dimensions] == ["episode", "step", "gripper", "joint_0"]
    np.testing.assert_array_equal(mixture.units.scale > 0, [[True, True, True, False], [True, False, False, True]])
    of = np.concatenate(list(whose(mixture, 4, seed=0)))
    actions = np.concatenate([batch.actions[:, 0] for batch in make_loader(mixture, "validation", 4, seed=0, num_threads=0)])
    assert sorted(of[:7]) == [0] * 3 + [1] * 4
    away = (actions - mixture.units.mean[of]) * mixture.units.scale[of]
    means = [dataset.statistics.action.mean[0] for dataset in mixture.datasets]
    np.testing.assert_allclose(away[:, 0] + np.take(means, of), np.where(of == 0, 9, 22), atol=1e-4)
    halves = [list(whose(mixture, 4, 0, process_index=i, process_count=2)) for i in range(2)]
    np.testing.assert_array_equal(np.concatenate([np.concatenate(parts) for parts in zip(*halves, strict=True)]), of)

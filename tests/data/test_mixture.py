"""Datasets opened together: specs, statistics, splits; what does not fit is refused with the difference."""

import dataclasses
import json
import os
import shutil

import numpy as np
import pytest
import toy_rlds
from quadratic import quadratic_policy

from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import episodes, open_mixture
from ebt_jax.data.settings import Filters
from ebt_jax.normalize import unnormalize
from ebt_jax.policy import empty_batch
from ebt_jax.specs import ActionDimension, Specs


def _second(make_folder, name="second", **changes):
    """Another dataset like the toy, with episodes 10, 11, ... in it."""
    spec = dataclasses.replace(toy_rlds.SPEC, name=name, **changes)
    shard = [{**toy_rlds.make_episode(10 + number, 4), "language_instruction": [b"second"] * 4} for number in range(6)]
    make_folder(name, toy_rlds.STEPS, {"train": [shard]}, spec)


def test_specs_say_what_the_policy_meets(toy, settings):
    specs = open_mixture(settings(image_size=32, observation_horizon=3, action_horizon=5)).specs
    assert [(camera.name, camera.height, camera.width) for camera in specs.observation.cameras] == [("primary", 32, 32)]
    assert specs.observation.proprio == toy_rlds.SPEC.proprio
    assert specs.observation.language.kind == "tokens"
    assert specs.observation.horizon == 3
    assert specs.action.dimensions == toy_rlds.SPEC.action
    assert (specs.action.frame, specs.action.horizon, specs.action.control_rate_hz) == ("base", 5, 10.0)
    assert Specs.from_json(specs.to_json()) == specs


def test_numbers_are_normalised_by_the_training_statistics(toy, settings):
    mixture = open_mixture(settings())
    batch = mixture.example_batch(sum(toy_rlds.LENGTHS))
    actions = batch.actions[:, 0]
    np.testing.assert_allclose(actions.min(0), -1, atol=1e-6)
    np.testing.assert_allclose(actions.max(0), 1, atol=1e-6)
    newest = batch.observation.proprio[:, -1]
    np.testing.assert_allclose(newest.mean(0), 0, atol=1e-5)
    np.testing.assert_allclose(newest.std(0), 1, atol=1e-5)
    back = unnormalize(actions, mixture.action_normalizer)
    np.testing.assert_allclose(back[:5, 1], np.arange(5), atol=1e-5)
    assert mixture.num_transitions == sum(toy_rlds.LENGTHS)
    assert isinstance(mixture.action_normalizer.shift, np.ndarray)


def test_one_number_far_out_is_clipped_under_quantile(make_folder, settings):
    """Of 384 steps one is wrong by a thousand: it is trained on as 5, everything else as it was."""
    shard = [toy_rlds.make_episode(number, 24) for number in range(16)]
    shard[3]["action"][5, 1] = 1000.0
    make_folder("toy", toy_rlds.STEPS, {"train": [shard]}, toy_rlds.SPEC)
    mixture = open_mixture(settings(normalization="quantile", cameras=()))
    actions = mixture.example_batch(384).actions[:, 0]
    assert [np.count_nonzero(np.abs(actions) > 1.5), actions.max()] == [1, 5.0]
    back = unnormalize(actions, mixture.action_normalizer)
    np.testing.assert_allclose(np.delete(back[:, 1], 3 * 24 + 5), np.delete(np.tile(np.arange(24), 16), 3 * 24 + 5), atol=1e-4)
    assert open_mixture(settings(normalization="mean_std", cameras=())).example_batch(384).actions.max() > 15


def test_a_policy_sees_a_state_far_out_as_it_was_trained_on(make_folder, settings):
    shard = [toy_rlds.make_episode(number, 24) for number in range(16)]
    shard[3]["observation/state"][5, 1] = -1e5
    make_folder("toy", toy_rlds.STEPS, {"train": [shard]}, toy_rlds.SPEC)
    mixture = open_mixture(settings(proprio_normalization="quantile", cameras=(), observation_horizon=1))
    trained_on = mixture.example_batch(384).observation.proprio
    told = np.concatenate([episode.observation.proprio for episode in episodes(mixture, "train")])
    policy = dataclasses.replace(quadratic_policy(), specs=mixture.specs, proprio_normalizer=mixture.proprio_normalizer)
    observation = empty_batch(mixture.specs, len(told)).observation._replace(proprio=told)
    np.testing.assert_array_equal(policy.prepare(observation).proprio, trained_on)
    assert trained_on.min() == -5.0


def test_numbers_whose_bulk_hardly_moves_are_named(make_folder, settings, caplog):
    """The filter counts in units of the bulk, and what it leaves out is not warned of."""
    shard = [toy_rlds.make_episode(number, 24) for number in range(16)]
    shard[3]["action"][5, 1] = -1e6
    shard[4]["observation/state"][:, 1] = 0
    for episode in shard:
        episode["observation/state"][:, 0] = 0
    shard[5]["observation/state"][0, 0] = 0.2
    make_folder("toy", toy_rlds.STEPS, {"train": [shard]}, toy_rlds.SPEC)
    chosen = settings(normalization="quantile", proprio_normalization="quantile", cameras=())
    with caplog.at_level("WARNING"):
        mixture = open_mixture(chosen)
    action, state = (record.message for record in caplog.records)
    assert action.startswith("toy: step (eef_delta) lies between 0 and 23 at 98 % of the steps and reaches -1e+06 and 23: 11.5 of it are 1")
    assert state.startswith("toy: episode (state) lies between 0 and 0 at 98 % of the steps and reaches 0 and 0.2: 0.1 of it are 1 to")
    assert mixture.example_batch(384).actions[:24, 0, 1].std() > 0.5
    caplog.clear()
    with caplog.at_level("WARNING"):
        filtered = open_mixture(dataclasses.replace(chosen, filters=Filters(max_action=5.0)))
    assert filtered.main.left_out == {"episodes out of range": 1}
    assert [record.message.split()[1] for record in caplog.records] == ["episode"]


def test_the_dataset_s_own_validation_split_is_used_without_a_fraction(make_folder, settings):
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards(), "val": [[toy_rlds.make_episode(9, 3)]]}, toy_rlds.SPEC)
    assert [len(split) for split in open_mixture(settings()).split("validation")] == [3]
    held = open_mixture(settings(validation_folds=4))
    assert len(held.split("validation")[0].episodes) == 2
    assert held.num_transitions + len(held.split("validation")[0]) == sum(toy_rlds.LENGTHS)


def test_an_own_validation_split_without_records_is_passed_over(make_folder, settings):
    splits = {"train": toy_rlds.shards(), "val": [[], []], "test": [[toy_rlds.make_episode(9, 3)]]}
    make_folder("toy", toy_rlds.STEPS, splits, toy_rlds.SPEC)
    assert [len(split) for split in open_mixture(settings()).split("validation")] == [3]


def test_no_validation_split_and_no_fraction_says_what_to_do(toy, settings):
    with pytest.raises(ValueError, match=r"none of toy with .* own split val or validation or test.*set validation_fraction above 0"):
        open_mixture(settings()).split("validation")
    with pytest.raises(ValueError, match=r"got none of toy with validation_fraction 1e-09\. Hold more out"):
        open_mixture(settings(validation_fraction=1e-9)).split("validation")
    with pytest.raises(ValueError, match="split must be 'train' or 'validation', got 'test'"):
        open_mixture(settings()).split("test")


@pytest.mark.parametrize("empty", [0, 1])
def test_a_dataset_of_a_mixture_may_hold_out_nothing(make_folder, settings, caplog, empty):
    """Its name is said once; the others validate, whichever place it has."""
    names = ("second", "toy") if empty == 0 else ("toy", "second")
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards(), "val": [[toy_rlds.make_episode(9, 3)]]}, toy_rlds.SPEC)
    _second(make_folder)
    mixture = open_mixture(settings(mixture=dict.fromkeys(names, 1.0)))
    with caplog.at_level("WARNING"):
        for _ in range(2):
            assert [len(part) for part in mixture.split("validation")] == ([0, 3] if empty == 0 else [3, 0])
    assert [record.message for record in caplog.records] == ["validation says nothing of second: no episode is held out of it"]
    (batch,) = make_loader(mixture, "validation", 4, seed=0, num_threads=0)
    assert batch.action_mask.any(axis=(1, 2)).tolist() == [True] * 3 + [False]
    assert [episode.instruction for episode in episodes(mixture, "validation")] == ["task 0"]
    with pytest.raises(ValueError, match="got none of .*toy"):  # the filters take what is held out, and leave what trains
        open_mixture(dataclasses.replace(mixture.settings, filters=Filters(min_steps=4))).split("validation")


def test_a_mixture_keeps_each_dataset_s_numbers(toy, make_folder, settings):
    _second(make_folder)
    mixture = open_mixture(settings(mixture={"toy": 1.0, "second": 3.0}))
    assert [dataset.weight for dataset in mixture.datasets] == [0.25, 0.75]
    assert mixture.statistics.action.max[0] == 15  # of the dataset with the larger weight
    assert mixture.datasets[0].statistics.action.max[0] == 7
    table = mixture.describe().splitlines()
    assert table[0].split()[:3] == ["dataset", "version", "share"]
    assert table[1].split()[:5] == ["toy", "1.0.0", "0.250", "8", "37"]
    assert table[2].split()[:5] == ["second", "1.0.0", "0.750", "6", "24"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control_rate_hz": 20.0}, r"control rate \(Hz\): expected 10\.0, got 20\.0"),
        ({"action_frame": "tool"}, "action frame: expected base, got tool"),
        ({"action": (*toy_rlds.SPEC.action[:2], ActionDimension("finger", "gripper", "", 0.0, 1.0))}, r"action dimensions\[2\]"),
        ({"proprio": (), "proprio_keys": ()}, "proprio: expected"),
        ({"language_key": ""}, "language"),
    ],
)
def test_datasets_that_differ_are_refused_with_the_difference(toy, make_folder, settings, changes, message):
    _second(make_folder, **changes)
    with pytest.raises(ValueError, match=rf"'second' beside 'toy' with:\n.*{message}"):
        open_mixture(settings(mixture={"toy": 1.0, "second": 1.0}))


def test_a_camera_must_exist_somewhere(toy, make_folder, settings):
    with pytest.raises(ValueError, match=r"cameras must be among those of the data, \['primary'\], got \['wrist'\]"):
        open_mixture(settings(cameras=("primary", "wrist")))
    _second(make_folder, cameras={})
    mixture = open_mixture(settings(mixture={"toy": 1.0, "second": 2.0}))
    assert not mixture.example_batch().observation.image_masks["primary"].any()


def test_cameras_that_are_not_used_are_named(toy, make_folder, settings):
    """A policy that is shown one of two cameras looks like any other until it acts."""
    _second(make_folder, cameras={"primary": "observation/image", "wrist": "observation/image"})
    mix = {"toy": 1.0, "second": 1.0}
    assert "cameras not used" not in open_mixture(settings(mixture=mix, cameras=("goal_primary", "wrist"))).describe()
    assert open_mixture(settings(mixture=mix)).describe().splitlines()[3:] == ["cameras not used: wrist"]
    assert open_mixture(settings(mixture=mix, cameras=())).describe().endswith("\ncameras not used: primary, wrist")


def test_undescribed_datasets_list_the_known_ones_and_their_own_features(make_folder, settings):
    make_folder("mine", toy_rlds.STEPS, {"train": toy_rlds.shards()})
    with pytest.raises(ValueError, match=r"'mine' must have an ebt_spec\.json .*'bridge', 'bridge_dataset'.*'observation/image'"):
        open_mixture(settings(mixture="mine"))


def test_language_that_is_not_there_is_refused(toy, settings):
    with pytest.raises(ValueError, match=r"language of 'toy' must be one of \['auto', 'tokens', 'none'\], got 'embedding'"):
        open_mixture(settings(language="embedding"))


def test_a_share_may_be_less_than_a_visit_in_any_number_of_rows(toy, make_folder, settings):
    _second(make_folder)
    mixture = open_mixture(settings(mixture={"toy": 1.0, "second": 1e-6}, windows_per_visit=16))
    assert next(make_loader(mixture, "train", 8, seed=0, start_step=10**6, num_threads=0)).actions.shape == (8, 4, 3)


def test_a_bad_spec_file_is_named(toy, settings):
    tree = json.loads((toy / "ebt_spec.json").read_text())
    (toy / "ebt_spec.json").write_text(json.dumps({**tree, "colour": 1}))
    with pytest.raises(ValueError, match=r"ebt_spec\.json must be JSON as .*colour"):
        open_mixture(settings())


def test_episodes_come_whole_and_in_robot_units(toy, settings):
    mixture = open_mixture(settings(observation_horizon=2))
    found = list(episodes(mixture, "train"))
    assert [len(episode.actions) for episode in found] == list(toy_rlds.LENGTHS)
    for number, episode in enumerate(found):
        expected = toy_rlds.make_episode(number, toy_rlds.LENGTHS[number])
        np.testing.assert_array_equal(episode.actions, expected["action"])
        np.testing.assert_array_equal(episode.observation.proprio[:, -1], expected["observation/state"])
        assert episode.observation.images["primary"].shape == (len(episode.actions), 2, 8, 8, 3)
        assert episode.instruction == f"task {number % 3}"
    assert found[0].name.startswith("toy/toy-train.")
    assert len({episode.name for episode in found}) == 8


def test_weights_may_multiply_the_number_of_steps(toy, make_folder, settings):
    _second(make_folder)
    mixture = open_mixture(settings(mixture={"toy": 1.0, "second": 0.5}, weighting="transitions"))
    assert [dataset.weight for dataset in mixture.datasets] == pytest.approx([37 / 49, 12 / 49])
    assert mixture.main.folder.name == "toy"


def test_all_that_is_missing_is_said_at_once(toy, settings):
    with pytest.raises(FileNotFoundError, match=r"(?s)'nothing' must lie at .*'neither' must lie at "):
        open_mixture(settings(mixture={"toy": 1.0, "nothing": 1.0, "neither": 1.0}))


def test_what_is_refused_is_said_at_once_before_anything_is_read(make_folder, settings, cache):
    make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    for name in ("left", "right"):
        _second(make_folder, name, cameras={"primary": f"observation/{name}"})
    with pytest.raises(ValueError, match=r"(?s)got \['observation/left'\].*got \['observation/right'\]"):
        open_mixture(settings(mixture={"toy": 1.0, "left": 1.0, "right": 1.0}))
    assert not cache.exists()


def test_a_manifest_keeps_what_a_run_saw_and_notices_other_data(toy, make_folder, settings):
    _second(make_folder)
    mixture = open_mixture(settings(mixture={"toy": 1.0, "second": 3.0}))
    first, second = json.loads(mixture.manifest())
    assert (first["name"], first["version"], first["share"]) == ("toy", "1.0.0", 0.25)
    assert second["statistics"]["num_transitions"] == 24
    assert first["spec"]["action"][0]["name"] == "episode"
    mixture.check_manifest(mixture.manifest())
    other = open_mixture(settings(mixture={"toy": 1.0, "second": 3.0}, validation_folds=2))
    changed = r"second: then version 1\.0\.0, share 0\.75, 6 episodes of 24 steps to train on, now version .* 3 episodes of 12 steps"
    with pytest.raises(ValueError, match=changed):
        other.check_manifest(mixture.manifest())
    with pytest.raises(ValueError, match="second: then version .* now absent"):
        open_mixture(settings()).check_manifest(mixture.manifest())


def test_a_manifest_tells_copies_of_a_dataset_apart_which_hold_out_the_same_episodes(toy, settings, tmp_path):
    shutil.copytree(toy.parent, tmp_path / "data" / "again")
    mixture = open_mixture(settings(mixture={"toy": 1.0, "again": 3.0}, validation_folds=2))
    mixture.check_manifest(mixture.manifest())
    trees = json.loads(mixture.manifest())
    assert [(tree["name"], tree["share"]) for tree in trees] == [("toy", 0.25), ("again", 0.75)]
    assert [line.split()[0] for line in mixture.describe().splitlines()[1:]] == ["toy", "again"]
    assert len({part.digest for part in mixture.split("validation")}) == 1
    trees[1]["statistics"]["num_episodes"] = 7
    with pytest.raises(ValueError, match=r"differences:\n  again: then .* 7 episodes .*, now .* 4 episodes [^\n]*\nBring them back"):
        mixture.check_manifest(json.dumps(trees))


def test_processes_with_other_rows_differ_and_with_copies_of_them_do_not(make_folder, settings, tmp_path):
    shards, held = toy_rlds.shards(), {"val": [[toy_rlds.make_episode(9, 3)]]}
    path = make_folder("toy", toy_rlds.STEPS, {"train": shards, **held}, toy_rlds.SPEC)
    first = open_mixture(settings())
    copied = shutil.copytree(tmp_path / "data", tmp_path / "copy")
    for file in copied.rglob("toy-train*"):
        os.utime(file, (1, 1))
    copy = open_mixture(settings(data_dir=str(copied), cache_dir=str(tmp_path / "elsewhere")))
    assert copy.main.train.index.cache.name != first.main.train.index.cache.name
    assert copy.rows(validating=True) == first.rows(validating=True)

    toy_rlds.write_folder(
        tmp_path / "fewer", "toy", toy_rlds.STEPS, {"train": shards, "val": [[toy_rlds.make_episode(8, 3)]]}, toy_rlds.SPEC
    )
    other = open_mixture(settings(data_dir=str(tmp_path / "fewer")))
    assert other.rows(validating=False) == first.rows(validating=False)
    assert other.rows(validating=True) != first.rows(validating=True)

    shutil.copytree(path, copied / "toy" / "1.0.1")
    info = copied / "toy" / "1.0.1" / "dataset_info.json"
    info.write_text(info.read_text().replace('"1.0.0"', '"1.0.1"'))
    newer = open_mixture(settings(data_dir=str(copied)))
    next(path.glob("toy-train*-00001-of-*")).unlink()
    damaged = open_mixture(settings(on_bad="skip"))
    assert len({mixture.rows(validating=False) for mixture in (first, newer, damaged)}) == 3


def test_a_policy_may_be_shown_less_of_the_state(toy, settings):
    whole = open_mixture(settings())
    names = [dimension.name for dimension in whole.specs.observation.proprio]
    assert len(names) > 1
    last = open_mixture(settings(proprio=(names[-1][:-1] + "?",)))
    assert [dimension.name for dimension in last.specs.observation.proprio] == names[-1:]
    batches = [mixture.batch(mixture.main, mixture.main.train, np.arange(4)).observation.proprio for mixture in (whole, last)]
    np.testing.assert_array_equal(batches[1], batches[0][..., -1:])
    np.testing.assert_array_equal(last.statistics.proprio.mean, whole.statistics.proprio.mean[-1:])
    nothing = open_mixture(settings(proprio=()))
    assert nothing.specs.observation.proprio == ()
    assert nothing.example_batch(3).observation.proprio.shape[2] == 0
    with pytest.raises(ValueError, match=r"proprio must be patterns of names among .* got \['nothing_\*'\]"):
        open_mixture(settings(proprio=("*", "nothing_*")))

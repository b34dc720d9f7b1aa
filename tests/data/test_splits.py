"""Held-out episodes: disjoint, reproducible, chosen by content; statistics see the training episodes only."""

import dataclasses

import numpy as np
import pytest
import toy_rlds
from etils import epath

from ebt_jax.data import jobs
from ebt_jax.data import statistics as merged
from ebt_jax.data.folder import read_folder
from ebt_jax.data.index import open_index
from ebt_jax.data.splits import RUN, Split, held_out, own_validation_split, statistics, train_split, validation_split
from ebt_jax.data.standardize import Entry

ENTRY = Entry(toy_rlds.SPEC)


def _index(path, split="train"):
    return open_index(read_folder(epath.Path(path)), split, ENTRY)


def _many(make_folder, count, name="toy"):
    episodes = [toy_rlds.make_episode(number, 1) for number in range(count)]
    return _index(make_folder(name, toy_rlds.STEPS, {"train": [episodes]}, toy_rlds.SPEC))


def test_every_window_is_an_episode_and_a_step(toy):
    index = _index(toy)
    split = Split(index, index.episodes[[0, 3, 4, 7]])
    assert len(split) == 5 + 3 + 9 + 4
    episodes, steps = split.locate(np.arange(len(split)))
    rows = index.columns["action"][episodes["start"] + steps]
    assert rows[:, :2].tolist() == [[number, step] for number in (0, 3, 4, 7) for step in range(toy_rlds.LENGTHS[number])]


def test_folds_are_equal_disjoint_and_together_everything(make_folder, settings):
    index = _many(make_folder, 25)
    folds = [held_out(index, "toy", settings(validation_folds=5, validation_fold=fold)) for fold in range(5)]
    assert [fold.sum() for fold in folds] == [5] * 5
    assert np.sum(folds, axis=0).tolist() == [1] * 25
    assert (held_out(index, "toy", settings(validation_folds=5, seed=1)) != folds[0]).any()


def test_a_fraction_holds_out_about_that_and_growing_data_move_nobody(make_folder, settings):
    chosen = settings(validation_fraction=0.3)
    some, more = _many(make_folder, 100), _many(make_folder, 200, "more")
    mask = held_out(some, "toy", chosen)
    assert 15 <= mask.sum() <= 45
    np.testing.assert_array_equal(held_out(more, "toy", chosen)[:100], mask)
    train, validation = train_split(some, "toy", chosen), validation_split(some, "toy", chosen)
    assert len(train.episodes) + len(validation.episodes) == 100
    assert not set(train.episodes["checksum"]) & set(validation.episodes["checksum"])


def test_copies_of_an_episode_stay_on_one_side(make_folder, settings):
    episodes = [toy_rlds.make_episode(number % 10, 2) for number in range(30)]
    index = _index(make_folder("toy", toy_rlds.STEPS, {"train": [episodes]}, toy_rlds.SPEC))
    for chosen in (settings(validation_fraction=0.4), settings(validation_folds=3)):
        mask = held_out(index, "toy", chosen)
        assert (mask[:10] == mask[10:20]).all()
        assert (mask[:10] == mask[20:]).all()


def test_nothing_held_out_is_empty_and_nothing_left_an_error(make_folder, settings):
    index = _many(make_folder, 2)
    assert len(validation_split(index, "toy", settings(validation_fraction=1e-9))) == 0
    with pytest.raises(ValueError, match=r"train split .* got none of 2 with validation_fraction 0\.99"):
        train_split(index, "toy", settings(validation_fraction=0.9999999))


def test_a_validation_split_of_the_dataset_must_be_other_episodes(make_folder):
    shards = toy_rlds.shards()
    path = make_folder("toy", toy_rlds.STEPS, {"train": shards, "val": [shards[1]], "test": [[toy_rlds.make_episode(9, 3)]]}, toy_rlds.SPEC)
    train = _index(path)
    with pytest.raises(ValueError, match=r"share no episode with its training split, got 3 in both.*validation_fraction"):
        own_validation_split(_index(path, "val"), train, "toy")
    assert len(own_validation_split(_index(path, "test"), train, "toy")) == 3


def test_statistics_are_those_of_the_training_rows_and_kept(toy, settings):
    index = _index(toy)
    split = train_split(index, "toy", settings(validation_folds=2))
    found = statistics(split)
    numbers = [int(index.columns["action"][episode["start"], 0]) for episode in split.episodes]
    rows = np.concatenate([toy_rlds.make_episode(number, toy_rlds.LENGTHS[number])["action"] for number in numbers])
    np.testing.assert_allclose(found.action.mean, rows.mean(0), rtol=1e-6)
    np.testing.assert_allclose(found.action.q99, np.quantile(rows.astype(np.float64), 0.99, axis=0))
    assert (found.num_episodes, found.num_transitions) == (4, len(rows))
    kept = list(index.cache.glob("statistics-*.json"))
    assert len(kept) == 1
    assert statistics(split).to_json() == found.to_json()
    kept[0].write_text(kept[0].read_text().replace('"num_episodes": 4', '"num_episodes": 44'))
    assert statistics(split).num_episodes == 44  # read, not computed again
    assert statistics(Split(index, index.episodes)).num_episodes == 8


def test_a_dataset_without_proprio_has_empty_statistics(make_folder):
    spec = dataclasses.replace(toy_rlds.SPEC, proprio=(), proprio_keys=())
    path = make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, spec)
    index = open_index(read_folder(epath.Path(path)), "train", Entry(spec))
    assert statistics(Split(index, index.episodes)).proprio.mean.shape == (0,)


def test_another_numbering_keeps_every_window_in_its_episode(make_folder):
    index = _index(make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC))
    split, numbers = Split(index, index.episodes), np.arange(sum(toy_rlds.LENGTHS))
    other = split.scatter(numbers, seed=1)
    assert sorted(other) == numbers.tolist()
    assert (other != numbers).any()
    np.testing.assert_array_equal(split.locate(other)[0]["start"], split.locate(numbers)[0]["start"])
    np.testing.assert_array_equal(split.scatter(numbers[5:9], seed=1), other[5:9])
    assert (split.scatter(numbers, seed=2) != other).any()


@pytest.mark.parametrize("size", [1, 2, 1000])
def test_parts_are_the_rows_of_all_windows_in_order(make_folder, size):
    index = _index(make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC))
    runs = np.array([(0, 1, 2), (2, 0, 1), (2, 3, 4)], RUN)
    split = Split(index, index.episodes[[0, 3, 4]], runs)
    parts = split.parts("action", size)
    rows = np.concatenate([block for part in parts for block in part(2)])
    assert len(parts) == {1: 3, 2: 2, 1000: 1}[size]
    assert rows[:, :2].tolist() == [[0, 1], [0, 2], [4, 0], [4, 3], [4, 4], [4, 5], [4, 6]]
    located, steps = split.locate(np.arange(len(split)))
    np.testing.assert_array_equal(index.columns["action"][located["start"] + steps], rows)


def test_episodes_of_no_step_at_the_end_are_no_block(make_folder):
    episodes = [toy_rlds.make_episode(number, length) for number, length in enumerate((10, 0))]
    index = _index(make_folder("toy", toy_rlds.STEPS, {"train": [episodes]}, toy_rlds.SPEC))
    (part,) = Split(index, index.episodes).parts("action", 8)
    assert [len(block) for block in part(8)] == [10]
    (longer,) = Split(index, index.episodes).parts("action")
    assert [len(block) for block in longer(8)] == [10]
    np.testing.assert_allclose(merged.statistics([part], 3, jobs.here).mean, index.columns["action"].mean(0))


def test_any_number_of_processes_gives_the_same_statistics(make_folder):
    index = _index(make_folder("toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC))
    parts = Split(index, index.episodes).parts("action", 6)
    one, two = (merged.statistics(parts, 3, runner) for runner in (jobs.here, jobs.in_processes(2)))
    assert len(parts) > 2
    for field in dataclasses.fields(one):
        np.testing.assert_array_equal(getattr(one, field.name), getattr(two, field.name))

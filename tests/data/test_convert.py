"""The human PushT demonstrations keep every number and every pixel on their way into RLDS."""

import itertools
import pathlib
from typing import Literal

import numpy as np
import pytest
from etils import epath

from ebt_jax.data import pusht
from ebt_jax.data.folder import Shard
from ebt_jax.data.pusht import pusht_zarr
from ebt_jax.data.records import scan
from ebt_jax.data.write import Demonstration, write_rlds

ZARR = pathlib.Path("pusht/pusht_cchi_v7_replay.zarr")


@pytest.fixture(scope="module")
def first_two(test_data: pathlib.Path) -> list[Demonstration]:
    return list(itertools.islice(pusht_zarr(str(test_data / ZARR)).episodes, 2))


def test_every_episode_is_announced(test_data: pathlib.Path) -> None:
    assert pusht_zarr(str(test_data / ZARR)).numbers == range(206)


def test_numbers_and_pixels_are_those_of_the_source(test_data: pathlib.Path, first_two: list[Demonstration]) -> None:
    import zarr

    source = zarr.open_group(test_data / ZARR, mode="r")
    ends = source["meta/episode_ends"][:2]
    for episode, rows in zip(first_two, (slice(0, ends[0]), slice(ends[0], ends[1])), strict=True):
        np.testing.assert_array_equal(episode.actions, source["data/action"][rows])
        np.testing.assert_array_equal(episode.observations["image"], source["data/img"][rows])
        np.testing.assert_array_equal(episode.observations["block_pose"], source["data/state"][rows, 2:])
        np.testing.assert_array_equal(episode.observations["state"][:, :2], source["data/state"][rows, :2])


def test_keypoints_from_the_pose_are_the_recorded_ones(test_data: pathlib.Path) -> None:
    import zarr

    source = zarr.open_group(test_data / ZARR, mode="r")
    computed = pusht.keypoints(source["data/state"][:, 2:].astype(np.float64)).reshape(-1, 9, 2)
    error = np.abs(computed - source["data/keypoint"][:]).max(axis=(1, 2))
    assert np.median(error) < 1e-3
    assert np.quantile(error, 0.99) < 0.05
    assert error.max() < 2.5  # in a few frames the recorded pose and the recorded keypoints are of two moments


def test_keypoints_move_rigidly() -> None:
    pose = np.array([[256.0, 100.0, 0.3], [10.0, 20.0, -2.0]])
    points = pusht.keypoints(pose).reshape(2, 9, 2)
    distances = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    np.testing.assert_allclose(distances[0], distances[1], rtol=1e-9, atol=1e-9)
    np.testing.assert_allclose(pusht.keypoints(np.zeros(3)).reshape(9, 2), pusht.KEYPOINTS)


def test_tensorflow_datasets_opens_the_converted_folder(
    test_data: pathlib.Path, first_two: list[Demonstration], tmp_path: pathlib.Path
) -> None:
    import tensorflow_datasets as tfds

    folder = write_rlds(tmp_path, pusht_zarr(str(test_data / ZARR)).spec, first_two, "PushT.")
    found = list(tfds.as_numpy(tfds.builder_from_directory(folder).as_dataset(split="train")))
    for episode, given in zip(found, first_two, strict=True):
        steps = list(episode["steps"])
        assert len(steps) == len(given.actions)
        np.testing.assert_array_equal([step["action"] for step in steps], given.actions)
        for name, values in given.observations.items():
            np.testing.assert_array_equal([step["observation"][name] for step in steps], values)


def test_features_of_a_record_are_in_order_of_name(test_data: pathlib.Path, first_two: list[Demonstration], tmp_path: pathlib.Path) -> None:
    """So that converting twice, in two processes, gives the same bytes."""
    from tensorflow import train

    conversion = pusht_zarr(str(test_data / ZARR))
    (shard,) = write_rlds(tmp_path, conversion.spec, first_two, conversion.description).glob("*.tfrecord-*")
    written = [record for _, record in scan(Shard(epath.Path(shard), len(first_two)), "tfrecord")]
    for record in written:
        features = train.Example.FromString(record).features.feature
        names = sorted(features)
        places = [record.index(b"\n" + bytes([len(name)]) + name.encode()) for name in names]
        assert len(names) > 10
        assert places == sorted(places)


def test_some_of_the_episodes(test_data: pathlib.Path, first_two: list[Demonstration]) -> None:
    chosen = pusht_zarr(str(test_data / ZARR)).select([1])
    assert chosen.numbers == [1]
    (second,) = itertools.islice(chosen.episodes, 1)
    np.testing.assert_array_equal(second.actions, first_two[1].actions)
    with pytest.raises(ValueError, match=r"episodes must be among 0 to 205, got \[206\]"):
        pusht_zarr(str(test_data / ZARR)).select([0, 206])
    with pytest.raises(ValueError, match="got none"):
        pusht_zarr(str(test_data / ZARR)).select([])


def test_the_ninety_that_published_policies_were_trained_on() -> None:
    """As Diffusion Policy's masks are drawn, written out another way."""
    chosen = pusht.published_episodes()
    assert len(chosen) == len(set(chosen)) == 90
    assert chosen == sorted(chosen)
    validates = set(np.random.default_rng(seed=42).choice(206, size=4, replace=False).tolist())
    assert not validates & set(chosen)
    left = [number for number in range(206) if number not in validates]
    assert {left[i] for i in np.random.default_rng(seed=42).choice(202, size=90, replace=False)} == set(chosen)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("key", ["data/img", "data/state", "data/action", "meta/episode_ends"])
def test_a_chunk_that_is_not_there_is_never_zeros(tmp_path: pathlib.Path, key: str, zarr_format: Literal[2, 3]) -> None:
    import zarr

    shapes = {"data/img": (9, 4, 4, 3), "data/state": (9, 5), "data/action": (9, 2)}
    columns = {name: np.ones(shape, np.float32) for name, shape in shapes.items()} | {"meta/episode_ends": np.array([4, 9])}
    for name, values in columns.items():
        chunks = (3, *values.shape[1:])
        zarr.create_array(tmp_path / name, data=values, chunks=chunks, zarr_format=zarr_format)
    whole = list(pusht_zarr(str(tmp_path)).episodes)
    assert [len(episode.actions) for episode in whole] == [4, 5]
    chunk = next(file for file in sorted((tmp_path / key).rglob("*")) if file.is_file() and file.name[-1].isdigit())
    chunk.unlink()
    with pytest.raises(ValueError, match=rf"{key} must hold [13] chunks, got [02]. Is the copy complete"):
        pusht_zarr(str(tmp_path))


def test_a_folder_of_something_else_is_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match="meta/episode_ends"):
        pusht_zarr(str(tmp_path))

"""What is written as RLDS is what was given, to tensorflow-datasets and to our own loader."""

import json
import pathlib

import numpy as np
import pytest

from ebt_jax.data.folder import find_folder
from ebt_jax.data.mixture import episodes, open_mixture
from ebt_jax.data.settings import DataSettings
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.write import Demonstration, write_rlds
from ebt_jax.specs import ActionDimension, Dimension

SPEC = DatasetSpec(
    name="toy_written",
    action_keys=("action",),
    action=(ActionDimension("x", "eef_delta", "m", -0.1, 0.1), ActionDimension("gripper", "gripper", "", 0.0, 1.0)),
    proprio_keys=("observation/state",),
    proprio=tuple(Dimension(name, "m") for name in "xyz"),
    cameras={"primary": "observation/image"},
    language_key="language_instruction",
    action_frame="base",
    control_rate_hz=10.0,
)


def demonstration(length: int, seed: int) -> Demonstration:
    generator = np.random.default_rng(seed)
    return Demonstration(
        observations={
            "state": generator.normal(size=(length, 3)).astype(np.float32),
            "image": generator.integers(256, size=(length, 12, 16, 3), dtype=np.uint8),
        },
        actions=generator.uniform(0, 0.1, size=(length, 2)).astype(np.float32),
        rewards=np.arange(length, dtype=np.float32),
        instruction=f"do task {seed}",
        terminal=seed == 0,
        source=f"seed {seed}",
    )


EPISODES = [demonstration(5, 0), demonstration(3, 1)]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    output = tmp_path_factory.mktemp("written")
    return write_rlds(output, SPEC, iter(EPISODES), "A toy.")


def test_tensorflow_datasets_opens_it_and_finds_every_value(folder: pathlib.Path) -> None:
    import tensorflow_datasets as tfds

    builder = tfds.builder_from_directory(folder)
    assert builder.info.description == "A toy."
    found = list(tfds.as_numpy(builder.as_dataset(split="train")))
    assert len(found) == 2
    for episode, given in zip(found, EPISODES, strict=True):
        assert episode["episode_metadata"]["file_path"].decode() == given.source
        steps = list(episode["steps"])
        last = len(given.actions) - 1
        for i, step in enumerate(steps):
            for name, values in given.observations.items():
                np.testing.assert_array_equal(step["observation"][name], values[i])
            np.testing.assert_array_equal(step["action"], given.actions[i])
            assert step["reward"] == given.rewards[i]
            assert (step["is_first"], step["is_last"]) == (i == 0, i == last)
            assert step["is_terminal"] == (given.terminal and i == last)
            assert step["discount"] == 1.0 - step["is_terminal"]
            assert step["language_instruction"].decode() == given.instruction
        assert len(steps) == last + 1


def test_our_loader_reads_the_same(folder: pathlib.Path) -> None:
    assert DatasetSpec.from_json((folder / "ebt_spec.json").read_text()) == SPEC
    settings = DataSettings(
        str(folder.parent.parent), "toy_written", 1, 2, image_size=16, cameras=("primary",), validation_fraction=0.0, language="tokens"
    )
    found = list(episodes(open_mixture(settings), "train"))
    for episode, given in zip(found, EPISODES, strict=True):
        np.testing.assert_array_equal(episode.actions, given.actions)
        np.testing.assert_array_equal(episode.observation.proprio[:, 0], given.observations["state"])
        assert episode.instruction == given.instruction


def test_nothing_but_the_dataset_is_left_behind(folder: pathlib.Path) -> None:
    assert [path.name for path in folder.parent.parent.iterdir() if path.name != "downloads"] == ["toy_written"]
    assert not (folder.parent.parent / "downloads").exists()
    assert json.loads((folder / "dataset_info.json").read_text())["fileFormat"] == "tfrecord"


def test_an_existing_folder_is_never_overwritten(folder: pathlib.Path) -> None:
    with pytest.raises(FileExistsError, match="choose another --output"):
        write_rlds(folder.parent.parent, SPEC, EPISODES, "")


def test_a_folder_without_its_spec_never_appears(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DatasetSpec, "to_json", lambda spec: (_ for _ in ()).throw(OSError("no room left")))
    with pytest.raises(OSError, match="no room left"):
        write_rlds(tmp_path, SPEC, EPISODES, "")
    assert list(tmp_path.iterdir()) == []


def broken(**changes: object) -> Demonstration:
    return EPISODES[0]._replace(**changes)


@pytest.mark.parametrize(
    ("episode", "message"),
    [
        (broken(actions=EPISODES[0].actions[:, :1]), "must have 2 action numbers, got 1"),
        (broken(actions=EPISODES[0].actions[:2]), "as many rows of everything as actions"),
        (broken(observations={"state": EPISODES[0].observations["state"]}), "got none for .*observation/image"),
        (broken(observations={**EPISODES[0].observations, "state": np.zeros((5, 4), np.float32)}), "must have 3 proprio numbers, got 4"),
        (
            broken(observations={**EPISODES[0].observations, "image": np.zeros((5, 12, 16, 1), np.uint8)}),
            r"must have uint8 \[n y x 3\] for its camera 'observation/image', got uint8 \(5, 12, 16, 1\)",
        ),
        (broken(actions=np.full((5, 2), np.nan, np.float32)), "must be finite"),
    ],
)
def test_an_episode_that_is_not_what_the_spec_says_is_refused(tmp_path: pathlib.Path, episode: Demonstration, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        write_rlds(tmp_path, SPEC, [episode], "")
    assert not (tmp_path / "toy_written").exists()


def test_only_pictures_are_images(tmp_path: pathlib.Path) -> None:
    """Flags, masks and one row of colours are numbers, whatever their dtype."""
    others = {"pressed": np.ones(5, np.uint8), "mask": np.ones((5, 12, 16, 1), np.uint8), "colours": np.ones((5, 4, 3), np.uint8)}
    write_rlds(tmp_path, SPEC, [broken(observations={**EPISODES[0].observations, **others})], "")
    steps = find_folder(str(tmp_path), "toy_written").steps
    assert steps["observation/image"].kind == "image"
    assert {(steps[f"observation/{name}"].kind, steps[f"observation/{name}"].dtype) for name in others} == {("tensor", "float32")}


def test_a_bucket_to_write_to_is_refused(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ValueError, match="output must be a folder on a disk, got 'gs://mine/out'. Mount the bucket"):
        write_rlds("gs://mine/out", SPEC, EPISODES, "")
    assert list(tmp_path.iterdir()) == []


def test_no_episode_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="at least one episode"):
        write_rlds(tmp_path, SPEC, [], "")

"""LeRobot folders of both layouts, pictures in videos or in rows, keep rows, frames and tasks on their way into RLDS."""

import io
import json
import pathlib
from typing import Any

import av
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from ebt_jax.data.lerobot import lerobot
from ebt_jax.data.mixture import episodes, open_mixture
from ebt_jax.data.settings import DataSettings
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.write import Demonstration, write_rlds
from ebt_jax.specs import ActionDimension, Dimension

LENGTHS, RATE = (5, 9, 3), 10
TASKS = ("pick the cube", "open the drawer")
SPEC = DatasetSpec(
    name="arm",
    action_keys=("action",),
    action=(ActionDimension("joint_0", "joint_position", "rad"), ActionDimension("gripper", "gripper", "", 0.0, 1.0)),
    proprio_keys=("observation/state",),
    proprio=tuple(Dimension(f"joint_{i}", "rad") for i in range(3)),
    cameras={"primary": "observation/top", "wrist": "observation/hand"},
)


def grey(episode: int, step: int) -> np.ndarray:
    return np.full((32, 48, 3), 20 + 60 * episode + 6 * step, np.uint8)


def png(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def write_film(path: pathlib.Path, frames: list[np.ndarray]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=RATE, options={"g": "2", "crf": "10"})
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for pixels in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def rows(episode: int) -> dict[str, Any]:
    n = LENGTHS[episode]
    first = sum(LENGTHS[:episode])
    return {
        "observation.state": [[episode, step, 0.5] for step in range(n)],
        "action": [[episode + 0.25, step % 2] for step in range(n)],
        "observation.images.hand": [{"bytes": png(grey(episode, step)), "path": None} for step in range(n)],
        "timestamp": [step / RATE for step in range(n)],
        "frame_index": list(range(n)),
        "episode_index": [episode] * n,
        "index": [first + step for step in range(n)],
        "task_index": [episode % 2] * n,
        "next.done": [step == n - 1 for step in range(n)],
    }


def write_parquet(path: pathlib.Path, columns: dict[str, Any]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns), path)


def write_folder(folder: pathlib.Path, version: str) -> pathlib.Path:
    vector = {"dtype": "float32", "names": None}
    features = {
        "observation.state": {**vector, "shape": [3]},
        "action": {**vector, "shape": [2], "names": ["waist", "gripper"]},
        "observation.images.top": {"dtype": "video", "shape": [32, 48, 3], "names": ["height", "width", "channels"]},
        "observation.images.hand": {"dtype": "image", "shape": [32, 48, 3], "names": ["height", "width", "channels"]},
        **{key: {"dtype": "int64", "shape": [1], "names": None} for key in ("frame_index", "episode_index", "index", "task_index")},
        "timestamp": {**vector, "shape": [1]},
        "next.done": {"dtype": "bool", "shape": [1], "names": None},
    }
    info = {"codebase_version": version, "robot_type": "so100", "fps": RATE, "total_episodes": len(LENGTHS), "chunks_size": 2}
    (folder / "meta").mkdir(parents=True)
    if version.startswith("v2"):
        info["video_path"] = "videos/chunk-{episode_chunk:03d}/{video_key}/episode_{episode_index:06d}.mp4"
        lines = [json.dumps({"task_index": i, "task": task}) for i, task in enumerate(TASKS)]
        (folder / "meta" / "tasks.jsonl").write_text("\n".join(lines))
        lines = [json.dumps({"episode_index": i, "tasks": [TASKS[i % 2]], "length": n}) for i, n in enumerate(LENGTHS)]
        (folder / "meta" / "episodes.jsonl").write_text("\n".join(lines))
        for i, n in enumerate(LENGTHS):
            write_parquet(folder / f"data/chunk-{i // 2:03d}/episode_{i:06d}.parquet", rows(i))
            film = folder / f"videos/chunk-{i // 2:03d}/observation.images.top/episode_{i:06d}.mp4"
            write_film(film, [grey(i, step) for step in range(n)])
    else:
        info["video_path"] = "videos/{video_key}/chunk-{chunk_index:03d}/file-{file_index:03d}.mp4"
        write_parquet(folder / "meta/tasks.parquet", {"task_index": [0, 1], "__index_level_0__": list(TASKS)})
        parts = [rows(i) for i in range(len(LENGTHS))]
        joined = {key: parts[0][key] + parts[1][key] for key in parts[0]}
        write_parquet(folder / "data/chunk-000/file-000.parquet", joined)  # two episodes a file, the third in the next
        write_parquet(folder / "data/chunk-000/file-001.parquet", parts[2])
        write_film(folder / "videos/observation.images.top/chunk-000/file-000.mp4", [grey(0, s) for s in range(LENGTHS[0])])
        both = [grey(i, s) for i in (1, 2) for s in range(LENGTHS[i])]
        write_film(folder / "videos/observation.images.top/chunk-000/file-001.mp4", both)
        camera = "videos/observation.images.top/"
        places = {"chunk_index": [0, 0, 0], "file_index": [0, 1, 1], "from_timestamp": [0.0, 0.0, LENGTHS[1] / RATE]}
        episodes_ = {"episode_index": [0, 1, 2], "length": LENGTHS, **{camera + key: values for key, values in places.items()}}
        write_parquet(folder / "meta/episodes/chunk-000/file-000.parquet", episodes_)
    (folder / "meta/info.json").write_text(json.dumps({**info, "features": features}))
    return folder


@pytest.fixture(scope="module", params=["v2.1", "v3.0"])
def source(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return write_folder(tmp_path_factory.mktemp("lerobot") / "so100_pick", request.param)


@pytest.fixture(scope="module")
def found(source: pathlib.Path) -> list[Demonstration]:
    return list(lerobot(str(source), spec=SPEC).episodes)


def test_rows_tasks_and_frames_are_those_of_their_episode(found: list[Demonstration]) -> None:
    assert [len(episode.actions) for episode in found] == list(LENGTHS)
    for i, episode in enumerate(found):
        given, n = rows(i), LENGTHS[i]
        np.testing.assert_array_equal(episode.actions, np.float32(given["action"]))
        np.testing.assert_array_equal(episode.observations["state"], np.float32(given["observation.state"]))
        np.testing.assert_array_equal(episode.observations["hand"], [grey(i, step) for step in range(n)])
        film = episode.observations["top"]
        assert film.shape == (n, 32, 48, 3)
        levels = film.astype(int).mean(axis=(1, 2, 3))  # video is lossy: 2 grey levels, where the next frame is 6 away
        np.testing.assert_allclose(levels, [grey(i, step).mean() for step in range(n)], atol=2)
        assert episode.instruction == TASKS[i % 2]
        assert episode.terminal


def test_tensorflow_datasets_and_our_loader_open_what_is_written(
    source: pathlib.Path, found: list[Demonstration], tmp_path: pathlib.Path
) -> None:
    import tensorflow_datasets as tfds

    conversion = lerobot(str(source), "so100", SPEC)
    assert len(conversion.numbers) == 3
    folder = write_rlds(tmp_path, conversion.spec, found, conversion.description)
    for given, episode in zip(found, tfds.as_numpy(tfds.builder_from_directory(folder).as_dataset(split="train")), strict=True):
        steps = list(episode["steps"])
        np.testing.assert_array_equal([step["action"] for step in steps], given.actions)
        for key in ("state", "top", "hand"):
            np.testing.assert_array_equal([step["observation"][key] for step in steps], given.observations[key])
    settings = DataSettings(str(tmp_path), "so100", 1, 2, 32, ("primary", "wrist"), "tokens", validation_fraction=0.0)
    mixture = open_mixture(settings)
    assert mixture.specs.action.control_rate_hz == RATE
    assert [episode.instruction for episode in episodes(mixture, "train")] == [TASKS[0], TASKS[1], TASKS[0]]


def test_what_an_action_means_is_never_guessed(source: pathlib.Path) -> None:
    with pytest.raises(ValueError, match=r"'so100'.*--spec=FILE.json.*observation/state \(3,\); action \(2,\) \['waist', 'gripper'\]"):
        lerobot(str(source))


@pytest.mark.parametrize("keys", [("actions",), ("action.arm", "action.gripper")])
def test_actions_by_other_names_are_actions(tmp_path: pathlib.Path, keys: tuple[str, ...]) -> None:
    folder = write_folder(tmp_path / "other", "v2.1")
    info = json.loads((folder / "meta/info.json").read_text())
    size = 2 // len(keys)
    del info["features"]["action"]
    info["features"] |= {key: {"dtype": "float32", "shape": [size], "names": None} for key in keys}
    (folder / "meta/info.json").write_text(json.dumps(info))
    for i, path in enumerate(sorted((folder / "data").glob("*/*.parquet"))):
        columns = rows(i)
        written = np.array(columns.pop("action"))
        write_parquet(path, columns | {key: written[:, size * k : size * (k + 1)].tolist() for k, key in enumerate(keys)})
    for i, episode in enumerate(lerobot(str(folder), spec=SPEC).episodes):
        np.testing.assert_array_equal(episode.actions, rows(i)["action"])
        assert set(episode.observations) == {"state", "top", "hand"}
    info["features"] = {key: feature for key, feature in info["features"].items() if key not in keys}
    (folder / "meta/info.json").write_text(json.dumps(info))
    with pytest.raises(ValueError, match=r"must have a feature action, actions or action\.\*, got observation.state"):
        lerobot(str(folder), spec=SPEC)


def test_films_that_nobody_places_are_not_guessed_at(tmp_path: pathlib.Path) -> None:
    folder = write_folder(tmp_path / "partial", "v3.0")
    (folder / "meta/episodes/chunk-000/file-000.parquet").unlink()
    with pytest.raises(ValueError, match=r"meta/episodes must say where episode 0 lies in the films of observation.images.top"):
        next(lerobot(str(folder), spec=SPEC).episodes)


@pytest.mark.parametrize(
    ("version", "file", "got"),
    [
        ("v2.1", "chunk-000/episode_000001.parquet", "nothing of 1. Is the copy complete"),
        ("v2.1", "chunk-000/*.parquet", "nothing of 0 and 1 others. Is"),
        ("v3.0", "chunk-000/file-001.parquet", "nothing of 2. Is the copy complete"),
    ],
)
def test_episodes_that_are_not_there_are_named_before_any_is_read(tmp_path: pathlib.Path, version: str, file: str, got: str) -> None:
    folder = write_folder(tmp_path / "partial", version)
    for path in (folder / "data").glob(file):
        path.unlink()
    with pytest.raises(ValueError, match=rf"partial/data must hold episodes 0 to 2, each once, .* got {got}"):
        lerobot(str(folder), spec=SPEC)


@pytest.mark.parametrize(("version", "file", "episode"), [("v2.1", "chunk-000/episode_000001", 1), ("v3.0", "chunk-000/file-001", 2)])
def test_rows_that_are_missing_are_counted(tmp_path: pathlib.Path, version: str, file: str, episode: int) -> None:
    folder = write_folder(tmp_path / "partial", version)
    write_parquet(folder / f"data/{file}.parquet", {key: values[:-1] for key, values in rows(episode).items()})
    said = (
        f"must hold {LENGTHS[episode]} rows of episode {episode}, as meta/episodes says, got {LENGTHS[episode] - 1}. Is the copy complete"
    )
    with pytest.raises(ValueError, match=said):
        lerobot(str(folder), spec=SPEC)


@pytest.mark.parametrize(("number", "got"), [(0, "several pieces of 0"), (3, "also 3")])
def test_rows_of_an_episode_that_is_there_or_that_nobody_counts_are_named(tmp_path: pathlib.Path, number: int, got: str) -> None:
    folder = write_folder(tmp_path / "left", "v2.1")
    write_parquet(folder / "data/chunk-001/episode_000009.parquet", rows(0) | {"episode_index": [number] * LENGTHS[0]})
    with pytest.raises(ValueError, match=f"got {got}. Is the copy complete"):
        lerobot(str(folder), spec=SPEC)


@pytest.mark.parametrize(
    ("version", "film"), [("v2.1", "chunk-000/observation.images.top/episode_000000.mp4"), ("v3.0", "*/*/file-000.mp4")]
)
def test_some_of_the_episodes_by_their_numbers_and_nothing_of_the_others(
    tmp_path: pathlib.Path, found: list[Demonstration], version: str, film: str
) -> None:
    folder = write_folder(tmp_path / "so100_pick", version)
    (unwanted,) = (folder / "videos").glob(film)
    unwanted.unlink()
    chosen = lerobot(str(folder), spec=SPEC).select([2, 1])
    assert list(chosen.numbers) == [1, 2]
    for episode, whole in zip(chosen.episodes, found[1:], strict=True):
        np.testing.assert_array_equal(episode.actions, whole.actions)
        np.testing.assert_array_equal(episode.observations["top"], whole.observations["top"])
        assert episode.source == whole.source
    with pytest.raises(ValueError, match=r"episodes must be among 0 to 2, got \[3\]"):
        lerobot(str(folder), spec=SPEC).select([0, 3])


def test_a_rate_that_contradicts_the_data_is_refused(source: pathlib.Path) -> None:
    import dataclasses

    with pytest.raises(ValueError, match="must be that of the data, 10, got 50"):
        lerobot(str(source), spec=dataclasses.replace(SPEC, control_rate_hz=50.0))


def test_a_video_that_ends_too_soon_is_named(tmp_path: pathlib.Path) -> None:
    folder = write_folder(tmp_path / "short", "v2.1")
    film = folder / "videos/chunk-000/observation.images.top/episode_000001.mp4"
    write_film(film, [grey(1, step) for step in range(6)])
    iterator = lerobot(str(folder), spec=SPEC).episodes
    next(iterator)
    with pytest.raises(ValueError, match=r"episode_000001.mp4 must have a frame .* 9 rows, got none at 0.600 s \(row 6\)"):
        next(iterator)


def test_other_folders_and_versions_are_named(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"meta/info\.json"):
        lerobot(str(tmp_path))
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta" / "info.json").write_text('{"codebase_version": "v1.6", "fps": 10, "features": {}}')
    with pytest.raises(ValueError, match="must be 2 or 3, got 1.6"):
        lerobot(str(tmp_path), spec=SPEC)

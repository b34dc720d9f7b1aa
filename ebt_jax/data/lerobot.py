"""LeRobot's folders as episodes: rows of parquet files, and pictures from videos or from the rows themselves.

    v2  meta/info.json  meta/tasks.jsonl    meta/episodes.jsonl
        data/chunk-000/episode_000000.parquet                one file an episode
        videos/chunk-000/observation.images.top/episode_000000.mp4
    v3  meta/info.json  meta/tasks.parquet  meta/episodes/chunk-000/file-000.parquet
        data/chunk-000/file-000.parquet                      many episodes a file, in order
        videos/observation.images.top/chunk-000/file-000.mp4

LeRobot states names, shapes and the rate; what a number means, it does not. So a spec has to be given.

Source: LeRobot's datasets/dataset_metadata.py, dataset_reader.py and video_utils.py.
"""

import collections
import dataclasses
import itertools
import json
import pathlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Float, UInt8
from numpy.typing import NDArray

from ebt_jax.data.batches import decode
from ebt_jax.data.conversion import Conversion, dataset_name, refuse
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.write import Demonstration

BOOKKEEPING = ("timestamp", "frame_index", "episode_index", "index", "task_index", "next.reward", "next.done", "next.success")
"""Columns that say where a row belongs or what followed, and are no observation."""


def lerobot(path: str, name: str = "", spec: DatasetSpec | None = None) -> Conversion:
    """The episodes of a LeRobot folder of version 2 or 3, with every vector and every camera.

    "observation.state" becomes observation/state, "observation.images.top" observation/top. The instruction is the task of an episode's
    first row; "actions", or several "action.*" side by side in the folder's order, are written as action. Raises FileNotFoundError for a
    folder of something else, ValueError where it has no action or no `spec` says what one is, where the rate that the spec states is not
    the folder's, where not every episode is there as the folder counts them, or where a video lacks a row's frame; ImportError without
    pyarrow or PyAV.
    """
    folder = pathlib.Path(path)
    if not (folder / "meta" / "info.json").is_file():
        raise FileNotFoundError(f"input must be a LeRobot folder with meta/info.json, got {path}.")
    try:
        import av  # noqa: F401
        import pyarrow  # noqa: F401
    except ImportError as error:
        raise ImportError("source lerobot needs pyarrow and PyAV: pip install 'ebt_jax[convert]'.") from error

    info = json.loads((folder / "meta" / "info.json").read_text())
    version = str(info.get("codebase_version", "unknown")).removeprefix("v")
    if version.split(".")[0] not in ("2", "3"):
        raise ValueError(
            f"version of a LeRobot folder must be 2 or 3, got {version} in {path}. Convert it with LeRobot's own scripts first."
        )
    features = {key: feature for key, feature in info["features"].items() if key not in BOOKKEEPING}
    if not any(map(_is_action, features)):
        raise ValueError(f"a LeRobot folder must have a feature action, actions or action.*, got {', '.join(features)} in {path}.")
    if spec is None:
        known = "; ".join(f"{ours(key)} {tuple(f['shape'])} {f.get('names') or ''}".rstrip() for key, f in features.items())
        raise refuse(path, f"a robot of type {info.get('robot_type')!r} and names without units or kinds", known)
    rate = float(info["fps"])
    if spec.control_rate_hz not in (None, rate):
        raise ValueError(f"control_rate_hz of the spec must be that of the data, {rate:g}, got {spec.control_rate_hz:g}. Correct the spec.")
    names = [ours(key) for key in features if not _is_action(key)]
    if len(set(names)) != len(names):
        raise ValueError(f"features must keep distinct names, got {sorted(names)} of {sorted(features)}.")
    final = dataclasses.replace(
        spec,
        name=name or spec.name or dataset_name(folder.name),
        language_key=spec.language_key or "language_instruction",
        control_rate_hz=rate,
        source=spec.source or f"LeRobot {version}, {folder.name}, robot {info.get('robot_type')}",
    )
    robot = info.get("robot_type") or "a robot"
    total, old = int(info["total_episodes"]), version.startswith("2")
    held = _held(folder, total, _lengths(folder, old))

    def read(numbers: Sequence[int]) -> Iterator[Demonstration]:
        files = [path for path, there in held.items() if not there.isdisjoint(numbers)]
        return _episodes(folder, info, features, old, files, numbers)

    return Conversion(final, read, range(total), f"{robot}, from LeRobot's {folder.name}.")


def ours(key: str) -> str:
    """LeRobot's feature -> the path of it in what is written."""
    return "action" if _is_action(key) else f"observation/{_short(key)}"


def _is_action(key: str) -> bool:
    return key in ("action", "actions") or key.startswith("action.")


def _short(key: str) -> str:
    return key.removeprefix("observation.").removeprefix("images.")


def _held(folder: pathlib.Path, total: int, lengths: Mapping[int, int]) -> dict[pathlib.Path, set[int]]:
    """File of rows -> the episodes in it. Raises ValueError where they are not 0 to `total` - 1, each once and as long as is said."""
    import pyarrow.parquet as parquet

    held, parts = {}, [np.zeros(0, int)]
    for path in sorted((folder / "data").glob("*/*.parquet")):
        with parquet.ParquetFile(path) as file:
            parts.append(np.array(file.read(["episode_index"])["episode_index"].to_pylist(), int).reshape(-1))
        held[path] = set(parts[-1].tolist())
    rows = np.concatenate(parts)
    starts = np.flatnonzero(np.diff(rows, prepend=-1))
    found, counts = rows[starts].tolist(), np.diff(starts, append=len(rows)).tolist()
    for what, wrong in (
        ("nothing of", sorted(set(range(total)).difference(found))),
        ("also", sorted(set(found).difference(range(total)))),
        ("several pieces of", sorted(number for number, times in collections.Counter(found).items() if times > 1)),
    ):
        if wrong:
            raise ValueError(
                f"{folder}/data must hold episodes 0 to {total - 1}, each once, as meta/info.json counts them, got {what} {wrong[0]}"
                f"{f' and {len(wrong) - 1} others' if len(wrong) > 1 else ''}. Is the copy complete?"
            )
    for number, count in zip(found, counts, strict=True):
        if lengths.get(number, count) != count:
            raise ValueError(
                f"{folder}/data must hold {lengths[number]} rows of episode {number}, as meta/episodes says, got {count}. "
                "Is the copy complete?"
            )
    return held


def _lengths(folder: pathlib.Path, old: bool) -> dict[int, int]:
    """Episode -> how many rows it has, of those of which that is said."""
    if old:
        file = folder / "meta" / "episodes.jsonl"
        lines = map(json.loads, filter(str.strip, file.read_text().splitlines())) if file.is_file() else ()
        return {int(line["episode_index"]): int(line["length"]) for line in lines if "length" in line}
    import pyarrow.parquet as parquet

    found = {}
    for path in sorted((folder / "meta" / "episodes").glob("*/*.parquet")):
        if "length" in parquet.read_schema(path).names:
            table = parquet.read_table(path, columns=["episode_index", "length"]).to_pydict()
            found |= zip(map(int, table["episode_index"]), map(int, table["length"]), strict=True)
    return found


def _episodes(
    folder: pathlib.Path,
    info: Mapping[str, Any],
    features: Mapping[str, Any],
    old: bool,
    files: Sequence[pathlib.Path],
    numbers: Sequence[int],
) -> Iterator[Demonstration]:
    """Those of these numbers one after another in file order; memory holds one, and one batch of rows."""
    tasks, films = _tasks(folder, old), {} if old else _films(folder, [key for key, f in features.items() if f["dtype"] == "video"])
    for number, rows in _grouped(files, [key for key, feature in features.items() if feature["dtype"] != "video"], numbers):
        length = len(rows["episode_index"])
        observations, actions = {}, []
        for key, feature in features.items():
            if feature["dtype"] == "video":
                chunk = number // int(info.get("chunks_size", 1000))
                values = {"video_key": key, "episode_chunk": chunk, "episode_index": number}
                start, chunk_index, file_index = (0.0, chunk, 0) if old else _place(films, number, key, folder)
                film = folder / info["video_path"].format(**values, chunk_index=chunk_index, file_index=file_index)
                observations[_short(key)] = _frames(film, start + np.array(rows["timestamp"], float), float(info["fps"]))
            elif feature["dtype"] == "image":
                observations[_short(key)] = np.stack([decode(_bytes(folder, cell)) for cell in rows[key]])
            elif feature["dtype"] == "string":
                logging.log_first_n(logging.WARNING, "not converted, text: %s", 1, key)
            elif _is_action(key):
                actions.append(np.array(rows[key], np.float32).reshape(length, -1))
            else:
                observations[_short(key)] = np.array(rows[key], np.float32).reshape(length, *_vector(feature))
        said = sorted({tasks[task] for task in rows["task_index"]})
        if len(said) > 1:
            logging.warning("episode %d has %d instructions, of which its first is kept: %s", number, len(said), "; ".join(said))
        yield Demonstration(
            observations=observations,
            actions=np.concatenate(actions, axis=1),
            rewards=np.array(rows.get("next.reward", np.zeros(length)), np.float32).reshape(length),
            instruction=tasks[rows["task_index"][0]],
            terminal=bool(np.ravel(rows["next.done"][-1])[0]) if "next.done" in rows else False,
            source=f"{folder.name} episode {number}",
        )


def _vector(feature: Mapping[str, Any]) -> tuple[int, ...]:
    return tuple(feature["shape"]) or (1,)


def _grouped(files: Sequence[pathlib.Path], keys: list[str], numbers: Sequence[int]) -> Iterator[tuple[int, dict[str, list]]]:
    """(episode, column -> its rows) of the wanted in file order; an episode may go on in the next batch or file."""
    import pyarrow as pa
    import pyarrow.parquet as parquet

    def rows() -> Iterator[dict[str, Any]]:
        for path in files:
            with parquet.ParquetFile(path) as file:
                wanted = [key for key in (*keys, *BOOKKEEPING) if key in file.schema_arrow.names]
                for batch in file.iter_batches(batch_size=256, columns=wanted):
                    mine = np.isin(np.ravel(batch.column("episode_index").to_pylist()), list(numbers))
                    yield from batch.filter(pa.array(mine)).to_pylist()

    for number, group in itertools.groupby(rows(), key=lambda row: int(np.ravel(row["episode_index"])[0])):
        table = list(group)
        yield number, {key: [row[key] for row in table] for key in table[0]}


def _tasks(folder: pathlib.Path, old: bool) -> dict[int, str]:
    """Number -> instruction."""
    if old:
        lines = (folder / "meta" / "tasks.jsonl").read_text().splitlines()
        return {int(task["task_index"]): task["task"] for task in map(json.loads, filter(str.strip, lines))}
    import pyarrow.parquet as parquet

    table = parquet.read_table(folder / "meta" / "tasks.parquet").to_pydict()  # written by pandas, whose index holds the text
    texts = next(values for key, values in table.items() if key != "task_index")
    return {int(number): text for number, text in zip(table["task_index"], texts, strict=True)}


def _films(folder: pathlib.Path, cameras: list[str]) -> dict[tuple[int, str], tuple[float, int, int]]:
    """(episode, camera) -> (second at which it starts, chunk, file) of its video."""
    import pyarrow.parquet as parquet

    found = {}
    for path in sorted((folder / "meta" / "episodes").glob("*/*.parquet")):
        places = [f"videos/{camera}/{what}" for camera in cameras for what in ("from_timestamp", "chunk_index", "file_index")]
        table = parquet.read_table(path, columns=["episode_index", *places]).to_pydict()
        for row, episode in enumerate(table["episode_index"]):
            for i, camera in enumerate(cameras):
                start, chunk, file = (table[place][row] for place in places[3 * i : 3 * i + 3])
                found[int(episode), camera] = (float(start), int(chunk), int(file))
    return found


def _place(
    films: Mapping[tuple[int, str], tuple[float, int, int]], episode: int, camera: str, folder: pathlib.Path
) -> tuple[float, int, int]:
    if (episode, camera) not in films:
        raise ValueError(
            f"{folder}/meta/episodes must say where episode {episode} lies in the films of {camera}, got nothing. Is the copy complete?"
        )
    return films[episode, camera]


def _bytes(folder: pathlib.Path, cell: Mapping[str, Any]) -> bytes:
    """A picture kept in its row, or beside the rows."""
    return cell["bytes"] if cell.get("bytes") else (folder / cell["path"]).read_bytes()


def _frames(film: pathlib.Path, times: Float[np.ndarray, " n"], rate: float) -> UInt8[np.ndarray, "n y x 3"]:
    """The frame nearest to each time (s, ascending), which must be within half a frame of it."""
    import av

    pictures: list[NDArray] = []
    nearest = np.full(len(times), np.inf)
    with av.open(str(film)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        container.seek(int(max(times[0] - 0.5 / rate, 0) / stream.time_base), stream=stream)  # the key frame before it
        for frame in container.decode(stream):
            if frame.time is None or frame.time > times[-1] + 0.5 / rate:
                break
            wanted = np.flatnonzero(np.abs(times - frame.time) < np.minimum(nearest, 0.5 / rate))
            if wanted.size:
                picture = frame.to_ndarray(format="rgb24")
                pictures += [picture] * (int(wanted[-1]) + 1 - len(pictures))
                for row in wanted:
                    pictures[row], nearest[row] = picture, abs(times[row] - frame.time)
    missing = np.flatnonzero(np.isinf(nearest))
    if missing.size:
        raise ValueError(
            f"{film} must have a frame within {0.5 / rate:.3g} s of each of {len(times)} rows, got none at {times[missing[0]]:.3f} s "
            f"(row {missing[0]}). Is the copy complete?"
        )
    return np.stack(pictures)

"""Building an index: one job a shard, whose part is kept until all are there, then one file a column.

    shard 0 -> part 0 \\
    shard 1 -> part 1  } -> action, proprio, text, primary, ..., index.json
    shard 2 -> part 2 /

A part's name says what it was made of, so a build that was killed goes on where it stood, and processes that build the same
index at the same time share the work: each does the shards that nobody has done yet.
"""

import dataclasses
import hashlib
import inspect
import io
import json
import os
import pathlib
import shutil
import uuid
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from absl import logging
from etils import epath
from numpy.typing import NDArray

from ebt_jax.data import jobs, records, remote
from ebt_jax.data.faults import Faults, OnBad
from ebt_jax.data.folder import Folder, Shard
from ebt_jax.data.scan import EPISODE, PART, Scan, scan_shard
from ebt_jax.data.standardize import Entry
from ebt_jax.whole import settle

_VERSION = 4  # raise it when the meaning of the files changes: every cached index is then built anew
_COLUMN = "column_"


class Work(NamedTuple):
    """What is to be indexed: the shards of a split, and for each the name of its part."""

    folder: Folder
    shards: tuple[Shard, ...]
    entry: Entry
    parts: tuple[str, ...]
    num_bytes: int

    @property
    def digest(self) -> str:
        """Changes with the shards, the spec and the code that converts."""
        return _hash(self.parts)


class Task(NamedTuple):
    """One shard's part: `path` is written unless it is there, or unless the whole index (`done`) is."""

    folder: Folder
    shard: Shard
    entry: Entry
    path: str
    done: str
    on_bad: OnBad


def plan(folder: Folder, split: str, entry: Entry, on_bad: OnBad) -> Work:
    """Names every part after its shard's name, size and time. Raises FileNotFoundError for a missing shard unless such are skipped."""
    code = inspect.getsource(inspect.getmodule(entry.standardize) or entry.standardize)
    spec = dataclasses.replace(entry.spec, source="", action_frame="", control_rate_hz=None)  # what no column depends on
    stamps, shards, parts, num_bytes = remote.stamps(folder.path), folder.splits[split], [], 0
    for shard in shards:
        stamp = stamps.get(shard.path.name)
        if stamp is None and on_bad == "raise":
            raise FileNotFoundError(f"every shard of a split must be there, got no file at {shard.path}. Is the copy complete?")
        num_bytes += stamp[0] if stamp else 0
        parts.append(f"{shard.path.name}-{_hash([_VERSION, spec.to_json(), code, stamp, shard.num_records])}.npz")
    return Work(folder, shards, entry, tuple(parts), num_bytes)


def build(work: Work, name: str, root: pathlib.Path, on_bad: OnBad, runner: jobs.Runner | None, parts_dir: str) -> pathlib.Path:
    """The folder `root/name`, which appears when it is complete; until then parts lie in `parts_dir`, or in `root` where that is ""."""
    done = root / name
    parts = epath.Path(parts_dir or root) / f".parts-{work.folder.name}-{work.folder.version}"
    parts.mkdir(parents=True, exist_ok=True)
    first = uuid.uuid4().int % len(work.shards)  # so that processes that build at the same time begin at different shards
    tasks = [Task(work.folder, shard, work.entry, os.fspath(parts / part), str(done), on_bad) for shard, part in _pairs(work)]
    logging.info("Indexing %s (%d files, %.1f GB, once), kept in %s", name, len(tasks), work.num_bytes / 1e9, root)
    partial = root / f".building-{uuid.uuid4().hex}"
    records.forget()
    try:
        runner = runner or jobs.choose(work.num_bytes, len(tasks))
        for _ in jobs.say(runner(index_shard, tasks[first:] + tasks[:first]), len(tasks), f"indexing {work.folder.name}"):
            pass
        partial.mkdir()
        _join(partial, [task.path for task in tasks], work.shards)
        for file in partial.iterdir():
            settle(file)
        os.rename(partial, done)
    except OSError:
        if not done.exists():  # another process may have finished first: its index is as good
            raise
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    for task in tasks:
        epath.Path(task.path).unlink(missing_ok=True)
    _remove_if_empty(parts)
    return done


def index_shard(task: Task) -> None:
    """Writes a shard's part, whole or not at all. Raises what `scan_shard` does where faults are not to be skipped."""
    path = epath.Path(task.path)
    if path.exists() or pathlib.Path(task.done).exists():
        return
    faults = Faults()
    found = scan_shard(task.folder, task.shard, task.entry, faults.report if task.on_bad == "skip" else None)
    buffer = io.BytesIO()
    notes = {"texts": found.texts, "counts": faults.counts, "messages": faults.messages}
    columns = {_COLUMN + key: np.ascontiguousarray(values, dtype_of(key)) for key, values in found.columns.items()}
    arrays: dict[str, NDArray] = {"episodes": found.episodes, "notes": np.frombuffer(json.dumps(notes).encode(), np.uint8), **columns}
    np.savez(buffer, **arrays)  # pyright: ignore[reportArgumentType]
    partial = path.with_name(f".{uuid.uuid4().hex}-{path.name}")
    partial.write_bytes(buffer.getvalue())
    if not remote.is_remote(task.path):
        settle(pathlib.Path(partial))
    partial.replace(path)


def dtype_of(column: str) -> np.dtype:
    """How a column's file is written."""
    numbers = {"action": "<f4", "proprio": "<f4", "text": "<i4", "paraphrases": "<i4"}
    return EPISODE if column == "episodes" else np.dtype(numbers[column]) if column in numbers else PART


def _pairs(work: Work) -> list[tuple[Shard, str]]:
    return list(zip(work.shards, work.parts, strict=True))


def _load(path: str) -> tuple[Scan, Mapping]:
    with np.load(io.BytesIO(epath.Path(path).read_bytes()), allow_pickle=False) as arrays:
        notes = json.loads(arrays["notes"].tobytes())
        columns = {key.removeprefix(_COLUMN): arrays[key] for key in arrays.files if key.startswith(_COLUMN)}
        return Scan(arrays["episodes"], columns, tuple(notes["texts"])), notes


def _join(partial: pathlib.Path, paths: Sequence[str], shards: Sequence[Shard]) -> None:
    """Appends part after part to one file a column, so that memory holds one part only."""
    rows, texts, shapes, faults = 0, {}, {}, Faults(quiet=True)
    for number, path in enumerate(paths):
        (episodes, columns, own_texts), notes = _load(path)
        episodes["shard"] = number
        episodes["start"] += rows
        rows += int(episodes["length"].sum())
        numbers = np.array([texts.setdefault(text, len(texts)) for text in own_texts], "<i4")
        columns = {key: numbers[values] if key in ("text", "paraphrases") else values for key, values in columns.items()}
        for key, values in {**columns, "episodes": episodes}.items():
            with (partial / key).open("ab") as file:
                file.write(np.ascontiguousarray(values, dtype_of(key)).tobytes())
        shapes |= {key: (rows, *values.shape[1:]) for key, values in columns.items()}
        for kind, count in notes["counts"].items():
            first, *others = notes["messages"][kind]
            faults.report(kind, first, count - len(others))
            for message in others:
                faults.report(kind, message)
    if rows == 0:
        raise ValueError(
            f"a split must hold at least one step, got {len(shards)} files of none, {shards[0].path} the first. {dict(faults.messages)}"
        )
    tree = {"columns": shapes, "texts": list(texts), "faults": {"counts": faults.counts, "messages": faults.messages}}
    (partial / "index.json").write_text(json.dumps(tree))


def _remove_if_empty(folder: epath.Path) -> None:
    try:
        if not any(folder.iterdir()):
            folder.rmdir()
    except (OSError, ValueError):  # where it filled meanwhile, epath raises the second
        logging.info("%s is left to those who still build", folder)


def _hash(value: object) -> str:
    return hashlib.sha256(json.dumps(value).encode()).hexdigest()[:16]

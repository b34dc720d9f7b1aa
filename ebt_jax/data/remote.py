"""Files of a bucket: what a folder holds, and single ranges of a file, many at once; never a whole file for a part of it.

fsspec reads them (gs:// wants the [gcs] extra, s3:// s3fs): epath would take TensorFlow where that is installed, and a file that is merely
opened reads ahead, megabytes for one frame.
"""

import os
import pathlib
import time
from collections.abc import Iterable, Sequence
from typing import BinaryIO, NamedTuple, cast

import fsspec
from absl import logging
from etils import epath

GAP = 1 << 18
"""Ranges of one file that lie closer than this are one request: at 30 ms a request, bytes in between cost less."""

WAITS_S = (1.0, 4.0, 16.0)
"""How long after each failure what failed is asked for again: beyond what a filesystem tries by itself, which counts no bare timeout."""


class Range(NamedTuple):
    """Bytes `start` to `stop` of a file."""

    path: str
    start: int
    stop: int


def is_remote(path: str) -> bool:
    """True for gs://..., s3://... and their like."""
    return "://" in path


def on_disk(name: str, path: str | os.PathLike[str]) -> pathlib.Path:
    """A folder to write to. Raises ValueError, with what it is for as `name`, where it lies in a bucket."""
    if is_remote(os.fspath(path)):
        raise ValueError(f"{name} must be a folder on a disk, got {os.fspath(path)!r}. Mount the bucket, or choose another folder.")
    return pathlib.Path(path)


def open_file(path: epath.Path) -> BinaryIO:
    """The file, to be read from its start to its end."""
    name = os.fspath(path)
    return cast(BinaryIO, _filesystem(name).open(name, "rb") if is_remote(name) else open(name, "rb"))


def exists(path: epath.Path) -> bool:
    """Whether there is such a file or folder."""
    name = os.fspath(path)
    return _filesystem(name).exists(name) if is_remote(name) else path.exists()


def read_text(path: epath.Path) -> str:
    """A small file's text. Raises FileNotFoundError."""
    name = os.fspath(path)
    return cast(bytes, _filesystem(name).cat_file(name)).decode() if is_remote(name) else path.read_text()


def folders(path: epath.Path) -> list[epath.Path]:
    """The folders in a folder, hidden ones left out; none where there is no such folder."""
    name = os.fspath(path)
    if not exists(path):
        return []
    if is_remote(name):
        rows = _filesystem(name).ls(name, detail=True)
        found = [path / row["name"].rstrip("/").rsplit("/", 1)[-1] for row in rows if row["type"] == "directory"]
    else:
        found = [entry for entry in path.iterdir() if entry.is_dir()]
    return [folder for folder in found if not folder.name.startswith(".")]


def stamps(folder: epath.Path) -> dict[str, tuple[int, str]]:
    """Name -> (bytes, time of change) of every file in a folder, from one listing."""
    name = os.fspath(folder)
    if not is_remote(name):
        with os.scandir(name) as entries:
            found = ((entry.name, entry.stat()) for entry in entries if entry.is_file())
            return {key: (stat.st_size, str(stat.st_mtime_ns)) for key, stat in found}
    rows = _filesystem(name).ls(name, detail=True)
    files = (row for row in rows if row["type"] == "file")
    return {row["name"].rsplit("/", 1)[-1]: (int(row["size"]), _changed(row)) for row in files}


def read_ranges(ranges: Sequence[Range]) -> list[bytes | Exception]:
    """The bytes of every range, in order, asked for together; an exception stands where a range cannot be read.

    What fails is asked for again, `WAITS_S` later, but for a file that is not there or not ours to read.
    """
    merged, place = _coalesce(ranges)
    blocks = _fetch(merged)
    for wait in WAITS_S:
        failed = [i for i, block in enumerate(blocks) if _may_pass(block)]
        if not failed:
            break
        message = "%d ranges cannot be read, one of %s: %r; they are asked for again"
        path, fault = merged[failed[0]].path, blocks[failed[0]]
        logging.log_every_n_seconds(logging.WARNING, message, 60, len(failed), path, fault)
        time.sleep(wait)
        for i, block in zip(failed, _fetch([merged[i] for i in failed]), strict=True):
            blocks[i] = block
    found: list[bytes | Exception] = []
    for wanted, at in zip(ranges, place, strict=True):
        block, first = blocks[at], merged[at].start
        found.append(block if isinstance(block, Exception) else bytes(block[wanted.start - first : wanted.stop - first]))
    return found


def _fetch(ranges: Sequence[Range]) -> list[bytes | Exception]:
    if not ranges:
        return []
    paths, starts, stops = (list(column) for column in zip(*ranges, strict=True))
    return _filesystem(paths[0]).cat_ranges(paths, starts, stops, on_error="return")


def _may_pass(block: bytes | Exception) -> bool:
    """Whether it is a failure that another try may not meet."""
    return isinstance(block, Exception) and not isinstance(block, FileNotFoundError | PermissionError)


def _coalesce(ranges: Sequence[Range]) -> tuple[list[Range], list[int]]:
    """Fewer ranges that cover all, and for each of `ranges` the number of the one it lies in."""
    merged: list[Range] = []
    place = [0] * len(ranges)
    for number in sorted(range(len(ranges)), key=ranges.__getitem__):
        path, start, stop = ranges[number]
        if merged and merged[-1].path == path and start - merged[-1].stop <= GAP:
            merged[-1] = Range(path, merged[-1].start, max(merged[-1].stop, stop))
        else:
            merged.append(Range(path, start, stop))
        place[number] = len(merged) - 1
    return merged, place


def _filesystem(path: str) -> fsspec.AbstractFileSystem:
    """Raises ImportError, with what to install, where nothing here reads such a bucket."""
    scheme = path.split("://", 1)[0]
    try:
        return fsspec.filesystem(scheme)  # one instance a scheme: fsspec keeps them
    except ImportError as error:
        remedy = " pip install 'ebt_jax[gcs]'." if scheme in ("gs", "gcs") else ""
        raise ImportError(f"{scheme}:// needs a package that reads it, got: {error}.{remedy}") from error


def _changed(row: dict) -> str:
    """Whatever the bucket says that changes with the file's content."""
    known: Iterable[str] = ("etag", "generation", "mtime", "updated", "LastModified", "created")
    return next((str(row[key]) for key in known if row.get(key)), "")

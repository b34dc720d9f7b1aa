"""Finished cells on disk: one JSON each, whole or not at all. Locks, by which processes share the work."""

import contextlib
import fcntl
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from benchmarks.claims.cells import Cell

RESULTS = pathlib.Path(__file__).parents[1] / "results" / "claims"


def write_json(path: pathlib.Path, tree: Mapping[str, Any]) -> None:
    """Writes beside the file, then puts it in its place. Raises ValueError for NaN and infinity, which JSON does not have."""
    text = json.dumps(tree, allow_nan=False, separators=(",", ":")) + "\n"
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    part.write_text(text)
    os.replace(part, path)


@contextlib.contextmanager
def locked(path: pathlib.Path, wait: bool = False) -> Iterator[bool]:
    """Holds the lock of this file, made where it is missing, while the block runs; whether it could be had.

    Args:
      wait: for a process that has it.

    A process lets go of its locks when it ends, however it ends.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
            return
        try:
            yield True
        finally:
            fcntl.flock(file, fcntl.LOCK_UN)


def timing_path(folder: pathlib.Path, scale: str) -> pathlib.Path:
    """Where a scale's latencies of an idle machine are kept."""
    return folder / "latency" / f"{scale}.json"


def read_timing(folder: pathlib.Path, scale: str) -> dict[str, Any]:
    """What `benchmarks.claims.timing` wrote for a scale; {} where it has not been run."""
    path = timing_path(folder, scale)
    return json.loads(path.read_text()) if path.exists() else {}


def first_result(folder: pathlib.Path, phase: str, scale: str) -> dict[str, Any] | None:
    """The finished cell of the first name, which all others of a confirmation are held against; None where none is finished."""
    path = min((folder / phase / scale).rglob("*.json"), default=None)
    return None if path is None else json.loads(path.read_text())


def read_results(folder: pathlib.Path, phase: str) -> list[tuple[Cell, dict[str, Any]]]:
    """Every finished cell of a phase, in the order of their names. Raises ValueError for a file that is no cell, naming it."""
    found = []
    for path in sorted((folder / phase).rglob("*.json")):
        try:
            tree = json.loads(path.read_text())
            found.append((Cell(**tree["cell"]), tree))
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(
                f"{path} must hold a finished cell, got {type(error).__name__}: {error}. Remove it and run the cell again."
            ) from error
    return found

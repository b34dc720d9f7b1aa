"""Finished cells on disk: one JSON each, whole or not at all."""

import json
import os
import pathlib
from collections.abc import Mapping
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

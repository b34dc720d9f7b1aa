"""The format of what a checkpoint says of itself, with a way from every older one to today's.

    1   no format.json; a config without `keep_every`
    2   format.json; `keep_every`
    3   digests.json: older ones are read without being compared with anything

A change that older readers or today's reader would misread gets a new number and one function, from the files of the number before
to those of the new one: pure, old files in, new files out, so that a stored example of each tests it for ever.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

Files = Mapping[str, bytes]
"""File name -> content."""

FORMAT = 3


def _from_1(files: Files) -> Files:
    config = migrate_config(json.loads(files["config.json"]))
    return {**files, "config.json": json.dumps(config, indent=2, sort_keys=True).encode(), "format.json": format_file(2)}


def _from_2(files: Files) -> Files:
    return {"digests.json": b"null", **files, "format.json": format_file(3)}


MIGRATIONS: Mapping[int, Callable[[Files], Files]] = {1: _from_1, 2: _from_2}
"""Number -> how files of that format become files of the next one."""


def format_file(number: int = FORMAT) -> bytes:
    """The content of format.json."""
    return json.dumps({"format": number}).encode()


def format_of(files: Files) -> int:
    """The number that files were written under."""
    return json.loads(files["format.json"])["format"] if "format.json" in files else 1


def migrate(files: Files) -> Files:
    """Files of any format -> files of today's. Raises ValueError for one that only a newer version of the package knows."""
    number = format_of(files)
    if number > FORMAT:
        raise ValueError(f"format of a checkpoint must be at most {FORMAT}, got {number}. A newer ebt_jax wrote it: install that one.")
    for older in range(number, FORMAT):
        files = MIGRATIONS[older](files)
    return files


def migrate_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """The plain values of a run's configuration, of any format -> today's; a workdir's config.json has no number of its own."""
    return {"keep_every": 0, **config}

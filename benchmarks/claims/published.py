"""What others published for the same tasks, to stand beside what was measured here: published.json, a row a number."""

import json
import pathlib
from collections.abc import Collection
from typing import NamedTuple

from benchmarks.claims.tables import row

FILE = pathlib.Path(__file__).with_name("published.json")


class Published(NamedTuple):
    """Attributes:
    task: as the simulator names it.
    method, steps: the policy, and how often its network is asked for a chunk.
    score: as published.
    protocol: what makes it another number than ours.
    source: where it was read.
    headline: whether the README shows it.
    """

    task: str
    method: str
    steps: str
    score: str
    protocol: str
    source: str
    headline: bool


def read_published(path: pathlib.Path = FILE) -> list[Published]:
    return [Published(**one) for one in json.loads(path.read_text())]


def published_table(tasks: Collection[str], headline: bool = False) -> str:
    """The rows of these tasks, or of them those of the README; "" where there is none."""
    rows = [one for one in read_published() if one.task in tasks and (one.headline or not headline)]
    if not rows:
        return ""
    columns = ("task", "method", "steps", "score", "protocol", "source")
    lines = [row("task", "published", *columns[2:]), row(*["---"] * len(columns))]
    return "\n".join([*lines, *(row(*(getattr(one, name) for name in columns)) for one in rows)])

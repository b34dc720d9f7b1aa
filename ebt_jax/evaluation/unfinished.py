"""An evaluation that may be killed: what it has measured lies on disk episode by episode, and the same command goes on from there.

    DIR/unfinished.jsonl                  of a whole evaluation
    DIR/shards/0-of-4.unfinished.jsonl    of a worker's part
      {"conditions": ...}                 the first line
      one episode, and the calls since the last one (`Rollouts.to_tree`): each other line

An episode's result is a function of the conditions (`evaluation.rollouts`), so that episodes of two processes are those of one.
"""

import json
import pathlib
from collections.abc import Mapping
from typing import Any

from absl import logging

from ebt_jax.evaluation.measured import Rollouts
from ebt_jax.evaluation.shards import FOLDER
from ebt_jax.whole import write_whole

LEFT_OUT = ("command",)


def unfinished_path(folder: pathlib.Path, shard: tuple[int, int] | None) -> pathlib.Path:
    """Where it lies; `shard` as in `shards`, None for a whole evaluation."""
    return folder / "unfinished.jsonl" if shard is None else folder / FOLDER / f"{shard[0]}-of-{shard[1]}.unfinished.jsonl"


class Unfinished:
    """The file of one evaluation. It is closed between two episodes: buckets that are mounted keep a file when it is closed.

    Nothing is written before the first episode: an evaluation that is refused, or stopped before that, leaves what was there.

    Attributes:
      kept: the finished episodes, one each: those of an earlier process under the same conditions, and what was added.
    """

    def __init__(self, path: pathlib.Path, conditions: Mapping[str, Any]) -> None:
        """`conditions`: all that an episode's result, its latency and its film depend on; what is in `LEFT_OUT` does not count.

        Raises OSError where what is there cannot be read.
        """
        self.path = path
        conditions = {name: value for name, value in conditions.items() if name not in LEFT_OUT}
        self._head = json.dumps({"conditions": conditions})
        first, *lines = (path.read_text().splitlines() if path.exists() else []) or [self._head]
        self.kept = _kept(lines) if first == self._head else []
        self._begun = False
        if self.kept:
            logging.info("going on with %s: %d episodes are finished", path, len(self.kept))
        elif first != self._head:
            logging.warning("beginning anew: %s was measured under other conditions (%s).", path, _differing(first, conditions))

    def add(self, episode: Rollouts) -> None:
        """Puts one episode on disk; the first begins the file, without an earlier one's unusable lines. Raises OSError where that fails."""
        if self._begun:
            with self.path.open("a") as file:
                file.write(_line(episode) + "\n")
        else:
            write_whole(self.path, "".join(line + "\n" for line in (self._head, *map(_line, (*self.kept, episode)))))
        self._begun = True
        self.kept.append(episode)

    def remove(self) -> None:
        """Once what it holds is written elsewhere."""
        self.path.unlink(missing_ok=True)


def _line(episode: Rollouts) -> str:
    return json.dumps(episode.to_tree())


def _kept(lines: list[str]) -> list[Rollouts]:
    """Of an episode that two processes ran at the same time, the last; without a line that a kill cut short."""
    found = {}
    for line in lines:
        try:
            part = Rollouts.from_tree(json.loads(line))
        except (ValueError, KeyError, TypeError):
            continue
        found |= {(episode.task, episode.number): part for episode in part.episodes}
    return list(found.values())


def _differing(head: str, conditions: Mapping[str, Any]) -> str:
    try:
        theirs = json.loads(head)["conditions"]
    except (ValueError, KeyError, TypeError):
        return "its first line cannot be read"
    ours = json.loads(json.dumps(conditions))
    return ", ".join(sorted(name for name in {*ours, *theirs} if ours.get(name) != theirs.get(name)))

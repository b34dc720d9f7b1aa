"""Evaluations in parts: n workers run every n-th episode each, and what they write merges into what one would have measured.

DIR/shards/0-of-4.json   conditions, every episode, every chunk's steps and seconds
"""

import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from absl import logging

from ebt_jax.evaluation.measured import Rollouts, join
from ebt_jax.evaluation.results import latencies
from ebt_jax.whole import write_whole

FOLDER = "shards"
SAME = ("suite", "seed", "execution", "asking", "disturbance", "tasks", "episodes", "versions", "git", "sources", "renderer")
"""Conditions that must agree between workers, beside the policy's hash; hardware and commands may differ, and are kept of each."""


def parse_shard(text: str) -> tuple[int, int]:
    """ "2/8" -> (2, 8). Raises ValueError for anything else."""
    match = re.fullmatch(r"(\d+)/(\d+)", text)
    shard = (int(match[1]), int(match[2])) if match else (0, 0)
    if not shard[0] < shard[1]:
        raise ValueError(f"worker must be i/N with 0 <= i < N, got {text!r}.")
    return shard


def write_shard(folder: pathlib.Path, shard: tuple[int, int], conditions: dict[str, Any], rollouts: Rollouts) -> pathlib.Path:
    """Writes one worker's part, whole or not at all."""
    path = folder / FOLDER / f"{shard[0]}-of-{shard[1]}.json"
    write_whole(path, json.dumps({"conditions": conditions, "rollouts": rollouts.to_tree()}) + "\n")
    return path


def merge_shards(folder: pathlib.Path) -> tuple[dict[str, Any], Rollouts]:
    """What all workers share with the hardware and command of each, and the rollouts of all, in the order of one evaluation.

    `wall_seconds` is the slowest worker's. `machines` are the workers that ran on equal hardware, and their latencies; where there are
    several, `mixed_hardware` is true, which a warning says too, and the rollouts' `seconds` are empty: they are of no one machine.

    Raises ValueError where a worker's part is missing, where two were not run under the same conditions, and where a part does not hold
    the episodes of its name.
    """
    paths = {path.stem: path for path in (folder / FOLDER).glob("*-of-*.json")}
    counts = {name.partition("-of-")[2] for name in paths}
    if len(counts) != 1:
        raise ValueError(f"{folder / FOLDER} must hold the parts of one evaluation, got {sorted(paths) or 'none'}.")
    number = int(counts.pop())
    missing = [f"{i}-of-{number}" for i in range(number) if f"{i}-of-{number}" not in paths]
    if missing:
        raise ValueError(
            f"{folder / FOLDER} must hold all {number} parts, got none of {missing}. Run --worker={missing[0].replace('-of-', '/')}."
        )
    parts = [json.loads(paths[f"{i}-of-{number}"].read_text()) for i in range(number)]
    first = parts[0]["conditions"]
    for i, part in enumerate(parts):
        theirs = part["conditions"]
        differing = [key for key in SAME if theirs.get(key) != first.get(key)]
        differing += ["policy.sha256"] if theirs["policy"]["sha256"] != first["policy"]["sha256"] else []
        if differing:
            raise ValueError(f"workers must run under the same conditions, got other {differing} in {i}-of-{number} than in 0-of-{number}.")
    found = [Rollouts.from_tree(part["rollouts"]) for part in parts]
    every_episode = [(task, n) for task in first["tasks"] for n in range(first["episodes"])]
    for i, part in enumerate(found):
        held, wanted = sorted((e.task, e.number) for e in part.episodes), sorted(every_episode[i::number])
        if held != wanted:
            raise ValueError(
                f"{i}-of-{number} must hold {len(wanted)} episodes, the {i}-th and every {number}-th after it, got {len(held)} "
                f"that are not those. Was a file renamed? Run --worker={i}/{number} again."
            )
    hardware = [part["conditions"]["hardware"] for part in parts]
    machines = _machines(hardware)
    if len(machines) > 1:
        logging.warning(
            "workers ran on %d kinds of machine: on one of another kind an episode may come out otherwise. Latencies are given for each.",
            len(machines),
        )
    seconds = [join([found[i] for i in workers], first["tasks"]).seconds for workers in machines]
    conditions = {
        **first,
        "hardware": hardware,
        "command": [part["conditions"]["command"] for part in parts],
        "mixed_hardware": len(machines) > 1,
        "machines": [{"workers": workers, "latency_ms": latencies(theirs)} for workers, theirs in zip(machines, seconds, strict=True)],
    }
    return conditions, join(found, first["tasks"])._replace(
        seconds=seconds[0] if len(machines) == 1 else {}, wall_seconds=max(part.wall_seconds for part in found)
    )


def _machines(hardware: Sequence[Mapping[str, Any]]) -> list[list[int]]:
    """The workers of each kind of machine."""
    kinds = [one for i, one in enumerate(hardware) if one not in hardware[:i]]
    return [[i for i, one in enumerate(hardware) if one == kind] for kind in kinds]

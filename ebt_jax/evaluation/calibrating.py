"""Courses of doubt over episodes that the policy did not learn from: what a calibration is made of."""

import json
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import numpy as np
from etils import epath
from jaxtyping import Float

from ebt_jax.artifact import MANIFEST
from ebt_jax.calibration import DoubtSettings
from ebt_jax.checkpoint import CheckpointError, locate
from ebt_jax.data.mixture import Mixture, episodes
from ebt_jax.evaluation.open_loop import take
from ebt_jax.policy import Policy
from ebt_jax.training.settings import Settings
from ebt_jax.uncertainty import Doubt

BATCH_SIZE = 16

Course = tuple[str, Mapping[str, Float[np.ndarray, " n"]]]
"""Task, and statistic -> its value at each decision."""

Progress = Callable[[Iterable[Any], int, str], Iterable[Any]]


def demonstrated(
    policy: Policy,
    mixture: Mixture,
    split: str,
    settings: DoubtSettings,
    *,
    seed: int = 0,
    progress: Progress = lambda items, total, description: items,
) -> list[Course]:
    """Doubt along every episode of a split, at every step where the policy would be asked; its task is its instruction."""
    found, count = [], sum(len(part.episodes) for part in mixture.split(split))
    for number, episode in enumerate(progress(episodes(mixture, split), count, "episodes")):
        asked = np.arange(0, len(episode.actions), policy.execution_horizon)
        parts = []
        for start in range(0, len(asked), BATCH_SIZE):
            rows = asked[np.minimum(np.arange(start, start + BATCH_SIZE), len(asked) - 1)]
            keys = policy.sample_keys(seed, np.full(BATCH_SIZE, number), rows)
            parts.append(policy.doubt(take(episode.observation, rows), keys, *settings)._asdict())
        found.append((episode.instruction, {name: np.concatenate([part[name] for part in parts])[: len(asked)] for name in parts[0]}))
    return found


def rolled_out(results: Mapping[str, Any], policy_sha256: str) -> list[Course]:
    """The successful episodes of `evaluate --doubt`.

    Raises ValueError where doubt was not noted, or by another policy, and for an open loop, which has neither doubt nor successes.
    """
    if results.get("suite") == "dataset":
        raise ValueError(
            "results.json must be of a closed loop, whose successes calibrate, got suite 'dataset'. Evaluate in a simulator with --doubt, "
            "or calibrate on the dataset's episodes: --data_dir and --dataset."
        )
    theirs = results["policy"]["sha256"]
    if theirs != policy_sha256:
        raise ValueError(f"results.json must be of this policy, {policy_sha256[:12]}, got {theirs[:12]}. Evaluate it again.")
    rows = [(task, episode) for task, found in results["tasks"].items() for episode in found["episode"]]
    if not all("doubt" in episode for _, episode in rows if "failure" not in episode):
        raise ValueError("results.json must hold doubt for every episode, got some without. Evaluate with --doubt.")
    found = [(task, one["doubt"]) for task, one in rows if one["success"]]
    return [(task, {name: np.array(doubt[name]) for name in Doubt._fields if name in doubt}) for task, doubt in found]


def measured_with(results: Mapping[str, Any], policy: Policy) -> DoubtSettings:
    """With what `evaluate --doubt` took its statistics, the reference chunks being the policy's.

    Raises ValueError where results.json does not say, and where the policy was given other reference chunks since.
    """
    noted = results.get("asking", {}).get("doubt")
    if not isinstance(noted, Mapping):
        raise ValueError("results.json must say with how many starts doubt was measured, got no asking.doubt. Evaluate with --doubt again.")
    present = policy.doubt_settings
    if noted["references_sha256"] not in ("", present.references_sha256):
        raise ValueError(
            f"relative_energy must have been measured against the policy's reference chunks, {present.references_sha256[:12] or 'none'}, "
            f"got {noted['references_sha256'][:12]}: the policy was calibrated since. Evaluate with --doubt again."
        )
    return DoubtSettings(noted["num_starts"], present.references, noted["temperature"])


def find_step(path: str | os.PathLike[str]) -> epath.Path:
    """The step folder that `ebt_jax.load(path)` reads. Raises CheckpointError for none, and for an artifact, which is sealed."""
    if (epath.Path(path) / MANIFEST).is_file():
        raise CheckpointError(f"policy must be a run, whose checkpoint can be added to, got the artifact {path}. Export after.")
    directory, step = locate(path, "policy")
    return directory / str(step)


def run_settings(step_folder: epath.Path) -> Settings:
    """What the checkpoint's run was asked to do."""
    return Settings.from_dict(json.loads((step_folder / "assets" / "config.json").read_text()))


def write_calibration(step_folder: epath.Path, text: str) -> epath.Path:
    """Puts calibration.json beside the other files of a checkpoint's step, whole or not at all; `export` carries it on."""
    path = step_folder / "assets" / "calibration.json"
    partial = path.with_suffix(".partial")
    partial.write_text(text)
    partial.replace(path)
    return path

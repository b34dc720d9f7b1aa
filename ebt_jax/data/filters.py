"""Which episodes and windows are left out of training on purpose, and how many they were.

An episode goes as a whole, where it is short, unnamed, failed or out of range. Of an idle stretch only the windows go, not the
frames: what a chunk shows stays one piece of time.
"""

import dataclasses
from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Float, Int
from numpy.typing import NDArray

from ebt_jax.data.index import Index
from ebt_jax.data.settings import NO_FILTERS, Filters
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.splits import RUN, Split
from ebt_jax.normalize import Normalizer, normalize


def apply(filters: Filters, split: Split, spec: DatasetSpec, normalizer: Normalizer) -> tuple[Split, Mapping[str, int]]:
    """The split without what the filters leave out, and how much that was by reason; an episode counts for the first that it meets."""
    if filters == NO_FILTERS:
        return split, {}
    index, episodes = split.index, split.episodes
    reasons = [("short episodes", episodes["length"] < filters.min_steps)]
    if filters.require_instruction and "text" in index.columns:
        reasons.append(("episodes without instruction", ~_instructed(index, episodes)))
    if filters.require_success:
        reasons.append(("failed episodes", episodes["success"] == 0))
    if filters.max_action > 0:
        reasons.append(("episodes out of range", _largest(index, episodes, normalizer) > filters.max_action))
    kept, left_out = np.ones(len(episodes), bool), {}
    for reason, bad in reasons:
        if count := int((kept & bad).sum()):
            left_out[reason] = count
        kept &= ~bad
    split = Split(index, episodes[kept])
    if filters.idle_steps:
        before = len(split)
        split = dataclasses.replace(split, runs=_awake(filters, split, spec, normalizer))
        if before > len(split):
            left_out["idle windows"] = before - len(split)
    return split, left_out


def _instructed(index: Index, episodes: NDArray) -> Bool[np.ndarray, " n"]:
    written = np.array([bool(text.strip()) for text in index.texts], bool)
    rows = written[index.columns["text"]]
    return np.array([rows[start : start + length].any() for start, length in _spans(episodes)], bool)


def _largest(index: Index, episodes: NDArray, normalizer: Normalizer) -> Float[np.ndarray, " n"]:
    actions = index.columns["action"]
    return np.array(
        [np.abs(normalize(actions[start : start + length], normalizer)).max(initial=0.0) for start, length in _spans(episodes)], float
    )


def _awake(filters: Filters, split: Split, spec: DatasetSpec, normalizer: Normalizer) -> NDArray:
    """The runs of windows that are not idle at their start."""
    runs = []
    changes = np.array([dimension.kind in ("eef_absolute", "joint_position", "gripper") for dimension in spec.action])
    for number, (start, length) in enumerate(_spans(split.episodes)):
        if length == 0:
            continue
        actions = np.asarray(split.index.columns["action"][start : start + length])
        moved = np.where(changes, np.diff(actions, axis=0, prepend=actions[:1]), actions) / normalizer.scale
        kept = _soon(np.abs(moved).max(axis=1) > filters.idle_below, filters.idle_steps)
        edges = np.flatnonzero(np.diff(kept.astype(np.int8), prepend=0, append=0))
        runs += [(number, first, last - first) for first, last in zip(edges[::2], edges[1::2], strict=True)]
    return np.array(runs, RUN)


def _soon(active: Bool[np.ndarray, " t"], steps: int) -> Bool[np.ndarray, " t"]:
    """Whether any of a step and the `steps` - 1 that follow is active."""
    place = np.arange(len(active))
    following: Int[np.ndarray, " t"] = np.minimum.accumulate(np.where(active, place, len(active) + steps)[::-1])[::-1]
    return following < place + steps


def _spans(episodes: NDArray) -> list[tuple[int, int]]:
    return list(zip(episodes["start"].tolist(), episodes["length"].tolist(), strict=True))

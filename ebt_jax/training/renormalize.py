"""What another network read of the robot's state, and its parameters for a state that is normalised otherwise."""

import dataclasses
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ebt_jax.models.transfer import renormalize_proprio, state_rows
from ebt_jax.normalize import Normalizer, Statistics, VectorStatistics, constant, make_normalizer, resolution
from ebt_jax.specs import Specs
from ebt_jax.training.settings import Settings, dataset_statistics
from ebt_jax.training.trained import Trained
from ebt_jax.types import Params


class Reading(NamedTuple):
    """How the source's network came by the state of the target's robot.

    Each dataset of a mixture is normalised by its own statistics: those of the target's own dataset where the source knew it; of one
    dataset, that one's. A mixture that did not know it has learnt states as deviations from their own dataset's mean, whatever the
    dataset, and so finds the target's.

    Attributes:
      statistics: those by which it was normalised, in the order of the source's specs; None for the target's own.
      still: the numbers that stood still in all of the source's datasets.
      words: which they are.
    """

    statistics: VectorStatistics | None
    still: NDArray[np.bool_]
    words: str


def read_as(source: Trained, dataset: str) -> Reading:
    """Of a target whose main dataset has this name."""
    whole, names = source.statistics.proprio, [dimension.name for dimension in source.specs.observation.proprio]
    trees = json.loads(source.datasets)
    if len(trees) < 2:
        return Reading(whole, constant(whole), "the source's only dataset's")
    known = {tree["name"]: _placed(tree, names, whole) for tree in trees}
    still = np.all([constant(placed) | ~has for placed, has in known.values()], axis=0)
    if dataset in known:
        return Reading(known[dataset][0], still, f"those of {dataset}, one of the source's {len(trees)} datasets")
    return Reading(None, still, f"its own, since none of the source's {len(trees)} datasets is {dataset}")


def _placed(tree: Mapping[str, Any], names: list[str], otherwise: VectorStatistics) -> tuple[VectorStatistics, NDArray[np.bool_]]:
    """A dataset's statistics of the state in the order of `names`, and which of them it has; `otherwise` where it lacks one."""
    own = dataset_statistics(tree).proprio
    places = {dimension["name"]: i for i, dimension in enumerate(tree["spec"]["proprio"])}
    at = np.array([places.get(name, -1) for name in names], int)
    fields = [field.name for field in dataclasses.fields(VectorStatistics)]
    values = {f: np.where(at < 0, getattr(otherwise, f), np.append(getattr(own, f), np.nan)[at]) for f in fields}
    return VectorStatistics(**values), at >= 0


def renormalized(source: Trained, reading: Reading, settings: Settings, specs: Specs, statistics: Statistics) -> Params:
    """The source's parameters, reading numbers of the state that both have as the target's statistics normalise them.

    x_there = (r - shift_there) / scale_there and x_here = (r - shift_here) / scale_here give x_there = scale x_here + shift. A number
    in other units on the two sides, or that never moved in the source's data, keeps its row as it is.
    """
    wrapped = isinstance(source.params, dict) and "model" in source.params
    params = source.params["model"] if wrapped else source.params
    count = len(source.specs.observation.proprio)
    if not count:
        return source.params
    scale, shift = np.ones(count, np.float32), np.zeros(count, np.float32)
    if reading.statistics is not None:
        there = make_normalizer(reading.statistics, source.settings.data.proprio_normalization)
        here = make_normalizer(statistics.proprio, settings.data.proprio_normalization)
        here_by_dimension = {dimension: i for i, dimension in enumerate(specs.observation.proprio)}
        unread = untaught(source, reading, specs, statistics)
        for i, dimension in enumerate(source.specs.observation.proprio):
            j = here_by_dimension.get(dimension)
            if j is not None and i not in unread:
                scale[i], shift[i] = _affine(there, here, i, j)
    gains = source.settings.model.motion_gain, settings.model.motion_gain
    ratio = gains[0] / gains[1] if all(gains) else 1.0
    params = renormalize_proprio(params, state_rows(source.settings.model, source.specs), scale, shift, ratio)
    return {**source.params, "model": params} if wrapped else params


def untaught(source: Trained, reading: Reading, specs: Specs, statistics: Statistics) -> set[int]:
    """Numbers of the source's state that stood still in its data and move or stand elsewhere here: nothing has trained their rows."""
    there, here = reading.statistics, statistics.proprio
    moving, places = ~constant(here), {d.name: j for j, d in enumerate(specs.observation.proprio)}
    found = set()
    for i, dimension in enumerate(source.specs.observation.proprio):
        j = places.get(dimension.name)
        if j is None or not reading.still[i]:
            continue
        if there is None:
            elsewhere = moving[j]
        else:
            elsewhere = max(abs(here.min[j] - there.min[i]), abs(here.max[j] - there.max[i])) >= resolution(there)[i]
        if elsewhere:
            found.add(i)
    return found


def _affine(there: Normalizer, here: Normalizer, i: int, j: int) -> tuple[float, float]:
    return float(here.scale[j] / there.scale[i]), float((here.shift[j] - there.shift[i]) / there.scale[i])

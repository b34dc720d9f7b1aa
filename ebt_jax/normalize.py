"""normalised = (robot units - shift) / scale, per dimension, from statistics that travel with the checkpoint."""

import dataclasses
import json
import math
from typing import Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Array, Float
from numpy.typing import NDArray

from ebt_jax.specs import ActionDimension

Mode = Literal["quantile", "mean_std", "min_max"]

QUANTILE_REACH = 5.0
"""Under quantile normalisation no number lies farther out, as at Octo: a few wrong ones of a dataset reach hundreds."""

_FIELDS = ("mean", "std", "min", "max", "q01", "q99")


@dataclasses.dataclass(frozen=True)
class VectorStatistics:
    """Moments of one vector over every step of a dataset, robot units, each [d] float64."""

    mean: NDArray[np.float64]
    std: NDArray[np.float64]
    min: NDArray[np.float64]
    max: NDArray[np.float64]
    q01: NDArray[np.float64]
    q99: NDArray[np.float64]

    @classmethod
    def of(cls, values: NDArray) -> "VectorStatistics":
        """Statistics of the rows of `values` [n d]. Raises ValueError where a value is not finite, naming the dimension."""
        values = np.asarray(values, np.float64)
        if values.ndim != 2 or len(values) == 0:
            raise ValueError(f"values must be a non-empty [n d] array, got shape {values.shape}.")
        bad = np.flatnonzero(~np.isfinite(values).all(axis=0))
        if bad.size:
            raise ValueError(f"values must be finite, got NaN or infinity in dimensions {bad.tolist()}. Filter these episodes out.")
        q01, q99 = np.quantile(values, [0.01, 0.99], axis=0)
        return cls(values.mean(0), values.std(0), values.min(0), values.max(0), q01, q99)


@dataclasses.dataclass(frozen=True)
class Statistics:
    """What normalisation needs to know of a dataset; `statistics.json` of a checkpoint."""

    action: VectorStatistics
    proprio: VectorStatistics
    num_transitions: int
    num_episodes: int

    def to_json(self) -> str:
        tree = {
            "action": {name: getattr(self.action, name).tolist() for name in _FIELDS},
            "proprio": {name: getattr(self.proprio, name).tolist() for name in _FIELDS},
            "num_transitions": self.num_transitions,
            "num_episodes": self.num_episodes,
        }
        return json.dumps(tree, indent=2)

    @classmethod
    def from_json(cls, text: str) -> "Statistics":
        """Inverse of `to_json`, exact. Raises ValueError for anything else."""
        try:
            tree = json.loads(text)
            action, proprio = (
                VectorStatistics(*(np.asarray(tree[part][name], np.float64) for name in _FIELDS)) for part in ("action", "proprio")
            )
            return cls(action, proprio, int(tree["num_transitions"]), int(tree["num_episodes"]))
        except (KeyError, TypeError, json.JSONDecodeError) as error:
            raise ValueError(f"statistics must be JSON as `Statistics.to_json` writes it, got a fault at {error}.") from error


class Normalizer(NamedTuple):
    """The affine map between robot units and the network's, one entry a dimension, and how far from 0 the network is shown a number."""

    shift: Float[Array | np.ndarray, " d"]
    scale: Float[Array | np.ndarray, " d"]
    reach: float = math.inf


def resolution(statistics: VectorStatistics) -> NDArray[np.float64]:
    """Half the range below which a dimension counts as constant, robot units: 1e-4 of its magnitude, at least 1e-6."""
    return _floor(np.maximum(np.abs(statistics.min), np.abs(statistics.max)))


def constant(statistics: VectorStatistics) -> NDArray[np.bool_]:
    """Which dimensions never move."""
    return (statistics.max - statistics.min) / 2 < resolution(statistics)


def make_normalizer(statistics: VectorStatistics, mode: Mode, dimensions: tuple[ActionDimension, ...] = ()) -> Normalizer:
    """Maps the bulk of the data to about [-1, 1].

    quantile: 1 % and 99 % to -1 and 1; min_max: the extremes; mean_std: one standard deviation to 1. Grippers among
    `dimensions` always map [0, 1] to [-1, 1], whatever the data did with them. A dimension that never moves would get
    scale 0 and blow up the first time it does: scales have a floor of 1e-4 of the dimension's magnitude (at least 1e-6), the
    magnitude of 1 % and 99 % under quantile. Below it the extremes set the scale, as of a dimension that moves at fewer steps
    than the quantiles see; one whose extremes lie below their own floor counts as constant and gets scale 1.
    """
    shift, scale = _bulk(statistics, mode)
    floor = resolution(statistics)
    if mode == "quantile":  # whose bulk is not to be judged by what it leaves out
        floor = _floor(np.maximum(np.abs(statistics.q01), np.abs(statistics.q99)))
    extremes = np.where(constant(statistics), 1.0, (statistics.max - statistics.min) / 2)
    scale = np.where(scale < floor, extremes, scale)
    gripper = np.array([dimension.kind == "gripper" for dimension in dimensions], bool)
    if gripper.size:
        shift, scale = np.where(gripper, 0.5, shift), np.where(gripper, 0.5, scale)
    reach = QUANTILE_REACH if mode == "quantile" else math.inf
    return Normalizer(np.asarray(shift, np.float32), np.asarray(scale, np.float32), reach)


def lopsided(statistics: VectorStatistics, mode: Mode) -> NDArray[np.bool_]:
    """Which dimensions move, but with a bulk that lies within 1e-4 of their extremes: these are faults, or the motion is rare."""
    return ~constant(statistics) & (_bulk(statistics, mode)[1] < resolution(statistics))


def _bulk(statistics: VectorStatistics, mode: Mode) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(shift, scale) by the mode alone."""
    if mode not in get_args(Mode):
        raise ValueError(f"normalisation must be one of {get_args(Mode)}, got {mode!r}.")
    if mode == "mean_std":
        return statistics.mean, statistics.std
    low, high = (statistics.q01, statistics.q99) if mode == "quantile" else (statistics.min, statistics.max)
    return (low + high) / 2, (high - low) / 2


def _floor(magnitude: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.maximum(1e-4 * magnitude, 1e-6)


def action_reach(statistics: VectorStatistics, mode: Mode, dimensions: tuple[ActionDimension, ...] = ()) -> float:
    """The largest magnitude of a normalised number that is trained on, at least 1: by construction 1 under min_max, beyond it otherwise."""
    if mode == "min_max":
        return 1.0
    extremes = np.stack([statistics.min, statistics.max])
    return max(1.0, float(np.max(np.abs(normalize_within(extremes, make_normalizer(statistics, mode, dimensions))))))


def normalize_within(values: Float[Array | np.ndarray, "*b d"], normalizer: Normalizer) -> Float[Array | np.ndarray, "*b d"]:
    """Robot units -> normalised, as a network is shown them: within [-5, 5] under quantile, where a share of them may lie anywhere."""
    return normalize(values, normalizer).clip(-normalizer.reach, normalizer.reach)


def normalize(values: Float[Array | np.ndarray, "*b d"], normalizer: Normalizer) -> Float[Array | np.ndarray, "*b d"]:
    """Robot units -> normalised."""
    return (values - _trailing(normalizer.shift, values)) / _trailing(normalizer.scale, values)


def unnormalize(values: Float[Array | np.ndarray, "*b d"], normalizer: Normalizer) -> Float[Array | np.ndarray, "*b d"]:
    """Normalised -> robot units."""
    return values * _trailing(normalizer.scale, values) + _trailing(normalizer.shift, values)


def _trailing(vector: Float[Array | np.ndarray, " d"], like: Float[Array | np.ndarray, "*b d"]) -> Float[Array | np.ndarray, "*_ d"]:
    return vector.reshape((1,) * (like.ndim - 1) + vector.shape)

"""(action, proprio) = standardize(columns): from a dataset's own numbers to ours: SI units, gripper 1 = open.

A column is one feature over the steps of one episode. A spec joins the features it names side by side, then converts:

    keep                      these columns only, in this order
    scale                     x by
    unit_ball                 a vector v -> by v / max(1, |v|), for commands that a controller limits to the unit ball
    wrap                      an angle in radians into [-pi, pi)
    open, closed              a gripper at x or 1 - x, cut to [0, 1]: right for {0, 1} and for {-1, 1}
    signed_open               a gripper at (x + 1) / 2, for targets that vary from -1 to 1
    relative_closed           gripper events (> 0 closes, < 0 opens, 0 leaves it) -> where the gripper is
    binarize                  a gripper that is going somewhere -> 0 or 1, where it will be
    quaternion_xyzw           4 columns -> roll, pitch, yaw in their place
    rotation_vector_residual  (now r, change d: 6 columns) -> roll, pitch, yaw of R(r + d) R(r)^-1 where d stood; r goes

roll, pitch and yaw turn about the fixed x, y and z axes, in this order: R = Rz(yaw) Ry(pitch) Rx(roll).
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Float32
from numpy.typing import NDArray

from ebt_jax.data.spec import Conversion, DatasetSpec
from ebt_jax.specs import ActionDimension

Columns = Mapping[str, NDArray]
"""Feature path -> [T, ...] values of one episode, in the dataset's own units."""

Standardize = Callable[[DatasetSpec, Columns], tuple[Float32[np.ndarray, "t a"], Float32[np.ndarray, "t p"]]]
"""Actions and proprio of one episode in the spec's units and order, as many steps as came in."""


def join(spec: DatasetSpec, columns: Columns) -> tuple[Float32[np.ndarray, "t a"], Float32[np.ndarray, "t p"]]:
    """The spec's features side by side, converted as it says. Raises ValueError for a conversion of columns that are not there."""
    steps = len(columns[spec.action_keys[0]])
    action, proprio = _beside(steps, columns, spec.action_keys), _beside(steps, columns, spec.proprio_keys)
    return convert(action, spec.action_conversions), convert(proprio, spec.proprio_conversions)


class Entry(NamedTuple):
    """What is known of one dataset: its spec, and the function that makes its values mean what the spec says."""

    spec: DatasetSpec
    standardize: Standardize = join


def convert(values: Float[np.ndarray, "t d"], conversions: tuple[Conversion, ...]) -> Float32[np.ndarray, "t e"]:
    """`values` after each conversion in turn."""
    for conversion in conversions:
        if max(conversion.columns) >= values.shape[1]:
            raise ValueError(
                f"conversion {conversion.what!r} must name columns below {values.shape[1]}, got {conversion.columns}. Correct the spec."
            )
        values = _apply(values.astype(np.float64), conversion)
    return values.astype(np.float32)


def check_grippers(action: Float[np.ndarray, "t a"], dimensions: Sequence[ActionDimension]) -> None:
    """Raises ValueError for a gripper's number outside [0, 1] by more than a twentieth: everything after takes 1 for open."""
    for values, dimension in zip(action.T, dimensions, strict=True):
        if dimension.kind == "gripper" and len(values):
            step = int(np.argmax(np.abs(values - 0.5)))
            if abs(values[step] - 0.5) > 0.55:
                raise ValueError(
                    f"gripper {dimension.name!r} must lie between 0 (closed) and 1 (open), got {values[step]:g} at step {step}. "
                    "Convert it in the spec: scale, open, closed, signed_open, relative_closed (docs/data.md)."
                )


def binarize_gripper(opening: Float[np.ndarray, " t"]) -> Float32[np.ndarray, " t"]:
    """1 above 0.95, 0 below 0.05, and in between where the gripper is going: the next step that is one or the other.

    A movement that the episode's end cuts off counts as the nearer side. After Octo (`binarize_gripper_actions`), which keeps
    such a tail as it is.
    """
    settled = (opening > 0.95) | (opening < 0.05)
    steps = np.arange(len(opening))
    following = np.minimum.accumulate(np.where(settled, steps, len(opening))[::-1])[::-1]
    return (opening[np.where(following < len(opening), following, steps)] > 0.5).astype(np.float32)


def gripper_from_events(closing: Float[np.ndarray, " t"]) -> Float32[np.ndarray, " t"]:
    """Where a gripper is (1 = open) that closes above 0.1, opens below -0.1 and else stays.

    Before the first event it is on the other side, since an event changes something; without any it is open. After Octo
    (`rel2abs_gripper_actions`).
    """
    event = np.where(closing > 0.1, 0.0, np.where(closing < -0.1, 1.0, np.nan))
    happened = np.flatnonzero(~np.isnan(event))
    if not len(happened):
        return np.ones(len(closing), np.float32)
    latest = np.searchsorted(happened, np.arange(len(closing)), side="right") - 1
    return np.where(latest < 0, 1 - event[happened[0]], event[happened[latest]]).astype(np.float32)


def _beside(steps: int, columns: Columns, keys: tuple[str, ...]) -> Float32[np.ndarray, "t d"]:
    parts = [columns[key].astype(np.float32).reshape(steps, math.prod(columns[key].shape[1:])) for key in keys]
    return np.concatenate(parts, axis=1) if parts else np.zeros((steps, 0), np.float32)


def _apply(values: Float[np.ndarray, "t d"], conversion: Conversion) -> Float[np.ndarray, "t e"]:
    columns, by = list(conversion.columns), conversion.by
    chosen = values[:, columns]
    match conversion.what:
        case "keep":
            return chosen
        case "quaternion_xyzw":
            return _replace(values, columns, _rpy(_from_quaternion(chosen)))
        case "rotation_vector_residual":
            now, change = chosen[:, :3], chosen[:, 3:]
            turned = _from_rotation_vector(now + change) @ _from_rotation_vector(now).transpose(0, 2, 1)
            return np.delete(_put(values, columns[3:], _rpy(turned)), columns[:3], axis=1)
        case "scale":
            converted = chosen * by
        case "unit_ball":
            converted = by * chosen / np.maximum(np.linalg.norm(chosen, axis=1, keepdims=True), 1.0)
        case "wrap":
            converted = (chosen + np.pi) % (2 * np.pi) - np.pi
        case "open":
            converted = np.clip(chosen, 0, 1)
        case "closed":
            converted = 1 - np.clip(chosen, 0, 1)
        case "signed_open":
            converted = (np.clip(chosen, -1, 1) + 1) / 2
        case "relative_closed":
            converted = np.stack([gripper_from_events(column) for column in chosen.T], axis=1)
        case "binarize":
            converted = np.stack([binarize_gripper(column) for column in chosen.T], axis=1)
    return _put(values, columns, converted)


def _put(values: Float[np.ndarray, "t d"], columns: list[int], new: Float[np.ndarray, "t n"]) -> Float[np.ndarray, "t d"]:
    result = values.copy()
    result[:, columns] = new
    return result


def _replace(values: Float[np.ndarray, "t d"], columns: list[int], new: Float[np.ndarray, "t n"]) -> Float[np.ndarray, "t e"]:
    """`new` where the leftmost of `columns` stood; the others go."""
    at, rest = min(columns), np.delete(values, columns, axis=1)
    return np.concatenate([rest[:, :at], new, rest[:, at:]], axis=1)


def _from_quaternion(xyzw: Float[np.ndarray, "t 4"]) -> Float[np.ndarray, "t 3 3"]:
    x, y, z, w = (xyzw / np.linalg.norm(xyzw, axis=1, keepdims=True)).T
    rows = [
        [1 - 2 * (y * y + z * z), 2 * (x * y - z * w), 2 * (x * z + y * w)],
        [2 * (x * y + z * w), 1 - 2 * (x * x + z * z), 2 * (y * z - x * w)],
        [2 * (x * z - y * w), 2 * (y * z + x * w), 1 - 2 * (x * x + y * y)],
    ]
    return np.moveaxis(np.array(rows), 2, 0)


def _from_rotation_vector(vector: Float[np.ndarray, "t 3"]) -> Float[np.ndarray, "t 3 3"]:
    half = np.linalg.norm(vector, axis=1, keepdims=True) / 2
    return _from_quaternion(np.concatenate([vector / 2 * np.sinc(half / np.pi), np.cos(half)], axis=1))


def _rpy(rotation: Float[np.ndarray, "t 3 3"]) -> Float[np.ndarray, "t 3"]:
    roll = np.arctan2(rotation[:, 2, 1], rotation[:, 2, 2])
    pitch = np.arctan2(-rotation[:, 2, 0], np.hypot(rotation[:, 0, 0], rotation[:, 1, 0]))
    return np.stack([roll, pitch, np.arctan2(rotation[:, 1, 0], rotation[:, 0, 0])], axis=1)

"""One space for datasets whose robots differ: every number that any of them has, and a mask where one lacks it.

    toy      x y gripper         x y gripper roll joint_0
    arm      x y roll gripper    x y gripper roll    -
    legacy   joint_0 gripper     - -  gripper  -  joint_0

Actions are the same number where name and kind agree, states where the name does. Units, frames and control rates may differ
beneath: each dataset is normalised by its own statistics. What a robot lacks is 0 in what the network reads of it; a policy acts as
one of the robots, the main dataset's unless another is named, with its numbers alone.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int
from numpy.typing import NDArray

from ebt_jax.data.spec import DatasetSpec
from ebt_jax.normalize import Statistics, VectorStatistics
from ebt_jax.specs import ActionDimension, ActionSpec, Dimension, Specs
from ebt_jax.types import AnyArray, Batch


class Place(NamedTuple):
    """Where a dataset's numbers stand among the mixture's."""

    action: Int[np.ndarray, " a"]
    proprio: Int[np.ndarray, " p"]


class Union(NamedTuple):
    """The mixture's numbers, and each dataset's place among them."""

    action: tuple[ActionDimension, ...]
    proprio: tuple[Dimension, ...]
    places: tuple[Place, ...]


def unite(specs: Sequence[DatasetSpec], main: int) -> Union:
    """Dimensions in the order of `specs[main]`, then of the others as they come; unit and limits are of the first that has one."""
    order = [specs[main], *specs[:main], *specs[main + 1 :]]
    actions: dict[tuple[str, str], ActionDimension] = {}
    for dimension in (dimension for spec in order for dimension in spec.action):
        taken = {other.name for other in actions.values()}
        name = f"{dimension.name} ({dimension.kind})" if dimension.name in taken else dimension.name
        actions.setdefault((dimension.name, dimension.kind), dataclasses.replace(dimension, name=name))
    states: dict[str, Dimension] = {}
    for dimension in (dimension for spec in order for dimension in spec.proprio):
        states.setdefault(dimension.name, dimension)
    places = tuple(
        Place(
            np.array([list(actions).index((dimension.name, dimension.kind)) for dimension in spec.action], np.int64),
            np.array([list(states).index(dimension.name) for dimension in spec.proprio], np.int64),
        )
        for spec in specs
    )
    return Union(tuple(actions.values()), tuple(states.values()), places)


def put(batch: Batch, place: Place, action_size: int, proprio_size: int) -> Batch:
    """A dataset's batch in the mixture's dimensions: what it lacks is 0, and its actions are masked and said not to be there."""
    observation, b = batch.observation, len(batch.actions)
    return batch._replace(
        observation=observation._replace(
            proprio=_spread(observation.proprio, place.proprio, proprio_size),
            action_present=_spread(np.ones((b, len(place.action)), bool), place.action, action_size),
        ),
        actions=_spread(batch.actions, place.action, action_size),
        action_mask=_spread(batch.action_mask, place.action, action_size),
    )


def alone(specs: Specs, spec: DatasetSpec) -> Specs:
    """The mixture's specs for one of its robots: its own numbers, frame and rate; cameras, language and horizons of the mixture."""
    observation = dataclasses.replace(specs.observation, proprio=spec.proprio)
    return Specs(observation, ActionSpec(spec.action, spec.action_frame, specs.action.horizon, spec.control_rate_hz))


def merge(statistics: Sequence[Statistics], places: Sequence[Place], main: int) -> Statistics:
    """Statistics of the mixture's dimensions: those of the main dataset where it has them, else of the first that does."""
    order = [main, *(i for i in range(len(statistics)) if i != main)]
    action = _merge([statistics[i].action for i in order], [places[i].action for i in order])
    proprio = _merge([statistics[i].proprio for i in order], [places[i].proprio for i in order])
    return dataclasses.replace(statistics[main], action=action, proprio=proprio)


def _spread(values: AnyArray, columns: Int[np.ndarray, " d"], size: int) -> NDArray:
    result = np.zeros((*values.shape[:-1], size), values.dtype)
    result[..., columns] = values
    return result


def _merge(parts: Sequence[VectorStatistics], columns: Sequence[Int[np.ndarray, " d"]]) -> VectorStatistics:
    size = 1 + max((int(column.max()) for column in columns if column.size), default=-1)

    def field(name: str) -> Float[np.ndarray, " d"]:
        merged = np.zeros(size)
        for part, column in reversed(list(zip(parts, columns, strict=True))):
            merged[column] = getattr(part, name)
        return merged

    return VectorStatistics(**{item.name: field(item.name) for item in dataclasses.fields(VectorStatistics)})

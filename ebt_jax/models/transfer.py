"""What the entries of a parameter stand for, so that they can follow their robot to another one.

    tokens/proprio_hidden/kernel   a row a number of the state         action/kernel   a row a number of the action and place in its token
    tokens/cameras                 a row a camera                      head/*          likewise a column, of a head that gives chunks
    tokens/time                    a row an observation step

Everything else is of the network's width alone and means the same for every robot. `layers_and_matrix` says which axes a matrix has.
"""

import math
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from ebt_jax.models.config import ModelConfig
from ebt_jax.specs import Specs
from ebt_jax.types import AnyArray, Params

STACKS = {"encoder", "decoder", "blocks"}
"""Modules whose parameters have a leading axis of layers (`transformer.stack`)."""

MODEL_PREFIX = "model/"
"""Before the network's own parameters where a method has parameters beside them."""


class Entries(NamedTuple):
    """What one axis of a parameter counts.

    Attributes:
      names: one an index, distinct and hashable.
      neutral: entries nobody has trained are best 0, so that what they read does not disturb what the others compute. False: as at
        initialisation.
    """

    axis: int
    names: tuple[Any, ...]
    neutral: bool


def named_entries(config: ModelConfig, specs: Specs, head: str) -> dict[str, Entries]:
    """Parameter -> what its entries stand for, for a network of this config, these specs and this head (`types.HEADS`).

    Numbers of the state go by name; those of the action by name and kind; observation steps by their distance from the newest.
    """
    observation = specs.observation
    state = _distinct([dimension.name for dimension in observation.proprio])
    moved = [(f"motion of {name}", count) for name, count in state] if config.motion_gain else []
    dimensions = [(dimension.name, dimension.kind) for dimension in specs.action.dimensions]
    actions = tuple((place, *dimension) for place in range(config.actions_per_token) for dimension in dimensions)
    found = {
        "tokens/cameras": Entries(0, tuple(camera.name for camera in observation.cameras), neutral=False),
        "tokens/time": Entries(0, tuple(range(1 - observation.horizon, 1)), neutral=False),
        "tokens/proprio_hidden/kernel": Entries(0, (*state, *moved), neutral=True),
        "action/kernel": Entries(0, actions, neutral=True),
    }
    if head != "energy":
        found |= {"head/kernel": Entries(1, actions, neutral=True), "head/bias": Entries(0, actions, neutral=True)}
    return found


def renormalize_proprio(params: Params, scale: Float[AnyArray, " p"], shift: Float[AnyArray, " p"], motion_ratio: float) -> Params:
    """f' with f'(z) = f(scale z + shift): the same function of the robot's state in another normalisation.

    Args:
      params: a network's. Those of the motion inputs, where it has them, are also multiplied by `motion_ratio`.
    """
    layer = params["tokens"]["proprio_hidden"]
    count = len(scale)
    gain = jnp.concatenate([jnp.asarray(scale)] * (len(layer["kernel"]) // count)).at[count:].multiply(motion_ratio)
    bias = layer["bias"] + jnp.einsum("p,pd->d", jnp.asarray(shift), layer["kernel"][:count], precision="highest")
    return {**params, "tokens": {**params["tokens"], "proprio_hidden": {"kernel": layer["kernel"] * gain[:, None], "bias": bias}}}


def layers_and_matrix(name: str, shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(layers, inputs, outputs) of a parameter that multiplies vectors; None for any other."""
    *modules, last = name.split("/")
    if last != "kernel" or len(shape) < 2:
        return None
    layers, *rest = shape if STACKS & set(modules) else (1, *shape)
    inputs = math.prod(rest[:-1]) if "resnet" in modules or modules[-1] == "patches" else rest[0]
    return layers, inputs, math.prod(rest) // inputs


def _distinct(names: list[str]) -> tuple[tuple[str, int], ...]:
    """Each name with the number of times it came before."""
    return tuple((name, names[:i].count(name)) for i, name in enumerate(names))

"""What the entries of a parameter stand for, so that they can follow their robot to another one.

    tokens/proprio_hidden/kernel   a row a number of the state         action/kernel   a row a number of the action and place in its token
    tokens/cameras                 a row a camera                      head/*          likewise a column, of a head that gives chunks
    tokens/time                    a row an observation step

and of the published network (`paper.py`)

    features/kernel                64 rows a camera, then a row a number of the state
    positions                      a row an observation step
    action_hidden/kernel           a row a number of the action         head/*         a column a number of the action

Everything else is of the network's width alone and means the same for every robot. `layers_and_matrix` says which axes a matrix has.
"""

import math
from collections.abc import Collection
from typing import Any, NamedTuple

import jax.numpy as jnp
from jaxtyping import Float

from ebt_jax.models.config import ModelConfig, PaperConfig
from ebt_jax.models.paper import FEATURES
from ebt_jax.specs import Specs
from ebt_jax.types import AnyArray, Params

STACKS = {"encoder", "decoder", "blocks"}
"""Modules whose parameters have a leading axis of layers (`transformer.stack`); also the published network's key_value/product."""

CONVOLUTIONS = {"resnet", "imagenet", "patches"}
"""Modules whose kernels with four axes [y x inputs outputs] are convolutions."""

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


class StateRows(NamedTuple):
    """Where a network reads the robot's state: rows `first` and on of the kernel of the linear layer at `module`, a row a number."""

    module: tuple[str, ...]
    first: int


def state_rows(config: ModelConfig, specs: Specs) -> StateRows:
    """Of a network of this config and these specs."""
    if isinstance(config, PaperConfig):
        return StateRows(("features",), FEATURES * len(specs.observation.cameras))
    return StateRows(("tokens", "proprio_hidden"), 0)


def named_entries(config: ModelConfig, specs: Specs, head: str, untaught: Collection[int] = ()) -> dict[str, Entries]:
    """Parameter -> what its entries stand for, for a network of this config, these specs and this head (`types.HEADS`).

    Numbers of the state go by name; those of the action by name and kind; observation steps by their distance from the newest.

    Args:
      untaught: places of numbers of the state that go by a name that nobody has.
    """
    observation = specs.observation
    names = [dimension.name for dimension in observation.proprio]
    state = _distinct([f"{name} (never moved)" if i in untaught else name for i, name in enumerate(names)])
    if isinstance(config, PaperConfig):
        return _paper_entries(specs, state)
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


def _paper_entries(specs: Specs, state: tuple[tuple[str, int], ...]) -> dict[str, Entries]:
    observation = specs.observation
    seen = tuple((f"camera {camera.name}", i) for camera in observation.cameras for i in range(FEATURES))
    actions = tuple((dimension.name, dimension.kind) for dimension in specs.action.dimensions)
    return {
        "features/kernel": Entries(0, (*seen, *state), neutral=True),
        "positions": Entries(0, tuple(range(1 - observation.horizon, 1)), neutral=False),
        "action_hidden/kernel": Entries(0, actions, neutral=True),
        "head/kernel": Entries(1, actions, neutral=True),
        "head/bias": Entries(0, actions, neutral=True),
    }


def renormalize_proprio(
    params: Params, rows: StateRows, scale: Float[AnyArray, " p"], shift: Float[AnyArray, " p"], motion_ratio: float
) -> Params:
    """f' with f'(z) = f(scale z + shift): the same function of the robot's state in another normalisation.

    Args:
      params: a network's. Those of the motion inputs, where it has them, are also multiplied by `motion_ratio`.
    """
    *outer, last = rows.module
    if outer:
        inner = rows._replace(module=rows.module[1:])
        return {**params, outer[0]: renormalize_proprio(params[outer[0]], inner, scale, shift, motion_ratio)}
    layer, end = params[last], rows.first + len(scale)
    repeats = (len(layer["kernel"]) - rows.first) // len(scale)
    gain = jnp.concatenate([jnp.ones(rows.first), *[jnp.asarray(scale)] * repeats]).at[end:].multiply(motion_ratio)
    bias = layer["bias"] + jnp.einsum("p,pd->d", jnp.asarray(shift), layer["kernel"][rows.first : end], precision="highest")
    return {**params, last: {**layer, "kernel": layer["kernel"] * gain[:, None], "bias": bias}}


def layers_and_matrix(name: str, shape: tuple[int, ...]) -> tuple[int, int, int] | None:
    """(layers, inputs, outputs) of a parameter that multiplies vectors; None for any other.

    What one module computes of one input is one matrix, as keys and values of all decoder layers in key_value/kernel.
    """
    *modules, last = name.split("/")
    if last != "kernel" or len(shape) < 2:
        return None
    layers, *rest = shape if STACKS & set(modules) or modules[-2:] == ["key_value", "product"] else (1, *shape)
    inputs = math.prod(rest[:-1]) if CONVOLUTIONS & set(modules) and len(rest) == 4 else rest[0]
    return layers, inputs, math.prod(rest) // inputs


def _distinct(names: list[str]) -> tuple[tuple[str, int], ...]:
    """Each name with the number of times it came before."""
    return tuple((name, names[:i].count(name)) for i, name in enumerate(names))

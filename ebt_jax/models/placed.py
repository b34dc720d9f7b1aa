"""A network of several robots, for one of them: its numbers in their columns, 0 in those that it lacks.

In training the network never sees what a sample's robot lacks (`Observation.action_present`); here it does not either, so that a
sampler draws, moves and returns the robot's own numbers alone.
"""

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ebt_jax.specs import Specs
from ebt_jax.types import AnyArray, Batch, Context, EnergyModel, Observation, Params, VectorModel


def placed(
    model: EnergyModel | VectorModel, specs: Specs, action: Int[np.ndarray, " a"], proprio: Int[np.ndarray, " p"]
) -> EnergyModel | VectorModel:
    """The model on chunks and states of a robot whose numbers are these columns of the `specs` that it was made for."""

    def chunks(actions: Float[AnyArray, "b h a"]) -> Float[Array, "b h all"]:
        return _spread(actions, action, len(specs.action.dimensions))

    def seen(observation: Observation) -> Observation:
        return observation._replace(proprio=_spread(observation.proprio, proprio, len(specs.observation.proprio)))

    def encode(params: Params, observation: Observation) -> Context:
        return model.encode(params, seen(observation))

    def init(key: Array, batch: Batch) -> Params:
        mask = _spread(batch.action_mask, action, len(specs.action.dimensions))
        return model.init(key, batch._replace(observation=seen(batch.observation), actions=chunks(batch.actions), action_mask=mask))

    shape = (model.action_shape[0], len(action))
    if isinstance(model, EnergyModel):
        return EnergyModel(init, encode, lambda params, context, actions: model.energy(params, context, chunks(actions)), shape)
    return VectorModel(
        init, encode, lambda params, context, actions, time: model.predict(params, context, chunks(actions), time)[..., action], shape
    )


def _spread(values: AnyArray, columns: Int[np.ndarray, " d"], size: int) -> Array:
    return jnp.zeros((*values.shape[:-1], size), values.dtype).at[..., columns].set(values)

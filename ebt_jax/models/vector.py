"""V(o, a, t), a chunk: the energy's trunk under a linear head, for methods that learn a field or the answer itself.

The head starts at zero, so that V does: no noise, no velocity, the middle of the action range. With a clock every decoder block
is conditioned on the time by AdaLN-zero (Peebles & Xie 2023), as diffusion transformers are.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float

from ebt_jax.models.config import ModelConfig, PaperConfig
from ebt_jax.models.transformer import dense
from ebt_jax.models.trunk import CachedContext, Trunk, action_shape, apply, check_actions, check_specs, encode, init, only_present
from ebt_jax.specs import Specs
from ebt_jax.types import Batch, Params, VectorModel


class VectorNetwork(Trunk):
    """The transformer behind `make_vector_model`."""

    def setup(self) -> None:
        super().setup()
        self.head = dense(self.config.actions_per_token * len(self.specs.action.dimensions), self.config.dtypes.exact, scale=0.0)

    def predict(self, context: CachedContext, actions: Float[Array, "b h a"], time: Float[Array, " b"] | None) -> Float[Array, "b h a"]:
        b, h, a = actions.shape
        return self.head(self.decode(context, actions, time)).reshape(b, -1, a)[:, :h]

    def __call__(self, batch: Batch) -> Float[Array, "b h a"]:
        actions = jnp.asarray(batch.actions)
        return self.predict(self.encode(batch.observation), actions, jnp.zeros(len(actions), actions.dtype) if self.timed else None)


def make_vector_model(config: ModelConfig, specs: Specs, timed: bool) -> VectorModel:
    """The network as three pure functions; `timed` gives it a clock. Precision and errors as of `make_energy_model`."""
    check_specs(config, specs)
    if isinstance(config, PaperConfig):
        raise ValueError("the published network must have the head 'energy', got a vector's. Use model.variant = small.")
    network = VectorNetwork(config, specs, timed)

    def predict(
        params: Params, context: CachedContext, actions: Float[Array, "b h a"], time: Float[Array, " b"] | None
    ) -> Float[Array, "b h a"]:
        check_actions(actions, specs)
        return only_present(context, apply(network, params, context, only_present(context, actions), time, method="predict"))

    return VectorModel(functools.partial(init, network), functools.partial(encode, network), predict, action_shape(specs))

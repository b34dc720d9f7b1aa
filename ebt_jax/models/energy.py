"""E(o, a) = sum over action tokens of a scalar head.

The head is a sum and not a mean: the gradient then has the same size for any chunk, and a step size of about 1 fits it.
"""

import functools

import jax.numpy as jnp
from jaxtyping import Array, Float

from ebt_jax.models.config import ModelConfig, PaperConfig
from ebt_jax.models.paper import PaperNetwork
from ebt_jax.models.transformer import dense
from ebt_jax.models.trunk import CachedContext, Trunk, action_shape, apply, check_actions, check_specs, encode, init, only_present
from ebt_jax.specs import Specs
from ebt_jax.types import Batch, EnergyModel, Params


class EnergyNetwork(Trunk):
    """The transformer behind `make_energy_model`."""

    def setup(self) -> None:
        super().setup()
        self.head = dense(1, self.config.dtypes.exact, use_bias=False)

    def energy(self, context: CachedContext, actions: Float[Array, "b h a"]) -> Float[Array, " b"]:
        return jnp.sum(self.head(self.decode(context, actions)), axis=(1, 2))

    def __call__(self, batch: Batch) -> Float[Array, " b"]:
        return self.energy(self.encode(batch.observation), jnp.asarray(batch.actions))


def make_energy_model(config: ModelConfig, specs: Specs) -> EnergyModel:
    """The network as three pure functions; a `PaperConfig` makes the published one.

    Parameters and energies are float32 (float64 if `config.precision` is).

    Raises ValueError for specs that the config cannot serve, and at trace time for observations or actions that are not the specs'.
    """
    check_specs(config, specs)
    network = PaperNetwork(config, specs) if isinstance(config, PaperConfig) else EnergyNetwork(config, specs)

    def energy(params: Params, context: CachedContext, actions: Float[Array, "b h a"]) -> Float[Array, " b"]:
        check_actions(actions, specs)
        return apply(network, params, context, only_present(context, actions), method="energy")

    return EnergyModel(functools.partial(init, network), functools.partial(encode, network), energy, action_shape(specs))

"""Networks in Flax Linen, sealed behind the pure functions of `EnergyModel` and `VectorModel`."""

from ebt_jax.models.config import VARIANTS as VARIANTS
from ebt_jax.models.config import ModelConfig as ModelConfig
from ebt_jax.models.config import model_variant as model_variant
from ebt_jax.models.energy import make_energy_model as make_energy_model
from ebt_jax.models.summary import num_parameters as num_parameters
from ebt_jax.models.summary import summary as summary
from ebt_jax.models.trunk import CachedContext as CachedContext
from ebt_jax.models.vector import make_vector_model as make_vector_model
from ebt_jax.specs import Specs
from ebt_jax.types import HEADS, EnergyModel, VectorModel


def make_model(config: ModelConfig, specs: Specs, head: str) -> EnergyModel | VectorModel:
    """The trunk under one of `HEADS`."""
    if head not in HEADS:
        raise ValueError(f"head must be one of {HEADS}, got {head!r}.")
    return make_energy_model(config, specs) if head == "energy" else make_vector_model(config, specs, timed=head == "timed_vector")

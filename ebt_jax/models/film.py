"""x (1 + scale(i)) + shift(i): an instruction modulates the channels of an image (FiLM, Perez et al. 2018)."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ebt_jax.models.config import Precision
from ebt_jax.models.transformer import dense


class FiLM(nn.Module):
    """Scale and shift are linear in the instruction and start at zero: at first the image passes unchanged."""

    dtypes: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "n y x c"], instruction: Float[Array, "n d"]) -> Float[Array, "n y x c"]:
        modulation = dense((2, x.shape[-1]), self.dtypes, "modulation", scale=0.0)(instruction).astype(self.dtypes.parameters)
        scale, shift = jnp.moveaxis(modulation[:, :, None, None], 1, 0)
        return x * (1 + scale) + shift

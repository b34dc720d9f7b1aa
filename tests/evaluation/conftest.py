"""Two policies that are formulas."""

import jax
import jax.numpy as jnp
import pytest
from formulas import formula_policy, reaching_policy, suite_specs
from jaxtyping import Array, Float

from ebt_jax.policy import Policy
from ebt_jax.types import Keys


@pytest.fixture(scope="session")
def reaching() -> Policy:
    return reaching_policy()


@pytest.fixture(scope="session")
def wandering() -> Policy:
    """PushT's agent goes to where noise and the block (its history, too) send it."""

    def rule(proprio: Float[Array, "b t p"], keys: Keys, horizon: int) -> Float[Array, "b h a"]:
        noise = jax.vmap(lambda key: jax.random.normal(key, (horizon, 2)))(keys)
        block = proprio[..., 2:].reshape(*proprio.shape[:2], 9, 2).mean(axis=(1, 2)) / 256 - 1
        return jnp.clip(block[:, None] + 0.3 * noise + 0.1 * (proprio[:, -1:, :2] - proprio[:, :1, :2]) / 256, -1, 1)

    return formula_policy(suite_specs("pusht"), rule)

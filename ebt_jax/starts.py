"""Several starts for each observation, the best answer kept: rows b m, the m starts of one observation beside each other."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, PyTree

from ebt_jax.types import Descent, Keys, Sample

_STREAM = 0x737461
"""Others' keys are folded with it first: `split(key)[i]` is `fold_in(key, i)`, and a sampler splits its own."""


def repeat(tree: PyTree, num_starts: int) -> PyTree:
    """Every row `num_starts` times, beside itself."""
    return jax.tree.map(lambda leaf: jnp.repeat(jnp.asarray(leaf), num_starts, axis=0), tree)


def start_keys(keys: Keys, num_starts: int) -> Key[Array, " bm"]:
    """[b] -> [b m]: a sample's first start draws from its own key, so that one start is the answer without starts."""
    fold = jax.vmap(jax.random.fold_in, (0, None))
    others = jax.vmap(lambda m: fold(fold(keys, _STREAM), m))(jnp.arange(1, num_starts))
    return jnp.moveaxis(jnp.concatenate([keys[None], others]), 0, 1).reshape(-1)


def spread_descent(descent: Descent, num_starts: int) -> Descent:
    """The descent of every start: the first begins where `descent` says, the others from noise; all hold what is held."""
    start, given, held = repeat((descent.start, descent.given, descent.held), num_starts)
    wide = descent._replace(start=start, given=given, held=held)
    first = jnp.arange(wide.given.shape[0]) % num_starts == 0
    return wide._replace(given=jnp.where(first[:, None, None], wide.given, wide.held))


def lowest(sample: Sample, penalty: Float[Array, " bm"], num_starts: int) -> Sample:
    """Of each observation's starts the one with the least energy + penalty (NaN counts as the worst)."""
    height = (sample.energy + penalty).reshape(-1, num_starts)
    best = jnp.argmin(jnp.where(jnp.isnan(height), jnp.inf, height), axis=1)
    rows = jnp.arange(height.shape[0]) * num_starts + best
    along_batch = {"trace_actions": 1, "trace_energy": 1, "trace_gradient_norm": 1}
    return Sample(**{name: jnp.take(leaf, rows, axis=along_batch.get(name, 0)) for name, leaf in sample._asdict().items()})

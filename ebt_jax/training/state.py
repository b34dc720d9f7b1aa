"""Everything that a run carries from one update to the next; the loader's position is `step` itself."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Int, UInt32

from ebt_jax.sharding import shardings
from ebt_jax.tree import leaf_name, named_leaves
from ebt_jax.types import Batch, Keys, Method, Params


class TrainState(NamedTuple):
    """A run between two updates.

    Attributes:
      step: updates done, and so the number of the next batch.
      params, ema_params: float32; the average is what policies use.
      opt_state: of the optimiser, its step count included.
      key: raw data of the run's PRNG key; never changes, every draw is a function of (key, step, sample).
    """

    step: Int[Array, ""]
    params: Params
    ema_params: Params
    opt_state: optax.OptState
    key: UInt32[Array, " two"]


def init_state(method: Method, optimizer: optax.GradientTransformation, batch: Batch, seed: int) -> TrainState:
    """The state before the first update, a function of `seed` and of the batch's shapes."""
    key = jax.random.key(seed)
    params = method.init(jax.random.fold_in(key, 0), batch)
    return TrainState(
        step=jnp.zeros((), jnp.int32),
        params=params,
        ema_params=jax.tree.map(jnp.copy, params),
        opt_state=optimizer.init(params),
        key=jax.random.key_data(jax.random.fold_in(key, 1)),
    )


def sample_keys(key: UInt32[Array, " two"], step: Int[Array, ""], batch_size: int) -> Keys:
    """One key per sample of the global batch, from (seed, step, position): the same on any number of devices."""
    step_key = jax.random.fold_in(jax.random.wrap_key_data(key), step)
    return jax.vmap(lambda position: jax.random.fold_in(step_key, position))(jnp.arange(batch_size))


def sharded_init(method: Method, optimizer: optax.GradientTransformation, batch: Batch, seed: int, mesh: Mesh) -> TrainState:
    """`init_state`, each device making its own shard."""

    def init() -> TrainState:
        return init_state(method, optimizer, batch, seed)

    return jax.jit(init, out_shardings=shardings(jax.eval_shape(init), mesh))()


def with_values(state: TrainState, values: Mapping[str, np.ndarray]) -> TrainState:
    """The state with these parameters, and their averages, in place of its own; "tokens/images/dinov2/norm/scale" -> value.

    Each device gets its own shard. Raises ValueError naming every path that the state does not have.
    """
    unknown = set(values) - set(named_leaves(state.params))
    if unknown:
        raise ValueError(f"values must be of parameters of the state, got {sorted(unknown)}.")

    def place(path: tuple[Any, ...], leaf: Array) -> Array:
        value = values.get(leaf_name(path))
        if value is None:
            return leaf
        return jax.make_array_from_callback(leaf.shape, leaf.sharding, lambda index: np.asarray(value[index], leaf.dtype))

    replace = lambda tree: jax.tree_util.tree_map_with_path(place, tree)
    return state._replace(params=replace(state.params), ema_params=replace(state.ema_params))

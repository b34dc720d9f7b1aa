"""One update as a pure function: (state, batch) -> (state, metrics).

Parameters are gathered once before the descent and gradients reduced once after it, by hand, inside `shard_map`: the K-loop
itself holds no collective, so communication does not grow with the number of MCMC steps.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float

from ebt_jax.augment import NO_AUGMENTATION, Augmentation, augment
from ebt_jax.sharding import AXES, BATCH, partition_specs, sharded_axis, shardings
from ebt_jax.training.optimizer import OptimizerSettings, global_norm, update_ema
from ebt_jax.training.state import TrainState, sample_keys
from ebt_jax.types import Batch, Keys, Method, Metrics, Params

Loss = Callable[[Params, Batch, Keys], tuple[Float[Array, ""], Metrics]]
LossAndGradient = Callable[[Params, Batch, Keys], tuple[Float[Array, ""], Metrics, Params]]


def make_train_step(
    method: Method,
    optimizer: optax.GradientTransformation,
    settings: OptimizerSettings,
    mesh: Mesh,
    state: TrainState,
    augmentation: Augmentation = NO_AUGMENTATION,
) -> jax.stages.Wrapped:
    """The compiled update; it donates the state it is given.

    Args:
      state: or its shapes (`jax.eval_shape`), from which shardings follow.
    """

    def augmented_loss(params: Params, batch: Batch, keys: Keys) -> tuple[Float[Array, ""], Metrics]:
        return method.loss(params, batch._replace(observation=augment(augmentation, batch.observation, keys)), keys)

    loss_and_gradient = make_loss_and_gradient(augmented_loss, mesh, state.params, settings.accumulate_steps)

    def train_step(state: TrainState, batch: Batch) -> tuple[TrainState, Metrics]:
        keys = sample_keys(state.key, state.step, len(batch.actions))
        loss, metrics, gradient = loss_and_gradient(state.params, batch, keys)
        updates, opt_state = optimizer.update(gradient, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        ema_params = update_ema(state.ema_params, params, state.step, settings)
        metrics = {"loss": loss, "gradient_norm": global_norm(gradient), "parameter_norm": global_norm(params), **rooted(metrics)}
        return TrainState(state.step + 1, params, ema_params, opt_state, state.key), metrics

    return jax.jit(train_step, donate_argnums=0, out_shardings=(shardings(state, mesh), None))


def rooted(metrics: Metrics) -> Metrics:
    """`mse_...` as `rmse_...`: the root of the mean over all devices and slices, which the mean of their roots is not."""
    return {f"r{name}" if name.startswith("mse_") else name: jnp.sqrt(x) if name.startswith("mse_") else x for name, x in metrics.items()}


def make_loss_and_gradient(loss: Loss, mesh: Mesh, params: Params, accumulate_steps: int = 1) -> LossAndGradient:
    """(params, batch, keys) -> mean loss, metrics and gradient over the global batch; params and gradient sharded by rule."""
    specs = partition_specs(params, mesh)
    axes = jax.tree.map(lambda leaf: sharded_axis(leaf.shape, mesh.shape["fsdp"]), params)

    def gather(leaf: Array, axis: int | None) -> Array:
        """The whole parameter, as this device's own copy: without the cast, gradients would be summed in every use."""
        if axis is None:
            return jax.lax.pcast(leaf, AXES, to="varying")
        return jax.lax.all_gather(jax.lax.pcast(leaf, "data", to="varying"), "fsdp", axis=axis, tiled=True)

    def reduce(leaf: Array, axis: int | None) -> Array:
        """The mean over devices, of which each keeps the shard it owns."""
        if axis is None:
            return jax.lax.pmean(leaf, AXES)
        shard = jax.lax.psum_scatter(leaf, "fsdp", scatter_dimension=axis, tiled=True)
        return jax.lax.pmean(shard, "data") / mesh.shape["fsdp"]

    @functools.partial(jax.shard_map, mesh=mesh, in_specs=(specs, BATCH, BATCH), out_specs=(PartitionSpec(), PartitionSpec(), specs))
    def loss_and_gradient(shards: Params, batch: Batch, keys: Keys) -> tuple[Float[Array, ""], Metrics, Params]:
        leaves, tree = jax.tree.flatten(shards)
        leaf_axes = tree.flatten_up_to(axes)
        params = tree.unflatten([gather(leaf, axis) for leaf, axis in zip(leaves, leaf_axes, strict=True)])
        (value, metrics), gradient = accumulate(loss, params, batch, keys, accumulate_steps)
        reduced = [reduce(leaf, axis) for leaf, axis in zip(tree.flatten_up_to(gradient), leaf_axes, strict=True)]
        mean = functools.partial(jax.lax.pmean, axis_name=AXES)
        return mean(value), jax.tree.map(mean, metrics), tree.unflatten(reduced)

    return loss_and_gradient


def accumulate(loss: Loss, params: Params, batch: Batch, keys: Keys, parts: int) -> tuple[tuple[Float[Array, ""], Metrics], Params]:
    """((loss, metrics), gradient), the mean over `parts` equal slices of the batch, one slice in memory at a time."""
    value_and_gradient = jax.value_and_grad(loss, has_aux=True)
    if parts == 1:
        return value_and_gradient(params, batch, keys)
    if len(keys) % parts:
        raise ValueError(f"optimizer.accumulate_steps must divide the {len(keys)} samples of one device, got {parts}.")
    slices = jax.tree.map(lambda x: x.reshape(parts, len(x) // parts, *x.shape[1:]), (batch, keys))
    first = jax.tree.map(lambda x: x[0], slices)
    zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), jax.eval_shape(value_and_gradient, params, *first))
    zeros = jax.tree.map(lambda x: jax.lax.pcast(x, AXES, to="varying"), zeros)

    def add(total: Params, part: tuple[Batch, Keys]) -> tuple[Params, None]:
        return jax.tree.map(jnp.add, total, value_and_gradient(params, *part)), None

    total, _ = jax.lax.scan(add, zeros, slices)
    return jax.tree.map(lambda x: x / parts, total)

"""Held-out episodes: the loss, and the error of sampled chunks beside that of always acting the mean."""

import functools
from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int, Key

from ebt_jax.data.mixture import Units
from ebt_jax.sharding import AXES, BATCH, partition_specs, sharded_axis, to_devices
from ebt_jax.specs import ActionSpec
from ebt_jax.types import Batch, Keys, Method, Params

Validate = Callable[[Params, Iterable[tuple[Batch, Int[np.ndarray, " b"]]]], dict[str, float]]


class _Sums(NamedTuple):
    """Over rows: of the loss, how many have anything real, and over the real entries of each action dimension of squared errors,
    normalised and in its own unit, and how many those are of."""

    loss: Float[Array, ""]
    rows: Int[Array, ""]
    square: Float[Array, " a"]
    mean_square: Float[Array, " a"]
    count: Int[Array, " a"]
    unit_square: Float[Array, " a"]
    unit_count: Int[Array, " a"]


def make_validate(
    method: Method, num_steps: int, mesh: Mesh, action: ActionSpec, units: Units, seed: int, accumulate_steps: int = 1
) -> Validate:
    """(params, batches, each with the datasets that its rows are of) -> metrics.

    A row's noise is the same every time: curves over training differ by the parameters alone. As in training each device has its rows
    and all of the parameters, gathered once, and takes the rows in `accumulate_steps` equal slices, one in memory at a time.

    validation/loss: the method's, of the mean window: rows that only fill up the last batch count for nothing. Where a method's loss
    of such rows is not 0 (contrasts, which compare energies), an incomplete batch is left out where there is a full one.
    validation/action_mse: of the sampled chunk, normalised, over real entries; validation/mean_action_mse: of the training mean of
    the row's dataset in its place. validation/error/NAME: root mean square error of one action dimension in its own unit, over the
    datasets that count it in that unit; absent where none of them is held out.
    """
    key = jax.random.fold_in(jax.random.key(seed), 2)

    def sums(params: Params, batch: Batch, keys: Keys, mean: Float[Array, "b a"], scale: Float[Array, "b a"]) -> _Sums:
        loss, _ = method.loss(params, batch, keys)
        sample = method.sample(params, method.encode(params, batch.observation), keys, num_steps)
        total = functools.partial(jnp.sum, axis=(0, 1))
        real, square, scale = batch.action_mask, (sample.actions - batch.actions) ** 2, scale[:, None]
        return _Sums(
            loss=loss * len(keys),
            rows=jnp.sum(jnp.any(real, axis=(1, 2))),
            square=total(square, where=real),
            mean_square=total((mean[:, None] - batch.actions) ** 2, where=real),
            count=total(real),
            unit_square=total(square * scale**2, where=real),
            unit_count=total(real & (scale > 0)),
        )

    @jax.jit
    def evaluate(params: Params, *rows: Any) -> _Sums:
        """Over a batch; `rows` are the arguments of `sums`, split over the devices."""

        def gather(leaf: Array, whole: Array) -> Array:
            axis = sharded_axis(whole.shape, mesh.shape["fsdp"])
            return leaf if axis is None else jax.lax.all_gather(leaf, "fsdp", axis=axis, tiled=True)

        # Nothing is differentiated through the mesh, so that no array need say over which axes it varies.
        @functools.partial(
            jax.shard_map, mesh=mesh, in_specs=(partition_specs(params, mesh), BATCH), out_specs=PartitionSpec(), check_vma=False
        )
        def on_devices(shards: Params, rows: tuple[Any, ...]) -> _Sums:
            whole = jax.tree.map(gather, shards, params)
            slices = jax.tree.map(lambda leaf: leaf.reshape(accumulate_steps, len(leaf) // accumulate_steps, *leaf.shape[1:]), rows)
            each = jax.lax.map(lambda part: sums(whole, *part), slices)
            return jax.tree.map(lambda leaf: jax.lax.psum(jnp.sum(leaf, axis=0), AXES), each)

        return on_devices(params, rows)

    def validate(params: Params, batches: Iterable[tuple[Batch, Int[np.ndarray, " b"]]]) -> dict[str, float]:
        results, arguments = [], None
        for number, (batch, whose) in enumerate(batches):
            on_device, mean, scale = to_devices((batch, units.mean[whose], units.scale[whose]), mesh)
            keys = row_keys(key, number, len(on_device.actions))
            arguments = batch, keys, mean, scale
            results.append(evaluate(params, on_device, keys, mean, scale))
            jax.block_until_ready(results[-2:-1])  # one batch computes and one waits: no more of them lie on the devices
        if arguments is None:
            return {}
        results = jax.device_get(results)
        found = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *results)
        batch, *rest = arguments
        nothing = batch._replace(action_mask=np.zeros_like(batch.action_mask))
        size = len(rest[0])  # of every batch
        if results[-1].rows < size and float(evaluate(params, to_devices(nothing, mesh), *rest).loss) != 0:
            full = results[: max(1, len(results) - 1)]
            loss = np.sum([part.loss for part in full]) / (size * len(full))
        else:
            loss = found.loss / found.rows
        per_unit = np.sqrt(found.unit_square / np.maximum(found.unit_count, 1))
        return {
            "validation/loss": float(loss),
            "validation/action_mse": float(found.square.sum() / found.count.sum()),
            "validation/mean_action_mse": float(found.mean_square.sum() / found.count.sum()),
            **{f"validation/error/{d.name}": float(per_unit[i]) for i, d in enumerate(action.dimensions) if found.unit_count[i]},
        }

    return validate


def row_keys(key: Key[Array, ""], number: int, size: int) -> Keys:
    """The keys of batch `number`'s rows, each by its place among all: the same in batches of any size."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(number * size + jnp.arange(size))

"""Held-out episodes: the loss, and the error of sampled chunks beside that of always acting the mean."""

import functools
from collections.abc import Callable, Iterable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Int, Key

from ebt_jax.data.mixture import Units
from ebt_jax.sharding import to_devices
from ebt_jax.specs import ActionSpec
from ebt_jax.types import Batch, Keys, Method, Params

Validate = Callable[[Params, Iterable[tuple[Batch, Int[np.ndarray, " b"]]]], dict[str, float]]


class _Errors(NamedTuple):
    """Sums over the real entries of each action dimension: of squared errors, normalised and in its own unit, and how many those are of."""

    square: Float[Array, " a"]
    mean_square: Float[Array, " a"]
    count: Int[Array, " a"]
    unit_square: Float[Array, " a"]
    unit_count: Int[Array, " a"]


def check_sampler(method: Method, params: Params, example: Batch, num_steps: int) -> None:
    """Raises ValueError for a number of steps that the method cannot sample with, from the shapes of its parameters alone."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), len(example.actions)))
    sample = lambda params, observation, keys: method.sample(params, method.encode(params, observation), keys, num_steps)
    jax.eval_shape(sample, params, example.observation, keys)


def make_validate(method: Method, num_steps: int, mesh: Mesh, action: ActionSpec, units: Units, seed: int) -> Validate:
    """(params, batches, each with the datasets that its rows are of) -> metrics.

    A row's noise is the same every time: curves over training differ by the parameters alone.

    validation/loss: the method's, of the mean window: rows that only fill up the last batch count for nothing. Where a method's loss
    of such rows is not 0 (contrasts, which compare energies), an incomplete batch is left out where there is a full one.
    validation/action_mse: of the sampled chunk, normalised, over real entries; validation/mean_action_mse: of the training mean of
    the row's dataset in its place. validation/error/NAME: root mean square error of one action dimension in its own unit, over the
    datasets that count it in that unit; absent where none of them is held out.
    """
    key = jax.random.fold_in(jax.random.key(seed), 2)

    @jax.jit
    def evaluate(
        params: Params, batch: Batch, keys: Keys, mean: Float[Array, "b a"], scale: Float[Array, "b a"]
    ) -> tuple[Float[Array, ""], Int[Array, ""], _Errors]:
        loss, _ = method.loss(params, batch, keys)
        sample = method.sample(params, method.encode(params, batch.observation), keys, num_steps)
        total = functools.partial(jnp.sum, axis=(0, 1))
        real, square, scale = batch.action_mask, (sample.actions - batch.actions) ** 2, scale[:, None]
        errors = _Errors(
            square=total(square, where=real),
            mean_square=total((mean[:, None] - batch.actions) ** 2, where=real),
            count=total(real),
            unit_square=total(square * scale**2, where=real),
            unit_count=total(real & (scale > 0)),
        )
        return loss, jnp.sum(jnp.any(real, axis=(1, 2))), errors

    def validate(params: Params, batches: Iterable[tuple[Batch, Int[np.ndarray, " b"]]]) -> dict[str, float]:
        results, arguments = [], None
        for number, (batch, whose) in enumerate(batches):
            on_device, mean, scale = to_devices((batch, units.mean[whose], units.scale[whose]), mesh)
            keys = row_keys(key, number, len(on_device.actions))
            arguments = batch, keys, mean, scale
            results.append(evaluate(params, on_device, keys, mean, scale))
        if arguments is None:
            return {}
        losses, rows, errors = zip(*jax.device_get(results), strict=True)
        batch, *rest = arguments
        nothing = batch._replace(action_mask=np.zeros_like(batch.action_mask))
        size = len(rest[0])  # of every batch; a method's loss is the mean over so many rows
        if rows[-1] < size and float(evaluate(params, to_devices(nothing, mesh), *rest)[0]) != 0:
            loss = np.mean(losses[: max(1, len(losses) - 1)])
        else:
            loss = size * np.sum(losses) / np.sum(rows)
        found = jax.tree.map(lambda *parts: np.sum(parts, axis=0), *errors)
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

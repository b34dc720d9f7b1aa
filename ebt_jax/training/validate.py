"""Held-out episodes: the loss, and the error of sampled chunks beside that of always acting the mean."""

import functools
from collections.abc import Callable, Iterable

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float, Key

from ebt_jax.normalize import Normalizer, Statistics, normalize
from ebt_jax.sharding import to_devices
from ebt_jax.specs import ActionSpec
from ebt_jax.types import Batch, Keys, Method, Params

Validate = Callable[[Params, Iterable[Batch]], dict[str, float]]


def check_sampler(method: Method, params: Params, example: Batch, num_steps: int) -> None:
    """Raises ValueError for a number of steps that the method cannot sample with, from the shapes of its parameters alone."""
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), len(example.actions)))
    sample = lambda params, observation, keys: method.sample(params, method.encode(params, observation), keys, num_steps)
    jax.eval_shape(sample, params, example.observation, keys)


def make_validate(
    method: Method, num_steps: int, mesh: Mesh, action: ActionSpec, normalizer: Normalizer, statistics: Statistics, seed: int
) -> Validate:
    """(params, batches) -> metrics, with the same noise of a row every time: curves over training differ by the parameters alone.

    validation/loss: the method's, of the mean window: rows that only fill up the last batch count for nothing. Where a method's loss
    of such rows is not 0 (contrasts, which compare energies), an incomplete batch is left out where there is a full one.
    validation/action_mse: of the sampled chunk, normalised, over real entries;
    validation/mean_action_mse: of the training mean in its place. validation/error/NAME: root mean square error of one
    action dimension in its own unit.
    """
    mean_action = normalize(np.asarray(statistics.action.mean, np.float32)[None], normalizer)[0]
    key = jax.random.fold_in(jax.random.key(seed), 2)

    @jax.jit
    def evaluate(params: Params, batch: Batch, keys: Keys) -> tuple[Float[Array, ""], Array, Array, Array, Array]:
        loss, _ = method.loss(params, batch, keys)
        sample = method.sample(params, method.encode(params, batch.observation), keys, num_steps)
        total = functools.partial(jnp.sum, axis=(0, 1), where=batch.action_mask)
        return (
            loss,
            jnp.sum(jnp.any(batch.action_mask, axis=(1, 2))),
            total((sample.actions - batch.actions) ** 2),
            total((mean_action[None, None] - batch.actions) ** 2),
            total(jnp.ones_like(batch.actions)),
        )

    def validate(params: Params, batches: Iterable[Batch]) -> dict[str, float]:
        results, batch, keys = [], None, None
        for number, batch in enumerate(batches):
            on_device = to_devices(batch, mesh)
            keys = row_keys(key, number, len(on_device.actions))
            results.append(evaluate(params, on_device, keys))
        if batch is None or keys is None:
            return {}
        losses, rows, squares, mean_squares, counts = (np.stack(part) for part in zip(*jax.device_get(results), strict=True))
        size = len(keys)  # of every batch; a method's loss is the mean over so many rows
        nothing = batch._replace(action_mask=np.zeros_like(batch.action_mask))
        if rows[-1] < size and float(evaluate(params, to_devices(nothing, mesh), keys)[0]) != 0:
            loss = float(losses[: max(1, len(losses) - 1)].mean())
        else:
            loss = float(size * losses.sum() / rows.sum())
        real = np.maximum(counts.sum(0), 1)
        per_unit = np.sqrt(squares.sum(0) / real) * np.asarray(normalizer.scale)
        return {
            "validation/loss": loss,
            "validation/action_mse": float(squares.sum() / real.sum()),
            "validation/mean_action_mse": float(mean_squares.sum() / real.sum()),
            **{f"validation/error/{d.name}": float(error) for d, error in zip(action.dimensions, per_unit, strict=True)},
        }

    return validate


def row_keys(key: Key[Array, ""], number: int, size: int) -> Keys:
    """The keys of batch `number`'s rows, each by its place among all: the same in batches of any size."""
    return jax.vmap(functools.partial(jax.random.fold_in, key))(number * size + jnp.arange(size))

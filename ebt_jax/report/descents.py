"""What a policy does with held-out observations, drawn into a workdir's figures/ for its report to show."""

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float

from ebt_jax.policy import Policy
from ebt_jax.report.landscape import landscape
from ebt_jax.report.plots import descent
from ebt_jax.report.style import to_svg
from ebt_jax.types import Batch, Sample

DESCENT, LANDSCAPE = "figures/descent.svg", "figures/landscape.svg"


def draw_descent(
    workdir: str | os.PathLike[str],
    sample: Sample,
    demonstrations: Float[np.ndarray, "b h a"],
    action_mask: Bool[np.ndarray, "b h a"],
    energy_fn: Callable[[Any], Any] | None,
    row: int = 0,
) -> None:
    """Draws `sample`'s descents into workdir/figures: energies along the steps, and the landscape of observation `row`.

    Args:
      sample: what the method answered to b observations, as arrays or numpy.
      demonstrations: what the demonstrator did there, normalised.
      action_mask: True = real.
      energy_fn: normalised chunks [n h a] -> [n], with observation `row` bound; its landscape is drawn. None where
        the method has no energy: then only distances are drawn.
    """
    path = np.asarray(sample.trace_actions, np.float64)
    energy = np.concatenate([sample.trace_energy, np.asarray(sample.energy)[None]]).astype(np.float64)
    gap = np.where(action_mask, path - demonstrations, 0.0)
    error = np.sqrt(np.sum(gap**2, axis=(2, 3)) / np.maximum(np.sum(action_mask, axis=(1, 2)), 1))
    drawn = {DESCENT: descent(energy, np.asarray(sample.trace_gradient_norm, np.float64), error)}
    if energy_fn is not None:
        drawn[LANDSCAPE] = landscape(energy_fn, path[:, row], np.asarray(demonstrations[row], np.float64))
    for name, content in drawn.items():
        file = pathlib.Path(workdir) / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(to_svg(content))


def draw_policy(workdir: str | os.PathLike[str], policy: Policy, batch: Batch, seed: int = 0) -> None:
    """`draw_descent` of `policy` on a held-out `batch` (normalised, as the loader gives it).

    The landscape, for methods with an energy, is that of the first observation whose demonstrated chunk is real throughout, not of a
    chosen one.
    """
    method, params, size = policy.method, policy.params, len(batch.actions)
    keys = policy.sample_keys(seed, np.arange(size), np.zeros(size, int))
    context = jax.jit(method.encode)(params, batch.observation)
    sample = jax.jit(method.sample, static_argnums=3)(params, context, keys, policy.sample_steps)
    demonstrations, mask = np.asarray(batch.actions), np.asarray(batch.action_mask)
    model_energy = method.energy
    if model_energy is None:
        draw_descent(workdir, jax.device_get(sample), demonstrations, mask, None)
        return
    row = int(np.argmax(np.all(mask, axis=(1, 2))))
    seen = jax.tree.map(lambda leaf: leaf[row : row + 1], context)

    @jax.jit
    def energy(actions: Float[Array, "n h a"]) -> Float[Array, " n"]:
        repeated = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(actions), *leaf.shape[1:])), seen)
        return model_energy(params, repeated, actions)

    draw_descent(workdir, jax.device_get(sample), demonstrations, mask, energy, row)

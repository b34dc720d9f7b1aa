"""Scalars that change: noise and step size along the descent, learning rate along training."""

from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float, Int

SHAPES = ("constant", "linear", "cosine")


def check_shape(name: str, shape: str) -> None:
    """Raises ValueError where `shape` is no schedule."""
    if shape not in SHAPES:
        raise ValueError(f"{name} must be one of {SHAPES}, got {shape!r}.")


def along_descent(shape: str, start: float, end: float, step: Int[Array, "*b"], num_steps: Int[Array, "*b"]) -> Float[Array, "*b"]:
    """From `start` at step 0 towards `end`, which step `num_steps` would reach: end + (start - end) s(step / num_steps).

    s is 1 (constant), 1 - x (linear) or (1 + cos(pi x)) / 2 (cosine, EBT-Policy's noise schedule).
    """
    x = step / jnp.maximum(num_steps, 1)
    fraction = {"constant": jnp.ones_like(x), "linear": 1 - x, "cosine": 0.5 * (1 + jnp.cos(jnp.pi * x))}[shape]
    return end + (start - end) * fraction


def learning_rate(peak: float, warmup_steps: int, num_steps: int) -> Callable[[Any], Any]:
    """Linear from 0 to `peak` over `warmup_steps`, then a half cosine to 0 at `num_steps`."""
    import optax  # which acting does not need, and where artifacts run is not installed

    return optax.warmup_cosine_decay_schedule(0.0, peak, warmup_steps, max(num_steps, warmup_steps + 1))

"""Diffusion (DDPM, Ho et al. 2020; for robots Chi et al. 2023): learn the noise in a noised chunk, take it out level by level.

    x_i = sqrt(abar_i) a* + sqrt(1 - abar_i) noise,   i ~ uniform{1..T},   L = |e(o, x_i, i / T) - noise|^2

abar falls from 1 at level 0 to about 0 at level T (squared cosine, Nichol & Dhariwal 2021). From level i to a lower one j, both samplers
are the same step (Song et al. 2020), with the clean chunk a = (x_i - sqrt(1 - abar_i) e) / sqrt(abar_i) clipped to the action range:

    x_j = sqrt(abar_j) a + sqrt(1 - abar_j - s^2) e + s normal,     s^2 = (1 - abar_j) / (1 - abar_i) (1 - abar_i / abar_j)  or 0

All T levels with s are DDPM; fewer, evenly spaced from level start T down, with s = 0 are DDIM. At level T hardly anything of the chunk is
left, and what a step there says of it is divided by that: from .9 T ten steps are as good, and two far better (docs/experiments.md).

Assumes nothing of the distribution: the optimal e is the mean noise E[noise | x_i], and with enough levels the samples have the
demonstrations' conditional distribution, several modes included. The clip assumes that actions lie in [-clip, clip] times the reach of
the demonstrated ones. Few DDIM steps assume that e hardly changes between levels, which at the noisiest of them it does.
"""

import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ebt_jax.mcmc import MCMC, normal
from ebt_jax.methods.descent import masked_mean_square, real_actions, split, without_energy
from ebt_jax.types import Batch, Context, Keys, Method, Metrics, Params, Sample, VectorModel


@dataclasses.dataclass(frozen=True)
class Diffusion:
    """Settings.

    Attributes:
      num_levels: T. Sampling with T steps is DDPM, with fewer DDIM.
      start: the level that DDIM takes pure noise to be of, as a share of T. DDPM begins at T.
      clip: bound on the clean chunk while sampling, over the largest normalised number of a demonstrated action (1 under min_max, more
        otherwise); 0 leaves it as it is.
    """

    num_levels: int = 100
    start: float = 0.9
    clip: float = 1.0
    head: ClassVar[str] = "timed_vector"
    mcmc_read: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        if self.num_levels < 2:
            raise ValueError(f"method.num_levels must be at least 2, got {self.num_levels}.")
        if not 0 < self.start <= 1:
            raise ValueError(f"method.start must lie in (0, 1], got {self.start}.")
        if self.clip < 0:
            raise ValueError(f"method.clip must be at least 0, got {self.clip}.")

    def reaching(self, reach: float) -> "Diffusion":
        """The settings for actions whose numbers lie in [-reach, reach]."""
        return dataclasses.replace(self, clip=reach * self.clip)


def diffusion(settings: Diffusion, mcmc: MCMC, model: VectorModel) -> Method:
    """The method as pure functions over `model`; nothing of `mcmc` applies."""
    num_levels = settings.num_levels
    signal = np.sqrt(signal_levels(num_levels)).astype(np.float32)
    noise_std = np.sqrt(1 - signal_levels(num_levels)).astype(np.float32)

    def loss(params: Params, batch: Batch, keys: Keys) -> tuple[Float[Array, ""], Metrics]:
        """L over the batch; masked entries of the chunk are asked for nothing."""
        context = model.encode(params, batch.observation)
        actions = real_actions(batch)
        noise_keys, level_keys = split(keys)
        noise = normal(noise_keys, actions.shape[1:], actions.dtype)
        level = jax.vmap(lambda key: jax.random.randint(key, (), 1, num_levels + 1))(level_keys)
        noised = jnp.asarray(signal)[level][:, None, None] * actions + jnp.asarray(noise_std)[level][:, None, None] * noise
        predicted = model.predict(params, context, noised, level / num_levels)
        return jnp.mean(masked_mean_square(predicted - noise, batch.action_mask)), {}

    def sample(params: Params, context: Context, keys: Keys, num_steps: int) -> Sample:
        """DDPM from each key's own noise where `num_steps` is T, DDIM where it is less."""
        if not 1 <= num_steps <= num_levels:
            raise ValueError(f"num_steps must lie in [1, method.num_levels = {num_levels}], got {num_steps}.")
        start_keys, noise_keys = split(keys)
        start = normal(start_keys, model.action_shape)
        ancestral = num_steps == num_levels
        steps = jax.tree.map(jnp.asarray, step_coefficients(num_levels, num_steps, ancestral, settings.start))

        def step(x: Float[Array, "b h a"], c: dict[str, Float[Array, ""]]) -> tuple[Float[Array, "b h a"], Float[Array, "b h a"]]:
            noise = model.predict(params, context, x, jnp.full(x.shape[0], c["time"]))
            actions = (x - c["noise"] * noise) / c["signal"]
            if settings.clip:
                actions = jnp.clip(actions, -settings.clip, settings.clip)
                noise = (x - c["signal"] * actions) / c["noise"]
            x = c["next_signal"] * actions + c["next_noise"] * noise
            if ancestral:
                x = x + c["fresh"] * normal(jax.vmap(lambda key: jax.random.fold_in(key, c["level"]))(noise_keys), x.shape[1:])
            return x, x

        path = jax.lax.scan(step, start, steps)[1]
        return without_energy(jnp.concatenate([start[None], path]))

    return Method(init=model.init, loss=loss, sample=sample, encode=model.encode, sample_steps=num_levels)


def signal_levels(num_levels: int) -> Float[np.ndarray, " levels"]:
    """abar_0 = 1, ..., abar_T: products of 1 - beta_i, where beta_i = min(1 - f(i / T) / f((i - 1) / T), .999), f a squared cosine."""
    f = np.cos((np.linspace(0, 1, num_levels + 1) + 0.008) / 1.008 * np.pi / 2) ** 2
    return np.cumprod(np.concatenate([[1.0], 1 - np.minimum(1 - f[1:] / f[:-1], 0.999)]))


def step_coefficients(num_levels: int, num_steps: int, ancestral: bool, start: float = 1.0) -> dict[str, np.ndarray]:
    """What each of `num_steps` steps multiplies with, from level T, or start T where not ancestral, to level 0, the noisiest first.

    Where start T levels are fewer than steps, it begins at the lowest level that has enough.
    """
    first = num_levels if ancestral else max(round(start * num_levels), num_steps)
    levels = np.round(np.linspace(first, 0, num_steps + 1)).astype(int)
    now, after = (signal_levels(num_levels)[part] for part in (levels[:-1], levels[1:]))
    fresh = ancestral * np.sqrt((1 - after) / (1 - now) * (1 - now / after))
    numbers = {
        "time": levels[:-1] / num_levels,
        "signal": np.sqrt(now),
        "noise": np.sqrt(1 - now),
        "next_signal": np.sqrt(after),
        "next_noise": np.sqrt(1 - after - fresh**2),
        "fresh": fresh,
    }
    return {"level": levels[:-1], **{name: values.astype(np.float32) for name, values in numbers.items()}}

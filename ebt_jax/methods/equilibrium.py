"""Equilibrium matching with an explicit scalar energy (arXiv 2510.02300): one gradient, no chain, in training.

    x_t = (1 - t) noise + t a*,   t ~ U(0, 1)
    L   = | dE(o, x_t)/dx - lambda c(t) (noise - a*) |^2,     c(t) = min(1, (1 - t) / (1 - cutoff))  or  1 - t

The gradient is regressed onto the way back to the noise, shrinking to 0 at the data: demonstrations become minima of E that
any start rolls into. One-step EBT from x_t under MSE is the linear c. Both modes of multimodal data stay minima.

Assumes nothing of the distribution, but the optimal gradient is a mean over the (noise, demonstration) pairs that pass through x_t at
any t, and is not that of -log p: its minima are the demonstrations where those lie apart, its height between them means little.
With `head` "vector" the same is asked of a chunk-valued network in place of dE/da: the energy's twin, at half the work.
"""

import dataclasses
import functools

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ebt_jax.mcmc import MCMC, chunk_norm, energy_and_gradient, normal
from ebt_jax.methods.descent import Steered, descend, masked_mean_square, real_actions, split
from ebt_jax.methods.tie import Tie, add_tie
from ebt_jax.types import Batch, Context, EnergyModel, Keys, Method, Metrics, Params, Sample, VectorModel

EQUILIBRIUM_HEADS = ("energy", "vector")
DECAYS = ("truncated", "linear")
MCMC_READ = frozenset({"num_steps", "step_schedule", "step_end", "momentum", "energy_temperature", "action_norm", "min_gradient"})


@dataclasses.dataclass(frozen=True)
class Equilibrium(Tie):
    """Settings; beside them those of the tie.

    Attributes:
      decay: c(t), "truncated" (constant, then linear to 0 after `cutoff`: more precise) or "linear".
      cutoff: where the truncated c begins to fall.
      scale: lambda, the gradient's size far from the data.
      travel: where positive, n steps of inference each have step size travel / (lambda n), whatever mcmc.step_size says. 1 suits up
        to three steps, which then land on the data; 1.25 suits more, with one left to settle (docs/experiments.md). Under a rule that
        lets samples rest n is the cap, so that they do before it only where travel is several times the way. 0 uses mcmc.step_size.
      head: "energy", or "vector" for the same field without an energy.
    """

    decay: str = "truncated"
    cutoff: float = 0.8
    scale: float = 1.0
    travel: float = 1.0
    head: str = "energy"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.decay not in DECAYS:
            raise ValueError(f"method.decay must be one of {DECAYS}, got {self.decay!r}.")
        if not 0 <= self.cutoff < 1:
            raise ValueError(f"method.cutoff must lie in [0, 1), got {self.cutoff}.")
        if self.scale <= 0:
            raise ValueError(f"method.scale must be positive, got {self.scale}.")
        if self.travel < 0:
            raise ValueError(f"method.travel must be at least 0, got {self.travel}.")
        if self.head not in EQUILIBRIUM_HEADS:
            raise ValueError(f"method.head must be one of {EQUILIBRIUM_HEADS}, got {self.head!r}.")
        if self.head == "vector" and self.tie_weight > 0:
            raise ValueError(f"method.tie_weight must be 0 for a field, which has no energy to tie, got {self.tie_weight}.")

    @property
    def mcmc_read(self) -> frozenset[str]:
        """Names in `MCMC`: those of the descent that acts."""
        return MCMC_READ if self.travel > 0 else MCMC_READ | {"step_size"}


def equilibrium(settings: Equilibrium, mcmc: MCMC, model: EnergyModel | VectorModel) -> Method:
    """The method as pure functions over `model`."""

    def slope(params: Params, context: Context, actions: Float[Array, "b h a"]) -> tuple[Float[Array, "b h a"], Metrics]:
        """dE/da, or the field in its place."""
        if isinstance(model, VectorModel):
            return model.predict(params, context, actions, None), {}
        energy, gradient = energy_and_gradient(functools.partial(model.energy, params, context), actions)
        return gradient, {"energy": jnp.mean(energy)}

    def loss(params: Params, batch: Batch, keys: Keys) -> tuple[Float[Array, ""], Metrics]:
        """L over the batch; masked entries of the chunk are asked for nothing."""
        context = model.encode(params, batch.observation)
        actions = real_actions(batch)
        noise_keys, time_keys = split(keys)
        noise = normal(noise_keys, actions.shape[1:], actions.dtype)
        time = jax.vmap(jax.random.uniform)(time_keys)[:, None, None]
        gradient, metrics = slope(params, context, (1 - time) * noise + time * actions)
        target = settings.scale * _decay(settings, time) * (noise - actions)
        error = masked_mean_square(gradient - target, batch.action_mask)
        metrics = {**metrics, "slope": jnp.mean(chunk_norm(gradient))}
        if isinstance(model, VectorModel):
            return jnp.mean(error), metrics
        return add_tie(settings, functools.partial(model.energy, params, context), batch, jnp.mean(error), metrics)

    def step_size(num_steps: Int[Array, ""] | int) -> Float[Array, ""] | float | None:
        return settings.travel / (settings.scale * num_steps) if settings.travel > 0 else None

    def sample(params: Params, context: Context, keys: Keys, num_steps: int) -> Sample:
        """`num_steps` steps against the slope from each key's own noise."""
        return descend(model, params, context, keys, mcmc, num_steps, step_size(num_steps))

    minimize = Steered(model, mcmc, lambda params, cap: step_size(cap))
    energy = None if isinstance(model, VectorModel) else model.energy
    return Method(model.init, loss, sample, model.encode, energy, sample_steps=mcmc.num_steps, minimize=minimize)


def _decay(settings: Equilibrium, time: Float[Array, "b 1 1"]) -> Float[Array, "b 1 1"]:
    if settings.decay == "linear":
        return 1 - time
    return jnp.minimum(1.0, (1 - time) / (1 - settings.cutoff))

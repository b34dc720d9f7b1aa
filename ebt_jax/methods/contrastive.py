"""Implicit behavioural cloning (Florence et al. 2021, arXiv 2109.00137): tell the demonstration from chunks that nobody demonstrated.

    L = -log( exp(-E(o, a*)) / (exp(-E(o, a*)) + sum_j exp(-E(o, n_j))) ) + w mean max(0, |dE/da|_inf - margin)^2

Negatives n_j are drawn uniformly from the box [-bound, bound] and by Langevin chains through E itself, which begin there:

    a <- a - clip(eps_i / 2 dE/da, max_move) + sqrt(eps_i) normal,     eps_i from step_start to step_end

whose samples follow exp(-E) as eps goes to 0 (unlike the original's, whose noise shrinks with eps and not its root: stationary on
E = a^2 / (2 s^2) the variance is s^2 / (1 - eps / (4 s^2)), which a test holds it to). Inference is the same chain, or derivative-free:
resample candidates by exp(-E), add noise, shrink the noise, keep the best.

Assumes that the negatives cover what E must exclude, and that actions lie in the box. With uniform negatives alone the optimum is
E = -log p(a | o) up to a function of o, several modes included; a uniform draw hardly ever lies near the demonstrations of a chunk of
many numbers, which is why Langevin negatives are needed. Those are drawn from what is learnt, and counted as if they were not: with them
alone, and chains at temperature t = noise_scale^2 that have mixed, the optimum is E = -t / (1 + t) log p(a | o), and the chain's samples
follow p^(1 / (1 + t)): for noise_scale 1 the square root of p, which is wider than p, and for .1 nearly p.
"""

import dataclasses
import functools
from typing import ClassVar

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from ebt_jax.mcmc import MCMC, chunk_norm, energy_and_gradient, normal
from ebt_jax.methods.descent import real_actions, split
from ebt_jax.methods.tie import Tie, add_tie, contrast
from ebt_jax.types import Batch, Context, EnergyFn, EnergyModel, Keys, Method, Metrics, Params, Sample

INFERENCE = ("langevin", "derivative_free")
DERIVATIVE_FREE_STEPS = 3


@dataclasses.dataclass(frozen=True)
class Contrastive(Tie):
    """Settings, and the tie's. Lengths are in units of the largest normalised number of a demonstrated action: 1 under min_max, else more.

    Attributes:
      num_uniform, num_langevin: negatives of each kind for every demonstration.
      bound: half the side of the box that negatives and inference begin in and never leave; a little more than the actions' range.
      langevin_steps: of a chain, in training and, unless `sample_steps` says otherwise, at inference.
      step_start, step_end, step_power: eps_i = step_end + (step_start - step_end) (1 - i / n)^step_power.
      noise_scale: on the chain's noise; 1 is Langevin, 0 plain descent.
      max_move: bound on the gradient's part of one step, for each number of the chunk; 0 leaves it as it is.
      gradient_penalty, gradient_margin: w, and the largest slope that costs nothing. Keeps chains stable.
      inference: "langevin" or "derivative_free" (few dimensions only).
      num_candidates, spread, shrink: of the derivative-free search: chunks, first noise, its factor after every step.
    """

    num_uniform: int = 16
    num_langevin: int = 8
    bound: float = 1.05
    langevin_steps: int = 50
    step_start: float = 0.1
    step_end: float = 1e-4
    step_power: float = 2.0
    noise_scale: float = 1.0
    max_move: float = 0.1
    gradient_penalty: float = 1.0
    gradient_margin: float = 1.0
    inference: str = "langevin"
    num_candidates: int = 256
    spread: float = 0.33
    shrink: float = 0.5
    head: ClassVar[str] = "energy"
    mcmc_read: ClassVar[frozenset[str]] = frozenset()

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.inference not in INFERENCE:
            raise ValueError(f"method.inference must be one of {INFERENCE}, got {self.inference!r}.")
        if self.num_uniform + self.num_langevin < 1:
            raise ValueError("method.num_uniform + method.num_langevin must be at least 1, got 0: there is nothing to tell apart.")
        for name, low in (("num_uniform", 0), ("num_langevin", 0), ("langevin_steps", 1), ("num_candidates", 1)):
            if getattr(self, name) < low:
                raise ValueError(f"method.{name} must be at least {low}, got {getattr(self, name)}.")
        for name in ("bound", "step_start", "step_end", "step_power", "spread", "shrink"):
            if getattr(self, name) <= 0:
                raise ValueError(f"method.{name} must be positive, got {getattr(self, name)}.")
        for name in ("noise_scale", "max_move", "gradient_penalty", "gradient_margin"):
            if getattr(self, name) < 0:
                raise ValueError(f"method.{name} must be at least 0, got {getattr(self, name)}.")

    def reaching(self, reach: float) -> "Contrastive":
        """The settings for actions whose numbers lie in [-reach, reach]: the same chains and the same loss as for a / reach."""
        lengths = {name: reach * getattr(self, name) for name in ("bound", "max_move", "spread")}
        squares = {name: reach**2 * getattr(self, name) for name in ("step_start", "step_end", "gradient_penalty")}
        return dataclasses.replace(self, **lengths, **squares, gradient_margin=self.gradient_margin / reach)


def contrastive(settings: Contrastive, mcmc: MCMC, model: EnergyModel) -> Method:
    """The method as pure functions over `model`; its chains have their own settings, nothing of `mcmc` applies."""

    def loss(params: Params, batch: Batch, keys: Keys) -> tuple[Float[Array, ""], Metrics]:
        """L over the batch; where action_mask is False demonstration and negatives are one draw alike, and tell nothing apart."""
        context = model.encode(params, batch.observation)
        uniform_keys, langevin_keys = split(keys)
        frozen_params, frozen_context = jax.lax.stop_gradient((params, context))

        def masked_energy(params: Params, context: Context, actions: Float[Array, "b h a"]) -> Float[Array, " b"]:
            return model.energy(params, context, jnp.where(batch.action_mask, actions, filling))

        def draw(keys: Keys) -> Float[Array, "b h a"]:
            return uniform(keys, model.action_shape, settings.bound)

        def chain(keys: Keys) -> Float[Array, "b h a"]:
            start_keys, noise_keys = split(keys)
            energy_fn = functools.partial(masked_energy, frozen_params, frozen_context)
            return langevin(energy_fn, draw(start_keys), noise_keys, settings, settings.langevin_steps).actions

        filling = draw(jax.vmap(jax.random.fold_in, (0, None))(uniform_keys, settings.num_uniform))  # as where a sample begins
        chunks = [real_actions(batch)[None]]
        if settings.num_uniform:
            chunks.append(jax.vmap(draw)(_many(uniform_keys, settings.num_uniform)))
        if settings.num_langevin:
            chunks.append(jax.vmap(chain)(_many(langevin_keys, settings.num_langevin)))
        energy_fn = functools.partial(masked_energy, params, context)
        energy, gradient = jax.vmap(functools.partial(energy_and_gradient, energy_fn))(jnp.concatenate(chunks))  # [n b], [n b h a]
        steepness = jnp.max(jnp.abs(gradient), axis=(2, 3))
        penalty = jnp.mean(jnp.maximum(0.0, steepness - settings.gradient_margin) ** 2)
        cross_entropy = jnp.mean(contrast(energy))
        metrics = {
            "cross_entropy": cross_entropy,
            "accuracy": jnp.mean(jnp.argmin(energy, axis=0) == 0),
            "slope": jnp.mean(steepness),
        }
        loss = cross_entropy if settings.gradient_penalty == 0 else cross_entropy + settings.gradient_penalty * penalty
        return add_tie(settings, functools.partial(model.energy, params, context), batch, loss, metrics)

    def sample(params: Params, context: Context, keys: Keys, num_steps: int) -> Sample:
        """`num_steps` of the chain, or of the derivative-free search, from each key's own uniform chunks."""
        start_keys, noise_keys = split(keys)
        energy_fn = functools.partial(model.energy, params, context)
        if settings.inference == "langevin":
            return langevin(energy_fn, uniform(start_keys, model.action_shape, settings.bound), noise_keys, settings, num_steps)
        candidates = uniform(start_keys, (settings.num_candidates, *model.action_shape), settings.bound)
        return derivative_free(energy_fn, jnp.moveaxis(candidates, 1, 0), noise_keys, settings, num_steps)

    return Method(
        init=model.init,
        loss=loss,
        sample=sample,
        encode=model.encode,
        energy=model.energy,
        sample_steps=settings.langevin_steps if settings.inference == "langevin" else DERIVATIVE_FREE_STEPS,
    )


def langevin(energy_fn: EnergyFn, actions: Float[Array, "b h a"], keys: Keys, settings: Contrastive, num_steps: int) -> Sample:
    """`num_steps` of a <- a - clip(eps_i / 2 dE/da) + sqrt(eps_i) normal, kept in the box."""
    eps = settings.step_end + (settings.step_start - settings.step_end) * (1 - jnp.arange(num_steps) / num_steps) ** settings.step_power

    def step(a: Float[Array, "b h a"], scan: tuple[Array, Array]) -> tuple[Array, tuple[Array, Array, Array]]:
        i, eps = scan
        energy, gradient = energy_and_gradient(energy_fn, a)
        move = 0.5 * eps * gradient
        if settings.max_move:
            move = jnp.clip(move, -settings.max_move, settings.max_move)
        noise = normal(jax.vmap(lambda key: jax.random.fold_in(key, i))(keys), a.shape[1:], a.dtype)
        a = jnp.clip(a - move + settings.noise_scale * jnp.sqrt(eps) * noise, -settings.bound, settings.bound)
        return a, (a, energy, chunk_norm(gradient))

    last, (path, energy, gradient_norm) = jax.lax.scan(step, actions, (jnp.arange(num_steps), eps.astype(actions.dtype)))
    counts = jnp.full(actions.shape[0], num_steps)
    return Sample(last, energy_fn(last), jnp.concatenate([actions[None], path]), energy, gradient_norm, counts)


def derivative_free(energy_fn: EnergyFn, candidates: Float[Array, "n b h a"], keys: Keys, settings: Contrastive, num_steps: int) -> Sample:
    """`num_steps` times: resample by exp(-E), add noise of a shrinking `spread`; the best candidate before each, and the last, best one."""
    number, batch, *shape = candidates.shape

    def best(candidates: Float[Array, "n b h a"], energy: Float[Array, "n b"]) -> tuple[Array, Array]:
        which = jnp.argmin(energy, axis=0)
        return jnp.take_along_axis(candidates, which[None, :, None, None], axis=0)[0], jnp.min(energy, axis=0)

    def step(candidates: Float[Array, "n b h a"], i: Int[Array, ""]) -> tuple[Array, tuple[Array, Array]]:
        energy = jax.vmap(energy_fn)(candidates)
        choice_keys, noise_keys = split(jax.vmap(lambda key: jax.random.fold_in(key, i))(keys))
        chosen = jax.vmap(lambda key, logits: jax.random.categorical(key, logits, shape=(number,)))(choice_keys, -energy.T)  # [b n]
        kept = jnp.take_along_axis(candidates, chosen.T[:, :, None, None], axis=0)
        noise = jnp.moveaxis(normal(noise_keys, (number, *shape), candidates.dtype), 1, 0)
        moved = jnp.clip(kept + settings.spread * settings.shrink**i * noise, -settings.bound, settings.bound)
        return moved, best(candidates, energy)

    last, (path, energy) = jax.lax.scan(step, candidates, jnp.arange(num_steps))
    actions, last_energy = best(last, jax.vmap(energy_fn)(last))
    nothing = jnp.full((num_steps, batch), jnp.nan)
    return Sample(actions, last_energy, jnp.concatenate([path, actions[None]]), energy, nothing, jnp.full(batch, num_steps))


def uniform(keys: Keys, shape: tuple[int, ...], bound: float) -> Float[Array, "b ..."]:
    """Numbers in [-bound, bound] of `shape` for each key."""
    return jax.vmap(lambda key: jax.random.uniform(key, shape, minval=-bound, maxval=bound))(keys)


def _many(keys: Keys, number: int) -> Key[Array, "n b"]:
    """[number, b] keys, of each sample's one."""
    return jax.vmap(lambda n: jax.vmap(jax.random.fold_in, (0, None))(keys, n))(jnp.arange(number))

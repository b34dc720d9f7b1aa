"""What the methods share: starts, paths to a `Sample`, and errors over the real entries of a chunk."""

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Int

from ebt_jax.mcmc import MCMC, minimize_energy, minimize_energy_until, normal
from ebt_jax.stopping import CAPACITY
from ebt_jax.types import AnyArray, Batch, Context, Descent, EnergyFn, EnergyModel, Keys, Params, Sample, VectorModel


def split(keys: Keys) -> tuple[Keys, Keys]:
    """Two independent keys for each sample's one."""
    first, second = jnp.moveaxis(jax.vmap(jax.random.split)(keys), 1, 0)
    return first, second


def descend(
    model: EnergyModel | VectorModel,
    params: Params,
    context: Context,
    keys: Keys,
    mcmc: MCMC,
    num_steps: int,
    step_size: Float[Array, ""] | float | None = None,
) -> Sample:
    """a_0 ~ N(0, I) -> a_n by `minimize_energy`; a vector model's chunk takes the place of dE/da.

    Where `mcmc.min_gradient` is positive, each sample stops by itself and `num_steps` is the cap. E is evaluated once more at
    the returned chunk; under jit a caller that does not look at `energy` does not pay for it.
    """
    start = normal(split(keys)[0], model.action_shape)
    energy_fn = _energy_fn(model, params, context)
    if mcmc.min_gradient > 0:
        actions, trace = minimize_energy_until(
            energy_fn, start, mcmc, tolerance=mcmc.min_gradient, max_steps=num_steps, step_size=step_size, final_step=True
        )
    else:
        actions, trace = minimize_energy(energy_fn, start, mcmc, num_steps=num_steps, step_size=step_size)
    if isinstance(model, VectorModel):
        return without_energy(trace.actions)._replace(num_steps=trace.num_steps)
    return Sample(actions, energy_fn(actions), trace.actions, trace.energy, trace.gradient_norm, trace.num_steps)


@dataclasses.dataclass(frozen=True, eq=False)
class Steered:
    """`Method.minimize` by `minimize_energy_until`: E + penalty over the entries that are not held, from `descent.start` or noise.

    What is held is put in place inside the energy, so that its gradient is 0 and counts in no norm. Where `descent.min_gradient` is NaN,
    samples rest by the rule of `descend`.

    Attributes:
      step_size: (params, cap) -> alpha; None for the settings' own.
    """

    model: EnergyModel | VectorModel
    mcmc: MCMC
    step_size: Callable[[Params, Int[Array, ""]], Float[Array, ""] | float | None]

    def __call__(self, params: Params, context: Context, keys: Keys, descent: Descent, penalty: EnergyFn | None = None) -> Sample:
        noise = normal(split(keys)[0], self.model.action_shape)
        energy_fn = _energy_fn(self.model, params, context)

        def placed(actions: Float[Array, "b h a"]) -> Float[Array, "b h a"]:
            return jnp.where(descent.held, descent.start, actions)

        def total(actions: Float[Array, "b h a"]) -> Float[Array, " b"]:
            actions = placed(actions)
            return energy_fn(actions) if penalty is None else energy_fn(actions) + penalty(actions)

        own = jnp.isnan(descent.min_gradient)
        actions, trace = minimize_energy_until(
            total,
            placed(jnp.where(descent.given, descent.start, noise)),
            self.mcmc,
            tolerance=jnp.where(own, self.mcmc.min_gradient, descent.min_gradient),
            max_steps=CAPACITY,
            min_energy_drop=descent.min_energy_drop,
            min_step_length=descent.min_step_length,
            limit=descent.max_steps,
            step_size=self.step_size(params, descent.max_steps),
            final_step=own,
            must_move=~jnp.all(descent.given | descent.held, axis=(1, 2)),
        )
        actions, path = placed(actions), jax.vmap(placed)(trace.actions)
        if isinstance(self.model, VectorModel):
            return without_energy(path)._replace(num_steps=trace.num_steps)
        return Sample(actions, energy_fn(actions), path, trace.energy, trace.gradient_norm, trace.num_steps)


def _energy_fn(model: EnergyModel | VectorModel, params: Params, context: Context) -> EnergyFn:
    """E(o, .), or for a field the function whose derivative it is."""
    if isinstance(model, VectorModel):
        predict = model.predict
        return _with_gradient(lambda actions: predict(params, context, actions, None))
    return functools.partial(model.energy, params, context)


def _with_gradient(field: Callable[[Float[Array, "b h a"]], Float[Array, "b h a"]]) -> EnergyFn:
    """0 everywhere, with the field as its derivative: lets a descent follow what need not be the gradient of any energy."""

    def zero(actions: Float[Array, "b h a"]) -> Float[Array, " b"]:
        return jnp.sum(jax.lax.stop_gradient(field(actions)) * (actions - jax.lax.stop_gradient(actions)), axis=(1, 2))

    return zero


def without_energy(path: Float[Array, "k1 b h a"]) -> Sample:
    """The path of a method that has no energy: the last chunk is the answer, energies and their gradients are NaN."""
    num_steps, batch = len(path) - 1, path.shape[1]
    nothing = jnp.full((num_steps, batch), jnp.nan)
    return Sample(path[-1], jnp.full(batch, jnp.nan), path, nothing, nothing, jnp.full(batch, num_steps))


def real_actions(batch: Batch) -> Float[Array, "b h a"]:
    """The demonstration with 0 where nothing real is: what lies there cannot reach a network's input."""
    return jnp.where(batch.action_mask, batch.actions, 0.0)


def masked_mean_square(difference: Float[Array, "*k b h a"], mask: Bool[AnyArray, "b h a"]) -> Float[Array, "*k b"]:
    """Over h x a, the masked entries as zeros: a constant divisor keeps the batch mean the same on any number of devices."""
    mask = mask.reshape((1,) * (difference.ndim - mask.ndim) + mask.shape)
    return jnp.mean(jnp.where(mask, difference, 0.0) ** 2, axis=(-2, -1))

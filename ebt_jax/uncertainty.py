"""Doubt: what an energy says that does not change when a function of the observation is added to it.

A descent learns E up to h(o) (see docs/algorithm.md), so the level E(o, a) compares chunks for one observation and nothing else.
These statistics are the same for E and E + h(o), whatever h: differences within one observation, gradients, and distances
between answers. Each is a number per sample; which of them predicts what has to be measured on the task at hand.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ebt_jax.mcmc import chunk_norm, energy_and_gradient
from ebt_jax.types import AnyArray, EnergyFn


class Doubt(NamedTuple):
    """The statistics of one answer; all unchanged by E -> E + h(o).

    Attributes:
      energy_drop: E(start) - E(answer): how far the descent came down, mean over starts.
      gradient_norm: |dE/da| at the answer, over the whole chunk, mean over starts: 0 at rest.
      energy_spread: standard deviation of E over the answers from several starts; 0 for one start.
      action_spread: root mean square distance between two answers, per entry (normalised units); 0 for one start.
      relative_energy: E at the first answer relative to reference chunks, see `relative_energy`.
    """

    energy_drop: Float[AnyArray, " b"]
    gradient_norm: Float[AnyArray, " b"]
    energy_spread: Float[AnyArray, " b"]
    action_spread: Float[AnyArray, " b"]
    relative_energy: Float[AnyArray, " b"]


def doubt(
    energy_fn: EnergyFn,
    starts: Float[Array, "m b h a"],
    answers: Float[Array, "m b h a"],
    references: Float[Array, "r h a"],
    temperature: float | Float[Array, ""] = 1.0,
) -> Doubt:
    """All statistics of M descents from `starts` to `answers` (normalised); the first answer is the one that is executed.

    Costs 2 M + R energies and M gradients a sample on a context that is encoded once. Chunks are gone through one after another, each for
    the whole batch, so that an exported energy, which cannot be vmapped, serves too. `relative_energy` is NaN where R = 0.
    """
    before = jax.lax.map(energy_fn, starts)
    energy, gradient = jax.lax.map(lambda actions: energy_and_gradient(energy_fn, actions), answers)
    relative = jnp.full(answers.shape[1], jnp.nan)
    if len(references):
        relative = relative_energy(energy[0], reference_energies(energy_fn, references, answers.shape[1]), temperature)
    return Doubt(
        energy_drop=jnp.mean(before - energy, axis=0),
        gradient_norm=jnp.mean(chunk_norm(gradient), axis=0),
        energy_spread=jnp.std(energy, axis=0),
        action_spread=action_spread(answers),
        relative_energy=relative,
    )


def action_spread(answers: Float[Array, "m b h a"]) -> Float[Array, " b"]:
    """sqrt(mean over pairs m != m' and entries of (y_m - y_m')^2): sqrt 2 times the answers' standard deviation; 0 for M = 1."""
    variance = jnp.mean((answers - jnp.mean(answers, axis=0, keepdims=True)) ** 2, axis=(0, 2, 3))
    starts = len(answers)
    return jnp.sqrt(2 * variance * starts / max(starts - 1, 1))


def reference_energies(energy_fn: EnergyFn, references: Float[Array, "r h a"], batch_size: int) -> Float[Array, "r b"]:
    """E(o_i, r_k) of the same chunks, demonstrated anywhere, under each of `batch_size` observations."""
    return jax.lax.map(lambda chunk: energy_fn(jnp.broadcast_to(chunk[None], (batch_size, *chunk.shape))), references)


def relative_energy(
    energy: Float[Array, " b"], reference: Float[Array, "r b"], temperature: float | Float[Array, ""] = 1.0
) -> Float[Array, " b"]:
    """E + T log mean_k exp(-E_k / T): E with its zero at the soft minimum over reference chunks of the same observation.

    Low: the chunk fits this observation better than chunks from elsewhere do. For -E / T = log p(a|o) - log p(a) + h(o), which
    InfoNCE over actions learns, and references from p(a), it tends to -T times the pointwise mutual information.
    """
    return energy + temperature * (jax.nn.logsumexp(-reference / temperature, axis=0) - jnp.log(len(reference)))


class Fit(NamedTuple):
    """How badly given chunks fit their observations, higher is worse; all but `energy` are unchanged by E -> E + h(o).

    Attributes:
      energy: E(o, a) as it is: comparable between observations only where a tie was trained.
      relative_energy: see `relative_energy`.
      rank: share of the reference chunks that fit this observation better, ties half; in [0, 1], whatever the scale of E.
      above_answer: E(o, a) - E(o, the policy's own answer).
      gradient_norm: |dE/da| at the chunk: how much the descent would move it.
    """

    energy: Float[AnyArray, " b"]
    relative_energy: Float[AnyArray, " b"]
    rank: Float[AnyArray, " b"]
    above_answer: Float[AnyArray, " b"]
    gradient_norm: Float[AnyArray, " b"]


def fit(
    energy_fn: EnergyFn,
    actions: Float[Array, "b h a"],
    answers: Float[Array, "b h a"],
    references: Float[Array, "r h a"],
    temperature: float | Float[Array, ""] = 1.0,
) -> Fit:
    """All statistics of one chunk for each observation (normalised), beside the policy's answers to the same observations."""
    energy, gradient = energy_and_gradient(energy_fn, actions)
    reference = reference_energies(energy_fn, references, len(actions))
    return Fit(
        energy=energy,
        relative_energy=relative_energy(energy, reference, temperature),
        rank=jnp.mean((reference < energy[None]) + 0.5 * (reference == energy[None]), axis=0),
        above_answer=energy - energy_fn(answers),
        gradient_norm=chunk_norm(gradient),
    )

"""The tie: a term that gives E one zero for all observations, which no descent does.

Every loss on a descent sees E through dE/da, so E + h(o) has the same loss and the same actions for any h (`mcmc.energy_temperature`
apart): between observations the energy's level means nothing. The tie asks which observation a demonstrated chunk a_i belongs to,
among its own and M others,

    L = -log exp(-E(o_i, a_i) / T) / sum_j exp(-E(o_j, a_i) / T),     j = i, i + 1, .., i + M in the batch

(InfoNCE, arXiv 1807.03748, contrasted over the condition). Adding h(o) now costs, and the best h is unique up to one constant:
docs/algorithm.md derives which. What stays free, c(a), is what the descent itself determines.
"""

import dataclasses

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from ebt_jax.types import Batch, EnergyFn, Metrics


@dataclasses.dataclass(frozen=True)
class Tie:
    """Settings that every energy method has.

    Attributes:
      tie_weight: of L beside the method's own loss; 0 leaves it out.
      tie_negatives: M, other observations a chunk is held against; they come from the same device's rows of the batch.
      tie_temperature: T, in units of E. It suits the descent where it is near the demonstrations' variance about a mode over the step size.
    """

    tie_weight: float = 0.0
    tie_negatives: int = 8
    tie_temperature: float = 1.0

    def __post_init__(self) -> None:
        for name, holds, rule in (
            ("tie_weight", self.tie_weight >= 0, "be at least 0"),
            ("tie_negatives", self.tie_negatives >= 1, "be at least 1"),
            ("tie_temperature", self.tie_temperature > 0, "be positive"),
        ):
            if not holds:
                raise ValueError(f"method.{name} must {rule}, got {getattr(self, name)}.")


def add_tie(settings: Tie, energy_fn: EnergyFn, batch: Batch, loss: Float[Array, ""], metrics: Metrics) -> tuple[Float[Array, ""], Metrics]:
    """loss + tie_weight x the tie, and with it `tie` and `tie_accuracy`, the share of chunks whose own observation fits best."""
    if settings.tie_weight == 0:
        return loss, metrics
    actions = jnp.where(batch.action_mask, batch.actions, 0.0)
    energies = paired_energies(energy_fn, actions, settings.tie_negatives)
    terms = contrast(energies / settings.tie_temperature)
    accuracy = jnp.mean(jnp.argmin(energies, axis=0) == 0)
    return loss + settings.tie_weight * jnp.mean(terms), {**metrics, "tie": jnp.mean(terms), "tie_accuracy": accuracy}


def paired_energies(energy_fn: EnergyFn, actions: Float[Array, "b h a"], num_negatives: int) -> Float[Array, "m1 b"]:
    """E(o_{i+m}, a_i) at [m, i] for m = 0..M, rows counted around the batch: 1 + M energies a sample, not b.

    The same pairs come from rolling the chunks and not the contexts, which are large: E(o_j, a_{j-m}), then the scalars rolled back.
    """
    if num_negatives >= len(actions):
        raise ValueError(
            f"method.tie_negatives must be less than the samples of one device (and of one accumulation step), {len(actions)}, "
            f"got {num_negatives}."
        )

    def shifted(m: Array) -> Float[Array, " b"]:
        return jnp.roll(energy_fn(jnp.roll(actions, m, axis=0)), -m)

    return jax.vmap(shifted)(jnp.arange(1 + num_negatives))


def contrast(energies: Float[Array, "m1 b"]) -> Float[Array, " b"]:
    """-log softmax(-E)[0] over the first axis: how far row 0, the true pair, is from being chosen."""
    return energies[0] + jax.nn.logsumexp(-energies, axis=0)

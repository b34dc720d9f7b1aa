"""Which of several proposals for one observation fits best, by the energy of a policy that need not have made any of them."""

from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Int

from ebt_jax.policy import Policy
from ebt_jax.types import Observation


class Ranking(NamedTuple):
    """`order[0]` is the place of the best proposal; `energy` is in the order of the proposals."""

    order: Int[np.ndarray, " m"]
    energy: Float[np.ndarray, " m"]


def rank_proposals(policy: Policy, observation: Observation, proposals: Float[np.ndarray, "m h a"]) -> Ranking:
    """Chunks in robot units by E(o, a), lowest first; one observation, so that no level enters, encoded once.

    Low energy is likeness to what the demonstrators did here, as far as the policy has learnt it: not success. A NaN comes last. Raises
    ValueError for more than one observation, and where the policy's method has no energy.
    """
    if len(observation.proprio) != 1:
        raise ValueError(f"observation must have 1 row, got {len(observation.proprio)}. Energies of different observations do not compare.")
    energy = policy.energy(observation, proposals)
    return Ranking(np.argsort(energy, kind="stable"), energy)

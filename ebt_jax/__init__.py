"""Energy-based transformer policies for robots: E(observation, action chunk), minimised over the chunk.

One call loads a trained run, one asks it to act:

    policy = ebt_jax.load("runs/sample")
    output = policy.sample_actions(observation, keys)
"""

from typing import Any


def __getattr__(name: str) -> Any:
    """`ebt_jax.load`, found when it is asked for: importing the package alone loads neither jax nor flax."""
    if name == "load":
        from ebt_jax.loading import load

        return load
    raise AttributeError(f"module 'ebt_jax' has no attribute {name!r}")

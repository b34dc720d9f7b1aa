"""Milliseconds -> steps: how many steps of the descent this machine can take in the time a robot gives it."""

import statistics

import numpy as np

from ebt_jax.policy import Policy, empty_batch
from ebt_jax.stopping import CAPACITY, Stopping

LOOKS = 9
"""Steps of the longer of the two descents that are timed."""


def steps_within(policy: Policy, budget_ms: float, batch_size: int = 1, repeats: int = 5, num_starts: int = 1) -> int:
    """The most steps with t(1) + (steps - 1) (t(9) - t(1)) / 8 <= budget, t(n) the median wall time of a whole answer with n steps.

    Measured here and now, after a warm-up, at one batch size, with `num_starts` descents a row (eight take about eight times as long as
    one) and without constraint; one program serves both lengths. An expectation, not a guarantee: leave room for what else the machine
    does. As `Stopping(max_steps=...)` it changes nothing that is compiled.

    Raises ValueError where not even one step fits, with the time that it takes, and for a method that does not descend.
    """
    observation = empty_batch(policy.specs, batch_size).observation
    keys = policy.sample_keys(0, np.arange(batch_size), np.zeros(batch_size, np.int64))

    def milliseconds(max_steps: int) -> float:
        answers = [
            policy.sample_actions(observation, keys, stopping=Stopping(max_steps), num_starts=num_starts) for _ in range(repeats + 1)
        ]
        return 1e3 * statistics.median(answer.seconds["total"] for answer in answers[1:])

    one, many = milliseconds(1), milliseconds(LOOKS)
    if one > budget_ms:
        raise ValueError(
            f"budget_ms must be at least {one:.3g}, the time of one step for {batch_size} observations here, got {budget_ms:g}."
        )
    step = max((many - one) / (LOOKS - 1), 1e-3)
    return min(CAPACITY, 1 + int((budget_ms - one) / step))

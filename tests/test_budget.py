"""Milliseconds to steps, on a policy that says how long it took."""

import dataclasses

import numpy as np
import pytest
from quadratic import quadratic_policy

from ebt_jax.budget import steps_within
from ebt_jax.policy import Policy


class Clockwork(Policy):
    """3 ms, and 2 ms a step of each start."""

    def sample_actions(self, observation, keys, num_steps=None, *, stopping=None, **rest):
        output = super().sample_actions(observation, keys, stopping=stopping)
        return output._replace(seconds={"total": 1e-3 * (3 + 2 * rest["num_starts"] * float(np.max(output.num_steps)))})


def test_a_budget_is_spent_but_not_exceeded():
    policy = quadratic_policy()
    clockwork = Clockwork(**{field.name: getattr(policy, field.name) for field in dataclasses.fields(policy)})
    assert [steps_within(clockwork, budget) for budget in (5.0, 6.9, 7.1, 13.0, 1e4)] == [1, 1, 2, 5, 64]
    assert [steps_within(clockwork, budget, num_starts=8) for budget in (19.0, 36.0)] == [1, 2]
    with pytest.raises(ValueError, match=r"budget_ms must be at least 5, .*got 4.9"):
        steps_within(clockwork, 4.9)

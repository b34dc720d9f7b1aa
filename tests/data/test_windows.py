"""Masks and repeats at both ends of an episode, for any horizon."""

import hypothesis
import hypothesis.strategies as st
import numpy as np

from ebt_jax.data.windows import windows


def test_the_example_of_the_docstring():
    view = windows(np.array([0, 5]), np.array([7, 7]), 2, 4)
    assert view.history.tolist() == [[0, 0], [4, 5]]
    assert view.timestep_mask.tolist() == [[False, True], [True, True]]
    assert view.chunk.tolist() == [[0, 1, 2, 3], [5, 6, 6, 6]]
    assert view.action_mask.tolist() == [[True] * 4, [True, True, False, False]]


@hypothesis.given(st.data(), st.integers(1, 30), st.integers(1, 6), st.integers(1, 20))
def test_real_steps_are_where_they_belong_and_the_rest_repeats_the_ends(data, length, observation_horizon, action_horizon):
    step = data.draw(st.integers(0, length - 1))
    view = windows(np.array([step]), np.array([length]), observation_horizon, action_horizon)
    for i in range(observation_horizon):
        wanted = step - (observation_horizon - 1) + i
        assert (view.history[0, i], view.timestep_mask[0, i]) == (max(wanted, 0), wanted >= 0)
    for i in range(action_horizon):
        assert (view.chunk[0, i], view.action_mask[0, i]) == (min(step + i, length - 1), step + i < length)
    assert view.timestep_mask[0, -1]
    assert view.action_mask[0, 0]

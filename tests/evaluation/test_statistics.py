"""The Wilson interval against its defining equation and published values."""

import math

import pytest

from ebt_jax.evaluation.statistics import Z95, wilson_interval


@pytest.mark.parametrize(("successes", "episodes"), [(0, 10), (1, 3), (47, 50), (50, 50), (500, 1000)])
def test_bounds_lie_where_the_score_test_just_rejects(successes: int, episodes: int) -> None:
    rate = successes / episodes
    for bound in wilson_interval(successes, episodes):
        assert abs(bound - rate) == pytest.approx(Z95 * math.sqrt(bound * (1 - bound) / episodes), abs=1e-12)


def test_known_values() -> None:
    low, high = wilson_interval(47, 50)
    assert (low, high) == (pytest.approx(0.8378, abs=1e-4), pytest.approx(0.9794, abs=1e-4))
    assert wilson_interval(0, 10)[1] == pytest.approx(0.2775, abs=1e-4)
    assert wilson_interval(0, 0) == (0.0, 1.0)
    with pytest.raises(ValueError, match=r"successes must be in \[0, 3\], got 4"):
        wilson_interval(4, 3)

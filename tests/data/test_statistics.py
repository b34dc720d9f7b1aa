"""Statistics of parts are those of the whole: quantiles to the last bit, moments to rounding."""

import functools
import itertools

import hypothesis
import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import pytest

from ebt_jax.data.statistics import merge, statistics, summarize
from ebt_jax.normalize import VectorStatistics

COLUMNS = {
    "normal": lambda rng, n: rng.normal(3, 2, n),
    "constant": lambda rng, n: np.full(n, -0.25),
    "binary": lambda rng, n: rng.integers(0, 2, n),
    "tiny": lambda rng, n: rng.normal(0, 1e-30, n),
    "signed zeros": lambda rng, n: np.where(rng.random(n) < 0.5, -0.0, 0.0),
    "heavy": lambda rng, n: rng.standard_cauchy(n),
}


def _of(values, cuts=()):
    return statistics([functools.partial(list, [part]) for part in np.split(values, cuts)], values.shape[1])


@pytest.mark.parametrize("n", [1, 2, 3, 99, 1000])
def test_they_are_those_of_all_rows_together(n):
    rng = np.random.default_rng(n)
    values = np.stack([column(rng, n) for column in COLUMNS.values()], 1).astype(np.float32)
    found, expected = _of(values, [n // 3, n // 2] if n > 6 else ()), VectorStatistics.of(values)
    for name in ("min", "max"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
    for name in ("q01", "q99", "mean", "std"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=1e-12, atol=1e-12 * np.abs(values).max(0).max(), err_msg=name
        )


@hypothesis.given(hnp.arrays(np.float32, (17, 2), elements=st.floats(width=32, allow_nan=False, allow_infinity=False)))
@hypothesis.settings(deadline=None, max_examples=20)
def test_quantiles_hold_for_any_numbers(values):
    found, expected = _of(values, [5, 11]), VectorStatistics.of(values)
    np.testing.assert_allclose(found.q01, expected.q01, rtol=1e-12)
    np.testing.assert_allclose(found.q99, expected.q99, rtol=1e-12)


def test_summaries_merge_in_any_order():
    rng = np.random.default_rng(0)
    parts = [summarize(rng.normal(size=(n, 2)).astype(np.float32)) for n in (5, 50, 1)]
    first, *others = [merge(merge(a, b), c) for a, b, c in itertools.permutations(parts)]
    for other in others:
        np.testing.assert_array_equal(other.bins, first.bins)
        np.testing.assert_allclose(other.mean, first.mean, rtol=1e-13)
        np.testing.assert_allclose(other.spread, first.spread, rtol=1e-13)


def test_values_that_are_no_numbers_are_refused():
    with pytest.raises(ValueError, match="values must be finite"):
        _of(np.array([[1.0, np.nan]], np.float32))
    with pytest.raises(ValueError, match="at least one row"):
        statistics([], 2)

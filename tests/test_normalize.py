"""The scale of a dimension is that of its bulk, whatever single values do; where the bulk stands still, that of its extremes."""

import numpy as np
import pytest

from ebt_jax.normalize import VectorStatistics, constant, lopsided, make_normalizer, normalize_within


def _column(values):
    return VectorStatistics.of(np.asarray(values, np.float64)[:, None])


def _tremor(size, offset=0.0, rows=2_000):
    return offset + size * np.sin(np.arange(rows))


@pytest.mark.parametrize("rows", [2_000, 200_000])
def test_one_absurd_value_leaves_the_bulk_its_scale(rows):
    values = _tremor(0.007, rows=rows)
    values[17] = 123.0
    found = _column(values)
    normalizer = make_normalizer(found, "quantile")
    assert normalizer.scale[0] == pytest.approx(0.007, rel=0.01)
    shown = normalize_within(values[:, None], normalizer)
    assert np.std(shown) == pytest.approx(np.sqrt(0.5), rel=0.05)
    assert shown.max() == 5.0
    assert lopsided(found, "quantile").all()
    assert make_normalizer(found, "min_max").scale[0] == pytest.approx(61.5, rel=0.01)


@pytest.mark.parametrize("mode", ["quantile", "min_max", "mean_std"])
def test_noise_about_an_offset_is_no_motion(mode):
    found = _column(_tremor(3e-5, offset=1.0))
    assert make_normalizer(found, mode).scale[0] == 1.0
    assert constant(found).all()
    assert not lopsided(found, mode).any()


def test_what_moves_more_rarely_than_quantiles_see_has_the_scale_of_its_extremes():
    values = np.zeros(2_000)
    values[:10] = np.linspace(-0.4, 0.4, 10)
    found = _column(values)
    assert found.q01 == found.q99
    assert make_normalizer(found, "quantile").scale[0] == np.float32(0.4)
    assert lopsided(found, "quantile").all()


@pytest.mark.parametrize("mode", ["quantile", "min_max", "mean_std"])
def test_numbers_that_move_are_nothing_to_warn_of(mode):
    assert not lopsided(_column(_tremor(0.3, offset=100.0)), mode).any()


def test_only_quantiles_leave_anything_out():
    found, far = _column(_tremor(1.0)), np.array([[1e3]])
    reached = {mode: normalize_within(far, make_normalizer(found, mode))[0, 0] for mode in ("quantile", "min_max", "mean_std")}
    assert reached["quantile"] == 5.0
    assert min(reached["min_max"], reached["mean_std"]) > 900

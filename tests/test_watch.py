"""Made courses: what is a stall, what is a retry, and what is neither."""

import itertools
import math

import pytest

from ebt_jax.watch import DOUBTFUL, STALLED, STEADY, Levels, Watch, watch

LEVELS = Levels(high=2.0, low=1.0, patience=3)


def states(course, levels=LEVELS):
    return list(itertools.accumulate(course, lambda before, value: watch(levels, before, value), initial=Watch()))[1:]


def test_a_calm_course_stays_steady():
    assert {one.state for one in states([0.1, 1.9, 0.5, 2.0, 1.5])} == {STEADY}


def test_doubt_that_lasts_is_a_stall_until_it_is_gone():
    found = states([0.0, 3.0, 3.0, 3.0, 1.5, 0.5, 0.5])
    assert [one.state for one in found] == [STEADY, DOUBTFUL, DOUBTFUL, STALLED, STALLED, STEADY, STEADY]
    assert found[-1].retries == 1


def test_doubt_that_comes_and_goes_is_counted_as_retries():
    found = states([0.0, 3.0, 0.0, 3.0, 3.0, 0.0, 3.0])
    assert [one.retries for one in found] == [0, 0, 1, 1, 1, 2, 2]
    assert STALLED not in {one.state for one in found}


def test_trembling_about_a_level_is_no_retry():
    assert states([0.0, 2.1, 1.9, 2.1, 1.9])[-1].retries == 0
    assert states([1.9, 2.1 - 0.2, 1.9])[-1] == Watch(STEADY, 0, 0, 1, 1.9)


def test_standing_still_is_a_stall_at_any_height():
    levels = Levels(high=2.0, low=1.0, patience=3, flat=0.01)
    found = states([0.5, 0.4, 0.405, 0.395, 0.8], levels)
    assert [one.state for one in found] == [STEADY, STEADY, STEADY, STALLED, STEADY]
    creeping = states([0.1 * n for n in range(10)], Levels(2.0, 1.0, 3, flat=0.15))
    assert STALLED not in {one.state for one in creeping}  # a slow course moves: still is within flat of one value, not of the last


def test_a_nan_says_nothing():
    before = states([0.0, 3.0])[-1]
    assert watch(LEVELS, before, math.nan) == before


@pytest.mark.parametrize(("settings", "complaint"), [((1.0, 2.0), "low must be at most"), ((2.0, 1.0, 0), "patience must be at least 1")])
def test_levels_that_make_no_sense_are_refused(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        Levels(*settings)

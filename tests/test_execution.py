"""Chunks to actions: rows whose value names the chunk and the time they were planned for."""

import numpy as np
import pytest

from ebt_jax.execution import Chunks, Execution

H = 6


def chunk(asked):
    """Planned at time `asked`: row j is [asked, asked + j]."""
    return np.stack([np.full(H, asked), asked + np.arange(H)], axis=1).astype(np.float32)


def test_receding_executes_the_first_rows_of_each_chunk():
    chunks = Chunks(Execution("receding", 2))
    executed = np.concatenate([chunks.next(chunk(time)) for time in (0, 2, 4)])
    np.testing.assert_array_equal(executed, [[0, 0], [0, 1], [2, 2], [2, 3], [4, 4], [4, 5]])


def test_an_ensemble_averages_what_every_chunk_says_of_now():
    """ACT: at time t the chunks asked at t - 5 .. t, weights exp(-.01 i) from the oldest on."""
    chunks = Chunks(Execution("ensemble", 1, decay=0.01))
    for time in range(9):
        (action,) = chunks.next(chunk(time))
        asked = np.arange(max(0, time - H + 1), time + 1)
        weights = np.exp(-0.01 * np.arange(len(asked)))
        np.testing.assert_allclose(action, [np.sum(weights * asked) / weights.sum(), time], rtol=1e-6)


def test_an_ensemble_of_longer_strides_keeps_time():
    chunks = Chunks(Execution("ensemble", 4, decay=0.0))
    chunks.next(chunk(0))
    np.testing.assert_allclose(chunks.next(chunk(4)), [[2, 4], [2, 5], [4, 6], [4, 7]])


def test_realtime_hands_on_the_shifted_chunk_and_what_is_committed():
    chunks = Chunks(Execution("realtime", 3, committed=2))
    start, committed = chunks.warm_start((H, 2))
    assert committed == 0
    assert np.isnan(start).all()
    np.testing.assert_array_equal(chunks.next(chunk(0))[:, 1], [0, 1, 2])
    start, committed = chunks.warm_start((H, 2))
    assert committed == 2
    np.testing.assert_array_equal(start[:3, 1], [3, 4, 5])
    assert np.isnan(start[3:]).all()
    assert np.isnan(Chunks(Execution("receding", 3)).warm_start((H, 2))[0]).all()


def test_settings_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match=r"execution.kind must be one of .*got sideways"):
        Execution("sideways")
    with pytest.raises(ValueError, match=r"execution.committed must lie in \[0, execution.horizon = 2\], got 3"):
        Execution("realtime", 2, committed=3)
    with pytest.raises(ValueError, match="unless execution.kind is 'realtime'"):
        Execution("receding", 2, committed=1)
    with pytest.raises(ValueError, match="chunk must have at least 7 rows"):
        Chunks(Execution("realtime", 5, committed=2)).next(chunk(0))

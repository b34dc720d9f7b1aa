"""The order of training: a bijection every epoch, weights kept, nothing but the row and the seed decides."""

import bisect
import math

import hypothesis
import hypothesis.strategies as st
import numpy as np
import pytest

from ebt_jax.data import order
from ebt_jax.data.order import BLOCK, draw, mix, permute

GOLDEN_PERMUTATION = [3, 6, 9, 7, 8, 5, 2, 1, 4, 0]
GOLDEN_HASH = 13757245211066428519


@hypothesis.given(st.integers(1, 3000), st.integers(0, 2**63 - 1))
@hypothesis.settings(deadline=None)
def test_permute_is_a_bijection(length, key):
    np.testing.assert_array_equal(np.sort(permute(np.arange(length), length, key)), np.arange(length))


@hypothesis.given(st.integers(1, 2**40), st.integers(0, 2**63 - 1))
def test_permute_stays_inside_any_length(length, key):
    positions = np.unique(np.linspace(0, length - 1, 50).astype(np.int64))
    found = permute(positions, length, key)
    assert found.min() >= 0
    assert found.max() < length
    assert len(np.unique(found)) == len(positions)


def test_an_order_tells_nothing_of_its_neighbours_or_of_another_key():
    n = 100_000
    order, other = permute(np.arange(n), n, 1), permute(np.arange(n), n, 2)
    for pair in ((order, np.arange(n)), (order[1:], order[:-1]), (order, other)):
        assert abs(np.corrcoef(*pair)[0, 1]) < 0.02
    heads = np.histogram(order[: n // 10], 10, (0, n))[0]
    assert np.abs(heads - n / 100).max() < 150  # five standard deviations of a uniform draw


def test_the_order_never_changes():
    assert permute(np.arange(10), 10, 7).tolist() == GOLDEN_PERMUTATION
    assert int(mix(1, 2)) == GOLDEN_HASH


def test_an_epoch_has_every_window_once_and_another_order():
    rows = np.arange(3 * 50)
    datasets, windows = draw(rows, (50,), (1.0,), seed=0)
    assert (datasets == 0).all()
    epochs = windows.reshape(3, 50)
    for epoch in epochs:
        assert sorted(epoch) == list(range(50))
    assert (epochs[0] != epochs[1]).any()
    assert (draw(rows, (50,), (1.0,), seed=1)[1] != windows).any()


@pytest.mark.parametrize("weights", [(0.7, 0.2, 0.1), (1 / 3, 1 / 3, 1 / 3), (1 - 1 / BLOCK, 1 / BLOCK)])
def test_weights_hold_and_datasets_do_not_repeat_before_their_end(weights):
    rows = np.arange(2 * BLOCK + 1000)
    lengths = tuple(700 + 100 * i for i in range(len(weights)))
    datasets, windows = draw(rows, lengths, weights, seed=3)
    for i, weight in enumerate(weights):
        assert abs((datasets[: 2 * BLOCK] == i).sum() - weight * 2 * BLOCK) <= 1
        mine = windows[datasets == i]
        for epoch in range(len(mine) // lengths[i]):
            assert len(np.unique(mine[epoch * lengths[i] : (epoch + 1) * lengths[i]])) == lengths[i]


@pytest.mark.parametrize("together", [1, 16, 64])
@pytest.mark.parametrize("share", [1e-7, 1.2e-5, 4e-4, 7.3e-3])
def test_a_share_below_one_visit_a_block_is_kept(share, together):
    """Wherever the dataset stands among the others: to a visit where a span of blocks ends, which grows as the share shrinks, and in
    between to a third of one more for each time that the span is halved. Its windows come in turn."""
    halvings = max(0, math.ceil(-math.log2(share * (BLOCK // together))))
    for weights in ((share, 0.3, 0.7 - share), (0.3, share, 2 * share, 0.7 - 3 * share), (0.3, 0.7 - share, share)):
        small, groups = weights.index(share), BLOCK // together
        drawn = np.zeros(len(weights), np.int64)
        for block in range(max(4, min(300, math.ceil(4 / (share * groups))))):
            before, held = order._share(block, weights, groups)
            assert (before == drawn).all()
            assert held.min() >= 0
            assert held.sum() == groups
            drawn += held
            error = np.abs(drawn - np.array(weights) * groups * (block + 1)).max()
            assert error <= 1.001 + (halvings / 3 if (block + 1) % 2**halvings else 0)
        late = math.ceil(3 / (share * groups))
        assert order._share(late, weights, groups)[0][small] >= 1  # nothing is left out for ever
        first = bisect.bisect_left(range(late), 1, key=lambda block: order._share(block + 1, weights, groups)[0][small])
        datasets, windows = draw(np.arange(first * BLOCK, (first + 1) * BLOCK), (200,) * len(weights), weights, 3, together)
        assert (datasets == small).sum() >= together
        assert len(np.unique(windows[datasets == small][:together])) == together


@pytest.mark.parametrize(("weights", "together"), [((0.7, 0.2, 0.1), 1), ((0.11, 0.013, 0.877), 16), ((1 - 1 / 256, 1 / 256), 64)])
def test_shares_are_rounded_where_a_block_begins_if_it_holds_a_visit_of_each(weights, together):
    """The order of mixtures that were trained on stays."""
    edges, groups = np.array([0.0, *np.cumsum(weights)[:-1], 1.0]), BLOCK // together
    for block in (0, 1, 2, 77, 12345):
        before, held = order._share(block, weights, groups)
        expected = [np.diff(np.rint(edges * (n * groups)).astype(np.int64)) for n in (block, block + 1)]
        np.testing.assert_array_equal([before, before + held], expected)


@hypothesis.given(st.lists(st.integers(0, 5 * BLOCK), min_size=1, max_size=40))
@hypothesis.settings(deadline=None, max_examples=20)
def test_a_row_is_the_same_in_any_company(rows):
    rows = np.array(rows)
    together = np.stack(draw(rows, (100, 200), (0.3, 0.7), 5), 1)
    alone = np.stack([np.concatenate(draw(rows[i : i + 1], (100, 200), (0.3, 0.7), 5)) for i in range(len(rows))])
    np.testing.assert_array_equal(together, alone)


@pytest.mark.parametrize("together", [1, 4, 16])
@pytest.mark.parametrize("lengths", [(1000, 333), (3, 64)])
def test_windows_that_are_read_together_follow_each_other(together, lengths):
    weights, rows = (0.75, 0.25), np.arange(BLOCK)
    datasets, windows = draw(rows, lengths, weights, 5, together)
    assert (datasets == 0).sum() == 0.75 * BLOCK
    groups = datasets.reshape(-1, together)
    assert (groups == groups[:, :1]).all()
    for i, length in enumerate(lengths):
        mine, epoch = windows[datasets == i], length // together * together or length
        for start in range(0, len(mine) - epoch, epoch):
            assert len(np.unique(mine[start : start + epoch])) == epoch  # no repetition within an epoch
        if length >= together:
            steps = np.diff(mine[: len(mine) // together * together].reshape(-1, together), axis=1) % length
            assert (steps == 1).all()
            assert len(np.unique(mine)) == length  # what one epoch leaves out, others have


def test_reading_together_one_window_is_the_order_without():
    rows = np.arange(500)
    np.testing.assert_array_equal(draw(rows, (70, 30), (0.5, 0.5), 3), draw(rows, (70, 30), (0.5, 0.5), 3, 1))

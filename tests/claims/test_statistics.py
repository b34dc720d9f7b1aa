"""Intervals against known answers."""

import numpy as np
import pytest
from scipy import stats

from benchmarks.claims.statistics import Interval, differences, mean_interval, pooled_interval, single_network, uninformative, verdict


def test_one_training_is_the_plain_bootstrap():
    """Of n numbers the bootstrap's standard error is sd / sqrt(n), and its interval the normal one."""
    values = np.random.default_rng(0).normal(0.6, 0.3, 400)
    found = mean_interval([values])
    error = values.std() / np.sqrt(400)
    assert found.mean == pytest.approx(values.mean())
    assert found.low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert found.high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)


def test_several_trainings_add_what_they_differ_by():
    """Known variance of a two-stage bootstrap mean: (variance of the S means) / S + the mean within-variance / (S E)."""
    generator = np.random.default_rng(1)
    values = [generator.normal(centre, 0.3, 100) for centre in generator.normal(0.5, 0.1, 8)]
    means = np.array([one.mean() for one in values])
    error = np.sqrt(means.var() / 8 + np.mean([one.var() for one in values]) / (8 * 100))
    found = mean_interval(values)
    assert found.mean == pytest.approx(means.mean())
    assert found.high - found.low == pytest.approx(2 * 1.96 * error, rel=0.05)


def test_two_trainings_that_never_vary():
    """All of the chance is in which training is drawn: both 0, one of each, both 1, with probability 1/4, 1/2, 1/4."""
    assert mean_interval([np.zeros(50), np.ones(50)]) == Interval(0.5, 0.0, 1.0)
    assert mean_interval([np.full(5, 0.3), np.full(5, 0.3)]) == pytest.approx((0.3, 0.3, 0.3))


def test_trainings_of_unequal_length_weigh_the_same():
    assert mean_interval([np.zeros(10), np.ones(1000)]).mean == 0.5


def test_the_same_arguments_give_the_same_interval():
    values = [np.random.default_rng(seed).random(30) for seed in range(3)]
    assert mean_interval(values) == mean_interval(values)
    assert mean_interval(values, seed=1) != mean_interval(values)


def test_pairing_takes_out_what_initial_states_differ_by():
    generator = np.random.default_rng(2)
    hardness = [generator.random(200) for _ in range(3)]
    one = [values + 0.1 + 0.01 * generator.standard_normal(200) for values in hardness]
    paired = mean_interval(differences(one, hardness))
    assert paired.mean == pytest.approx(0.1, abs=0.005)
    assert paired.high - paired.low < 0.01
    shuffled = [generator.permutation(values) for values in hardness]
    unpaired = mean_interval(differences(one, shuffled))
    assert unpaired.high - unpaired.low > 0.04


@pytest.mark.parametrize("values", [[], [np.array([])], [np.ones(3), np.array([])]])
def test_nothing_has_no_mean(values):
    with pytest.raises(ValueError, match="at least one training of at least one episode"):
        mean_interval(values)


def test_what_does_not_pair_is_refused():
    with pytest.raises(ValueError, match="must have the same trainings and episodes"):
        differences([np.ones(3)], [np.ones(4)])
    with pytest.raises(ValueError, match="must have the same trainings and episodes"):
        differences([np.ones(3)], [np.ones(3), np.ones(3)])


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [
        (0.01, 0.10, "better"),
        (-0.04, 0.10, "as good"),
        (-0.05, 0.10, "undecided"),
        (-0.20, 0.10, "undecided"),
        (-0.20, -0.01, "worse"),
        (-0.04, -0.01, "worse by less than the margin"),
    ],
)
def test_verdicts_follow_the_bounds(low, high, said):
    assert verdict(Interval((low + high) / 2, low, high), 0.05) == said


def test_trainings_decide_students_interval():
    """Means 1, 2, 3 and t(2): 2 +- 4.3027 / sqrt(3), whatever the episodes do within, as long as that is less."""
    found = pooled_interval([[np.array([0.0, 2.0]), np.array([1.0, 3.0]), np.array([3.0])]])
    assert found == pytest.approx((2.0, 2.0 - 4.302653 / np.sqrt(3), 2.0 + 4.302653 / np.sqrt(3)))


def test_tasks_pool_with_welchs_degrees_of_freedom():
    """se^2 = (1/3 + 4/2) / 4 = 7/12 on (7/12)^2 / ((1/12)^2 / 2 + (1/2)^2 / 1) = 1.3425 degrees of freedom; t there is 7.1365."""
    groups = [[np.array([x]) for x in means] for means in ([1.0, 2.0, 3.0], [5.0 - np.sqrt(2), 5.0 + np.sqrt(2)])]
    found = pooled_interval(groups)
    assert found.mean == pytest.approx(3.5)
    assert found.high - found.mean == pytest.approx(stats.t.ppf(0.975, 49 / 36.5) * np.sqrt(7 / 12), rel=1e-6)
    assert pooled_interval(groups, 0.99).high > found.high


def test_trainings_that_agree_by_luck_are_no_surer_than_their_episodes():
    """Three of mean 1/2 and n = 50 episodes each: 1/2 +- 1.96 sqrt(n / (4 (n - 1)) / n / 3); of two tasks alike, over sqrt(2)."""
    episodes = [np.tile([0.0, 1.0], 25)] * 3
    half = 1.959964 * np.sqrt(1 / (4 * 49) / 3)
    assert pooled_interval([episodes]) == pytest.approx((0.5, 0.5 - half, 0.5 + half))
    assert pooled_interval([episodes, episodes]).high == pytest.approx(0.5 + half / np.sqrt(2))


def test_one_training_says_nothing_of_another():
    with pytest.raises(ValueError, match="at least two trainings each"):
        pooled_interval([[np.ones(5)]])


@pytest.mark.parametrize(
    ("one", "other", "said"), [(0.0, 0.0, "floor"), (0.09, 0.12, ""), (1.0, 0.98, "ceiling"), (1.0, 0.9, ""), (0.05, 0.9, "")]
)
def test_where_all_fail_or_all_succeed_nothing_is_told(one, other, said):
    assert uninformative(one, other) == said


@pytest.mark.parametrize("trainings", [3, 5])
@pytest.mark.parametrize(("spread", "most"), [(0.03, 0.98), (0.10, 0.97)])
def test_the_verdicts_interval_holds_as_often_as_it_says(trainings, spread, most):
    """Trainings differ by `spread`, 200 episodes by .35: 95 % whatever their number, where the bootstrap's has 75 to 90 %. A little more
    where trainings differ by little, since they then agree by luck and their episodes' interval takes over."""
    generator = np.random.default_rng(4)
    held = 0
    for _ in range(1000):
        found = pooled_interval([[generator.normal(generator.normal(0.5, spread), 0.35, 200) for _ in range(trainings)]])
        held += found.low <= 0.5 <= found.high
    assert 0.93 < held / 1000 < most


def test_a_single_network_has_wilsons_interval():
    """50 of 50: 1 / (1 + z^2 / n)."""
    found = single_network([True] * 50)
    assert found.mean == 1
    assert found.low == pytest.approx(1 / (1 + 1.959964**2 / 50))
    assert found.high == 1


@pytest.mark.parametrize(("trainings", "least", "most"), [(3, 0.72, 0.90), (5, 0.82, 0.93), (20, 0.90, 0.98)])
def test_how_often_the_interval_holds(trainings, least, most):
    """The truth is .5; trainings differ by .05, episodes by .3, 100 each. Nominal 95 %, less with few trainings: known and bounded."""
    generator = np.random.default_rng(3)
    held = 0
    for _ in range(200):
        values = [generator.normal(generator.normal(0.5, 0.05), 0.3, 100) for _ in range(trainings)]
        found = mean_interval(values, draws=300)
        held += found.low <= 0.5 <= found.high
    assert least < held / 200 < most

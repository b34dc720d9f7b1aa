"""What the threshold promises, on episodes that are exchangeable and on those that are not; and the file it comes from."""

import numpy as np
import pytest

from ebt_jax.calibration import Calibration, Rule, episode_scores, episodes_needed, threshold
from ebt_jax.uncertainty import Doubt


def test_false_alarms_are_as_promised_on_exchangeable_episodes():
    """Decisions of one episode are strongly dependent, and their number varies: the promise is of episodes. 4,000 calibrations of 19."""
    draw = np.random.default_rng(0)
    trials, n = 4_000, 19
    level = draw.normal(size=(trials, n + 1))
    length = draw.integers(1, 30, (trials, n + 1))
    scores = level + draw.gumbel(size=level.shape) + np.log(length)
    for risk in (0.05, 0.1, 0.3):
        alarms = np.mean([row[-1] > threshold(row[:-1], risk) for row in scores])
        k = np.ceil((n + 1) * (1 - risk) - 1e-9)
        assert alarms == pytest.approx(1 - k / (n + 1), abs=4 * np.sqrt(risk / trials))
        assert alarms <= risk + 4 * np.sqrt(risk / trials)


def test_the_threshold_per_decision_would_break_the_promise():
    """Why scores are maxima over episodes: calibrated on decisions, one in ten decisions alarms, and most episodes do."""
    draw = np.random.default_rng(1)
    courses = draw.normal(size=(400, 50))
    pooled, whole = threshold(courses[:200].ravel(), 0.1), threshold(courses[:200].max(1), 0.1)
    assert np.mean(courses[200:].max(1) > pooled) > 0.9
    assert np.mean(courses[200:].max(1) > whole) < 0.2


def test_ties_only_lower_the_false_alarms():
    draw = np.random.default_rng(2)
    scores = draw.integers(0, 3, (2_000, 10)).astype(float)
    assert np.mean([row[-1] > threshold(row[:-1], 0.2) for row in scores]) <= 0.2


@pytest.mark.parametrize(("risk", "needed"), [(0.5, 1), (0.3, 3), (0.1, 9), (0.05, 19), (0.01, 99)])
def test_too_few_episodes_are_refused_with_the_number_needed(risk, needed):
    assert episodes_needed(risk) == needed
    assert threshold(np.arange(float(needed)), risk) == needed - 1  # just enough: the largest
    with pytest.raises(ValueError, match=f"at least {needed} episodes, got {needed - 1}"):
        threshold(np.arange(needed - 1.0), risk)


@pytest.mark.parametrize("risk", [0.0, 1.0, -0.1, float("nan")])
def test_a_risk_that_is_none_is_refused(risk):
    with pytest.raises(ValueError, match="risk must lie between 0 and 1"):
        threshold(np.ones(1), risk)


COURSES = [("open", {"gradient_norm": np.array([1.0, 3.0]), "relative_energy": np.array([np.nan, 1.0])})]
COURSES += [("close", {"gradient_norm": np.array([n, 5.0 + n]), "relative_energy": np.array([0.0, 1.0])}) for n in range(9)]


def calibration():
    references = np.arange(24, dtype=np.float32).reshape(2, 4, 3) / 7
    return Calibration("gradient_norm", 4, 0.5, "held out", episode_scores(COURSES), references)


def test_scores_are_maxima_by_task_of_what_was_always_finite():
    assert episode_scores(COURSES) == {
        "open": {"gradient_norm": (3.0,)},
        "close": {"gradient_norm": tuple(5.0 + n for n in range(9)), "relative_energy": (1.0,) * 9},
    }


def test_a_rule_is_of_one_task_or_of_all():
    assert calibration().rule(0.1, "close") == Rule("gradient_norm", 13.0)
    assert calibration().rule(0.2).threshold == 12.0  # k = ceil(11 x 0.8) = 9 of 10
    with pytest.raises(ValueError, match=r"task must be one of \['close', 'open'\], which were calibrated, got 'lift'"):
        calibration().rule(0.1, "lift")
    with pytest.raises(ValueError, match=r"statistic must be one of \['gradient_norm'\], which were calibrated, got 'relative_energy'"):
        calibration().rule(0.1, statistic="relative_energy")
    with pytest.raises(ValueError, match="at least 9 episodes, got 1"):
        calibration().rule(0.1, "open")
    with pytest.raises(ValueError, match=r"at least 9 episodes, got none \(held out\)"):
        calibration()._replace(scores={}).rule(0.1)


def test_a_rule_reads_its_statistic():
    values = np.array([1.0, 2.0, np.nan])
    doubt = Doubt(*(np.zeros(3) for _ in range(4)), relative_energy=values)
    np.testing.assert_array_equal(Rule("relative_energy", 1.0)(doubt), [False, True, True])  # nothing speaks for acting on NaN


def test_it_survives_its_file():
    before, after = calibration(), Calibration.from_json(calibration().to_json())
    assert after[:-1] == before[:-1]
    np.testing.assert_allclose(after.references, before.references, atol=1e-6)
    empty = before._replace(references=np.zeros((0, 4, 3), np.float32))
    assert Calibration.from_json(empty.to_json()).references.shape == (0, 4, 3)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"statistic": "x"}', calibration().to_json().replace('"close"', "1")])
def test_another_file_is_refused(text):
    with pytest.raises(ValueError, match=r"calibration.json must be what .*calibrate. writes"):
        Calibration.from_json(text)

"""AUROC, average precision and risk-coverage in closed form; and the trap of episodes that last longer."""

import json

import numpy as np
import pytest

from ebt_jax.evaluation.doubt import auroc, average_precision, predicts_failure, risk_coverage
from ebt_jax.report.evaluation import write_evaluation_report


def test_auroc_is_the_share_of_pairs_in_order():
    draw = np.random.default_rng(0)
    scores, failed = draw.integers(0, 5, 40).astype(float), draw.random(40) < 0.4
    pairs = [(s > t) + 0.5 * (s == t) for s in scores[failed] for t in scores[~failed]]
    assert auroc(scores, failed) == pytest.approx(np.mean(pairs))
    assert np.isnan(auroc(scores, np.zeros(40, bool)))


def test_average_precision_is_the_mean_precision_at_each_find():
    scores, positive = np.array([9.0, 8.0, 7.0, 6.0]), np.array([True, False, True, False])
    assert average_precision(scores, positive) == pytest.approx((1 + 2 / 3) / 2)
    assert average_precision(np.zeros(4), positive) == pytest.approx(0.5)  # all alike: the share of positives
    assert np.isnan(average_precision(scores, np.zeros(4, bool)))


def test_a_perfect_order_acts_in_every_success_first():
    curve = risk_coverage(np.array([0.1, 0.2, 0.3, 0.4]), np.array([False, False, True, True]))
    np.testing.assert_allclose(curve.coverage, [0.25, 0.5, 0.75, 1.0])
    np.testing.assert_allclose(curve.risk, [0, 0, 1 / 3, 1 / 2])


def test_equal_scores_say_nothing():
    failed = np.array([True, False, False, True, False])
    curve = risk_coverage(np.ones(5), failed)
    np.testing.assert_allclose(curve.risk, 0.4)
    assert curve.area == pytest.approx(0.4)


def test_what_only_measures_how_long_an_episode_was_is_seen_through():
    """Noise alone: the maximum over a long failure exceeds that over a short success, the first decisions do not."""
    draw = np.random.default_rng(1)
    failed = np.arange(400) % 2 == 0
    courses = [{"noise": draw.normal(size=40 if fails else 5).tolist(), "never": [float("nan")] * 5} for fails in failed]
    found = predicts_failure(courses, failed)
    assert (found["decisions"], found["failure_rate"]) == (5, 0.5)
    assert set(found["statistics"]) == {"noise"}
    assert found["statistics"]["noise"]["auroc"] > 0.85
    assert found["statistics"]["noise"]["auroc_beginning"] == pytest.approx(0.5, abs=0.09)


def test_the_report_shows_the_curve_and_the_beginnings_number(tmp_path):
    failed = np.array([True, False, True, False, False])
    doubt = predicts_failure([{"action_spread": [0.1, 0.9 if fails else 0.2]} for fails in failed], failed)
    task = {"episodes": 5, "successes": 3, "success_rate": 0.6, "wilson_95": [0.2, 0.9], "mean_return": 0.0, "episode": [], "doubt": doubt}
    (tmp_path / "results.json").write_text(json.dumps({"suite": "metaworld", "tasks": {"reach-v3": task}, "mean_success_rate": 0.6}))
    page = write_evaluation_report(tmp_path).read_text()
    assert "Doubt in reach-v3" in page
    assert "acting in all episodes that could go on, 40 % failures" in page
    assert "first 2 decisions" in page

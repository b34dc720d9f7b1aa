"""Does doubt predict failure? AUROC, and what success rate remains if the most doubtful episodes are left out.

An episode's number is its highest over decisions. A failure runs to the step limit, a success ends early: more decisions have a higher
maximum for that reason alone. So beside the whole episode stands its beginning, as many decisions as the shortest episode has.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

Course = Mapping[str, Sequence[float]]
"""statistic -> its value at each decision of an episode."""


class RiskCoverage(NamedTuple):
    """Acting only where doubt is least.

    Attributes:
      coverage: share of episodes acted in, ascending to 1.
      risk: share of failures among those; equal scores are acted in together, so their mean stands for each.
    """

    coverage: Float[np.ndarray, " n"]
    risk: Float[np.ndarray, " n"]

    @property
    def area(self) -> float:
        """Mean risk over coverages; without information the overall failure rate."""
        return float(np.mean(self.risk))


def auroc(scores: Float[np.ndarray, " n"], failed: Bool[np.ndarray, " n"]) -> float:
    """P(a failure's score exceeds a success's), ties half: 0.5 is chance; NaN without a failure or without a success."""
    failures, successes = scores[failed], scores[~failed]
    if not len(failures) or not len(successes):
        return float("nan")
    ordered = np.sort(successes)
    below = np.searchsorted(ordered, failures, side="left") + np.searchsorted(ordered, failures, side="right")
    return float(np.mean(below) / (2 * len(successes)))


def average_precision(scores: Float[np.ndarray, " n"], positive: Bool[np.ndarray, " n"]) -> float:
    """Mean over positives of the precision among all that score at least as high; NaN without any. Chance: the share of positives."""
    if not positive.any():
        return float("nan")
    every, found = np.sort(scores), np.sort(scores[positive])
    above = len(every) - np.searchsorted(every, found, side="left")
    positives_above = len(found) - np.searchsorted(found, found, side="left")
    return float(np.mean(positives_above / above))


def risk_coverage(scores: Float[np.ndarray, " n"], failed: Bool[np.ndarray, " n"]) -> RiskCoverage:
    """The curve over all thresholds."""
    order = np.argsort(scores, kind="stable")
    values, which = np.unique(scores[order], return_inverse=True)
    rate = np.bincount(which, weights=failed[order], minlength=len(values)) / np.bincount(which, minlength=len(values))
    count = np.arange(1, len(scores) + 1)
    return RiskCoverage(count / len(scores), np.cumsum(rate[which]) / count)


def predicts_failure(courses: Sequence[Course], failed: Bool[np.ndarray, " n"]) -> dict[str, Any]:
    """statistic -> {"auroc", "auroc_beginning", "aurc", "coverage", "risk"}; statistics that are not finite throughout are left out.

    "aurc" and the curve are of the beginnings, as is what `decisions` says of their length.
    """
    shortest = min(len(values) for course in courses for values in course.values())
    found: dict[str, Any] = {}
    for name in courses[0]:
        whole, beginning = (np.array([np.max(course[name][:end]) for course in courses]) for end in (None, shortest))
        if np.isfinite(whole).all():
            curve = risk_coverage(beginning, failed)
            found[name] = {
                "auroc": _number(auroc(whole, failed)),
                "auroc_beginning": _number(auroc(beginning, failed)),
                "aurc": curve.area,
                "coverage": curve.coverage.tolist(),
                "risk": curve.risk.tolist(),
            }
    return {"decisions": shortest, "failure_rate": float(np.mean(failed)), "statistics": found}


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if np.isnan(value) else value

"""Does the descent itself know? Its numbers at an episode's first decision, against how the episode ended and against noisy sensors.

A failure runs longer than a success, so whatever is taken over a whole episode knows its length: the first decision is the fair one.

An AUROC's standard error over episodes is DeLong's (Biometrics 44, 1988): with V_i the share of the m others' episodes that episode i is
ranked right against, var(V over failures) / their number + var(V over successes) / theirs.
"""

import collections
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from benchmarks.claims.cells import Cell
from benchmarks.claims.claims import Place
from benchmarks.claims.finished import Finished, column, has_column, planned, trainings
from benchmarks.claims.settings import Settings
from benchmarks.claims.statistics import Interval, normal_half, pooled_interval
from benchmarks.claims.tables import row
from ebt_jax.evaluation.doubt import auroc, risk_coverage

WORDS = {"energy": "energy", "gradient_norm": "norm of its gradient before the last step", "energy_drop": "drop of the energy"}
"""What a descent says -> its name in words."""
COIN = 0.5
"""AUROC of a statistic that says nothing."""
ENOUGH = 0.9
"""An episode with a lower score counts as failed: on PushT 85 % of coverage, elsewhere no success."""
MIXED = 10
"""Failures and successes that a training must have to say anything of failure."""


def foresight_table(settings: Settings, finished: Finished, suite: str, budget: int) -> str:
    """Of every contestant with an energy, its first sampler: AUROC of failure and of noise, risk of the surer half; "" where none is there.

    A training with fewer than ten failures or ten successes says nothing of failure and is left out of those columns.
    """
    lines = [
        row(
            "contestant, statistic",
            "failure, AUROC",
            "each seed",
            "failures, all",
            "of the surer half",
            "noisy sensors, AUROC",
            "each seed",
        ),
        row(*["---"] * 7),
    ]
    rows = []
    for name, first, statistic, trees in _told_by(settings, finished, suite, budget):
        mixed = _mixed(settings, trees, first, statistic)
        risks = [float(np.mean(which)) for _, which in mixed]
        surer = [_surer_half(values, which) for values, which in mixed]
        failure = _told([auroc(*one) for one in mixed])
        rows.append(row(f"{name}, {statistic}", *failure, _mean(risks), _mean(surer), *_told(_shifts(trees, first, statistic))))
    return "\n".join([*lines, *rows]) if rows else ""


class Foretold(NamedTuple):
    """AUROC of failure by one statistic at one place.

    Attributes:
      chances, errors: of every training that has failures and successes enough, and its standard error over episodes.
      trained, planned: how many trainings there are, and how many there will be.
    """

    chances: list[float]
    errors: list[float]
    trained: int
    planned: int

    def interval(self, looked_at: int = 1) -> Interval | None:
        """The wider of Student's over trainings and the normal one over episodes, as `pooled_interval`; None where there are not two.

        Args:
          looked_at: how many of its kind hold together with 95 % (Bonferroni).
        """
        if len(self.chances) < 2:
            return None
        confidence = 1 - 0.05 / looked_at
        students = pooled_interval([[np.array([one]) for one in self.chances]], confidence)
        half = max(students.high - students.mean, normal_half(float(np.linalg.norm(self.errors)) / len(self.errors), confidence))
        return Interval(students.mean, students.mean - half, students.mean + half)

    def said(self, looked_at: int = 1) -> str:
        """ "better" than a coin, "worse", or neither; "none" where trainings are missing, or fail or succeed too seldom."""
        interval = self.interval(looked_at)
        if interval is None or len(self.chances) < self.planned:
            return "none"
        return "better" if interval.low > COIN else "worse" if interval.high < COIN else "undecided"


def foretold(settings: Settings, finished: Finished, where: Iterable[Place]) -> dict[tuple[str, str], dict[Place, Foretold]]:
    """(contestant, statistic) -> place -> what it foretells; only what is there."""
    found: dict[tuple[str, str], dict[Place, Foretold]] = collections.defaultdict(dict)
    for place in where:
        for name, first, statistic, trees in _told_by(settings, finished, *place):
            if mixed := _mixed(settings, trees, first, statistic):
                values, errors = [auroc(*one) for one in mixed], [auroc_error(*one) for one in mixed]
                found[name, statistic][place] = Foretold(values, errors, len(trees), planned(finished, *place))
    return dict(found)


def noticed(settings: Settings, finished: Finished, where: Iterable[Place]) -> list[float]:
    """AUROC of noisy sensors, the mean over trainings, of every contestant's every statistic at every place."""
    told = (one for place in where for one in _told_by(settings, finished, *place))
    return [float(np.mean(shifts)) for _, first, statistic, trees in told if (shifts := _shifts(trees, first, statistic))]


def surer_half(settings: Settings, finished: Finished, where: Iterable[Place]) -> dict[tuple[str, str], dict[Place, str]]:
    """(contestant, statistic) -> place -> "0.30, surer half 0.28": shares of failures, means over the trainings that are mixed."""
    found: dict[tuple[str, str], dict[Place, str]] = collections.defaultdict(dict)
    for place in where:
        for name, first, statistic, trees in _told_by(settings, finished, *place):
            if mixed := _mixed(settings, trees, first, statistic):
                every, surer = [float(np.mean(which)) for _, which in mixed], [_surer_half(values, which) for values, which in mixed]
                counted = of_planned(len(mixed), len(trees), planned(finished, *place))
                found[name, statistic][place] = f"{_mean(every)}, surer half {_mean(surer)}{counted}"
    return dict(found)


def _told_by(
    settings: Settings, finished: Finished, suite: str, budget: int
) -> Iterator[tuple[str, str, str, list[tuple[Cell, dict[str, Any]]]]]:
    """Contestant, its first sampler, statistic, and the finished trainings that have it."""
    for name, contestant in settings.contestants.items():
        first = contestant.first
        mine = trainings(finished, suite, budget, name, {first: contestant.samplers[first]})
        for statistic in WORDS:
            trees = [(cell, tree) for cell, tree in mine if has_column(tree, first, f"{statistic}_first")]
            if trees:
                yield name, first, statistic, trees


def _mixed(
    settings: Settings, trees: Sequence[tuple[Cell, Mapping[str, Any]]], sampler: str, statistic: str
) -> list[tuple[Float[np.ndarray, " e"], Bool[np.ndarray, " e"]]]:
    """(statistic, failed) of the episodes of those trainings."""
    told = [
        (_numbers(tree, sampler, f"{statistic}_first"), column(settings, cell, tree, sampler, "score") < ENOUGH) for cell, tree in trees
    ]
    return [(values, which) for values, which in told if MIXED <= which.sum() <= len(which) - MIXED]


def _shifts(trees: Sequence[tuple[Cell, Mapping[str, Any]]], sampler: str, statistic: str) -> list[float]:
    """AUROC of noisy sensors, of every training that was asked with them."""
    key, noisy = f"{statistic}_first", f"{sampler}, noisy"
    pairs = [(_numbers(tree, sampler, key), _numbers(tree, noisy, key)) for _, tree in trees if has_column(tree, noisy, key)]
    return [auroc(np.concatenate([plain, shifted]), np.repeat([False, True], [len(plain), len(shifted)])) for plain, shifted in pairs]


def _numbers(tree: Mapping[str, Any], sampler: str, key: str) -> Float[np.ndarray, " e"]:
    """A number that was not finite counts as the most doubtful."""
    values = tree["samplers"][sampler]["episodes"][key]
    return np.array([np.inf if value is None else value for value in values], float)


def auroc_error(values: Float[np.ndarray, " e"], failed: Bool[np.ndarray, " e"]) -> float:
    """Standard error of `auroc` over episodes (DeLong)."""
    above = (values[failed][:, None] > values[~failed]) + 0.5 * (values[failed][:, None] == values[~failed])
    return float(np.sqrt(sum(above.mean(axis=axis).var(ddof=1) / above.shape[1 - axis] for axis in (0, 1))))


def of_planned(mixed: int, trained: int, wanted: int) -> str:
    """ " (1 of 5 trainings)" where some are missing, " (4 of 5 trainings fail and succeed enough)" where all are there."""
    if mixed == wanted:
        return ""
    return f" ({mixed} of {wanted} trainings{' fail and succeed enough' if trained == wanted else ''})"


def _surer_half(values: Float[np.ndarray, " e"], failed: Bool[np.ndarray, " e"]) -> float:
    """Share of failures in the half of the episodes whose statistic is lowest."""
    curve = risk_coverage(values, failed)
    return float(curve.risk[len(failed) // 2 - 1])


def _mean(values: list[float]) -> str:
    return f"{np.mean(values):.2f}" if values else ""


def _told(values: list[float]) -> tuple[str, str]:
    """The mean, and every seed."""
    return _mean(values), ", ".join(f"{value:.2f}" for value in values)

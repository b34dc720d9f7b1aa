"""Two answers to the same initial states, training by training: how far apart they are, and what may be said of it."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Num

from benchmarks.claims.cells import Cell, initial_states
from benchmarks.claims.finished import Finished, column, planned, trainings
from benchmarks.claims.settings import Answer, Sampler, Settings
from benchmarks.claims.statistics import Interval, Values, differences, pooled_interval, uninformative, verdict


class Paired(NamedTuple):
    """The scores of a subject and of a reference, an array for each training that both have, and how many trainings were planned."""

    subject: Values
    reference: Values
    planned: int

    @property
    def differences(self) -> list[Float[np.ndarray, " e"]]:
        return differences(self.subject, self.reference)

    @property
    def whole(self) -> bool:
        """Whether all planned trainings are there, and more than one, which says nothing of another."""
        return len(self.subject) == self.planned > 1

    @property
    def interval(self) -> Interval | None:
        """Student's, over trainings; None where there are not two."""
        return pooled_interval([self.differences]) if len(self.subject) > 1 else None

    @property
    def uninformative(self) -> str:
        """ "floor" or "ceiling" where the mean scores cannot tell the two apart."""
        return uninformative(grand_mean(self.subject), grand_mean(self.reference))

    @property
    def judged(self) -> bool:
        """Whether there is a verdict."""
        return self.whole and not self.uninformative

    def said(self, margin: float) -> str:
        """The verdict, or why there is none."""
        if self.interval is None or not self.whole:
            return f"none: {len(self.subject)} of {self.planned} seeds"
        why = self.uninformative
        return f"none: {why}" if why else verdict(self.interval, margin)


def pair(
    settings: Settings, finished: Finished, scale: str, suite: str, budget: int, subject: Answer, reference: Answer, measure: str = "score"
) -> Paired:
    """Of the trainings that both have; an answer's sampler may be one under a condition, as "2, pushed"."""
    answers = (subject, reference)
    found: list[dict[int, tuple[Cell, dict[str, Any]]]] = []
    for answer in answers:
        mine = trainings(finished, suite, budget, answer.contestant, {answer.sampler: _sampler(settings, scale, suite, answer)})
        found.append({cell.seed: (cell, tree) for cell, tree in mine})
    seeds = sorted(set(found[0]) & set(found[1]))
    one, other = (
        [_values(settings, *cells[seed], answer, measure) for seed in seeds] for cells, answer in zip(found, answers, strict=True)
    )
    return Paired(one, other, planned(finished, suite, budget))


def pool(pairs: Mapping[str, Paired], margin: float, confidence: float = 0.95) -> tuple[Interval | None, str]:
    """Over tasks: the interval, and the verdict or why there is none. Tasks that nobody, or everybody, can do are left out and named."""
    if not all(found.whole for found in pairs.values()):
        return None, "none: cells are missing"
    why = {suite: found.uninformative for suite, found in pairs.items()}
    telling = [found.differences for suite, found in pairs.items() if not why[suite]]
    without = ", ".join(f"{suite}: {reason}" for suite, reason in why.items() if reason)
    interval = pooled_interval(telling, confidence) if telling else None
    return interval, (verdict(interval, margin) if interval else "none") + (f"; without {without}" if without else "")


def grand_mean(values: Values) -> float:
    """Of the trainings' means."""
    return float(np.mean([one.mean() for one in values]))


def _sampler(settings: Settings, scale: str, suite: str, answer: Answer) -> Sampler:
    contestant = settings.contestants[answer.contestant]
    return {**contestant.samplers, **contestant.disturbed(settings.scale(scale).suites[suite].conditions)}[answer.sampler]


def _values(settings: Settings, cell: Cell, tree: dict[str, Any], answer: Answer, measure: str) -> Num[np.ndarray, " e"]:
    """Raises ValueError where the cell did not start from the states that its seed has."""
    states = column(settings, cell, tree, answer.sampler, "state").tolist()
    if states != initial_states(settings, cell):
        raise ValueError(f"{cell} must start from the initial states of its seed, got others. Run it again.")
    return column(settings, cell, tree, answer.sampler, measure)

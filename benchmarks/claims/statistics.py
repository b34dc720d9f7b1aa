"""How sure a mean over trainings and episodes is, and whether one contestant is as good as another.

Values come as one array for each training (seed), one number for each of its episodes. Two sources of chance, one inside the other:
another training would give another policy, other initial states other episodes. The bootstrap draws both, trainings first:

    repeat   draw S trainings with replacement, from each of them E_s of its episodes with replacement; take the mean of the S means

and reads the interval off the quantiles of the means (Efron & Tibshirani 1993, the percentile interval; nested as in Davison & Hinkley
1997, 3.8). With S trainings it is narrow by about sqrt((S - 1) / S) in what comes from training (`tests/claims/test_statistics.py`
measures how often it holds), which is why every seed is shown beside every interval, and why no verdict is taken from it. Verdicts
are of Student's t interval on the S trainings' mean differences, which holds as often as it says however few they are, and is as wide as
that takes; where trainings agree by luck, so that it is narrower than what their episodes alone leave open, the latter's takes its place.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, Num
from scipy import stats

from ebt_jax.evaluation.statistics import wilson_interval

DRAWS = 10_000

Values = Sequence[Num[np.ndarray, " e"]]


class Interval(NamedTuple):
    """A mean and the bounds that hold 95 %."""

    mean: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{short(self.mean)} [{short(self.low)}, {short(self.high)}]"


FLOOR, CEILING = 0.1, 0.97
"""Mean scores between which a difference says something: where nobody can do a task, all are as good as each other."""


def mean_interval(values: Values, draws: int = DRAWS, seed: int = 0) -> Interval:
    """The mean of the trainings' means, with the hierarchical bootstrap's 95 % interval; a function of its arguments.

    With one training the interval speaks of its episodes alone. Raises ValueError where a training has no episodes, or none was given.
    """
    if not values or any(len(one) == 0 for one in values):
        raise ValueError(f"values must be at least one training of at least one episode, got lengths {[len(one) for one in values]}.")
    means = _bootstrap(values, draws, seed)
    low, high = np.quantile(means, (0.025, 0.975))
    return Interval(float(np.mean([np.mean(one) for one in values])), float(low), float(high))


def pooled_interval(groups: Sequence[Values], confidence: float = 0.95) -> Interval:
    """The mean over groups (tasks) of the mean over trainings, with the wider of two intervals around it.

        se^2 = sum_g s_g^2 / S_g / G^2,               s_g the standard deviation of the S_g trainings' means: Student's t
        se^2 = sum_gs v_gs / E_gs / S_g^2 / G^2,      v_gs the variance of the E_gs episodes of training s: normal

    Student's has the degrees of freedom of Welch and Satterthwaite: S - 1 for one group. Groups are the ones that are meant, not a sample
    of more. Trainings of one episode each have the first alone. Raises ValueError for a group of fewer than two trainings, which say
    nothing of another.
    """
    means = [np.array([np.mean(one) for one in values]) for values in groups]
    if not means or any(len(one) < 2 for one in means):
        raise ValueError(f"groups must be at least two trainings each, got {[len(one) for one in means]}.")
    variances = np.array([one.var(ddof=1) / len(one) for one in means]) / len(means) ** 2
    centre, variance = float(np.mean([one.mean() for one in means])), float(variances.sum())
    freedom = variance**2 / np.sum(variances**2 / [len(one) - 1 for one in means]) if variance else 1.0
    half = max(float(stats.t.ppf((1 + confidence) / 2, freedom) * np.sqrt(variance)), normal_half(_episodes_error(groups), confidence))
    return Interval(centre, centre - half, centre + half)


def normal_half(error: float, confidence: float) -> float:
    """Half the width of the normal interval of this standard error."""
    return float(stats.norm.ppf((1 + confidence) / 2) * error)


def _episodes_error(groups: Sequence[Values]) -> float:
    """Standard error of the mean over groups of the mean over trainings, by what episodes of one training differ by."""
    varying = [(one, len(values)) for values in groups for one in values if len(one) > 1]
    return float(np.sqrt(sum(np.var(one, ddof=1) / len(one) / trainings**2 for one, trainings in varying))) / len(groups)


def differences(subject: Values, reference: Values) -> list[Float[np.ndarray, " e"]]:
    """subject - reference, episode by episode: training s of one beside training s of the other, from the same states.

    Raises ValueError where they do not pair.
    """
    lengths = [len(one) for one in subject], [len(one) for one in reference]
    if lengths[0] != lengths[1]:
        raise ValueError(f"subject and reference must have the same trainings and episodes, got episodes {lengths[0]} and {lengths[1]}.")
    return [np.asarray(one, float) - np.asarray(other, float) for one, other in zip(subject, reference, strict=True)]


def uninformative(subject: float, reference: float) -> str:
    """Why two mean scores cannot tell contestants apart, "floor" or "ceiling"; "" where they can."""
    if max(subject, reference) < FLOOR:
        return "floor"
    return "ceiling" if min(subject, reference) > CEILING else ""


def verdict(difference: Interval, margin: float) -> str:
    """What a paired difference in score says: "better" (above 0), "as good" (above -margin), "worse" (below 0), else "undecided".

    "As good" is non-inferiority and is told of the lower bound alone; one that also lies below 0 altogether is "worse by less than the
    margin".
    """
    if difference.low > 0:
        return "better"
    if difference.low > -margin:
        return "as good" if difference.high >= 0 else "worse by less than the margin"
    return "worse" if difference.high < 0 else "undecided"


def single_network(successes: Sequence[bool | int]) -> Interval:
    """The success rate of one network with Wilson's interval: of its initial states, silent about another training."""
    count = int(np.sum(successes))
    return Interval(count / len(successes), *wilson_interval(count, len(successes)))


def short(value: float) -> str:
    """A difference in two digits, or three where two would hide on which side of 0 it lies."""
    text = f"{value:.2f}" if abs(value) >= 0.005 else f"{value:.3f}"
    return "0.00" if float(text) == 0 else text


def _bootstrap(values: Values, draws: int, seed: int) -> Float[np.ndarray, " draws"]:
    """Means of `draws` resamplings."""
    generator = np.random.default_rng(seed)
    trainings = len(values)
    chosen = generator.integers(trainings, size=(draws, trainings))
    means = np.empty((draws, trainings))
    for number, one in enumerate(values):
        places = np.nonzero(chosen == number)
        episodes = generator.integers(len(one), size=(len(places[0]), len(one)))
        means[places] = np.asarray(one, float)[episodes].mean(axis=1)
    return means.mean(axis=1)

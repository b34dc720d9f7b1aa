"""Split conformal calibration: how high a statistic rises in an episode that is as it should be, so that higher means something.

An episode's score is s = max over its decisions of one statistic: episodes are exchangeable, the decisions inside them are not. From the
scores of n episodes that the policy did not learn from, in ascending order s_(1) <= .. <= s_(n), and a risk,

    threshold = s_(k),     k = ceil((n + 1) (1 - risk))

If a new episode is exchangeable with those n, P(its score ever exceeds the threshold) <= risk, over the draw of all n + 1 (Vovk et al.
2005; Lei et al. 2018), whatever the statistic, its distribution or the policy; without ties it is at least risk - 1 / (n + 1). That is a
rate of false alarms, over calibrations too. It says nothing of how many failures raise the alarm, nor of episodes of another kind.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Float

DEFAULT_STATISTIC = "action_spread"

Scores = Mapping[str, Mapping[str, tuple[float, ...]]]
"""task -> statistic -> one score an episode, ascending."""


class Rule(NamedTuple):
    """Abstain where `statistic` exceeds `threshold`; see this module for what that promises."""

    statistic: str
    threshold: float

    def __call__(self, doubt: Any) -> Bool[np.ndarray, " b"]:
        """Which rows of a `Doubt` are not within the threshold: where a statistic is NaN nothing speaks for acting."""
        return ~(np.asarray(getattr(doubt, self.statistic)) <= self.threshold)


class DoubtSettings(NamedTuple):
    """With what the statistics of a `Doubt` are taken; with other settings they are other numbers, which no threshold knows.

    Attributes:
      num_starts: descents of each observation.
      references: chunks that `relative_energy` compares with, robot units; r = 0 leaves it NaN.
      temperature: of `relative_energy`.
    """

    num_starts: int
    references: Float[np.ndarray, "r h a"]
    temperature: float

    @property
    def references_sha256(self) -> str:
        """The hash of the chunks' shape and float32 numbers; "" for none."""
        chunks = np.ascontiguousarray(self.references, np.float32)
        return hashlib.sha256(f"{chunks.shape}".encode() + chunks.tobytes()).hexdigest() if len(chunks) else ""

    def summary(self) -> dict[str, Any]:
        """What results.json says of them."""
        return {"num_starts": self.num_starts, "temperature": self.temperature, "references_sha256": self.references_sha256}


class Calibration(NamedTuple):
    """What calibration.json holds.

    Attributes:
      statistic: the one that `rule` goes by unless told otherwise.
      num_starts, temperature: with which the statistics were taken, and must be taken again.
      episodes: which episodes these were, in words.
      scores: see `Scores`; all numbers are finite.
      references: chunks of the training data in robot units, against which `relative_energy` is; r = 0 where none were kept.
    """

    statistic: str
    num_starts: int
    temperature: float
    episodes: str
    scores: Scores
    references: Float[np.ndarray, "r h a"]

    @property
    def doubt_settings(self) -> DoubtSettings:
        """With what the statistics must be taken."""
        return DoubtSettings(self.num_starts, self.references, self.temperature)

    def rule(self, risk: float, task: str | None = None, statistic: str | None = None) -> Rule:
        """The threshold of this module for one task, or for episodes of all tasks mixed as they were in the calibration.

        Raises ValueError for a risk outside (0, 1), an unknown task or statistic, and too few episodes, naming how many are needed.
        """
        if not self.scores:
            raise ValueError(f"a calibration must rest on at least {episodes_needed(risk)} episodes, got none ({self.episodes}).")
        statistic = statistic or self.statistic
        if task is not None and task not in self.scores:
            raise ValueError(f"task must be one of {sorted(self.scores)}, which were calibrated, got {task!r}.")
        groups = [self.scores[task]] if task is not None else list(self.scores.values())
        known = sorted(set.intersection(*(set(group) for group in groups)))
        if statistic not in known:
            raise ValueError(f"statistic must be one of {known}, which were calibrated, got {statistic!r}.")
        return Rule(statistic, threshold(np.array([score for group in groups for score in group[statistic]], np.float64), risk))

    def to_json(self) -> str:
        tree = self._asdict() | {"references": np.round(np.asarray(self.references, np.float64), 7).tolist()}
        return json.dumps(tree | {"references_shape": list(self.references.shape)})

    @classmethod
    def from_json(cls, text: str) -> "Calibration":
        """Raises ValueError for text that is no calibration."""
        try:
            tree = json.loads(text)
            references = np.array(tree["references"], np.float32).reshape(tree["references_shape"])
            scores = {task: {name: tuple(values) for name, values in group.items()} for task, group in tree["scores"].items()}
            numbers = int(tree["num_starts"]), float(tree["temperature"])
            return cls(str(tree["statistic"]), *numbers, str(tree["episodes"]), scores, references)
        except (KeyError, TypeError, AttributeError, ValueError) as error:
            raise ValueError(f"calibration.json must be what `python -m ebt_jax.calibrate` writes, got a fault at {error}.") from error


def threshold(scores: Float[np.ndarray, " n"], risk: float) -> float:
    """s_(k) of this module. Raises ValueError for a risk outside (0, 1), and for fewer than `episodes_needed(risk)` scores."""
    check_enough(risk, len(scores))
    k = math.ceil(round((len(scores) + 1) * (1 - risk), 9))
    return float(np.sort(scores)[k - 1])


def check_enough(risk: float, count: int) -> None:
    """Raises ValueError for a risk outside (0, 1), and for fewer than `episodes_needed(risk)` episodes."""
    needed = episodes_needed(risk)
    if count < needed:
        raise ValueError(f"a risk of {risk:g} must rest on at least {needed} episodes, got {count}. Calibrate on more, or take more risk.")


def episodes_needed(risk: float) -> int:
    """The least n with ceil((n + 1) (1 - risk)) <= n: about 1 / risk - 1. Raises ValueError for a risk outside (0, 1)."""
    if not 0 < risk < 1:
        raise ValueError(f"risk must lie between 0 and 1, got {risk}.")
    return max(1, math.ceil(round(1 / risk - 1, 9)))


def episode_scores(episodes: Sequence[tuple[str, Mapping[str, Float[np.ndarray, " n"]]]]) -> Scores:
    """(task, statistic -> value at each decision) of every episode -> its maxima, task by task.

    A statistic that was not finite at every decision of an episode is left out for that episode's task.
    """
    groups: dict[str, list[Mapping[str, Float[np.ndarray, " n"]]]] = {}
    for task, values in episodes:
        groups.setdefault(task, []).append(values)
    return {
        task: {
            name: tuple(sorted(float(np.max(values[name])) for values in group))
            for name in group[0]
            if all(len(values.get(name, ())) and np.isfinite(values[name]).all() for values in group)
        }
        for task, group in groups.items()
    }

"""settings.json, checked: what is compared, on what, for how long. Confirmation runs from a committed copy of that file and no other."""

import dataclasses
import hashlib
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from ebt_jax import simulators
from ebt_jax.data.pusht import published_episodes
from ebt_jax.evaluation.rollouts import Asking
from ebt_jax.simulators.disturbance import UNDISTURBED, Disturbance
from ebt_jax.stopping import Stopping

FILE = pathlib.Path(__file__).with_name("settings.json")

PHASES = ("development", "confirmation")
STATES = ("fresh", "published")
BEST = 5
"""Checkpoints whose mean score published Meta-World tables show (DP3, arXiv 2403.03954)."""


@dataclasses.dataclass(frozen=True)
class Suite:
    """One task, or several for one policy that is told in words which.

    Attributes:
      simulator, tasks: as `ebt_jax.simulators` names them.
      difficulty: in words, for tables.
      phases: where it is run. One phase only, unless its simulator has no other task.
      budgets: core-minutes; each is a training of its own, with its own whole schedule.
      seeds: trainings at each budget.
      episodes: phase -> how many of each task, of each sampler of each training.
      config: of data and network, merged over the scale's.
      conditions: name -> what goes wrong; each contestant's first sampler is asked under every one, too.
      demonstrations: successful episodes of each task that a scripted expert shows; of people's, how many of them, 0 for all.
      checkpoints: of a training that are evaluated, evenly spaced; the last one counts, and beside it published tables count the mean
        of the `BEST` best.
      states: initial states: "fresh", every training its own; "published", those of the literature, the same for all trainings.
    """

    simulator: str
    tasks: tuple[str, ...]
    difficulty: str
    phases: tuple[str, ...]
    budgets: tuple[int, ...]
    seeds: int
    episodes: Mapping[str, int]
    config: Mapping[str, Any]
    conditions: Mapping[str, Disturbance] = dataclasses.field(default_factory=dict)
    demonstrations: int = 0
    states: str = "fresh"
    checkpoints: int = 1

    @property
    def task(self) -> str:
        """In words."""
        return ", ".join(self.tasks)

    @property
    def shown_by_expert(self) -> bool:
        """Whether a scripted expert demonstrates, and not people."""
        return self.simulator in simulators.with_experts()

    @property
    def cameras(self) -> tuple[str, ...]:
        """What the policy sees beside the state."""
        return tuple(self.config.get("model", {}).get("cameras", ()))

    def __post_init__(self) -> None:
        for name in ("tasks", "phases", "budgets"):
            object.__setattr__(self, name, tuple(getattr(self, name)))
        known = simulators.tasks(self.simulator)
        if not self.tasks or set(self.tasks) - set(known):
            raise ValueError(f"task must be one of {', '.join(known)}, or several, got {self.task!r}.")
        if self.states not in STATES:
            raise ValueError(f"states of {self.task!r} must be one of {STATES}, got {self.states!r}.")
        unknown = sorted(set(self.phases) - set(PHASES))
        if unknown or not self.phases:
            raise ValueError(f"phases of {self.task!r} must be among {PHASES}, got {list(self.phases)}.")
        if len(self.phases) > 1 and len(known) > 1:
            raise ValueError(
                f"task {self.task!r} must belong to one phase, got {list(self.phases)}: what was tuned on cannot confirm. "
                f"Its simulator has {len(known)} tasks to choose from."
            )
        if not self.budgets or min(self.budgets) < 1 or list(self.budgets) != sorted(set(self.budgets)):
            raise ValueError(f"budgets of {self.task!r} must be rising and at least 1 core-minute, got {list(self.budgets)}.")
        if self.seeds < 1:
            raise ValueError(f"seeds of {self.task!r} must be at least 1, got {self.seeds}.")
        if self.checkpoints != 1 and self.checkpoints < BEST:
            raise ValueError(f"checkpoints of {self.task!r} must be 1 or at least {BEST}, got {self.checkpoints}.")
        if self.demonstrations < 0:
            raise ValueError(f"demonstrations of {self.task!r} must be at least 0, got {self.demonstrations}.")
        if self.demonstrations and not self.shown_by_expert and self.demonstrations != len(published_episodes()):
            raise ValueError(
                f"demonstrations of {self.task!r}, which people showed, must be 0 (all) or {len(published_episodes())}, those that "
                f"published policies saw, got {self.demonstrations}."
            )
        if set(self.episodes) != set(self.phases) or min(self.episodes.values()) < 1:
            raise ValueError(f"episodes of {self.task!r} must be at least 1 in each of {list(self.phases)}, got {dict(self.episodes)}.")


@dataclasses.dataclass(frozen=True)
class Sampler:
    """How a trained policy is asked.

    Attributes:
      num_steps: of the sampler; the most of them where there is a rule for stopping.
      change: key -> value, in the configuration that the method is made from; of what acts alone, as the size of a step.
      disturbance: what goes wrong meanwhile.
      stopping: the rule by which each answer rests by itself, without its cap; {} takes every step.
    """

    num_steps: int
    change: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    disturbance: Disturbance = UNDISTURBED
    stopping: Mapping[str, float] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.num_steps < 1:
            raise ValueError(f"num_steps of a sampler must be at least 1, got {self.num_steps}.")
        if self.stopping:
            Stopping(self.num_steps, **self.stopping)

    @property
    def asking(self) -> Asking:
        """For `ebt_jax.evaluation.rollouts.rollout`."""
        return Asking(stopping=Stopping(self.num_steps, **self.stopping)) if self.stopping else Asking(self.num_steps)


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Every number of steps with every value of one setting.

    Attributes:
      key: of the setting, as "method.travel".
    """

    key: str
    values: tuple[float, ...]
    num_steps: tuple[int, ...]

    def __post_init__(self) -> None:
        for name in ("values", "num_steps"):
            object.__setattr__(self, name, tuple(getattr(self, name)))

    def sampler_name(self, num_steps: int, value: float) -> str:
        return f"{num_steps}, {self.key}={value}"

    @property
    def samplers(self) -> dict[str, Sampler]:
        """Name -> sampler."""
        return {self.sampler_name(n, value): Sampler(n, {self.key: value}) for n in self.num_steps for value in self.values}


@dataclasses.dataclass(frozen=True)
class Pretraining:
    """What a contestant learns first: its own training begins with these parameters.

    Attributes:
      share: of the budget's operations.
      config: merged over suite and scale, in place of the contestant's own: at least its `method`.
    """

    share: float
    config: Mapping[str, Any]

    def __post_init__(self) -> None:
        if not 0 < self.share < 1:
            raise ValueError(f"share of a pretraining must lie in (0, 1), got {self.share}.")
        if "name" not in self.config.get("method", {}):
            raise ValueError(f"config of a pretraining must name its method, got {dict(self.config)}.")


@dataclasses.dataclass(frozen=True)
class Contestant:
    """A way of learning, and how its policies are asked.

    Attributes:
      config: merged over suite and scale: at least its `method`.
      samplers: name -> how it is asked; all are evaluated on one training.
      sweep: asked besides, in development and where wished.
      pretraining: what comes before, if anything; paid from the same budget.
    """

    config: Mapping[str, Any]
    samplers: Mapping[str, Sampler]
    sweep: Sweep | None = None
    pretraining: Pretraining | None = None

    @property
    def first(self) -> str:
        """The sampler that stands for the contestant where one must."""
        return next(iter(self.samplers))

    def disturbed(self, conditions: Mapping[str, Disturbance]) -> dict[str, Sampler]:
        """The first sampler under each condition."""
        asked = self.samplers[self.first]
        return {f"{self.first}, {name}": dataclasses.replace(asked, disturbance=one) for name, one in conditions.items()}

    def __post_init__(self) -> None:
        if "name" not in self.config.get("method", {}):
            raise ValueError(f"config of a contestant must name its method, got {dict(self.config)}.")
        if not self.samplers:
            raise ValueError(f"samplers must be at least one, got {dict(self.samplers)}.")


@dataclasses.dataclass(frozen=True)
class Scale:
    """A size of the whole comparison.

    Attributes:
      core_minute: training operations that one budgeted core-minute stands for; see `benchmarks/claims/README.md`.
      warmup: share of the updates in which the learning rate rises.
      config: the trunk, its optimiser and everything else that all contestants share.
      suites: name -> suite, in the order in which they are run.
      contestants: those that are compared; () for all.
    """

    core_minute: float
    warmup: float
    config: Mapping[str, Any]
    suites: Mapping[str, Suite]
    contestants: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "contestants", tuple(self.contestants))
        if self.core_minute <= 0:
            raise ValueError(f"core_minute must be positive, got {self.core_minute}.")
        if not 0 <= self.warmup < 1:
            raise ValueError(f"warmup must lie in [0, 1), got {self.warmup}.")
        tuned, confirmed = (
            {(suite.simulator, task) for suite in self.suites.values() for task in suite.tasks if phase in suite.phases} for phase in PHASES
        )
        both = sorted((simulator, task) for simulator, task in tuned & confirmed if len(simulators.tasks(simulator)) > 1)
        if both:
            raise ValueError(f"a task must belong to one phase, got {both} in both: what was tuned on cannot confirm under another name.")


@dataclasses.dataclass(frozen=True)
class Answer:
    """One contestant's sampler, written "contestant/sampler"."""

    contestant: str
    sampler: str

    @classmethod
    def parse(cls, text: str) -> "Answer":
        contestant, _, sampler = text.partition("/")
        return cls(contestant, sampler)

    def __str__(self) -> str:
        return f"{self.contestant}/{self.sampler}"


@dataclasses.dataclass(frozen=True)
class Settings:
    """The whole file.

    Attributes:
      margin: "as good as" means that the lower 95 % bound of the paired difference in score lies above minus this.
      comparisons: (subject, reference): the verdicts that a phase gives on each suite and budget, fixed before it runs.
      primary: those few that are asked over all tasks at once, and stand for the whole.
      sha256: scale -> hash of what of the file its cells depend on: everything but other scales. Another order is another file, since
        the first of a contestant's samplers is the one that stands for it.
    """

    margin: float
    scales: Mapping[str, Scale]
    contestants: Mapping[str, Contestant]
    comparisons: tuple[tuple[Answer, Answer], ...]
    primary: tuple[tuple[Answer, Answer], ...]
    sha256: Mapping[str, str]

    def __post_init__(self) -> None:
        for answer in (answer for pair in (*self.comparisons, *self.primary) for answer in pair):
            known = [f"{name}/{sampler}" for name, contestant in self.contestants.items() for sampler in contestant.samplers]
            if str(answer) not in known:
                raise ValueError(f"comparisons must be between {known}, got {str(answer)!r}.")
        for name, scale in self.scales.items():
            unknown = sorted(set(scale.contestants) - set(self.contestants))
            if unknown:
                raise ValueError(f"contestants of scale {name!r} must be among {list(self.contestants)}, got {unknown}.")

    def scale(self, name: str) -> Scale:
        """Raises ValueError for an unknown name, listing the valid."""
        if name not in self.scales:
            raise ValueError(f"scale must be one of {sorted(self.scales)}, got {name!r}.")
        return self.scales[name]

    def contestants_of(self, scale: str) -> dict[str, Contestant]:
        """Name -> contestant, of those that a scale compares, in the settings' order."""
        chosen = self.scale(scale).contestants or self.contestants
        return {name: contestant for name, contestant in self.contestants.items() if name in chosen}


def read_settings(path: pathlib.Path = FILE) -> Settings:
    """Raises ValueError for a file that does not hold together, naming what."""
    tree = json.loads(path.read_bytes())
    try:
        return Settings(
            margin=tree["margin"],
            scales={name: _scale(scale) for name, scale in tree["scales"].items()},
            contestants={name: _contestant(contestant) for name, contestant in tree["contestants"].items()},
            comparisons=_pairs(tree["comparisons"]),
            primary=_pairs(tree["primary"]),
            sha256={name: _sha256(tree, name) for name in tree["scales"]},
        )
    except (KeyError, TypeError) as error:
        raise ValueError(
            f"{path} must hold margin, scales, contestants and comparisons in the form of settings.py, got {error}."
        ) from error


def _pairs(rows: Sequence[Sequence[str]]) -> tuple[tuple[Answer, Answer], ...]:
    return tuple((Answer.parse(one), Answer.parse(other)) for one, other in rows)


def _sha256(tree: Mapping[str, Any], scale: str) -> str:
    kept = {**tree, "scales": {scale: tree["scales"][scale]}}
    return hashlib.sha256(json.dumps(kept, separators=(",", ":")).encode()).hexdigest()


def _contestant(tree: Mapping[str, Any]) -> Contestant:
    samplers = {name: Sampler(**one) if isinstance(one, Mapping) else Sampler(one) for name, one in tree["samplers"].items()}
    pretraining = Pretraining(**tree["pretraining"]) if "pretraining" in tree else None
    return Contestant(tree["config"], samplers, Sweep(**tree["sweep"]) if "sweep" in tree else None, pretraining)


def _scale(tree: Mapping[str, Any]) -> Scale:
    return Scale(**{**tree, "suites": {name: _suite(suite) for name, suite in tree["suites"].items()}})


def _suite(tree: Mapping[str, Any]) -> Suite:
    """ "task" is a name, or several."""
    rest = {key: value for key, value in tree.items() if key != "task"}
    tasks = [tree["task"]] if isinstance(tree["task"], str) else tree["task"]
    conditions = {name: Disturbance(**one) for name, one in tree.get("conditions", {}).items()}
    return Suite(**{**rest, "tasks": tasks, "conditions": conditions})

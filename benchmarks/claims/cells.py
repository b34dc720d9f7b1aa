"""A cell: one training of one contestant, and its rollouts. Which there are, in which order, from which seeds, kept where.

Training seed, initial states and sampling noise of a cell are functions of its phase and number alone, in blocks that do not meet:

    block   0 training, development   1 training, confirmation   2 states, development   3 states, confirmation
    seed    1000 block + number

Every number has initial states of its own (`evaluation_state(seed, episode)`), which all contestants share: comparisons are paired, and
between two numbers nothing is shared, as the bootstrap over trainings and then episodes assumes. The states of seed 0, which published
tables and this repository's other results start from, are in neither phase, but where a suite asks for them: then all its trainings
have those.
"""

import pathlib
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from benchmarks.claims.settings import PHASES, Contestant, Settings, Suite
from ebt_jax.simulators.simulator import evaluation_state

BLOCK = 1000
"""Numbers of one phase."""


class Cell(NamedTuple):
    """phase, scale and suite as in settings.json; `budget` in core-minutes; `seed` counts from 0 in each phase."""

    phase: str
    scale: str
    suite: str
    contestant: str
    budget: int
    seed: int

    def __str__(self) -> str:
        return "/".join((*map(str, self[:4]), f"{self.budget}_core_minutes", f"seed_{self.seed}"))

    @property
    def training_seed(self) -> int:
        return BLOCK * PHASES.index(self.phase) + self.seed


class Wanted(NamedTuple):
    """Which cells: those of these names; None is all."""

    suites: tuple[str, ...] | None = None
    contestants: tuple[str, ...] | None = None
    budgets: tuple[int, ...] | None = None
    seeds: tuple[int, ...] | None = None


ALL = Wanted()


def enumerate_cells(settings: Settings, phase: str, scale: str, wanted: Wanted = ALL) -> list[Cell]:
    """Cheap budgets first; within one every contestant of every suite at one seed before the next seed.

    Raises ValueError for names that the settings do not have, listing those that they have.
    """
    if phase not in PHASES:
        raise ValueError(f"phase must be one of {PHASES}, got {phase!r}.")
    suites = {name: suite for name, suite in settings.scale(scale).suites.items() if phase in suite.phases}
    known = {
        "suites": suites,
        "contestants": settings.contestants_of(scale),
        "budgets": sorted({budget for suite in suites.values() for budget in suite.budgets}),
        "seeds": range(max((suite.seeds for suite in suites.values()), default=0)),
    }
    for name, choices in known.items():
        asked = getattr(wanted, name)
        unknown = [one for one in asked or () if one not in choices]
        if unknown:
            raise ValueError(f"{name} of {phase} at {scale} must be among {list(choices)}, got {unknown}.")
    chosen = {name: getattr(wanted, name) or tuple(choices) for name, choices in known.items()}
    return [
        Cell(phase, scale, suite, contestant, budget, seed)
        for budget in known["budgets"]
        for seed in known["seeds"]
        for suite in suites
        for contestant in known["contestants"]
        if budget in suites[suite].budgets
        and seed < suites[suite].seeds
        and (budget in chosen["budgets"] and seed in chosen["seeds"] and suite in chosen["suites"] and contestant in chosen["contestants"])
    ]


def parts(settings: Settings, cell: Cell) -> tuple[Suite, Contestant]:
    """What the settings say of a cell's suite and contestant."""
    return settings.scale(cell.scale).suites[cell.suite], settings.contestants[cell.contestant]


def result_path(folder: pathlib.Path, cell: Cell, trial: str) -> pathlib.Path:
    """Where a finished cell is kept.

    In development `trial`, the hash of what was run, belongs to the name: another try of a contestant never replaces an earlier one, and
    their number is known. In confirmation there is one try.
    """
    return folder / f"{cell}{f'-{trial}' if cell.phase == 'development' else ''}.json"


def run_path(folder: pathlib.Path, cell: Cell, trial: str) -> pathlib.Path:
    """The folder of an unfinished cell, which a finished one came from."""
    return folder / f"{cell}-{trial}"


def seconds_left(pending: Iterable[Cell], finished: Mapping[Cell, float], cores: int) -> float:
    """What the pending cells will take, in seconds, from what finished ones took.

    Of the nearest kind that there is: the same suite, contestant and budget; else the same contestant, else any, in seconds a core-minute;
    else core-minutes over cores, and as much again for compiling and rollouts.
    """

    def mean(rates: list[float]) -> float | None:
        return sum(rates) / len(rates) if rates else None

    def one(cell: Cell) -> float:
        rates = [(other, seconds / other.budget) for other, seconds in finished.items() if other.scale == cell.scale]
        same = mean([rate for other, rate in rates if other[2:5] == cell[2:5]])
        kind = mean([rate for other, rate in rates if other.contestant == cell.contestant])
        found = same or kind or mean([rate for _, rate in rates]) or 2 * 60 / cores
        return found * cell.budget

    return sum(map(one, pending))


def evaluation_seed(settings: Settings, cell: Cell) -> int:
    """For `ebt_jax.evaluation.rollouts.rollout`."""
    if parts(settings, cell)[0].states == "published":
        return 0
    return BLOCK * (len(PHASES) + PHASES.index(cell.phase)) + cell.seed


def initial_states(settings: Settings, cell: Cell) -> list[int]:
    """Of the cell's episodes, as `ebt_jax.simulators` numbers them: the same of one task after the other."""
    suite, seed = parts(settings, cell)[0], evaluation_seed(settings, cell)
    return [evaluation_state(seed, episode) for _ in suite.tasks for episode in range(suite.episodes[cell.phase])]

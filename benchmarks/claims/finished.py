"""The finished cells of one phase and scale, held against the plan."""

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from benchmarks.claims.cells import Cell, enumerate_cells, initial_states
from benchmarks.claims.provenance import disagreements, fixed
from benchmarks.claims.recipe import recipe
from benchmarks.claims.rollouts import is_asked
from benchmarks.claims.settings import Sampler, Settings


class Finished(NamedTuple):
    """The cells of one phase and scale.

    Attributes:
      cells: those that were run from the settings as they are, with their JSON.
      others: of development, those that were run from other settings: trials.
      missing: planned and not there.
    """

    cells: dict[Cell, dict[str, Any]]
    others: list[tuple[Cell, dict[str, Any]]]
    missing: list[Cell]


def sort_out(settings: Settings, phase: str, scale: str, results: Iterable[tuple[Cell, dict[str, Any]]]) -> Finished:
    """Raises ValueError for a confirmation from another file of settings than this one, or of cells that came about differently."""
    every = enumerate_cells(settings, phase, scale)
    trials = {cell: recipe(settings, cell).trial for cell in every}
    cells, others = {}, []
    for cell, tree in results:
        if (cell.phase, cell.scale) != (phase, scale):
            continue
        if phase == "confirmation" and tree["settings_sha256"] != settings.sha256[scale]:
            raise ValueError(
                f"cells of a confirmation must come from settings.json as it is, got {cell} from another. Nothing of that file, its "
                "comparisons included, may change once confirmation has begun."
            )
        if trials.get(cell) == tree["trial"]:
            cells[cell] = tree
        else:
            others.append((cell, tree))
    if phase == "confirmation" and (unequal := disagreements((cell, fixed(tree)) for cell, tree in cells.items())):
        raise ValueError(
            f"cells of a confirmation must come from the same sources, packages, XLA flags and data, got {'; '.join(unequal)}. Move away "
            "the cells that differ and run them as the others were."
        )
    return Finished(cells, others, [cell for cell in every if cell not in cells])


def column(settings: Settings, cell: Cell, tree: Mapping[str, Any], sampler: str, name: str) -> Num[np.ndarray, " e"]:
    """A column of a cell's episodes, in order; a training that diverged has no policy, and scores 0 everywhere, as answers do that are
    not finite."""
    states = initial_states(settings, cell)
    if "diverged" in tree:
        return np.array(states) if name == "state" else np.zeros(len(states))
    found = tree["samplers"][sampler]
    return np.zeros(len(states)) if "not_finite" in found and name not in found["episodes"] else np.array(found["episodes"][name])


def has_column(tree: Mapping[str, Any], sampler: str, name: str) -> bool:
    return name in tree["samplers"].get(sampler, {"episodes": {}})["episodes"]


def trainings(
    finished: Finished, suite: str, budget: int, contestant: str, samplers: Mapping[str, Sampler]
) -> list[tuple[Cell, dict[str, Any]]]:
    """The seeds of one contestant that are finished and were asked in all these ways, in order."""
    found = [(c, t) for c, t in finished.cells.items() if (c.suite, c.budget, c.contestant) == (suite, budget, contestant)]
    whole = [(c, t) for c, t in found if "diverged" in t or all(is_asked(t["samplers"].get(name), one) for name, one in samplers.items())]
    return sorted(whole, key=lambda one: one[0].seed)


def planned(finished: Finished, suite: str, budget: int) -> int:
    """How many trainings each contestant is to have."""
    return len({cell.seed for cell in [*finished.cells, *finished.missing] if (cell.suite, cell.budget) == (suite, budget)})


def places(settings: Settings, finished: Finished, scale: str) -> list[tuple[str, int]]:
    """(suite, budget) that the phase has, in the settings' order: budgets of a suite rise."""
    known = {(cell.suite, cell.budget) for cell in [*finished.cells, *finished.missing]}
    return [(name, budget) for name, suite in settings.scale(scale).suites.items() for budget in suite.budgets if (name, budget) in known]


def largest(found: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """Of `places`, for each suite that of its largest budget."""
    return list({suite: (suite, budget) for suite, budget in found}.values())

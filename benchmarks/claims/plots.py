"""Score against training compute and against steps, a dot for every training and a line through their means; differences with intervals."""

import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter

from benchmarks.claims.finished import Finished, column, planned, trainings
from benchmarks.claims.settings import Settings
from benchmarks.claims.statistics import Interval
from benchmarks.claims.tables import kind, label
from ebt_jax.report.style import BLUE, GREEN, GRID, MUTED, ORANGE, PAPER, STYLE, canvas

PRICES: dict[str, Callable[[Mapping[str, Any]], float | None]] = {
    "operations of training": lambda tree: tree["flops"],
    "updates of training": lambda tree: tree["updates"] + tree.get("pretraining", {"updates": 0})["updates"],
    "seconds of a processor in training": lambda tree: tree["training"]["cpu_seconds"],
}
"""What a training cost, in three coins; None where it was not counted, as of one that was resumed. Seconds on a clock depend on what ran
beside, and something always did."""


def compute_plot(settings: Settings, finished: Finished, suites: Sequence[str], colours: Mapping[str, str]) -> Figure | None:
    """A row a suite: score of each contestant's first sampler against operations, updates and seconds of training.

    A mean that trainings are missing of is an open diamond. None where all have one budget.
    """
    shown = [suite for suite in suites if len(_budgets(finished, suite)) > 1]
    if not shown:
        return None
    figure, axes = canvas(len(shown), len(PRICES), 3.6 * len(shown))
    for number, suite in enumerate(shown):
        for (along, price), ax in zip(PRICES.items(), axes[len(PRICES) * number :], strict=False):
            for name, contestant in settings.contestants.items():
                points, partly = {}, {}
                for budget in _budgets(finished, suite):
                    found = [(price(tree), score) for tree, score in _scored(settings, finished, suite, budget, name, contestant.first)]
                    if mine := [(cost, score) for cost, score in found if cost is not None]:
                        place = float(np.mean([cost for cost, _ in mine]))
                        points[place] = [score for _, score in mine]
                        if len(mine) < planned(finished, suite, budget):
                            partly[place] = np.mean(points[place])
                _draw(ax, points, f"{name}, {label(contestant.first, contestant.samplers[contestant.first].num_steps)}", colours[name])
                ax.plot(list(partly), list(partly.values()), "D", markersize=5, color=colours[name], markerfacecolor=PAPER)
            _finish(ax, suite, along)
        spent = [
            np.mean([tree["flops"] for cell, tree in finished.cells.items() if (cell.suite, cell.budget) == (suite, budget)])
            for budget in _budgets(finished, suite)
        ]
        axes[len(PRICES) * number].set_xticks(spent, [f"{operations / 1e12:.1f}e12" for operations in spent])
    _legend(figure, axes)
    return figure


def steps_plot(settings: Settings, finished: Finished, suites: Sequence[str], colours: Mapping[str, str]) -> Figure | None:
    """A panel for each suite and budget: score against the sampler's steps."""
    shown = [(suite, budget) for suite in suites for budget in _budgets(finished, suite)]
    if not shown:
        return None
    rows = -(-len(shown) // 3)
    figure, axes = canvas(rows, min(3, len(shown)), 3.6 * rows)
    for (suite, budget), ax in zip(shown, axes, strict=False):
        for name, contestant in settings.contestants.items():
            fixed = [sampler for sampler, asked in contestant.samplers.items() if not asked.stopping]
            for way in dict.fromkeys(map(kind, fixed)):  # no line joins DDIM to DDPM
                samplers = [sampler for sampler in fixed if kind(sampler) == way]
                samplers.sort(key=lambda sampler: contestant.samplers[sampler].num_steps)
                steps = {contestant.samplers[sampler].num_steps: (budget, sampler) for sampler in samplers}
                _draw(ax, _points(settings, finished, suite, name, steps), name, colours[name])
        _finish(ax, _title(finished, suite, budget), "steps of the sampler")
        ax.set_xticks(TICKS, list(map(str, TICKS)))
        ax.minorticks_off()
    for ax in axes[len(shown) :]:
        ax.set_visible(False)
    _legend(figure, axes)
    return figure


def intervals_plot(
    where: Sequence[tuple[str, int]],
    found: Mapping[str, Mapping[tuple[str, int], tuple[Interval | None, str]]],
    along: str,
    nothing: float,
    margin: float = 0.0,
) -> Figure:
    """A panel a place (suite, core-minutes), a row a name: each interval in the colour of its verdict, grey where it is undecided.

    Args:
      nothing: the value that says nothing, a line; the band of `margin` below it counts as good, too.
    """
    rows = -(-len(where) // 3)
    figure, axes = canvas(rows, min(3, len(where)), rows * (1.1 + 0.24 * len(found)))
    for number, (place, ax) in enumerate(zip(where, axes, strict=False)):
        ax.axvspan(nothing - margin, nothing, color=GRID, zorder=0)
        ax.axvline(nothing, color=MUTED, linewidth=0.7)
        for height, at in enumerate(reversed(list(found.values()))):
            interval, said = at.get(place, (None, ""))
            if interval is None or said.startswith("none"):
                if said in FLAT:
                    ax.text(nothing, height, FLAT[said], color=MUTED, fontsize=6, ha="center", va="center")
                continue
            colour = VERDICTS.get(said, MUTED)
            ax.plot([interval.low, interval.high], [height, height], color=colour)
            ax.plot([interval.mean], [height], "o", color=colour, markersize=4)
        ax.set_yticks(range(len(found)), [name if number % 3 == 0 else "" for name in reversed(list(found))], fontsize=6.5)
        ax.set_ylim(-0.7, len(found) - 0.3)
        ax.set_title(f"{place[0]}, {place[1]} core-minutes")
        ax.set_xlabel(along)
    for ax in axes[len(where) :]:
        ax.set_visible(False)
    return figure


TICKS = (1, 2, 4, 10, 20, 50, 100)
"""Of steps."""
FLAT = {"none: floor": "nobody can", "none: ceiling": "everybody can"}
VERDICTS = {"better": GREEN, "as good": BLUE, "worse": ORANGE, "worse by less than the margin": ORANGE}


def palette(settings: Settings) -> dict[str, str]:
    """A colour for each contestant, the same in every plot."""
    colours = matplotlib.colormaps["tab20"].colors  # pyright: ignore[reportAttributeAccessIssue]
    dark_first = [*colours[::2], *colours[1::2]]
    return {name: to_hex(dark_first[number % len(dark_first)]) for number, name in enumerate(settings.contestants)}


def save(figure: Figure, path: pathlib.Path) -> None:
    """As PNG, in the project's look."""
    with matplotlib.rc_context(STYLE):
        figure.savefig(path, dpi=140, facecolor=PAPER, metadata={"Software": None})


def _budgets(finished: Finished, suite: str) -> list[int]:
    return sorted({cell.budget for cell in finished.cells if cell.suite == suite})


def _points(
    settings: Settings, finished: Finished, suite: str, contestant: str, places: Mapping[int, tuple[int, str]]
) -> dict[float, list[float]]:
    """x -> the score of every training at the budget and sampler that belong to x; only what is there."""
    found = {x: _scored(settings, finished, suite, budget, contestant, sampler) for x, (budget, sampler) in places.items()}
    return {x: [score for _, score in mine] for x, mine in found.items() if mine}


def _scored(
    settings: Settings, finished: Finished, suite: str, budget: int, contestant: str, sampler: str
) -> list[tuple[dict[str, Any], float]]:
    """Every training that was asked so, with its mean score."""
    mine = trainings(finished, suite, budget, contestant, {sampler: settings.contestants[contestant].samplers[sampler]})
    return [(tree, float(column(settings, cell, tree, sampler, "score").mean())) for cell, tree in mine]


def _draw(ax: Axes, points: Mapping[float, Sequence[float]], name: str, colour: str) -> None:
    if not points:
        return
    where = [x for x, values in points.items() for _ in values]
    ax.plot(where, [value for values in points.values() for value in values], "o", markersize=3, color=colour, alpha=0.6)
    marker = "D" if len(points) == 1 else ""
    ax.plot(list(points), [np.mean(values) for values in points.values()], marker=marker, markersize=5, color=colour, label=name)


def _title(finished: Finished, suite: str, budget: int) -> str:
    """The place, and how much of it is there."""
    here = [cell for cell in [*finished.cells, *finished.missing] if (cell.suite, cell.budget) == (suite, budget)]
    done = sum(cell in finished.cells for cell in here)
    return f"{suite}, {budget} core-minutes" if done == len(here) else f"{suite}, {budget} ({done} of {len(here)} trainings)"


def _legend(figure: Figure, axes: Sequence[Axes]) -> None:
    """One for all panels, below them."""
    found = {label: line for ax in axes for line, label in zip(*ax.get_legend_handles_labels(), strict=True)}
    figure.legend(list(found.values()), list(found), loc="outside lower center", ncols=4, fontsize=7)


def _finish(ax: Axes, title: str, along: str) -> None:
    """Log-scaled, from 0 to 1."""
    ax.set_xscale("log")
    ax.xaxis.set_minor_formatter(NullFormatter())
    ax.set_ylim(0, 1.02)
    ax.set_title(title)
    ax.set_xlabel(along)
    ax.set_ylabel("score")

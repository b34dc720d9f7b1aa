"""Curves of a run, energies along the descent, success rates: arrays and dicts in, figures out."""

from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, PercentFormatter

from ebt_jax.report.style import BLUE, GREEN, INK, ORANGE, PAPER, SERIES, STYLE, WIDTH, canvas

# Quantities that are read side by side: key -> (panel, line). Otherwise validation/NAME joins the panel of NAME, and GROUP/NAME is the line
# NAME in the panel GROUP.
JOINT = {
    "loss_mean": ("loss", "training"),
    "validation/action_mse": ("squared error of actions", "policy"),
    "validation/mean_action_mse": ("squared error of actions", "always the mean action"),
    "rmse_first": ("distance to the demonstration", "after the first step"),
    "rmse_last": ("distance to the demonstration", "after the last step"),
}
TITLES = {"error": "error of a dimension, its own unit", "time": "share of the time"}
FIRST = ("loss", "squared error of actions", "distance to the demonstration")


@matplotlib.rc_context(STYLE)
def training_curves(records: Sequence[Mapping[str, Any]]) -> Figure:
    """One panel a quantity, against `step`; quantities that are read side by side share one (see JOINT).

    `records` are the lines of metrics.jsonl; a record may lack any key but `step`. `loss` gives way to `loss_mean`, the mean since
    the record before. A quantity that spans more than a factor of 30 gets a logarithmic axis. Raises ValueError where there is
    nothing to draw.
    """
    panels: dict[str, dict[str, list[tuple[float, float]]]] = {}
    averaged = any("loss_mean" in record for record in records)
    for record in records:
        for key, value in record.items():
            drawn = isinstance(value, int | float) and np.isfinite(value) and key != "step" and not (averaged and key == "loss")
            if drawn:
                panel, line = _place(key)
                panels.setdefault(panel, {}).setdefault(line, []).append((record["step"], value))
    if not panels:
        raise ValueError(f"records must hold at least one finite number beside the step, got {len(records)} records without.")
    panels = {name: panels[name] for name in sorted(panels, key=lambda name: FIRST.index(name) if name in FIRST else len(FIRST))}
    columns = min(3, len(panels))
    rows = -(-len(panels) // columns)
    figure, axes = canvas(rows, columns, height=0.35 + 2.05 * rows)
    for axis, (name, lines) in zip(axes, panels.items(), strict=False):
        axis.set_title(TITLES.get(name, name))
        for colour, (line, points) in zip(SERIES * 9, lines.items(), strict=False):
            steps, values = np.array(points, float).T
            _curve(axis, steps, values, colour, line)
        values = np.array([value for points in lines.values() for _, value in points])
        if values.min() > 0 and values.max() / values.min() > 30:
            axis.set_yscale("log")
        else:
            axis.yaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True, steps=[1, 2, 5, 10]))
        if len(lines) > 1:
            axis.legend()
    for axis in axes[len(panels) :]:
        axis.set_axis_off()
    for axis in axes[max(0, len(panels) - columns) : len(panels)]:
        axis.set_xlabel("step")
    return figure


def _place(key: str) -> tuple[str, str]:
    """Panel and line of a key."""
    if key in JOINT:
        return JOINT[key]
    split, name = key.removeprefix("validation/"), "validation" if key.startswith("validation/") else "training"
    panel, _, line = split.partition("/")
    return readable(panel), readable(line) or name


def _curve(axis: Axes, steps: Float[np.ndarray, " n"], values: Float[np.ndarray, " n"], colour: str, label: str) -> None:
    """The values; faint, with their running mean on top, where they are many and jump up and down."""
    jumps = np.abs(np.diff(values)).sum() > 2.5 * np.ptp(values)
    if len(steps) <= 60 or not jumps:
        axis.plot(steps, values, color=colour, label=label, marker="o" if len(steps) < 12 else None, markersize=3)
        return
    window = np.ones(2 * max(3, len(steps) // 30) + 1)
    smooth = np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")
    axis.plot(steps, values, color=colour, alpha=0.25, linewidth=0.8)
    axis.plot(steps, smooth, color=colour, label=label)


@matplotlib.rc_context(STYLE)
def descent(
    energy: Float[np.ndarray, "k1 b"], gradient_norm: Float[np.ndarray, "k b"], error: Float[np.ndarray, "k1 b"] | None = None
) -> Figure:
    """Energy, |dE/da| and distance to the demonstration along the sampler's steps: median, quartiles and 5 to 95 % of the samples.

    Args:
      energy: E before each step and, last, at the returned chunk; NaN where a sample had stopped. Drawn relative to the returned
        chunk's, because the level of an energy differs between observations without meaning anything.
      gradient_norm: over the whole chunk, where each step evaluated it.
      error: root mean square distance to the demonstrated chunk, normalised units, at the same points as `energy`.

    A panel without a finite value (a method without an energy) is left out.
    """
    panels = [
        ("energy above the returned chunk's", energy - energy[-1], BLUE),
        ("gradient norm  |∂E/∂a|", gradient_norm, ORANGE),
        ("distance to the demonstration", np.full((0, 0), np.nan) if error is None else error, GREEN),
    ]
    panels = [panel for panel in panels if np.isfinite(panel[1]).any()]
    if not panels:
        raise ValueError("a descent must have finite energies, gradient norms or errors to draw, got none.")
    figure, axes = canvas(1, len(panels), height=2.5)
    for axis, (title, values, colour) in zip(axes, panels, strict=True):
        _spread(axis, values, colour)
        axis.set_title(title)
        axis.set_xlabel("step")
        axis.set_xlim(-0.15, len(energy) - 0.85)
        axis.xaxis.set_major_locator(MaxNLocator(8, integer=True, steps=[1, 2, 5, 10]))
        low, high = np.nanmin(values), np.nanmax(values)
        if low > 0 and high > 100 * low:
            axis.set_yscale("log")
        else:
            axis.set_ylim(bottom=min(0.0, axis.get_ylim()[0]))
    handles, labels = axes[0].get_legend_handles_labels()
    axes[0].legend(handles[::-1], labels[::-1])
    return figure


def _spread(axis: Axes, values: Float[np.ndarray, "k b"], colour: str) -> None:
    steps = np.flatnonzero(np.isfinite(values).any(axis=1))
    values = values[steps]
    bands = np.nanpercentile(values, [5, 25, 50, 75, 95], axis=1)
    axis.fill_between(steps, bands[0], bands[4], color=colour, alpha=0.12, linewidth=0, label="5 to 95 %")
    axis.fill_between(steps, bands[1], bands[3], color=colour, alpha=0.28, linewidth=0, label="quartiles")
    axis.plot(steps, bands[2], color=colour, marker="o", markersize=3.2, label=f"median of {values.shape[1]} chunks")


@matplotlib.rc_context(STYLE)
def success_rates(tasks: Mapping[str, Mapping[str, Any]]) -> Figure:
    """One row a task: success rate with its 95 % Wilson interval; `tasks` as in results.json."""
    names = sorted(tasks, key=lambda name: (-tasks[name]["success_rate"], name))
    figure, (axis,) = canvas(1, 1, height=0.75 + 0.3 * len(names), width=min(WIDTH, 6.8))
    for row, name in enumerate(names):
        task = tasks[name]
        low, high = task["wilson_95"]
        axis.plot([low, high], [row, row], color=BLUE, alpha=0.35, linewidth=4.5)
        axis.plot(task["success_rate"], row, "o", color=BLUE, markersize=6, markeredgecolor=PAPER, markeredgewidth=0.8)
        axis.annotate(
            f"{task['successes']} of {task['episodes']}",
            (1.03, row),
            xycoords=("axes fraction", "data"),
            va="center",
            color=INK,
            fontsize=8,
        )
    axis.set_yticks(range(len(names)), names, color=INK)
    axis.set_ylim(len(names) - 0.4, -0.6)
    axis.set_xlim(-0.01, 1.01)
    axis.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.grid(axis="y", visible=False)
    axis.spines["left"].set_visible(False)
    axis.set_xlabel("success rate, 95 % interval")
    return figure


@matplotlib.rc_context(STYLE)
def risk_coverage(statistics: Mapping[str, Mapping[str, Any]], failure_rate: float) -> Figure:
    """One line a statistic: share of failures against the share of episodes acted in, its "coverage" and "risk" as in results.json."""
    figure, (axis,) = canvas(1, 1, height=2.6, width=min(WIDTH, 6.8))
    looks = [(colour, line) for line in ("-", ":", "-.") for colour in (*SERIES, INK)]
    for (colour, line), (name, curve) in zip(looks, statistics.items(), strict=False):
        axis.plot(curve["coverage"], curve["risk"], color=colour, linestyle=line, label=readable(name))
    axis.axhline(failure_rate, color=INK, linestyle="--", linewidth=0.8)
    axis.set_xlim(0, 1)
    axis.set_ylim(bottom=0)
    for side in (axis.xaxis, axis.yaxis):
        side.set_major_formatter(PercentFormatter(1, decimals=0))
    axis.set_xlabel("episodes acted in")
    axis.set_ylabel("failures among them")
    axis.legend()
    return figure


def readable(name: str) -> str:
    """validation/action_error -> validation action error."""
    return name.replace("/", " ").replace("_", " ")

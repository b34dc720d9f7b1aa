"""One look for every figure: thin ink, few colours, and SVG that follows the page into dark mode."""

import io
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

# A page replaces these by its own variables, light or dark (see html.figure).
INK, MUTED, GRID, PAPER = "#1c2130", "#6a7285", "#e3e6ec", "#fffffe"
ON_DATA = "#1d2231"  # ink that lies on data of its own colour and stays dark on every page

BLUE, ORANGE, GREEN, PURPLE = "#3a6ea5", "#d9743a", "#3f9577", "#8a68b0"
SERIES = (BLUE, ORANGE, GREEN, PURPLE)

ENERGY = LinearSegmentedColormap.from_list("energy", ["#12304d", "#1f567a", "#3b84a2", "#7fb4bd", "#bcd6d2", "#e6ebdf", "#f6f1e6"])
"""Low energy is deep water, high energy pale land."""

STYLE: dict[Any, Any] = {
    "font.family": "DejaVu Sans",
    "font.size": 8.5,
    "text.color": INK,
    "axes.edgecolor": MUTED,
    "axes.facecolor": "none",
    "axes.labelcolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.titlepad": 8,
    "axes.titlesize": 9.5,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.formatter.useoffset": False,
    "grid.color": GRID,
    "grid.linewidth": 0.7,
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelsize": 8,
    "ytick.labelsize": 8,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.minor.size": 0,
    "ytick.minor.size": 0,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.6,
    "lines.solid_capstyle": "round",
    "figure.facecolor": "none",
    "savefig.facecolor": "none",
    "svg.fonttype": "none",
}

WIDTH = 9.6
"""Inches; a figure as wide as the page."""


def canvas(rows: int, columns: int, height: float, width: float = WIDTH) -> tuple[Figure, list[Axes]]:
    """A figure with its axes in reading order. No pyplot: nothing is global, nothing needs a screen, nothing has to be closed."""
    layout = ConstrainedLayoutEngine(w_pad=0.12, h_pad=0.1, wspace=0.02, hspace=0.04)
    figure = Figure(figsize=(width, height), layout=layout)
    return figure, list(figure.subplots(rows, columns, squeeze=False).flat)


@matplotlib.rc_context(STYLE)
def to_svg(figure: Figure) -> str:
    """The figure as an SVG element; text stays text, the same figure gives the same bytes."""
    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.hashsalt": "ebt_jax"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :]

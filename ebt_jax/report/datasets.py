"""Samples of datasets -> DIR/report.html: pictures, lengths, distributions in robot units, grippers, language."""

import json
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float, UInt8
from markupsafe import Markup
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from ebt_jax.data.inspection import FRAMES, Sample, opening
from ebt_jax.images import resize
from ebt_jax.report.html import Section, code, figure, fold, image, table, write_page
from ebt_jax.report.style import BLUE, GREEN, MUTED, ORANGE, STYLE, canvas

SHOWN = 6
"""Episodes on a contact sheet."""
PICTURE = 120
"""Pixels a picture is wide there."""
DRAWN = 24
"""Dimensions whose distributions are drawn; a table has them all."""


def write_dataset_report(
    path: str | os.PathLike[str],
    title: str,
    trees: Sequence[Mapping[str, Any]],
    samples: Sequence[Sample],
    mixture: Sequence[Mapping[str, Any]] = (),
) -> pathlib.Path:
    """A page on what `ebt_jax.data.inspection.facts` found in each sample, and on the mixture that they make where there is one."""
    sections = [_mixture(mixture)] if mixture else []
    for tree, found in zip(trees, samples, strict=True):
        sections += [
            section._replace(title=f"{tree['dataset']}: {section.title}") if mixture else section for section in _sections(tree, found)
        ]
    first = trees[0]
    summary = {
        "episodes": f"{sum(found.num_episodes for found in samples):,}",
        "sampled": sum(len(found.episodes) for found in samples),
        "steps, about": f"{sum(tree['steps_in_all_about'] for tree in trees):,}",
        "to look at": sum(len(tree["warnings"]) for tree in trees),
    }
    what = f"version {first['version']}, {first['file_format']}, {first['path']}" if len(trees) == 1 else f"{len(trees)} datasets"
    return write_page(path, title, sections, what, summary)


def _mixture(rows: Sequence[Mapping[str, Any]]) -> Section:
    header = ("dataset", "version", "share", "episodes", "steps, about", "held out, of the sample", "epochs in 1 M windows")
    text = "Share of the windows that a run draws from each dataset. Steps follow from the mean length of the sampled episodes."
    return Section("Mixture", text, [table(header, [tuple(row.values()) for row in rows])])


def _sections(tree: Mapping[str, Any], found: Sample) -> list[Section]:
    what = f"Everything below is of a sample: {found.describe()}."
    notes = table(("", "to look at"), [(i, note) for i, note in enumerate(tree["warnings"], start=1)]) if tree["warnings"] else Markup()
    sections = [Section("What stands out", what if tree["warnings"] else f"Nothing looks wrong. {what}", [notes])]
    sections += [_pictures(tree, found)] if tree["cameras"] else []
    rate = tree["control_rate_hz"]
    seconds = f", {tree['lengths']['mean'] / rate:.3g} s at {rate:g} Hz" if rate else ""
    text = "Steps an episode: {min} to {max}, median {median:g}, mean {mean:.4g}".format(**tree["lengths"]) + f"{seconds}."
    sections.append(Section("Lengths", text, [figure(lengths(found.lengths), "")] if len(set(found.lengths)) > 1 else []))
    units = (
        f"In the frame {tree['action_frame']!r}. Lines mark 1 % and 99 %, which training maps to -1 and 1 where nothing else is asked for; "
        "of a gripper it maps 0 and 1."
    )
    sections.append(Section("Actions", units, [figure(histograms(tree["action"], BLUE), ""), _statistics(tree["action"])]))
    if tree["gripper"]:
        sections.append(_grippers(tree, found))
    if tree["proprio"]:
        folded = fold("statistics", _statistics(tree["proprio"]))
        sections.append(Section("State", "", [figure(histograms(tree["proprio"], GREEN), ""), folded]))
    sections.append(_language(tree["language"]))
    sections.append(
        Section("Specification", "", [fold("what the numbers mean", code(json.dumps(json.loads(found.spec.to_json()), indent=1)))])
    )
    return sections


def _pictures(tree: Mapping[str, Any], found: Sample) -> Section:
    blocks = []
    for camera, seen in tree["cameras"].items():
        sizes = ", ".join(seen["sizes"])
        said = "; ".join(dict.fromkeys(episode.instruction or "no instruction" for episode in found.episodes[:SHOWN]))
        caption = f"{camera}: {seen['feature']}, {sizes}, black in {100 * seen['black']:.3g} % of {seen['pictures']} pictures. {said}."
        blocks.append(image(contact_sheet([episode.frames[camera] for episode in found.episodes[:SHOWN]]), caption))
    return Section("Pictures", "One episode a row, from its first step to its last.", blocks)


def contact_sheet(episodes: Sequence[Sequence[UInt8[np.ndarray, "y x 3"]]]) -> UInt8[np.ndarray, "Y X 3"]:
    """One row an episode, `FRAMES` pictures across, of one width and as high as the first is."""
    first = episodes[0][0]
    height, gap = max(1, round(PICTURE * first.shape[0] / first.shape[1])), 3
    sheet = np.full((len(episodes) * (height + gap) - gap, FRAMES * (PICTURE + gap) - gap, 3), 255, np.uint8)
    for row, frames in enumerate(episodes):
        for column, frame in enumerate(frames):
            y, x = row * (height + gap), column * (PICTURE + gap)
            sheet[y : y + height, x : x + PICTURE] = resize(frame, height, PICTURE)
    return sheet


def _statistics(rows: Sequence[Mapping[str, Any]]) -> Markup:
    columns = ("mean", "std", "min", "q01", "q99", "max")
    kinds = ("kind",) if "kind" in rows[0] else ()
    header = ("", *kinds, "unit", *columns, "note")
    body = [(row["name"], *(row[kind] for kind in kinds), row["unit"], *(row[key] for key in columns), _note(row)) for row in rows]
    return table(header, body)


def _note(row: Mapping[str, Any]) -> str:
    notes = ["never moves"] if row["constant"] else []
    return ", ".join(notes + ([f"{100 * row['beyond_limits']:.2g} % beyond its limits"] if row["beyond_limits"] else []))


def _grippers(tree: Mapping[str, Any], found: Sample) -> Section:
    rows = [(hand["name"], hand["verdict"]) for hand in tree["gripper"]]
    blocks = [table(("gripper", "verdict"), rows)]
    text = "1 is open, 0 is closed."
    if opening(found.spec, found.episodes[0].proprio) is not None:
        at = next(i for i, dimension in enumerate(found.spec.action) if dimension.kind == "gripper")
        caption = "What the action commands, and where the state's gripper is, from its smallest to its largest value in the sample."
        blocks.append(figure(gripper_traces(found, at), caption))
    return Section("Gripper", text, blocks)


def _language(language: Mapping[str, Any]) -> Section:
    if not language["feature"]:
        return Section("Language", "An embedding and no text." if language["embedding"] else "None.", [])
    text = f"{language['distinct']} instructions, empty in {100 * language['empty']:.3g} % of the sampled episodes."
    return Section("Language", text, [table(("instruction", "episodes"), list(language["samples"].items()))])


@matplotlib.rc_context(STYLE)
def histograms(rows: Sequence[Mapping[str, Any]], colour: str) -> Figure:
    """A panel for each of the first `DRAWN` dimensions: its distribution in its own unit, 1 % and 99 % marked."""
    rows = rows[:DRAWN]
    columns = min(4, len(rows))
    height = -(-len(rows) // columns)
    drawn, axes = canvas(height, columns, height=0.3 + 1.5 * height)
    for axis, row in zip(axes, rows, strict=False):
        edges, counts = np.array(row["histogram"]["edges"]), np.array(row["histogram"]["counts"])
        axis.bar(edges[:-1], counts / counts.sum(), np.diff(edges), align="edge", color=MUTED if row["constant"] else colour)
        for key in ("q01", "q99"):
            axis.axvline(row[key], color=ORANGE, linewidth=0.9)
        unit = {"": "", "unknown": " [unit unknown]"}.get(row["unit"], f" [{row['unit']}]")
        axis.set_title(f"{row['name']}{unit}" + (", never moves" if row["constant"] else ""))
        axis.set_yticks([])
        axis.grid(visible=False)
        axis.spines["left"].set_visible(False)
        axis.xaxis.set_major_locator(MaxNLocator(4))
        axis.xaxis.set_major_formatter(lambda value, _: f"{value:.3g}")
    for axis in axes[len(rows) :]:
        axis.set_axis_off()
    return drawn


@matplotlib.rc_context(STYLE)
def lengths(values: Sequence[int]) -> Figure:
    """How many sampled episodes have how many steps."""
    drawn, (axis,) = canvas(1, 1, height=1.7, width=5.6)
    low, high = min(values), max(values)
    bins = np.linspace(low - 0.5, high + 0.5, min(30, high - low + 1) + 1).tolist()
    axis.hist(values, bins, color=BLUE)
    axis.set_xlabel("steps")
    axis.set_ylabel("episodes")
    axis.yaxis.set_major_locator(MaxNLocator(4, integer=True))
    axis.xaxis.set_major_locator(MaxNLocator(6, integer=True))
    axis.grid(axis="x", visible=False)
    return drawn


@matplotlib.rc_context(STYLE)
def gripper_traces(found: Sample, at: int) -> Figure:
    """Action number `at` and the state's gripper over the steps of the four episodes in which it moves most."""
    moves = {
        id(episode): float(np.ptp(episode.actions[:, at])) + _range(opening(found.spec, episode.proprio)) for episode in found.episodes
    }
    shown = sorted(found.episodes, key=lambda episode: -moves[id(episode)])[:4]
    openings = [opening(found.spec, episode.proprio) for episode in shown]
    everything = np.concatenate([values for values in openings if values is not None])
    low, span = everything.min(), max(float(np.ptp(everything)), 1e-9)
    drawn, axes = canvas(1, len(shown), height=1.9)
    for axis, episode, values in zip(axes, shown, openings, strict=True):
        axis.step(np.arange(len(episode.actions)), episode.actions[:, at], where="mid", color=BLUE, label="action")
        if values is not None:
            axis.plot((values - low) / span, color=ORANGE, label="state")
        axis.set_ylim(-0.08, 1.08)
        axis.set_yticks([0, 1], ["closed", "open"] if axis is axes[0] else ["", ""])
        axis.set_xlabel("step")
        axis.xaxis.set_major_locator(MaxNLocator(4, integer=True))
    axes[-1].legend(loc="center left", bbox_to_anchor=(1.0, 0.5))
    return drawn


def _range(values: Float[np.ndarray, " t"] | None) -> float:
    return 0.0 if values is None else float(np.ptp(values))

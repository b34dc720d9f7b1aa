"""What an audit shows a person: the episodes and the chunks that fit worst, beside what the policy would have done."""

import os
import pathlib
from collections.abc import Sequence

import matplotlib
import numpy as np
from jaxtyping import Float, Int, UInt8
from matplotlib.figure import Figure

from ebt_jax.normalize import Normalizer, normalize
from ebt_jax.report.html import Section, figure, gallery, image, table, write_page
from ebt_jax.report.plots import readable
from ebt_jax.report.style import BLUE, MUTED, ORANGE, SERIES, STYLE, canvas

EPISODES = 20
"""Rows of the table."""


def write_audit_report(
    path: str | os.PathLike[str],
    *,
    title: str,
    subtitle: str,
    statistic: str,
    values: Float[np.ndarray, " n"],
    means: Float[np.ndarray, " e"],
    episode: Int[np.ndarray, " n"],
    step: Int[np.ndarray, " n"],
    names: Sequence[str],
    instructions: Sequence[str],
    top: Int[np.ndarray, " m"],
    demonstrated: Float[np.ndarray, "m h a"],
    answers: Float[np.ndarray, "m h a"],
    dimensions: Sequence[str],
    normalizer: Normalizer,
    pictures: UInt8[np.ndarray, "m y x 3"] | None,
) -> pathlib.Path:
    """Writes the page. `values` are of all chunks, `top` the rows of those to draw, whose chunks (robot units) and pictures follow."""
    word = readable(statistic)
    ranked = [int(e) for e in np.argsort(-np.nan_to_num(means, nan=-np.inf), kind="stable") if np.isfinite(means[e])]
    rows = [
        (e, names[e], instructions[e], float(means[e]), float(values[episode == e].max()), int((episode == e).sum()))
        for e in ranked[:EPISODES]
    ]
    captions = [f"episode {episode[row]}, step {step[row]}: {values[row]:.3g}" for row in top]
    blocks = [
        figure(
            _chunks(np.asarray(normalize(demonstrated, normalizer)), np.asarray(normalize(answers, normalizer)), captions, dimensions),
            "Solid: demonstrated. Dashed: the policy's answer.",
        )
    ]
    if pictures is not None:
        blocks.append(gallery(image(frame, caption) for frame, caption in zip(pictures, captions, strict=True)))
    text = "High is a bad fit, by this policy. It is a reason to look, not a verdict: rare and difficult moments fit badly too."
    sections = [
        Section("Episodes", text, [table(("episode", "record", "instruction", f"mean {word}", "highest", "chunks"), rows)]),
        Section("Chunks", "Those that fit worst, each dimension normalised.", blocks),
        Section("All chunks", "", [figure(_histogram(values, top, word), f"{word} of every chunk; orange: drawn above.")]),
    ]
    return write_page(path, title, sections, subtitle, {"episodes": len(names), "chunks": len(values)})


@matplotlib.rc_context(STYLE)
def _chunks(
    demonstrated: Float[np.ndarray, "m h a"], answers: Float[np.ndarray, "m h a"], captions: Sequence[str], dimensions: Sequence[str]
) -> Figure:
    rows = -(-len(captions) // 3)
    drawing, axes = canvas(rows, min(3, len(captions)), height=0.35 + 1.9 * rows)
    for axis, actions, answer, caption in zip(axes, demonstrated, answers, captions, strict=False):
        axis.set_title(caption)
        axis.set_xlabel("step of the chunk")
        for place, name in enumerate(dimensions):
            colour = SERIES[place] if len(dimensions) <= len(SERIES) else matplotlib.colormaps["turbo"](place / (len(dimensions) - 1))
            axis.plot(actions[:, place], color=colour, label=name)
            axis.plot(answer[:, place], color=colour, linestyle="--", linewidth=1)
    axes[0].set_ylabel("normalised")
    axes[0].legend()
    for axis in axes[len(captions) :]:
        axis.set_axis_off()
    return drawing


@matplotlib.rc_context(STYLE)
def _histogram(values: Float[np.ndarray, " n"], top: Int[np.ndarray, " m"], word: str) -> Figure:
    drawing, (axis,) = canvas(1, 1, height=2.2)
    finite = values[np.isfinite(values)]
    axis.hist(finite, bins=60, color=BLUE, alpha=0.7)
    for value in values[top]:
        axis.axvline(value, color=ORANGE, linewidth=0.8)
    axis.set_xlabel(word)
    axis.set_ylabel("chunks", color=MUTED)
    return drawing

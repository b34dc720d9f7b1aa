"""One HTML page that needs nothing beside itself: figures, pictures and videos are inside it, and it follows dark mode.

Blocks are made here and put together by the caller:

    section = Section("Closed loop", "Fifty episodes.", [table(("task", "success"), rows), figure(plot, "One row a task.")])
    write_page("runs/sample/report.html", "sample", [section])
"""

import base64
import io
import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import jinja2
import numpy as np
from jaxtyping import UInt8
from markupsafe import Markup
from matplotlib.figure import Figure
from PIL import Image

from ebt_jax.report.style import BLUE, GREEN, GRID, INK, MUTED, ORANGE, PAPER, PURPLE, to_svg
from ebt_jax.whole import write_whole

_THEME = {
    INK: "var(--ink)",
    MUTED: "var(--muted)",
    GRID: "var(--line)",
    PAPER: "var(--paper)",
    BLUE: "var(--blue)",
    ORANGE: "var(--orange)",
    GREEN: "var(--green)",
    PURPLE: "var(--purple)",
    "'DejaVu Sans'": "var(--sans)",
}


class Section(NamedTuple):
    """A heading, a paragraph that says what to see, and the blocks to see it in."""

    title: str
    text: str
    blocks: Sequence[Markup]


def write_page(
    path: str | os.PathLike[str],
    title: str,
    sections: Sequence[Section],
    subtitle: str = "",
    summary: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes the page whole or not at all; `summary` are the few numbers a reader came for."""
    source = pathlib.Path(__file__).with_name("page.html.jinja").read_text()
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(source)
    text = template.render(title=title, subtitle=subtitle, sections=sections, summary=numbers(summary) if summary else "")
    path = pathlib.Path(path)
    write_whole(path, text)
    return path


def numbers(values: Mapping[str, Any]) -> Markup:
    """A row of large numbers with their names."""
    cells = Markup().join(Markup("<div><dt>{}</dt><dd>{}</dd></div>").format(name, show(value)) for name, value in values.items())
    return Markup('<dl class="numbers">{}</dl>').format(cells)


def table(header: Sequence[str], rows: Iterable[Sequence[Any]]) -> Markup:
    """Numbers on the right with four digits, everything else on the left."""
    rows = [list(row) for row in rows]
    right = [bool(rows) and all(isinstance(row[i], int | float | np.number) for row in rows) for i in range(len(header))]

    def line(tag: str, cells: Sequence[Any]) -> Markup:
        kinds = [Markup(' class="number"') if is_number else Markup() for is_number in right]
        inside = (Markup("<{0}{1}>{2}</{0}>").format(tag, kind, show(cell)) for kind, cell in zip(kinds, cells, strict=True))
        return Markup("<tr>{}</tr>").format(Markup().join(inside))

    body = Markup("\n").join(line("td", row) for row in rows)
    return Markup('<div class="scroll"><table>\n<thead>{}</thead>\n<tbody>{}</tbody>\n</table></div>').format(line("th", header), body)


def figure(content: Figure | str, caption: str) -> Markup:
    """A matplotlib figure, or the SVG that `style.to_svg` made of one, inline; its ink takes the colours of the page."""
    text = to_svg(content) if isinstance(content, Figure) else content
    for colour, variable in _THEME.items():
        text = text.replace(colour, variable)
    size = re.search(r'<svg[^>]*? width="([\d.]+)pt"', text)
    width = f"{float(size[1]) * 1.4:.0f}px" if size else "100%"  # 1.4: figures are drawn for a page of 60rem
    text = re.sub(r'(<svg[^>]*?) width="[\d.]+pt" height="[\d.]+pt"', r"\1", text, count=1).removeprefix("<svg")
    opening = Markup('<svg role="img" aria-label="{}" style="max-width: {}"').format(caption, width)
    return Markup("<figure>{}{}{}</figure>").format(opening, Markup(text), _caption(caption))


def image(pixels: UInt8[np.ndarray, "y x c"], caption: str) -> Markup:
    """RGB pixels as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG", optimize=True)
    return Markup('<figure><img alt="{}" src="{}">{}</figure>').format(caption, _inline("image/png", buffer.getvalue()), _caption(caption))


def video(path: str | os.PathLike[str], caption: str) -> Markup:
    """An MP4 file, playing in a loop without sound."""
    source = _inline("video/mp4", pathlib.Path(path).read_bytes())
    return Markup('<figure><video src="{}" autoplay loop muted playsinline controls></video>{}</figure>').format(source, _caption(caption))


def gallery(blocks: Iterable[Markup]) -> Markup:
    """Pictures or videos side by side."""
    return Markup('<div class="gallery">{}</div>').format(Markup().join(blocks))


def fold(title: str, block: Markup) -> Markup:
    """A block that opens on a click."""
    return Markup("<details><summary>{}</summary>{}</details>").format(title, block)


def code(text: str) -> Markup:
    """Text as it is, in a fixed-width font."""
    return Markup("<pre>{}</pre>").format(text)


def show(value: Any) -> str | Markup:
    """What a reader wants of a value: four digits of a number, yes or no, nothing for None."""
    if isinstance(value, Markup):
        return value
    if value is None:
        return ""
    if isinstance(value, bool | np.bool_):
        return "yes" if value else "no"
    if isinstance(value, int | np.integer):
        return str(value)
    if isinstance(value, float | np.floating):
        return f"{value:.4g}"
    return str(value)


def _inline(kind: str, data: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def _caption(text: str) -> Markup:
    return Markup("<figcaption>{}</figcaption>").format(text) if text else Markup()

"""Episodes beside each other, as frames: all of one initial state, who acts above, what came of it below."""

import pathlib
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from ebt_jax.evaluation.measured import EpisodeResult

STRIP = 22
"""Pixels of the line of text above and below each picture."""
GIF_WIDTH, GIF_FPS, GIF_SPEED = 150, 10.0, 4.0
"""Of a picture, pixels; of the whole: pictures a second, and how many times as fast as the robot."""
PAUSE_SECONDS = 1.0
"""The last picture stays so long."""


class Film(NamedTuple):
    """One answer's episode.

    Attributes:
      label: above the pictures.
      frames: at `fps`, one every so many steps.
      result: what came of it.
    """

    label: str
    frames: UInt8[np.ndarray, "n y x 3"]
    fps: float
    steps_a_frame: float
    result: EpisodeResult

    @property
    def score(self) -> float:
        return self.result.metrics.get("score", float(self.result.success))


def side_by_side(films: Sequence[Film], condition: str, at: int) -> UInt8[np.ndarray, "n y x 3"]:
    """Episodes of one initial state from left to right, those that end sooner waiting; above who acts, below what came of it.

    Args:
      condition: said below from step `at` on.
    """
    pause = round(PAUSE_SECONDS * films[0].fps)
    length = max(len(one.frames) for one in films) + pause
    columns = []
    for one in films:
        frames = np.concatenate([one.frames, np.repeat(one.frames[-1:], length - len(one.frames), axis=0)])
        first = round(at / one.steps_a_frame) if condition else length
        below = [condition if number >= first else "" for number in range(length)]
        below = [f"score {one.score:.2f}" if number >= len(one.frames) - 1 else text for number, text in enumerate(below)]
        strips = {text: _strip(text, frames.shape[2]) for text in {one.label, *below}}
        columns.append(
            np.stack([np.concatenate([strips[one.label], frame, strips[text]]) for frame, text in zip(frames, below, strict=True)])
        )
    return np.concatenate(columns, axis=2)


def write_gif(path: pathlib.Path, frames: UInt8[np.ndarray, "n y x 3"], fps: float, width: int) -> None:
    """At about `GIF_FPS`, `GIF_SPEED` times as fast, `width` pixels wide in all: small enough for a page."""
    path.parent.mkdir(parents=True, exist_ok=True)
    every = max(1, round(GIF_SPEED * fps / GIF_FPS))
    size = (width, round(frames.shape[1] * width / frames.shape[2]))
    pictures = [Image.fromarray(frame).resize(size).quantize(32) for frame in frames[::every]]
    pictures[0].save(path, save_all=True, append_images=pictures[1:], duration=round(1000 * every / fps / GIF_SPEED), loop=0, optimize=True)


def _strip(text: str, width: int) -> UInt8[np.ndarray, "y x 3"]:
    """A line of text on white."""
    image = Image.new("RGB", (width, STRIP), "white")
    ImageDraw.Draw(image).text((6, STRIP // 2), text, fill="black", font=ImageFont.load_default(13), anchor="lm")
    return np.asarray(image)

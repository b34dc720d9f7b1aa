"""A scene drawn from numbers alone, for machines that cannot render: seen from above and from the side, one colour a thing."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, ImageDraw

SIZE = 192
COLOURS = {"hand": (40, 40, 40), "object": (200, 60, 40), "object2": (210, 140, 30), "goal": (40, 140, 60)}
OTHERS = (170, 170, 165)


def sketch(
    points: Mapping[str, Float[np.ndarray, "3"]],
    low: Float[np.ndarray, "3"],
    high: Float[np.ndarray, "3"],
    opening: float,
    caption: str,
) -> UInt8[np.ndarray, "y x 3"]:
    """`points` (metres, names of `COLOURS`, others grey) in the box from `low` to `high`: left from above (x, y), right aside (y, z).

    `opening` in [0, 1] sets the distance of the two fingers around the hand.
    """
    image = Image.new("RGB", (2 * SIZE, SIZE + 16), (250, 250, 248))
    draw = ImageDraw.Draw(image)
    for panel, (across, up, title) in enumerate([(0, 1, "from above"), (1, 2, "from the side")]):
        left = panel * SIZE
        draw.rectangle((left, 0, left + SIZE - 1, SIZE - 1), outline=(210, 210, 205))
        draw.text((left + 6, 4), title, fill=(150, 150, 150))
        for name, point in points.items():
            fraction = np.clip((point - low) / (high - low), 0.02, 0.98)
            x, y = left + fraction[across] * SIZE, (1 - fraction[up]) * SIZE
            if name == "goal":
                draw.ellipse((x - 9, y - 9, x + 9, y + 9), outline=COLOURS[name], width=2)
            elif name == "hand":
                gap = 3 + 7 * opening
                for side in (-gap, gap):
                    draw.line((x + side, y - 7, x + side, y + 5), fill=COLOURS[name], width=3)
                draw.line((x - gap, y - 7, x + gap, y - 7), fill=COLOURS[name], width=3)
            else:
                draw.ellipse((x - 5, y - 5, x + 5, y + 5), fill=COLOURS.get(name, OTHERS))
    draw.text((6, SIZE + 2), caption, fill=(90, 90, 90))
    return np.asarray(image)

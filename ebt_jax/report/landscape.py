"""E(o, .) on a plane of chunk space: where the descent came from, where it went, and what the demonstrator did.

A chunk has h * a numbers; a picture has two. The plane through three chunks (the returned one, the noise it started from, the
demonstration) contains all three exactly, so distances between them in the picture are true. Only the path between is projected.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.colors import PowerNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ebt_jax.report.style import ENERGY, MUTED, ON_DATA, ORANGE, STYLE, canvas


class Plane(NamedTuple):
    """origin + x * first + y * second; one unit is one root mean square unit of a normalised action."""

    origin: Float[np.ndarray, "h a"]
    first: Float[np.ndarray, "h a"]
    second: Float[np.ndarray, "h a"]

    def at(self, coordinates: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n h a"]:
        """The chunks at (x, y)."""
        return self.origin + np.tensordot(coordinates, np.stack([self.first, self.second]), 1)

    def project(self, chunks: Float[np.ndarray, "n h a"]) -> Float[np.ndarray, "n 2"]:
        """(x, y) of each chunk's nearest point in the plane."""
        return np.stack([np.mean((chunks - self.origin) * axis, axis=(1, 2)) for axis in (self.first, self.second)], axis=1)


class Slice(NamedTuple):
    """Energies on a grid: energy[j, i] at (x[i], y[j])."""

    x: Float[np.ndarray, " i"]
    y: Float[np.ndarray, " j"]
    energy: Float[np.ndarray, "j i"]


class Window(NamedTuple):
    """A square of the plane."""

    centre: Float[np.ndarray, " 2"]
    half: float

    @classmethod
    def around(cls, points: Float[np.ndarray, "n 2"], margin: float) -> "Window":
        """Holds `points`, with `margin` times its side to spare all around."""
        low, high = points.min(0), points.max(0)
        return cls((low + high) / 2, max(float(np.max(high - low)) * (0.5 + margin), 0.2))

    @property
    def x(self) -> tuple[float, float]:
        return float(self.centre[0]) - self.half, float(self.centre[0]) + self.half

    @property
    def y(self) -> tuple[float, float]:
        return float(self.centre[1]) - self.half, float(self.centre[1]) + self.half


def plane_through(
    origin: Float[np.ndarray, "h a"], first: Float[np.ndarray, "h a"], second: Float[np.ndarray, "h a"], seed: int = 0
) -> Plane:
    """The plane with `origin` at (0, 0), `first` on the positive x axis and `second` at y >= 0.

    Where a point adds no direction of its own (it coincides with the origin or lies on the x axis) a random one from `seed` serves.
    """
    generator = np.random.default_rng(seed)

    def unit(direction: Float[np.ndarray, "h a"]) -> Float[np.ndarray, "h a"]:
        return direction / np.sqrt(np.mean(direction**2))

    def orthogonal(direction: Float[np.ndarray, "h a"], to: Float[np.ndarray, "h a"]) -> Float[np.ndarray, "h a"]:
        return direction - np.mean(direction * to) * to

    along = first - origin
    along = unit(along if np.any(np.abs(along) > 1e-6) else generator.normal(size=origin.shape))
    across = orthogonal(second - origin, along)
    if np.sqrt(np.mean(across**2)) < 1e-6:
        across = orthogonal(generator.normal(size=origin.shape), along)
    return Plane(origin, along, unit(across))


def energy_slice(
    energy_fn: Callable[[Any], Any],
    plane: Plane,
    x: tuple[float, float],
    y: tuple[float, float],
    resolution: int = 61,
    batch_size: int = 256,
) -> Slice:
    """Energies over a rectangle of `plane`, `resolution` points a side; `energy_fn`: [batch_size h a] float32 -> [batch_size].

    Every call has the same batch size, so a jitted energy is compiled once.
    """
    xs, ys = np.linspace(*x, resolution), np.linspace(*y, resolution)
    chunks = plane.at(np.stack(np.meshgrid(xs, ys), axis=-1).reshape(-1, 2)).astype(np.float32)
    padding = np.repeat(chunks[-1:], -len(chunks) % batch_size, axis=0)
    batches = np.concatenate([chunks, padding]).reshape(-1, batch_size, *chunks.shape[1:])
    energies = np.concatenate([np.asarray(energy_fn(batch), np.float64) for batch in batches])
    return Slice(xs, ys, energies[: len(chunks)].reshape(resolution, resolution))


@matplotlib.rc_context(STYLE)
def landscape(
    energy_fn: Callable[[Any], Any], path: Float[np.ndarray, "k1 h a"], demonstration: Float[np.ndarray, "h a"], resolution: int = 41
) -> Figure:
    """The slice through start, returned chunk and demonstration: the whole descent on the left, its end enlarged on the right.

    Args:
      energy_fn: normalised chunks [n h a] -> [n], the observation bound.
      path: the chunk before each step and after the last, normalised; the last one is the returned chunk.
      demonstration: what the demonstrator did from the same observation, normalised.
    """
    plane = plane_through(path[-1], path[0], demonstration)
    route, goal = plane.project(path), plane.project(demonstration[None])[0]
    whole = Window.around(np.concatenate([route, goal[None], -0.35 * route[:1]]), margin=0.3)
    near = Window(np.zeros(2), min(max(2 * float(np.abs(goal).max()), 0.1), 0.6 * whole.half))
    figure, axes = canvas(1, 2, height=4.4)
    for axis, window, title in zip(axes, (whole, near), ("the whole descent", "around the returned chunk"), strict=True):
        part = energy_slice(energy_fn, plane, window.x, window.y, resolution)
        image = _draw_slice(axis, part)
        _draw_path(axis, route, goal)
        axis.set_xlim(*window.x)
        axis.set_ylim(*window.y)
        axis.set_title(title)
        bar = figure.colorbar(image, ax=axis, shrink=0.82, aspect=28, pad=0.02)
        bar.outline.set_visible(False)
        bar.ax.set_title("E − min", fontsize=7.5, color=MUTED, pad=6, loc="left")
    corner = (near.x[0], near.y[0])
    axes[0].add_patch(Rectangle(corner, 2 * near.half, 2 * near.half, fill=False, edgecolor="white", linewidth=0.9, linestyle=(0, (3, 2))))
    axes[0].set_xlabel("towards the start noise  (root mean square, normalised units)")
    axes[1].set_xlabel("towards the start noise")
    axes[0].set_ylabel("towards the demonstration")
    axes[1].legend(loc="lower left", labelcolor=ON_DATA, facecolor="white", framealpha=0.85, frameon=True, edgecolor="none", fontsize=7.5)
    return figure


def _draw_slice(axis: Axes, part: Slice) -> Any:
    height = part.energy - part.energy.min()
    image = axis.imshow(
        height,
        extent=(part.x[0], part.x[-1], part.y[0], part.y[-1]),
        origin="lower",
        interpolation="bicubic",
        cmap=ENERGY,
        norm=PowerNorm(0.5),
        aspect="equal",
    )
    levels = np.quantile(height, np.linspace(0, 1, 14)[1:-1])
    axis.contour(part.x, part.y, height, levels=np.unique(levels), colors="white", linewidths=0.5, alpha=0.55)
    axis.grid(visible=False)
    for spine in axis.spines.values():
        spine.set_visible(False)
    return image


def _draw_path(axis: Axes, route: Float[np.ndarray, "k1 2"], goal: Float[np.ndarray, " 2"]) -> None:
    casing = [withStroke(linewidth=3.2, foreground="white")]
    axis.plot(*route.T, color=ORANGE, linewidth=1.7, path_effects=casing, zorder=3)
    axis.scatter(*route[:-1].T, s=20, color=ORANGE, edgecolors="white", linewidths=0.9, zorder=4, label="descent, one dot a step")
    axis.scatter(*goal, s=58, marker="D", color="white", edgecolors=ON_DATA, linewidths=1.1, zorder=5, label="demonstration")
    axis.scatter(*route[-1], s=150, marker="*", color=ORANGE, edgecolors="white", linewidths=0.9, zorder=6, label="returned chunk")

"""The pictures of docs/algorithm.md: what each method learns of a fork in the plane, and how it walks there.

    python docs/make_landscapes.py --output=docs/images

Trains every method for 2,500 updates on tests/toys/fork.py (an MLP of three layers of 64 units, seed 0) and draws, for one
observation, the energy where there is one, else the truth's contours, and the paths of 48 samples. Then equilibrium with and without
the tie, three seeds each, energies of demonstrated pairs against the true -log p(a|o). Five minutes on one core.
"""

import io
import pathlib
import sys

import jax
import jax.numpy as jnp
import matplotlib
import numpy as np
from absl import app, flags
from matplotlib.colors import PowerNorm
from PIL import Image

sys.path.append(str(pathlib.Path(__file__).parents[1] / "tests" / "toys"))
import bimodal
import fork

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method, method_settings
from ebt_jax.report.style import ENERGY, ON_DATA, ORANGE, SERIES, STYLE, canvas

OUTPUT = flags.DEFINE_string("output", "docs/images", "Folder for the pictures.")
UPDATES = flags.DEFINE_integer("updates", 2500, "Updates of each network.")

METHODS = {
    "ebt, MSE, 2 steps": ({"name": "ebt"}, MCMC(num_steps=2), 2),
    "ebt, energy score, 2 steps": ({"name": "ebt", "objective": "energy_score"}, MCMC(num_steps=2), 2),
    "equilibrium, 5 steps": ({"name": "equilibrium", "travel": 0.0}, MCMC(step_size=0.3), 5),
    "contrastive, 50 steps": ({"name": "contrastive"}, MCMC(), 50),
    "flow, 10 steps": ({"name": "flow"}, MCMC(), 10),
    "diffusion, 100 steps": ({"name": "diffusion"}, MCMC(), 100),
    "regression": ({"name": "regression"}, MCMC(), 1),
}
REACH = 1.5
"""How far the fork's answers lie from 0, about: for methods that confine chunks to a box."""
NUMBERS = jnp.array([[-0.4, 0.2, 0.0, 0.0, 0.0, 0.0]])
"""The observation that is drawn: its two answers lie at +-(cos .52, -sin .52), s = .17."""

HALF, RESOLUTION, PATHS, LONGEST = 2.2, 121, 48, 11


def make(settings, mcmc):
    model = bimodal.model_for(method_settings(settings).head, fork.ACTION_SHAPE, fork.OBSERVED, 64)
    return make_method(settings, mcmc, model, REACH)


def trained(method, seed=0):
    return bimodal.train(method, UPDATES.value, batch=128, seed=seed, draw=fork.draw)


def draw_field(axis, height, learnt=True):
    height = height - height.min()
    limits = (-HALF, HALF, -HALF, HALF)
    levels = np.unique(np.quantile(height, np.linspace(0, 1, 13)[1:-1]))
    if not learnt:
        axis.contour(height, levels=levels, extent=limits, colors=ON_DATA, linewidths=0.5, alpha=0.2)
        return
    norm = PowerNorm(0.5, vmin=0, vmax=float(np.quantile(height, 0.98)))
    axis.imshow(height, extent=limits, origin="lower", cmap=ENERGY, norm=norm, interpolation="bilinear")
    axis.contour(height, levels=levels, extent=limits, colors="white", linewidths=0.5, alpha=0.6)


def draw_paths(axis, paths):
    """paths [k m 2]; of long ones, which are random walks, the ends alone."""
    if len(paths) <= LONGEST:
        axis.plot(*np.moveaxis(paths, 2, 0), color=ORANGE, linewidth=0.7, alpha=0.7)
    axis.scatter(*paths[0].T, s=5, color="white", edgecolors=ON_DATA, linewidths=0.4, zorder=3)
    axis.scatter(*paths[-1].T, s=13, color=ORANGE, edgecolors="white", linewidths=0.5, zorder=4)
    axis.scatter(*np.asarray(fork.modes(NUMBERS))[:, 0, 0].T, marker="+", s=60, color=ON_DATA, linewidths=1.1, zorder=5)


def landscapes():
    figure, axes = canvas(2, 4, height=5.5)
    ticks = np.linspace(-HALF, HALF, RESOLUTION, dtype=np.float32)
    grid = jnp.asarray(np.stack(np.meshgrid(ticks, ticks), -1).reshape(-1, 1, 2))
    observed = lambda rows: fork.observe(jnp.broadcast_to(NUMBERS, (rows, fork.OBSERVED)))
    square = lambda values: np.asarray(values).reshape(RESOLUTION, RESOLUTION)
    axes[0].set_title("the truth: −log p(a|o)")
    truth = square(-fork.log_density(jnp.broadcast_to(NUMBERS, (len(grid), fork.OBSERVED)), grid))
    draw_field(axes[0], truth)
    demonstrated = fork.draw_actions(jax.random.key(1), jnp.broadcast_to(NUMBERS, (PATHS, fork.OBSERVED)))
    draw_paths(axes[0], np.asarray(demonstrated)[None, :, 0])
    for axis, (title, (settings, mcmc, num_steps)) in zip(axes[1:], METHODS.items(), strict=True):
        method = make(settings, mcmc)
        params = trained(method)
        if method.energy is None:
            draw_field(axis, truth, learnt=False)
        else:
            draw_field(axis, square(jax.jit(method.energy)(params, method.encode(params, observed(len(grid))), grid)))
        keys = jax.random.split(jax.random.key(2), PATHS)
        sample = jax.jit(method.sample, static_argnums=3)(params, method.encode(params, observed(PATHS)), keys, num_steps)
        draw_paths(axis, np.asarray(sample.trace_actions)[:, :, 0])
        axis.set_title(title)
    for axis in axes:
        axis.set(xlim=(-HALF, HALF), ylim=(-HALF, HALF), xticks=(), yticks=(), aspect="equal")
        axis.grid(visible=False)
    return figure


def levels():
    figure, axes = canvas(1, 2, height=3.0, width=7.2)
    numbers = fork.draw_numbers(jax.random.key(99), 200)
    actions = fork.draw_actions(jax.random.key(98), numbers)
    truth = -np.asarray(fork.log_density(numbers, actions))
    for axis, weight, title in zip(axes, (0.0, 0.1), ("descent alone", "with the tie, weight 0.1"), strict=True):
        method = make({"name": "equilibrium", "tie_weight": weight}, MCMC())
        params = jax.vmap(lambda seed, method=method: trained(method, seed))(jnp.arange(3))
        for seed, colour in enumerate(SERIES[:3]):
            one = jax.tree.map(lambda x, seed=seed: x[seed], params)
            energy = np.asarray(method.energy(one, method.encode(one, fork.observe(numbers)), actions))
            axis.scatter(truth, energy - energy.mean(), s=6, color=colour, alpha=0.7, linewidths=0, label=f"seed {seed}")
        axis.set_title(title)
        axis.set_xlabel("−log p(a|o), the truth")
    axes[0].set_ylabel("E(o, a) − mean")
    axes[0].legend()
    return figure


def save(figure, name):
    """As a PNG of 64 colours, on white."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=130, facecolor="white")
    path = pathlib.Path(OUTPUT.value) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.open(buffer).convert("RGB").quantize(64).save(path, optimize=True)
    print(f"{path}: {path.stat().st_size / 1000:.0f} kB", flush=True)


def main(argv):
    with matplotlib.rc_context(STYLE):
        save(levels(), "levels.png")
        save(landscapes(), "landscapes.png")


if __name__ == "__main__":
    app.run(main)

"""Descents on what a run's own data hold out, for its report. Apart: who only reads reports needs neither data nor checkpoints."""

import pathlib

from absl import logging

from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import open_mixture
from ebt_jax.data.settings import DataSettings
from ebt_jax.loading import load
from ebt_jax.report.descents import draw_policy

PICTURED = 64
"""Held-out observations whose descents the report shows."""


def draw_held_out(workdir: str | pathlib.Path, settings: DataSettings, seed: int) -> None:
    """`draw_policy` of a finished run on what its data hold out; where that is nothing, the report goes without, and the log says so."""
    mixture = open_mixture(settings).alone
    try:
        batches = make_loader(mixture, "validation", batch_size=PICTURED, seed=seed)
    except ValueError as error:
        logging.warning("the report shows no descents, which are drawn on held-out observations: %s", error)
        return
    draw_policy(workdir, load(workdir), next(batches))

"""Between a run's state and its checkpoints: what is saved, and how it comes back on whatever devices there are."""

import json
from collections.abc import Mapping
from typing import Any

from jax.sharding import Mesh

from ebt_jax.checkpoint import Assets, Checkpoints, pack
from ebt_jax.data.mixture import Mixture
from ebt_jax.formats import format_file
from ebt_jax.sharding import abstract
from ebt_jax.training.state import TrainState


def save(checkpoints: Checkpoints, state: TrainState, assets: Assets) -> None:
    """Starts saving the state under its step."""
    training = {"opt_state": state.opt_state, "key": state.key, "step": state.step}
    checkpoints.save(int(state.step), {"params": state.params, "ema_params": state.ema_params, "training": training}, assets)


def restore(checkpoints: Checkpoints, shapes: TrainState, mesh: Mesh) -> TrainState:
    """The newest state, placed on this mesh, whatever mesh it was saved from."""
    placed = abstract(shapes, mesh)
    step = checkpoints.steps[-1]
    training = {"opt_state": placed.opt_state, "key": placed.key, "step": placed.step}
    training = checkpoints.restore(step, "training", training)
    return TrainState(
        step=training["step"],
        params=checkpoints.restore(step, "params", placed.params),
        ema_params=checkpoints.restore(step, "ema_params", placed.ema_params),
        opt_state=training["opt_state"],
        key=training["key"],
    )


def checkpoint_assets(config: Mapping[str, Any], mixture: Mixture, step: int) -> Assets:
    """What a policy needs beside the parameters."""
    return {
        "config.json": json.dumps(config, indent=2, sort_keys=True).encode(),
        "specs.json": mixture.specs.to_json().encode(),
        "statistics.json": mixture.statistics.to_json().encode(),
        "datasets.json": mixture.manifest().encode(),
        "loader.json": json.dumps({"next_batch": step}).encode(),
        "example_batch.npz": pack(mixture.example_batch(1)),
        "format.json": format_file(),
    }

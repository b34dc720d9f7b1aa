"""A path -> what a run has learnt so far: settings, specs, statistics and plain parameters, adapters merged."""

import dataclasses
import json
import pathlib
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding

from ebt_jax.checkpoint import Checkpoints, locate
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.union import Place, alone
from ebt_jax.models.config import ModelConfig
from ebt_jax.normalize import Statistics
from ebt_jax.policy import empty_batch
from ebt_jax.specs import Specs
from ebt_jax.training.optimizer import plain, tuned
from ebt_jax.training.settings import Settings, dataset_statistics
from ebt_jax.types import Method, Params


class Trained(NamedTuple):
    """What one checkpoint holds.

    Attributes:
      params: those of `method`.
      calibration: the text of calibration.json, or "".
      datasets: that of datasets.json (`data.mixture.Mixture.manifest`).
    """

    step: int
    settings: Settings
    specs: Specs
    statistics: Statistics
    method: Method
    params: Params
    calibration: str
    datasets: str


def acting(model: ModelConfig) -> ModelConfig:
    """The same network, arranged for acting: nothing is recomputed, layers are one program in place of a loop, and attention is plain.

    Recomputing would cost a third forward pass a step. A loop over layers starts its kernels one by one: on one H200 four steps of the
    300 M network at batch 1 took 16.8 ms so, and 8.8 ms without (`benchmarks/results/latency_gpu.json`).
    An artifact's programs are for every platform, which a GPU's kernel in the encoder is not: what acts computes as what is exported.
    """
    return dataclasses.replace(model, remat=False, unroll=max(model.unroll, model.decoder_layers), encoder_attention="einsum")


def read_trained(path: str | pathlib.Path, what: str, *, ema: bool = True, sharding: Sharding | None = None) -> Trained:
    """The newest checkpoint of a workdir or of its checkpoints folder, or the step folder that `path` is.

    Args:
      what: the name of `path` in errors.
      sharding: of every parameter; the first device where None.

    Raises CheckpointError where there is none, or where it does not fit its own configuration.
    """
    directory, step = locate(path, what)
    with Checkpoints(directory, read_only=True) as checkpoints:
        assets = checkpoints.assets(step)
        settings = Settings.from_dict(_without_files(json.loads(assets["config.json"]), assets["datasets.json"].decode()))
        specs = Specs.from_json(assets["specs.json"].decode())
        statistics = Statistics.from_json(assets["statistics.json"].decode())
        acted = dataclasses.replace(settings, model=acting(settings.model))
        method = acted.make_method(specs, statistics, assets["datasets.json"].decode())
        place = sharding or SingleDeviceSharding(jax.devices()[0])
        abstract = jax.eval_shape(tuned(method, settings.optimizer).init, jax.random.key(0), empty_batch(specs))
        placed = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), abstract)
        params = checkpoints.restore(step, "ema_params" if ema else "params", placed)
    calibration, datasets = assets.get("calibration.json", b"").decode(), assets["datasets.json"].decode()
    return Trained(step, settings, specs, statistics, method, plain(params, settings.optimizer), calibration, datasets)


def acting_as(trained: Trained, robot: str = "") -> tuple[Trained, str]:
    """What the run learnt, for one of its robots: specs, statistics and method of that dataset's numbers; and the dataset's name.

    Args:
      robot: a dataset of the run's mixture; "" is the heaviest, the first among equals.

    Raises ValueError for another name, and for a union that was trained before its checkpoints said where each robot's state stands.
    """
    trees = json.loads(trained.datasets)
    main = max(trees, key=lambda tree: tree["share"])
    tree = next((tree for tree in trees if tree["name"] == robot), None) if robot else main
    if tree is None:
        raise ValueError(f"robot must be one of the datasets that the policy learnt from, {[t['name'] for t in trees]}, got {robot!r}.")
    if tree.get("action_columns") is None:
        if tree is main:
            return trained, tree["name"]
        return trained._replace(statistics=dataset_statistics(tree), calibration=""), tree["name"]
    if "proprio_columns" not in tree:
        if robot:
            raise ValueError(f"robot must be left out for a union whose checkpoint does not place its robots' states, got {robot!r}.")
        return trained, ""
    place = Place(*(np.array(tree[name], np.int64) for name in ("action_columns", "proprio_columns")))
    acted = dataclasses.replace(trained.settings, model=acting(trained.settings.model))
    return (
        trained._replace(
            specs=alone(trained.specs, DatasetSpec.from_json(json.dumps(tree["spec"]))),
            statistics=dataset_statistics(tree),
            method=acted.make_method(trained.specs, trained.statistics, trained.datasets, place),
            calibration=trained.calibration if tree is main else "",
        ),
        tree["name"],
    )


def _without_files(config: dict[str, Any], datasets: str) -> dict[str, Any]:
    """The config of an older run, which named a mixture's file, with what its datasets' shares were: the file may be gone, or another."""
    if not str(config["data"]["mixture"]).endswith(".json"):
        return config
    shares = {tree["name"]: tree["share"] for tree in json.loads(datasets)}
    return {**config, "data": {**config["data"], "mixture": shares, "weighting": "given"}}

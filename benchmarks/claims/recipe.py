"""From settings to what a cell runs: one configuration, and as many updates as its operations buy."""

import copy
import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax

from benchmarks.claims.cells import Cell, evaluation_seed, parts
from benchmarks.claims.demonstrations import dataset
from benchmarks.claims.settings import Sampler, Settings
from ebt_jax.flops import count_flops
from ebt_jax.policy import empty_batch
from ebt_jax.specs import Specs
from ebt_jax.training import settings as training
from ebt_jax.training.optimizer import tuned

CHECKPOINTS = 4
"""Times a training is saved: what a kill can cost is a quarter of it."""


class Recipe(NamedTuple):
    """What decides a cell's numbers, machine apart.

    Attributes:
      config: of training, whose `num_steps` and warm-up the budget sets later, and without its data folder.
      samplers: name -> how the policy is asked.
      episodes: of each task, of each sampler.
      flops: of training, all of it.
      warmup: share of the updates.
      pretraining: its configuration and share of the operations, where there is one.
    """

    config: dict[str, Any]
    samplers: dict[str, Sampler]
    episodes: int
    flops: float
    warmup: float
    pretraining: tuple[dict[str, Any], float] | None = None

    @property
    def trial(self) -> str:
        """Eight letters of the hash of what is trained, without seeds: the same for every seed of one try, however it is asked."""
        trained = {**self._asdict(), "config": _seedless(self.config)}
        del trained["samplers"]
        if self.pretraining is None:
            del trained["pretraining"]
        else:
            trained["pretraining"] = (_seedless(self.pretraining[0]), self.pretraining[1])
        return hashlib.sha256(json.dumps(trained, sort_keys=True).encode()).hexdigest()[:8]


def recipe(settings: Settings, cell: Cell, changes: Mapping[str, Any] | None = None, sweep: bool = False) -> Recipe:
    """The scale's configuration, the suite's over it, the contestant's over both, `changes` ("optimizer.learning_rate" -> value) on top.

    Args:
      sweep: ask the samplers of the contestant's sweep, too.

    Raises ValueError for changes in confirmation, and for those of keys that the configuration does not have.
    """
    if changes and cell.phase == "confirmation":
        raise ValueError(f"confirmation must run from the committed settings alone, got changes of {sorted(changes)}.")
    scale = settings.scale(cell.scale)
    suite, contestant = parts(settings, cell)

    def whole(own: Mapping[str, Any]) -> dict[str, Any]:
        config = merge(merge(scale.config, suite.config), own)
        config |= {
            "seed": cell.training_seed,
            "save_interval": 0,
            "eval_interval": 0,
            "eval_batches": 1,
            "keep_checkpoints": suite.checkpoints,
            "log_interval": 0,
        }
        config["evaluation"] = {
            "suite": suite.simulator,
            "tasks": list(suite.tasks),
            "episodes": suite.episodes[cell.phase],
            "seed": evaluation_seed(settings, cell),
        }
        config["data"]["mixture"] = dataset(suite)
        config.setdefault("mesh", {"data": 1, "fsdp": 1})
        return config

    first = contestant.pretraining
    pretraining = (whole(first.config), first.share) if first else None
    samplers = dict(contestant.samplers) | contestant.disturbed(suite.conditions)
    samplers |= contestant.sweep.samplers if sweep and contestant.sweep else {}
    config = changed(whole(contestant.config), changes or {})
    return Recipe(config, samplers, suite.episodes[cell.phase], cell.budget * scale.core_minute, scale.warmup, pretraining)


def stages(what: Recipe, folder: str) -> list[Recipe]:
    """A recipe's trainings, one after the other; the last begins with the parameters that the first leaves in `folder`."""
    if what.pretraining is None:
        return [what]
    config, share = what.pretraining
    first = what._replace(config=config, flops=share * what.flops, pretraining=None)
    return [first, what._replace(config={**what.config, "init_from": folder}, flops=(1 - share) * what.flops, pretraining=None)]


def _seedless(config: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in ("seed", "evaluation")}


def scheduled(config: Mapping[str, Any], updates: int, warmup: float, data_dir: str) -> dict[str, Any]:
    """The configuration of a run of `updates` updates, whose schedule is its own whole one."""
    every = max(1, updates // max(CHECKPOINTS, config["keep_checkpoints"]))
    optimizer = {**config["optimizer"], "warmup_steps": round(warmup * updates)}
    data = {**config["data"], "data_dir": data_dir}
    return {
        **config,
        "num_steps": updates,
        "save_interval": every,
        "log_interval": max(1, updates // 20),
        "data": data,
        "optimizer": optimizer,
    }


def update_flops(settings: training.Settings, specs: Specs) -> int:
    """Operations of one update, counted in the trace of the loss and its gradient at its batch size, observation encoder included.

    Matrix products and convolutions: the optimiser has none. What is computed twice to save memory counts twice, because it is paid twice.
    """
    method = tuned(settings.make_method(specs), settings.optimizer)
    batch = empty_batch(specs, settings.batch_size)
    params = jax.eval_shape(method.init, jax.random.key(0), batch)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), settings.batch_size))
    return count_flops(jax.value_and_grad(method.loss, has_aux=True), params, batch, keys)


def affordable(flops: float, per_update: int) -> int:
    """Updates that `flops` buy, the last one not begun if it does not fit. Raises ValueError where not one does."""
    updates = int(flops // per_update)
    if updates < 1:
        raise ValueError(f"budget must buy at least 1 update of {per_update:.3g} operations, got {flops:.3g}. Make the budget larger.")
    return updates


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with the values of `over`, tables merged likewise; a table with a "name" replaces the one under it whole."""
    merged = copy.deepcopy(dict(base))
    for key, value in over.items():
        below = merged.get(key)
        if isinstance(below, Mapping) and isinstance(value, Mapping) and "name" not in value:
            merged[key] = merge(below, value)
        else:
            merged[key] = copy.deepcopy(value)
    return merged


def changed(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A copy with other values, keys as "optimizer.learning_rate". Raises ValueError for those of tables that are not there."""
    found = copy.deepcopy(dict(config))
    for key, value in changes.items():
        *path, last = key.split(".")
        table = found
        for name in path:
            table = table.get(name)
            if not isinstance(table, dict):
                raise ValueError(f"changes must be of a table of the configuration, got {key!r}: no {name!r} among {sorted(config)}.")
        table[last] = value
    return found

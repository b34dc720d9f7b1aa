"""A whole experiment as frozen dataclasses: what a config file says, checked; what a checkpoint keeps as JSON."""

import dataclasses
import itertools
import json
from collections.abc import Mapping
from typing import Any

from ebt_jax.augment import NO_AUGMENTATION, Augmentation
from ebt_jax.data.settings import DataSettings, Filters, bundled_sample_dir
from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method, method_settings
from ebt_jax.models import make_model
from ebt_jax.models.config import ModelConfig, model_variant
from ebt_jax.normalize import QUANTILE_REACH, Statistics, action_reach
from ebt_jax.specs import ActionDimension, Specs
from ebt_jax.training.optimizer import OptimizerSettings
from ebt_jax.types import Method

BUNDLED = "bundled"
"""As data.data_dir: the sample that comes with the package, wherever that is installed."""

PRECISIONS = ("float32", "bfloat16")

UNKNOWN_REACH = QUANTILE_REACH
"""How far normalised actions are taken to reach, beyond min_max, where nobody has seen the data."""


@dataclasses.dataclass(frozen=True)
class MeshSettings:
    """Devices along each axis; -1 is what is left."""

    data: int = -1
    fsdp: int = 1


@dataclasses.dataclass(frozen=True)
class EvaluationSettings:
    """The closed-loop evaluation that belongs to this experiment; `suite` "" has none. `evaluate` runs it where no suite is given."""

    suite: str = ""
    tasks: tuple[str, ...] = ()
    episodes: int = 50
    seed: int = 0


@dataclasses.dataclass(frozen=True)
class Settings:
    """One training run.

    Attributes:
      num_steps, batch_size: updates, and samples of one update over all devices and hosts.
      log_interval, eval_interval, save_interval: in updates; 0 is never (a checkpoint is always saved at the end).
      eval_batches: validation batches looked at each time.
      keep_checkpoints: the newest so many are kept.
      keep_every: checkpoints of steps divisible by this are kept for ever beside them; 0 keeps none so.
      sample_steps: steps of the sampler at inference; 0 takes the method's own (`Method.sample_steps`).
      execution_horizon: actions executed of each chunk before the next is planned.
      precision: of matrix products; parameters, actions and energies are float32 always.
      method: "name" and that method's own settings.
      init_from: the checkpoint whose parameters the run starts from; "" starts from random ones.
    """

    seed: int
    num_steps: int
    batch_size: int
    log_interval: int
    eval_interval: int
    eval_batches: int
    save_interval: int
    keep_checkpoints: int
    sample_steps: int
    execution_horizon: int
    precision: str
    data: DataSettings
    model: ModelConfig
    method: Mapping[str, Any]
    mcmc: MCMC
    optimizer: OptimizerSettings
    mesh: MeshSettings
    evaluation: EvaluationSettings
    augmentation: Augmentation = NO_AUGMENTATION
    init_from: str = ""
    keep_every: int = 0

    def __post_init__(self) -> None:
        for name in ("num_steps", "batch_size", "keep_checkpoints", "execution_horizon"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}.")
        for name in ("log_interval", "eval_interval", "save_interval", "keep_every", "eval_batches", "sample_steps"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} must be at least 0, got {getattr(self, name)}.")
        if self.execution_horizon > self.data.action_horizon:
            raise ValueError(
                f"execution_horizon must be at most data.action_horizon = {self.data.action_horizon}, got {self.execution_horizon}."
            )
        if self.precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, got {self.precision!r}.")
        method_settings(self.method)

    @classmethod
    def from_dict(cls, tree: Mapping[str, Any]) -> "Settings":
        """From the plain values of a config file or `config.json`. Raises ValueError naming every missing or unknown key."""
        tree = dict(tree)
        _check_keys("", tree, cls)
        data, model = dict(tree["data"]), dict(tree["model"])
        data["cameras"] = tuple(model.pop("cameras"))
        data["proprio"] = tuple(data.get("proprio", DataSettings.proprio))
        if data["data_dir"] == BUNDLED:
            data["data_dir"] = bundled_sample_dir()
        if data["mixture"].startswith("{"):
            data["mixture"] = json.loads(data["mixture"])
        filters = dict(data.get("filters", {}))
        _check_keys("data.filters.", filters, Filters)
        data["filters"] = Filters(**filters)
        model = model_variant(model.pop("variant"), precision=tree["precision"], **model)
        if model.language_weights:
            data.setdefault("tokenizer", model.language_weights)
        tree.setdefault("augmentation", {})
        parts = {"mcmc": MCMC, "optimizer": OptimizerSettings, "mesh": MeshSettings, "augmentation": Augmentation}
        for name, kind in parts.items():
            _check_keys(f"{name}.", tree[name], kind)
        made = {name: kind(**tree[name]) for name, kind in parts.items()}
        held = itertools.chain(*model.frozen.values())
        made["optimizer"] = dataclasses.replace(made["optimizer"], freeze=(*made["optimizer"].freeze, *held))
        evaluation = dict(tree["evaluation"])
        _check_keys("evaluation.", evaluation, EvaluationSettings)
        _check_keys("data.", data, DataSettings)
        return cls(
            **{
                **tree,
                **made,
                "data": DataSettings(**data),
                "model": model,
                "method": dict(tree["method"]),
                "evaluation": EvaluationSettings(**{**evaluation, "tasks": tuple(evaluation.get("tasks", ()))}),
            }
        )

    def check_batch_size(self, devices: int) -> None:
        """Raises ValueError where a batch does not split into equal parts."""
        parts = devices * self.optimizer.accumulate_steps
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size must be a multiple of devices x optimizer.accumulate_steps = {devices} x "
                f"{self.optimizer.accumulate_steps}, got {self.batch_size}."
            )

    def make_method(self, specs: Specs, statistics: Statistics | None = None, datasets: str = "") -> Method:
        """The experiment's method over its model, for data and robots of these specs.

        Args:
          statistics: of the data, which say how far its actions reach; for training and acting. Costs and shapes are the same without.
          datasets: of a mixture, `Mixture.manifest()`: under quantile its actions reach as far as those of any dataset in it.
        """
        mode, model = self.data.normalization, make_model(self.model, specs, method_settings(self.method).head)
        if statistics is None:
            reach = 1.0 if mode == "min_max" else UNKNOWN_REACH
        elif datasets and mode == "quantile":
            reach = max(_reach(tree) for tree in json.loads(datasets))
        else:
            reach = action_reach(statistics.action, mode, specs.action.dimensions)
        return make_method(self.method, self.mcmc, model, reach)


def _reach(dataset: Mapping[str, Any]) -> float:
    """Of one dataset of a manifest, by its own statistics."""
    statistics = Statistics.from_json(json.dumps(dataset["statistics"]))
    return action_reach(statistics.action, "quantile", tuple(ActionDimension(**dimension) for dimension in dataset["spec"]["action"]))


def _check_keys(prefix: str, tree: Mapping[str, Any], kind: type) -> None:
    fields = dataclasses.fields(kind)
    known = {field.name for field in fields}
    required = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    unknown, missing = sorted(set(tree) - known), sorted(required - set(tree))
    if unknown or missing:
        raise ValueError(
            f"config keys must be {', '.join(prefix + name for name in sorted(known))}; "
            f"got unknown {[prefix + name for name in unknown]}, missing {[prefix + name for name in missing]}."
        )

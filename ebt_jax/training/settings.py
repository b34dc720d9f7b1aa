"""A whole experiment as frozen dataclasses: what a config file says, checked; what a checkpoint keeps as JSON."""

import dataclasses
import itertools
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ebt_jax.augment import NO_AUGMENTATION, Augmentation
from ebt_jax.data.settings import DataSettings, Filters, bundled_sample_dir
from ebt_jax.data.union import Place
from ebt_jax.mcmc import MCMC
from ebt_jax.methods import METHODS, make_method, method_settings
from ebt_jax.models import make_model
from ebt_jax.models.config import ModelConfig, PaperConfig, model_variant
from ebt_jax.models.placed import placed
from ebt_jax.normalize import QUANTILE_REACH, Mode, Statistics, action_reach
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
      precision: of matrix products, on every device alike; parameters, actions and energies are float32 always.
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
        """From the plain values of a config file or `config.json`.

        Raises ValueError naming every missing or unknown key, and every value that is not of its key's type.
        """
        parts = {"mcmc": MCMC, "optimizer": OptimizerSettings, "mesh": MeshSettings, "augmentation": Augmentation}
        tree = {**{name: {} for name in (*parts, "evaluation")}, **tree}
        _check("", tree, cls)
        for name in ("data", "model", "method", "evaluation", *parts):
            _check_table(name, tree[name])
        data, model, evaluation = dict(tree["data"]), dict(tree["model"]), dict(tree["evaluation"])
        for key in ("variant", "cameras"):
            if key not in model:
                raise ValueError(f"config keys must hold model.variant and model.cameras, got missing ['model.{key}'].")
        data["cameras"] = _names("model.cameras", model.pop("cameras"))
        data["proprio"] = _names("data.proprio", data.get("proprio", DataSettings.proprio))
        data["filters"] = _check_table("data.filters", data.get("filters", {}))
        _check("data.", data, DataSettings)
        _check("data.filters.", data["filters"], Filters)
        data["filters"] = Filters(**data["filters"])
        data["mixture"] = _mixture(data["mixture"])
        if data["data_dir"] == BUNDLED:
            data["data_dir"] = bundled_sample_dir()
        variant = model.pop("variant")
        _check_types("model.", model, PaperConfig)
        made_model = model_variant(variant, precision=tree["precision"], **model)
        if made_model.language_weights:
            data.setdefault("tokenizer", made_model.language_weights)
        for name, kind in parts.items():
            _check(f"{name}.", tree[name], kind)
        made = {name: kind(**tree[name]) for name, kind in parts.items()}
        held = itertools.chain(*made_model.frozen.values())
        made["optimizer"] = dataclasses.replace(made["optimizer"], freeze=(*made["optimizer"].freeze, *held))
        _check("evaluation.", evaluation, EvaluationSettings)
        evaluation["tasks"] = _names("evaluation.tasks", evaluation.get("tasks", ()))
        method = dict(tree["method"])
        if method.get("name") in METHODS:
            _check_types("method.", method, METHODS[method["name"]][0])
        made |= {"data": DataSettings(**data), "model": made_model, "method": method, "evaluation": EvaluationSettings(**evaluation)}
        return cls(**{**tree, **made})

    def check_batches(self, devices: int) -> None:
        """Raises ValueError where training's batches do not split into equal parts, or hold what a tie cannot be held against."""
        if self.method.get("tie_weight", 0) > 0 and self.data.windows_per_visit > 1:
            raise ValueError(
                f"data.windows_per_visit must be 1 beside method.tie_weight = {self.method['tie_weight']}, got "
                f"{self.data.windows_per_visit}: the tie holds a chunk against its neighbours in the batch, which would be windows of the "
                "same episode. Leave one of the two out."
            )
        parts = devices * self.optimizer.accumulate_steps
        if self.batch_size % parts:
            raise ValueError(
                f"batch_size must be a multiple of devices x optimizer.accumulate_steps = {devices} x "
                f"{self.optimizer.accumulate_steps}, got {self.batch_size}."
            )

    def make_method(self, specs: Specs, statistics: Statistics | None = None, datasets: str = "", robot: Place | None = None) -> Method:
        """The experiment's method over its model, for data and robots of these specs.

        Args:
          statistics: of the data, which say how far its actions reach; for training and acting. Costs and shapes are the same without.
          datasets: of a mixture, `Mixture.manifest()`: its actions reach as far as those of any dataset in it.
          robot: of a union, whose chunks and states the method is to be of; None: those of the specs.
        """
        mode, model = self.data.normalization, make_model(self.model, specs, method_settings(self.method).head)
        model = placed(model, specs, *robot) if robot else model
        if statistics is None:
            reach = 1.0 if mode == "min_max" else UNKNOWN_REACH
        elif datasets:
            reach = max(_reach(tree, mode) for tree in json.loads(datasets))
        else:
            reach = action_reach(statistics.action, mode, specs.action.dimensions)
        return make_method(self.method, self.mcmc, model, reach)


def _reach(dataset: Mapping[str, Any], mode: Mode) -> float:
    """Of one dataset of a manifest, by its own statistics."""
    statistics = dataset_statistics(dataset)
    return action_reach(statistics.action, mode, tuple(ActionDimension(**dimension) for dimension in dataset["spec"]["action"]))


def _mixture(value: Any) -> Any:
    """A name or a path as it is; a table of weights, or JSON of one, as names and weights."""
    if isinstance(value, str) and value.startswith("{"):
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise ValueError(f'data.mixture must be a name or JSON like {{"bridge_dataset": 1.0}}, got {value!r}: {error}.') from error
    if isinstance(value, Mapping):
        bad = [name for name, weight in value.items() if not _is_of(weight, float)]
        if bad:
            raise ValueError(f"weights of data.mixture must be numbers, got {dict(value)}.")
    elif not isinstance(value, str):
        raise ValueError(f"data.mixture must be a name, a file, or names with weights, got {value!r}.")
    return value


def _names(key: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence) or not all(isinstance(name, str) for name in value):
        raise ValueError(f"{key} must be a list of names, got {value!r}. Put a single one in a list.")
    if any("," in name for name in value):
        names = tuple(part.strip(" ()[]'\"") for name in value for part in name.split(","))
        raise ValueError(f'{key} must be a list of names, got {list(value)}. Quote each of them: --config.{key}="{names}".')
    return tuple(value)


def _check_table(name: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise ValueError(f"{name} must be a table of settings, got {value!r}.")
    return value


def _check(prefix: str, tree: Mapping[str, Any], kind: type) -> None:
    """Raises ValueError for keys that are missing or unknown, else for values that are not of their key's type."""
    fields = dataclasses.fields(kind)
    known = {field.name for field in fields}
    required = {f.name for f in fields if f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING}
    unknown, missing = sorted(set(tree) - known), sorted(required - set(tree))
    if unknown or missing:
        raise ValueError(
            f"config keys must be {', '.join(prefix + name for name in sorted(known))}; "
            f"got unknown {[prefix + name for name in unknown]}, missing {[prefix + name for name in missing]}."
        )
    _check_types(prefix, tree, kind)


def _check_types(prefix: str, tree: Mapping[str, Any], kind: type) -> None:
    words = {int: "a whole number", float: "a number", bool: "True or False", str: "a text"}
    for field in dataclasses.fields(kind):
        wanted = field.type
        if field.name in tree and isinstance(wanted, type) and wanted in words and not _is_of(tree[field.name], wanted):
            raise ValueError(f"{prefix}{field.name} must be {words[wanted]}, got {tree[field.name]!r}.")


def _is_of(value: Any, kind: type) -> bool:
    """Whether a plain value may stand where `kind` is wanted: whole numbers are numbers, True and False are none."""
    return isinstance(value, (int, float) if kind is float else kind) and (kind is bool or not isinstance(value, bool))


def dataset_statistics(dataset: Mapping[str, Any]) -> Statistics:
    """Those of one dataset of a manifest (`Mixture.manifest`)."""
    return Statistics.from_json(json.dumps(dataset["statistics"]))

"""Config files at the edge: a locked ConfigDict in, plain values out."""

import dataclasses
import difflib
import importlib.util
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any, get_origin

from absl import flags, logging
from ml_collections import ConfigDict, FieldReference, config_dict
from ml_collections.config_flags import config_flags

from ebt_jax.augment import Augmentation
from ebt_jax.data.settings import DataSettings, Filters, read_mixture
from ebt_jax.mcmc import MCMC
from ebt_jax.models.config import PaperConfig
from ebt_jax.training.optimizer import OptimizerSettings
from ebt_jax.training.settings import EvaluationSettings, MeshSettings, Settings

FALLBACK = "sample"
"""The variant that runs on the bundled sample."""

TABLES: dict[str, type] = {
    "": Settings,
    "data.": DataSettings,
    "data.filters.": Filters,
    "model.": PaperConfig,  # every setting of a network, those of the published one included
    "mcmc.": MCMC,
    "optimizer.": OptimizerSettings,
    "augmentation.": Augmentation,
    "mesh.": MeshSettings,
    "evaluation.": EvaluationSettings,
}
"""What a config may say, and where; the tables of methods are in its file (`methods.settings_table`)."""

ELSEWHERE = {"data.cameras": "model.cameras", "model.precision": "precision"}
"""Settings that a config says under another key."""


def define_config_flag() -> flags.FlagHolder:
    """`--config=FILE.py[:variant]`, with `--config.key=value` for any key in it."""
    return config_flags.DEFINE_config_file(
        "config", None, "Config file, with an optional variant: configs/oxe.py:sample.", lock_config=True
    )


class UnknownKey(KeyError):
    """A key that a config does not have."""

    def __str__(self) -> str:
        return str(self.args[0])


class Table(ConfigDict):
    """A table of settings whose error for a key that it does not have names the nearest, also of the tables in it, and all of its own."""

    def __getitem__(self, key: str) -> Any:
        try:
            return super().__getitem__(key)
        except KeyError:
            paths = {path.rpartition(".")[2]: path for path in _paths(self)}
            nearest = [paths[name] for name in difflib.get_close_matches(str(key), paths, 1)]
            meant = f" Did you mean {nearest[0]}?" if nearest else ""
            raise UnknownKey(f"config key must be one of {', '.join(self)}; got {key!r}.{meant}") from None


def offer(config: ConfigDict, path: str = "") -> Table:
    """The config with every setting that it leaves out there to be set: --config.data.index_processes=2. `plain` drops what nobody sets."""
    table = Table()
    for name, value in config.items(preserve_field_references=True):
        table[name] = offer(value, f"{path}{name}.") if isinstance(value, ConfigDict) else value
    fields = dataclasses.fields(TABLES[path]) if path in TABLES else ()
    for field in fields:
        part = f"{path}{field.name}."
        if field.name not in table and part.rstrip(".") not in ELSEWHERE:
            table[field.name] = offer(ConfigDict(), part) if part in TABLES else config_dict.placeholder(_flag_type(field.type))
    return table


def resolve(holder: flags.FlagHolder) -> dict[str, Any]:
    """The config's plain values. One that needs a data folder and got none runs its `sample` variant instead, and says so.

    Raises ValueError where there is no such variant, or a value of no use in JSON.
    """
    config: ConfigDict = holder.value
    data: Any = config.data
    flag = flags.FLAGS[holder.name]
    if data.data_dir is None:
        path = config_flags.get_config_filename(flag).partition(":")[0]
        where = "--config.data.data_dir=/data/oxe (or gs://...), the folder that holds one folder a dataset"
        sample = load(path, FALLBACK)
        if sample is None:
            raise ValueError(f"data.data_dir must name the folder of datasets, got none. Say {where}.")
        logging.warning(
            "%s trains on %s and was given no data_dir. It now runs %s:%s on the sample that comes with the package. "
            "To train on your data, say %s.", path, data.mixture, path, FALLBACK, where,
        )  # fmt: skip
        overrides = config_flags.get_override_values(flag)
        sample.update_from_flattened_dict({key: value for key, value in overrides.items() if value is not None})
        config = sample
    return named_shares(plain(config))


def named_shares(values: dict[str, Any]) -> dict[str, Any]:
    """With what a mixture's file says in the place of its path, so that a run and its checkpoints need no such file.

    Raises ValueError for a file that cannot be read.
    """
    mixture = values["data"]["mixture"]
    if not (isinstance(mixture, str) and mixture.endswith(".json")):
        return values
    return {**values, "data": {**values["data"], "mixture": dict(read_mixture(mixture))}}


def load(path: str | pathlib.Path, variant: str | None = None) -> ConfigDict | None:
    """`get_config(variant)` of a config file; None where the file has no such variant."""
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"config must be a Python file, got {path}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if variant is None:
        return module.get_config()
    if variant not in getattr(module, "VARIANTS", ()):
        return None
    return module.get_config(variant)


def plain(config: ConfigDict) -> dict[str, Any]:
    """Nested dicts of JSON values, tuples as lists: of all settings those that are set, and of `method`'s tables, one a method, that of the
    named one alone."""
    try:
        values = json.loads(json.dumps(config.to_dict(), default=_refuse))
    except TypeError as error:
        raise ValueError(f"config values must be JSON (numbers, strings, lists), got {error}.") from error
    method = values["method"]
    chosen = method.get(method["name"], {})
    values["method"] = {**{key: value for key, value in method.items() if not isinstance(value, dict)}, **chosen}
    values = _set(values)
    return {**values, "data": {"data_dir": None, **values["data"]}}


def _set(tree: Mapping[str, Any]) -> dict[str, Any]:
    """What of a table is set; a table in it of which nothing is set is not."""
    kept = {key: _set(value) if isinstance(value, dict) else value for key, value in tree.items()}
    return {key: value for key, value in kept.items() if value is not None and value != {}}


def _paths(table: ConfigDict) -> list[str]:
    """Every key below a table, its own last."""
    below = [f"{name}.{path}" for name, value in table.items() if isinstance(value, ConfigDict) for path in _paths(value)]
    return [*below, *table]


def _flag_type(annotation: Any) -> type:
    """What a flag's text is read as. Choices, and what may be a text or something else, are texts."""
    kind = get_origin(annotation) or annotation
    if kind in (bool, int, float):
        return kind
    if not isinstance(kind, type) or issubclass(kind, str):
        return str
    return ConfigDict if issubclass(kind, Mapping) else tuple if issubclass(kind, Sequence) else str


def _refuse(value: Any) -> Any:
    if isinstance(value, FieldReference):
        return value.get()
    raise TypeError(f"{type(value).__name__} {value!r}")

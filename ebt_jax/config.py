"""Config files at the edge: a locked ConfigDict in, plain values out."""

import dataclasses
import importlib.util
import json
import pathlib
from typing import Any

from absl import flags, logging
from ml_collections import ConfigDict, FieldReference, config_dict
from ml_collections.config_flags import config_flags

from ebt_jax.models.config import ModelConfig

FALLBACK = "sample"
"""The variant that runs on the bundled sample."""


def define_config_flag() -> flags.FlagHolder:
    """`--config=FILE.py[:variant]`, with `--config.key=value` for any key in it."""
    return config_flags.DEFINE_config_file(
        "config", None, "Config file, with an optional variant: configs/oxe.py:sample.", lock_config=True
    )


def model_settings(variant: str, cameras: tuple[str, ...], **settings: Any) -> ConfigDict:
    """The network of a config file. What it does not set is the variant's, and is there to be set: --config.model.vision=dinov2_small."""
    fields = {field.name: field for field in dataclasses.fields(ModelConfig) if field.name != "precision"}
    unset = {name: config_dict.placeholder(field.type) for name, field in fields.items()}
    return ConfigDict({"variant": variant, "cameras": cameras, **unset, **settings})


def resolve(holder: flags.FlagHolder) -> dict[str, Any]:
    """The config's plain values. One that needs a data folder and got none runs its `sample` variant instead, and says so.

    Raises ValueError where there is no such variant, or a value of no use in JSON.
    """
    config: ConfigDict = holder.value
    data: Any = config.data
    flag = flags.FLAGS[holder.name]
    if data.data_dir is None:
        path = config_flags.get_config_filename(flag)
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
    return plain(config)


def load(path: str | pathlib.Path, variant: str | None = None) -> ConfigDict | None:
    """`get_config(variant)` of a config file; None where the file has no such variant."""
    spec = importlib.util.spec_from_file_location("config", path)
    if spec is None or spec.loader is None:
        raise ValueError(f"config must be a Python file, got {path}.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    if variant is None:
        return module.get_config()
    if variant not in module.VARIANTS:
        return None
    return module.get_config(variant)


def plain(config: ConfigDict) -> dict[str, Any]:
    """Nested dicts of JSON values, tuples as lists; of `method`'s tables of settings, one a method, that of the named one alone, and
    of `model`'s settings, those that are set."""
    try:
        values = json.loads(json.dumps(config.to_dict(), default=_refuse))
    except TypeError as error:
        raise ValueError(f"config values must be JSON (numbers, strings, lists), got {error}.") from error
    method = values["method"]
    chosen = method.get(method["name"], {})
    model = {key: value for key, value in values["model"].items() if value is not None}
    return {**values, "model": model, "method": {**{key: value for key, value in method.items() if not isinstance(value, dict)}, **chosen}}


def _refuse(value: Any) -> Any:
    if isinstance(value, FieldReference):
        return value.get()
    raise TypeError(f"{type(value).__name__} {value!r}")

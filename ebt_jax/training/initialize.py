"""Fine-tuning's start: another checkpoint's parameters, for these cameras, this robot and these statistics.

    parameters of the network's width alone         loaded
    cameras, steps, numbers of state and action     loaded entry by entry, by name (`models/transfer.py`)
    a state normalised by other statistics          loaded so that the function of the robot's own numbers stays what it was
    what the source lacks                           as at initialisation; inputs beside loaded ones as 0, which disturb nothing

Taken are the moving averages, which is what was evaluated; the optimiser starts fresh. Nothing is dropped in silence: every parameter of
either side is in the report.
"""

import dataclasses
import fnmatch
import json
import pathlib
from collections.abc import Collection, Iterable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import logging
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array
from numpy.typing import NDArray

from ebt_jax.checkpoint import CheckpointError
from ebt_jax.methods import method_settings
from ebt_jax.models.config import ModelConfig, PaperConfig
from ebt_jax.models.transfer import MODEL_PREFIX, Entries, named_entries
from ebt_jax.normalize import Statistics, make_normalizer
from ebt_jax.specs import LanguageSpec, Specs, differences
from ebt_jax.training.freeze import matching
from ebt_jax.training.lora import BASE_PREFIX, adapted_matrices
from ebt_jax.training.renormalize import read_as, renormalized, untaught
from ebt_jax.training.settings import Settings
from ebt_jax.training.state import TrainState
from ebt_jax.training.trained import Trained, read_trained
from ebt_jax.tree import leaf_name, named_leaves
from ebt_jax.types import Params

FREE = (
    "precision",
    "remat",
    "unroll",
    "encoder_attention",
    "motion_gain",
    "language",
    *(f"{p}_{s}" for p in ("vision", "language") for s in ("weights", "frozen")),
)
"""Settings of a model that need not agree: arithmetic, where weights came from, the encoder of words (another starts anew)."""

VISION = ("vision", "vision_width", "vision_layers", "patch_size", "stem", "pooling", "keypoints", "share_vision", "film")
"""Settings of the image encoder alone: another one starts anew under the same trunk."""


class Row(NamedTuple):
    """What became of one parameter: "loaded", "partly loaded", "new" (of the target alone) or "skipped" (of the source alone)."""

    parameter: str
    shape: tuple[int, ...]
    status: str
    reason: str


class Start(NamedTuple):
    """Values for a target's parameters.

    Attributes:
      values: name -> the whole parameter, on the host; anything in entries that stay as at initialisation.
      fresh: name -> True where it stays so, broadcast to the parameter; names without one are taken whole.
      rows: every parameter of target and source.
      state_read_by: by which statistics the source's network is taken to have read the state (`renormalize.Reading.words`).
      incomplete: names in `values` of which the source lacks entries.
    """

    values: Mapping[str, NDArray]
    fresh: Mapping[str, NDArray]
    rows: list[Row]
    state_read_by: str
    incomplete: Collection[str] = ()


def read_source(path: str, settings: Settings, mesh: Mesh) -> Trained:
    """The checkpoint at `path`, once it is known to have this experiment's trunk.

    Raises CheckpointError where nothing readable lies there, ValueError listing every setting in which the trunks differ.
    """
    try:
        source = read_trained(path, "init_from", sharding=NamedSharding(mesh, PartitionSpec()))
    except (ValueError, OSError, KeyError) as error:
        raise CheckpointError(f"init_from must be a checkpoint that this version reads, got {path}: {error}") from error
    rows = model_differences(source.settings, settings, [f.name for f in dataclasses.fields(ModelConfig) if f.name not in FREE + VISION])
    published = [isinstance(s.model, PaperConfig) for s in (source.settings, settings)]
    if published[0] != published[1]:
        names = [("another", "paper")[is_paper] for is_paper in published]
        rows = [f"model.variant: there {names[0]}, here {names[1]}", *rows]
    if rows:
        raise ValueError(
            f"init_from must have this configuration's trunk, got {len(rows)} differences in {path}:\n  " + "\n  ".join(rows) + "\n"
            "Take the source's values for them (config.json beside its checkpoints)."
        )
    return source._replace(params=jax.tree.map(np.asarray, source.params))  # off the devices, which the run needs


def model_differences(there: Settings, here: Settings, names: Iterable[str]) -> list[str]:
    """Those of the model's settings that are not the same, in words."""
    pairs = ((name, getattr(there.model, name), getattr(here.model, name)) for name in names)
    return [f"model.{name}: there {then}, here {now}" for name, then, now in pairs if then != now]


def start_from(source: Trained, settings: Settings, specs: Specs, statistics: Statistics, dataset: str, target: Params) -> Start:
    """Every parameter of `target` (arrays or shapes, of the method without adapters) from `source`, as far as it goes.

    Args:
      statistics, dataset: of the run's main dataset, and its name.

    Raises ValueError where nothing at all can be loaded.
    """
    reading = read_as(source, dataset)
    theirs = _named_entries(source.settings, source.specs, untaught(source, reading, specs, statistics))
    ours = _named_entries(settings, specs)
    read = named_leaves(renormalized(source, reading, settings, specs, statistics))
    found = {_network_name(name): np.asarray(leaf) for name, leaf in read.items()}
    other_vision = model_differences(source.settings, settings, VISION)
    other_language = _language_difference(source.settings, source.specs, settings, specs)
    values, fresh, rows, incomplete = {}, {}, [], set()
    for full_name, leaf in named_leaves(target).items():
        name = _network_name(full_name)
        value = found.pop(name, None)
        if value is None:
            rows.append(Row(full_name, leaf.shape, "new", "the source has none"))
        elif name.startswith("tokens/images") and other_vision:
            rows.append(Row(full_name, leaf.shape, "new", "another image encoder: " + ", ".join(other_vision)))
        elif name.startswith("tokens/language") and other_language:
            rows.append(Row(full_name, leaf.shape, "new", f"another encoder of instructions: {other_language}"))
        elif _counted(name, theirs, value.shape) and _counted(name, ours, leaf.shape):
            moved, stay, row = _by_entry(full_name, value, theirs[name], ours[name], leaf.shape)
            rows.append(row)
            if row.status != "new":
                values[full_name], fresh[full_name] = moved, stay
                if not set(ours[name].names) <= set(theirs[name].names):
                    incomplete.add(full_name)
        elif value.shape == leaf.shape:
            values[full_name] = value
            rows.append(Row(full_name, leaf.shape, "loaded", "same name and shape"))
        else:
            rows.append(Row(full_name, leaf.shape, "new", f"its shape in the source is {list(value.shape)}"))
    rows += [Row(name, value.shape, "skipped", "nothing here has this name") for name, value in found.items()]
    if not values:
        raise ValueError(f"init_from must share parameters with this configuration, got none of {len(rows)}:\n{table(rows)}")
    return Start(values, fresh, rows, reading.words, incomplete)


def check_frozen(settings: Settings, target: Params, published: Collection[str], start: Start | None) -> None:
    """Raises ValueError where an encoder that never changes would stay as it was drawn: without weights, or a source that has it.

    Args:
      target: as for `start_from`.
      published: names of parameters that have published values.
    """
    given = _given(published, start)
    for part, patterns in settings.model.frozen.items():
        names = [name for pattern in patterns for name in fnmatch.filter(named_leaves(target), pattern)]
        drawn = sorted(set(names) - given)
        if drawn:
            name = getattr(settings.model, part)
            raise ValueError(
                f"model.{part}_frozen must be False for an encoder that begins at random, got True for model.{part}={name!r} and no values "
                f"for {len(drawn)} of its {len(names)} parameters ({drawn[0]}, ...). Name its weights, model.{part}_weights "
                "(docs/encoders.md), or a checkpoint that has it, --init_from, or train it."
            )


def _given(published: Collection[str], start: Start | None) -> set[str]:
    """Names of the parameters that do not begin as they are drawn."""
    return {name.removeprefix(BASE_PREFIX) for name in published} | set(start.values if start else ())


def check_tuning(settings: Settings, target: Params, published: Collection[str], start: Start | None) -> None:
    """Raises ValueError for adapters that would get no gradient, and for parameters that would be held as they were drawn.

    Args:
      target, published: as for `check_frozen`.
    """
    names, optimizer = named_leaves(target), settings.optimizer
    adapted = adapted_matrices(target, optimizer.lora) if optimizer.lora else {}
    for part, patterns in settings.model.frozen.items():
        dead = [name for name in adapted if any(fnmatch.fnmatch(name, pattern) for pattern in patterns)]
        if dead:
            raise ValueError(
                f"optimizer.lora must match no encoder that never changes, got {len(dead)} matrices of model.{part}="
                f"{getattr(settings.model, part)!r} ({dead[0]}, ...) beside model.{part}_frozen=True. Name others, or set "
                f"model.{part}_frozen=False: a matrix with an adapter is held as it is, and optimizer.freeze holds the rest."
            )
    if start is not None and optimizer.freeze:
        held = matching("optimizer.freeze", optimizer.freeze, list(names))
        drawn = sorted(held - _given(published, start) | held & set(start.incomplete))
        ours = [name for name in drawn if not any(fnmatch.fnmatch(name, p) for ps in settings.model.frozen.values() for p in ps)]
        if ours:
            raise ValueError(
                f"optimizer.freeze must match parameters that the source has, got {len(ours)} that would stay as they begin, whole or in "
                f"part: {', '.join(ours[:5])}{', ...' if len(ours) > 5 else ''}. Name the others alone."
            )


def prepare(source: Trained, settings: Settings, specs: Specs, statistics: Statistics, dataset: str, target: Params) -> Start:
    """`start_from`; what becomes of each parameter is logged."""
    start = start_from(source, settings, specs, statistics, dataset, target)
    logging.info("parameters from step %d of %s:\n%s", source.step, settings.init_from, table(start.rows))
    logging.info("statistics by which the state was read there: %s", start.state_read_by)
    return start


def record(workdir: pathlib.Path, source: Trained, start: Start, settings: Settings, specs: Specs, statistics: Statistics) -> None:
    """Writes `workdir`/init_from.json; of several processes the first."""
    if jax.process_index() == 0:
        (workdir / "init_from.json").write_text(report(source, start, settings, specs, statistics) + "\n")


def begin(state: TrainState, start: Start) -> TrainState:
    """The state of a run that starts here: `state` with the values in place, in parameters and average alike."""

    def put(path: tuple[Any, ...], leaf: Array) -> Array:
        name = leaf_name(path).removeprefix(BASE_PREFIX)
        if name not in start.values:
            return leaf
        value = jax.device_put(start.values[name].astype(leaf.dtype), leaf.sharding)
        if name not in start.fresh or not start.fresh[name].any():
            return value
        fresh = jnp.broadcast_to(start.fresh[name], leaf.shape)
        return jax.jit(jnp.where, out_shardings=leaf.sharding)(jax.device_put(fresh, leaf.sharding), leaf, value)

    params = jax.tree_util.tree_map_with_path(put, state.params)
    return state._replace(params=params, ema_params=jax.tree.map(jnp.copy, params))


def report(source: Trained, start: Start, settings: Settings, specs: Specs, statistics: Statistics) -> str:
    """`init_from.json`: where from, what differs, in what units actions are normalised, and every parameter's fate."""
    counts = {status: sum(row.status == status for row in start.rows) for status in ("loaded", "partly loaded", "new", "skipped")}
    there, here = (
        _action_scales(s, p, t) for s, p, t in ((source.settings, source.specs, source.statistics), (settings, specs, statistics))
    )
    tree = {
        "path": settings.init_from,
        "step": source.step,
        "parameters": counts,
        "specs": differences(source.specs, specs),
        "state_read_by": start.state_read_by,
        "action_scale": {name: {"there": there.get(name), "here": scale} for name, scale in here.items()},
        "parameter": [row._asdict() for row in start.rows],
    }
    return json.dumps(tree, indent=2)


def table(rows: list[Row]) -> str:
    """The rows for a person, the loaded ones last."""
    order = ("skipped", "new", "partly loaded", "loaded")
    cells = [("", "shape", "parameter", "why")]
    cells += [(r.status, str(list(r.shape)), r.parameter, r.reason) for r in sorted(rows, key=lambda row: order.index(row.status))]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in cells)


def _counted(name: str, entries: Mapping[str, Entries], shape: tuple[int, ...]) -> bool:
    """Whether an axis of this parameter counts named entries: that of another network under the same name need not."""
    return name in entries and entries[name].axis < len(shape) and shape[entries[name].axis] == len(entries[name].names)


def _by_entry(name: str, value: NDArray, theirs: Entries, ours: Entries, shape: tuple[int, ...]) -> tuple[NDArray, NDArray, Row]:
    """(values, where to stay fresh, what became of it): entries by name, whatever their order."""
    places = {entry: i for i, entry in enumerate(theirs.names)}
    shared = [entry for entry in ours.names if entry in places]
    lacking, left = [e for e in ours.names if e not in places], [e for e in theirs.names if e not in ours.names]
    moved = np.zeros(shape, value.dtype)
    source, result = np.moveaxis(value, theirs.axis, 0), np.moveaxis(moved, ours.axis, 0)
    fits = source.shape[1:] == result.shape[1:]
    if fits:
        for i, entry in enumerate(ours.names):
            if entry in places:
                result[i] = source[places[entry]]
    stay = np.array([entry not in places and not ours.neutral for entry in ours.names], bool)
    fresh = stay.reshape([-1 if axis == ours.axis else 1 for axis in range(len(shape))])
    said = {"same name": shared, "new, as 0" if ours.neutral else "new": lacking, "skipped": left}
    reason = "; ".join(f"{word}: {_words(entries)}" for word, entries in said.items() if entries)
    reason = reason if lacking or left else "the same entries"
    status = "new" if not fits or not shared else "partly loaded" if lacking or left else "loaded"
    return moved, fresh, Row(name, shape, status, reason if fits else f"its shape in the source is {list(value.shape)}")


def _words(entries: Iterable[Any]) -> str:
    """Names of entries, once each: without the place in a token, or the how-manieth of a name."""
    return ", ".join(dict.fromkeys(str(e) if not isinstance(e, tuple) else next(x for x in e if isinstance(x, str)) for e in entries))


def _named_entries(settings: Settings, specs: Specs, untaught: Collection[int] = ()) -> dict[str, Entries]:
    return named_entries(settings.model, specs, method_settings(settings.method).head, untaught)


def _language_difference(there: Settings, there_specs: Specs, here: Settings, here_specs: Specs) -> str:
    """In words, where what the two read of an instruction is not of one kind; "" where it is."""

    def words(settings: Settings, spec: LanguageSpec) -> tuple[str, ...]:
        if spec.kind != "tokens":
            return (spec.kind,)
        learned = (f"of tokenizer {spec.tokenizer}", spec.vocabulary) if settings.model.language == "words" else ()
        return (spec.kind, f"for {settings.model.language}", *learned)

    then, now = (words(s, p.observation.language) for s, p in ((there, there_specs), (here, here_specs)))
    if then == now:
        return ""
    said = [" ".join(part[:3]) for part in (then, now)]
    return f"there {said[0]}, here {said[1]}" + (", of another vocabulary" if said[0] == said[1] else "")


def _network_name(name: str) -> str:
    """Of a parameter of a method, its name in the network."""
    return name.removeprefix(MODEL_PREFIX)


def _action_scales(settings: Settings, specs: Specs, statistics: Statistics) -> dict[str, float]:
    scale = make_normalizer(statistics.action, settings.data.normalization, specs.action.dimensions).scale
    return {dimension.name: float(s) for dimension, s in zip(specs.action.dimensions, scale, strict=True)}

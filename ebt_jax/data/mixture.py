"""Datasets by name and weight, opened: specs, statistics, splits, and how many windows each has."""

import dataclasses
import fnmatch
import functools
import json
from collections.abc import Iterator, Sequence
from typing import NamedTuple, cast

import numpy as np
from absl import logging
from jaxtyping import Array, Float, Int, UInt64

from ebt_jax.data import union
from ebt_jax.data.batches import gather
from ebt_jax.data.dataset import Dataset, open_dataset
from ebt_jax.data.faults import Faults, at_once
from ebt_jax.data.folder import Folder
from ebt_jax.data.oxe import describe, find_dataset
from ebt_jax.data.scan import check_features
from ebt_jax.data.settings import DataSettings
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.splits import OWN_VALIDATION, Split, rule
from ebt_jax.data.standardize import Entry
from ebt_jax.data.tokenizer import read_tokenizer
from ebt_jax.data.wording import AS_WRITTEN, Wordings, hide, read_wordings
from ebt_jax.normalize import Normalizer, Statistics, make_normalizer, normalize
from ebt_jax.specs import GOAL, ActionSpec, Camera, CameraSpec, LanguageKind, LanguageSpec, ObservationSpec, Specs, differences
from ebt_jax.types import Batch, Observation

TOKENS = LanguageSpec("tokens", length=16, size=8192)
"""How instructions become ids where a dataset has text and no embedding, and no tokenizer is named."""


class Episode(NamedTuple):
    """A whole demonstration, robot units.

    Attributes:
      observation: one row a step, each with its history.
      actions: what the demonstrator did.
      instruction: of the last step; "" where there is none.
      name: dataset, split file and record, for messages and tables.
    """

    observation: Observation
    actions: Float[Array | np.ndarray, "t a"]
    instruction: str
    name: str


WITHOUT = "eval_interval 0 of a run, --split=train of evaluate and audit."
"""How to ask for nothing that is held out."""


class Units(NamedTuple):
    """What normalised actions mean in each dataset of a mixture.

    Attributes:
      mean: of its training actions, normalised; 0 in dimensions that it lacks.
      scale: units of the mixture's dimension in 1 normalised; 0 where it lacks the dimension or counts in another unit.
    """

    mean: Float[np.ndarray, "m a"]
    scale: Float[np.ndarray, "m a"]


@dataclasses.dataclass(frozen=True)
class Mixture:
    """Datasets that train together. `specs` holds for all of them.

    Attributes:
      wordings: of instructions, from the settings' file of paraphrases.
      faults: windows that could not be read in this process and were replaced; None where that is an error.
    """

    settings: DataSettings
    datasets: tuple[Dataset, ...]
    specs: Specs
    wordings: Wordings = AS_WRITTEN
    faults: Faults | None = None

    @property
    def main(self) -> Dataset:
        """The dataset of the largest weight, the first named among equals: a policy acts with its numbers."""
        return self.datasets[_heaviest(self.datasets)]

    @property
    def alone(self) -> "Mixture":
        """The main dataset by itself, in its robot's own numbers: what a policy of this mixture acts on."""
        dataset = dataclasses.replace(self.main, weight=1.0, place=None)
        return dataclasses.replace(self, datasets=(dataset,), specs=union.alone(self.specs, dataset.entry.spec))

    @property
    def statistics(self) -> Statistics:
        """The main dataset's; of numbers that it lacks, those of the first dataset that has them."""
        if self.main.place is None:
            return self.main.statistics
        places = [cast(union.Place, dataset.place) for dataset in self.datasets]
        return union.merge([dataset.statistics for dataset in self.datasets], places, _heaviest(self.datasets))

    @property
    def action_normalizer(self) -> Normalizer:
        return make_normalizer(self.statistics.action, self.settings.normalization, self.specs.action.dimensions)

    @property
    def proprio_normalizer(self) -> Normalizer:
        return make_normalizer(self.statistics.proprio, self.settings.proprio_normalization)

    @property
    def num_transitions(self) -> int:
        """Training windows in all datasets, one a step."""
        return sum(len(dataset.train) for dataset in self.datasets)

    @property
    def units(self) -> Units:
        """In what each dataset counts its actions, in the mixture's dimensions."""
        dimensions = self.specs.action.dimensions
        mean, scale = np.zeros((2, len(self.datasets), len(dimensions)), np.float32)
        for number, dataset in enumerate(self.datasets):
            columns = np.arange(len(dimensions)) if dataset.place is None else dataset.place.action
            own = np.asarray(dataset.statistics.action.mean, np.float32)
            mean[number, columns] = normalize(own[None], dataset.action_normalizer)[0]
            same = [dimensions[i].unit == dimension.unit for i, dimension in zip(columns, dataset.entry.spec.action, strict=True)]
            scale[number, columns] = np.where(same, dataset.action_normalizer.scale, 0.0)
        return Units(mean, scale)

    def split(self, name: str) -> tuple[Split, ...]:
        """The episodes of "train" or "validation", dataset by dataset; of some datasets nothing may be held out.

        Raises ValueError for another name, or where nothing is held out of any.
        """
        if name not in ("train", "validation"):
            raise ValueError(f"split must be 'train' or 'validation', got {name!r}.")
        return self._validation if name == "validation" else tuple(dataset.train for dataset in self.datasets)

    @functools.cached_property
    def _validation(self) -> tuple[Split, ...]:
        parts = tuple(dataset.validation for dataset in self.datasets)
        empty = [dataset.folder.name for dataset, part in zip(self.datasets, parts, strict=True) if not len(part)]
        if len(empty) == len(parts):
            raise ValueError(f"validation must have at least one episode to look at, got none of {', '.join(empty)} {self._held_out_by}")
        if empty:
            logging.warning("validation says nothing of %s: no episode is held out of it", ", nor of ".join(empty))
        return parts

    @property
    def _held_out_by(self) -> str:
        """Why nothing may be held out, and what to do."""
        if self.settings.validation_fraction > 0 or self.settings.validation_folds:
            return f"with {rule(self.settings)}. Hold more out, loosen the filters, or do without: {WITHOUT}"
        return (
            f"with validation_fraction 0, which takes their own split {' or '.join(OWN_VALIDATION)}. Hold some of the training episodes "
            f"out: set validation_fraction above 0; or do without: {WITHOUT}"
        )

    def batch(self, dataset: Dataset, part: Split, numbers: Int[np.ndarray, " b"], keys: UInt64[np.ndarray, " b"] | None = None) -> Batch:
        """These windows of a dataset, normalised, in the mixture's dimensions; with `keys` as training shows them, see `gather`."""
        found = gather(part, numbers, self.specs, keys, self.wordings, self.faults)
        if keys is not None:
            found = hide(found, keys, self.settings.language_dropout, self.settings.goal_dropout)
        return dataset.align(dataset.normalize(found), self.specs)

    def example_batch(self, batch_size: int = 1) -> Batch:
        """The first windows of the main dataset, normalised: shapes and dtypes of every batch."""
        return self.batch(self.main, self.main.train, np.arange(batch_size) % len(self.main.train))

    def describe(self) -> str:
        """A table of what a run really sees."""
        rows = [("dataset", "version", "share", "episodes", "steps", "of all", "epochs/M", "cameras", "language", "Hz", "frame", "action")]
        wanted = [camera.name for camera in self.specs.observation.cameras]
        for dataset in self.datasets:
            spec, steps = dataset.entry.spec, len(dataset.train)
            rows.append(
                (
                    dataset.folder.name,
                    dataset.folder.version,
                    f"{dataset.weight:.3f}",
                    f"{dataset.statistics.num_episodes:,}",
                    f"{dataset.statistics.num_transitions:,}",
                    f"{steps / self.num_transitions:.3f}",
                    f"{1e6 * dataset.weight / steps:.3g}",
                    ",".join(camera for camera in wanted if camera.removeprefix(GOAL) in spec.cameras) or "none",
                    _language_kind(dataset, self.specs.observation.language),
                    "unknown" if spec.control_rate_hz is None else f"{spec.control_rate_hz:g}",
                    spec.action_frame,
                    _summary(spec),
                )
            )
        widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
        lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
        unused = {camera for dataset in self.datasets for camera in dataset.entry.spec.cameras} - {
            name.removeprefix(GOAL) for name in wanted
        }
        if unused:
            lines.append(f"cameras not used: {', '.join(sorted(unused))}")
        for dataset in self.datasets:
            for what, counts in (("left out by filters", dataset.left_out), ("left out as faulty", dataset.train.index.faults)):
                if counts:
                    lines.append(f"{dataset.folder.name}: {what}: " + ", ".join(f"{count:,} {reason}" for reason, count in counts.items()))
        return "\n".join(lines)

    def manifest(self) -> str:
        """JSON of what a run was trained on, for the checkpoint: versions, shares, episodes, specs and statistics of every dataset."""
        trees = [
            {
                "name": dataset.folder.name,
                "version": dataset.folder.version,
                "share": dataset.weight,
                "index": dataset.train.index.cache.name,
                "left_out": dict(dataset.left_out),
                "faults": dict(dataset.train.index.faults),
                "spec": json.loads(dataset.entry.spec.to_json()),
                "statistics": json.loads(dataset.statistics.to_json()),
                "action_columns": None if dataset.place is None else dataset.place.action.tolist(),
                "proprio_columns": None if dataset.place is None else dataset.place.proprio.tolist(),
            }
            for dataset in self.datasets
        ]
        return json.dumps(trees, indent=2)

    def rows(self, validating: bool) -> str:
        """JSON of what makes batch n what it is, wherever the files lie and whenever they were copied: for comparing between processes.

        Every dataset's `manifest`, to nine decimals, for processors add up in different ways, with digests of which windows train and,
        where `validating`, which are held out.
        """
        trees = json.loads(self.manifest(), parse_float=lambda text: round(float(text), 9) + 0.0)  # no -0.0
        for tree in trees:
            del tree["index"]  # its name says when the files were written
        splits = [self.split(name) for name in ("train", *(["validation"] if validating else []))]
        return json.dumps([trees, [[part.digest for part in split] for split in splits]])

    def check_manifest(self, text: str) -> None:
        """Raises ValueError listing every point in which the datasets are not those of a saved `manifest`."""
        then, now = (_identities(manifest) for manifest in (text, self.manifest()))
        rows = [
            f"{name}: then {then.get(name, 'absent')}, now {now.get(name, 'absent')}"
            for name in sorted({*then, *now})
            if then.get(name) != now.get(name)
        ]
        if rows:
            raise ValueError(
                "datasets must be those that the run was started on, got differences:\n  " + "\n  ".join(rows) + "\n"
                "Bring them back, or start a new workdir."
            )


def open_mixture(settings: DataSettings) -> Mixture:
    """Finds the datasets, indexes them where that is not done yet, and takes the statistics of their training episodes.

    Raises FileNotFoundError for missing folders (all of them listed) or a missing shard, ValueError for datasets that nothing
    describes or that are not for control, datasets whose specs differ where the settings do not ask for their union, an empty
    split, a camera that none of them has, or a tokenizer that cannot be read.
    """
    settings = with_tokenizer(settings)
    described = _describe(settings)
    wordings, faults = read_wordings(settings.paraphrases), Faults() if settings.on_bad == "skip" else None
    opened = [open_dataset(folder, entry, settings, weight) for folder, entry, weight in described]
    if settings.weighting == "transitions":
        total = sum(dataset.weight * len(dataset.train) for dataset in opened)
        opened = [dataclasses.replace(dataset, weight=dataset.weight * len(dataset.train) / total) for dataset in opened]
    main = _heaviest(opened)
    specs = [dataset.entry.spec for dataset in opened]
    if settings.combine == "union":
        joined = union.unite(specs, main)
        opened = [dataclasses.replace(dataset, place=place) for dataset, place in zip(opened, joined.places, strict=True)]
        found = _specs(specs[main], settings, _common_language(specs, settings))
        observation = dataclasses.replace(found.observation, proprio=joined.proprio)
        common = Specs(observation, dataclasses.replace(found.action, dimensions=joined.action))
    else:
        common = equal_specs(specs, settings)
    if settings.paraphrases and common.observation.language.kind != "tokens":
        raise ValueError(f'paraphrases must stand beside language="tokens", got {common.observation.language.kind!r}.')
    return Mixture(settings, tuple(opened), common, wordings, faults)


def with_tokenizer(settings: DataSettings) -> DataSettings:
    """The settings with the language spec that `tokenizer` names. Raises ValueError where it cannot be read."""
    if not isinstance(settings.tokenizer, str):
        return settings
    return dataclasses.replace(settings, tokenizer=read_tokenizer(settings.tokenizer) if settings.tokenizer else TOKENS)


def episodes(mixture: Mixture, split: str) -> Iterator[Episode]:
    """Every episode of a split in file order, with every step of it."""
    for dataset, part in zip(mixture.datasets, mixture.split(split), strict=True):
        first = 0
        whole = Split(part.index, part.episodes)  # windows may be left out of training, steps of an episode not
        for record in whole.episodes:
            length = int(record["length"])
            if length == 0:
                continue
            batch = dataset.align(gather(whole, np.arange(first, first + length), mixture.specs), mixture.specs)
            columns, texts = part.index.columns, part.index.texts
            last = int(record["start"]) + length - 1
            yield Episode(
                observation=batch.observation,
                actions=batch.actions[:, 0],
                instruction=texts[columns["text"][last]] if "text" in columns else "",
                name=f"{dataset.folder.name}/{part.index.files[record['shard']].rsplit('/', 1)[-1]}@{record['position']}",
            )
            first += length


def _describe(settings: DataSettings) -> list[tuple[Folder, Entry, float]]:
    """Every dataset's folder and meaning, before anything is read; what is wrong with several is said at once."""

    def find(name: str) -> tuple[Folder, Entry]:
        folder = find_dataset(settings.data_dir, name)
        return folder, describe(folder)

    whole = at_once(find, settings.weights)
    names = {dimension.name for _, entry in whole for dimension in entry.spec.proprio}
    idle = [pattern for pattern in settings.proprio if pattern != "*" and not fnmatch.filter(names, pattern)]
    if idle:
        raise ValueError(f"proprio must be patterns of names among {sorted(names)}, got {idle}, which match none.")
    cameras = {camera for _, entry in whole for camera in entry.spec.cameras}
    absent = [camera for camera in settings.cameras if camera.removeprefix(GOAL) not in cameras]
    if absent:
        raise ValueError(f"cameras must be among those of the data, {sorted(cameras)}, got {absent}.")
    shown = [(folder, entry._replace(spec=entry.spec.show(settings.proprio))) for folder, entry in whole]
    at_once(lambda one: check_features(*one), shown)
    return [(folder, entry, weight) for (folder, entry), weight in zip(shown, settings.weights.values(), strict=True)]


def _heaviest(datasets: Sequence[Dataset]) -> int:
    return max(range(len(datasets)), key=lambda i: datasets[i].weight)


def equal_specs(specs: Sequence[DatasetSpec], settings: DataSettings) -> Specs:
    """The specs that all datasets share. Raises ValueError listing where one differs from the first."""
    first, *others = [_specs(spec, settings, _language(spec, settings)) for spec in specs]
    for spec, other in zip(specs[1:], others, strict=True):
        found = differences(first, other) + ([] if other.observation.language == first.observation.language else ["language"])
        if found:
            raise ValueError(
                f"datasets of a mixture must have equal specs, got {spec.name!r} beside {specs[0].name!r} with:\n  "
                + "\n  ".join(found)
                + '\nLeave one out, or train on the union of what they have, with masks: combine="union".'
            )
    return first


def _specs(spec: DatasetSpec, settings: DataSettings, language: LanguageSpec) -> Specs:
    """What a policy trained on this dataset with these settings is told."""
    return Specs(
        ObservationSpec(
            cameras=tuple(CameraSpec(cast(Camera, name), settings.image_size, settings.image_size) for name in settings.cameras),
            proprio=spec.proprio,
            language=language,
            horizon=settings.observation_horizon,
        ),
        ActionSpec(spec.action, spec.action_frame, settings.action_horizon, spec.control_rate_hz),
    )


def _offered(spec: DatasetSpec) -> list[LanguageKind]:
    """What a dataset can give, the preferred first: text is what people can say to a robot."""
    kinds: tuple[tuple[LanguageKind, bool], ...] = (("tokens", bool(spec.language_key)), ("embedding", bool(spec.embedding_key)))
    return [*(kind for kind, has in kinds if has), "none"]


def _language(spec: DatasetSpec, settings: DataSettings) -> LanguageSpec:
    offered = _offered(spec)
    kind = offered[0] if settings.language == "auto" else settings.language
    if kind not in offered:
        raise ValueError(f"language of {spec.name!r} must be one of {['auto', *offered]}, got {kind!r}.")
    return _language_spec(kind, spec, settings)


def _common_language(specs: Sequence[DatasetSpec], settings: DataSettings) -> LanguageSpec:
    """Tokens where any dataset has text, else the embedding where all have one of one width; those without come masked."""
    widths = {spec.embedding_size for spec in specs}
    kind = settings.language
    if kind == "auto":
        embedded: LanguageKind = "embedding" if len(widths) == 1 and widths != {0} else "none"
        kind = "tokens" if any(spec.language_key for spec in specs) else embedded
    if kind == "embedding" and len(widths - {0}) != 1:
        raise ValueError(f"language 'embedding' must mean vectors of one width in all datasets that have them, got {sorted(widths)}.")
    return _language_spec(kind, max(specs, key=lambda spec: spec.embedding_size), settings)


def _language_spec(kind: LanguageKind, spec: DatasetSpec, settings: DataSettings) -> LanguageSpec:
    if kind == "embedding":
        return LanguageSpec("embedding", 1, spec.embedding_size)
    return cast(LanguageSpec, settings.tokenizer) if kind == "tokens" else LanguageSpec()


def _language_kind(dataset: Dataset, language: LanguageSpec) -> str:
    return language.kind if language.kind in _offered(dataset.entry.spec) else "masked"


def _summary(spec: DatasetSpec) -> str:
    """ "eef_delta x y z [m], gripper" for the table."""
    groups: dict[tuple[str, str], list[str]] = {}
    for dimension in spec.action:
        groups.setdefault((dimension.kind, dimension.unit), []).append(dimension.name)
    return ", ".join(
        kind if names == [kind] else f"{kind} {' '.join(names)}" + (f" [{unit}]" if unit else "") for (kind, unit), names in groups.items()
    )


def _identities(manifest: str) -> dict[str, str]:
    """What must stay of each dataset: not where it lies or when it was copied."""
    found = {}
    for tree in json.loads(manifest):
        statistics = tree["statistics"]
        counts = f"{statistics['num_episodes']} episodes of {statistics['num_transitions']} steps to train on"
        found[tree["name"]] = f"version {tree['version']}, share {tree['share']:.6g}, {counts}"
    return found

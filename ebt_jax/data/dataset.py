"""One dataset of a mixture, opened: what it means, which episodes train, in which numbers its batches come."""

import dataclasses
import functools
from collections.abc import Mapping, Sequence

from absl import logging

from ebt_jax.data import filters, jobs
from ebt_jax.data.folder import Folder
from ebt_jax.data.index import Index, open_index
from ebt_jax.data.settings import DataSettings
from ebt_jax.data.splits import OWN_VALIDATION, Split, own_validation_split, statistics, train_split, validation_split
from ebt_jax.data.standardize import Entry
from ebt_jax.data.union import Place, put
from ebt_jax.normalize import Mode, Normalizer, Statistics, VectorStatistics, lopsided, make_normalizer, normalize_within
from ebt_jax.specs import ActionDimension, Dimension, Specs
from ebt_jax.types import Batch


@dataclasses.dataclass(frozen=True)
class Dataset:
    """One dataset of a mixture.

    Attributes:
      weight: its share of the samples.
      train: the episodes that are not held out.
      statistics: of the training windows, robot units.
      left_out: what the filters took from the training episodes, by reason: how many.
      action_normalizer, proprio_normalizer: what the loader applies to this dataset; numpy arrays.
      filter_normalizer: of actions before anything was left out: the unit that filters count in.
      place: where its numbers stand among the mixture's; None where they are the mixture's.
    """

    folder: Folder
    entry: Entry
    settings: DataSettings
    weight: float
    train: Split
    statistics: Statistics
    action_normalizer: Normalizer
    proprio_normalizer: Normalizer
    filter_normalizer: Normalizer
    place: Place | None = None
    left_out: Mapping[str, int] = dataclasses.field(default_factory=dict)

    @functools.cached_property
    def validation(self) -> Split:
        """The held-out episodes, or with validation_fraction 0 the dataset's own; there may be none."""
        settings = self.settings
        if settings.validation_fraction > 0 or settings.validation_folds:
            return self._filtered(validation_split(self.train.index, self.folder.stem, settings))
        own = next((split for split in OWN_VALIDATION if self.folder.num_records(split)), None)
        if own is None:
            return Split(self.train.index, self.train.index.episodes[:0])
        index = _index(self.folder, own, self.entry, settings)
        return self._filtered(own_validation_split(index, self.train.index, self.folder.name))

    def _filtered(self, split: Split) -> Split:
        """The split by the rules that the training episodes followed."""
        return filters.apply(self.settings.filters, split, self.entry.spec, self.filter_normalizer)[0]

    def normalize(self, batch: Batch) -> Batch:
        """Robot units -> normalised, by this dataset's statistics; what lies too far out is clipped."""
        proprio = normalize_within(batch.observation.proprio, self.proprio_normalizer)
        actions = normalize_within(batch.actions, self.action_normalizer)
        return batch._replace(observation=batch.observation._replace(proprio=proprio), actions=actions)

    def align(self, batch: Batch, specs: Specs) -> Batch:
        """This dataset's numbers -> the mixture's, in whichever units they are; what it lacks is 0 and masked."""
        if self.place is None:
            return batch
        return put(batch, self.place, len(specs.action.dimensions), len(specs.observation.proprio))


def open_dataset(folder: Folder, entry: Entry, settings: DataSettings, weight: float) -> Dataset:
    """Indexes the folder where that is not done yet, leaves out what is to be, and takes the statistics of what trains."""
    whole = train_split(_index(folder, "train", entry, settings), folder.stem, settings)
    before = make_normalizer(statistics(whole, settings.index_processes).action, settings.normalization, entry.spec.action)
    train, left_out = filters.apply(settings.filters, whole, entry.spec, before)
    if len(train) == 0:
        raise ValueError(
            f"filters must leave at least one window of dataset {entry.spec.name!r}, got none; they left out {dict(left_out)}. Loosen them."
        )
    found = statistics(train, settings.index_processes)
    _warn(entry.spec.name, found.action, settings.normalization, entry.spec.action)
    _warn(entry.spec.name, found.proprio, settings.proprio_normalization, entry.spec.proprio)
    action = make_normalizer(found.action, settings.normalization, entry.spec.action)
    proprio = make_normalizer(found.proprio, settings.proprio_normalization)
    return Dataset(folder, entry, settings, weight, train, found, action, proprio, before, left_out=left_out)


def _warn(name: str, found: VectorStatistics, mode: Mode, dimensions: Sequence[ActionDimension | Dimension]) -> None:
    """Of numbers that are normalised by a bulk which hardly moves, or by extremes that may be faults."""
    scale = make_normalizer(found, mode).scale
    for i, (dimension, odd) in enumerate(zip(dimensions, lopsided(found, mode), strict=True)):
        kind = getattr(dimension, "kind", "state")
        if odd and kind != "gripper":  # whose scale is fixed
            logging.warning(
                "%s: %s (%s) lies between %.4g and %.4g at 98 %% of the steps and reaches %.4g and %.4g: %.4g of it are 1 to the network. "
                "Are these faults, or other units? data.filters.max_action leaves out episodes with actions beyond what it says.",
                *(name, dimension.name, kind, found.q01[i], found.q99[i], found.min[i], found.max[i], scale[i]),
            )


def _index(folder: Folder, split: str, entry: Entry, settings: DataSettings) -> Index:
    runner = None if settings.index_processes < 0 else jobs.choose(0, 0, settings.index_processes)
    return open_index(folder, split, entry, settings.cache_dir, settings.on_bad, runner)

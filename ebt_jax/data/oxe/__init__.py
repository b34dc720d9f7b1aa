"""Datasets that cannot describe themselves: one record each, in tables by family.

A new one: write its `Record` in the table where it belongs, and run the tests.
"""

from absl import logging

from ebt_jax.data import remote
from ebt_jax.data.folder import Folder, find_folder
from ebt_jax.data.oxe import bridge, converted, google, refused
from ebt_jax.data.oxe.record import Record
from ebt_jax.data.spec import SPEC_FILE, DatasetSpec
from ebt_jax.data.standardize import Entry

RECORDS = {record.name: record for table in (bridge, google, converted, refused) for record in table.RECORDS}
"""Every dataset that the tables know, those that are not for control included."""

ENTRIES: dict[str, Entry] = {name: Entry(record.spec()) for name, record in RECORDS.items() if not record.not_for_control}


def find_dataset(data_dir: str, name: str) -> Folder:
    """The dataset's newest version, if that describes itself; else the one that the record here is of, where that is there.

    Raises what `find_folder` does.
    """
    newest = find_folder(data_dir, name)
    record = _record(newest)
    if record is None or record.version == newest.version or remote.exists(newest.path / SPEC_FILE):
        return newest
    return find_folder(data_dir, name, record.version)


def describe(folder: Folder) -> Entry:
    """What the folder's features mean: its own ebt_spec.json, or the record here of the folder's name, or of the dataset's inside.

    Raises ValueError for neither, and for a dataset that is not for control, with the reason.
    """
    path = folder.path / SPEC_FILE
    if remote.exists(path):
        return Entry(DatasetSpec.from_json(remote.read_text(path)))
    record = _record(folder)
    if record is None:
        raise ValueError(
            f"dataset {folder.name!r} must have an {SPEC_FILE} beside its features.json or be one of {sorted(ENTRIES)}, got neither. "
            f"Write {path} (docs/data.md shows one); its steps have {sorted(folder.steps)}."
        )
    if record.version != folder.version:
        logging.warning("%s: what is known holds for version %s, this is %s", folder.name, record.version, folder.version)
    return Entry(record.spec())


def _record(folder: Folder) -> Record | None:
    """By the folder's name, else by the dataset's inside; where both are known, the one whose actions are there."""
    known = [RECORDS[name] for name in (folder.name, folder.stem) if name in RECORDS]
    return next((record for record in known if folder.steps.keys() >= record.action_features.keys()), known[0] if known else None)

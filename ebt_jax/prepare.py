"""Indexes datasets once, on many processes or machines, before runs open them; or rewrites them as ArrayRecord.

  python -m ebt_jax.prepare --data_dir=DIR --mixture=NAME
  python -m ebt_jax.prepare --data_dir=DIR --mixture=NAME --array_record=DIR
  python -m ebt_jax.prepare --data_dir=gs://... --mixture=NAME --parts_dir=gs://... --beam=--runner=DataflowRunner --beam=--project=P

Writes the index of every split of every dataset into the cache (docs/data.md), or with --array_record the datasets themselves into that
folder. Started again it goes on where it stood. Stdout names what was made, a line each; the training split of a dataset comes last.
"""

from typing import cast

from absl import flags

from ebt_jax import cli

DATA_DIR = flags.DEFINE_string("data_dir", None, "Folder of the datasets: local, or gs://...", required=True)
MIXTURE = flags.DEFINE_string("mixture", None, "A dataset, a published mixture, or a JSON file of weights.", required=True)
ARRAY_RECORD = flags.DEFINE_string("array_record", "", "Rewrite the datasets as ArrayRecord into this folder, in place of indexing them.")
CACHE_DIR = flags.DEFINE_string("cache_dir", "", "Where indexes go; as data.cache_dir.")
PROPRIO = flags.DEFINE_list("proprio", ["*"], "Patterns of the state's names that a run will see; as data.proprio.")
PARTS_DIR = flags.DEFINE_string("parts_dir", "", "Where parts of an index lie while it is made; a bucket's folder for Beam's workers.")
ON_BAD = flags.DEFINE_enum("on_bad", "raise", ["raise", "skip"], "What becomes of records that cannot be read; as data.on_bad.")
PROCESSES = flags.DEFINE_integer("processes", -1, "Processes; -1 is one a core where the data are large, 0 none beside this one.")
BEAM = flags.DEFINE_multi_string("beam", [], "A flag for Apache Beam, which then runs the jobs; may be given several times.")
cli.on_disk("array_record", "cache_dir")


def main() -> None:
    """Indexes every dataset of the mixture, or rewrites it."""
    from ebt_jax.data import jobs
    from ebt_jax.data.array_record import to_array_record
    from ebt_jax.data.beam import on_beam
    from ebt_jax.data.faults import OnBad, at_once
    from ebt_jax.data.folder import Folder
    from ebt_jax.data.index import open_index
    from ebt_jax.data.oxe import describe, find_dataset
    from ebt_jax.data.scan import check_features
    from ebt_jax.data.settings import DataSettings
    from ebt_jax.data.standardize import Entry

    settings, on_bad = DataSettings(DATA_DIR.value, MIXTURE.value, proprio=tuple(PROPRIO.value)), cast(OnBad, ON_BAD.value)
    runner = on_beam(BEAM.value) if BEAM.value else None if PROCESSES.value < 0 else jobs.choose(0, 0, PROCESSES.value)

    def find(name: str) -> Folder:
        return find_dataset(settings.data_dir, name)

    def find_described(name: str) -> tuple[Folder, Entry]:
        folder = find(name)
        entry = describe(folder)
        entry = entry._replace(spec=entry.spec.show(settings.proprio))
        check_features(folder, entry)
        return folder, entry

    names = settings.weights
    if ARRAY_RECORD.value:
        for folder in cli.progress(at_once(find, names), len(names), "datasets", every=1):
            print(to_array_record(folder, ARRAY_RECORD.value, runner))
        return
    for folder, entry in cli.progress(at_once(find_described, names), len(names), "datasets", every=1):
        held = [split for split in folder.splits if folder.num_records(split)] or ["train"]
        for split in sorted(held, key=lambda split: split == "train"):
            print(open_index(folder, split, entry, CACHE_DIR.value, on_bad, runner, PARTS_DIR.value).cache)


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

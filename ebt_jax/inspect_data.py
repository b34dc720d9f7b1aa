"""What is in a dataset or a mixture, and what looks wrong in it.

  python -m ebt_jax.inspect_data --data_dir=DIR
  python -m ebt_jax.inspect_data --data_dir=DIR --dataset=NAME --output=OUT
  python -m ebt_jax.inspect_data --data_dir=DIR --mixture=NAME --output=OUT

The first lists what lies in DIR and what is known of it. The others read a few episodes, drawn at random without an index, print a
table, and write OUT/report.html and OUT/inspection.json. DIR may be a bucket.
"""

import json
import pathlib
from typing import cast

from absl import flags, logging

from ebt_jax import cli
from ebt_jax.data.inspection import Sample, facts, mixture_rows, sample
from ebt_jax.data.oxe import describe, find_dataset
from ebt_jax.data.settings import DataSettings, Weighting
from ebt_jax.report.tables import dataset_table, listing, mixture_table

_DATA_DIR = flags.DEFINE_string("data_dir", None, "The folder that holds the datasets, local or gs://.", required=True)
_DATASET = flags.DEFINE_string("dataset", "", "A dataset to look at.")
_MIXTURE = flags.DEFINE_string("mixture", "", "A mixture to look at: a published one's name, or a JSON file of names and weights.")
_OUTPUT = flags.DEFINE_string("output", "", "Folder for report.html and inspection.json; none are written where empty.")
_EPISODES = flags.DEFINE_integer("episodes", 50, "Episodes to read of each dataset.", lower_bound=1)
_SPLIT = flags.DEFINE_string("split", "train", "The split to read.")
_SEED = flags.DEFINE_integer("seed", 0, "Picks the episodes.", lower_bound=0)
_WEIGHTING = flags.DEFINE_enum("weighting", "given", ["given", "transitions"], "What a mixture's weights mean.")
_VALIDATION_FRACTION = flags.DEFINE_float("validation_fraction", 0.1, "Share to hold out, for the held-out column of a mixture.")
cli.on_disk("output")


def main() -> None:
    if _DATASET.value and _MIXTURE.value:
        raise flags.ValidationError("--dataset and --mixture must not both be given. Name a mixture with --mixture alone.")
    if not _DATASET.value and not _MIXTURE.value:
        print(listing(_DATA_DIR.value))
        return
    mixture = _MIXTURE.value or _DATASET.value
    weighting = cast(Weighting, _WEIGHTING.value)
    with cli.wrong_usage():
        settings = DataSettings(_DATA_DIR.value, mixture, weighting=weighting, validation_fraction=_VALIDATION_FRACTION.value)
        names = list(settings.weights)
    samples = [_sample(name) for name in cli.progress(names, len(names), "datasets", every=1)]
    trees, rows = [facts(found) for found in samples], mixture_rows(samples, settings) if _MIXTURE.value else []
    for part in ([mixture_table(rows)] if rows else []) + [dataset_table(tree) for tree in trees]:
        print(part, end="\n\n")
    if _OUTPUT.value:
        from ebt_jax.report.datasets import write_dataset_report

        output = pathlib.Path(_OUTPUT.value)
        output.mkdir(parents=True, exist_ok=True)
        (output / "inspection.json").write_text(json.dumps({"mixture": rows, "datasets": trees}, indent=1) + "\n")
        logging.info("wrote %s", write_dataset_report(output / "report.html", mixture, trees, samples, rows))


def _sample(name: str) -> Sample:
    folder = find_dataset(_DATA_DIR.value, name)
    return sample(folder, describe(folder), _SPLIT.value, _EPISODES.value, _SEED.value)


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

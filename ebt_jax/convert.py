"""python -m ebt_jax.convert --source=robomimic_hdf5 --input=low_dim_v141.hdf5 --output=DIR [--name=NAME] [--spec=FILE.json]

Other formats into RLDS (TFDS): DIR/NAME/1.0.0, numbers and pixels as the source has them, and an ebt_spec.json that says what they
mean. Where the source does not say what an action means (LeRobot never does), --spec must: a file like ebt_spec.json.
"""

import pathlib
from collections.abc import Iterable

from absl import flags

from ebt_jax import cli
from ebt_jax.data.convert import SOURCES
from ebt_jax.data.spec import DatasetSpec
from ebt_jax.data.write import write_rlds

_SOURCE = flags.DEFINE_enum("source", None, sorted(SOURCES), "The format to read.", required=True)
_INPUT = flags.DEFINE_string("input", None, "The file or folder to read.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write the dataset under.", required=True)
_NAME = flags.DEFINE_string("name", "", "The dataset's name; the spec's, or that of the input, where empty.")
_EPISODES = flags.DEFINE_list("episodes", [], "Numbers of the source's episodes to take, from 0, as 0-9,15; all where empty.")
_SPEC = flags.DEFINE_string("spec", "", "JSON like ebt_spec.json: what the numbers mean, where the source does not say.")
cli.on_disk("output")


def main() -> None:
    spec = DatasetSpec.from_json(pathlib.Path(_SPEC.value).read_text()) if _SPEC.value else None
    conversion = SOURCES[_SOURCE.value](_INPUT.value, _NAME.value, spec)
    if _EPISODES.value:
        conversion = conversion.select(_numbers(_EPISODES.value))
    episodes = cli.progress(conversion.episodes, len(conversion.numbers), "episodes")
    print(write_rlds(_OUTPUT.value, conversion.spec, episodes, conversion.description))


def _numbers(parts: Iterable[str]) -> set[int]:
    """["0-2", "7"] -> {0, 1, 2, 7}."""
    found = set[int]()
    for part in parts:
        first, dash, last = part.partition("-")
        try:
            found |= set(range(int(first), int(last if dash else first) + 1))
        except ValueError as error:
            raise flags.ValidationError(f"--episodes must be numbers and ranges, as 0-9,15, got {part!r}.") from error
    return found


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

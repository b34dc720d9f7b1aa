"""A dataset about to be written: what the reader of every other format gives."""

import re
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import NamedTuple

from ebt_jax.data.spec import SPEC_FILE, DatasetSpec
from ebt_jax.data.write import Demonstration


class Conversion(NamedTuple):
    """What a dataset means, how episodes of it are read, which are wanted, and a sentence about it.

    Numbers stay as the source has them; `spec` says how they become ours, so a fact that proves wrong is corrected in one line.

    Attributes:
      read: the episodes of these numbers one by one, and nothing of any other.
      numbers: of the episodes, from 0 as the source numbers them.
    """

    spec: DatasetSpec
    read: Callable[[Sequence[int]], Iterator[Demonstration]]
    numbers: Sequence[int]
    description: str

    @property
    def episodes(self) -> Iterator[Demonstration]:
        """One by one, from the first."""
        return self.read(self.numbers)

    def select(self, numbers: Collection[int]) -> "Conversion":
        """Those of these numbers. Raises ValueError for numbers that are not there, or none."""
        wanted = set(numbers)
        unknown = sorted(wanted - set(self.numbers))
        if unknown or not wanted:
            raise ValueError(f"episodes must be among 0 to {len(self.numbers) - 1}, got {unknown or 'none'}.")
        return self._replace(numbers=sorted(wanted))


def dataset_name(text: str) -> str:
    """What tensorflow-datasets accepts as a name: "Tool Hang v1.hdf5" -> "tool_hang_v1"."""
    words = re.sub(r"\W+", "_", re.sub(r"\.\w+$", "", text).lower()).strip("_")
    return words if words[:1].isalpha() else f"dataset_{words}"


def refuse(path: str, reason: str, features: str) -> ValueError:
    """The error for actions whose meaning the source does not state."""
    return ValueError(
        f"actions of {path} must have a known meaning, got {reason}. Say what they mean with --spec=FILE.json, written like the "
        f"{SPEC_FILE} of docs/data.md; its keys may be {features}."
    )

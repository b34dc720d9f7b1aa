"""A dataset about to be written: what the reader of every other format gives."""

import re
from collections.abc import Collection, Iterator
from typing import NamedTuple

from ebt_jax.data.spec import SPEC_FILE, DatasetSpec
from ebt_jax.data.write import Demonstration


class Conversion(NamedTuple):
    """What a dataset means, its episodes one by one, how many they are, and a sentence about it.

    Numbers stay as the source has them; `spec` says how they become ours, so a fact that proves wrong is corrected in one line.
    """

    spec: DatasetSpec
    episodes: Iterator[Demonstration]
    num_episodes: int
    description: str

    def select(self, numbers: Collection[int]) -> "Conversion":
        """Those of these numbers, counted from 0 as the source orders them. Raises ValueError for numbers that it has not, or none."""
        wanted = set(numbers)
        unknown = sorted(wanted - set(range(self.num_episodes)))
        if unknown or not wanted:
            raise ValueError(f"episodes must be among 0 to {self.num_episodes - 1}, got {unknown or 'none'}.")
        kept = (episode for number, episode in enumerate(self.episodes) if number in wanted)
        return self._replace(episodes=kept, num_episodes=len(wanted))


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

"""What was left out because it could not be read or used: raised, or counted and said, never silent."""

import collections
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Literal, TypeVar

from absl import logging

Item = TypeVar("Item")
Result = TypeVar("Result")

OnBad = Literal["raise", "skip"]
EXAMPLES = 5
"""Messages kept of each kind of fault."""


class Faults:
    """Counts by kind, with the first messages of each; threads may report at the same time."""

    def __init__(self, quiet: bool = False) -> None:
        self._quiet = quiet
        self._lock = threading.Lock()
        self._counts: collections.Counter[str] = collections.Counter()
        self._messages: dict[str, list[str]] = {}

    def report(self, kind: str, message: str, count: int = 1) -> None:
        """Counts a fault; logs the first few of its kind, then the 10th, 100th, ..."""
        with self._lock:
            before, after = self._counts[kind], self._counts[kind] + count
            self._counts[kind] = after
            messages = self._messages.setdefault(kind, [])
            if len(messages) < EXAMPLES:
                messages.append(message)
            said = before < EXAMPLES or len(str(before)) < len(str(after))
        if said and not self._quiet:
            logging.warning("%s (%d so far): %s", kind, after, message)

    @property
    def counts(self) -> Mapping[str, int]:
        with self._lock:
            return dict(self._counts)

    @property
    def messages(self) -> Mapping[str, list[str]]:
        with self._lock:
            return {kind: list(messages) for kind, messages in self._messages.items()}

    @property
    def total(self) -> int:
        return sum(self.counts.values())


def at_once(function: Callable[[Item], Result], items: Iterable[Item]) -> list[Result]:
    """function(item) of each; what is wrong with several is said at once.

    Raises FileNotFoundError where anything is missing, else ValueError where anything is refused, with the messages of both.
    """
    found, missing, refused = [], [], []
    for item in items:
        try:
            found.append(function(item))
        except FileNotFoundError as error:
            missing.append(str(error))
        except ValueError as error:
            refused.append(str(error))
    if missing or refused:
        raise (FileNotFoundError if missing else ValueError)("\n".join(missing + refused))
    return found

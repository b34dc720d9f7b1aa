"""A run that no longer moves ends: every thread's stack on stderr, the process's number, and an exit code that is not 0.

A process that waits for ever in a collective, because another one is stuck or its data has stalled, sends heartbeats all the same: no
timeout of jax ends it. A thread here looks at how long ago the loop last said something. Should even that thread be kept from
running, by a call that holds Python's lock, the interpreter's own timer ends the process.
"""

import collections
import faulthandler
import math
import statistics
import threading
import time
from collections.abc import Callable
from typing import NamedTuple

from ebt_jax.interruption import Interrupted

FACTOR = 10
STDERR = 2
SLOW_SECONDS = 1800.0
CLOSING_SECONDS = 10.0
OTHERS_SECONDS = 3.0
LOCKED_SECONDS = 5.0


class Phase(NamedTuple):
    """What the loop said last: what it does at which update, since when, and for how many seconds it may."""

    name: str
    step: int
    since: float
    limit: float


class Watchdog:
    """Ends the process when the loop is silent for longer than max(`seconds`, 10 x the mean update).

    Anything but an update (compiling the first, looking at held-out data, saving) may take `slow_seconds`, and so may the first updates
    while their pace is not known: the loop hands `in_flight` + 1 to the devices before it waits for one, and those count for nothing.
    Whenever it looks at losses it waits for several at once, and then for some not at all: hence the mean, of at least so many.

    Of several processes, the others end as soon as one does, so it first gives them `OTHERS_SECONDS` to print their stacks too: one of
    those is to blame. The interpreter's timer comes `LOCKED_SECONDS` after the thread should have.
    """

    def __init__(
        self,
        seconds: float,
        end: Callable[[str], None],
        process_index: int = 0,
        process_count: int = 1,
        slow_seconds: float = SLOW_SECONDS,
        in_flight: int = 0,
    ) -> None:
        """`seconds`: 0 waits for ever. `end`: ends the process, with a message. `in_flight`: updates that devices may lie behind."""
        self._seconds = seconds or math.inf
        self._slow_seconds = max(slow_seconds, self._seconds)
        self._end, self._process, self._alone = end, f"process {process_index} of {process_count}", process_count == 1
        self._updates: collections.deque[float] = collections.deque(maxlen=100)
        self._begun, self._unknown = 0, in_flight + 1
        self._phase = Phase("start", 0, time.monotonic(), self._slow_seconds)
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def __enter__(self) -> "Watchdog":
        if self._seconds < math.inf or not self._alone:
            self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: object) -> None:
        """After an error in one process of several, what is still being saved gets 10 s: the others may never help to finish it.

        Being interrupted is no error: all have saved, and wait for each other at the end.
        """
        if error is not None and not self._alone and not isinstance(error, Interrupted):
            self._enter(f"closing after {type(error).__name__}: {error}", self._phase.step, CLOSING_SECONDS)
            return
        self._closed.set()
        if self._thread.is_alive():
            self._thread.join()
            faulthandler.cancel_dump_traceback_later()

    def update(self, step: int) -> None:
        """The loop begins update `step`; the one before is handed over."""
        self._end_update()
        self._begun += 1
        known = len(self._updates) >= self._unknown
        usual = FACTOR * statistics.fmean(self._updates) if known else self._slow_seconds
        self._enter("update", step, max(self._seconds, usual))

    def slow(self, phase: str) -> None:
        """The loop begins something that is not an update."""
        self._end_update()
        self._enter(phase, self._phase.step, self._slow_seconds)

    def _end_update(self) -> None:
        if self._phase.name == "update" and self._begun > self._unknown:
            self._updates.append(time.monotonic() - self._phase.since)

    def _enter(self, phase: str, step: int, limit: float) -> None:
        self._phase = Phase(phase, step, time.monotonic(), limit)  # one assignment: the thread sees all of it or none

    def _watch(self) -> None:
        interval = min(1.0, self._seconds / 10)
        while not self._closed.wait(interval):
            phase, step, since, limit = self._phase
            silent = time.monotonic() - since
            if silent > limit:
                faulthandler.cancel_dump_traceback_later()
                faulthandler.dump_traceback(file=STDERR, all_threads=True)
                if not self._alone:
                    time.sleep(OTHERS_SECONDS)
                self._end(
                    f"error: {self._process} is stuck: nothing happened for {silent:.1f} s (limit {limit:.1f} s) in phase "
                    f"{phase!r} of step {step}. The stacks of its threads are above; of several processes, look for the one "
                    "that is not waiting in a collective. Start the same command again to go on from the last checkpoint."
                )
                return
            if limit < math.inf:
                faulthandler.dump_traceback_later(limit - silent + 2 * interval + LOCKED_SECONDS, exit=True, file=STDERR)

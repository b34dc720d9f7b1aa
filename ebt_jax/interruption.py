"""Being asked to stop: SIGTERM and Ctrl-C become a flag that a loop reads between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop and everything is saved; starting it again goes on from there."""


@contextlib.contextmanager
def termination_requested() -> Iterator[threading.Event]:
    """An event that SIGTERM or SIGINT sets; a second signal acts as usual. Outside the main thread it is never set."""
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: object) -> None:
        event.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield event
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

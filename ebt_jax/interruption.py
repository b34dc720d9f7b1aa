"""Being asked to stop: SIGTERM and Ctrl-C become a flag that a loop reads between two steps."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any


class Interrupted(Exception):
    """The run was asked to stop and everything is saved; starting it again goes on from there."""


class Request(threading.Event):
    """Set by a signal that asks to stop.

    Attributes:
      at_once: a signal ends what is under way instead, with `Interrupted`: while there is nothing yet to save.
    """

    def __init__(self, at_once: bool) -> None:
        super().__init__()
        self.at_once = at_once


@contextlib.contextmanager
def termination_requested(at_once: bool = False) -> Iterator[Request]:
    """An event that SIGTERM or SIGINT sets; a second signal acts as usual. Outside the main thread it is never set.

    With `at_once`, and until the body clears that, a signal ends the body as soon as Python runs again. Raises Interrupted then.
    """
    event = Request(at_once)
    if threading.current_thread() is not threading.main_thread():
        yield event
        return
    before: dict[int, Any] = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}

    def handle(number: int, frame: object) -> None:
        if event.at_once:
            raise KeyboardInterrupt  # and not Interrupted: that is an Exception, which code on the way may take for its own failure
        event.set()
        signal.signal(number, before[number])

    for number in before:
        signal.signal(number, handle)
    try:
        yield event
    except KeyboardInterrupt as interrupt:
        if event.at_once:
            raise Interrupted("nothing was begun that had to be saved; start the same command again") from interrupt
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)

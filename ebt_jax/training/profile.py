"""A window of updates seen through JAX's profiler: what ran on the devices, and when (TensorBoard, Perfetto)."""

import pathlib
from collections.abc import Callable, Iterable, Iterator

import jax


def parse_window(text: str) -> range:
    """ "START:STOP" -> the updates START, ..., STOP - 1. Raises ValueError for anything else."""
    start, _, stop = text.partition(":")
    if not (start.isdigit() and stop.isdigit() and 1 <= int(start) < int(stop)):
        raise ValueError(f"profile must be START:STOP with 1 <= START < STOP, got {text!r}. Updates 10 to 14: 10:15.")
    return range(int(start), int(stop))


def profiled(
    steps: Iterable[int], window: range, directory: pathlib.Path, slow: Callable[[str], None] = lambda phase: None
) -> Iterator[int]:
    """The same steps; the trace of those in `window` is written into `directory` when the first past it is asked for.

    Devices run behind the loop: what they still do when the window closes is cut off, so let it span a few updates.

    Args:
      slow: told "profile" before a trace is begun or written, which may take minutes (`Watchdog.slow`).
    """
    running = False
    try:
        for step in steps:
            if running != (step in window):
                slow("profile")
                running = not running
                if running:
                    jax.profiler.start_trace(directory)
                else:
                    jax.profiler.stop_trace()
            yield step
    finally:
        if running:
            slow("profile")
            jax.profiler.stop_trace()

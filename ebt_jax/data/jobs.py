"""results = [job(item) for item in items], here, in processes beside this one, or on a cluster (`beam.py`).

A job is a pure function of one item, mostly of one shard: it can run anywhere, twice, or again after a crash. What is large it
writes to a file, whole or not at all, and returns a word about it.

Processes are started as `python -m ebt_jax.data.jobs`, not forked and not by multiprocessing: a fork copies the locks of XLA's
threads, and multiprocessing would run the caller's script a second time in each.
"""

import concurrent.futures
import contextlib
import os
import queue
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Any, TypeVar

from absl import logging

Item = TypeVar("Item")
Result = TypeVar("Result")

Runner = Callable[[Callable[[Any], Any], Sequence[Any]], Iterator[Any]]
"""(job, items) -> their results in order."""

SAY_EVERY = 10.0
"""Seconds between two lines about a job that takes long."""


def here(job: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
    """One after another, in this process."""
    return map(job, items)


def in_processes(count: int) -> Runner:
    """A runner over `count` processes. An error of a job is raised here; a process that dies is a RuntimeError naming the item."""

    def runner(job: Callable[[Item], Result], items: Sequence[Item]) -> Iterator[Result]:
        with contextlib.ExitStack() as stack:
            idle: queue.SimpleQueue[_Process] = queue.SimpleQueue()
            for _ in range(min(count, len(items))):
                process = _Process()
                stack.callback(process.close)
                idle.put(process)

            def ask(item: Item) -> Result:
                process = idle.get()
                try:
                    return process.ask(job, item)
                finally:
                    idle.put(process)

            pool = concurrent.futures.ThreadPoolExecutor(count)
            stack.callback(pool.shutdown, wait=False, cancel_futures=True)
            yield from pool.map(ask, items)

    return runner


def cores() -> int:
    """Those that this process may run on: of a machine that it shares, its own."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def choose(num_bytes: int, num_items: int, processes: int = -1) -> Runner:
    """Processes where they pay for their start (about a second each), or as many as told; 0 is none."""
    if processes < 0:
        processes = min(cores(), num_items) if num_bytes > 1 << 28 else 0
    return in_processes(processes) if processes > 0 else here


def say(results: Iterator[Result], total: int, what: str) -> Iterator[Result]:
    """The results, with a line every few seconds that says how far they are and how long the rest may take."""
    start = said = time.monotonic()
    for number, result in enumerate(results, start=1):
        yield result
        now = time.monotonic()
        if now - said > SAY_EVERY:
            said, rest = now, (now - start) / number * (total - number)
            logging.info("%s: %d of %d, about %d min %02d s left", what, number, total, rest // 60, rest % 60)


class _Process:
    """One process that answers (job, item) with a result or an error."""

    def __init__(self) -> None:
        self._connection, theirs = Pipe()
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "ebt_jax.data.jobs", str(theirs.fileno())]
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env=environment)
        theirs.close()

    def ask(self, job: Callable[[Item], Result], item: Item) -> Result:
        try:
            self._connection.send((job, item))
            result, error = self._connection.recv()
        except (EOFError, OSError) as broken:
            code, what = self._process.wait(), getattr(item, "path", None) or repr(item)[:200]
            raise RuntimeError(
                f"a process must live until its job is done, got exit code {code} at {what}. -9 is often the system running out of memory: "
                "set data.index_processes lower."
            ) from broken
        if error is not None:
            raise error
        return result

    def close(self) -> None:
        """Ends the process, in the middle of a job if it must."""
        self._process.terminate()
        self._process.wait()
        self._connection.close()


def serve(connection: Connection) -> None:
    """Answers until the other side is gone."""
    while True:
        try:
            job, item = connection.recv()
        except EOFError:
            return
        try:
            answer = job(item), None
        except Exception as error:
            answer = None, error
        connection.send(answer)


if __name__ == "__main__":
    serve(Connection(int(sys.argv[1])))

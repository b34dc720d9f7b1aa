"""Many environments at once, shared out over processes.

A worker is a fresh interpreter (not a fork: jax has threads) that holds several environments. It is told whole plans, not
single actions, so a message goes to and fro once per chunk.
"""

import contextlib
import os
import subprocess
import sys
from collections.abc import Mapping
from multiprocessing.connection import Pipe
from types import TracebackType

from absl import logging

from ebt_jax.evaluation.messages import Failure, Lost, Outcome, Plan, Start


class Environments:
    """`num_envs` seats of one suite in `num_processes` workers (default: one per CPU core). Use it as a context manager.

    What a seat answers does not depend on the other seats or on the number of processes. Where a process dies, its seats answer `Lost`
    until an episode begins there, and another takes its place. Raises RuntimeError, in asking, for what no process could do.
    """

    def __init__(
        self,
        suite: str,
        cameras: tuple[str, ...],
        num_envs: int,
        num_processes: int | None = None,
        environ: Mapping[str, str] | None = None,
    ) -> None:
        if num_envs < 1:
            raise ValueError(f"num_envs must be at least 1, got {num_envs}.")
        count = min(num_envs, num_processes or os.cpu_count() or 1)
        self.num_envs = num_envs
        self._new_worker = lambda: _Worker(suite, cameras, environ or {})
        self._workers = [self._new_worker() for _ in range(count)]

    def start(self, starts: Mapping[int, Start]) -> dict[int, Outcome | Lost]:
        """Begins an episode in each of these seats."""
        return self._ask(starts)

    def execute(self, plans: Mapping[int, Plan]) -> dict[int, Outcome | Lost]:
        """Executes a plan in each of these seats."""
        return self._ask(plans)

    def close(self) -> None:
        """Ends the workers; what they were doing is lost."""
        for worker in self._workers:
            worker.close()

    def __enter__(self) -> "Environments":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def _ask(self, orders: Mapping[int, Start | Plan]) -> dict[int, Outcome | Lost]:
        asked, found = {}, {}
        for number, worker in enumerate(self._workers):
            mine = {seat: order for seat, order in orders.items() if seat % len(self._workers) == number}
            if mine:
                worker.send(mine)
                asked[number] = mine
        for number, mine in asked.items():
            try:
                found |= self._workers[number].receive()
            except _DiedError as death:
                logging.warning("%s", death)
                self._workers[number].close()
                self._workers[number] = self._new_worker()
                found |= dict.fromkeys(mine, Lost(str(death)))
        return found


class _DiedError(Exception):
    """A process is no more."""


class _Worker:
    def __init__(self, suite: str, cameras: tuple[str, ...], environ: Mapping[str, str]) -> None:
        self._connection, theirs = Pipe()
        command = [sys.executable, "-m", "ebt_jax.evaluation.worker", str(theirs.fileno()), suite, ",".join(cameras)]
        settings = {"PYTHONPATH": os.pathsep.join(path or os.getcwd() for path in sys.path), "OMP_NUM_THREADS": "1", **environ}
        self._process = subprocess.Popen(command, pass_fds=[theirs.fileno()], env={**os.environ, **settings})
        theirs.close()
        self._suite = suite

    def send(self, orders: Mapping[int, Start | Plan]) -> None:
        with contextlib.suppress(OSError):  # of a dead process `receive` tells
            self._connection.send(orders)

    def receive(self) -> dict[int, Outcome | Lost]:
        try:
            answer = self._connection.recv()
        except (EOFError, OSError) as error:
            raise self._death() from error
        if isinstance(answer, Failure):
            raise RuntimeError(f"an environment of suite {self._suite!r} failed with {answer.message}")
        return answer

    def close(self) -> None:
        self._connection.close()
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _death(self) -> _DiedError:
        code = self._process.wait()
        cause = f"signal {-code}" if code < 0 else f"exit code {code}"
        return _DiedError(
            f"a process of suite {self._suite!r} must live until the evaluation ends, got {cause}. Its messages are above; "
            "signal 9 is often the system running out of memory: lower --num_envs."
        )

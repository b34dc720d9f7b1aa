"""What the processes of one run tell each other beside their collectives: at which step all stop, and who failed.

A few words in the key-value store that jax's coordination service keeps, read by a thread twice a second: a process that waits
inside a collective, for another that will never come, still hears and answers.
"""

import contextlib
import hashlib
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

from absl import logging

POLL_SECONDS = 0.5
AGREE_SECONDS = 20.0
PREFIX = "ebt_jax/"


class Peers:
    """This process among the others."""

    def __init__(self, client: Any, process_id: int, num_processes: int, end: Callable[[str], None]) -> None:
        """`client`: of jax's coordination service. `end`: ends this process at once, with a message."""
        self.process_id, self.num_processes = process_id, num_processes
        self._client, self._end = client, end
        self._lock, self._closed = threading.Lock(), threading.Event()
        self._step, self._stop_step, self._asked = 0, None, False
        self._thread = threading.Thread(target=self._follow, name="peers", daemon=True)
        self._thread.start()

    def stops_after(self, step: int, requested: bool) -> bool:
        """Whether all processes stop after this step. `requested`: this one was asked to; the others hear of it.

        Steps may be far apart in time between processes, so nobody stops where it stands: the step after the furthest is agreed on,
        and nobody takes another one while that is being done.
        """
        if requested and not self._asked:
            self._asked = True
            self._client.key_value_set(f"{PREFIX}stop", str(self.process_id), allow_overwrite=True)
        with self._lock:
            self._step = step
            return self._stop_step is not None and step >= self._stop_step

    def check_same(self, name: str, text: str, remedy: str, seconds: float) -> None:
        """Raises ValueError, with the remedy, where process 0 has another `text`; waits until it has said its own."""
        key, digest = f"{PREFIX}{name}", hashlib.sha256(text.encode()).hexdigest()
        if self.process_id == 0:
            self._client.key_value_set(key, digest)
        elif self._client.blocking_key_value_get(key, int(1000 * seconds)) != digest:
            raise ValueError(
                f"{name} must be the same in all processes, got another in process {self.process_id} than in process 0. {remedy}"
            )

    def meet(self, name: str, seconds: float) -> None:
        """Returns once all processes are here."""
        self._client.wait_at_barrier(f"{PREFIX}{name}", int(1000 * seconds))

    def tell_failure(self, message: str) -> str:
        """Makes the others end too. Returns within 5 seconds, whether or not anyone can still be told.

        Returns: what another process that failed before this one said, "" where this is the first. The first tears the collectives
        that the others wait in, and the error they raise then says nothing of what went wrong.
        """
        first = ""

        def tell() -> None:
            nonlocal first
            try:
                self._client.key_value_set(f"{PREFIX}failed", f"{self.process_id} {message}")
            except Exception:  # said by another one already, or process 0 is gone
                with contextlib.suppress(Exception):
                    first = self._first_failure(dict(self._client.key_value_dir_get(PREFIX)))

        self._closed.set()
        thread = threading.Thread(target=tell, daemon=True)
        thread.start()
        thread.join(3.0)
        if self.process_id == 0:  # the service lives here: it must outlive the others' next look at it
            time.sleep(4 * POLL_SECONDS)
        return first

    def close(self) -> None:
        """Stops listening."""
        self._closed.set()
        self._thread.join()

    def _follow(self) -> None:
        while not self._closed.wait(POLL_SECONDS):
            try:
                said = dict(self._client.key_value_dir_get(PREFIX))
            except Exception:  # process 0 is gone or slow: which of the two, jax's heartbeats find out
                continue
            if (failure := self._first_failure(said)) and not self._closed.is_set():
                self._end(failure)
            if f"{PREFIX}stop" in said and self._stop_step is None:
                self._agree()

    def _first_failure(self, said: Mapping[str, str]) -> str:
        """What ends this process, where another one failed, else ""."""
        number, _, message = said.get(f"{PREFIX}failed", "").partition(" ")
        if not number or int(number) == self.process_id:
            return ""
        return f"error: process {self.process_id} ends because process {number} failed: {message}"

    def _agree(self) -> None:
        """Sets the step that all stop after; `stops_after` waits meanwhile."""
        with self._lock:
            try:
                self._client.key_value_set(f"{PREFIX}step/{self.process_id}", str(self._step), allow_overwrite=True)
                self.meet("agree", AGREE_SECONDS)
                self._stop_step = 1 + max(int(step) for _, step in self._client.key_value_dir_get(f"{PREFIX}step/"))
                logging.info("process %d was at step %d; all stop after step %d", self.process_id, self._step, self._stop_step)
            except Exception as error:
                logging.warning("processes could not agree where to stop: %s", str(error).splitlines()[0])

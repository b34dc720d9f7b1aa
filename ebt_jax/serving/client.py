"""Asking a policy server: ten lines of a robot's loop. openpi's own client works as well."""

import itertools
import json
import time
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

from ebt_jax.serving import wire

_FIRST_ID = 2**62
"""Of the ids that `infer` gives; a caller's own begin lower."""


class ServerError(Exception):
    """A request that the server refused; `code` says why in one word, `id` is the request's where it had one."""

    def __init__(self, code: str, message: str, id: int | None = None) -> None:
        super().__init__(f"{code}: {message}")
        self.code, self.id = code, id


class Client:
    """A connection to `ebt_jax.serve`. Use it in a `with`.

    Attributes:
      metadata: what the server says of its policy: specs, `example_observation`, limits.
    """

    def __init__(self, url: str = "ws://127.0.0.1:8000", token: str | None = None, timeout: float = 60.0) -> None:
        """`timeout`: seconds to wait for the connection and for every answer."""
        headers = {"Authorization": f"Api-Key {token}"} if token else None
        self._timeout = timeout
        self._ids = itertools.count(_FIRST_ID)
        self._connection = connect(url, additional_headers=headers, open_timeout=timeout, max_size=None, compression=None)
        self.metadata: dict[str, Any] = self.receive()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The chunk `actions` [h a] in robot units with `energy`, `num_steps`, `server_timing` and `id` (made up where none is given).

        Answers to other questions are dropped: one that came too late is not taken for the next one's.
        Raises ServerError for a refusal, TimeoutError where no answer comes.
        """
        number, deadline = observation.get("id"), time.monotonic() + self._timeout
        if number is None:
            number = next(self._ids)
        self.send({**observation, "id": number})
        while True:
            try:
                answer = self._receive(deadline - time.monotonic())
            except ServerError as error:
                if error.id in (None, number):
                    raise
            else:
                if answer.get("id") == number:
                    return answer

    def energies(self, observation: dict[str, Any], actions: Any) -> Any:
        """E of each chunk of `actions` [m h a], robot units. Raises ServerError."""
        return self.infer({**observation, "request": "energy", "actions": actions})["energies"]

    def send(self, message: dict[str, Any]) -> None:
        """Asks without waiting; give an `id` below 2**62, since a newer question replaces one that still waits."""
        self._connection.send(wire.encode(message))

    def receive(self) -> dict[str, Any]:
        """The next answer, whichever question it belongs to. Raises ServerError for a refusal, TimeoutError where none comes."""
        return self._receive(self._timeout)

    def _receive(self, seconds: float) -> dict[str, Any]:
        frame = self._connection.recv(timeout=seconds)
        if isinstance(frame, str):
            refusal = json.loads(frame)
            raise ServerError(refusal["error"], refusal["message"], refusal.get("id"))
        return wire.decode(frame, max_text_bytes=len(frame))  # specs may hold a tokenizer's whole vocabulary

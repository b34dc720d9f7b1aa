"""Asking a policy server: ten lines of a robot's loop. openpi's own client works as well."""

import json
from types import TracebackType
from typing import Any

from websockets.sync.client import connect

from ebt_jax.serving import wire


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
        self._connection = connect(url, additional_headers=headers, open_timeout=timeout, max_size=None, compression=None)
        self.metadata: dict[str, Any] = self.receive()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        self._connection.close()

    def infer(self, observation: dict[str, Any]) -> dict[str, Any]:
        """The chunk `actions` [h a] in robot units with `energy`, `num_steps` and `server_timing`. Raises ServerError."""
        self.send(observation)
        return self.receive()

    def energies(self, observation: dict[str, Any], actions: Any) -> Any:
        """E of each chunk of `actions` [m h a], robot units. Raises ServerError."""
        return self.infer({**observation, "request": "energy", "actions": actions})["energies"]

    def send(self, message: dict[str, Any]) -> None:
        """Asks without waiting; give an `id`, since a newer question replaces one that still waits."""
        self._connection.send(wire.encode(message))

    def receive(self) -> dict[str, Any]:
        """The next answer, whichever question it belongs to. Raises ServerError for a refusal, TimeoutError where none comes."""
        frame = self._connection.recv(timeout=self._timeout)
        if isinstance(frame, str):
            refusal = json.loads(frame)
            raise ServerError(refusal["error"], refusal["message"], refusal.get("id"))
        return wire.decode(frame)

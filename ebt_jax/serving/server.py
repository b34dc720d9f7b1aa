"""openpi's websocket protocol: metadata first, then a chunk for every observation.

    client                                server
    connect  (Authorization: Api-Key T)   token compared in constant time; 401, or 503 where too many are connected
                                          <- metadata: specs, an `example_observation`, limits
    observation ->                        decoded and checked off the event loop, batched with other clients'
                                          <- {"actions", "energy", ..., "server_timing"}, or text {"error", "message"}

A request that is refused leaves the connection open; bytes that are no message close it. Errors carry a code and one line, never a
traceback. The port is taken at once, but nobody is let in before everything is compiled. `GET /healthz` and `GET /metrics` answer on
the same port while the policy is busy.
"""

import asyncio
import contextlib
import hmac
import http
import ipaddress
import json
import time
from collections.abc import AsyncIterator
from typing import Any

from absl import logging
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request as HttpRequest
from websockets.http11 import Response

from ebt_jax.policy import Policy
from ebt_jax.serving import wire
from ebt_jax.serving.batcher import BATCH_SIZES, ENERGY_SIZES, Batcher
from ebt_jax.serving.metrics import ServerMetrics
from ebt_jax.serving.schema import Request, RequestError, Schema, left_out

PROTOCOL = 1
MAX_FRAME_BYTES = 16 * 2**20
MAX_CONNECTIONS = 64
MAX_UNANSWERED = 8
"""Answers that one client may leave unread before no more of its requests are read."""

FAREWELL_S = 1.0
"""How long a server that stops waits for its last answers to be read."""

PING_INTERVAL_S, PING_TIMEOUT_S = 20.0, 120.0
"""How often a client is pinged, and how long its answer may take before it is held for dead and its place is given away."""

BAD_PAYLOAD = 1007
"""Websocket close code for bytes that are not what the protocol says."""


class PolicyServer:
    """A policy that clients reach by websocket.

    Args:
      token: what clients must send as `Authorization: Api-Key TOKEN` (or Bearer); None asks for none and binds to loopback only.
      batch_sizes, sample_steps, energy_sizes: what is compiled, see `Batcher`; a client may ask for no other steps and no more chunks.
      seed: of clients that name none.

    Raises what `check_access` and `check_sizes` raise.
    """

    def __init__(
        self,
        policy: Policy,
        host: str = "127.0.0.1",
        port: int = 8000,
        *,
        token: str | None = None,
        seed: int = 0,
        batch_sizes: tuple[int, ...] = BATCH_SIZES,
        sample_steps: tuple[int, ...] = (),
        energy_sizes: tuple[int, ...] = ENERGY_SIZES,
        max_frame_bytes: int = MAX_FRAME_BYTES,
        max_connections: int = MAX_CONNECTIONS,
    ) -> None:
        check_access(host, token)
        self._batcher = Batcher(policy, batch_sizes, sample_steps, energy_sizes)
        max_chunks = max(self._batcher.energy_sizes, default=0)
        self._schema = Schema(policy.specs, self._batcher.sample_steps, max_chunks)
        self._host, self._port, self._token, self._seed = host, port, token, seed
        self._max_frame_bytes, self._max_connections = max_frame_bytes, max_connections
        self._metrics = ServerMetrics()
        self._connected = 0
        self._clients = 0
        self._answers: set[asyncio.Task[None]] = set()
        self._metadata = wire.encode(
            {
                "server": "ebt_jax",
                "protocol": PROTOCOL,
                "policy": policy.identity._asdict(),
                "specs": json.loads(policy.specs.to_json()),
                "example_observation": self._schema.example(),
                "execution_horizon": policy.execution_horizon,
                "has_energy": max_chunks > 0,
                "limits": {
                    "frame_bytes": max_frame_bytes,
                    "connections": max_connections,
                    "sample_steps": list(self._batcher.sample_steps),
                    "chunks": max_chunks,
                },
            }
        )

    @contextlib.asynccontextmanager
    async def running(self) -> AsyncIterator[int]:
        """Serves inside the `async with`; gives the port.

        Takes the port, then compiles, then lets clients in. At the end what waits is refused and what the policy is at is answered.
        Raises OSError where the port is taken, and what `Batcher.start` raises.
        """
        async with self._listen() as server:
            try:
                await asyncio.to_thread(self._batcher.start)
                await server.start_serving()
                port = next(iter(server.sockets)).getsockname()[1]
                logging.info("serving on ws://%s:%d", self._host, port)
                yield port
            finally:
                await asyncio.to_thread(self._batcher.stop)
                if self._answers:
                    await asyncio.wait(self._answers, timeout=FAREWELL_S)

    def _listen(self) -> Any:
        return serve(
            self._serve_client,
            self._host,
            self._port,
            process_request=self._admit,
            # A page in somebody's browser could reach a loopback server; it always sends an Origin, which no robot does.
            origins=None if self._token else [None],
            max_size=self._max_frame_bytes,
            max_queue=4,
            compression=None,
            ping_interval=PING_INTERVAL_S,
            # A client that computes between observations answers pings all the same: websockets.sync, which openpi's client and ours
            # are made of, does so in a thread of its own. Only one that holds Python's interpreter lock for so long would be cut off.
            ping_timeout=PING_TIMEOUT_S,
            server_header=None,
            start_serving=False,
        )

    def _admit(self, connection: ServerConnection, request: HttpRequest) -> Response | None:
        """Answers plain HTTP; lets a websocket in or says why not."""
        path = request.path.partition("?")[0]
        if path == "/healthz":
            if self._batcher.alive:
                return connection.respond(http.HTTPStatus.OK, "OK\n")
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, "stopped\n")
        if self._token is not None and not self._authorised(request):
            self._metrics.refused.labels("token").inc()
            return connection.respond(http.HTTPStatus.UNAUTHORIZED, "Authorization: Api-Key TOKEN must be sent and right.\n")
        if path == "/metrics":
            self._metrics.waiting.set(self._batcher.num_waiting)
            return connection.respond(http.HTTPStatus.OK, self._metrics.text())
        if self._connected >= self._max_connections:
            self._metrics.refused.labels("connections").inc()
            return connection.respond(http.HTTPStatus.SERVICE_UNAVAILABLE, f"{self._max_connections} clients are connected already.\n")
        return None

    def _authorised(self, request: HttpRequest) -> bool:
        assert self._token is not None
        given = request.headers.get_all("Authorization")
        scheme, _, token = given[0].partition(" ") if len(given) == 1 else ("", "", "")
        same = hmac.compare_digest(token.strip().encode("iso-8859-1"), self._token.encode())  # headers are read as iso-8859-1
        return same and scheme.lower() in ("api-key", "bearer")

    async def _serve_client(self, connection: ServerConnection) -> None:
        self._clients += 1
        client, tasks = self._clients, set[asyncio.Task[None]]()
        self._connected += 1
        self._metrics.connections.set(self._connected)
        try:
            await connection.send(self._metadata)
            step = 0
            async for frame in connection:
                begun = time.perf_counter()
                if len(tasks) >= MAX_UNANSWERED:
                    await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
                try:
                    request = await asyncio.to_thread(self._read, frame, client, step)
                except wire.WireError as error:
                    await self._refuse(connection, RequestError("bad_frame", str(error)), None, "none")
                    await connection.close(BAD_PAYLOAD, "the frame was no message")
                    return
                except RequestError as error:
                    await self._refuse(connection, error, error.id, "none")
                    continue
                missing = left_out(request.observation)
                if missing and step == 0:
                    logging.warning(
                        "client %d sends no %s: the policy acts without.", client, ", ".join(f"images/{name}" for name in missing)
                    )
                step += 1
                task = asyncio.create_task(self._answer(connection, client, request, begun))
                for kept in (tasks, self._answers):
                    kept.add(task)
                    task.add_done_callback(kept.discard)
        except ConnectionClosed:
            pass
        finally:
            self._batcher.forget(client)
            self._connected -= 1
            self._metrics.connections.set(self._connected)

    def _read(self, frame: str | bytes, client: int, step: int) -> Request:
        """Raises WireError for bytes that are no message, RequestError for a message that is no request."""
        if isinstance(frame, str):
            raise RequestError("bad_request", "a request must be a binary msgpack frame, got text.")
        message = wire.decode(frame)
        try:
            return self._schema.parse(message, self._seed, client, step)
        except RequestError:
            raise
        except Exception as error:  # what nobody thought of: the log says what, the client goes on
            logging.exception("a request could not be read")
            raise RequestError(
                "bad_request", f"the request must be readable, got {type(error).__name__}; the server's log says why."
            ) from error

    async def _answer(self, connection: ServerConnection, client: int, request: Request, begun: float) -> None:
        try:
            try:
                answer = await asyncio.wrap_future(self._batcher.submit(client, request))
            except RequestError as error:
                await self._refuse(connection, error, request.id, request.kind)
                return
            self._metrics.queue.observe(answer["server_timing"]["queue_ms"] / 1e3)
            self._metrics.batch.observe(answer["server_timing"]["batch"])
            if request.id is not None:
                answer["id"] = request.id
            answer["server_timing"]["total_ms"] = 1e3 * (time.perf_counter() - begun)
            await connection.send(wire.encode(answer))
            self._metrics.requests.labels(request.kind, "done").inc()
            self._metrics.seconds.labels(request.kind).observe(time.perf_counter() - begun)
        except (ConnectionClosed, asyncio.CancelledError):
            self._metrics.requests.labels(request.kind, "gone").inc()

    async def _refuse(self, connection: ServerConnection, error: RequestError, number: int | None, kind: str) -> None:
        """A text frame, which openpi's clients raise as an error."""
        self._metrics.requests.labels(kind, error.code).inc()
        known = {} if number is None else {"id": number}
        await connection.send(json.dumps({"error": error.code, "message": str(error), **known}))


def check_access(host: str, token: str | None) -> None:
    """Raises ValueError for an address that other machines can reach without a token, and for a token that is short."""
    if token is None and not is_loopback(host):
        raise ValueError(
            f"host must be a loopback address where no token is set, got {host}. Set --token_file, and put TLS before the server "
            "(a reverse proxy or an SSH tunnel): the token crosses the network as it is."
        )
    if token is not None and len(token) < 16:
        raise ValueError(f"the token must have at least 16 characters, got {len(token)}. Make one: openssl rand -hex 32")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server bound to `host`."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"

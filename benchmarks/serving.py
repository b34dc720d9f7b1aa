"""What a policy server costs and withstands: its overhead, mutated frames, many clients for a long time.

    python benchmarks/serving.py --measure=overhead
    python benchmarks/serving.py --measure=overhead,codec,sockets,clients --output=benchmarks/results/serving.json     (make soak)

The policy is a formula that takes no time to speak of, so that what is measured is the server. overhead: one client on loopback sends
two 224 x 224 images; codec and socket are what remains of the round trip after the policy. codec: mutated frames are decoded
and parsed in this process, whose memory is looked at. sockets: the same through connections, while a neighbour's answers are checked.
clients: so many ask without pause and check that every answer is their own. There memory is the server process's resident set; growth is
between the first tenth, when everything is warm, and the end. A crash or a hang ends the command with an error.
"""

import concurrent.futures
import json
import os
import pathlib
import platform
import subprocess
import sys
import time
from importlib.metadata import version

import numpy as np
from absl import app, flags
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect

ROOT = pathlib.Path(__file__).parents[1]
sys.path[:0] = [str(ROOT / "tests" / folder) for folder in ("serving", "evaluation")]

import echo
from mutations import mutate

from ebt_jax.serving import wire
from ebt_jax.serving.client import Client
from ebt_jax.serving.schema import RequestError, Schema

MEASURES = ("overhead", "codec", "sockets", "clients")
MEASURE = flags.DEFINE_list("measure", ["overhead"], f"What to measure, of {', '.join(MEASURES)}.")
CALLS = flags.DEFINE_integer("calls", 500, "overhead: requests.")
FRAMES = flags.DEFINE_integer("frames", 1_000_000, "codec: mutated frames.")
SOCKET_FRAMES = flags.DEFINE_integer("socket_frames", 20_000, "sockets: mutated frames.")
CLIENTS = flags.DEFINE_integer("clients", 64, "clients: how many.")
MINUTES = flags.DEFINE_float("minutes", 10.0, "clients: for how long.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")
SERVE = flags.DEFINE_string("serve", "", "Used by the command itself: serve the formula with this many seats.")

TWO_IMAGES = {
    "images/primary": np.random.default_rng(0).integers(0, 256, (1, 224, 224, 3), np.uint8),
    "images/wrist": np.random.default_rng(1).integers(0, 256, (1, 224, 224, 3), np.uint8),
    "proprio": np.zeros((1, 7), np.float32),
}


class Server:
    """The formula in a process of its own, so that its memory is its own."""

    def __init__(self, kind: str) -> None:
        command = [sys.executable, __file__, f"--serve={kind}"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())
        self.url = f"ws://127.0.0.1:{self.port}"

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *error: object) -> None:
        if self._process.poll() is not None:
            raise RuntimeError(f"the server must outlive its clients, got exit code {self._process.returncode}.")
        self._process.terminate()
        self._process.wait(60)

    def resident_mb(self) -> float:
        return resident_mb(self._process.pid)


def resident_mb(pid: int | str = "self") -> float:
    return int(pathlib.Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def overhead() -> dict:
    """Milliseconds of a round trip and of what is not the policy's, median and 99th percentile."""
    with Server("cameras") as server, Client(server.url) as client:
        answers, walls = [], []
        for _ in range(CALLS.value + 20):
            begun = time.perf_counter()
            answers.append(client.infer(TWO_IMAGES))
            walls.append(1e3 * (time.perf_counter() - begun))
        walls, answers = walls[20:], answers[20:]
        policy = [answer["server_timing"]["infer_ms"] for answer in answers]
        rest = np.subtract(walls, policy)
    frame = wire.encode(TWO_IMAGES)
    begun = time.perf_counter()
    for _ in range(200):
        wire.decode(wire.encode(TWO_IMAGES))
    codec = (time.perf_counter() - begun) / 200 * 1e3
    measured = {"round_trip": walls, "overhead": rest}
    row = {name: {"p50": float(np.median(ms)), "p99": float(np.quantile(ms, 0.99))} for name, ms in measured.items()}
    return {**row, "codec_ms": codec, "request_bytes": len(frame), "calls": CALLS.value}


def codec() -> dict:
    """Every mutated frame becomes a request or a named error, and memory stays."""
    schema, refused, before = Schema(echo.SPECS, (2,), 256), 0, 0.0
    frame, begun = wire.encode(echo.observation(1.0)), time.perf_counter()
    for i, hurt in enumerate(mutate(frame, FRAMES.value, seed=2)):
        try:
            schema.parse(wire.decode(hurt), 0, 0, 0)
        except (wire.WireError, RequestError):
            refused += 1
        if i == FRAMES.value // 10:
            before = resident_mb()
    return {"frames": FRAMES.value, "refused": refused, "growth_mb": resident_mb() - before, "seconds": time.perf_counter() - begun}


def sockets() -> dict:
    """Mutated frames on connections of their own, a neighbour asking every hundred frames."""
    outcomes = {"answered": 0, "refused": 0, "closed": 0}
    with Server("echo") as server, Client(server.url) as neighbour:
        begun, before = time.perf_counter(), 0.0
        for i, frame in enumerate(mutate(wire.encode(echo.observation(1.0)), SOCKET_FRAMES.value, seed=3)):
            with connect(server.url, compression=None) as hostile:
                hostile.recv(timeout=30)
                hostile.send(frame)
                try:
                    outcomes["refused" if isinstance(hostile.recv(timeout=30), str) else "answered"] += 1
                except ConnectionClosed:
                    outcomes["closed"] += 1
            if i % 100 == 0:
                np.testing.assert_allclose(neighbour.infer(echo.observation(i))["actions"][:, 0], i, rtol=1e-6)
            if i == SOCKET_FRAMES.value // 10:
                before = server.resident_mb()
        growth = server.resident_mb() - before
    return {"frames": SOCKET_FRAMES.value, **outcomes, "growth_mb": growth, "seconds": time.perf_counter() - begun}


def clients() -> dict:
    """No answer lost, none crossed."""
    with Server("echo") as server:
        end = time.perf_counter() + 60 * MINUTES.value
        warm, before = time.perf_counter() + 6 * MINUTES.value, [0.0]

        def ask(number: int) -> tuple[int, list[float]]:
            count, latencies = 0, []
            with Client(server.url, timeout=120) as client:
                while time.perf_counter() < end:
                    begun = time.perf_counter()
                    answer = client.infer({**echo.observation(number, count), "id": count})
                    latencies.append(1e3 * (time.perf_counter() - begun))
                    assert answer["id"] == count
                    np.testing.assert_allclose(answer["actions"], np.tile([number, count], (4, 1)), rtol=1e-6)
                    count += 1
                    if number == 0 and not before[0] and begun > warm:
                        before[0] = server.resident_mb()
            return count, latencies

        with concurrent.futures.ThreadPoolExecutor(CLIENTS.value) as pool:
            rows = list(pool.map(ask, range(CLIENTS.value)))
        growth = server.resident_mb() - before[0]
    latencies = np.concatenate([row[1] for row in rows])
    return {
        "clients": CLIENTS.value,
        "minutes": MINUTES.value,
        "answers": sum(row[0] for row in rows),
        "fewest_of_one_client": min(row[0] for row in rows),
        "latency_ms": {"p50": float(np.median(latencies)), "p99": float(np.quantile(latencies, 0.99))},
        "growth_mb": growth,
    }


def serve_formula(kind: str) -> None:
    """Prints the port and serves until it is terminated."""
    import asyncio

    from ebt_jax.serving.server import PolicyServer

    async def serve() -> None:
        policy = echo.echo_policy() if kind == "echo" else echo.two_camera_policy()
        async with PolicyServer(policy, port=0, max_connections=256).running() as port:
            print(port, flush=True)
            await asyncio.Event().wait()

    asyncio.run(serve())


def main(argv: list[str]) -> None:
    if SERVE.value:
        serve_formula(SERVE.value)
        return
    unknown = sorted(set(MEASURE.value) - set(MEASURES))
    if unknown:
        raise app.UsageError(f"--measure must be among {', '.join(MEASURES)}, got {', '.join(unknown)}.")
    results = {}
    for name in MEASURE.value:
        results[name] = {"load_before": os.getloadavg()[0], **globals()[name]()}
        print(f"{name}: {json.dumps(results[name])}", flush=True)
    if OUTPUT.value:
        facts = {
            "hardware": f"{os.cpu_count()} cores, {platform.processor() or platform.machine()}",
            "versions": {"python": platform.python_version(), **{n: version(n) for n in ("jax", "numpy", "websockets", "msgpack")}},
            "command": "python " + " ".join(["benchmarks/serving.py", *sys.argv[1:]]),
        }
        pathlib.Path(OUTPUT.value).write_text(json.dumps({**facts, "measured": results}, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)

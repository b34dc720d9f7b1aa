"""Serves a policy.

  python -m ebt_jax.serve --policy=PATH [--host=127.0.0.1] [--port=8000] [--token_file=FILE] [--sample_steps=2,4,8]

Speaks openpi's websocket protocol: the first frame holds the specs and an `example_observation` that can be sent back as it is.
/healthz and /metrics (Prometheus) answer on the same port. Other machines are let in only with a token.
"""

import asyncio
import os
import pathlib
import signal
from typing import TYPE_CHECKING

from absl import flags, logging

from ebt_jax import cli

if TYPE_CHECKING:
    from ebt_jax.serving.server import PolicyServer

_POLICY = flags.DEFINE_string("policy", None, "A workdir, a checkpoint or an exported artifact.", required=True)
_ROBOT = flags.DEFINE_string("robot", "", "Of a run on several datasets: in whose numbers to act; the heaviest's where empty.")
_HOST = flags.DEFINE_string("host", "127.0.0.1", "Address to bind to; one that is not loopback needs --token_file.")
_PORT = flags.DEFINE_integer("port", 8000, "Port; 0 picks a free one.", lower_bound=0, upper_bound=65_535)
_TOKEN_FILE = flags.DEFINE_string("token_file", None, "File whose first line clients must send: Authorization: Api-Key TOKEN.")
_SEED = flags.DEFINE_integer("seed", 0, "Of the noise of clients that name no seed.", lower_bound=0, upper_bound=2**32 - 1)
_BATCH_SIZES = flags.DEFINE_list("batch_sizes", ["1", "4", "16"], "Numbers of clients answered together; each is compiled at the start.")
_SAMPLE_STEPS = flags.DEFINE_list(
    "sample_steps", [], "Numbers of sampler steps that clients may ask for beside the policy's own; each is compiled at the start."
)
_ENERGY_SIZES = flags.DEFINE_list(
    "energy_sizes",
    ["1", "16", "256"],
    "Numbers of chunks whose energies are computed together; each is compiled at the start, and the last is the most one request may hold.",
)
_MAX_CONNECTIONS = flags.DEFINE_integer("max_connections", 64, "Clients at a time.", lower_bound=1)
_MAX_FRAME_MIB = flags.DEFINE_integer("max_frame_mib", 16, "Largest request, MiB.", lower_bound=1)


def main() -> None:
    """Loads, compiles, serves until SIGINT or SIGTERM."""
    batch_sizes, sample_steps, energy_sizes = map(_whole_numbers, (_BATCH_SIZES, _SAMPLE_STEPS, _ENERGY_SIZES))
    try:
        from ebt_jax.serving.batcher import check_sizes
        from ebt_jax.serving.server import PolicyServer, check_access
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"serving needs the [serve] extra, got no {error.name}. pip install 'ebt_jax[serve]'") from error
    from ebt_jax.loading import load

    token = _read_token()
    with cli.wrong_usage("--"):
        check_sizes(batch_sizes, sample_steps, energy_sizes)
    with cli.wrong_usage():
        check_access(_HOST.value, token)
    policy = load(_POLICY.value, robot=_ROBOT.value)
    with cli.wrong_usage("--sample_steps: "):
        for steps in sample_steps:
            policy.check_steps(steps)
    server = PolicyServer(
        policy,
        _HOST.value,
        _PORT.value,
        token=token,
        seed=_SEED.value,
        batch_sizes=batch_sizes,
        sample_steps=sample_steps,
        energy_sizes=energy_sizes,
        max_connections=_MAX_CONNECTIONS.value,
        max_frame_bytes=_MAX_FRAME_MIB.value * 2**20,
    )
    asyncio.run(_serve(server))


def _whole_numbers(flag: flags.FlagHolder[list[str]]) -> tuple[int, ...]:
    try:
        return tuple(map(int, flag.value))
    except ValueError as error:
        raise flags.ValidationError(f"--{flag.name} must be whole numbers, got {','.join(flag.value)}.") from error


def _read_token() -> str | None:
    if _TOKEN_FILE.value is None:
        return None
    try:
        lines = pathlib.Path(_TOKEN_FILE.value).read_text().splitlines()
    except OSError as error:
        raise flags.ValidationError(f"--token_file must be a file that can be read, got {error}.") from error
    return lines[0].strip() if lines else ""


async def _serve(server: "PolicyServer") -> None:
    loop, stop, numbers = asyncio.get_running_loop(), asyncio.Event(), (signal.SIGINT, signal.SIGTERM)
    for number in numbers:  # nobody waits for an answer yet, and a compiler cannot be asked to stop
        loop.add_signal_handler(number, os._exit, cli.DONE)
    async with server.running() as port:
        for number in numbers:
            loop.add_signal_handler(number, stop.set)
        print(f"ready on {_HOST.value}:{port}", flush=True)
        await stop.wait()
        logging.info("stopping")


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

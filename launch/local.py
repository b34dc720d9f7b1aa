"""Several processes of one run on this machine, on CPU, as a pod would run them; and faults to see what they do about them.

    python launch/local.py --processes=2 --devices=4 -- --config=configs/oxe.py:debug --workdir=runs/two
    python launch/local.py --processes=2 --fault=kill --rank=1 --after=20 -- --config=configs/oxe.py:debug --workdir=runs/killed

Everything after `--` goes to ebt_jax.train. Faults strike one rank once step --after is logged: kill (SIGKILL), term (SIGTERM),
freeze (SIGSTOP; it is killed once the others have ended); or in its loader, at that batch: raise, stall. Exit code: that of the first rank
that did not end with 0, or its signal's number; else 0. Ctrl-C and SIGTERM are handed on: the processes save, and end with 75.
"""

import argparse
import dataclasses
import itertools
import json
import os
import pathlib
import runpy
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

SIGNALS = {"kill": signal.SIGKILL, "term": signal.SIGTERM, "freeze": signal.SIGSTOP}
INSIDE = ("raise", "stall")
SAVING_SECONDS = 600.0
"""How long processes that were asked to stop may take over their last checkpoint."""


@dataclasses.dataclass(frozen=True)
class Job:
    """Processes of one run, in order of rank; `logs` hold what each wrote on stderr and stdout. `port` is that of process 0's service."""

    processes: tuple[subprocess.Popen, ...]
    logs: tuple[pathlib.Path, ...]
    workdir: pathlib.Path
    port: socket.socket

    def last_step(self) -> int:
        """The newest step in metrics.jsonl, 0 for none."""
        path = self.workdir / "metrics.jsonl"
        lines = path.read_text().splitlines() if path.exists() else []
        whole = [line for line in lines if line.endswith("}")]
        return json.loads(whole[-1])["step"] if whole else 0

    def wait_for_step(self, step: int, seconds: float = 300.0) -> None:
        """Returns once `step` is logged. Raises RuntimeError where a process ends before that, TimeoutError where it takes too long."""
        deadline = time.monotonic() + seconds
        while self.last_step() < step:
            for rank, process in enumerate(self.processes):
                if process.poll() is not None:
                    raise RuntimeError(f"rank {rank} ended with {process.returncode} before step {step}:\n{self.log(rank)[-3000:]}")
            if time.monotonic() > deadline:
                raise TimeoutError(f"step {step} was not reached in {seconds} s:\n{self.log(0)[-3000:]}")
            time.sleep(0.02)

    def strike(self, rank: int, fault: str) -> float:
        """Sends the signal of a fault; returns the moment (time.monotonic)."""
        self.processes[rank].send_signal(SIGNALS[fault])
        return time.monotonic()

    def wait(self, seconds: float, but: Sequence[int] = ()) -> list[int | None]:
        """Exit codes once all processes have ended, those of ranks `but` aside; None for one that had not ended in time and was killed."""
        deadline = time.monotonic() + seconds
        waited = [process for rank, process in enumerate(self.processes) if rank not in but]
        while any(process.poll() is None for process in waited) and time.monotonic() < deadline:
            time.sleep(0.02)
        codes = [process.poll() for process in self.processes]
        self.kill()
        return codes

    def interrupt(self) -> None:
        """SIGTERM for all that still run: they agree on a step, save it and end with 75."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()

    def kill(self) -> None:
        """SIGKILL for all that still run."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
            process.wait()
        self.port.close()

    def log(self, rank: int) -> str:
        return self.logs[rank].read_text(errors="replace") if self.logs else "(on the terminal)"


def start(
    arguments: Sequence[str],
    workdir: pathlib.Path,
    processes: int = 2,
    devices: int = 1,
    fault: str = "",
    rank: int = 0,
    after: int = 0,
    log_dir: pathlib.Path | None = None,
) -> Job:
    """Starts ebt_jax.train in `processes` processes of `devices` virtual CPU devices each, one of them with a fault of `INSIDE`."""
    port, address = reserve_port()
    logs = []
    started = []
    for number in range(processes):
        environment = {
            **os.environ,
            "JAX_PLATFORMS": "cpu",
            "XLA_FLAGS": f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count={devices}".strip(),
            **({"JAX_COORDINATOR_ADDRESS": address} if processes > 1 else {}),
            "JAX_NUM_PROCESSES": str(processes),
            "JAX_PROCESS_ID": str(number),
        }
        inside = (
            [__file__, f"--inside={fault}", f"--after={after}", "--"] if fault in INSIDE and number == rank else ["-m", "ebt_jax.train"]
        )
        stream = None
        if log_dir is not None:
            log_dir.mkdir(parents=True, exist_ok=True)
            logs.append(log_dir / f"{number}.txt")
            stream = logs[-1].open("a")
        command = [sys.executable, *inside, f"--workdir={workdir}", *arguments]
        # A session of its own: Ctrl-C on the terminal is the launcher's, which hands it on once.
        started.append(subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True))
        if stream is not None:
            stream.close()
    return Job(tuple(started), tuple(logs), workdir, port)


def reserve_port() -> tuple[socket.socket, str]:
    """A free port of this machine, as a socket that keeps others from getting it until it is closed, and as host:port.

    Who listens there must allow the port to be shared, as jax's coordination service does: a port that was only looked up could be
    anybody's by the time process 0 has started.
    """
    port = socket.socket()
    port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
    port.bind(("localhost", 0))
    return port, f"localhost:{port.getsockname()[1]}"


def break_loader(fault: str, after: int) -> None:
    """From batch `after` on, the loader raises, or never answers."""
    from ebt_jax.training import loop

    whole = loop.train_batches

    def broken(mixture, settings, start_step):
        yield from itertools.islice(whole(mixture, settings, start_step), max(0, after - start_step))
        if fault == "raise":
            raise OSError("injected: this shard cannot be read")
        time.sleep(1e9)

    loop.train_batches = broken


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--devices", type=int, default=1, help="virtual CPU devices of each process")
    parser.add_argument("--fault", choices=[*SIGNALS, *INSIDE], default="")
    parser.add_argument("--rank", type=int, default=0, help="the process that the fault strikes")
    parser.add_argument("--after", type=int, default=0, help="the step after which it strikes")
    parser.add_argument("--inside", choices=INSIDE, default="", help=argparse.SUPPRESS)
    parser.add_argument("train", nargs=argparse.REMAINDER, help="-- and the flags of ebt_jax.train")
    options = parser.parse_args()
    arguments = [word for word in options.train if word != "--"]
    if options.inside:
        break_loader(options.inside, options.after)
        sys.argv = ["ebt_jax.train", *arguments]
        runpy.run_module("ebt_jax.train", run_name="__main__")
        return 0
    workdir = next((word.partition("=")[2] for word in arguments if word.startswith("--workdir=")), "")
    if not workdir:
        parser.error("the flags after -- must name --workdir=DIR")
    rest = [word for word in arguments if not word.startswith("--workdir=")]
    job = start(rest, pathlib.Path(workdir), options.processes, options.devices, options.fault, options.rank, options.after)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C
    try:
        if options.fault in SIGNALS:
            job.wait_for_step(options.after, seconds=1e9)
            job.strike(options.rank, options.fault)
        frozen = (options.rank,) if options.fault == "freeze" else ()
        return next((abs(code) for code in job.wait(1e9, but=frozen) if code), 0)
    except KeyboardInterrupt:
        job.interrupt()
        return next((abs(code) for code in job.wait(SAVING_SECONDS) if code), 0)
    finally:
        job.kill()


if __name__ == "__main__":
    sys.exit(main())

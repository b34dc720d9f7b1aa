"""Several processes as one run: how they find each other, how soon a dead one is noticed, how all of them end.

    explicit      --coordinator_address, --num_processes, --process_id, or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES, JAX_PROCESS_ID
    Slurm         srun, a process a GPU or a process a node
    OpenMPI       mpirun
    TPU           a pod slice's VMs (metadata server) or GKE (TPU_WORKER_HOSTNAMES)
    Kubernetes    the explicit variables, with JOB_COMPLETION_INDEX as the process id

Parallelism lives in `sharding.py`; here are only the processes. A run of one process uses nothing of this file but `agree_to_stop`.
"""

import dataclasses
import importlib.util
import os
import pathlib
import re
import sys
import threading
from collections.abc import Mapping
from typing import NoReturn

import jax
from absl import logging
from jax._src.distributed import global_state

from ebt_jax.peers import Peers

GOOGLE, STORAGE_AND_NETWORK = "0x1ae0", ("0x01", "0x02")
"""PCI vendor of TPU chips, and classes of the other devices that it makes: disks and network cards of any machine of its cloud."""

MEETING_SECONDS = 1800.0
"""How long processes wait for each other: at the start, where some machines come up late, and at the end, for the one that reports."""

_peers: Peers | None = None


@dataclasses.dataclass(frozen=True)
class Cluster:
    """One process's place among those of a run.

    Attributes:
      kind: jax's name for the way to find what is None ("slurm", "ompi"), or "" where nothing is left to find or jax looks for itself.
      coordinator_address: host:port of process 0.
      local_device_ids: the machine's GPUs that belong to this process, by their places among those that it sees; () for all, None where
        jax decides: one under Slurm and mpirun, else all.
    """

    kind: str = ""
    coordinator_address: str | None = None
    num_processes: int | None = None
    process_id: int | None = None
    local_device_ids: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        count, number = self.num_processes, self.process_id
        if count is not None and number is not None and not 0 <= number < count:
            raise ValueError(f"process_id must lie in [0, num_processes = {count}), got {number}.")
        address = self.coordinator_address
        if address is not None and not re.fullmatch(r"(?:.*[^:/]|\[.*\]):\d+", address):
            raise ValueError(f"coordinator_address must be host:port of process 0, got {address!r}.")


def find_cluster(
    coordinator_address: str | None = None,
    num_processes: int | None = None,
    process_id: int | None = None,
    environment: Mapping[str, str] = os.environ,
    tpu_machine: bool = False,
) -> Cluster | None:
    """Where this process stands, from what it is given and its environment; None where it is alone.

    Raises ValueError where a part is missing that nothing supplies.
    """
    address = coordinator_address or environment.get("JAX_COORDINATOR_ADDRESS")
    count = _first(num_processes, environment, "JAX_NUM_PROCESSES")
    number = _first(process_id, environment, "JAX_PROCESS_ID")
    slurm = "SLURM_PROCID" in environment and "SLURM_STEP_NODELIST" in environment
    mpi = "OMPI_COMM_WORLD_RANK" in environment
    devices = _slurm_devices(environment) if slurm else None
    if slurm:
        count = _first(count, environment, "SLURM_STEP_NUM_TASKS", "SLURM_NTASKS")
        number = _first(number, environment, "SLURM_PROCID")
    elif mpi:
        count = _first(count, environment, "OMPI_COMM_WORLD_SIZE")
        number = _first(number, environment, "OMPI_COMM_WORLD_RANK")
        local = _first(None, environment, "OMPI_COMM_WORLD_LOCAL_RANK")
        devices = None if local is None else _share(environment, local, _first(None, environment, "OMPI_COMM_WORLD_LOCAL_SIZE") or 1)
    elif address and "KUBERNETES_SERVICE_HOST" in environment:
        number = _first(number, environment, "JOB_COMPLETION_INDEX")
    if count == 1:
        return None
    if address or ((count or number) is not None and not slurm and not mpi):
        parts = {"coordinator_address": address, "num_processes": count, "process_id": number}
        missing = [name for name, value in parts.items() if value is None]
        if missing:
            raise ValueError(
                f"coordinator_address, num_processes and process_id must be given together, got no {' and no '.join(missing)}. "
                f"Add {', '.join('--' + name for name in missing)} or {', '.join('JAX_' + name.upper() for name in missing)}."
            )
        return Cluster("", address, count, number, devices)
    if slurm:
        return Cluster("slurm", None, count, number, devices)
    if mpi:
        if "OMPI_MCA_orte_hnp_uri" not in environment:
            raise ValueError(
                "mpirun must say where process 0 is, got none: OpenMPI 5 no longer does. Set JAX_COORDINATOR_ADDRESS=host:port, "
                "the host of rank 0 and a free port there."
            )
        return Cluster("ompi", None, count, number, devices)
    return Cluster() if tpu_machine else None


def tpu_machine(devices: pathlib.Path = pathlib.Path("/sys/bus/pci/devices")) -> bool:
    """Whether this machine has TPU chips and the library for them: one VM of a slice, of which there may be many."""
    made = (path.parent for path in devices.glob("*/vendor") if path.read_text().strip() == GOOGLE)
    chips = [device for device in made if not (device / "class").read_text().startswith(STORAGE_AND_NETWORK)]
    return importlib.util.find_spec("libtpu") is not None and bool(chips)


def join(cluster: Cluster, heartbeat_seconds: int = 30, meeting_seconds: float = MEETING_SECONDS) -> None:
    """Makes this process one of its run; before any computation. jax's devices are those of all processes from here on.

    Args:
      heartbeat_seconds: a process that was silent for so long is dead, and all others end.

    Raises ConnectionError where the others are not there in time.
    """
    global _peers
    # Its handler would swallow SIGTERM, and Orbax would move its count of steps backwards: `Peers` agrees on the step to stop at.
    jax.config.update("jax_enable_preemption_service", False)
    try:
        jax.distributed.initialize(
            cluster.coordinator_address,
            cluster.num_processes,
            cluster.process_id,
            cluster.local_device_ids,
            cluster_detection_method=cluster.kind or None,
            initialization_timeout=int(meeting_seconds),
            heartbeat_timeout_seconds=heartbeat_seconds,
            shutdown_timeout_seconds=heartbeat_seconds,
        )
    except jax.errors.JaxRuntimeError as error:
        raise ConnectionError(
            f"all {cluster.num_processes or ''} processes must reach process 0 at {cluster.coordinator_address or 'its address'} within "
            f"{meeting_seconds:.0f} s, got: {str(error).splitlines()[0]}. Were all started, with the same address and number of processes, "
            "and is the port open between their machines?"
        ) from error
    if global_state.num_processes > 1:
        _peers = Peers(global_state.client, global_state.process_id, global_state.num_processes, end)
    logging.info("process %d of %d, coordinator %s", global_state.process_id, global_state.num_processes, global_state.coordinator_address)


def agree_to_stop(requested: threading.Event, step: int) -> bool:
    """Whether the run stops after `step`: the same answer in every process, once any of them was asked to. Called after each step."""
    return requested.is_set() if _peers is None else _peers.stops_after(step, requested.is_set())


def check_same(name: str, text: str, remedy: str) -> None:
    """Raises ValueError, with the remedy, where another process has another `text`; waits for process 0 to have said its own."""
    if _peers is not None:
        _peers.check_same(name, text, remedy, MEETING_SECONDS)


def meet(name: str) -> None:
    """Returns once all processes are here: collectives that begin at different times give up after as little as 30 s."""
    if _peers is not None:
        _peers.meet(name, MEETING_SECONDS)


def end(message: str, code: int = 1) -> NoReturn:
    """Ends this process at once and, by what they are told, the others. For failures: nothing is waited for or cleaned up."""
    print(message, file=sys.stderr, flush=True)
    _exit(message, code)


def _exit(message: str, code: int) -> NoReturn:
    sys.stdout.flush()
    if _peers is not None and (first := _peers.tell_failure(message)) not in ("", message):
        print(first, file=sys.stderr, flush=True)
    os._exit(code)


def leave(code: int, message: str) -> None:
    """Ends this process's part of the run: together with the others where it went well, at once where it failed."""
    if _peers is None:
        return
    if code not in (0, 75):
        _exit(message, code)
    _peers.meet("end", MEETING_SECONDS)
    _peers.close()
    jax.distributed.shutdown()


def _first(value: int | None, environment: Mapping[str, str], *names: str) -> int | None:
    """`value`, else the first of these variables that is set."""
    found = next((environment[name] for name in names if name in environment), None)
    if value is not None or found is None:
        return value
    if not found.isdigit():
        raise ValueError(f"{' or '.join(names)} must be a number, got {found!r}.")
    return int(found)


def _slurm_devices(environment: Mapping[str, str]) -> tuple[int, ...]:
    """The GPUs of this task: those that Slurm bound to it, else its share of the node's."""
    tasks = int(re.split(r"\D", environment.get("SLURM_STEP_TASKS_PER_NODE", "1"))[0])
    return _share(environment, int(environment.get("SLURM_LOCALID", 0)), tasks, int(environment.get("SLURM_GPUS_ON_NODE") or 0))


def _share(environment: Mapping[str, str], local: int, processes: int, on_node: int = 0) -> tuple[int, ...]:
    """The GPUs of the `local`-th of a machine's `processes`; jax alone would give it one, number `local`.

    Args:
      on_node: GPUs of the machine; 0 where the launcher does not say. It then counts as having been bound to its own if it sees fewer
        GPUs than there are processes.
    """
    listed = environment.get("CUDA_VISIBLE_DEVICES", "")
    visible = len(listed.split(",")) if listed else 0
    if processes == 1:
        return tuple(range(visible))
    if not visible:
        return (local,)
    if on_node > visible or visible < processes:
        return tuple(range(visible))
    share = visible // processes
    return tuple(range(local * share, (local + 1) * share))

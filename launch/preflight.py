"""Asks every machine of a run whether it will do: same code, configuration and versions, devices that add up, a shared folder.

    launch/tpu_vm/run_all.sh --name=pod --zone=us-west4-a --chip=tpu_v5e -- launch/preflight.py --workdir=/mnt/runs/oxe \
        --config=configs/oxe.py --data_dir=/mnt/oxe --devices=256
    srun .venv/bin/python launch/preflight.py --workdir=/runs/oxe --config=configs/oxe.py --devices=64

Processes find each other as training's do (ebt_jax/distributed.py). Each gathers its facts, all exchange them, and each checks the
whole table, so every machine's log says what is wrong and where. Exit code 0: all well; 1: something is not, one line each.
"""

import argparse
import hashlib
import json
import os
import pathlib
import platform
import sys
import time
from collections.abc import Sequence
from importlib import metadata
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy")
CLOCK_SECONDS = 5.0

SAME = {
    "code": "the files of ebt_jax, configs and launch must be the same on all machines. Install the same commit everywhere",
    "config": "the configuration file must be the same on all machines. Copy it again",
    "python": "the Python version must be the same on all machines. Install from requirements.lock everywhere",
    "packages": "package versions must be the same on all machines. Install from requirements.lock everywhere",
    "device_kind": "devices must be of one kind. Leave the odd machine out",
    "local_devices": "every process must have as many devices as the others. Look for a chip that is missing or taken",
    "datasets": "all machines must see the same datasets. Mount the same folder everywhere",
}
"""Facts that must agree -> the rule and the remedy."""


def gather(options: argparse.Namespace) -> dict[str, Any]:
    """What this process knows of itself but its clock: JSON values."""
    import jax

    root = pathlib.Path(__file__).resolve().parents[1]
    files = sorted(path for folder in ("ebt_jax", "configs", "launch") for path in (root / folder).rglob("*.py"))
    return {
        "host": platform.node(),
        "code": digest(*files),
        "config": digest(pathlib.Path(options.config.partition(":")[0])) if options.config else "",
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in PACKAGES},
        "device_kind": jax.local_devices()[0].device_kind,
        "local_devices": jax.local_device_count(),
        "devices": jax.device_count(),
        "datasets": sorted(path.name for path in pathlib.Path(options.data_dir).iterdir() if path.is_dir()) if options.data_dir else [],
        "cache": cache_fault(os.environ.get("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/ebt_jax/xla"))),
    }


def digest(*files: pathlib.Path) -> str:
    """Hash of files' names and contents."""
    state = hashlib.sha256()
    for path in files:
        state.update(path.name.encode() + b"\0" + path.read_bytes())
    return state.hexdigest()[:16]


def cache_fault(folder: str) -> str:
    """Why compiled programs cannot be kept in `folder`; "" where they can."""
    try:
        path = pathlib.Path(folder)
        path.mkdir(parents=True, exist_ok=True)
        (path / f".preflight-{os.getpid()}").write_text("")
        (path / f".preflight-{os.getpid()}").unlink()
    except OSError as error:
        return f"{folder}: {error.strerror}"
    return ""


def problems(facts: Sequence[dict[str, Any]], expected_devices: int) -> list[str]:
    """Every rule that the processes' facts break, one line each, with the machines that differ from the first; empty where all is well."""
    found = []
    first = facts[0]
    for name, rule in SAME.items():
        odd = [f"{other['host']} (process {i}): {show(other[name])}" for i, other in enumerate(facts) if other[name] != first[name]]
        if odd:
            found.append(f"{rule}; {first['host']} (process 0) has {show(first[name])}, got {', '.join(odd)}")
    if expected_devices and first["devices"] != expected_devices:
        found.append(
            f"the run must have {expected_devices} devices, got {first['devices']} over {len(facts)} processes. "
            "Were all machines started, and does each see all of its devices?"
        )
    clocks = [fact["clock"] for fact in facts]
    if max(clocks) - min(clocks) > CLOCK_SECONDS:
        late, early = facts[clocks.index(min(clocks))]["host"], facts[clocks.index(max(clocks))]["host"]
        found.append(
            f"clocks must agree within {CLOCK_SECONDS:g} s, got {max(clocks) - min(clocks):.0f} s between {late} and {early}. "
            "Start the time service: logs of machines cannot be put in order without"
        )
    faults = [f"{fact['host']}: {fact['cache']}" for fact in facts if fact["cache"]]
    if faults:
        found.append(f"JAX_COMPILATION_CACHE_DIR must be writable, got {'; '.join(faults)}")
    return found


def show(value: Any) -> str:
    return json.dumps(value) if isinstance(value, dict | list) else str(value)


def exchange(fact: dict[str, Any]) -> list[dict[str, Any]]:
    """Everyone's facts, by collectives: this also shows that the machines can talk."""
    import numpy as np
    from jax.experimental import multihost_utils

    text = json.dumps(fact).encode()
    length = int(np.max(multihost_utils.process_allgather(np.array(len(text), np.int32))))
    rows = multihost_utils.process_allgather(np.frombuffer(text.ljust(length), np.uint8), tiled=False)
    return [json.loads(bytes(row)) for row in np.asarray(rows, np.uint8).reshape(-1, length)]


def sum_over_devices() -> int:
    """One from every device, added up by all of them together."""
    import jax
    import jax.numpy as jnp
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    sharding = NamedSharding(Mesh(jax.devices(), ("all",)), PartitionSpec("all"))
    ones = jax.make_array_from_callback((jax.device_count(),), sharding, lambda index: jnp.ones(1, jnp.int32))
    return int(jax.jit(jnp.sum, out_shardings=NamedSharding(sharding.mesh, PartitionSpec()))(ones))


def folder_fault(workdir: pathlib.Path, process: int, processes: int) -> str:
    """Why `workdir` will not do for checkpoints: process 0 writes a folder there and renames it, the others must see it.

    "" where it does. Call it in all processes at once.
    """
    from jax.experimental import multihost_utils

    fault, before, after = "", workdir / ".preflight.tmp", workdir / ".preflight"
    if process == 0:
        try:
            workdir.mkdir(parents=True, exist_ok=True)
            before.mkdir(exist_ok=True)
            (before / "mark").write_text("here")
            before.rename(after)
        except OSError as error:
            fault = f"{workdir} must be a folder to write into, got {error.strerror} on process 0"
    multihost_utils.sync_global_devices("written")
    if not fault and not (after / "mark").is_file():
        fault = f"{workdir} must be a folder that all machines share, got one where {platform.node()} does not see what process 0 wrote"
    multihost_utils.sync_global_devices("read")
    if process == 0 and after.exists():
        (after / "mark").unlink()
        after.rmdir()
    return fault


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="the run's folder, shared by all machines")
    parser.add_argument("--config", default="", help="the run's configuration file")
    parser.add_argument("--data_dir", default="", help="the folder of datasets")
    parser.add_argument("--devices", type=int, default=0, help="how many the run must have; 0: any number")
    options = parser.parse_args()

    import jax

    from ebt_jax import distributed

    cluster = distributed.find_cluster(tpu_machine=distributed.tpu_machine())
    if cluster is not None:
        distributed.join(cluster)
    fact = gather(options)
    distributed.meet("gathered")  # one machine may take longer than another, and clocks are read together
    facts = exchange({**fact, "clock": time.time()})
    found = problems(facts, options.devices)
    total = sum_over_devices()
    if total != jax.device_count():
        found.append(
            f"a sum over all devices must be their number, {jax.device_count()}, got {total}: a device computes wrongly. Leave it out"
        )
    fault = folder_fault(pathlib.Path(options.workdir), jax.process_index(), jax.process_count())
    found += [fault] if fault else []
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    if not found:
        print(f"ready: {len(facts)} processes, {jax.device_count()} x {facts[0]['device_kind']}, code {facts[0]['code']}")
    code = 1 if found else 0
    distributed.leave(0, "preflight")
    return code


if __name__ == "__main__":
    sys.exit(main())

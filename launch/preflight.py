"""Asks every machine of a run whether it will do: same code, configuration, versions and flags, devices that add up, a shared folder.

    launch/tpu_vm/run_all.sh --name=pod --zone=us-west4-a --chip=tpu_v5e -- launch/preflight.py --workdir=/mnt/runs/oxe \
        --config=configs/oxe.py --data_dir=/mnt/oxe --devices=256
    srun .venv/bin/python launch/preflight.py --workdir=/runs/oxe --config=configs/oxe.py --devices=64

Processes find each other as training's do (ebt_jax/distributed.py). Each gathers its facts, all exchange them, and each checks the
whole table, so every machine's log says what is wrong and where. Exit code 0: all well; 1: something is not, one line for each rule that is
broken, or one that says which process failed at what; 2: wrong usage.

How many shards a dataset has is no concern of a run's: every process reads any row of any shard, and a dataset smaller than a batch is
gone through more than once. The batch must split over the devices, which is checked.
"""

import argparse
import errno
import hashlib
import json
import os
import pathlib
import platform
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Sequence
from importlib import metadata
from typing import Any

PACKAGES = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "libtpu", "jax-cuda12-plugin", "jax-cuda13-plugin")
SUFFIXES = {".py", ".c", ".env", ".sh", ".sbatch", ".yaml"}
FLAGS = ("XLA_FLAGS", "LIBTPU_INIT_ARGS")
CLOCK_SECONDS = 5.0

SAME = {
    "code": "the files of ebt_jax, configs and launch must be the same on all machines. Install the same commit everywhere",
    "config": "the configuration file must be the same on all machines. Copy it again",
    "python": "the Python version must be the same on all machines. Install from requirements.lock everywhere",
    "packages": "package versions must be the same on all machines. Install from requirements.lock everywhere",
    "flags": f"{' and '.join(FLAGS)} must be the same on all machines. Source launch/env.sh with the same chip everywhere",
    "device_kind": "devices must be of one kind. Leave the odd machine out",
    "local_devices": "every process must have as many devices as the others. Look for a chip that is missing or taken",
    "datasets": "all machines must see the same datasets. Mount the same folder everywhere",
}
"""Facts that must agree -> the rule and the remedy."""


def gather(options: argparse.Namespace) -> dict[str, Any]:
    """What this process knows of itself but its clock: JSON values. What cannot be read is among its `faults`."""
    import jax

    faults: list[str] = []

    def read(look: Callable[[], Any], instead: Any) -> Any:
        try:
            return look()
        except OSError as error:
            faults.append(f"{error.filename}: {error.strerror}")
            return instead

    root = pathlib.Path(__file__).resolve().parents[1]
    files = sorted(path for folder in ("ebt_jax", "configs", "launch") for path in (root / folder).rglob("*") if path.suffix in SUFFIXES)
    config = pathlib.Path(options.config.partition(":")[0])
    return {
        "host": platform.node(),
        "code": digest(*files),
        "config": read(lambda: digest(config), "") if options.config else "",
        "batch": read(lambda: batch(options.config), [0, 1]) if options.config else [0, 1],
        "python": platform.python_version(),
        "packages": {name: version(name) for name in PACKAGES},
        "flags": {name: os.environ.get(name, "").split() for name in FLAGS},
        "device_kind": jax.local_devices()[0].device_kind,
        "local_devices": jax.local_device_count(),
        "devices": jax.device_count(),
        "datasets": read(lambda: datasets(options.data_dir), []) if options.data_dir else [],
        "cache": cache_fault(os.environ.get("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/ebt_jax/xla"))),
        "faults": sorted(set(faults)),
        "mark": uuid.uuid4().hex[:8],
    }


def batch(config: str) -> list[int]:
    """batch_size and optimizer.accumulate_steps of a configuration. Raises ValueError for a variant that it does not have."""
    from ebt_jax.config import load

    path, _, variant = config.partition(":")
    values: Any = load(path, variant or None)
    if values is None:
        raise ValueError(f"config must name a variant of {path}, got {variant}.")
    return [values.batch_size, values.optimizer.accumulate_steps]


def datasets(data_dir: str) -> list[str]:
    """The folders in a local folder or a bucket's. Raises FileNotFoundError where there is none."""
    from etils import epath

    from ebt_jax.data import remote

    if not remote.exists(epath.Path(data_dir)):
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", data_dir)
    return sorted(folder.name for folder in remote.folders(epath.Path(data_dir)))


def version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "absent"


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
    batch_size, parts = first["batch"][0], first["devices"] * (first["batch"][1] or 1)
    if batch_size % parts:
        found.append(
            f"batch_size must be a multiple of devices x optimizer.accumulate_steps, {parts}, got {batch_size}. "
            "Change it, or give --batch_size what --config.batch_size will say"
        )
    clocks = [fact["clock"] for fact in facts]
    if max(clocks) - min(clocks) > CLOCK_SECONDS:
        late, early = facts[clocks.index(min(clocks))]["host"], facts[clocks.index(max(clocks))]["host"]
        found.append(
            f"clocks must agree within {CLOCK_SECONDS:g} s, got {max(clocks) - min(clocks):.0f} s between {late} and {early}. "
            "Start the time service: logs of machines cannot be put in order without"
        )
    unread = [f"{fact['host']} (process {i}): {fault}" for i, fact in enumerate(facts) for fault in fact["faults"]]
    if unread:
        found.append(f"configuration and data must be there on all machines, got {'; '.join(unread)}. Mount or copy them everywhere")
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


def folder_faults(workdir: pathlib.Path, mark: str, process: int) -> list[str]:
    """Why `workdir` will not do for checkpoints: process 0 writes a folder there and renames it, the others must see it.

    Call it in all processes at once, with the same `mark`; all get the same answer, empty where the folder will do.
    """
    before, after = workdir / f".preflight-{mark}.tmp", workdir / f".preflight-{mark}"
    fault = ""
    if process == 0:
        try:
            before.mkdir(parents=True)
            (before / "mark").write_text("here")
            before.rename(after)
        except OSError as error:
            fault = f"{workdir} must be a folder to write into, got {error.strerror} on process 0"
    fault = exchange({"fault": fault})[0]["fault"]
    if not fault and not (after / "mark").is_file():
        fault = f"{workdir} must be a folder that all machines share, got one where {platform.node()} does not see what process 0 wrote"
    faults = [said["fault"] for said in exchange({"fault": fault})]
    if process == 0:
        shutil.rmtree(before, ignore_errors=True)
        shutil.rmtree(after, ignore_errors=True)
    return sorted({fault for fault in faults if fault})


def check(options: argparse.Namespace) -> tuple[list[dict[str, Any]], list[str]]:
    """Joins the run; the facts of all processes, and what is wrong, the same in each."""
    import jax

    from ebt_jax import distributed

    cluster = distributed.find_cluster(tpu_machine=distributed.tpu_machine())
    if cluster is not None:
        distributed.join(cluster)
    fact = gather(options)
    if options.batch_size:
        fact["batch"][0] = options.batch_size
    distributed.meet("gathered")  # one machine may take longer than another, and clocks are read together
    facts = exchange({**fact, "clock": time.time()})
    found = problems(facts, options.devices)
    total = sum_over_devices()
    if total != jax.device_count():
        found.append(
            f"a sum over all devices must be their number, {jax.device_count()}, got {total}: a device computes wrongly. Leave it out"
        )
    return facts, found + folder_faults(pathlib.Path(options.workdir), facts[0]["mark"], jax.process_index())


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workdir", required=True, help="the run's folder, shared by all machines")
    parser.add_argument("--config", default="", help="the run's configuration file")
    parser.add_argument("--data_dir", default="", help="the folder of datasets")
    parser.add_argument("--devices", type=int, default=0, help="how many the run must have; 0: any number")
    parser.add_argument("--batch_size", type=int, default=0, help="where training is given another than the configuration's")
    options = parser.parse_args()
    if "://" in options.workdir:
        parser.error(f"--workdir must be a folder, got {options.workdir}. Mount the bucket and name the folder (launch/README.md)")

    from ebt_jax import distributed

    try:
        facts, found = check(options)
    except Exception as error:  # whatever it is: the others wait for this process in a collective, and must hear why they end
        distributed.end(f"error: {type(error).__name__}: {error}")
    for line in found:
        print(f"error: {line}", file=sys.stderr)
    if not found:
        print(f"ready: {len(facts)} processes, {facts[0]['devices']} x {facts[0]['device_kind']}, code {facts[0]['code']}")
    code = 1 if found else 0
    distributed.leave(0, "preflight")
    return code


if __name__ == "__main__":
    sys.exit(main())

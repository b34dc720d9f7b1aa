"""python -m ebt_jax.doctor [--json]

Whether training is possible on this machine, what else works, and what to do about what does not. Ends with 0 where training is
possible, with 1 where it is not.
"""

import importlib.metadata
import importlib.util
import json
import os
import pathlib
import platform
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from typing import NamedTuple

from absl import flags
from packaging.requirements import Requirement

from ebt_jax import cli

_JSON = flags.DEFINE_bool("json", False, "Print one JSON object instead of a table.")

WITHOUT = {"pytest", "rlds", "imageio-ffmpeg", "safetensors", "flatbuffers"}
"""Requirements that training does not import."""
EXTRAS = {
    "tf": "collect and convert",
    "metaworld": "evaluate in Meta-World",
    "sim": "evaluate in PushT and robosuite",
    "convert": "convert from zarr, HDF5, LeRobot",
    "gcs": "train on data in gs://",
}
PORTS = {8000: "serve", 8476: "many hosts"}
LEAST_MEMORY, LEAST_DISK = 4.0, 5.0
"""GB."""


class Check(NamedTuple):
    """One finding.

    Attributes:
      ok: whether it is as it should be.
      needed: whether training is impossible otherwise.
      found: what is there.
      remedy: what to do; "" where nothing has to be done.
    """

    name: str
    ok: bool
    needed: bool
    found: str
    remedy: str = ""


def main() -> None:
    found = list(examine())
    possible = all(check.ok for check in found if check.needed)
    print(
        json.dumps({"training_possible": possible, "checks": [check._asdict() for check in found]}, indent=1)
        if _JSON.value
        else table(found)
    )
    if not possible:
        sys.exit(cli.FAILED)


def examine() -> Iterator[Check]:
    """Every check, one after the other; one that fails in an unforeseen way says so and stops none of the others."""
    for name, needed, check in CHECKS:
        try:
            yield from check()
        except Exception as error:  # a doctor must outlive every illness
            yield Check(
                name,
                False,
                needed,
                f"{type(error).__name__}: {error}",
                "Read the message; reinstall with `make setup` if it names a package.",
            )


def table(found: list[Check]) -> str:
    """One line a check, then what to do."""
    width = max(len(check.name) for check in found)
    lines = [f"{'ok' if check.ok else 'NO' if check.needed else '--'}  {check.name.ljust(width)}  {check.found}" for check in found]
    todo = [f"{check.name}: {check.remedy}" for check in found if check.remedy]
    possible = all(check.ok for check in found if check.needed)
    verdict = "training is possible" if possible else "training is NOT possible until the lines marked NO are repaired"
    return "\n".join([*lines, *(["", "what to do"] if todo else []), *todo, "", verdict])


def python() -> Iterator[Check]:
    """Python is one that the package is made for."""
    fits = (3, 11) <= sys.version_info[:2] <= (3, 13)
    yield Check(
        "python",
        fits,
        True,
        f"{platform.python_version()} on {platform.platform()}",
        "" if fits else "Install Python 3.11 to 3.13: make setup",
    )


def packages(requirements: list[str] | None = None) -> Iterator[Check]:
    """Every requirement is installed in a version that it allows; each extra is complete or names what it lacks."""
    listed = [Requirement(text) for text in (requirements if requirements is not None else importlib.metadata.requires("ebt_jax") or [])]
    plain = [requirement for requirement in listed if requirement.marker is None or requirement.marker.evaluate({"extra": ""})]
    for needed in (True, False):
        mine = [requirement for requirement in plain if (requirement.name.lower() in WITHOUT) != needed]
        wrong = _wrong(mine)
        name = "packages" if needed else "packages beside training"
        yield Check(
            name, not wrong, needed, "; ".join(wrong) or f"{len(mine)} in their ranges", "make setup, or pip install -e ." if wrong else ""
        )
    for extra, use in EXTRAS.items():
        mine = [r for r in listed if r.marker and r.marker.evaluate({"extra": extra}) and not r.marker.evaluate({"extra": ""})]
        wrong = _wrong(mine)
        remedy = f"to {use}: pip install 'ebt_jax[{extra}]'" if wrong else ""
        yield Check(f"extra [{extra}]", not wrong, False, "; ".join(wrong) or f"{len(mine)} in their ranges", remedy)


def _wrong(requirements: list[Requirement]) -> list[str]:
    found = []
    for requirement in requirements:
        try:
            version = importlib.metadata.version(requirement.name)
        except importlib.metadata.PackageNotFoundError:
            found.append(f"{requirement.name} is missing")
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            found.append(f"{requirement.name} is {version}, not {requirement.specifier}")
    return found


def devices() -> Iterator[Check]:
    """JAX sees the accelerators that the machine has."""
    import jax

    seen = jax.local_devices()
    kinds = {f"{device.platform} ({device.device_kind})" for device in seen}
    limit = (seen[0].memory_stats() or {}).get("bytes_limit") if seen[0].platform != "cpu" else None
    memory = f", {limit / 1e9:.0f} GB each" if limit else ""
    unused = ""
    if seen[0].platform == "cpu" and os.environ.get("JAX_PLATFORMS", "") != "cpu":
        if pathlib.Path("/dev/nvidia0").exists():
            unused = "an NVIDIA GPU is there and not used: pip install 'ebt_jax[cuda12]', with a driver for CUDA 12"
        elif any(pathlib.Path("/dev").glob("accel*")) or pathlib.Path("/dev/vfio/0").exists():
            unused = "a TPU seems to be there and is not used: pip install 'ebt_jax[tpu]'"
    yield Check("devices", not unused, False, f"{len(seen)} x {', '.join(sorted(kinds))}{memory}, jax {jax.__version__}", unused)


def compiling() -> Iterator[Check]:
    """A descent on E(a) = |a|^2 / 2 compiles and gives a_k = (1 - step)^k a_0."""
    import jax
    import jax.numpy as jnp

    @jax.jit
    def descend(start: jax.Array) -> jax.Array:
        step = jax.grad(lambda actions: 0.5 * jnp.sum(actions**2))
        return jax.lax.scan(lambda actions, _: (actions - 0.5 * step(actions), None), start, length=4)[0]

    began = time.perf_counter()
    end = descend(jnp.full((8, 16), 16.0)).block_until_ready()
    seconds = time.perf_counter() - began
    right = bool((end == 1.0).all())
    remedy = "" if right else "The result is wrong: the driver or the installation of jax is broken. Reinstall jax, then the driver."
    yield Check("compile", right, True, f"a descent of four steps, {seconds:.2f} s", remedy)


def memory() -> Iterator[Check]:
    """There is room to work in, in memory and on disk."""
    lines = dict(line.split(":", 1) for line in pathlib.Path("/proc/meminfo").read_text().splitlines())
    free, total = (int(lines[key].split()[0]) / 1e6 for key in ("MemAvailable", "MemTotal"))
    tight = f"Less than {LEAST_MEMORY:g} GB: take a smaller batch_size, or configs' :debug variants" if free < LEAST_MEMORY else ""
    yield Check("memory", not tight, False, f"{free:.1f} of {total:.1f} GB available, {os.cpu_count()} cores", tight)
    disk = shutil.disk_usage(pathlib.Path.cwd()).free / 1e9
    full = f"Less than {LEAST_DISK:g} GB: checkpoints will not fit for long; choose another --workdir" if disk < LEAST_DISK else ""
    yield Check("disk", not full, False, f"{disk:.0f} GB free in {pathlib.Path.cwd()}", full)


def data() -> Iterator[Check]:
    """The bundled sample opens, caches can be written, and the test data is where the variable says."""
    from ebt_jax.data.folder import find_folder
    from ebt_jax.data.settings import bundled_sample_dir

    (sample,) = (path.name for path in pathlib.Path(bundled_sample_dir()).iterdir() if path.is_dir())
    folder = find_folder(bundled_sample_dir(), sample)
    count = folder.num_records("train")
    missing = [shard.path.name for shard in folder.splits["train"] if not shard.path.exists()]
    remedy = "Install the package again: its data is incomplete" if missing else ""
    yield Check("bundled sample", not missing, True, f"{sample}, {count} episodes" if not missing else f"no {missing[0]}", remedy)
    caches = {
        "index cache": os.environ.get("EBT_JAX_CACHE") or pathlib.Path.home() / ".cache" / "ebt_jax",
        "compilation cache": os.environ.get("JAX_COMPILATION_CACHE_DIR") or pathlib.Path.home() / ".cache" / "ebt_jax" / "xla",
    }
    for (name, folder_path), variable in zip(caches.items(), ("EBT_JAX_CACHE", "JAX_COMPILATION_CACHE_DIR"), strict=True):
        fault = _unwritable(pathlib.Path(folder_path))
        yield Check(
            name,
            not fault,
            False,
            f"{folder_path}{f': {fault}' if fault else ', writable'}",
            f"Set ${variable} to a folder of yours" if fault else "",
        )
    tests = os.environ.get("EBT_JAX_TEST_DATA")
    there = tests is not None and pathlib.Path(tests).is_dir()
    wrong = "It names no folder: correct or unset EBT_JAX_TEST_DATA" if tests and not there else ""
    yield Check("test data", not wrong, False, tests or "EBT_JAX_TEST_DATA is not set: tests on real data are skipped", wrong)


def _unwritable(folder: pathlib.Path) -> str:
    """Why nothing can be written there; "" where it can."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return ""
    except OSError as error:
        return error.strerror or str(error)


def resizing() -> Iterator[Check]:
    """Images are resized by compiled code."""
    from ebt_jax import images

    slow = "" if images.COMPILED else "For five times the speed, with the same pixels: install a C compiler, then pip install -e . again"
    yield Check("resize", not slow, False, "compiled" if not slow else "by numpy", slow)


def ports() -> Iterator[Check]:
    """The ports of the server and of many hosts can be bound on this machine."""
    for port, use in PORTS.items():
        with socket.socket() as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                listener.bind(("127.0.0.1", port))
                yield Check(f"port {port}", True, False, f"free, for {use}")
            except OSError as error:
                yield Check(
                    f"port {port}",
                    False,
                    False,
                    f"{error.strerror}, wanted for {use}",
                    f"Choose another port to {use}, or stop what holds it",
                )


def rendering() -> Iterator[Check]:
    """MuJoCo can draw; simulators without cameras do not need it."""
    from ebt_jax.simulators.rendering import find_backend

    if importlib.util.find_spec("mujoco") is None:
        yield Check(
            "GL rendering", False, False, "no MuJoCo", "to evaluate in Meta-World or robosuite: pip install 'ebt_jax[metaworld,sim]'"
        )
        return
    backend = find_backend()
    remedy = "" if backend else "For cameras and videos of simulators: install libegl1 and libegl-mesa0, or libosmesa6; MUJOCO_GL chooses"
    yield Check("GL rendering", backend is not None, False, f"MUJOCO_GL={backend} draws" if backend else "no OpenGL backend works", remedy)


def ffmpeg() -> Iterator[Check]:
    """Videos can be written."""
    import imageio_ffmpeg

    program = imageio_ffmpeg.get_ffmpeg_exe()
    done = subprocess.run([program, "-version"], capture_output=True, text=True, timeout=60)
    remedy = "" if done.returncode == 0 else "For videos: pip install --force-reinstall imageio-ffmpeg, or set IMAGEIO_FFMPEG_EXE"
    yield Check("ffmpeg", not remedy, False, done.stdout.split(" Copyright")[0] if not remedy else f"{program} does not run", remedy)


CHECKS: list[tuple[str, bool, Callable[[], Iterator[Check]]]] = [
    ("python", True, python),
    ("packages", True, packages),
    ("devices", True, devices),
    ("compile", True, compiling),
    ("memory", False, memory),
    ("data", True, data),
    ("resize", False, resizing),
    ("ports", False, ports),
    ("GL rendering", False, rendering),
    ("ffmpeg", False, ffmpeg),
]
"""Name, whether training is impossible without it, and the check."""


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

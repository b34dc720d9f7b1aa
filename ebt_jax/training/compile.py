"""A run's update, compiled for devices that are not there: will it fit, what does it compute, what does it exchange.

A TPU slice needs no TPU: its compiler comes with the [tpu] extra and runs on any machine. `v5e:16x16` is a pod of 256 chips,
`v6e:16x16` and `v5p:8x8x8` are others; a number is that many virtual CPU devices.
"""

import os
import time
from typing import Any, NamedTuple

import jax

from ebt_jax.flops import count_flops
from ebt_jax.policy import empty_batch
from ebt_jax.sharding import abstract, batch_shapes, make_mesh
from ebt_jax.specs import Specs
from ebt_jax.training.collectives import count_collectives
from ebt_jax.training.optimizer import make_optimizer, parameter_count, tuned
from ebt_jax.training.settings import Settings
from ebt_jax.training.state import init_state
from ebt_jax.training.step import make_train_step

MEMORY_GB = {"v4": 32, "v5e": 16, "v5p": 95, "v6e": 32}
"""Of one chip, from Google's pages on each generation."""

LIBTPU_ARGS = "--fibers_default_thread_stack_size=16777216"
"""libtpu 0.0.42.1 works on threads of 64 KiB, which the gradient of a ResNet for a v6e overflows: the process dies of SIGSEGV."""


class Compiled(NamedTuple):
    """One update on one topology.

    Attributes:
      peak_bytes: of one device: state, batch and temporaries at once.
      flops: of one device in one update, matrix products and convolutions, recomputed ones included.
      collectives: kind -> instructions in the program; collectives_in_loop: those that a loop repeats, which must be none.
    """

    topology: str
    devices: int
    mesh: dict[str, int]
    parameters: int
    batch_size: int
    peak_bytes: int
    flops: int
    collectives_in_loop: int
    collectives: dict[str, int]
    compile_seconds: float


def topology_devices(topology: str) -> list[Any]:
    """The devices of a named TPU slice, or so many CPU devices; before jax has any.

    Raises ValueError for what is neither, RuntimeError where another process has the TPU compiler.
    """
    jax.config.update("jax_platforms", "cpu")
    if topology.isdigit():
        jax.config.update("jax_num_cpu_devices", int(topology))
        return jax.devices()
    os.environ["TPU_SKIP_MDS_QUERY"] = "1"  # there is no metadata server to ask
    os.environ["LIBTPU_INIT_ARGS"] = f"{LIBTPU_ARGS} {os.environ.get('LIBTPU_INIT_ARGS', '')}".strip()
    from jax.experimental import topologies

    try:
        return list(topologies.get_topology_desc(platform="tpu", topology_name=topology).devices)
    except Exception as error:
        said = (str(error).splitlines() or [type(error).__name__])[0]
        if "lockfile" in said:
            raise RuntimeError(
                f"the TPU compiler must be free for {topology}, got: {said} It serves one process at a time: wait for the other to end. "
                "One that was killed leaves the file behind: remove it."
            ) from error
        raise ValueError(
            f"topology must be a TPU slice like v5e:16x16, v6e:16x16 or v5p:8x8x8, or a number of CPU devices, got {topology!r}: "
            f"{said}. TPU slices need the [tpu] extra: pip install 'ebt_jax[tpu]'."
        ) from error


def compile_step(settings: Settings, specs: Specs, topology: str, devices: list[Any]) -> Compiled:
    """Compiles the update of `settings` for data of these `specs`; nothing is computed and no parameter made.

    Raises ValueError where mesh or batch do not divide, and jax's error where the program does not fit.
    """
    mesh = make_mesh(settings.mesh.data, settings.mesh.fsdp, devices)
    settings.check_batches(mesh.size)
    method = tuned(settings.make_method(specs), settings.optimizer)
    optimizer = make_optimizer(settings.optimizer, settings.num_steps)
    one = empty_batch(specs, 1)
    state = jax.eval_shape(lambda: init_state(method, optimizer, one, settings.seed))
    step = make_train_step(method, optimizer, settings.optimizer, mesh, state, settings.augmentation)
    state, batch = abstract(state, mesh), batch_shapes(one, settings.batch_size, mesh)
    flops = count_flops(step, state, batch)
    start = time.perf_counter()
    compiled = step.lower(state, batch).compile()
    seconds = time.perf_counter() - start
    memory: Any = compiled.memory_analysis()
    held = memory.argument_size_in_bytes + memory.output_size_in_bytes - memory.alias_size_in_bytes
    collectives, inside = count_collectives(compiled.as_text() or "")
    return Compiled(
        topology=topology,
        devices=mesh.size,
        mesh=dict(mesh.shape),
        parameters=parameter_count(state.params),
        batch_size=settings.batch_size,
        peak_bytes=held + memory.temp_size_in_bytes + memory.generated_code_size_in_bytes,
        flops=flops,
        collectives_in_loop=inside,
        collectives=collectives,
        compile_seconds=round(seconds, 1),
    )

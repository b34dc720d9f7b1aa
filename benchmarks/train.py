"""How fast an update is, and what share of the device's matrix-product rate it reaches.

    python benchmarks/train.py                                     a small network, on whatever is here
    python benchmarks/train.py --budget=230 --output=train.json --runs="base,batch_size=256 xl,remat=False,batch_size=64"

Each word of --runs is a network (`models/config.py`), then what to change: batch_size, cameras, num_steps (K), num_starts (M),
gradient (how the descent is differentiated), accumulate_steps, or any setting of the network (remat, unroll, vision,
encoder_attention, ...). The whole training step runs: descent, second-order gradient, AdamW, EMA, on synthetic batches of --image_size
cameras with two observation steps and chunks of 16 x 7, handed over from the host at every update.

Useful operations are 3 F_obs + 6 M K F a sample (F_obs: one encoding; F: one energy, forward), nothing computed twice counted; MFU is their
rate over the chip's published one, the other share over that of a large matrix product timed in the same run. Runs are compiled
side by side; those that --budget seconds do not reach are left out and named. Needs jax, flax, optax and nothing that reads data.
"""

import ast
import concurrent.futures
import dataclasses
import json
import math
import pathlib
import statistics
import sys
import time
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from ebt_jax.flops import descent_flops, peak_flops
from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.models import make_energy_model, model_variant
from ebt_jax.models.config import ModelConfig, in_full
from ebt_jax.policy import empty_batch
from ebt_jax.sharding import BATCH, make_mesh, shardings, to_devices
from ebt_jax.specs import ActionDimension, ActionSpec, CameraSpec, Dimension, LanguageSpec, ObservationSpec, Specs
from ebt_jax.training.optimizer import OptimizerSettings, make_optimizer, parameter_count
from ebt_jax.training.state import init_state, sharded_init
from ebt_jax.training.step import make_train_step

SMALL = "debug,gradient=saved debug,gradient=recomputed debug,gradient=lean"
RUNS = flags.DEFINE_string("runs", SMALL, "Networks and changes: NAME,key=value,... separated by spaces.")
PRECISION = flags.DEFINE_enum("precision", "bfloat16", ["float32", "bfloat16"], "Of matrix products.")
IMAGE = flags.DEFINE_integer("image_size", 224, "Height and width of every camera.")
UPDATES = flags.DEFINE_integer("updates", 5, "Updates in one repeat.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Repeats, of which the median counts.")
BUDGET = flags.DEFINE_float("budget", float("inf"), "Seconds after which no further run is begun.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results, written after every run.")

IN_FLIGHT = 2
"""Updates that the device may be behind the host, as in training."""


class Run(NamedTuple):
    """One row of the table: what is trained, and the operations it needs."""

    name: str
    model: ModelConfig
    specs: Specs
    batch_size: int
    mcmc: MCMC
    num_starts: int
    optimizer: OptimizerSettings


class Prepared(NamedTuple):
    """A compiled update."""

    step: Any
    compile_seconds: float


def parse(text: str) -> Run:
    """NAME,key=value,... -> a run. Raises ValueError for what is no setting."""
    size, *changes = text.split(",")
    values = {name: _value(value) for name, value in (change.split("=") for change in changes)}
    mcmc = {name: values.pop(name) for name in ("num_steps", "gradient") if name in values}
    optimizer = {name: values.pop(name) for name in ("accumulate_steps",) if name in values}
    batch_size, cameras, starts = (values.pop(name, default) for name, default in (("batch_size", 32), ("cameras", 1), ("num_starts", 1)))
    model = model_variant(size, precision=PRECISION.value, **values)
    return Run(text, model, make_specs(cameras), batch_size, MCMC(**mcmc), starts, OptimizerSettings(**optimizer))


def _value(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except ValueError:
        return text


def make_specs(cameras: int) -> Specs:
    views = tuple(CameraSpec(name, IMAGE.value, IMAGE.value) for name in ("primary", "wrist", "secondary")[:cameras])
    proprio = tuple(Dimension(f"joint_{i}", "rad") for i in range(7))
    observation = ObservationSpec(views, proprio, LanguageSpec("embedding", 1, 512), 2)
    return Specs(observation, ActionSpec(tuple(ActionDimension(f"joint_{i}", "joint_delta", "rad") for i in range(7)), "base", 16))


def method_of(run: Run):
    objective = {"objective": "energy_score", "num_starts": run.num_starts} if run.num_starts > 1 else {}
    return make_method({"name": "ebt", **objective}, run.mcmc, make_energy_model(run.model, run.specs))


def synthetic(run: Run, seed: int):
    """A batch of noise on the host."""
    draw = np.random.default_rng(seed)

    def fill(leaf: np.ndarray) -> np.ndarray:
        if leaf.dtype == np.uint8:
            return draw.integers(0, 256, leaf.shape, dtype=np.uint8)
        return draw.standard_normal(leaf.shape, np.float32) if leaf.dtype == np.float32 else leaf

    return jax.tree.map(fill, empty_batch(run.specs, run.batch_size))


def useful_flops(run: Run) -> int:
    """3 F_obs + 6 M K F, of the whole batch."""
    energies = run.num_starts * run.mcmc.num_steps
    model = dataclasses.replace(run.model, encoder_attention="einsum")  # a fused kernel's products are not to be seen
    return run.batch_size * descent_flops(make_energy_model(model, run.specs), empty_batch(run.specs), energies)


def prepare(run: Run, mesh: jax.sharding.Mesh) -> Prepared:
    """Compiles the update without making its state."""
    method, optimizer = method_of(run), make_optimizer(run.optimizer, 10_000)
    state = jax.eval_shape(lambda: init_state(method, optimizer, empty_batch(run.specs), 0))
    placed = jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), state, shardings(state, mesh))
    split = jax.NamedSharding(mesh, BATCH)
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=split), empty_batch(run.specs, run.batch_size))
    lowered = make_train_step(method, optimizer, run.optimizer, mesh, state).lower(placed, batch)
    start = time.perf_counter()
    return Prepared(lowered.compile(), time.perf_counter() - start)


def measure(run: Run, prepared: Prepared, mesh: jax.sharding.Mesh) -> dict[str, Any]:
    """Updates per second, each from a batch on the host, at most `IN_FLIGHT` of them ahead of the device."""
    state = sharded_init(method_of(run), make_optimizer(run.optimizer, 10_000), empty_batch(run.specs), 0, mesh)
    parameters, batches = parameter_count(state.params), [synthetic(run, seed) for seed in range(2)]
    seconds, waits = [], []
    for repeat in range(REPEATS.value + 1):
        losses, wait, start = [], 0.0, time.perf_counter()
        for update in range(UPDATES.value if repeat else IN_FLIGHT + 1):  # the first repeat warms up
            begin = time.perf_counter()
            batch = to_devices(batches[update % 2], mesh)
            wait += time.perf_counter() - begin
            state, metrics = prepared.step(state, batch)
            losses.append(metrics["loss"])
            jax.block_until_ready(losses[:-IN_FLIGHT][-1:])
        jax.block_until_ready(state)
        elapsed = time.perf_counter() - start
        seconds.append(elapsed / len(losses))
        waits.append(wait / elapsed)
    assert np.isfinite(float(losses[-1])), run.name
    memory, median = prepared.step.memory_analysis(), statistics.median(seconds[1:])
    return {
        "run": run.name,
        "parameters": parameters,
        "batch_size": run.batch_size,
        "seconds_per_update": median,
        "seconds_of_repeats": seconds[1:],
        "updates_per_second": 1 / median,
        "samples_per_second": run.batch_size / median,
        "useful_tflops_per_second": useful_flops(run) / median / 1e12,
        "input_wait_share": statistics.median(waits[1:]),
        "temporary_gib": memory.temp_size_in_bytes / 2**30 if memory else None,
        "compile_seconds": prepared.compile_seconds,
        "model": dataclasses.asdict(run.model),
        "mcmc": dataclasses.asdict(run.mcmc),
    }


def matrix_product_rate() -> float:
    """TFLOP/s of an 8192 (2048 on a CPU) cubed product in the chosen precision."""
    n = 2048 if jax.default_backend() == "cpu" else 8192
    x = jax.random.normal(jax.random.key(0), (n, n), jnp.dtype(PRECISION.value))
    product = jax.jit(lambda x: jnp.matmul(x, x, precision=in_full(x.dtype)))
    jax.block_until_ready(product(x))
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(10):
            y = product(x)
        jax.block_until_ready(y)
        seconds.append((time.perf_counter() - start) / 10)
    return 2 * n**3 / statistics.median(seconds) / 1e12


def seconds_left(budget: float, spent: float) -> float | None:
    """What a future's result may take; None, for as long as it likes, where there is no budget. A second at least: it may be there."""
    return None if math.isinf(budget) else max(1.0, budget - spent)


def line(row: dict[str, Any]) -> str:
    mfu = "   -  " if row["mfu"] is None else f"{100 * row['mfu']:5.1f}%"
    return (
        f"{row['parameters'] / 1e6:7.1f} M  {row['updates_per_second']:7.2f} upd/s  {row['samples_per_second']:7.0f} smp/s  "
        f"{row['useful_tflops_per_second']:7.2f} TF/s  {100 * row['share_of_matrix_product']:5.1f}% of product  MFU {mfu}  "
        f"input {100 * row['input_wait_share']:4.1f}%  {row['temporary_gib'] or 0:5.1f} GiB  {row['compile_seconds']:4.0f} s  {row['run']}"
    )


def main(argv: list[str]) -> None:
    begin = time.perf_counter()
    device, mesh = jax.devices()[0], make_mesh()
    peak, product = peak_flops(device.device_kind), matrix_product_rate()
    rows: list[dict[str, Any]] = []
    left_out: dict[str, str] = {}
    result = {
        "hardware": f"{jax.device_count()} x {device.device_kind}",
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
        "precision": PRECISION.value,
        "matrix_product_tflops": product,
        "peak_tflops": peak and peak / 1e12,
        "command": "python " + " ".join(["benchmarks/train.py", *sys.argv[1:]]),
        "rows": rows,
        "left_out": left_out,
    }
    with concurrent.futures.ThreadPoolExecutor(4 if jax.default_backend() == "gpu" else 1) as pool:
        runs = [parse(text) for text in RUNS.value.split()]
        pending = [pool.submit(prepare, run, mesh) for run in runs]
        for run, future in zip(runs, pending, strict=True):
            try:
                row = measure(run, future.result(seconds_left(BUDGET.value, time.perf_counter() - begin)), mesh)
            except Exception as error:  # out of memory, a kernel that is not there: the other runs still count
                left_out[run.name] = f"{type(error).__name__}: {str(error)[:300]}"
                continue
            rate = row["useful_tflops_per_second"] / jax.device_count()
            rows.append({**row, "share_of_matrix_product": rate / product, "mfu": peak and 1e12 * rate / peak})
            print(line(rows[-1]), file=sys.stderr, flush=True)
            if OUTPUT.value:
                pathlib.Path(OUTPUT.value).write_text(json.dumps(result, indent=2) + "\n")
        pool.shutdown(wait=False, cancel_futures=True)
    print(f"{result['hardware']}, jax {jax.__version__}, {PRECISION.value}: matrix product {product:.1f} TFLOP/s")
    print("\n".join([*map(line, rows), *(f"left out: {name}: {why}" for name, why in left_out.items())]))


if __name__ == "__main__":
    app.run(main)

"""Our speed beside the authors' own PyTorch code, in one run on one machine: same network, same shapes.

    git clone https://github.com/ZhiChengAIR/benchmarks authors && git -C authors checkout c5f5464
    export XLA_FLAGS=--xla_cpu_experimental_ynn_fusion_type=invalid    # on a CPU
    python benchmarks/authors.py --checkout=authors --output=benchmarks/results/authors_cpu.json

181 state numbers, two observation steps, chunks of 16 x 7, batch 64, 8 descent steps an update; an action is 2 steps, of 1 and of 32
observations. An update is all of it: loss, second-order gradient, clip, AdamW, moving average, on a batch that lies on the device.
Theirs is `EBTPolicy.train_on_batch` and `EBTPolicy._get_action_trajectory`, called as they are (`published_code.py` says what is
replaced around them); with their attention dropout, and without, which is the same arithmetic as ours. Beside both: our diffusion and
flow matching over our trunk at the published width, depth and MLP.

Contestants take turns, round by round, so that a busy machine is as busy for each; medians over --rounds. `share` is a contestant's
model FLOPs (3 F_obs + 6 K F an update, F_obs + 2 K F an action; F, F_obs: one decoding, one encoding) over the rate of a large matrix
product, timed in its own library in the same rounds. Of small arrays (two observation tokens, 16 actions), XLA's own reductions and
Eigen's products are faster on a CPU than the library that XLA takes since jax 0.10 (YNNPACK): hence the flag. Needs torch. Uses a GPU
where both libraries see one; float32 in full, nowhere TF32.
"""

import contextlib
import dataclasses
import io
import json
import os
import pathlib
import platform
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import published_code
import torch
from absl import app, flags

from ebt_jax.flops import count_flops
from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method, method_settings
from ebt_jax.models import make_model, model_variant
from ebt_jax.policy import empty_batch
from ebt_jax.sharding import make_mesh, to_devices
from ebt_jax.specs import ActionDimension, ActionSpec, Dimension, LanguageSpec, ObservationSpec, Specs
from ebt_jax.training.optimizer import OptimizerSettings, make_optimizer, parameter_count
from ebt_jax.training.state import sharded_init
from ebt_jax.training.step import make_train_step
from ebt_jax.types import Batch

CHECKOUT = flags.DEFINE_string("checkout", None, "Checkout of the authors' repository at c5f5464.", required=True)
STEPS = flags.DEFINE_integer("mcmc_steps", 8, "Descent steps of an update.")
ROUNDS = flags.DEFINE_integer("rounds", 7, "Rounds, of which medians count.")
SECONDS = flags.DEFINE_float("seconds", 1.0, "At least so long a contestant is timed in each round (and one call).")
UNROLL = flags.DEFINE_list("unroll", ["8", "8"], "Layers that one iteration of our scan runs: in updates, in actions.")
GRADIENT = flags.DEFINE_string("gradient", "lean", "How our update differentiates the descent: saved, recomputed or lean.")
SEED = flags.DEFINE_integer("seed", 0, "Seed of weights and batches.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")

BATCH, ACT_BATCHES, ACT_STEPS = 64, (1, 32), 2
BASELINES = {
    "ours, diffusion": ({"name": "diffusion"}, (100, 10)),
    "ours, flow": ({"name": "flow"}, (2,)),
}
PUBLISHED = MCMC(
    num_steps=1, step_size=1000.0, step_size_jitter=1.5, momentum=0.9, noise_start=0.2, noise_end=0.002, action_norm="every",
    energy_temperature=1.0, stop_gradient_velocity=False,
)  # fmt: skip


def specs() -> Specs:
    observation = ObservationSpec((), tuple(Dimension(f"state_{i}", "m") for i in range(published_code.STATES)), LanguageSpec(), 2)
    return Specs(observation, ActionSpec(tuple(ActionDimension(f"action_{i}", "eef_delta", "m") for i in range(7)), "base", 16))


def batch_of(size: int) -> Batch:
    """Random states and chunks, everything valid."""
    draw, batch = np.random.default_rng(SEED.value), empty_batch(specs(), size)
    proprio = draw.standard_normal(batch.observation.proprio.shape).astype(np.float32)
    observation = batch.observation._replace(proprio=proprio, timestep_mask=np.ones((size, 2), bool))
    actions = draw.uniform(-1, 1, batch.actions.shape).astype(np.float32)
    return Batch(observation, actions, np.ones(actions.shape, bool))


def ours(method: dict[str, Any], variant: dict[str, Any], acts: tuple[int, ...]) -> tuple[dict[str, Callable[[], Any]], dict[str, float]]:
    """Calls to time, and the model FLOPs of each."""
    name = method.pop("label")
    mcmc, head = PUBLISHED, method_settings(method).head
    training, acting = (make_model(model_variant(**variant, unroll=int(unroll)), specs(), head) for unroll in UNROLL.value)
    trained = make_method(method, dataclasses.replace(mcmc, num_steps=STEPS.value, gradient=GRADIENT.value), training)
    settings, mesh = OptimizerSettings(ema_power=0.75, decayed="all"), make_mesh(devices=jax.devices()[:1])
    optimizer, batch = make_optimizer(settings, 900_000), to_devices(batch_of(BATCH), mesh)
    state = sharded_init(trained, optimizer, batch, SEED.value, mesh)
    step = make_train_step(trained, optimizer, settings, mesh, jax.eval_shape(lambda: state)).lower(state, batch).compile()
    params = jax.tree.map(jnp.copy, state.params)

    def update() -> Any:
        nonlocal state
        state, metrics = step(state, batch)
        return float(metrics["loss"])

    one = batch_of(1)
    f_obs = count_flops(training.encode, params, one.observation)
    context = jax.eval_shape(training.encode, params, one.observation)
    if head == "energy":
        f, forward, backward = count_flops(training.energy, params, context, one.actions), 2, 6 * STEPS.value
    else:
        f, forward, backward = count_flops(training.predict, params, context, one.actions, jnp.zeros(1)), 1, 3
    calls, flops = {f"{name}: update": update}, {f"{name}: update": BATCH * (3 * f_obs + backward * f)}
    sampler = make_method(method, mcmc, acting)
    for size in ACT_BATCHES:
        observation = jax.device_put(batch_of(size).observation)
        keys = jax.random.split(jax.random.key(SEED.value), size)
        for n in acts:
            act = jax.jit(lambda p, o, k, n=n: sampler.sample(p, sampler.encode(p, o), k, n).actions)
            label = f"{name}: {n} steps, batch {size}"
            calls[label] = lambda act=act, o=observation, k=keys: np.asarray(act(params, o, k))
            flops[label] = size * (f_obs + n * forward * f)
    print(f"{name}: {parameter_count(params):,} parameters", file=sys.stderr)
    return calls, flops


def theirs(name: str, dropout: float, device: str) -> dict[str, Callable[[], Any]]:
    """Calls to time."""
    torch.manual_seed(SEED.value)
    with contextlib.redirect_stdout(io.StringIO()):
        policy = published_code.load_policy(pathlib.Path(CHECKOUT.value).resolve(), STEPS.value, dropout, device)
    on_device = lambda array: torch.tensor(np.asarray(array), device=device)
    data = batch_of(BATCH)
    batch = {"obs": {"object": on_device(data.observation.proprio)}, "goal_obs": None, "actions": on_device(data.actions)}

    def update() -> float:
        policy.set_train()
        return policy.train_on_batch(batch, epoch=0)["losses"]["l2_loss"].item()

    def act(observation: Any) -> Any:
        policy.set_eval()
        with contextlib.redirect_stdout(io.StringIO()):  # it prints the number of its steps
            return policy._get_action_trajectory({"object": observation}).detach().cpu().numpy()

    calls: dict[str, Callable[[], Any]] = {f"{name}: update": update}
    for size in ACT_BATCHES:
        observation = on_device(batch_of(size).observation.proprio)
        calls[f"{name}: {ACT_STEPS} steps, batch {size}"] = lambda o=observation: act(o)
    return calls


def products(device: str) -> tuple[dict[str, Callable[[], Any]], int]:
    """A large square product in each library, and its FLOPs."""
    n = 2048 if device == "cpu" else 8192
    x, y = jax.random.normal(jax.random.key(0), (n, n)), torch.randn(n, n, device=device)
    product = jax.jit(lambda x: x @ x)

    def in_torch() -> Any:
        (y @ y).sum().item()

    return {"product in jax": lambda: product(x)[0, 0].block_until_ready(), "product in torch": in_torch}, 2 * n**3


def seconds_per_call(call: Callable[[], Any]) -> float:
    start, count = time.perf_counter(), 0
    while count == 0 or time.perf_counter() - start < SECONDS.value:
        call()
        count += 1
    return (time.perf_counter() - start) / count


def main(argv: list[str]) -> None:
    device = "cuda" if torch.cuda.is_available() and jax.default_backend() == "gpu" else "cpu"
    jax.config.update("jax_default_matmul_precision", "float32")  # as our networks ask of every product themselves
    torch.backends.cuda.matmul.allow_tf32 = False
    trunk = {"name": "small", "width": 256, "heads": 4, "encoder_layers": 8, "decoder_layers": 8, "mlp_ratio": 1}
    calls, product_flops = products(device)
    calls |= theirs("theirs", 0.3, device) | theirs("theirs without dropout", 0.0, device)
    flops: dict[str, float] = {}
    for method, variant, acts in [
        ({"name": "ebt", "label": "ours"}, {"name": "paper"}, (ACT_STEPS,)),
        *((method | {"label": name}, trunk, acts) for name, (method, acts) in BASELINES.items()),
    ]:
        more, cost = ours(method, variant, acts)
        calls, flops = calls | more, flops | cost
    for name in list(calls):
        if name.startswith("theirs"):
            flops[name] = flops["ours: " + name.partition(": ")[2]]
    for call in calls.values():
        call()  # compiles, allocates
    rounds: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(ROUNDS.value):
        for name, call in calls.items():
            rounds[name].append(seconds_per_call(call))
        print(f"round {number + 1} of {ROUNDS.value}", file=sys.stderr)
    median = {name: statistics.median(times) for name, times in rounds.items()}
    rates = {library: product_flops / median[f"product in {library}"] for library in ("jax", "torch")}
    rows = {}
    print("| | ms | theirs / this | without dropout / this | share of the product |\n|---|---|---|---|---|")
    for name, seconds in median.items():
        share = flops[name] / seconds / rates["torch" if name.startswith("theirs") else "jax"] if name in flops else None
        what = name.partition(": ")[2]
        # Samplers of other step counts stand beside the published two steps: what an action costs, whatever makes it.
        peer = what if what == "update" else f"{ACT_STEPS} steps, {what.partition(', ')[2]}"
        paired = {}
        for other in ("theirs", "theirs without dropout"):
            if f"{other}: {peer}" in rounds:
                paired[other] = statistics.median(a / b for a, b in zip(rounds[f"{other}: {peer}"], rounds[name], strict=True))
        rows[name] = {"seconds": seconds, "seconds_of_rounds": rounds[name], "ratio": paired, "share_of_product": share}
        ratios = " | ".join(f"{paired[other]:.2f}" if other in paired else "" for other in ("theirs", "theirs without dropout"))
        print(f"| {name} | {1000 * seconds:.3f} | {ratios} | {'' if share is None else f'{share:.3f}'} |")
    result = {
        "hardware": {"device": jax.devices()[0].device_kind, "machine": platform.machine(), "cores": os.cpu_count(),
            "load": os.getloadavg()},
        "versions": {
            "python": platform.python_version(), "jax": jax.__version__, "torch": torch.__version__, "authors": "c5f5464",
            "stand_ins": published_code.STAND_INS,
        },
        "threads": {"torch": torch.get_num_threads(), "XLA_FLAGS": os.environ.get("XLA_FLAGS", "")},
        "tf32": False,
        "gradient": GRADIENT.value,
        "unroll": UNROLL.value,
        "seed": SEED.value,
        "command": "python benchmarks/authors.py " + " ".join(sys.argv[1:]),
        "product_gflops_per_second": {library: rate / 1e9 for library, rate in rates.items()},
        "flops": flops,
        "rows": rows,
    }  # fmt: skip
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)

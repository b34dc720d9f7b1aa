"""How long an answer takes: encoding, a step, the whole; two steps of EBT beside diffusion and flow over the same trunk.

    python benchmarks/latency.py --sizes=debug,small --output=benchmarks/results/latency_cpu.json
    python benchmarks/latency.py --sizes=large --precision=bfloat16 --steps=4 --unroll=1,12 --batch_sizes=1 --contestants=ebt
    python benchmarks/latency.py --sizes= --artifact=DIR        cold start alone: a new process to its first action

Synthetic observations of two 224x224 cameras, chunk 16 x 7, random parameters: time does not depend on what was learnt. Everything is
compiled first. Then contestants take turns, one call each in an order drawn anew for every turn, until --seconds have passed for all of
a size and batch size, so that a machine's bad moments, and the caches that an encoding leaves behind, fall on all alike; p50 and p99
are over these calls, ratios are of p50. Sampling is timed as the policy runs it, the energy of the answer included. "end to end" is one
program, from uint8 images on the device to the chunk.

Floating-point operations are counted in the jaxpr: an encoding F_obs, an energy F, and what the steps cost beside them. The limit is
1.02 F_obs + 2.1 K F for encoding and K steps; the answer's energy, which a policy reports, adds one F.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import jax
import numpy as np
from absl import app, flags

from ebt_jax.evaluation.results import hardware, versions
from ebt_jax.flops import count_flops
from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.models import make_model
from ebt_jax.models.config import model_variant
from ebt_jax.policy import empty_batch
from ebt_jax.specs import ActionDimension, ActionSpec, CameraSpec, Dimension, LanguageSpec, ObservationSpec, Specs
from ebt_jax.training.trained import acting
from ebt_jax.types import Method

SIZES = flags.DEFINE_list("sizes", ["debug"], "Named sizes to time; empty for none.")
BATCHES = flags.DEFINE_list("batch_sizes", ["1", "32"], "Observations in one call.")
PRECISION = flags.DEFINE_string("precision", "float32", "float32 or bfloat16.")
STEPS = flags.DEFINE_integer("steps", 2, "K of the energy's descent.", lower_bound=1)
UNROLL = flags.DEFINE_list("unroll", ["0"], "Decoder blocks that one iteration of the scan over layers runs; 0 is all, as policies act.")
CAMERAS = flags.DEFINE_integer("cameras", 2, "Cameras, up to three.", lower_bound=0, upper_bound=3)
IMAGE = flags.DEFINE_integer("image_size", 224, "Their height and width.")
CONTESTANTS = flags.DEFINE_list("contestants", ["ebt", "ddpm_100", "ddim_10", "flow_10", "flow_2"], "Samplers to time.")
SECONDS = flags.DEFINE_float("seconds", 20, "For the turns of one size and batch size, after compiling; at least five turns.")
ARTIFACT = flags.DEFINE_string("artifact", "", "Time a cold start on this artifact, too.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")

MORE_STEPS = 8
"""Of a second descent: the difference is what a step costs."""
BASELINES = {"ddpm_100": ("diffusion", 100), "ddim_10": ("diffusion", 10), "flow_10": ("flow", 10), "flow_2": ("flow", 2)}

COLD_START = """
import time; begun = time.perf_counter()
import sys, numpy as np, ebt_jax
policy = ebt_jax.load(sys.argv[1]); loaded = time.perf_counter()
from ebt_jax.policy import empty_batch
observation = empty_batch(policy.specs).observation
policy.sample_actions(observation, policy.sample_keys(0, np.zeros(1, int), np.zeros(1, int)))
print(loaded - begun, time.perf_counter() - begun)
"""


def specs() -> Specs:
    names = ("primary", "secondary", "wrist")[: CAMERAS.value]
    cameras = tuple(CameraSpec(name, IMAGE.value, IMAGE.value) for name in names)
    proprio = tuple(Dimension(f"joint_{i}", "rad") for i in range(7))
    observation = ObservationSpec(cameras, proprio, LanguageSpec("tokens", 16, 4096), 1)
    return Specs(observation, ActionSpec(tuple(ActionDimension(f"joint_{i}", "joint_delta", "rad") for i in range(7)), "base", 16))


def methods(size: str, unroll: int) -> dict[str, Method]:
    """One network, under each head."""
    overrides = {"precision": PRECISION.value, "remat": False, **({"unroll": unroll} if unroll else {})}
    config = model_variant(size, **overrides) if unroll else acting(model_variant(size, **overrides))
    heads = {"ebt": "energy", "diffusion": "timed_vector", "flow": "timed_vector"}
    return {
        name: make_method({"name": name}, MCMC(num_steps=STEPS.value), make_model(config, specs(), head)) for name, head in heads.items()
    }


def random_params(method: Method):
    """Small random numbers in the shape of the parameters: compiling an initialisation would take longer than everything else."""
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(method.init, jax.random.key(0), empty_batch(specs()))
    return jax.device_put(jax.tree.map(lambda leaf: 0.02 * draw.standard_normal(leaf.shape, np.float32), shapes))


def flops(method: Method) -> dict[str, float]:
    """Counted for one sample, and as multiples of the limit's terms."""
    example = empty_batch(specs())
    params = jax.eval_shape(method.init, jax.random.key(0), example)
    context = jax.eval_shape(method.encode, params, example.observation)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    encode = count_flops(method.encode, params, example.observation)
    energy = count_flops(method.energy, params, context, example.actions)
    descent = count_flops(lambda p, c, k: method.sample(p, c, k, STEPS.value), params, context, keys) - energy
    return {
        "parameters": sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params)),
        "encode": encode,
        "energy": energy,
        "step / energy": descent / STEPS.value / energy,
        "share of the limit": (encode + descent) / (1.02 * encode + 2.1 * STEPS.value * energy),
    }


def programs(size: str, unroll: int, batch_size: int) -> dict[str, tuple]:
    """name -> (jitted function, its arguments), all on the device."""
    example = jax.device_put(empty_batch(specs(), batch_size).observation)
    keys = jax.random.split(jax.random.key(0), batch_size)
    found, ready = {}, {}
    for name, method in methods(size, unroll).items():
        wanted = {c: BASELINES[c][1] for c in CONTESTANTS.value if c in BASELINES and BASELINES[c][0] == name}
        if name == "ebt" and "ebt" in CONTESTANTS.value:
            wanted = {f"ebt_{STEPS.value}": STEPS.value, f"ebt_{STEPS.value + MORE_STEPS}": STEPS.value + MORE_STEPS}
        if not wanted:
            continue
        params = random_params(method)
        context = jax.jit(method.encode)(params, example)
        if "encode" not in found:
            found["encode"] = (jax.jit(method.encode), (params, example))
        for contestant, steps in wanted.items():
            sample = jax.jit(lambda p, c, k, m=method, n=steps: m.sample(p, c, k, n)[:2])
            found[contestant] = (sample, (params, context, keys))
            whole = jax.jit(lambda p, o, k, m=method, n=steps: m.sample(p, m.encode(p, o), k, n)[:2])
            ready[f"{contestant}, end to end"] = (whole, (params, example, keys))
    return {**found, **ready}


def take_turns(found: dict[str, tuple], seconds: float) -> dict[str, dict[str, float]]:
    """name -> p50, p99 and number of calls, milliseconds."""
    for function, arguments in found.values():
        for _ in range(2):
            jax.block_until_ready(function(*arguments))
    times: dict[str, list[float]] = {name: [] for name in found}
    begun, turns, draw = time.perf_counter(), 0, np.random.default_rng(0)
    while turns < 5 or time.perf_counter() - begun < seconds:
        turns += 1
        for name in draw.permutation(list(found)):
            function, arguments = found[name]
            start = time.perf_counter()
            jax.block_until_ready(function(*arguments))
            times[name].append(1e3 * (time.perf_counter() - start))
    return {name: {"p50": float(np.median(t)), "p99": float(np.quantile(t, 0.99)), "calls": len(t)} for name, t in times.items()}


def ratios(times: dict[str, dict[str, float]]) -> dict[str, float]:
    """How many times as long as EBT each contestant samples, and answers."""
    base = f"ebt_{STEPS.value}"
    found = {}
    for name, value in times.items():
        contestant, end_to_end = name.split(",")[0], name.endswith("end to end")
        if contestant in BASELINES and base in times:
            found[f"{name} / ebt"] = value["p50"] / times[f"{base}, end to end" if end_to_end else base]["p50"]
    return found


def cold_start(artifact: str) -> dict[str, dict[str, float]]:
    """Seconds from a new process to a loaded policy, and to its first action: nothing cached, then with a filled compilation cache."""
    found = {}
    with tempfile.TemporaryDirectory() as cache:
        filled = {"JAX_COMPILATION_CACHE_DIR": cache, "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
        for name, settings in (("no cache", {}), ("filling the cache", filled), ("filled cache", filled)):
            environment = {key: value for key, value in os.environ.items() if key != "JAX_COMPILATION_CACHE_DIR"} | settings
            done = subprocess.run([sys.executable, "-c", COLD_START, artifact], env=environment, capture_output=True, text=True, check=True)
            loaded, acted = map(float, done.stdout.split())
            found[name] = {"loaded": loaded, "first action": acted}
            print(f"cold start, {name}: loaded after {loaded:.1f} s, first action after {acted:.1f} s")
    return found


def main(_: list[str]) -> None:
    results: dict = {
        "hardware": hardware(),
        "versions": versions(),
        "command": " ".join(["python", "benchmarks/latency.py", *sys.argv[1:]]),
        "xla_flags": os.environ.get("XLA_FLAGS", ""),
        "precision": PRECISION.value,
        "steps": STEPS.value,
        "sizes": [],
    }
    for size in filter(None, SIZES.value):
        counted = flops(methods(size, 0)["ebt"])
        print(
            f"\n{size}: {counted['parameters'] / 1e6:.1f} M parameters, F_obs {counted['encode'] / 1e9:.3f} GFLOP, F "
            f"{counted['energy'] / 1e9:.4f} GFLOP, a step {counted['step / energy']:.3f} F, encoding and steps "
            f"{counted['share of the limit']:.3f} of the limit\n"
        )
        for unroll in map(int, UNROLL.value):
            for batch_size in map(int, BATCHES.value):
                times = take_turns(programs(size, unroll, batch_size), SECONDS.value)
                more, base = times.get(f"ebt_{STEPS.value + MORE_STEPS}"), times.get(f"ebt_{STEPS.value}")
                step = (more["p50"] - base["p50"]) / MORE_STEPS if more and base else None
                shown = "" if step is None else f", a step {step:.3f} ms"
                print(f"{size}, batch {batch_size}, unroll {unroll or 'own'}: {times['encode']['calls']} turns{shown}")
                print("| what | p50 ms | p99 ms | / ebt |\n|---|---|---|---|")
                compared = ratios(times)
                for name, value in times.items():
                    against = compared.get(f"{name} / ebt")
                    print(f"| {name} | {value['p50']:.3f} | {value['p99']:.3f} | {'' if against is None else f'{against:.2f}'} |")
                results["sizes"].append(
                    {
                        "size": size,
                        "unroll": unroll,
                        "batch_size": batch_size,
                        "flops": counted,
                        "ms": times,
                        "ms per step": step,
                        "ratios": compared,
                    }
                )
    if ARTIFACT.value:
        results["cold start, seconds"] = cold_start(ARTIFACT.value)
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    app.run(main)

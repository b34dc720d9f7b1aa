"""What an update and a sampled chunk of each method cost, in floating-point operations: for comparisons at equal compute.

    python benchmarks/methods.py --config=configs/oxe.py:sample
    python benchmarks/methods.py --config=configs/pusht.py --config.data.data_dir=data --output=benchmarks/results/methods.json

The config's network and data specs, under every method. Matrix products and convolutions are counted in the jaxpr (`ebt_jax/flops.py`),
per sample of a batch: the same on any machine, and nothing is run. An update is the loss and its gradient, observation encoder
included (the optimiser's work is the same for all). A chunk is one encoding, all steps of the sampler and, where there is one, the energy
of the answer, which a policy reports; a step is what one more step adds.
"""

import json
import pathlib

import jax
from absl import app, flags

from ebt_jax.config import define_config_flag, resolve
from ebt_jax.data.mixture import open_mixture
from ebt_jax.flops import count_flops
from ebt_jax.policy import empty_batch
from ebt_jax.specs import Specs
from ebt_jax.training.optimizer import parameter_count
from ebt_jax.training.settings import Settings

CONFIG = define_config_flag()
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")

EBT = {"name": "ebt", "loss_steps": "every"}
CONTESTANTS = {
    "diffusion": ({"name": "diffusion"}, {}, (100, 10, 4, 2, 1)),
    "flow": ({"name": "flow"}, {}, (10, 4, 2, 1)),
    "regression": ({"name": "regression"}, {}, (1,)),
    "one-pass generator, energy score, M = 4": ({"name": "regression", "objective": "energy_score", "num_starts": 4}, {}, (1,)),
    "ebt, mse, K = 2": (EBT, {"num_steps": 2}, (2, 1)),
    "ebt, mse, K = 2, unrolled": (EBT, {"num_steps": 2, "stop_gradient": False}, (2,)),
    "ebt, energy score, M = 4, K = 2": ({**EBT, "objective": "energy_score", "num_starts": 4}, {"num_steps": 2}, (2, 4)),
    "ebt, energy score, M = 2, K = 2": ({**EBT, "objective": "energy_score", "num_starts": 2}, {"num_steps": 2}, (2, 4)),
    "equilibrium": ({"name": "equilibrium"}, {}, (5, 10)),
    "equilibrium as a vector field": ({"name": "equilibrium", "head": "vector"}, {}, (5, 10)),
    "contrastive, 16 uniform, 8 Langevin x 50": ({"name": "contrastive"}, {}, (50,)),
    "contrastive, 256 uniform, derivative-free": (
        {"name": "contrastive", "num_uniform": 256, "num_langevin": 0, "gradient_penalty": 0.0, "inference": "derivative_free"},
        {},
        (3,),
    ),
}


def cost(settings: Settings, specs: Specs, steps: tuple[int, ...]) -> dict:
    """Parameters, and operations for one sample."""
    method = settings.make_method(specs)
    batch = empty_batch(specs)
    params = jax.eval_shape(method.init, jax.random.key(0), batch)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    context = jax.eval_shape(method.encode, params, batch.observation)

    def sample(num_steps: int) -> int:
        return count_flops(lambda p, c, k: method.sample(p, c, k, num_steps), params, context, keys)

    return {
        "parameters": parameter_count(params),
        "update": count_flops(jax.value_and_grad(method.loss, has_aux=True), params, batch, keys),
        "encode": count_flops(method.encode, params, batch.observation),
        "step": sample(1) if method.sample_steps == 1 else sample(2) - sample(1),
        "sample": {str(n): sample(n) for n in steps},
    }


def main(_: list[str]) -> None:
    values = resolve(CONFIG)
    base = Settings.from_dict(values)
    specs = open_mixture(base.data).specs
    results = {}
    for name, (method, mcmc, steps) in CONTESTANTS.items():
        settings = Settings.from_dict({**values, "method": method, "mcmc": {**values["mcmc"], **mcmc}})
        results[name] = cost(settings, specs, steps)
    unit = results["diffusion"]
    chunk = unit["encode"] + unit["sample"]["100"]
    millions = {"an update and sample": unit["update"], "a step": unit["step"], "a DDPM-100 chunk": chunk}
    print("diffusion, MFLOP: " + ", ".join(f"{flops / 1e6:.2f} {what}" for what, flops in millions.items()) + "\n")
    print("| method | parameters | update / diffusion's | step / diffusion's | steps | chunk / DDPM-100's |\n|---|---|---|---|---|---|")
    for name, found in results.items():
        for n, flops in found["sample"].items():
            update, step, total = found["update"] / unit["update"], found["step"] / unit["step"], (found["encode"] + flops) / chunk
            print(f"| {name} | {found['parameters']:,} | {update:.2f} | {step:.2f} | {n} | {total:.4f} |")
    if OUTPUT.value:
        about = {"config": values, "unit": "floating-point operations per sample", "methods": results}
        pathlib.Path(OUTPUT.value).write_text(json.dumps(about, indent=2) + "\n")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)

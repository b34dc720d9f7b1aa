"""MFU: operations that an update needs, over those the devices could do in its time; what is computed twice counts once."""

import dataclasses

import jax

from ebt_jax.flops import count_flops, descent_flops, peak_flops
from ebt_jax.methods import method_settings
from ebt_jax.methods.ebt import EBT
from ebt_jax.models import make_model
from ebt_jax.policy import empty_batch
from ebt_jax.specs import Specs
from ebt_jax.training.optimizer import tuned
from ebt_jax.training.settings import Settings
from ebt_jax.types import EnergyModel


def sample_flops(settings: Settings, specs: Specs) -> int:
    """Operations that one sample's loss and gradient need.

    For a descent 3 F_obs + 6 M K F (`descent_flops`; K with mcmc.extra_steps), as benchmarks/train.py has it too; fewer where the
    gradient, with every activation kept and none taken of what is frozen, has fewer matrix products and convolutions than that. A tie adds
    3 (1 + negatives) F. Of other methods, their count.
    """
    model = dataclasses.replace(settings.model, remat=False, encoder_attention="einsum")  # a fused kernel's products are not to be seen
    mcmc = dataclasses.replace(settings.mcmc, gradient="saved")
    method = tuned(dataclasses.replace(settings, model=model, mcmc=mcmc).make_method(specs), settings.optimizer)
    chosen = method_settings(settings.method)
    tied = 1 + chosen.tie_negatives if getattr(chosen, "tie_weight", 0) > 0 else 0  # energies of a sample, of as many samples
    batch = empty_batch(specs, max(1, tied))
    params = jax.eval_shape(method.init, jax.random.key(0), batch)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), max(1, tied)))
    gradient = jax.grad(lambda params, batch, keys: method.loss(params, batch, keys)[0])
    counted = count_flops(gradient, params, batch, keys) // max(1, tied)
    if not isinstance(chosen, EBT):
        return counted
    energy = make_model(model, specs, chosen.head)
    assert isinstance(energy, EnergyModel)
    starts = chosen.num_starts if chosen.objective == "energy_score" else 1
    # An energy of the tie, whose gradient by the chunk nobody takes, is half of one of the descent.
    return min(counted, descent_flops(energy, empty_batch(specs), starts * (mcmc.num_steps + mcmc.extra_steps) + tied / 2))


def samples_at_peak(settings: Settings, specs: Specs, device_kind: str, devices: int) -> float | None:
    """Samples per second of `devices` that do nothing but useful operations at their peak: MFU is the rate reached over this."""
    peak = peak_flops(device_kind)
    return None if peak is None else devices * peak / sample_flops(settings, specs)

"""MFU: operations that an update needs, over those the devices could do in its time; what is computed twice counts once."""

import dataclasses

import jax

from ebt_jax.flops import count_flops, peak_flops
from ebt_jax.policy import empty_batch
from ebt_jax.specs import Specs
from ebt_jax.training.settings import Settings


def sample_flops(settings: Settings, specs: Specs) -> int:
    """Matrix products and convolutions of one sample's loss and gradient, with every activation kept: about 3 F_obs + 6.15 K F."""
    model, mcmc = dataclasses.replace(settings.model, remat=False), dataclasses.replace(settings.mcmc, gradient="saved")
    method = dataclasses.replace(settings, model=model, mcmc=mcmc).make_method(specs)
    batch = empty_batch(specs)
    params = jax.eval_shape(method.init, jax.random.key(0), batch)
    keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
    return count_flops(jax.grad(lambda params, batch, keys: method.loss(params, batch, keys)[0]), params, batch, keys)


def samples_at_peak(settings: Settings, specs: Specs, device_kind: str, devices: int) -> float | None:
    """Samples per second of `devices` that do nothing but useful operations at their peak: MFU is the rate reached over this."""
    peak = peak_flops(device_kind)
    return None if peak is None else devices * peak / sample_flops(settings, specs)

"""How numbers are multiplied: float32 in full on every device, bfloat16 as devices do it."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest

from ebt_jax.models import make_energy_model, model_variant
from ebt_jax.specs import LanguageSpec

NETWORKS = {
    "own": {"vision": "resnet_small", "film": True, "pooling": "spatial_softmax"},
    "published": {"vision": "dinov2_small", "language": "t5_small"},
    "imagenet": {"vision": "resnet18_imagenet"},
}


def products(config, specs, batch, derivatives=False):
    """(types of both operands, whether in full) of every product and convolution in an energy, or in a gradient of dE/da."""
    model = make_energy_model(config, specs)
    params = jax.eval_shape(model.init, jax.random.key(0), batch)

    def energy(params, batch):
        return jnp.sum(model.energy(params, model.encode(params, batch.observation), batch.actions))

    def slope(params, batch):
        return jnp.sum(jax.grad(lambda actions: energy(params, batch._replace(actions=actions)))(batch.actions) ** 2)

    text = jax.jit(jax.grad(slope) if derivatives else energy).lower(params, batch).as_text()
    lines = [line for line in text.splitlines() if "stablehlo.dot_general" in line or "stablehlo.convolution" in line]
    kinds = [re.findall(r"tensor<(?:\d+x)*(\w+)>", line.rpartition(" : ")[2])[:2] for line in lines]
    return {(*kind, "HIGHEST" in line) for kind, line in zip(kinds, lines, strict=True)}


@pytest.mark.parametrize("network", NETWORKS)
def test_float32_is_multiplied_in_full_and_bfloat16_as_it_is(network, make_specs, make_batch):
    """As any device is told; in bfloat16 the way from actions in and to the energy out stays float32."""
    specs = make_specs(("primary",), "tokens", size=28, horizon=1)
    if network == "published":
        ids = LanguageSpec("tokens", 4, 3, "unigram", "a\t0\nb\t0\nc\t0")
        specs = dataclasses.replace(specs, observation=dataclasses.replace(specs.observation, language=ids))
    for precision, expected in (
        ("float32", {("f32", "f32", True)}),
        ("bfloat16", {("f32", "f32", True), ("bf16", "bf16", False)}),
    ):
        config = model_variant("debug", precision=precision, unroll=1, **NETWORKS[network])
        assert products(config, specs, make_batch(specs, 2)) == expected


def test_so_are_derivatives_and_the_published_network(make_specs, make_batch):
    specs = make_specs(("primary",), horizon=1)
    for config in (
        model_variant("debug", width=8, decoder_layers=1, unroll=1, vision="vit", vision_layers=1),
        model_variant("paper", width=16, heads=2, encoder_layers=1, decoder_layers=1),
    ):
        assert products(config, specs, make_batch(specs, 2), derivatives=True) == {("f32", "f32", True)}

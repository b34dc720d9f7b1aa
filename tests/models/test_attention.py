"""Why fused attention serves encoders and never decoders: it can be differentiated once, and training wants that much of an encoder."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.models import make_energy_model, model_variant
from ebt_jax.models.transformer import BlockSettings, DecoderBlock, attend


@jax.custom_vjp
def differentiable_once(queries, keys, values, mask):
    """`attend` as a kernel would be: its derivative is a rule that has none."""
    return attend(queries, keys, values, mask)


def _forward(*arguments):
    return attend(*arguments), arguments


def _backward(arguments, cotangent):
    *floats, mask = arguments

    @jax.custom_jvp
    def kernel(floats, cotangent):
        return jax.vjp(lambda *floats: attend(*floats, mask), *floats)[1](cotangent)

    @kernel.defjvp
    def no_rule(primals, tangents):
        raise NotImplementedError("no second derivative")

    return *kernel(floats, cotangent), None


differentiable_once.defvjp(_forward, _backward)


@pytest.fixture(scope="module")
def small(make_specs, make_batch, random_params):
    specs = make_specs()
    config = model_variant("debug", width=8, decoder_layers=1, unroll=1)
    batch = make_batch(specs, 2)
    return specs, config, batch, random_params(make_energy_model(config, specs), batch)


@pytest.mark.slow
@pytest.mark.parametrize("gradient", ["saved", "lean"])
def test_the_encoder_wants_one_derivative_and_the_decoder_two(small, gradient, monkeypatch):
    """Training's gradient passes such a kernel in the encoder, however it differentiates the descent; in the decoder there is none."""
    specs, config, batch, params = small
    mcmc = MCMC(num_steps=2, gradient=gradient, stop_gradient=False)
    loss = make_method({"name": "ebt"}, mcmc, make_energy_model(config, specs)).loss
    keys = jax.random.split(jax.random.key(0), 2)
    differentiate = lambda: jax.make_jaxpr(jax.grad(lambda params: loss(params, batch, keys)[0]))(params)
    kernel = lambda queries, keys, values, mask=None: differentiable_once(queries, keys, values, mask)
    encoder_only = lambda queries, keys, values, mask=None: (kernel if mask is not None and queries.shape[1] == keys.shape[-1] else attend)(
        queries, keys, values, mask
    )
    monkeypatch.setattr("ebt_jax.models.transformer.attend", encoder_only)
    assert "custom_jvp" in str(differentiate())
    monkeypatch.setattr("ebt_jax.models.transformer.attend", kernel)
    with pytest.raises(NotImplementedError, match="no second derivative"):
        differentiate()


def test_a_fused_decoder_is_refused(small):
    settings = BlockSettings(8, 2, 2, True, 1, small[1].dtypes, "fused")
    x = jnp.zeros((1, 3, 8))
    with pytest.raises(ValueError, match="attention of a decoder block must be 'einsum', got 'fused'.*model.encoder_attention"):
        DecoderBlock(settings).init(jax.random.key(0), x, jnp.zeros((1, 2, 4, 2)), jnp.zeros((1, 2, 4, 2)), jnp.ones((1, 2), bool))
    with pytest.raises(ValueError, match=r"model settings must be among .*got \['decoder_attention'\]"):
        model_variant("debug", decoder_attention="fused")
    with pytest.raises(ValueError, match="encoder_attention must be 'einsum' in float32, got 'fused'"):
        model_variant("debug", encoder_attention="fused")


@pytest.mark.slow
def test_fused_attention_computes_the_same_energy(make_specs, make_batch, random_params, monkeypatch, jit):
    """With masked tokens in any place: the kernel reads lengths, so that real tokens must come first. XLA stands in for cuDNN."""
    specs = make_specs(("primary", "wrist"), "embedding")
    config = model_variant("debug", width=16, vision="vit", vision_layers=1, precision="bfloat16", unroll=1)
    plain, fused = (make_energy_model(dataclasses.replace(config, encoder_attention=name), specs) for name in ("einsum", "fused"))
    batch = make_batch(specs, 3)
    params = random_params(plain, batch)
    observation = batch.observation._replace(
        image_masks={"primary": jnp.array([[False, True], [True, True], [False, False]]), "wrist": jnp.array([[True, False]] * 3)},
        language_mask=jnp.array([[False, True, False]] * 3),
        timestep_mask=jnp.array([[False, True], [True, True], [True, True]]),
    )
    energy = lambda model: jit(lambda p: model.energy(p, model.encode(p, observation), batch.actions))(params)
    expected, seen = energy(plain), []
    attention = jax.nn.dot_product_attention

    def stand_in(*arguments, implementation, key_value_seq_lengths):
        seen.append(key_value_seq_lengths is not None)
        return attention(*arguments, key_value_seq_lengths=key_value_seq_lengths, implementation="xla")

    monkeypatch.setattr(jax.nn, "dot_product_attention", stand_in)
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    found = energy(fused)
    assert set(seen) == {True, False}
    scale = float(jnp.max(jnp.abs(expected)))
    np.testing.assert_allclose(found, expected, atol=0.02 * scale)
    chex.assert_tree_all_finite(found)

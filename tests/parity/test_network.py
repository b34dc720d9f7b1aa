"""The published network beside its PyTorch transcription, with the same weights: energies, slopes, a whole chain and its loss gradient."""

import dataclasses
import functools

import pytest

torch = pytest.importorskip("torch")

import jax
import jax.numpy as jnp
import numpy as np
import published
from test_chain import SETTINGS, draws

from ebt_jax.mcmc import minimize_energy
from ebt_jax.models import make_energy_model, model_variant, num_parameters
from ebt_jax.policy import empty_batch
from ebt_jax.specs import ActionDimension, ActionSpec, Dimension, LanguageSpec, ObservationSpec, Specs

pytestmark = pytest.mark.parity

PROPRIO, STEPS, HORIZON, ACTIONS = 181, 2, 16, 7
FULL = (256, 4, 8)
SMALL = (32, 2, 2)
TOLERANCE = {"float32": 1e-5, "float64": 1e-10}


def transcription(width, heads, depth, dtype):
    """Encoder and decoder in PyTorch, every weight off its special value."""
    torch.manual_seed(0)
    encoder = published.TemporalEncoder(PROPRIO, STEPS, width, heads, depth)
    decoder = published.EnergyDecoder(ACTIONS, HORIZON, width, heads, depth)
    with torch.no_grad():
        for parameter in (*encoder.parameters(), *decoder.parameters()):
            if parameter.requires_grad:
                parameter.add_(0.02 * torch.randn_like(parameter))
    return encoder.to(getattr(torch, dtype)), decoder.to(getattr(torch, dtype))


def model(width, heads, depth, dtype):
    """Ours, over chunks that begin at the oldest observation as the published data do."""
    observation = ObservationSpec((), tuple(Dimension(f"x_{i}", "m") for i in range(PROPRIO)), LanguageSpec(), STEPS)
    action = ActionSpec(tuple(ActionDimension(f"a_{i}", "eef_delta", "m") for i in range(ACTIONS)), "base", HORIZON, 20.0)
    sizes = {"width": width, "heads": heads, "encoder_layers": depth, "decoder_layers": depth}
    specs = Specs(observation, action)
    return make_energy_model(model_variant("paper", first_action="oldest", precision=dtype, **sizes), specs), empty_batch(specs)


def ours(encoder, decoder, of=lambda parameter: parameter):
    """Our tree of parameters, from the transcription's modules; with `of`, of something that each parameter has (its gradient)."""
    heads = encoder.blocks[0].self_attention.heads
    number = lambda parameter: of(parameter).detach().numpy()

    def linear(layer):
        return {"kernel": number(layer.weight).T, **({} if layer.bias is None else {"bias": number(layer.bias)})}

    def joined(*layers):
        """[d, n, heads, k] and [n, heads, k] of several projections that one product makes."""
        split = lambda array: np.stack([part.reshape(*part.shape[:-1], heads, -1) for part in array], axis=-3)
        return {"kernel": split([number(layer.weight).T for layer in layers]), "bias": split([number(layer.bias) for layer in layers])}

    def attention(block):
        a = block.self_attention
        return {
            "query_key_value": joined(a.query, a.key, a.value),
            "query_norm": {"scale": number(a.query_scale)},
            "key_norm": {"scale": number(a.key_scale)},
            "out": linear(a.out),
        }

    def encoder_block(block):
        return {
            "self_norm": {"scale": number(block.self_norm)},
            "self_attention": attention(block),
            "mlp_norm": {"scale": number(block.mlp_norm)},
            "mlp": {"hidden": linear(block.mlp.hidden), "out": linear(block.mlp.out)},
        }

    def decoder_block(block):
        cross = block.cross_attention
        query = joined(cross.query)
        return {
            **encoder_block(block),
            "cross_norm": {"scale": number(block.cross_norm)},
            "query": {"kernel": query["kernel"][:, 0], "bias": query["bias"][0]},
            "query_norm": {"scale": number(cross.query_scale)},
            "cross_out": linear(cross.out),
        }

    def key_value(block):
        cross = block.cross_attention
        return {"product": joined(cross.key, cross.value), "key_norm": {"scale": number(cross.key_scale)}}

    stack = lambda leaf, blocks: jax.tree.map(lambda *leaves: np.stack(leaves), *[leaf(block) for block in blocks])
    return {
        "features": linear(encoder.embed),
        "positions": number(encoder.positions),
        "encoder": stack(encoder_block, encoder.blocks),
        "key_value": stack(key_value, decoder.blocks),
        "action_hidden": linear(decoder.hidden),
        "action_norm": {"scale": number(decoder.norm.weight), "bias": number(decoder.norm.bias)},
        "action": linear(decoder.embed),
        "decoder": stack(decoder_block, decoder.blocks),
        "head_norm": {"scale": number(decoder.head_norm)},
        "head_hidden": linear(decoder.head.hidden),
        "head": linear(decoder.head.out),
    }


def numbers(batch, dtype, seed=0):
    """Observations and chunks."""
    random = np.random.default_rng(seed)
    return random.normal(size=(batch, STEPS, PROPRIO)).astype(dtype), random.normal(size=(batch, HORIZON, ACTIONS)).astype(dtype)


def close(got, expected, tolerance):
    """Within `tolerance` of the largest number there."""
    expected = np.asarray(expected)
    np.testing.assert_allclose(got, expected, rtol=tolerance, atol=tolerance * np.max(np.abs(expected)))


def observe(batch, proprio):
    return batch.observation._replace(proprio=jnp.asarray(proprio), timestep_mask=jnp.ones(proprio.shape[:2], bool))


def test_the_published_numbers_of_parameters():
    """3,210,240 and 5,409,799, of which 4,096 are fixed positions: parameters there, constants here."""
    encoder, decoder = transcription(*FULL, "float32")
    assert sum(parameter.numel() for parameter in encoder.parameters()) == 3_210_240
    assert sum(parameter.numel() for parameter in decoder.parameters()) == 5_409_799
    assert decoder.positions.numel() == 4_096
    energy_model, batch = model(*FULL, "float32")
    params = jax.eval_shape(energy_model.init, jax.random.key(0), batch)
    assert num_parameters(params) == 3_210_240 + 5_409_799 - 4_096
    assert jax.tree.map(lambda leaf: leaf.shape, params) == jax.tree.map(lambda leaf: leaf.shape, ours(encoder, decoder))


@pytest.mark.parametrize("dtype", TOLERANCE)
def test_energies_and_their_action_gradients(dtype):
    """The published size, five observations."""
    encoder, decoder = transcription(*FULL, dtype)
    proprio, actions = numbers(5, dtype)
    chunk = torch.tensor(actions, requires_grad=True)
    energy = decoder(chunk, encoder(torch.tensor(proprio)))
    (slope,) = torch.autograd.grad(energy.sum(), chunk)
    with jax.enable_x64(dtype == "float64"):
        energy_model, batch = model(*FULL, dtype)
        params = jax.tree.map(jnp.asarray, ours(encoder, decoder))
        context = jax.jit(energy_model.encode)(params, observe(batch, proprio))
        bound = functools.partial(energy_model.energy, params, context)
        close(jax.jit(bound)(jnp.asarray(actions)), energy.detach().numpy(), TOLERANCE[dtype])
        close(jax.jit(jax.grad(lambda a: jnp.sum(bound(a))))(jnp.asarray(actions)), slope.numpy(), TOLERANCE[dtype])


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("name", SETTINGS)
def test_the_whole_chain_and_its_loss_gradient(name, dtype):
    """Six steps at the published step size, with noise, jitter, momentum and exp(E): every chunk, the loss, and its gradient in every
    parameter, those of the temporal encoder included."""
    settings = dataclasses.replace(SETTINGS[name], step_size=1000.0)
    proprio, target = numbers(3, dtype, seed=1)
    start = numbers(3, dtype, seed=2)[1]
    encoder, decoder = transcription(*SMALL, dtype)
    with jax.enable_x64(dtype == "float64"):
        keys = jax.random.split(jax.random.key(0), 3)
        noise, jitter = (np.asarray(draw, dtype) for draw in draws(settings, keys, (HORIZON, ACTIONS), jnp.dtype(dtype)))
        energy_model, batch = model(*SMALL, dtype)

        def loss(params):
            context = energy_model.encode(params, observe(batch, proprio))
            energy_fn = functools.partial(energy_model.energy, params, context)
            _, trace = minimize_energy(energy_fn, jnp.asarray(start), settings, keys=keys)
            return jnp.mean((trace.actions[1:] - target[None]) ** 2), trace

        params = jax.tree.map(jnp.asarray, ours(encoder, decoder))
        (value, trace), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(params)

    context = encoder(torch.tensor(proprio))
    path, energies = published.chain(
        lambda a: decoder(a, context), torch.tensor(start), torch.tensor(noise), torch.tensor(jitter),
        step_size=settings.step_size, momentum=settings.momentum, temperature=settings.energy_temperature,
        detach_velocity=settings.stop_gradient_velocity,
    )  # fmt: skip
    expected = torch.stack([((a - torch.tensor(target)) ** 2).mean() for a in path]).mean()
    expected.backward()
    tolerance = TOLERANCE[dtype]
    close(trace.actions[1:], torch.stack(path).detach().numpy(), tolerance)
    close(trace.energy, torch.stack(energies).detach().numpy(), tolerance)
    close(value, expected.item(), tolerance)
    nothing = lambda parameter: torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    jax.tree_util.tree_map_with_path(lambda path, got, want: close(got, want, tolerance), gradient, ours(encoder, decoder, nothing))

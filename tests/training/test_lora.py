"""Adapters: nothing at first, then exactly the network whose matrices have the sum."""

import bimodal
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.loading import load
from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.models.transfer import layers_and_matrix
from ebt_jax.policy import empty_batch
from ebt_jax.specs import ActionDimension, ActionSpec, CameraSpec, Dimension, LanguageSpec, ObservationSpec, Specs
from ebt_jax.training.loop import train
from ebt_jax.training.lora import adapted_matrices, merge, with_adapters
from ebt_jax.training.optimizer import trained_share
from ebt_jax.training.settings import Settings
from ebt_jax.tree import named_leaves
from ebt_jax.types import Batch, EnergyModel

PATTERNS = ("inputs/*", "blocks/*")
SHAPES = {"inputs": {"kernel": (7, 6), "bias": (6,)}, "blocks": {"mix": {"kernel": (2, 6, 2, 3)}}, "head": {"kernel": (6, 1)}}
"""A network of two layers: 3 x 2 actions and 1 number of state in, a scalar out."""


def draw(tree, seed, scale=1.0):
    generator = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(scale * generator.normal(size=leaf.shape), jnp.float32), tree)


def init(key, batch):
    shapes = jax.tree.map(lambda shape: np.zeros(shape), SHAPES, is_leaf=lambda leaf: isinstance(leaf, tuple))
    return jax.tree.map(lambda leaf: leaf + jax.random.normal(key), draw(shapes, 3))


def energy(params, side, actions):
    x = jnp.concatenate([side, actions.reshape(len(actions), -1)], axis=1)
    x = jnp.tanh(x @ params["inputs"]["kernel"] + params["inputs"]["bias"][None])
    for kernel in params["blocks"]["mix"]["kernel"]:
        x = x + jnp.tanh(x @ kernel.reshape(6, 6))
    return (x @ params["head"]["kernel"])[:, 0]


@pytest.fixture(scope="module")
def method():
    model = EnergyModel(init, lambda params, observation: observation.proprio[:, 0], energy, (3, 2))
    return make_method({"name": "ebt"}, MCMC(num_steps=2), model)


@pytest.fixture(scope="module")
def batch():
    actions = draw(np.zeros((8, 3, 2)), 4)
    return Batch(bimodal.observe(jnp.linspace(0.4, 0.6, 8)), actions, jnp.ones(actions.shape, bool))


def test_at_first_nothing_changes(method, batch):
    """The same base as without adapters, bit for bit, and a sum that is the base."""
    params = with_adapters(method, PATTERNS, 3, 2.0).init(jax.random.key(5), batch)
    plain = method.init(jax.random.key(5), batch)
    chex.assert_trees_all_equal(params["base"], plain)
    chex.assert_trees_all_equal(merge(params, 2.0), plain)
    assert {name: bool(np.any(leaf)) for name, leaf in named_leaves(params["lora"]).items()} == {
        "inputs/kernel/a": True, "inputs/kernel/b": False, "blocks/mix/kernel/a": True, "blocks/mix/kernel/b": False
    }  # fmt: skip


def test_every_layer_has_its_own_low_rank_change(method, batch):
    params = draw(with_adapters(method, PATTERNS, 3, 2.0).init(jax.random.key(0), batch), 1)
    change = named_leaves(jax.tree.map(lambda new, old: np.asarray(new - old), merge(params, 2.0), params["base"]))
    factors = params["lora"]["blocks"]["mix"]["kernel"]
    for layer in range(2):
        expected = 2.0 * factors["a"][layer] @ factors["b"][layer]
        np.testing.assert_allclose(change["blocks/mix/kernel"][layer].reshape(6, 6), expected, rtol=1e-4, atol=1e-5)
        assert np.linalg.matrix_rank(change["blocks/mix/kernel"][layer].reshape(6, 6), tol=1e-3) == 3
    assert np.linalg.matrix_rank(change["inputs/kernel"], tol=1e-3) == 3
    assert not np.any(change["head/kernel"])
    assert not np.any(change["inputs/bias"])


def test_loss_and_its_gradient_are_the_merged_networks(method, batch):
    """d/dA and d/dB by the chain rule from d/dW, through the descent and its second derivatives."""
    adapted = with_adapters(method, PATTERNS, 3, 0.5)
    params = draw(adapted.init(jax.random.key(0), batch), 1, 0.4)
    keys = jax.random.split(jax.random.key(2), 8)
    value_and_gradient = lambda method: jax.jit(jax.value_and_grad(lambda params: method.loss(params, batch, keys)[0]))
    loss, gradient = value_and_gradient(adapted)(params)
    plain_loss, plain_gradient = value_and_gradient(method)(merge(params, 0.5))
    np.testing.assert_allclose(loss, plain_loss, rtol=1e-6)
    chex.assert_trees_all_close(gradient["base"], plain_gradient, rtol=1e-5, atol=1e-6)
    outer = plain_gradient["blocks"]["mix"]["kernel"].reshape(2, 6, 6)
    found, factors = (tree["lora"]["blocks"]["mix"]["kernel"] for tree in (gradient, params))
    assert np.abs(outer).max() > 1e-3
    np.testing.assert_allclose(found["a"], 0.5 * np.einsum("lio,lro->lir", outer, factors["b"]), rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found["b"], 0.5 * np.einsum("lio,lir->lro", outer, factors["a"]), rtol=1e-4, atol=1e-6)


def test_the_networks_own_matrices(tiny_config):
    settings = Settings.from_dict({**tiny_config, "model": {**tiny_config["model"], "decoder_layers": 2}})
    observation = ObservationSpec((CameraSpec("primary", 32, 32),), (Dimension("x", "m"),), LanguageSpec(), 1)
    specs = Specs(observation, ActionSpec((ActionDimension("x", "eef_delta", "m"),), "base", 4, 10.0))
    base = jax.eval_shape(settings.make_method(specs).init, jax.random.key(0), empty_batch(specs))
    found = adapted_matrices(base, ("decoder/*", "key_value/*", "*/stage0_block0/*"))
    assert found["decoder/self_attention/query_key_value/kernel"] == (2, 16, 48)
    assert found["key_value/kernel"] == (1, 16, 64)
    assert found["tokens/images/resnet/stage0_block0/conv1/kernel"] == (1, 144, 16)
    assert not [name for name in found if not name.endswith("kernel")]


def test_what_counts_as_a_matrix():
    assert layers_and_matrix("key_value/kernel", (64, 2, 2, 4, 16)) == (1, 64, 256)
    assert layers_and_matrix("decoder/self_attention/query_key_value/kernel", (6, 64, 3, 4, 16)) == (6, 64, 192)
    assert layers_and_matrix("tokens/images/vit/blocks/mlp/hidden/kernel", (8, 64, 256)) == (8, 64, 256)
    assert layers_and_matrix("tokens/images/resnet/stage0_block0/conv1/kernel", (3, 3, 16, 32)) == (1, 144, 32)
    assert layers_and_matrix("tokens/images/vit/patches/kernel", (16, 16, 3, 64)) == (1, 768, 64)
    assert layers_and_matrix("tokens/images/imagenet/stage0_block0/conv1/kernel", (3, 3, 64, 64)) == (1, 576, 64)
    assert layers_and_matrix("tokens/images/resnet/film0_0/modulation/kernel", (32, 2, 16)) == (1, 32, 32)
    assert layers_and_matrix("model/key_value/product/kernel", (8, 256, 2, 4, 64)) == (8, 256, 512)
    assert layers_and_matrix("encoder/mlp/hidden/bias", (2, 64)) is None
    assert layers_and_matrix("tokens/time", (2, 64)) is None


def test_a_pattern_without_a_matrix_is_an_error(method, batch):
    with pytest.raises(ValueError, match="optimizer.lora must match parameters, got 'inputs/bias', which matches none of 3"):
        adapted_matrices(method.init(jax.random.key(0), batch), ("inputs/bias",))


@pytest.mark.slow
def test_a_run_with_adapters_is_served_as_a_plain_network(tiny_run, tiny_config, tmp_path):
    """Trained over eight devices from another run: matrices keep the source's bits in the checkpoint, and the policy has their sum."""
    optimizer = {**tiny_config["optimizer"], "lora": ["decoder/*"], "lora_rank": 2, "freeze": ["tokens/*", "*/bias", "*/scale"]}
    config = {**tiny_config, "num_steps": 3, "save_interval": 0, "eval_interval": 0, "optimizer": optimizer, "init_from": str(tiny_run)}
    state = jax.device_get(train(config, tmp_path / "run"))
    source, served = load(tiny_run), load(tmp_path / "run")
    assert jax.tree.structure(served.params) == jax.tree.structure(source.params)
    before, base = named_leaves(source.params), named_leaves(state.ema_params["base"])
    merged, after = named_leaves(merge(state.ema_params, 1.0)), named_leaves(served.params)
    for name, leaf in after.items():
        np.testing.assert_array_equal(leaf, merged[name])
        adapted = name.startswith("decoder/") and name.endswith("kernel")
        frozen = adapted or name.startswith("tokens/") or name.endswith(("/bias", "/scale"))
        assert np.array_equal(base[name], before[name]) == frozen, name
        assert np.array_equal(leaf, before[name]) == (frozen and not adapted), name
    assert "train (" in trained_share(state.params, Settings.from_dict(config).optimizer)

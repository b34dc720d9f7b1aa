"""What does not train keeps its bits, and costs neither state nor clip."""

import bimodal
import jax
import numpy as np
import pytest

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import make_method
from ebt_jax.sharding import make_mesh, to_devices
from ebt_jax.training.freeze import matching
from ebt_jax.training.optimizer import OptimizerSettings, make_optimizer, trained_share, tuned
from ebt_jax.training.state import init_state, sharded_init
from ebt_jax.training.step import make_train_step
from ebt_jax.tree import named_leaves

BATCH = jax.tree.map(np.asarray, bimodal.draw(jax.random.key(0), 32))
METHOD = make_method({"name": "ebt"}, MCMC(num_steps=2), bimodal.mlp_energy())
NAMES = ["encoder/mlp/kernel", "encoder/mlp/bias", "decoder/mlp/kernel", "tokens/time"]
FROZEN = OptimizerSettings(warmup_steps=1, freeze=("1/*", "*/1"), weight_decay=0.1, decayed="all")
"""Of the toy's four layers (weight 0, bias 1): the second one, and every bias."""


def run(mesh, steps, settings):
    """The toy's state after some updates, on the host."""
    method, optimizer = tuned(METHOD, settings), make_optimizer(settings, 100)
    state = sharded_init(method, optimizer, BATCH, 0, mesh)
    step = make_train_step(method, optimizer, settings, mesh, state)
    for _ in range(steps):
        state, _ = step(state, to_devices(BATCH, mesh))
    return jax.device_get(state)


def test_patterns_reach_into_modules():
    assert matching("freeze", ["encoder/*"], NAMES) == {"encoder/mlp/kernel", "encoder/mlp/bias"}
    assert matching("freeze", ["*/kernel", "tokens/tim?"], NAMES) == {"encoder/mlp/kernel", "decoder/mlp/kernel", "tokens/time"}
    assert matching("freeze", [], NAMES) == set()


def test_a_pattern_that_matches_nothing_is_an_error_with_what_is_near():
    with pytest.raises(ValueError, match=r"optimizer.freeze must match parameters, got 'encoder/mpl/\*', which matches none of 4") as error:
        matching("optimizer.freeze", ["tokens/*", "encoder/mpl/*"], NAMES)
    assert "encoder/mlp/bias" in str(error.value)


def test_a_pattern_must_not_be_a_text_of_letters():
    with pytest.raises(ValueError, match="optimizer.freeze must be a list of patterns, got the one text 'encoder"):
        OptimizerSettings(freeze="encoder/*")


def test_frozen_parameters_keep_their_bits(monkeypatch):
    """Parameters and average, after updates with decay, sharded over eight devices; every other one has moved."""
    monkeypatch.setattr("ebt_jax.sharding.SMALLEST_SHARDED", 64)
    first, last = (run(make_mesh(2, 4), steps, FROZEN) for steps in (0, 3))
    for before, after in ((first.params, last.params), (first.ema_params, last.ema_params)):
        for name, leaf in named_leaves(after).items():
            assert np.array_equal(leaf, named_leaves(before)[name]) == (name.startswith("1/") or name.endswith("/1")), name


def test_frozen_parameters_have_no_optimiser_state():
    state = init_state(METHOD, make_optimizer(FROZEN, 100), BATCH, 0)
    trained = sum(leaf.size for name, leaf in named_leaves(state.params).items() if name.endswith("/0") and name != "1/0")
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == 2 * trained
    share = trained / sum(leaf.size for leaf in jax.tree.leaves(state.params))
    assert f"of which {trained:,} train ({share:.1%})" in trained_share(state.params, FROZEN)
    assert "train" not in trained_share(state.params, OptimizerSettings())


def test_what_is_frozen_counts_for_no_clip_and_does_not_move():
    """Huge frozen gradients leave the updates of the rest what they are without them, and are updated by 0."""
    params = {"held": np.ones((4, 4), np.float32), "free": np.ones((4, 4), np.float32)}
    alone, beside = OptimizerSettings(weight_decay=0.1, decayed="all"), OptimizerSettings(weight_decay=0.1, decayed="all", freeze=("held",))
    gradient = np.arange(16, dtype=np.float32).reshape(4, 4)
    updates = []
    for settings, tree in ((beside, params), (alone, {"free": params["free"]})):
        optimizer = make_optimizer(settings, 10)
        state = optimizer.init(tree)
        for scale in (1.0, 0.5):  # a common factor of all gradients would cancel in Adam: their ratio does not
            update, state = optimizer.update({"held": 1e6 * scale**2 * gradient, "free": scale * gradient} if "held" in tree else {
                "free": scale * gradient}, state, tree)  # fmt: skip
        updates.append(update)
    np.testing.assert_array_equal(updates[0]["free"], updates[1]["free"])
    assert np.any(updates[0]["free"])
    assert not np.any(updates[0]["held"])


def test_the_gradient_that_is_reported_is_of_what_trains():
    method, keys = tuned(METHOD, FROZEN), jax.random.split(jax.random.key(0), 32)
    gradient = jax.jit(jax.grad(lambda params: method.loss(params, BATCH, keys)[0]))(METHOD.init(jax.random.key(1), BATCH))
    for name, leaf in named_leaves(gradient).items():
        assert np.any(leaf) != (name.startswith("1/") or name.endswith("/1")), name

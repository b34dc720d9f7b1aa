"""Published text encoders in the model: what they read, what they give, what the mask hides."""

import dataclasses

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.models import make_energy_model, model_variant, num_parameters
from ebt_jax.models.bert import sentence
from ebt_jax.models.language import LanguageEncoder
from ebt_jax.models.sizes import TEXTS
from ebt_jax.models.t5 import distance_buckets
from ebt_jax.specs import LanguageSpec

MILLIONS = {"minilm": 22.57, "t5_small": 35.33, "t5_base": 109.63, "flan_t5_small": 35.33, "flan_t5_base": 109.63}
IDS = jax.ShapeDtypeStruct((2, 8), jnp.int32), jax.ShapeDtypeStruct((2, 8), jnp.bool_)


def spec_of(name, size=20, length=8):
    vocabulary = "\n".join(f"piece_{i}" for i in range(size))
    return LanguageSpec("tokens", length, size, TEXTS[name].tokenizer, vocabulary)


@pytest.fixture
def tiny(monkeypatch):
    """Published sizes so small that they run in no time, under their names."""
    for name in ("minilm", "t5_small"):
        size = dataclasses.replace(TEXTS[name], width=16, layers=2, heads=2, mlp_width=24, head_width=8, vocabulary=20)
        monkeypatch.setitem(TEXTS, name, size)


@pytest.mark.parametrize("name", TEXTS)
def test_published_encoders_have_their_published_size(name):
    """The whole of T5's encoder; MiniLM without its pooler. One token for a sentence, or one for each piece."""
    encoder = LanguageEncoder(model_variant("debug", language=name), spec_of(name))
    params = jax.eval_shape(encoder.init, jax.random.key(0), *IDS)
    (tokens, mask) = jax.eval_shape(encoder.apply, params, *IDS)
    assert tokens.shape[:2] == mask.shape == (2, 1 if name == "minilm" else 8)
    inside = params["params"][TEXTS[name].family]
    assert round(num_parameters(inside) / 1e6, 2) == MILLIONS[name]


@pytest.mark.parametrize("name", ["minilm", "t5_small"])
def test_masked_pieces_never_matter(name, tiny, jit, random_params):
    """Bit for bit, and an instruction that is all masked is finite and masked."""
    encoder = LanguageEncoder(model_variant("debug", language=name, language_frozen=False), spec_of(name))
    ids = jnp.asarray(np.random.default_rng(0).integers(0, 20, (3, 8)), jnp.int32)
    mask = jnp.arange(8)[None] < jnp.array([[8], [3], [0]])
    params = jit(encoder.init)(jax.random.key(0), ids, mask)

    @jit
    def encode(ids):
        loss = lambda p: jnp.sum(jnp.where(encoder.apply(p, ids, mask)[1][:, :, None], encoder.apply(p, ids, mask)[0], 0) ** 2)
        return encoder.apply(params, ids, mask), jax.grad(loss)(params)

    (tokens, said), gradient = encode(ids)
    (others, _), _ = encode(jnp.where(mask, ids, 19 - ids))
    np.testing.assert_array_equal(np.where(said[:, :, None], tokens, 0), np.where(said[:, :, None], others, 0))
    assert said.tolist() == [[True], [True], [False]] if name == "minilm" else jnp.all(said == mask)
    chex.assert_tree_all_finite((tokens, gradient))
    (moved, _), _ = encode(ids.at[1, 1].set(19 - ids[1, 1]))
    np.testing.assert_array_equal(moved[0], tokens[0])
    assert jnp.max(jnp.abs(moved[1, 0] - tokens[1, 0])) > 1e-3


def test_a_sentence_is_the_mean_token_at_length_one():
    tokens = jnp.array([[[3.0, 0.0], [0.0, 4.0], [jnp.nan, 9.0]], [[1.0, 1.0]] * 3])
    found = sentence(tokens, jnp.array([[True, True, False], [False] * 3]))
    np.testing.assert_allclose(found, [[0.6, 0.8], [0, 0]])


def test_distances_fall_into_their_buckets():
    """0..7 steps back are buckets 0..7, ahead 16 more; from 8 on they widen, and from 128 on they are one."""
    buckets = distance_buckets(200)
    assert buckets[150, [150, 149, 143, 151, 157]].tolist() == [0, 1, 7, 17, 23]
    assert buckets[150, 142] == 8
    assert buckets[0, 8] == 24
    assert buckets[199, [71, 60, 0]].tolist() == [15, 15, 15]
    assert np.all(np.diff(buckets[199, ::-1]) >= 0)


@pytest.mark.parametrize("frozen", [True, False])
def test_a_frozen_encoder_gets_no_gradient(frozen, tiny, jit, random_params):
    """And what comes after it gets all of its own: nothing but the encoder's is zero."""
    config = model_variant("debug", language="t5_small", language_frozen=frozen)
    encoder = LanguageEncoder(config, spec_of("t5_small"))
    ids, mask = jnp.arange(16).reshape(2, 8), jnp.ones((2, 8), bool)
    drawn = np.random.default_rng(0)
    params = jax.tree.map(
        lambda leaf: jnp.asarray(drawn.normal(size=leaf.shape)), jax.eval_shape(encoder.init, jax.random.key(0), ids, mask)
    )
    gradient = jit(jax.grad(lambda p: jnp.sum(encoder.apply(p, ids, mask)[0] ** 3)))(params)["params"]
    zero = {path[0].key for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if not jnp.any(leaf)}
    moved = {path[0].key for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if jnp.any(leaf)}
    assert (zero, moved) == (({"t5"}, {"norm", "project"}) if frozen else (set(), {"t5", "norm", "project"}))
    assert config.frozen == ({"language": ("*/t5/*",)} if frozen else {})


def test_ids_of_another_tokenizer_are_refused(make_specs):
    make = lambda name, language: make_energy_model(
        model_variant("debug", language=name),
        dataclasses.replace(make_specs(), observation=dataclasses.replace(make_specs().observation, language=language)),
    )
    with pytest.raises(ValueError, match=r"'t5_base' must be given token ids, got language of kind 'embedding'.*data.language=tokens"):
        make("t5_base", LanguageSpec("embedding", 1, 512))
    with pytest.raises(ValueError, match=r"ids of its own wordpiece tokenizer, got 50 of 'words'. Name the folder"):
        make("minilm", LanguageSpec("tokens", 4, 50))
    with pytest.raises(ValueError, match="its own unigram tokenizer, got 20 of 'wordpiece'"):
        make("t5_base", spec_of("minilm"))
    with pytest.raises(ValueError, match="vocabulary of tokenizer 'unigram' must have 3 pieces, got 2"):
        LanguageSpec("tokens", 4, 3, "unigram", "a\t0\nb\t0")

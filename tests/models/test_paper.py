"""The published network: its counts, what an action may see, how it starts, what it refuses. Beside PyTorch: tests/parity."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.models import make_energy_model, make_vector_model, model_variant, num_parameters

NARROW = {"width": 16, "heads": 2, "encoder_layers": 1, "decoder_layers": 1}


def test_parameters_of_encoder_and_decoder(make_specs, make_batch):
    """3,210,240 and 5,409,799 less the 4,096 fixed positions, for 181 numbers; about 31.0 M with two cameras."""
    specs = make_specs(proprio=181, action_horizon=16)
    params = jax.eval_shape(make_energy_model(model_variant("paper"), specs).init, jax.random.key(0), make_batch(specs, 1))
    encoder = num_parameters([params[name] for name in ("features", "positions", "encoder")])
    actions = len(specs.action.dimensions)
    assert encoder == 3_210_240
    # The published chunk has 7 numbers an action: 256 weights into the first layer, and 257 out of the last, for each.
    assert num_parameters(params) - encoder + (7 - actions) * (256 + 257) == 5_409_799 - 16 * 256
    seeing = make_specs(("primary", "wrist"), proprio=9, action_horizon=16, size=84)
    params = jax.eval_shape(make_energy_model(model_variant("paper"), seeing).init, jax.random.key(0), make_batch(seeing, 1))
    assert num_parameters(params) == pytest.approx(31.0e6, rel=0.002)


@pytest.fixture(scope="module")
def narrow(make_specs, make_batch, random_params):
    """(first_action) -> energy of (params, observation, actions); its parameters; and a batch."""
    specs = make_specs()
    batch = make_batch(specs, 3)

    def model(first_action):
        return make_energy_model(model_variant("paper", first_action=first_action, **NARROW), specs)

    def energy(first_action):
        chosen = model(first_action)
        return lambda params, observation, actions: chosen.energy(params, chosen.encode(params, observation), actions)

    return energy, random_params(model("newest"), batch), batch


def test_nothing_is_drawn_anew_between_steps(narrow):
    """No dropout: the energy that a chain descends is one function of observation and chunk."""
    energy, params, batch = narrow
    drawn = str(jax.make_jaxpr(energy("newest"))(params, batch.observation, batch.actions))
    assert "dot_general" in drawn
    assert not any(word in drawn for word in ("random", "threefry", "rng"))


@pytest.mark.parametrize("first_action", ["oldest", "newest"])
def test_no_action_sees_a_later_observation(first_action, narrow, jit):
    """With self-attention between actions silenced, row r of dE/da moves with observation j exactly where r >= j (published data), or
    always (ours, whose first action belongs to the newest)."""
    energy, params, batch = narrow
    out = params["decoder"]["self_attention"]["out"]
    attention = params["decoder"]["self_attention"] | {"out": jax.tree.map(jnp.zeros_like, out)}
    params = params | {"decoder": params["decoder"] | {"self_attention": attention}}

    def slope(proprio):
        observation = batch.observation._replace(proprio=proprio)
        return jax.grad(lambda a: jnp.sum(energy(first_action)(params, observation, a)))(batch.actions)[0]

    moves = jnp.any(jit(jax.jacobian(slope))(batch.observation.proprio)[:, :, 0] != 0, axis=(1, 3))  # [h t]
    rows, steps = np.arange(moves.shape[0])[:, None], np.arange(2)[None]
    np.testing.assert_array_equal(moves, (rows >= steps) if first_action == "oldest" else np.ones_like(rows >= steps))


def test_steps_before_the_first_repeat_it(narrow, jit):
    """What a mask hides has no influence, not even as NaN: the episode's first step stands in its place."""
    energy, params, batch = narrow
    masked = batch.observation._replace(timestep_mask=jnp.array([[False, True]] * 3))
    hidden = masked._replace(proprio=masked.proprio.at[:, 0].set(jnp.nan))
    repeated = batch.observation._replace(proprio=jnp.repeat(batch.observation.proprio[:, 1:], 2, axis=1))
    run = functools.partial(jit(energy("newest")), params)
    np.testing.assert_array_equal(run(hidden, batch.actions), run(repeated, batch.actions))
    assert jnp.all(jnp.isfinite(run(hidden._replace(timestep_mask=jnp.zeros((3, 2), bool)), batch.actions)))


@pytest.mark.slow
def test_it_starts_as_published(make_specs, make_batch, jit):
    """|dE/da| of a noise chunk of 16 x 7 is about 0.006 (0.0062 in one draw of theirs): 0.066 for each number of the sum."""
    specs = make_specs(proprio=181, action_horizon=16)
    model, batch = make_energy_model(model_variant("paper"), specs), make_batch(specs, 4)
    actions = jax.random.normal(jax.random.key(1), batch.actions.shape)

    def energy(actions):
        params = model.init(jax.random.key(0), batch)
        return jnp.sum(model.energy(params, model.encode(params, batch.observation), actions))

    slope = jit(jax.grad(energy))(actions)
    per_number = jnp.sqrt(jnp.mean(slope**2)) * slope.shape[1] * slope.shape[2]
    assert 0.03 < per_number < 0.12


def test_what_the_published_network_has_not_is_refused(make_specs):
    with pytest.raises(ValueError, match="must have no language, got 'embedding'"):
        make_energy_model(model_variant("paper"), make_specs(language="embedding"))
    with pytest.raises(ValueError, match="must have the head 'energy'"):
        make_vector_model(model_variant("paper"), make_specs(), timed=False)
    for setting, value, published in (
        ("mlp_ratio", 4, "1"),
        ("patch_size", 8, "16"),
        ("vision_layers", 2, "8"),
        ("vision_weights", "somewhere", "''"),
        ("film", True, "False"),
        ("language", "t5_small", "'words'"),
    ):
        with pytest.raises(ValueError, match=f"{setting} must be {published}, as published, got {value!r}"):
            model_variant("paper", **{setting: value})
    with pytest.raises(ValueError, match="encoder_attention must be 'einsum', as published, got 'fused'"):
        model_variant("paper", encoder_attention="fused", precision="bfloat16")
    with pytest.raises(ValueError, match="first_action must be 'newest' or 'oldest', got 'last'"):
        model_variant("paper", first_action="last")

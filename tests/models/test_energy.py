"""What an energy promises: one float32 a row, rows apart, masked content without influence, observations encoded apart."""

import dataclasses
import itertools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.models import make_energy_model, model_variant

COMBINATIONS = itertools.product([(), ("primary",), ("primary", "wrist")], ["none", "embedding", "tokens"], [0, 3], [1, 2])


@pytest.mark.parametrize(("cameras", "language", "proprio", "horizon"), COMBINATIONS)
def test_any_observation_gives_one_energy_a_row(cameras, language, proprio, horizon, make_specs, make_batch):
    specs = make_specs(cameras, language, proprio, horizon)
    model = make_energy_model(model_variant("debug"), specs)
    batch = jax.eval_shape(lambda: make_batch(specs, 5))
    params = jax.eval_shape(model.init, jax.random.key(0), batch)
    context = jax.eval_shape(model.encode, params, batch.observation)
    energy = jax.eval_shape(model.energy, params, context, batch.actions)
    assert (energy.shape, energy.dtype) == ((5,), jnp.float32)
    assert model.action_shape == batch.actions.shape[1:]
    assert all(leaf.shape[0] == 5 for leaf in jax.tree.leaves(context))


def test_the_energy_depends_on_everything_that_is_there(full, energy):
    _, batch, _, params = full
    before, observation = energy(params, batch), batch.observation
    others = {
        "actions": batch._replace(actions=batch.actions + 0.3),
        "proprio": batch._replace(observation=observation._replace(proprio=observation.proprio + 0.3)),
        "language": batch._replace(observation=observation._replace(language=observation.language[:, ::-1])),
        **{
            camera: batch._replace(observation=observation._replace(images=observation.images | {camera: 255 - observation.images[camera]}))
            for camera in observation.images
        },
    }
    for name, other in others.items():
        assert jnp.all(jnp.abs(energy(params, other) - before) > 1e-5), name


def test_masked_content_never_changes_the_energy(full, jit):
    """Bit for bit, and its gradient too, even where the hidden numbers are NaN."""
    _, batch, model, params = full
    observation = batch.observation._replace(
        timestep_mask=jnp.array([[False, True]] * 4),
        image_masks={"primary": jnp.array([[True, True], [True, False], [False, False], [True, True]]), "wrist": jnp.zeros((4, 2), bool)},
        language_mask=jnp.array([[True, True, False]] * 3 + [[False] * 3]),
    )
    shown = {name: mask & observation.timestep_mask for name, mask in observation.image_masks.items()}
    hidden = observation._replace(
        images={name: jnp.where(shown[name][:, :, None, None, None], image, 255 - image) for name, image in observation.images.items()},
        proprio=jnp.where(observation.timestep_mask[:, :, None], observation.proprio, jnp.nan),
        language=jnp.where(observation.language_mask[:, :, None], observation.language, jnp.nan),
    )

    def loss(params, observation):
        return jnp.sum(model.energy(params, model.encode(params, observation), batch.actions) ** 2)

    before, after = (jit(jax.value_and_grad(loss))(params, o) for o in (observation, hidden))
    assert before[0] == after[0]
    chex.assert_trees_all_equal(before[1], after[1])
    assert jnp.isfinite(before[0])


def test_a_camera_that_is_not_delivered_counts_as_masked(full, energy):
    _, batch, _, params = full
    o = batch.observation
    absent = o._replace(images={"primary": o.images["primary"]}, image_masks={"primary": o.image_masks["primary"]})
    masked = o._replace(image_masks=o.image_masks | {"wrist": jnp.zeros((4, 2), bool)})
    energies = [energy(params, batch._replace(observation=x)) for x in (absent, masked, o)]
    np.testing.assert_allclose(energies[0], energies[1], rtol=1e-5)
    assert jnp.all(jnp.abs(energies[2] - energies[1]) > 1e-5)


def test_nothing_observed_is_finite(full, jit):
    _, batch, model, params = full
    nothing = jax.tree.map(lambda leaf: jnp.zeros_like(leaf), batch.observation)

    def loss(params, actions):
        return jnp.sum(jax.grad(lambda a: jnp.sum(model.energy(params, model.encode(params, nothing), a)))(actions) ** 2)

    value, gradients = jit(jax.value_and_grad(loss, argnums=(0, 1)))(params, batch.actions)
    assert value > 0
    chex.assert_tree_all_finite(gradients)


def test_rows_never_mix(full, energy, make_batch):
    """A row's energy is its own: alone, among 64, and wherever among them it stands."""
    specs, _, _, params = full
    batch = make_batch(specs, 64, seed=1)
    together = energy(params, batch)
    assert jnp.std(together) > 1e-3
    order = np.random.default_rng(0).permutation(64)
    np.testing.assert_allclose(energy(params, jax.tree.map(lambda leaf: leaf[order], batch)), together[order], rtol=1e-5, atol=1e-6)
    alone = [energy(params, jax.tree.map(lambda leaf, i=i: leaf[i : i + 1], batch))[0] for i in (0, 17, 63)]
    np.testing.assert_allclose(alone, together[np.array([0, 17, 63])], rtol=1e-5, atol=1e-6)


@pytest.mark.slow
def test_a_gradient_never_leaks_into_other_rows(full, jit):
    _, batch, model, params = full
    context = model.encode(params, batch.observation)
    gradient = jit(jax.grad(lambda actions: model.energy(params, context, actions)[2]))(batch.actions)
    assert jnp.all(gradient[jnp.array([0, 1, 3])] == 0)
    assert jnp.any(gradient[2] != 0)


def test_the_context_is_all_that_energy_reads_of_an_observation(full, energy, jit):
    """With the context held, no parameter of the observation side matters and no image is convolved; reused, it serves any actions."""
    _, batch, model, params = full
    context = jit(model.encode)(params, batch.observation)
    gradients = jit(jax.grad(lambda params: jnp.sum(model.energy(params, context, batch.actions))))(params)
    for name in ("tokens", "encoder", "encoder_norm", "key_value", "key_norm"):
        assert all(jnp.all(leaf == 0) for leaf in jax.tree.leaves(gradients[name])), name
    assert "conv_general_dilated" not in str(jax.make_jaxpr(model.energy)(params, context, batch.actions))
    for actions in (batch.actions, -batch.actions):
        recomputed = energy(params, batch._replace(actions=actions))
        np.testing.assert_allclose(jit(model.energy)(params, context, actions), recomputed, rtol=1e-5, atol=1e-6)


def equations(jaxpr):
    """Number of equations, those of inner jaxprs included."""
    inner = (getattr(value, "jaxpr", value) for equation in jaxpr.eqns for value in equation.params.values())
    return len(jaxpr.eqns) + sum(equations(j) for j in inner if hasattr(j, "eqns"))


def test_depth_costs_no_program(make_specs, make_batch):
    specs = make_specs()
    batch = jax.eval_shape(lambda: make_batch(specs, 2))
    sizes = []
    for layers in (2, 7):
        model = make_energy_model(model_variant("debug", encoder_layers=layers, decoder_layers=layers, unroll=1), specs)
        params = jax.eval_shape(model.init, jax.random.key(0), batch)
        gradient = jax.grad(lambda p, b, m=model: jnp.sum(m.energy(p, m.encode(p, b.observation), b.actions)))
        sizes.append(equations(jax.make_jaxpr(gradient)(params, batch).jaxpr))
    assert sizes[0] == sizes[1] > 100


@pytest.mark.slow
def test_rematerialised_layers_compute_the_same(make_specs, make_batch, random_params, jit):
    specs = make_specs(action_horizon=4)
    config, batch = model_variant("debug", width=8, actions_per_token=2), make_batch(specs, 2)
    models = [
        make_energy_model(dataclasses.replace(config, remat=remat, unroll=unroll), specs) for remat, unroll in ((False, 1), (True, 2))
    ]
    params = random_params(models[0], batch)

    def slope(model):
        gradient = lambda p: jax.grad(lambda a: jnp.sum(model.energy(p, model.encode(p, batch.observation), a)))(batch.actions)
        return jit(jax.grad(lambda p: jnp.sum(gradient(p) ** 2)))(params)

    chex.assert_trees_all_close(slope(models[1]), slope(models[0]), rtol=1e-4, atol=1e-4)


def test_a_separate_encoder_for_each_camera(make_specs, make_batch):
    specs = make_specs(("primary", "wrist"))
    batch = jax.eval_shape(lambda: make_batch(specs, 1))
    shared, separate = (
        jax.eval_shape(make_energy_model(model_variant("debug", share_vision=share), specs).init, jax.random.key(0), batch)["tokens"]
        for share in (True, False)
    )
    assert {"images_primary", "images_wrist"} <= set(separate)
    assert "images" in shared
    chex.assert_trees_all_equal_shapes(separate["images_primary"], separate["images_wrist"], shared["images"])


def test_what_does_not_fit_the_specs_is_refused(full, make_batch):
    specs, batch, model, params = full
    o = batch.observation
    wrong = o._replace(proprio=o.proprio[..., :2], images=o.images | {"wrist": o.images["wrist"][:, :, :16]})
    with pytest.raises(ValueError, match=r"(?s)proprio: expected \(2, 3\), got \(2, 2\).*images\['wrist'\]: expected \(2, 32, 32, 3\)"):
        model.encode(params, wrong)
    with pytest.raises(ValueError, match=r"actions must have shape \[b, 6, 2\], got \[4, 5, 2\]"):
        model.energy(params, model.encode(params, o), batch.actions[:, :5])
    with pytest.raises(ValueError, match=r"every camera of the specs, got none of \['wrist'\]"):
        model.init(jax.random.key(0), batch._replace(observation=o._replace(images={"primary": o.images["primary"]})))
    with pytest.raises(ValueError, match="divisible by patch_size = 12, got 32 x 32"):
        make_energy_model(model_variant("debug", vision="vit", patch_size=12), specs)


def test_motion_between_steps_wants_two(make_specs):
    with pytest.raises(ValueError, match=r"motion_gain must be 0 for a policy that sees one step, got 10.0. Set data.observation_horizon"):
        make_energy_model(model_variant("debug", motion_gain=10.0), make_specs(horizon=1))


def test_motion_input_reads_differences_and_no_padding(make_specs, make_batch, random_params, jit):
    """With motion_gain a step back changes the energy; what lies under padding does not enter."""
    model = make_energy_model(model_variant("debug", width=16, motion_gain=10.0, unroll=1), make_specs())
    batch = make_batch(make_specs(), 2)
    params, observation = random_params(model, batch), batch.observation
    energy = jit(lambda observation: model.energy(params, model.encode(params, observation), batch.actions))
    before = observation._replace(proprio=observation.proprio.at[:, 0].set(7.0))
    begun = jnp.array([[False, True]] * 2)
    np.testing.assert_array_equal(*(energy(o._replace(timestep_mask=begun)) for o in (observation, before)))
    assert jnp.max(jnp.abs(energy(before) - energy(observation))) > 1e-4

"""The promises every method makes, and the energies' objectives on distributions whose answer is known."""

import dataclasses
import functools
from typing import Any, NamedTuple

import bimodal
import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.mcmc import MCMC
from ebt_jax.methods import METHODS, make_method, method_settings, unread_mcmc
from ebt_jax.methods.diffusion import signal_levels
from ebt_jax.methods.ebt import LOSS_STEPS, OBJECTIVES, energy_score
from ebt_jax.sharding import make_mesh
from ebt_jax.training.optimizer import OptimizerSettings, make_optimizer
from ebt_jax.training.state import init_state
from ebt_jax.training.step import make_train_step
from ebt_jax.types import Batch, EnergyModel, Method

MODEL = bimodal.mlp_energy()
fast_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
LEVELS = 20
CONTRASTIVE = {"name": "contrastive", "num_uniform": 3, "num_langevin": 2, "langevin_steps": 3}
EVERY_METHOD = [
    {"name": "ebt"},
    {"name": "ebt", "loss_steps": "last", "learn_step_size": True},
    {"name": "ebt", "objective": "energy_score", "num_starts": 3},
    {"name": "equilibrium"},
    {"name": "equilibrium", "decay": "linear"},
    {"name": "equilibrium", "head": "vector"},
    CONTRASTIVE,
    {**CONTRASTIVE, "inference": "derivative_free", "num_candidates": 16, "num_langevin": 0, "gradient_penalty": 0.0},
    {"name": "diffusion", "num_levels": LEVELS},
    {"name": "flow"},
    {"name": "regression"},
    {"name": "regression", "objective": "energy_score", "num_starts": 3},
]


class Prepared(NamedTuple):
    """A method with its parameters and a batch of 16, and what it computes, compiled once: (params, batch, keys) -> ((loss, metrics),
    gradients by parameters and actions); (params, observation, keys) -> Sample of `num_steps`."""

    name: str
    method: Method
    params: Any
    batch: Batch
    loss_and_gradients: Any
    sample: Any
    num_steps: int


@functools.cache
def _prepare(frozen):
    settings = dict(frozen)
    method = make_method(settings, MCMC(num_steps=2, step_size=0.3), bimodal.model_for(method_settings(settings).head))
    batch = bimodal.draw(jax.random.key(0), 16)
    num_steps = min(3, method.sample_steps)

    def loss(params, actions, batch, keys):
        return method.loss(params, batch._replace(actions=actions), keys)

    gradients = fast_jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    return Prepared(
        settings["name"],
        method,
        method.init(jax.random.key(1), batch),
        batch,
        lambda params, batch, keys: gradients(params, batch.actions, batch, keys),
        fast_jit(lambda params, observation, keys: method.sample(params, method.encode(params, observation), keys, num_steps)),
        num_steps,
    )


@pytest.fixture(params=EVERY_METHOD, ids=lambda settings: "-".join(str(value) for value in settings.values() if isinstance(value, str)))
def prepared(request):
    return _prepare(tuple(request.param.items()))


def test_no_method_is_left_out():
    assert {settings["name"] for settings in EVERY_METHOD} == set(METHODS)


def keys(n, seed=0):
    return jax.random.split(jax.random.key(seed), n)


def test_mse_averages_the_modes():
    """As theory says: from a start independent of the demonstration, the squared error's optimum is the conditional mean."""
    method = make_method({"name": "ebt"}, MCMC(num_steps=2), MODEL)
    params = bimodal.train(method, 800)
    for num_steps in (1, 2, 4):
        scores = bimodal.score(method, params, num_steps)
        assert scores.collapsed >= 99
        assert scores.median > 0.2


def test_energy_score_keeps_both_modes():
    """K = 2, M = 4: two steps reach .029 median, 4 % averaged, balance .84, 88 % within .06; four steps .017, 0 %, 99 %."""
    method = make_method({"name": "ebt", "objective": "energy_score"}, MCMC(num_steps=2), MODEL)
    params = bimodal.train(method, 2000)
    two, four = bimodal.score(method, params, 2), bimodal.score(method, params, 4)
    assert two.median <= 0.029
    assert two.collapsed <= 4
    assert min(two.balance, four.balance) >= 0.84
    assert two.within >= 88
    assert four.median <= 0.017
    assert four.collapsed <= 0.5
    assert four.within >= 99


def test_equilibrium_keeps_both_modes():
    """Truncated c, step size .3: ten steps reach .007 median, nobody in between, balance .84, all within .06."""
    method = make_method({"name": "equilibrium", "travel": 0.0}, MCMC(step_size=0.3), MODEL)
    params = bimodal.train(method, 4000)
    ten = bimodal.score(method, params, 10)
    assert ten.median <= 0.007
    assert ten.collapsed <= 0.5
    assert ten.balance >= 0.84
    assert ten.within >= 99.5


def test_energy_score_prefers_the_true_distribution():
    """On a fair coin over +-1 the score is lower for the coin than for its mean, for one side, and for a wider coin."""
    draws = 4000
    coin = jnp.where(jax.random.bernoulli(jax.random.key(0), 0.5, (draws,)), 1.0, -1.0)[:, None, None]
    guess = jnp.where(jax.random.bernoulli(jax.random.key(1), 0.5, (1, 4, draws)), 1.0, -1.0)[..., None, None]
    mask = jnp.ones((draws, 1, 1), bool)
    value = lambda samples: float(jnp.mean(energy_score(jnp.broadcast_to(samples, (1, 4, draws, 1, 1)), coin, mask)))
    rivals = [value(jnp.zeros_like(guess)), value(jnp.ones_like(guess)), value(1.5 * guess)]
    assert value(guess) + 0.05 < min(rivals)


def test_energy_score_has_its_closed_form():
    """Two starts at 0 and 2, demonstration at 1: mean(1, 1) - 1/4 (2 + 2) = 0."""
    samples = jnp.array([0.0, 2.0]).reshape(1, 2, 1, 1, 1)
    np.testing.assert_allclose(energy_score(samples, jnp.ones((1, 1, 1)), jnp.ones((1, 1, 1), bool)), [[0.0]], atol=1e-7)


def test_energy_score_gradient_is_finite_where_samples_meet():
    gradient = jax.grad(lambda y: jnp.sum(energy_score(y, jnp.zeros((1, 2, 2)), jnp.ones((1, 2, 2), bool))))(jnp.zeros((1, 2, 1, 2, 2)))
    np.testing.assert_array_equal(gradient, 0.0)


def test_masked_actions_never_move_the_loss(prepared):
    """Neither its value nor its gradient, bit for bit; real ones do, in every row that has one."""
    mask = prepared.batch.action_mask.at[:, 5:].set(False).at[3].set(False)
    batch = prepared.batch._replace(action_mask=mask)
    moved = batch._replace(actions=jnp.where(mask, batch.actions, 1e3))
    (value, _), (gradient, by_action) = prepared.loss_and_gradients(prepared.params, batch, keys(16))
    (moved_value, _), (moved_gradient, _) = prepared.loss_and_gradients(prepared.params, moved, keys(16))
    np.testing.assert_array_equal(value, moved_value)
    chex.assert_trees_all_equal(gradient, moved_gradient)
    np.testing.assert_array_equal(np.where(mask, 0.0, by_action), 0.0)
    assert np.all(np.abs(np.delete(by_action, 3, axis=0)).max(axis=(1, 2)) > 0)


def test_every_parameter_learns(prepared):
    """Finite gradients that reach every matrix and the step size."""
    (value, metrics), (gradient, _) = prepared.loss_and_gradients(prepared.params, prepared.batch, keys(16))
    chex.assert_tree_all_finite((value, metrics, gradient))
    assert all(np.abs(leaf).max() > 0 for leaf in jax.tree.leaves(gradient) if leaf.shape != (1, 1))  # E's own level is free


def test_loss_of_a_batch_is_the_mean_of_its_samples(prepared):
    """So any split over devices or accumulation steps gives the same number."""

    def loss(rows):
        batch = jax.tree.map(lambda x: x[rows], prepared.batch)
        return prepared.loss_and_gradients(prepared.params, batch, keys(16)[rows])[0][0]

    alone = [loss(slice(i, i + 1)) for i in range(16)]
    np.testing.assert_allclose(loss(slice(None)), np.mean(alone), rtol=1e-5)


def test_sampling_is_the_same_alone_and_in_a_padded_batch(prepared):
    observation = prepared.batch.observation
    sample = lambda observation, keys: prepared.sample(prepared.params, observation, keys).actions
    together = sample(observation, keys(16))
    one = jax.tree.map(lambda x: x[5:6], observation)
    atol = 1e-5
    if prepared.name == "diffusion":  # its first step divides the predicted noise by the signal at the last level, rounding and all
        atol = 4 * np.finfo(np.float32).eps / np.sqrt(signal_levels(LEVELS)[-1])
    np.testing.assert_allclose(sample(one, keys(16)[5:6])[0], together[5], atol=atol)
    spoiled = observation._replace(proprio=observation.proprio.at[8:].set(1e3))
    np.testing.assert_array_equal(sample(spoiled, keys(16))[:8], together[:8])
    other = sample(observation, keys(16).at[6].set(jax.random.key(9)))
    np.testing.assert_array_equal(np.delete(other, 6, axis=0), np.delete(together, 6, axis=0))


def test_a_sample_says_what_the_energy_said(prepared):
    """Shapes of the trace; E at the returned chunk where the method has one, NaN everywhere where it has none."""
    method, params, k = prepared.method, prepared.params, prepared.num_steps
    sample = prepared.sample(params, prepared.batch.observation, keys(16))
    assert sample.actions.shape == prepared.batch.actions.shape
    assert sample.trace_actions.shape == (k + 1, *sample.actions.shape)
    assert sample.trace_energy.shape == sample.trace_gradient_norm.shape == (k, 16)
    np.testing.assert_array_equal(sample.trace_actions[-1], sample.actions)
    np.testing.assert_array_equal(sample.num_steps, k)
    if method.energy is None:
        for part in (sample.energy, sample.trace_energy, sample.trace_gradient_norm):
            assert np.isnan(part).all()
        return
    context = method.encode(params, prepared.batch.observation)
    for said, actions in ((sample.energy, sample.actions), (sample.trace_energy[0], sample.trace_actions[0])):
        energy = method.energy(params, context, actions)
        np.testing.assert_allclose(said, energy, atol=1e-5 * float(jnp.std(energy)), rtol=0)


@pytest.mark.parametrize("objective", OBJECTIVES)
@pytest.mark.parametrize("loss_steps", LOSS_STEPS)
@pytest.mark.parametrize("extra_steps", [0, 2])
@pytest.mark.parametrize("attached", [False, True])
def test_ebt_learns_by_any_combination(objective, loss_steps, extra_steps, attached):
    """Objective x every or last x fixed or random steps x stop_gradient or unroll, each with momentum whose velocity is attached or
    not, noise, jitter and a learnable step size: finite, and every parameter and the step size are moved."""
    settings = {"name": "ebt", "objective": objective, "loss_steps": loss_steps, "num_starts": 2, "learn_step_size": True}
    batch = bimodal.draw(jax.random.key(0), 4)
    model = EnergyModel(
        init=lambda key, batch: jax.random.normal(key, (2, 3)),
        encode=bimodal.encode,
        energy=lambda params, context, actions: jnp.sum(jnp.tanh((actions - context[:, None]) @ params) ** 2, axis=(1, 2)),
        action_shape=MODEL.action_shape,
    )
    for velocity_attached in (False, True):
        mcmc = MCMC(
            num_steps=2,
            extra_steps=extra_steps,
            momentum=0.9,
            noise_start=0.1,
            step_size_jitter=1.5,
            stop_gradient=not attached,
            stop_gradient_velocity=not velocity_attached,
        )
        method = make_method(settings, mcmc, model)
        params = method.init(jax.random.key(1), batch)
        (value, _), gradient = fast_jit(jax.value_and_grad(method.loss, has_aux=True))(params, batch, keys(4))
        chex.assert_tree_all_finite((value, gradient))
        assert all(np.abs(leaf).min() > 0 for leaf in jax.tree.leaves(gradient))


def test_the_step_size_is_learnt_as_any_parameter():
    """On E = |a - o|^2 / 2 one step of size 1 is right from any start: from 0.2 the optimiser finds it, and the average follows."""
    model = EnergyModel(
        init=lambda key, batch: jnp.zeros(()),
        encode=lambda params, observation: observation.proprio[:, 0],
        energy=lambda params, context, actions: 0.5 * jnp.sum((actions - context[:, None]) ** 2, axis=(1, 2)),
        action_shape=(2, 1),
    )
    method = make_method({"name": "ebt", "learn_step_size": True}, MCMC(num_steps=1, step_size=0.2), model)
    side = jnp.linspace(-1, 1, 16)
    batch = Batch(bimodal.observe(side), jnp.broadcast_to(side[:, None, None], (16, 2, 1)), jnp.ones((16, 2, 1), bool))
    optimizer = make_optimizer(OptimizerSettings(learning_rate=0.05, warmup_steps=0, weight_decay=0.1, ema_decay=0.9), 200)
    state = init_state(method, optimizer, batch, 0)
    np.testing.assert_allclose(jnp.exp(state.params["log_step_size"]), 0.2, rtol=1e-6)
    train_step = make_train_step(method, optimizer, OptimizerSettings(ema_decay=0.9), make_mesh(devices=jax.devices()[:1]), state)
    for _ in range(200):
        state, metrics = train_step(state, batch)
    np.testing.assert_allclose(jnp.exp(state.params["log_step_size"]), 1.0, atol=0.01)
    np.testing.assert_allclose(jnp.exp(state.ema_params["log_step_size"]), 1.0, atol=0.01)
    np.testing.assert_allclose(metrics["step_size"], 1.0, atol=0.01)
    sample = method.sample(state.ema_params, side[:, None], keys(16), 1)
    np.testing.assert_allclose(sample.actions, batch.actions, atol=0.05)


def test_equilibrium_travel_spreads_over_the_steps():
    """On the exact field of one demonstration, n steps of 1 / n arrive at it for any n while c is 1."""
    method = make_method(
        {"name": "equilibrium", "travel": 1.0, "cutoff": 0.999},
        MCMC(),
        bimodal.mlp_energy()._replace(energy=lambda params, context, actions: jnp.sum(params * actions, axis=(1, 2))),
    )
    direction = jnp.ones((1, 8, 2))
    for n in (1, 2, 5):
        sample = method.sample(direction, None, keys(1), n)
        np.testing.assert_allclose(sample.trace_actions[0] - sample.actions, direction, atol=1e-5)


def test_unknown_names_list_the_valid_ones():
    with pytest.raises(ValueError, match=r"method.name must be one of \['contrastive', 'diffusion', 'ebt', .*'regression'\], got 'ebm'"):
        make_method({"name": "ebm"}, MCMC(), MODEL)
    with pytest.raises(ValueError, match=r"must be among \['learn_step_size', .*'objective', 'tie_.*\], got \['objectiv'\]"):
        make_method({"name": "ebt", "objectiv": "mse"}, MCMC(), MODEL)
    with pytest.raises(ValueError, match="method.num_starts must be at least 2"):
        make_method({"name": "ebt", "objective": "energy_score", "num_starts": 1}, MCMC(), MODEL)
    with pytest.raises(ValueError, match="model of method 'flow' must have the head 'timed_vector', got EnergyModel"):
        make_method({"name": "flow"}, MCMC(), MODEL)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"name": "diffusion", "num_levels": 1}, "method.num_levels must be at least 2, got 1"),
        ({"name": "diffusion", "start": 0.0}, r"method.start must lie in \(0, 1\], got 0.0"),
        ({"name": "equilibrium", "head": "scalar"}, "method.head must be one of .*, got 'scalar'"),
        ({"name": "equilibrium", "head": "vector", "tie_weight": 1.0}, "method.tie_weight must be 0 for a field"),
        ({"name": "contrastive", "num_uniform": 0, "num_langevin": 0}, "num_uniform .* must be at least 1, got 0"),
        ({"name": "contrastive", "inference": "gibbs"}, "method.inference must be one of .*, got 'gibbs'"),
        ({"name": "contrastive", "bound": 0.0}, "method.bound must be positive, got 0.0"),
        ({"name": "regression", "objective": "l1"}, "method.objective must be one of .*, got 'l1'"),
    ],
)
def test_bad_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        method_settings(settings)


@pytest.mark.parametrize(("settings", "num_steps"), [({"name": "regression"}, 2), ({"name": "diffusion", "num_levels": 20}, 21)])
def test_steps_that_a_method_cannot_take_are_refused(settings, num_steps):
    method = make_method(settings, MCMC(), bimodal.model_for(method_settings(settings).head))
    with pytest.raises(ValueError, match=f"num_steps must .*got {num_steps}"):
        method.sample(None, None, keys(1), num_steps)


@pytest.mark.parametrize("settings", [{"name": "ebt"}, {"name": "equilibrium", "travel": 0.0}])
def test_min_gradient_stops_each_sample_by_itself_with_the_steps_as_a_cap(settings):
    """E = 0.5 |a - c|^2 per chunk: a start near c rests early, one that is far takes the whole cap."""
    quadratic = MODEL._replace(energy=lambda params, context, actions: 0.5 * jnp.sum((actions - context) ** 2, axis=(1, 2)))
    method = make_method(settings, MCMC(step_size=0.5, min_gradient=1e-3), quadratic)
    context = jnp.full((2, *MODEL.action_shape), jnp.array([0.0, 1e6])[:, None, None])
    sample = method.sample(None, context, keys(2), 20)
    near, far = sample.num_steps
    assert 5 < near < 20
    assert far == 20
    assert np.isnan(sample.trace_energy[near:, 0]).all()
    assert sample.trace_gradient_norm[near - 2, 0] < 1e-3 <= sample.trace_gradient_norm[near - 3, 0]
    np.testing.assert_allclose(sample.energy, quadratic.energy(None, context, sample.actions), rtol=1e-6)


EVERYTHING = MCMC(
    extra_steps=1,
    step_schedule="linear",
    step_end=0.5,
    step_size_jitter=1.5,
    energy_temperature=2.0,
    momentum=0.5,
    action_norm="first",
    noise_start=0.2,
    noise_end=0.1,
    min_gradient=0.1,
)
"""Each setting at a value under which the others tell."""

OTHERWISE: dict[str, Any] = {
    "num_steps": 3,
    "extra_steps": 2,
    "step_size": 0.5,
    "step_schedule": "cosine",
    "step_end": 0.25,
    "step_size_jitter": 2.0,
    "energy_temperature": 3.0,
    "momentum": 0.25,
    "action_norm": "every",
    "noise_start": 0.3,
    "noise_end": 0.05,
    "noise_schedule": "linear",
    "stop_gradient": False,
    "stop_gradient_velocity": False,
    "min_gradient": 0.2,
}


@pytest.mark.parametrize("settings", [*({"name": name} for name in METHODS), {"name": "equilibrium", "travel": 0.0}], ids=str)
def test_what_a_method_is_said_not_to_read_is_no_part_of_its_computation_and_all_else_is(settings: dict[str, Any]) -> None:
    batch = jax.eval_shape(lambda: bimodal.draw(jax.random.key(0), 4))
    some_keys = jax.eval_shape(lambda: keys(4))

    def computation(mcmc: MCMC) -> str:
        method = make_method(settings, mcmc, bimodal.model_for(method_settings(settings).head))
        params = jax.eval_shape(method.init, jax.random.key(1), batch)
        context = jax.eval_shape(method.encode, params, batch.observation)
        num_steps = min(3, method.sample_steps)
        learnt = jax.jit(jax.grad(lambda p, b, k: method.loss(p, b, k)[0])).lower(params, batch, some_keys)
        acts = jax.jit(lambda p, c, k: method.sample(p, c, k, num_steps)).lower(params, context, some_keys)
        return f"{learnt.as_text()} {acts.as_text()} {method.sample_steps}"

    assert set(OTHERWISE) == {field.name for field in dataclasses.fields(MCMC)} - {"gradient"}
    usual = computation(EVERYTHING)
    other = dataclasses.replace(EVERYTHING, **OTHERWISE)
    unread = [name.removeprefix("mcmc.") for name in unread_mcmc(settings, other)]
    assert computation(dataclasses.replace(EVERYTHING, **{name: OTHERWISE[name] for name in unread})) == usual
    for name in OTHERWISE.keys() - set(unread):
        assert computation(dataclasses.replace(EVERYTHING, **{name: OTHERWISE[name]})) != usual, name


def test_settings_at_their_defaults_are_not_spoken_of() -> None:
    assert unread_mcmc({"name": "flow"}, MCMC(gradient="lean")) == []
    assert unread_mcmc({"name": "flow"}, MCMC(num_steps=4)) == ["mcmc.num_steps"]
    assert unread_mcmc({"name": "equilibrium"}, MCMC(num_steps=4, step_size=0.3, noise_start=0.1)) == ["mcmc.step_size", "mcmc.noise_start"]

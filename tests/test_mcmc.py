"""The descent against closed forms and finite differences, and its promise that rows never mix."""

import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.mcmc import GRADIENTS, MCMC, draw_num_steps, minimize_energy, minimize_energy_until
from ebt_jax.schedules import along_descent

SHAPE = (4, 3, 2)
fast_jit = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


def quadratic(center):
    return lambda actions: 0.5 * jnp.sum((actions - center) ** 2, axis=(1, 2))


def start(shape=SHAPE, seed=0):
    return jax.random.normal(jax.random.key(seed), shape)


def sample_keys(n, seed=0):
    return jax.vmap(lambda i: jax.random.fold_in(jax.random.key(seed), i))(jnp.arange(n))


def test_quadratic_energy_has_its_closed_form():
    """a_k = c + (1 - alpha)^k (a_0 - c)."""
    center, alpha = start(seed=1), 0.3
    actions, trace = minimize_energy(quadratic(center), start(), MCMC(num_steps=7, step_size=alpha))
    for k in range(8):
        np.testing.assert_allclose(trace.actions[k], center + (1 - alpha) ** k * (start() - center), atol=1e-6)
    np.testing.assert_allclose(actions, trace.actions[-1])
    np.testing.assert_allclose(trace.gradient_norm[0], np.linalg.norm((start() - center).reshape(4, -1), axis=1), rtol=1e-6)
    np.testing.assert_allclose(trace.energy[0], quadratic(center)(start()), rtol=1e-6)


def test_momentum_is_nesterov_on_a_quadratic():
    """v_{k+1} = mu v_k - alpha (a_k + mu v_k - c), a_{k+1} = a_k + v_{k+1}, iterated by hand in float64."""
    center, alpha, mu = start(seed=1), 0.2, 0.9
    actions, _ = minimize_energy(quadratic(center), start(), MCMC(num_steps=9, step_size=alpha, momentum=mu))
    a, v = np.asarray(start(), np.float64), np.zeros(SHAPE)
    for _ in range(9):
        v = mu * v - alpha * (a + mu * v - np.asarray(center, np.float64))
        a = a + v
    np.testing.assert_allclose(actions, a, atol=1e-5)


@pytest.mark.parametrize("mu", [0.0, 0.5, 0.9])
def test_a_quadratic_is_stable_up_to_the_curvature_that_the_docs_say(mu):
    """c alpha < (2 + 2 mu) / (1 + 2 mu): at 98 % of it the descent comes to rest, at 102 % it runs away."""
    limit = (2 + 2 * mu) / (1 + 2 * mu)
    for part, rests in ((0.98, True), (1.02, False)):
        settings = MCMC(num_steps=400, step_size=part * limit, momentum=mu)
        actions, _ = minimize_energy(quadratic(jnp.zeros(SHAPE)), start(), settings)
        ratio = float(jnp.linalg.norm(actions) / jnp.linalg.norm(start()))
        assert (ratio < 0.1) if rests else (ratio > 10)


def test_step_schedule_shrinks_the_steps():
    """On E = sum a, whose gradient is 1, each step moves by alpha_i exactly."""
    settings = MCMC(num_steps=4, step_size=1.0, step_schedule="linear", step_end=0.0001)
    _, trace = minimize_energy(lambda a: jnp.sum(a, axis=(1, 2)), start(), settings)
    moved = -np.diff(np.asarray(trace.actions), axis=0)[:, 0, 0, 0]
    np.testing.assert_allclose(moved, [1.0, 0.75, 0.5, 0.25], atol=1e-3)


def test_noise_has_the_scheduled_deviation_and_is_off_without_keys():
    """EBT-Policy's figures for N = 6: .2 .1867 .1505 .101 .0515 .0153."""
    shape = (512, 8, 8)
    flat = lambda a: jnp.zeros(len(a)) * jnp.sum(a)
    settings = MCMC(num_steps=6, noise_start=0.2, noise_end=0.002)
    _, trace = minimize_energy(flat, jnp.zeros(shape), settings, keys=sample_keys(512))
    deviations = np.std(np.diff(np.asarray(trace.actions), axis=0), axis=(1, 2, 3))
    np.testing.assert_allclose(deviations, [0.2, 0.1867, 0.1505, 0.101, 0.0515, 0.0153], rtol=0.02)
    plain, _ = minimize_energy(flat, jnp.zeros(shape), settings)
    np.testing.assert_array_equal(plain, 0.0)


@pytest.mark.parametrize(
    ("num_steps", "published"),
    [
        (6, [0.2, 0.1867, 0.1505, 0.101, 0.0515, 0.0153]),
        (10, [0.2, 0.1952, 0.1811, 0.1592, 0.1316, 0.101, 0.0704, 0.0428, 0.0209, 0.0068]),
    ],
)
def test_cosine_noise_takes_the_published_values(num_steps, published):
    """sigma_i = .002 + .198 (1 + cos(pi i / N)) / 2, as the authors' code computes it."""
    step = jnp.arange(num_steps)
    np.testing.assert_allclose(along_descent("cosine", 0.2, 0.002, step, jnp.full_like(step, num_steps)), published, atol=5e-5)


@pytest.mark.parametrize("action_norm", ["first", "every"])
def test_the_norm_divides_each_chunk_by_its_own_root_mean_square(action_norm):
    """On E = sum a each step moves by -alpha, from a chunk of RMS 1 where the norm applies; chunk 3 is 100 times larger."""
    a0 = start() * jnp.array([1.0, 1.0, 1.0, 100.0])[:, None, None]
    settings = MCMC(num_steps=3, step_size=0.3, action_norm=action_norm)
    _, trace = minimize_energy(lambda a: jnp.sum(a, axis=(1, 2)), a0, settings)
    expected = np.asarray(a0)
    for i in range(3):
        if i == 0 or action_norm == "every":
            expected = expected / np.sqrt(np.mean(expected**2, axis=(1, 2), keepdims=True))
        expected = expected - 0.3
        np.testing.assert_allclose(trace.actions[i + 1], expected, rtol=1e-5, atol=1e-6)


def test_energy_temperature_scales_each_step_by_exp_of_its_energy():
    """E = b + sum a has gradient 1: the first step is alpha exp(E) / T, exp(3) / T where E is far above, exp(-3) / T far below."""
    energies = np.array([-100.0, -0.5, 1.0, 100.0])
    a0 = jnp.zeros(SHAPE)
    settings = MCMC(num_steps=1, step_size=0.3, energy_temperature=9.0)
    actions, _ = minimize_energy(lambda a: jnp.asarray(energies, jnp.float32) + jnp.sum(a, axis=(1, 2)), a0, settings)
    np.testing.assert_allclose(-actions[:, 0, 0], 0.3 * np.exp(np.clip(energies, -3, 3)) / 9, rtol=1e-5)


def test_jitter_stays_in_its_range_and_differs_by_sample_and_step():
    settings = MCMC(num_steps=8, step_size=1.0, step_size_jitter=1.5)
    _, trace = minimize_energy(lambda a: jnp.sum(a, axis=(1, 2)), jnp.zeros((64, 1, 1)), settings, keys=sample_keys(64))
    factors = -np.diff(np.asarray(trace.actions), axis=0)[..., 0, 0]
    assert factors.min() >= 1 / 1.5 - 1e-5
    assert factors.max() <= 1.5 + 1e-5
    assert len(np.unique(factors.round(6))) > 500


def test_a_stopped_sample_equals_a_shorter_chain():
    center = start((5, 3, 2), 1)
    settings = MCMC(num_steps=6, step_size=0.3, momentum=0.5)
    stop_after = jnp.array([1, 2, 3, 4, 6])
    _, trace = minimize_energy(quadratic(center), start((5, 3, 2)), settings, stop_after=stop_after)
    for row, steps in enumerate([1, 2, 3, 4, 6]):
        short, _ = minimize_energy(quadratic(center), start((5, 3, 2)), settings, num_steps=steps)
        np.testing.assert_array_equal(trace.actions[-1, row], short[row])
        assert np.isnan(trace.energy[steps:, row]).all()
        assert np.isfinite(trace.energy[:steps, row]).all()


def test_random_number_of_steps_is_uniform():
    counts = np.bincount(draw_num_steps(MCMC(num_steps=6, extra_steps=4), sample_keys(5000)), minlength=11)
    assert counts[:6].sum() == 0
    np.testing.assert_allclose(counts[6:], 1000, rtol=0.12)


def coupled(params, actions):
    """A smooth energy with curvature in parameters and actions alike."""
    return jnp.sum(jnp.tanh(actions @ params["w"]) ** 2 + jnp.sin(actions @ params["u"]), axis=(1, 2))


EVERYTHING = {"momentum": 0.9, "action_norm": "every", "energy_temperature": 9.0}


@pytest.mark.parametrize("options", [{}, {"momentum": 0.9}, EVERYTHING, {**EVERYTHING, "gradient": "lean"}])
def test_gradient_through_the_unrolled_chain_matches_finite_differences(options):
    """d loss / d params through K = 4 attached steps, float64, central differences: 1e-7."""
    with jax.enable_x64(True):
        settings = MCMC(**{"num_steps": 4, "step_size": 0.2, "stop_gradient": False, "stop_gradient_velocity": False, **options})
        a0 = jax.random.normal(jax.random.key(0), SHAPE, jnp.float64)
        keys = jax.random.split(jax.random.key(1), 2)
        params = {n: jax.random.normal(k, (2, 5), jnp.float64) for n, k in zip("wu", keys, strict=True)}

        @jax.jit
        def loss(params):
            actions, _ = minimize_energy(functools.partial(coupled, params), a0, settings)
            return jnp.mean(actions**2)

        gradient = jax.grad(loss)(params)
        for name in params:
            for index in [(0, 0), (1, 3)]:
                shift = jnp.zeros((2, 5)).at[index].set(2e-6)
                up, down = loss({**params, name: params[name] + shift}), loss({**params, name: params[name] - shift})
                np.testing.assert_allclose(gradient[name][index], (up - down) / 4e-6, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(("stop_gradient", "loss_steps"), [(False, "every"), (True, "last")])
def test_every_way_to_differentiate_the_descent_gives_the_same(stop_gradient, loss_steps):
    """In parameters, an observation with a mask, and the step size; with momentum, norm, temperature and samples that stop.

    float64, to 1e-10: this chain amplifies rounding, and float32 would hide a missing term behind it.
    """
    options = {**EVERYTHING, "noise_start": 0.1 if loss_steps == "every" else 0.0, "stop_gradient": stop_gradient}

    def energy(params, observation, actions):
        hidden = jnp.tanh(actions @ params["w"] + observation["shift"]) ** 2 + jnp.sin(actions @ params["u"])
        return jnp.sum(jnp.where(observation["mask"][:, :, None], hidden, 0.0), axis=(1, 2))

    def loss(settings, params, shift, step_size):
        energy_fn = functools.partial(energy, params, {"shift": shift, "mask": jnp.array([[True, True, False]] * 4)})
        stop_after = jnp.array([4, 3, 4, 2])
        _, trace = minimize_energy(energy_fn, start(), settings, step_size=step_size, keys=sample_keys(4), stop_after=stop_after)
        path = trace.actions[1:] if loss_steps == "every" else trace.actions[-1]
        return jnp.mean(path**2) + 0.1 * jnp.nanmean(trace.energy)

    with jax.enable_x64(True):
        arguments = {n: start((2, 5), i) for i, n in enumerate("wu")}, start((4, 1, 5), 7), jnp.float64(0.2)
        gradients = {}
        for gradient in GRADIENTS:
            settings = MCMC(num_steps=4, gradient=gradient, stop_gradient_velocity=stop_gradient, **options)
            gradients[gradient] = fast_jit(jax.value_and_grad(functools.partial(loss, settings), argnums=(0, 1, 2)))(*arguments)
        for gradient in ("recomputed", "lean"):
            for found, leaf in zip(jax.tree.leaves(gradients[gradient]), jax.tree.leaves(gradients["saved"]), strict=True):
                assert jnp.linalg.norm(found - leaf) <= 1e-10 * jnp.linalg.norm(leaf)


def test_what_the_energy_closes_over_is_never_silently_constant():
    """A lean descent differentiates what a partial holds; a closure descends as well, and refuses to be differentiated in its cells."""
    params, settings = {n: start((2, 5), i) for i, n in enumerate("wu")}, MCMC(num_steps=2, gradient="lean")
    loss = lambda params: jnp.sum(minimize_energy(lambda a: coupled(params, a), start(), settings)[0])
    expected = jnp.sum(minimize_energy(functools.partial(coupled, params), start(), settings)[0])
    np.testing.assert_allclose(jax.jit(loss)(params), expected, rtol=1e-6)
    for differentiate in (jax.grad(loss), jax.jit(jax.grad(loss))):
        with pytest.raises(Exception, match="closed-over value"):
            differentiate(params)


def test_stop_gradient_makes_each_step_learn_alone():
    """With stop_gradient the gradient of the last chunk is that of one step from the second-last chunk held fixed."""
    settings = MCMC(num_steps=3, step_size=0.2)
    params = {n: start((2, 5), i) for i, n in enumerate("wu")}
    energy = lambda params: lambda a: coupled(params, a)
    _, trace = minimize_energy(energy(params), start(), settings)
    one = MCMC(num_steps=1, step_size=0.2)
    through = jax.grad(lambda p: jnp.sum(minimize_energy(energy(p), start(), settings)[0] ** 2))(params)
    alone = jax.grad(lambda p: jnp.sum(minimize_energy(energy(p), trace.actions[-2], one)[0] ** 2))(params)
    chex.assert_trees_all_close(through, alone, rtol=1e-5)


@pytest.mark.parametrize("num_steps", [1, 2, 16])
def test_energy_is_traced_once_whatever_the_number_of_steps(num_steps):
    traces = []

    def energy(actions):
        traces.append(1)
        return jnp.sum(actions**2, axis=(1, 2))

    jax.jit(lambda a: minimize_energy(energy, a, MCMC(), num_steps=num_steps)[0])(start())
    assert len(traces) == 1


@pytest.mark.parametrize("options", [{}, {"action_norm": "every", "energy_temperature": 1.0}])
def test_rows_are_the_same_alone_in_a_batch_and_sharded(options):
    """Chunks of a chain with noise, jitter and norm: equal to 1e-5 alone, in 64, padded, and over 8 devices."""
    center = start((64, 3, 2), 1)
    settings = MCMC(num_steps=5, step_size=0.2, momentum=0.5, noise_start=0.1, step_size_jitter=1.5, **options)
    run = jax.jit(lambda c, a, keys: minimize_energy(quadratic(c), a, settings, keys=keys)[0])
    together = run(center, start((64, 3, 2)), sample_keys(64))
    for row in (0, 17, 63):
        one = slice(row, row + 1)
        np.testing.assert_allclose(run(center[one], start((64, 3, 2))[one], sample_keys(64)[one])[0], together[row], atol=1e-5)
    padded = run(center.at[40:].set(1e3), start((64, 3, 2)).at[40:].set(-1e3), sample_keys(64))
    np.testing.assert_array_equal(padded[:40], together[:40])
    sharding = jax.NamedSharding(jax.make_mesh((8,), ("data",), axis_types=(jax.sharding.AxisType.Auto,)), jax.P("data"))
    sharded = run(*jax.device_put((center, start((64, 3, 2)), sample_keys(64)), sharding))
    np.testing.assert_allclose(sharded, together, atol=1e-5)


def test_until_stops_each_sample_by_its_own_gradient():
    """On a quadratic |g_k| = (1 - alpha)^k |g_0|: the count follows from logarithms; neighbours change nothing."""
    scale = jnp.array([1e-4, 1.0, 10.0, 1000.0])[:, None, None]
    a0 = scale * jnp.ones((4, 2, 2)) / 2  # gradient norms 1e-4, 1, 10, 1000
    settings = MCMC(step_size=0.5)
    zero = quadratic(jnp.zeros((1, 1, 1)))
    actions, trace = minimize_energy_until(zero, a0, settings, tolerance=1e-3, max_steps=30)
    np.testing.assert_array_equal(trace.num_steps, [0, 10, 14, 20])
    np.testing.assert_array_equal(actions[0], a0[0])
    for row in range(4):
        alone, alone_trace = minimize_energy_until(zero, a0[row : row + 1], settings, tolerance=1e-3, max_steps=30)
        np.testing.assert_array_equal(alone[0], actions[row])
        assert alone_trace.num_steps[0] == trace.num_steps[row]
        np.testing.assert_array_equal(
            trace.actions[trace.num_steps[row] :, row], jnp.broadcast_to(actions[row], (31 - trace.num_steps[row], 2, 2))
        )


def test_the_published_rule_takes_the_step_that_is_small_and_one_more():
    """On a quadratic |g_k| = |g_0| / 2^k: two steps past the first k with |g_k| < tolerance are the count, up to the cap."""
    a0 = jnp.array([1e-4, 1.0, 10.0, 1000.0])[:, None, None] * jnp.ones((4, 2, 2)) / 2
    zero = quadratic(jnp.zeros((1, 1, 1)))
    run = lambda max_steps: minimize_energy_until(zero, a0, MCMC(step_size=0.5), tolerance=1e-3, max_steps=max_steps, final_step=True)
    actions, trace = run(30)
    np.testing.assert_array_equal(trace.num_steps, [2, 12, 16, 22])
    np.testing.assert_allclose(actions, a0 * 0.5 ** trace.num_steps[:, None, None], rtol=1e-5)
    assert np.isfinite(trace.energy[:2, 0]).all()
    assert np.isnan(trace.energy[2:, 0]).all()
    for cap in (1, 2):
        np.testing.assert_array_equal(run(cap)[1].num_steps, cap)


def test_until_takes_the_same_steps_as_the_scan():
    center = start(seed=1)
    settings = MCMC(step_size=0.3, momentum=0.5)
    looped, trace = minimize_energy_until(quadratic(center), start(), settings, tolerance=0.0, max_steps=6)
    scanned, scan_trace = minimize_energy(quadratic(center), start(), settings, num_steps=6)
    np.testing.assert_allclose(looped, scanned, atol=1e-6)
    np.testing.assert_allclose(trace.energy, scan_trace.energy, rtol=1e-5)
    np.testing.assert_array_equal(trace.num_steps, 6)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_steps", 0),
        ("step_size", 0.0),
        ("step_end", 0.5),
        ("momentum", 1.0),
        ("step_size_jitter", 0.5),
        ("noise_schedule", "sawtooth"),
        ("action_norm", "batch"),
        ("energy_temperature", -1.0),
        ("min_gradient", -1.0),
        ("extra_steps", -1),
        ("gradient", "cheap"),
    ],
)
def test_bad_settings_are_named(field, value):
    with pytest.raises(ValueError, match=f"mcmc.{field} must .*{value}"):
        MCMC(**{field: value})

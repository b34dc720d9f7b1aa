"""The descent beside its PyTorch transcription, on an energy of a few numbers."""

import pytest

torch = pytest.importorskip("torch")

import jax
import jax.numpy as jnp
import numpy as np
import published

from ebt_jax.mcmc import MCMC, minimize_energy
from ebt_jax.schedules import along_descent

pytestmark = pytest.mark.parity

SETTINGS = {
    "paper": MCMC(num_steps=6, step_size=0.4, step_size_jitter=1.5, momentum=0.9, noise_start=0.2, noise_end=0.002,
                  action_norm="every", energy_temperature=1.0, stop_gradient_velocity=False),
    "later": MCMC(num_steps=6, step_size=2.0, step_size_jitter=1.5, momentum=0.9, noise_start=0.2, noise_end=0.002,
                  action_norm="every", energy_temperature=9.0),
}  # fmt: skip


def draws(settings, keys, shape, dtype):
    """The noise and the jitter that our chain draws from `keys`, as numbers."""
    noise, jitter = [], []
    for i in range(settings.num_steps):
        pairs = jax.vmap(lambda key: jax.random.split(jax.random.fold_in(key, i)))(keys)
        sigma = along_descent("cosine", settings.noise_start, settings.noise_end, jnp.array(i), jnp.array(settings.num_steps))
        noise.append(sigma * jax.vmap(lambda key: jax.random.normal(key, shape, dtype))(pairs[:, 0]))
        scale = settings.step_size_jitter
        jitter.append(jax.vmap(lambda key: jax.random.uniform(key, minval=1 / scale, maxval=scale))(pairs[:, 1]))
    return np.stack(noise), np.stack(jitter)


@pytest.mark.parametrize("name", SETTINGS)
def test_the_chain_and_its_gradient_are_the_published_ones(name):
    """Chunks, energies, d loss / d parameters of the loss at every step, float64: 1e-10."""
    settings, shape = SETTINGS[name], (4, 3)
    with jax.enable_x64(True):
        random = np.random.default_rng(0)
        w, start, target = random.normal(size=(3, 5)), random.normal(size=(7, *shape)), random.normal(size=(7, *shape))
        keys = jax.random.split(jax.random.key(0), 7)
        noise, jitter = draws(settings, keys, shape, jnp.float64)

        def loss(w):
            energy = lambda a: jnp.mean(jnp.tanh(a @ w) ** 2 + jnp.sin(a @ w), axis=(1, 2))
            _, trace = minimize_energy(energy, jnp.asarray(start), settings, keys=keys)
            return jnp.mean((trace.actions[1:] - target[None]) ** 2), trace

        (value, trace), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(jnp.asarray(w))

    weight = torch.tensor(w, requires_grad=True)
    path, energies = published.chain(
        lambda a: (torch.tanh(a @ weight) ** 2 + torch.sin(a @ weight)).mean((1, 2)),
        torch.tensor(start), torch.tensor(noise), torch.tensor(jitter, dtype=torch.float64),
        step_size=settings.step_size, momentum=0.9, temperature=settings.energy_temperature,
        detach_velocity=settings.stop_gradient_velocity,
    )  # fmt: skip
    expected = torch.stack([((a - torch.tensor(target)) ** 2).mean() for a in path]).mean()
    expected.backward()
    np.testing.assert_allclose(trace.actions[1:], torch.stack(path).detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(trace.energy, torch.stack(energies).detach().numpy(), rtol=1e-10, atol=1e-12)
    np.testing.assert_allclose(value, expected.item(), rtol=1e-10)
    np.testing.assert_allclose(gradient, weight.grad.numpy(), rtol=1e-10, atol=1e-12)

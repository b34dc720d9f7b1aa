"""Specs of any make, and batches that fit them."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.models import make_energy_model, model_variant
from ebt_jax.specs import ActionDimension, ActionSpec, CameraSpec, Dimension, LanguageSpec, ObservationSpec, Specs
from ebt_jax.types import Batch, Observation

LANGUAGES = {"none": LanguageSpec(), "embedding": LanguageSpec("embedding", 3, 10), "tokens": LanguageSpec("tokens", 4, 50)}


def _specs(cameras=(), language="none", proprio=3, horizon=2, size=32, action_horizon=6):
    return Specs(
        ObservationSpec(
            tuple(CameraSpec(name, size, size) for name in cameras),
            tuple(Dimension(f"joint_{i}", "rad") for i in range(proprio)),
            LANGUAGES[language],
            horizon,
        ),
        ActionSpec(tuple(ActionDimension(f"x_{i}", "eef_delta", "m") for i in range(2)), "base", action_horizon, 10.0),
    )


def _batch(specs, batch_size, seed=0):
    draw = np.random.default_rng(seed)
    o, b, t = specs.observation, batch_size, specs.observation.horizon
    length, size = o.language.length, o.language.size
    if o.language.kind == "tokens":
        language = draw.integers(0, size, (b, length), dtype=np.int32)
    else:
        language = draw.normal(size=(b, length, size)).astype(np.float32)
    observation = Observation(
        images={c.name: draw.integers(0, 256, (b, t, c.height, c.width, 3), dtype=np.uint8) for c in o.cameras},
        image_masks={c.name: np.ones((b, t), bool) for c in o.cameras},
        proprio=draw.normal(size=(b, t, len(o.proprio))).astype(np.float32),
        language=language,
        language_mask=np.ones((b, length), bool),
        timestep_mask=np.ones((b, t), bool),
    )
    shape = (b, specs.action.horizon, len(specs.action.dimensions))
    return jax.tree.map(jnp.asarray, Batch(observation, draw.uniform(-1, 1, shape).astype(np.float32), np.ones(shape, bool)))


@pytest.fixture(scope="session")
def make_specs():
    """(cameras, language, proprio, horizon, size, action_horizon) -> Specs."""
    return _specs


@pytest.fixture(scope="session")
def make_batch():
    """(specs, batch_size, seed) -> Batch of random numbers, everything valid."""
    return _batch


def _random_params(model, batch, seed=0):
    """Parameters off every special value (zero biases, unit scales), and without compiling an initialisation."""
    draw = np.random.default_rng(seed)

    def leaf(path, shape):
        center = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(center + draw.normal(scale=0.2, size=shape.shape), shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, jax.eval_shape(model.init, jax.random.key(0), batch))


@pytest.fixture(scope="session")
def jit():
    """jax.jit for programs that run once or twice: compiles in half the time, into slower code."""
    return functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})


@pytest.fixture(scope="session")
def random_params():
    """(model, batch, seed) -> Params."""
    return _random_params


@pytest.fixture(scope="session")
def full():
    """Specs with everything, a batch of 4, a network of little width that compiles fast, and its parameters."""
    specs = _specs(("primary", "wrist"), "embedding")
    config = model_variant("debug", width=16, vision="vit", vision_layers=1, unroll=1)
    model, batch = make_energy_model(config, specs), _batch(specs, 4)
    return specs, batch, model, _random_params(model, batch)


@pytest.fixture(scope="session")
def energy(full, jit):
    """(params, batch) -> [b], the whole of `full`'s network."""
    model = full[2]
    return jit(lambda params, batch: model.energy(params, model.encode(params, batch.observation), batch.actions))

"""The vector head: the energy's trunk, a clock that is shut at first, rows apart."""

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.models import make_energy_model, make_model, make_vector_model, model_variant, num_parameters

CONFIG = model_variant("debug", width=16, decoder_layers=2, actions_per_token=4, unroll=1)


@pytest.fixture(scope="module", params=[True, False], ids=["timed", "untimed"])
def vector(request, make_specs, make_batch, random_params, jit):
    """A model, a batch of 4, random parameters, and (params, batch, time) -> [b h a] of the whole network."""
    specs = make_specs(action_horizon=6)
    model, batch = make_vector_model(CONFIG, specs, timed=request.param), make_batch(specs, 4)
    predict = jit(lambda p, batch, time: model.predict(p, model.encode(p, batch.observation), batch.actions, time))
    return model, batch, random_params(model, batch), predict, jnp.linspace(0, 1, 4) if request.param else None


def test_it_starts_at_zero_and_gives_a_chunk(vector, jit):
    model, batch, params, predict, time = vector
    start = jit(model.init)(jax.random.key(0), batch)
    np.testing.assert_array_equal(predict(start, batch, time), np.zeros(batch.actions.shape, np.float32))
    assert predict(params, batch, time).shape == batch.actions.shape  # 6 actions in tokens of 4


def test_rows_stay_apart(vector):
    _, batch, params, predict, time = vector
    together = predict(params, batch, time)
    alone = predict(params, jax.tree.map(lambda x: x[2:3], batch), None if time is None else time[2:3])
    np.testing.assert_allclose(alone[0], together[2], atol=1e-5)
    spoiled = jax.tree.map(lambda x: x.at[3].set(7) if x.dtype == jnp.float32 else x, batch)
    np.testing.assert_array_equal(predict(params, spoiled, time)[:3], together[:3])


def test_only_a_timed_model_reads_the_clock(vector):
    _, batch, params, predict, time = vector
    if time is None:
        with pytest.raises(ValueError, match="time must be None for a model made with timed=False"):
            predict(params, batch, jnp.zeros(4))
        return
    assert np.abs(predict(params, batch, time) - predict(params, batch, 0 * time))[1:].min(axis=0).max() > 1e-3
    with pytest.raises(ValueError, match="time must be given to a model made with timed=True"):
        predict(params, batch, None)


def test_gates_are_shut_at_first(make_specs, make_batch, jit):
    """AdaLN-zero: whatever the observation, untrained decoder blocks pass the action tokens on as they are."""
    specs = make_specs()
    model, batch = make_vector_model(CONFIG, specs, timed=True), make_batch(specs, 2)
    params = jit(model.init)(jax.random.key(0), batch)
    params["head"]["kernel"] = jnp.ones_like(params["head"]["kernel"])
    predict = jit(lambda batch, time: model.predict(params, model.encode(params, batch.observation), batch.actions, time))
    other = batch._replace(observation=make_batch(specs, 2, seed=1).observation)
    np.testing.assert_array_equal(predict(batch, jnp.zeros(2)), predict(other, jnp.ones(2)))


def test_heads_share_the_trunk(make_specs, make_batch):
    """An untimed vector model has the energy's parameters but for the head's own; a clock adds its modulation."""
    specs = make_specs()
    batch = jax.eval_shape(lambda: make_batch(specs, 1))
    energy, vector, timed = (
        jax.eval_shape(make_model(CONFIG, specs, head).init, jax.random.key(0), batch) for head in ("energy", "vector", "timed_vector")
    )
    chex.assert_trees_all_equal_shapes(*({k: v for k, v in tree.items() if k != "head"} for tree in (energy, vector)))
    assert set(timed) - set(vector) == {"time", "time_hidden"}
    extra = num_parameters(timed) - num_parameters(vector)
    assert extra == 2 * (16 * 16 + 16) + 2 * (9 * 16 * 16 + 9 * 16)
    with pytest.raises(ValueError, match="head must be one of .*'timed_vector'.*, got 'scalar'"):
        make_model(CONFIG, specs, "scalar")
    assert make_energy_model(CONFIG, specs).action_shape == make_model(CONFIG, specs, "vector").action_shape

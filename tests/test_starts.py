"""Several starts of one observation draw from keys of their own."""

import jax
import numpy as np

from ebt_jax.starts import start_keys


def test_no_start_draws_what_another_or_its_sampler_draws():
    """A sampler splits its key, into two or into one a step, and `split(key)[i]` may be `fold_in(key, i)`."""
    keys = jax.random.split(jax.random.key(0), 3)
    starts = start_keys(keys, 4)
    inner = jax.vmap(lambda key: jax.random.split(key, 8))(starts).reshape(-1)
    data = np.concatenate([jax.random.key_data(starts), jax.random.key_data(inner)])
    assert len(np.unique(data, axis=0)) == len(data) == 3 * 4 * 9
    np.testing.assert_array_equal(jax.random.key_data(starts[::4]), jax.random.key_data(keys))  # the first is the answer without starts

"""A number for each array, the same wherever its parts lie: whether what is read back is what was saved.

    digest(x) = sum_i mix(x_i XOR mix(i))   modulo 2^32

over the array's words x_i (as bits, up to 32 each) and their places i; `mix` is the finaliser of MurmurHash3 (Austin Appleby, public
domain), a bijection. A change of one word is always seen, any other with all but one in 2^32. Sums of integers do not depend on
their order, so every device sums its own part and they exchange one number. An array costs one pass over its bytes, on the device.
Against accidents only: whoever wants another array with the same digest can make one.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, PyTree, UInt32

from ebt_jax.tree import named_leaves

SMALL = 2**16
"""Arrays with fewer entries are summed on the host: there a device would spend its time on compiling a program for each shape."""


def digests(tree: PyTree) -> dict[str, str]:
    """Path of every leaf -> its digest, eight hexadecimal digits. Arrays may lie on devices of several processes: all must call."""
    sums = {name: _on_host(leaf) if _is_small(leaf) else _on_devices(leaf) for name, leaf in named_leaves(tree).items()}
    return {name: f"{int(value):08x}" for name, value in jax.device_get(sums).items()}


def changed(found: Mapping[str, str], saved: Mapping[str, str]) -> list[str]:
    """The paths in which two results of `digests` differ, ascending."""
    return sorted(name for name in {*found, *saved} if found.get(name) != saved.get(name))


def _is_small(leaf: Any) -> bool:
    whole = not isinstance(leaf, jax.Array) or leaf.is_fully_addressable or leaf.is_fully_replicated
    return whole and np.size(leaf) < SMALL


def _on_host(leaf: Any) -> int:
    flat = np.ascontiguousarray(leaf).reshape(-1)
    words = flat.view(f"uint{8 * min(flat.itemsize, 4)}").astype(np.uint32)
    return int(np.sum(_mix(words ^ _mix(np.arange(len(words), dtype=np.uint32))), dtype=np.uint32))


@jax.jit
def _on_devices(leaf: Array) -> UInt32[Array, ""]:
    words = _words(leaf)
    place = jnp.zeros(words.shape, jnp.uint32)
    for axis, size in enumerate(words.shape):  # counted along each axis: a reshape would move the parts of a sharded array
        place = place * jnp.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, words.shape, axis)
    return jnp.sum(_mix(words ^ _mix(place)), dtype=jnp.uint32)


def _words(leaf: Array) -> UInt32[Array, "..."]:
    """The bits of every entry, in one word, or in two along a new last axis where it has 64."""
    if leaf.dtype == jnp.bool_:
        return leaf.astype(jnp.uint32)
    bits = jax.lax.bitcast_convert_type(leaf, jnp.dtype(f"uint{8 * min(leaf.dtype.itemsize, 4)}"))
    return bits.astype(jnp.uint32)


def _mix(x: Any) -> Any:
    """Of uint32 arrays, jax's or numpy's."""
    x = (x ^ (x >> 16)) * np.uint32(0x85EBCA6B)
    x = (x ^ (x >> 13)) * np.uint32(0xC2B2AE35)
    return x ^ (x >> 16)

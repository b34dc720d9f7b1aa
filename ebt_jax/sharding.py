"""Where arrays live: axes `data` (replicas) and `fsdp` (shards of parameters and optimiser state) over any number of devices."""

import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

AXES = ("data", "fsdp")
BATCH = PartitionSpec(AXES)
"""Batches are split over every device, whatever the axes' sizes."""

SMALLEST_SHARDED = 2**14
"""Arrays with fewer entries stay whole on every device: gathering them costs more than keeping them."""


def make_mesh(data: int = -1, fsdp: int = 1, devices: Sequence[Any] | None = None) -> Mesh:
    """A `data` x `fsdp` mesh; -1 takes what is left. Raises ValueError where the sizes do not multiply to the devices."""
    devices = jax.devices() if devices is None else list(devices)
    sizes = {"mesh.data": data, "mesh.fsdp": fsdp}
    for name, size in sizes.items():
        if size < 1 and size != -1:
            raise ValueError(f"{name} must be positive, or -1 for what is left, got {size}.")
    if data == fsdp == -1:
        raise ValueError("one of mesh.data and mesh.fsdp at most must be -1, got both.")
    known = math.prod(size for size in sizes.values() if size > 0)
    data, fsdp = (len(devices) // known if size == -1 else size for size in (data, fsdp))
    if data * fsdp != len(devices):
        raise ValueError(f"mesh.data x mesh.fsdp must equal the number of devices, {len(devices)}, got {data} x {fsdp}.")
    return Mesh(np.array(devices).reshape(data, fsdp), AXES, axis_types=(AxisType.Auto,) * 2)


def sharded_axis(shape: tuple[int, ...], fsdp: int) -> int | None:
    """The axis of an array that `fsdp` devices share: its largest divisible one, or None to keep it whole."""
    if fsdp == 1 or math.prod(shape) < SMALLEST_SHARDED:
        return None
    divisible = [axis for axis, size in enumerate(shape) if size % fsdp == 0]
    return max(divisible, key=lambda axis: shape[axis], default=None)


def partition_spec(shape: tuple[int, ...], fsdp: int) -> PartitionSpec:
    """`sharded_axis` as a PartitionSpec."""
    axis = sharded_axis(shape, fsdp)
    return PartitionSpec() if axis is None else PartitionSpec(*(None,) * axis, "fsdp")


def partition_specs(tree: PyTree, mesh: Mesh) -> PyTree:
    """The rule of `partition_spec` for every leaf: parameters, their gradients and moments alike, by shape alone."""
    return jax.tree.map(lambda leaf: partition_spec(leaf.shape, mesh.shape["fsdp"]), tree)


def shardings(tree: PyTree, mesh: Mesh) -> PyTree:
    """`partition_specs` bound to the mesh."""
    return jax.tree.map(lambda leaf: NamedSharding(mesh, partition_spec(leaf.shape, mesh.shape["fsdp"])), tree)


def batch_shapes(one: PyTree, batch_size: int, mesh: Mesh) -> PyTree:
    """What `to_devices` will give for batches of `batch_size`, as shapes, from any batch of theirs: for compiling ahead."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch_size, *leaf.shape[1:]), leaf.dtype, sharding=sharding), one)


def abstract(tree: PyTree, mesh: Mesh) -> PyTree:
    """The shapes of a tree, each with its place on the mesh: for compiling ahead, and for restoring on other devices than saved."""
    return jax.tree.map(lambda leaf, place: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree, shardings(tree, mesh))


def to_devices(tree: PyTree, mesh: Mesh) -> PyTree:
    """Host arrays holding this process's rows of a global batch -> arrays split over every device of every process."""
    sharding = NamedSharding(mesh, BATCH)
    return jax.tree.map(lambda rows: jax.make_array_from_process_local_data(sharding, rows), tree)

"""Low-rank adapters (Hu et al. 2021) as a reparameterisation of any method: theta = base + scale A B, put together before use.

    params = {"base": the method's own, "lora": {module: {"kernel": {"a": [l i r], "b": [l r o]}}}}

The network never sees them: every function of the method gets the sum, once a call and outside the descent, so that derivatives of
any order are those of a plain network, and what is evaluated or exported is one. B starts at 0, and with it the change.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key

from ebt_jax.models.transfer import layers_and_matrix
from ebt_jax.training.freeze import matching
from ebt_jax.tree import leaf_name, named_leaves
from ebt_jax.types import AnyArray, Batch, Method, Params

BASE_PREFIX = "base/"
"""Before the names of the method's own parameters."""


def adapted_matrices(params: Params, patterns: Sequence[str]) -> dict[str, tuple[int, int, int]]:
    """Name -> (layers, inputs, outputs) of every matrix of a network that a pattern of `optimizer.lora` matches.

    Raises ValueError for a pattern that matches no matrix.
    """
    shapes = {name: layers_and_matrix(name, leaf.shape) for name, leaf in named_leaves(params).items()}
    matrices = {name: shape for name, shape in shapes.items() if shape is not None}
    found = matching("optimizer.lora", patterns, list(matrices))
    return {name: shape for name, shape in matrices.items() if name in found}


def with_adapters(method: Method, patterns: Sequence[str], rank: int, scale: float) -> Method:
    """The method over {"base", "lora"}; at initialisation it computes what it computed without."""

    def init(key: Key[Array, ""], batch: Batch) -> Params:
        base = method.init(key, batch)
        matrices = adapted_matrices(base, patterns)
        keys = jax.random.split(jax.random.fold_in(key, rank), len(matrices))
        tree: dict[str, Any] = {}
        for adapter_key, (name, (layers, inputs, outputs)) in zip(keys, matrices.items(), strict=True):
            dtype = named_leaves(base)[name].dtype
            node = tree
            for part in name.split("/"):
                node = node.setdefault(part, {})
            node["a"] = jax.random.normal(adapter_key, (layers, inputs, rank), dtype) * inputs**-0.5
            node["b"] = jnp.zeros((layers, rank, outputs), dtype)
        return {"base": base, "lora": tree}

    energy = method.energy
    return method._replace(
        init=init,
        loss=lambda params, *arguments: method.loss(merge(params, scale), *arguments),
        sample=lambda params, *arguments: method.sample(merge(params, scale), *arguments),
        encode=lambda params, observation: method.encode(merge(params, scale), observation),
        energy=None if energy is None else lambda params, *arguments: energy(merge(params, scale), *arguments),
    )


def merge(params: Params, scale: float) -> Params:
    """base + scale A B: plain parameters of the method without adapters."""
    factors = named_leaves(params["lora"])

    def add(path: tuple[Any, ...], leaf: Float[AnyArray, "..."]) -> Float[AnyArray, "..."]:
        name = leaf_name(path)
        if f"{name}/a" not in factors:
            return leaf
        product = jnp.einsum("lir,lro->lio", factors[f"{name}/a"], factors[f"{name}/b"], precision="highest")
        return leaf + scale * product.reshape(leaf.shape)

    return jax.tree_util.tree_map_with_path(add, params["base"])


def frozen_beside_adapters(params: Mapping[str, Params], patterns: Sequence[str], freeze: Sequence[str]) -> set[str]:
    """Names in {"base", "lora"} that do not train: matrices with an adapter, and what `freeze` matches in the network."""
    names = list(named_leaves(params["base"]))
    held = set(adapted_matrices(params["base"], patterns)) | matching("optimizer.freeze", freeze, names)
    return {BASE_PREFIX + name for name in held}

"""A `Method` as programs that `jax.export` has lowered, and programs as a `Method`.

Programs take and give plain tuples and dicts: parameters by name, the context as its leaves, keys as their numbers.
"""

import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax import export
from jaxtyping import Array, Float, PyTree

from ebt_jax.mcmc import MCMC
from ebt_jax.methods.descent import Steered
from ebt_jax.policy import Policy, empty_batch
from ebt_jax.specs import Specs
from ebt_jax.types import Context, Descent, EnergyFn, EnergyModel, Keys, Method, Observation, Params, Sample

_LOG = logging.getLogger(__name__)
"""The standard library's: a worker need not have absl."""


def lower(policy: Policy, platforms: tuple[str, ...], steps: Sequence[int]) -> dict[str, export.Exported]:
    """name -> program, for any batch size."""
    method, (batch,) = policy.method, export.symbolic_shape("b")
    example = empty_batch(policy.specs)
    params_tree = jax.tree.structure(policy.params)
    params = {name: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype) for name, leaf in flat(policy.params).items()}
    names = list(paths(policy.params))
    context = jax.eval_shape(method.encode, policy.params, example.observation)
    context_tree = jax.tree.structure(context)

    def of_any_batch(tree: PyTree) -> PyTree:
        return jax.tree.map(lambda leaf: jax.ShapeDtypeStruct((batch, *leaf.shape[1:]), leaf.dtype), tree)

    def whole(params: Mapping[str, Array]) -> Params:
        return jax.tree.unflatten(params_tree, [params[name] for name in names])

    observation = of_any_batch(plain(example.observation))
    leaves = of_any_batch(tuple(jax.tree.leaves(context)))
    chunk = of_any_batch(jax.ShapeDtypeStruct(example.actions.shape, jnp.float32))
    mask = of_any_batch(jax.ShapeDtypeStruct(example.actions.shape, jnp.bool_))
    key = jax.ShapeDtypeStruct((batch, *jax.random.key_data(jax.random.key(0)).shape), jnp.uint32)
    cap, number = jax.ShapeDtypeStruct((), jnp.int32), jax.ShapeDtypeStruct((), jnp.float32)

    found: dict[str, export.Exported] = {}

    def add(name: str, function: Callable[..., Any], *arguments: Any) -> None:
        _LOG.info("lowering %s for %s", name, ", ".join(platforms))
        found[name] = export.export(jax.jit(function), platforms=platforms)(params, *arguments)

    def encode(params: Mapping[str, Array], observation: dict[str, Any]) -> tuple[Array, ...]:
        return tuple(jax.tree.leaves(method.encode(whole(params), Observation(**observation))))

    def sample(num_steps: int) -> Callable[..., tuple[Array, ...]]:
        def steps(params: Mapping[str, Array], leaves: tuple[Array, ...], key: Array) -> tuple[Array, ...]:
            context = jax.tree.unflatten(context_tree, leaves)
            return tuple(method.sample(whole(params), context, jax.random.wrap_key_data(key), num_steps))

        return steps

    add("encode", encode, observation)
    for num_steps in steps:
        add(f"sample_{num_steps}", sample(num_steps), leaves, key)
    energy, minimize = method.energy, method.minimize
    if energy is not None:
        add(
            "energy",
            lambda params, leaves, actions: energy(whole(params), jax.tree.unflatten(context_tree, leaves), actions),
            *(leaves, chunk),
        )
    if isinstance(minimize, Steered):
        add(
            "minimize",
            lambda params, leaves, key, *descent: tuple(
                minimize(whole(params), jax.tree.unflatten(context_tree, leaves), jax.random.wrap_key_data(key), Descent(*descent))
            ),
            *(leaves, key, chunk, mask, mask, cap, number, number, number),
        )

        def step_size(params: Mapping[str, Array], cap: Array) -> Array:
            own = minimize.step_size(whole(params), cap)
            return jnp.asarray(minimize.mcmc.step_size if own is None else own, jnp.float32)

        add("step_size", step_size, cap)
    return found


def as_method(programs: Mapping[str, export.Exported], specs: Specs, manifest: Mapping[str, Any]) -> Method:
    """The programs as a `Method`. Its `init` and `loss` raise: an artifact is not trained."""

    def untrainable(*_: Any) -> Any:
        raise ValueError("an artifact must only act, got a call to train it. Load the checkpoint that it was exported from.")

    def encode(params: Params, observation: Observation) -> Context:
        return programs["encode"].call(params, plain(observation))

    def sample(params: Params, context: Context, keys: Keys, num_steps: int) -> Sample:
        valid = manifest["sample_steps"]["all"]
        if num_steps not in valid:
            raise ValueError(
                f"num_steps must be one of {valid}, which were exported, got {num_steps}. Export with --sample_steps={num_steps}."
            )
        return Sample(*programs[f"sample_{num_steps}"].call(params, context, jax.random.key_data(keys)))

    def energy(params: Params, context: Context, actions: Float[Array, "b h a"]) -> Float[Array, " b"]:
        return programs["energy"].call(params, context, actions)

    model = EnergyModel(untrainable, encode, energy, (specs.action.horizon, len(specs.action.dimensions)))

    def minimize(params: Params, context: Context, keys: Keys, descent: Descent, penalty: EnergyFn | None) -> Sample:
        if penalty is None:
            return Sample(*programs["minimize"].call(params, context, jax.random.key_data(keys), *descent))
        around = Steered(model, MCMC(**manifest["mcmc"]), lambda params, cap: programs["step_size"].call(params, cap))
        return around(params, context, keys, descent, penalty)

    return Method(
        init=untrainable,
        loss=untrainable,
        sample=sample,
        encode=encode,
        energy=energy if "energy" in programs else None,
        sample_steps=manifest["sample_steps"]["own"],
        minimize=minimize if "minimize" in programs else None,
    )


def plain(observation: Observation) -> dict[str, Any]:
    """Fields by name but those that are None, cameras as dicts: a tree that any jax can read back."""
    given = {name: value for name, value in observation._asdict().items() if value is not None}
    return {**given, "images": dict(observation.images), "image_masks": dict(observation.image_masks)}


def paths(tree: PyTree) -> dict[str, Any]:
    """Leaves by path, "a/b/0", in the order of the tree."""
    return {
        "/".join(str(getattr(entry, "key", getattr(entry, "idx", getattr(entry, "name", entry)))) for entry in path): leaf
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    }


def flat(tree: PyTree, prefix: str = "") -> dict[str, np.ndarray]:
    """The same as arrays of the host."""
    return {prefix + name: np.asarray(jax.device_get(leaf), order="C") for name, leaf in paths(tree).items()}

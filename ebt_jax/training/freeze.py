"""Which parameters train: patterns on their names, and a loss that gives the others no gradient."""

import difflib
import fnmatch
from collections.abc import Callable, Sequence
from typing import Any

import jax
from jaxtyping import PyTree

from ebt_jax.tree import leaf_name
from ebt_jax.types import Method, Params

NEAR = 5
"""Names shown beside a pattern that matches none."""


def matching(setting: str, patterns: Sequence[str], names: Sequence[str]) -> set[str]:
    """The names that a pattern matches: "encoder/*", "*/bias", "tokens/time"; * and ? match "/" too.

    Raises ValueError for a pattern of `setting` that matches nothing, with the nearest names.
    """
    found = set()
    for pattern in patterns:
        matched = set(fnmatch.filter(names, pattern))
        if not matched:
            near = difflib.get_close_matches(pattern, names, NEAR, cutoff=0.0)
            raise ValueError(
                f"{setting} must match parameters, got {pattern!r}, which matches none of {len(names)}. Near: {', '.join(near)}."
            )
        found |= matched
    return found


def label(params: Params, frozen: set[str]) -> PyTree:
    """The tree with "frozen" or "trained" for each leaf."""
    return jax.tree_util.tree_map_with_path(lambda path, _: "frozen" if leaf_name(path) in frozen else "trained", params)


def stop_gradients(method: Method, labels: Callable[[Params], PyTree]) -> Method:
    """The method, whose loss is constant in parameters labelled "frozen"."""

    def loss(params: Params, *arguments: Any) -> Any:
        held = jax.tree.map(lambda leaf, word: jax.lax.stop_gradient(leaf) if word == "frozen" else leaf, params, labels(params))
        return method.loss(held, *arguments)

    return method._replace(loss=loss)

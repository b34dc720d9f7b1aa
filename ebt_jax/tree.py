"""Nested settings as flat ones, and the names of a tree's leaves."""

from collections.abc import Mapping
from typing import Any

import jax


def flatten(tree: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """{"optimizer": {"clip_norm": 1}} -> {"optimizer.clip_norm": 1}; an empty part stays, as {}."""
    flat: dict[str, Any] = {}
    for name, value in tree.items():
        flat |= flatten(value, f"{prefix}{name}.") if isinstance(value, Mapping) and value else {prefix + name: value}
    return flat


def named_leaves(tree: Any) -> dict[str, Any]:
    """{"encoder": {"mlp": [x]}} -> {"encoder/mlp/0": x}, in the tree's own order of leaves."""
    return {leaf_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}


def leaf_name(path: tuple[Any, ...]) -> str:
    """`a/b/0`, attributes and keys alike: a NamedTuple's field is a key in what Orbax stored."""
    return "/".join(str(getattr(entry, "name", getattr(entry, "key", getattr(entry, "idx", entry)))) for entry in path)

"""How many parameters, and where."""

import math

import jax

from ebt_jax.types import Params


def num_parameters(params: Params) -> int:
    """Numbers in the tree; shapes alone suffice (`jax.eval_shape`)."""
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(params))


def summary(params: Params, depth: int = 2) -> str:
    """A table of parameters by module, `depth` names deep, the total last."""
    rows: dict[str, int] = {}
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        module = "/".join(str(entry.key) for entry in path[:-1][:depth]) or str(path[0].key)
        rows[module] = rows.get(module, 0) + math.prod(leaf.shape)
    total = num_parameters(params)
    width = max(map(len, (*rows, "total")))
    lines = [f"{module:<{width}}  {count:>13,}  {count / total:6.1%}" for module, count in rows.items()]
    return "\n".join([*lines, f"{'total':<{width}}  {total:>13,}"])

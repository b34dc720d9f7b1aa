"""How a cell's numbers came about, and whether those of several cells came about alike."""

import os
from collections.abc import Iterable, Mapping
from typing import Any

from benchmarks.claims.frozen import CODE, sources
from ebt_jax.evaluation.results import git_commit, hardware, versions

COMMIT = git_commit()
"""Of the code that this process has read, whatever becomes of the files while it runs."""
SOURCES = sources()
"""Likewise."""

PACKAGES = ("jax", "jaxlib", "flax", "numpy", "metaworld", "mujoco", "gym-pusht", "pymunk")
"""Those whose versions can change a number."""
UNKNOWN = "unknown"
SAME_DATA: dict[str, str] = dict.fromkeys(
    (
        "56f762f6c0f055d1c2373fe428375e90b04163dcc8853becc1e7c5a48f3d7714",
        "d953a08ea0ad3816b04e5ea89be66e6ce501395ad5465f2af4aa097f9785a5e8",  # of every conversion since features are written in order
    ),
    "d650ced42b1fd67566bf8dd47746da0b914191465c1560a969730cd3b0b05fe9",
)
"""Hashes of conversions of one archive whose records hold the same features in another order: hash -> the first of its kind. Why that is
known: docs/decisions/same-data.md."""


def here() -> dict[str, Any]:
    """Of this process: "machine" (processor and XLA's flags) and "versions" of Python and packages."""
    return {"machine": {"cpu": hardware()["cpu"], "xla_flags": os.environ.get("XLA_FLAGS", "")}, "versions": versions()}


def processors(tree: Mapping[str, Any]) -> set[str]:
    """On which a cell was trained, asked and timed."""
    return _told(tree, "machine", "cpu") | _told(tree, "hardware", "cpu")


def provenance(tree: Mapping[str, Any]) -> dict[str, set[str]]:
    """What of a cell's machine, packages and data can change its numbers: name -> what its parts say, `UNKNOWN` where none does.

    Processors differ in rounding, too, and are not among them: no two machines would do.
    """
    found = {"xla_flags": _told(tree, "machine", "xla_flags") | _told(tree, "hardware", "xla_flags")}
    found |= {name: _told(tree, "versions", name) for name in PACKAGES}
    if "cell" in tree:
        data = str(tree.get("data_sha256", UNKNOWN))
        found[f"data_sha256 of {tree['cell']['suite']}"] = {SAME_DATA.get(data, data)}
    return {name: values or {UNKNOWN} for name, values in found.items()}


def fixed(tree: Mapping[str, Any]) -> dict[str, set[str]]:
    """What a confirmation holds fast: `provenance`, settings and sources."""
    found = {"settings_sha256": {tree.get("settings_sha256", UNKNOWN)}}
    found |= {f"sources of {folder}": {tree.get("sources", {}).get(folder, UNKNOWN)} for folder in CODE}
    return found | provenance(tree)


def disagreements(told: Iterable[tuple[object, Mapping[str, set[str]]]]) -> list[str]:
    """In words, what is not the same in all of (who, what it says): every value with the first that has it."""
    first: dict[str, dict[str, object]] = {}
    for who, found in told:
        for name, values in found.items():
            for value in sorted(values):
                first.setdefault(name, {}).setdefault(value, who)
    return [
        f"{name} {', '.join(f'{value!r} ({who})' for value, who in values.items())}" for name, values in first.items() if len(values) > 1
    ]


def _told(tree: Mapping[str, Any], table: str, name: str) -> set[str]:
    """What a cell's parts, training and samplers, and the cell itself say."""
    parts = [tree, tree.get("training", {}), *tree.get("samplers", {}).values()]
    return {part[table][name] for part in parts if name in part.get(table, {})}

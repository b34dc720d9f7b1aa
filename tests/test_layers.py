"""Arrows between modules point down: an ast walk over every import of the package."""

import ast
import graphlib
import pathlib
import subprocess
import sys
from typing import NamedTuple

import pytest

ROOT = pathlib.Path(__file__).parents[1]

# A module may import those named before it; nothing may import a module of a layer above.
LAYERS = (
    ("types", "specs", "tree"),
    (
        "schedules",
        "normalize",
        "text",
        "images",
        "frames",
        "augment",
        "stopping",
        "mcmc",
        "uncertainty",
        "calibration",
        "watch",
        "methods",
        "starts",
        "constraints",
        "flops",
    ),
    ("interruption", "cli", "whole", "models", "data", "peers", "distributed", "sharding", "formats", "digests", "checkpoint"),
    ("execution", "steering", "observation", "policy", "proposals", "budget", "training", "artifact", "loading", "report"),
    ("simulators", "evaluation", "serving"),
    (
        "config",
        "train",
        "evaluate",
        "collect",
        "convert",
        "prepare",
        "inspect_data",
        "export",
        "serve",
        "calibrate",
        "audit",
        "rank",
        "doctor",
    ),
)
ORDER = {name: place for place, name in enumerate(name for layer in LAYERS for name in layer)}
MATHEMATICS = {*LAYERS[0], *LAYERS[1]}
COMMANDS = set(LAYERS[5])

# Who alone may import what. Everything else from outside is free above the mathematics.
OWNERS = {
    "flax": {"models"},
    "tensorflow": {"data"},
    "tensorflow_datasets": {"data"},
    "grain": {"data"},
    "array_record": {"data"},
    "ml_collections": COMMANDS,
    "absl.flags": {"cli", *COMMANDS},
    "matplotlib": {"report"},
    "jinja2": {"report"},
    "websockets": {"serving"},
    "msgpack": {"serving"},
    "prometheus_client": {"serving"},
    "gymnasium": {"simulators", "evaluation"},
    "metaworld": {"simulators"},
    "mujoco": {"simulators"},
    "robosuite": {"simulators"},
    "gym_pusht": {"simulators"},
}
PURE = {"jax", "numpy", "jaxtyping", "optax"}  # what the mathematics may import from outside
IMPURE = {"os", "pathlib", "io", "time", "datetime", "random", "subprocess", "shutil", "tempfile", "threading", "socket"}


class Import(NamedTuple):
    """`importer` imports `target`; `lazy` = inside a function."""

    importer: str
    target: str
    lazy: bool


def module_name(path: str) -> str:
    """ebt_jax/data/spec.py -> ebt_jax.data.spec, ebt_jax/data/__init__.py -> ebt_jax.data."""
    return path.removesuffix(".py").removesuffix("/__init__").replace("/", ".")


def imports(sources: dict[str, str]) -> list[Import]:
    """Every import in `sources` (path -> text); `from a import b` means a.b where that is a module."""
    modules = {module_name(path) for path in sources}
    found = []
    for path, text in sources.items():
        importer = module_name(path)
        package = importer if path.endswith("__init__.py") else importer.rpartition(".")[0]

        def visit(node: ast.AST, lazy: bool, importer: str = importer, package: str = package) -> None:
            if isinstance(node, ast.Import):
                found.extend(Import(importer, alias.name, lazy) for alias in node.names)
            elif isinstance(node, ast.ImportFrom):
                above = package.rsplit(".", node.level - 1)[0] + "." if node.level else ""
                base = (above + (node.module or "")).rstrip(".")
                for alias in node.names:
                    full = f"{base}.{alias.name}"
                    found.append(Import(importer, full if full in modules or full in OWNERS else base, lazy))
            for child in ast.iter_child_nodes(node):
                visit(child, lazy or isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda))

        visit(ast.parse(text), lazy=False)
    return found


def part(module: str) -> str:
    """The word that LAYERS names: ebt_jax.data.spec -> data; "" for the package itself."""
    return module.partition(".")[2].partition(".")[0]


def violations(sources: dict[str, str]) -> list[str]:
    """Every broken rule, one line each; empty for a package in order."""
    found = imports(sources)
    wrong = [
        f"{path} is not named in LAYERS" for path in sources if part(module_name(path)) not in ORDER and module_name(path) != "ebt_jax"
    ]
    wrong += [
        f"{path}: name a file after what it holds"
        for path in sources
        if pathlib.PurePath(path).stem in ("utils", "util", "helpers", "common", "misc")
    ]
    inside: dict[str, set[str]] = {}
    for importer, target, lazy in found:
        own, arrow = part(importer), f"{importer} imports {target}"
        top = target.partition(".")[0]
        if top == "ebt_jax":
            other = part(target)
            if own and not other:
                wrong.append(f"{arrow}: name the module you need")
            elif own and own == other:
                inside.setdefault(importer, set()).add(target)
            elif own and ORDER.get(other, -1) > ORDER.get(own, len(ORDER)):
                wrong.append(f"{arrow}: the arrow points up")
        elif top == "__future__":
            wrong.append(f"{arrow}: this hides shapes from the checks")
        else:
            owned = next((name for name in (target, top) if name in OWNERS), None)
            if owned and own not in OWNERS[owned]:
                wrong.append(f"{arrow}: only {', '.join(sorted(OWNERS[owned]))} may")
            if top == "tensorflow" and not lazy:
                wrong.append(f"{arrow}: import it inside the function that writes")
            if own in MATHEMATICS and (top in IMPURE or top not in (PURE | sys.stdlib_module_names)):
                wrong.append(f"{arrow}: mathematics needs {', '.join(sorted(PURE))} and no clock, file or thread")
    try:
        graphlib.TopologicalSorter(inside).prepare()
    except graphlib.CycleError as error:
        wrong.append("a circle of imports: " + " -> ".join(error.args[1]))
    return wrong


def test_the_package_keeps_its_layers():
    sources = {str(path.relative_to(ROOT)): path.read_text() for path in sorted((ROOT / "ebt_jax").rglob("*.py"))}
    assert "ebt_jax/types.py" in sources
    assert not violations(sources)


@pytest.mark.parametrize(
    ("sources", "complaint"),
    [
        ({"ebt_jax/mcmc.py": "from ebt_jax.policy import Policy", "ebt_jax/policy.py": ""}, "points up"),
        ({"ebt_jax/mcmc.py": "def f():\n  from ebt_jax import policy", "ebt_jax/policy.py": ""}, "points up"),
        ({"ebt_jax/schedules.py": "import ebt_jax.normalize", "ebt_jax/normalize.py": ""}, "points up"),
        ({"ebt_jax/data/a.py": "from . import b", "ebt_jax/data/b.py": "from ebt_jax.data import a"}, "circle"),
        ({"ebt_jax/data/a.py": "from .b import x", "ebt_jax/data/b.py": "from ..train import y"}, "points up"),
        ({"ebt_jax/policy.py": "import flax.linen as nn"}, "only models may"),
        ({"ebt_jax/policy.py": "from absl import flags"}, "only audit"),
        ({"ebt_jax/training/loop.py": "from ml_collections import ConfigDict"}, "only audit"),
        ({"ebt_jax/data/episodes.py": "import tensorflow as tf"}, "inside the function"),
        ({"ebt_jax/policy.py": "def f():\n  import tensorflow"}, "only data may"),
        ({"ebt_jax/mcmc.py": "import time"}, "no clock"),
        ({"ebt_jax/mcmc.py": "import scipy"}, "mathematics needs"),
        ({"ebt_jax/mcmc.py": "import ebt_jax"}, "name the module"),
        ({"ebt_jax/policy.py": "from __future__ import annotations"}, "hides shapes"),
        ({"ebt_jax/data/utils.py": ""}, "what it holds"),
        ({"ebt_jax/stuff.py": ""}, "not named in LAYERS"),
    ],
)
def test_a_broken_rule_is_found(sources, complaint):
    (line,) = violations(sources)
    assert complaint in line


def test_what_is_allowed_passes():
    sources = {
        "ebt_jax/types.py": "import jax\nfrom typing import NamedTuple",
        "ebt_jax/data/write.py": "def f():\n  import tensorflow as tf\nfrom ebt_jax.data.spec import DatasetSpec",
        "ebt_jax/data/spec.py": "import json\nfrom ebt_jax import specs, types",
        "ebt_jax/specs.py": "from ebt_jax import types",
        "ebt_jax/models/energy.py": "from flax import linen as nn",
        "ebt_jax/collect.py": "from absl import flags, logging\nfrom ebt_jax.data import write",
        "ebt_jax/__init__.py": "from ebt_jax.types import Batch\ndef load(path):\n  from ebt_jax.loading import load",
        "ebt_jax/loading.py": "",
    }
    assert not violations(sources)


HEAVY = ("tensorflow", "flax", "metaworld", "mujoco", "gymnasium", "robosuite", "gym_pusht", "matplotlib", "ml_collections")


def test_importing_the_package_is_light():
    script = f"import sys, ebt_jax; print(*[name for name in {HEAVY} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_a_process_of_simulators_has_no_jax():
    """There is one for each core."""
    script = "import sys, ebt_jax.evaluation.worker; print('jax' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"

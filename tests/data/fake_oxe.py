"""Folders with the features that a dataset of Open X-Embodiment publishes, and two short episodes of made-up values."""

import io
import json
import pathlib
import re
import zlib
from typing import Any

import numpy as np
import simplejpeg
from PIL import Image

from ebt_jax.data.oxe.record import Record

NAMES = re.compile(r"`([^`]+)`")
TYPED = re.compile(r"`([^`]+)` \(([^)]*)\)")
IMAGES = re.compile(r"`([^`]+)`: (\d+)x(\d+)x(\d+) (\w+)(?:, (\w+))?")
LENGTHS = (5, 3)
TASK = "put the carrot on the plate"


class Published:
    """What the metadata of one dataset says: paths inside a step -> "float32 7", and images -> (shape, dtype, encoding)."""

    def __init__(self, tree: dict[str, str]):
        self.version = tree["version"]
        self.splits = set(NAMES.findall(tree["Splits"]))
        observed = {f"observation/{key}" for key in NAMES.findall(tree["Observation keys"])}
        self.keys = {*NAMES.findall(tree.get("Step keys", "")), *NAMES.findall(tree.get("Step extra keys", "")), *observed}
        self.images = {
            f"observation/{key}": ((int(y), int(x), int(c)), dtype, encoding or "unstated")
            for key, y, x, c, dtype, encoding in IMAGES.findall(tree.get("Images", ""))
        }
        self.typed = {}
        for part in tree.get("Language/text-like fields", "").split("; "):
            level = "observation/" if part.startswith("observation") else ""
            self.typed |= {level + key: dtype.strip() for key, dtype in TYPED.findall(part)}
        action = tree["Action"]
        named = (
            {f"action/{key}": dtype for key, dtype in TYPED.findall(action)} if action.startswith("dict") else {"action": action.strip()}
        )
        self.typed |= named
        self.keys |= set(named)


def published(test_data: pathlib.Path) -> dict[str, Published]:
    """Every dataset of feature_specs.json."""
    tree = json.loads((test_data / "oxe" / "feature_specs.json").read_text())
    return {name: Published(facts) for name, facts in tree.items()}


def fake(record: Record, facts: Published) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """(features of a step, episodes): everything that is published, and sizes from the record where the metadata gives none."""
    known = {**record.proprio_features, **record.action_features}
    types = {key: known.get(key) or facts.typed.get(key) or "float32 2" for key in sorted({*facts.keys, *known} - set(facts.images))}
    groups = {key.split("/")[0] for key in types if "/" in key}
    types = {key: dtype for key, dtype in types.items() if key not in groups}
    tree: dict[str, Any] = {}
    for key, dtype in types.items():
        _insert(tree, key, _node(dtype))
    for key, (shape, dtype, encoding) in facts.images.items():
        image = {"shape": {"dimensions": [str(size) for size in shape]}, "dtype": dtype}
        _insert(tree, key, {"image": image | ({} if encoding == "unstated" else {"encodingFormat": encoding})})
    rng = np.random.default_rng(0)
    episodes = []
    for number, length in enumerate(LENGTHS):
        values = {key: _values(key, dtype, length, rng) for key, dtype in types.items()}
        if record.success:  # beside the steps; the second episode failed
            values[f"/{record.success}"] = _outcome(record.success, failed=number == 1)
        values |= {key: [_picture(number, step, facts.images[key]) for step in range(length)] for key in facts.images}
        episodes.append(values)
    return tree, episodes


def beside(record: Record) -> dict[str, Any]:
    """Features of an episode that lie beside its steps."""
    tree: dict[str, Any] = {}
    if record.success:
        _insert(tree, record.success, {"text": {}} if record.success.endswith("path") else _node("bool scalar"))
    return tree


def _outcome(feature: str, failed: bool) -> Any:
    if feature.endswith("path"):
        return [b"lab/failure/2023/trajectory.h5" if failed else b"lab/success/2023/trajectory.h5"]
    return np.array([not failed])


def grey(number: int, step: int) -> int:
    """What pictures of this step are filled with."""
    return 40 + 100 * number + 10 * step


def _insert(tree: dict[str, Any], key: str, node: dict[str, Any]) -> None:
    head, slash, rest = key.partition("/")
    if slash:  # a dict of features; further slashes belong to the name
        tree.setdefault(head, {"featuresDict": {"features": {}}})["featuresDict"]["features"][rest] = node
    else:
        tree[head] = node


def _node(dtype: str) -> dict[str, Any]:
    kind, size, encoding = _parse(dtype)
    if kind == "string":
        return {"text": {}}
    return {"tensor": {"shape": {"dimensions": [str(size)]} if size else {}, "dtype": kind, "encoding": encoding}}


def _parse(dtype: str) -> tuple[str, int, str]:
    """ "float32 7 zlib" -> ("float32", 7, "zlib"); size 0 is a scalar, and a type that is not stated is text."""
    words = dtype.split()
    kind = words[0] if words[0] != "scalar" else "string"
    size = next((int(word) for word in words if word.isdigit()), 0)
    return kind, size, "zlib" if "zlib" in words else "none"


def _values(key: str, dtype: str, length: int, rng: np.random.Generator) -> Any:
    kind, size, encoding = _parse(dtype)
    shape = (length, size) if size else (length,)
    if kind == "string":
        return [TASK.encode()] * length
    if kind == "bool":
        return rng.random(shape) > 0.5
    if kind.startswith(("int", "uint")):
        if size == 512:  # an instruction as character codes
            return np.tile(np.array([ord(c) for c in TASK.ljust(512, "\0")]), (length, 1))
        return rng.integers(0, 2, shape)
    values = rng.uniform(-1, 1, shape).astype(np.float32)
    return [zlib.compress(row.tobytes()) for row in values] if encoding == "zlib" else values


def _picture(number: int, step: int, image: tuple[tuple[int, int, int], str, str]) -> bytes:
    (_, _, channels), dtype, encoding = image
    pixels = np.full((8, 8, channels), grey(number, step), np.uint16 if dtype == "uint16" else np.uint8)
    if encoding != "png" and channels == 3:
        return simplejpeg.encode_jpeg(pixels)
    file = io.BytesIO()
    Image.fromarray(pixels[..., 0] if channels == 1 else pixels).save(file, "png")
    return file.getvalue()

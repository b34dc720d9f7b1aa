"""Published weights -> parameters: a safetensors file or a Hugging Face snapshot folder, checked tensor by tensor.

They enter a run once, when it begins; its checkpoints hold them from then on, and no policy asks for the file again.
"""

import fnmatch
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from absl import logging
from safetensors import SafetensorError, safe_open

from ebt_jax.models import bert, imagenet, t5, vision_tower
from ebt_jax.models.config import ModelConfig
from ebt_jax.models.sizes import TEXTS, ResNetSize, TextSize, TowerSize, vision_size
from ebt_jax.models.tensors import Layout
from ebt_jax.types import Params

INDEX, FILE = "model.safetensors.index.json", "model.safetensors"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt")
_NEW = "film*"
"""Modules inside an encoder that its publishers did not have."""


class Report(NamedTuple):
    """What became of each tensor and parameter, by name.

    Attributes:
      loaded: parameter <- tensors, one line each.
      new: parameters that nobody published, left as initialised.
      unused: tensors that are of no use here.
    """

    loaded: tuple[str, ...]
    new: tuple[str, ...]
    unused: tuple[str, ...]

    def __str__(self) -> str:
        rows = [f"{len(getattr(self, name))} {name}\n" + "".join(f"  {line}\n" for line in getattr(self, name)) for name in self._fields]
        return "".join(rows).rstrip()


def load_pretrained(config: ModelConfig, params: Params) -> dict[str, np.ndarray]:
    """Parameter path -> published value, for every encoder of `params` (arrays or their shapes) that the config names weights for.

    Logs every tensor that was loaded, every parameter that is new, every tensor of no use. Raises ValueError for weights of an
    encoder that the network does not have, for a path that holds none, and where any tensor is missing, unexpected or of another shape.
    """
    found: dict[str, np.ndarray] = {}
    leaves = dict(_leaves(params))
    sizes = (
        ("vision", vision_size(config.vision), config.vision_weights),
        ("language", TEXTS.get(config.language), config.language_weights),
    )
    for part, size, path in sizes:
        if not path:
            continue
        name = getattr(config, part)
        if size is None:
            raise ValueError(
                f"model.{part}_weights must be of a published encoder, got {path} for model.{part}={name!r}. Name that encoder."
            )
        encoders = sorted({where[: where.index(f"/{size.family}/")] for where in leaves if f"/{size.family}/" in where})
        if not encoders:
            raise ValueError(
                f"model.{part}_weights must have a {name} in the network to fill, got none. "
                f"{'Name cameras in model.cameras' if part == 'vision' else 'Train on data with text, data.language=tokens'}."
            )
        for encoder in encoders:
            prefix = f"{encoder}/{size.family}/"
            parameters = {where.removeprefix(prefix): leaf for where, leaf in leaves.items() if where.startswith(prefix)}
            values, report = convert(path, name, layouts(size), parameters)
            logging.info("%s from %s:\n%s", prefix.removesuffix("/"), path, report)
            found |= {prefix + where: value for where, value in values.items()}
    return found


def layouts(size: TowerSize | ResNetSize | TextSize) -> Sequence[Layout]:
    """The published namings of an encoder."""
    if isinstance(size, TowerSize):
        return vision_tower.layouts(size)
    if isinstance(size, ResNetSize):
        return imagenet.layouts(size)
    return t5.layouts(size) if size.family == "t5" else (bert.LAYOUT,)


def convert(path: str, name: str, choices: Sequence[Layout], parameters: Mapping[str, Any]) -> tuple[dict[str, np.ndarray], Report]:
    """The parameters of one encoder from the weights at `path`, and what became of each tensor.

    Raises ValueError listing every tensor that is missing, unexpected, or makes a parameter of another shape.
    """
    tensors = open_tensors(path)
    candidates = [(layout, prefix) for layout in choices for prefix in layout.prefixes]
    layout, prefix = _best(candidates, tensors)
    wanted = {where: leaf for where, leaf in parameters.items() if where in layout.sources}
    new = sorted(set(parameters) - set(wanted))
    assert all(fnmatch.fnmatch(where, _NEW) for where in new), f"no tensor is named for {new}"

    values, loaded, wrong, used = {}, [], [], set()
    for where, leaf in wanted.items():
        names, make = layout.sources[where]
        stacked = any("{}" in source for source in names)
        layers = [[prefix + source.replace("{}", str(i)) for source in names] for i in range(leaf.shape[0] if stacked else 1)]
        missing = [source for layer in layers for source in layer if source not in tensors]
        used |= {source for layer in layers for source in layer}
        if missing:
            wrong += [f"{source}: expected for {where}, missing" for source in missing]
            continue
        try:
            made = [make(*(tensors[source]() for source in layer)) for layer in layers]
        except (ValueError, IndexError):  # not even as many axes
            made = [tensors[layers[0][0]]()]
        shapes = sorted({value.shape for value in made})
        expected = leaf.shape[1:] if stacked else leaf.shape
        if shapes != [expected]:
            wrong.append(
                f"{prefix}{', '.join(names)}: expected {list(expected)} for {where}, got {', '.join(str(list(s)) for s in shapes)}"
            )
            continue
        values[where] = np.asarray(np.stack(made) if stacked else made[0], leaf.dtype)
        loaded.append(f"{where} <- {prefix}{', '.join(names)}" + (f", {len(layers)} layers" if stacked else ""))
    rest = sorted(set(tensors) - used)
    unused = [source for source in rest if _matches(source, prefix, layout.unused)]
    wrong += [f"{source}: expected nothing, got it" for source in rest if source not in unused]
    if wrong:
        raise ValueError(
            f"weights of {name} must be the tensors it is published as, got {len(wrong)} differences in {path}:\n  "
            + "\n  ".join(sorted(wrong)) + "\nAre these the weights of another encoder or size?"
        )  # fmt: skip
    return values, Report(tuple(loaded), tuple(new), tuple(unused))


def open_tensors(path: str) -> dict[str, Callable[[], np.ndarray]]:
    """Tensor name -> reader of it as float32, from a safetensors file or a folder that holds one, whole or in parts.

    Raises ValueError for a path that holds neither, and for files that need pickle.
    """
    place = pathlib.Path(path).expanduser()
    if place.is_dir():
        if (place / INDEX).exists():
            files = sorted(set(json.loads((place / INDEX).read_text())["weight_map"].values()))
            return {name: read for file in files for name, read in open_tensors(str(place / file)).items()}
        pickled = sorted(file.name for file in place.iterdir() if file.suffix in _PICKLES)
        if not (place / FILE).exists():
            held = f"only {pickled}. {_REMEDY}" if pickled else f"{sorted(file.name for file in place.iterdir())}."
            raise ValueError(f"weights must be a folder with {FILE} or {INDEX}, got {place}, which holds {held}")
        place = place / FILE
    if place.suffix in _PICKLES:
        raise ValueError(f"weights must be safetensors, got {place}: reading a pickle runs whatever code is in it. {_REMEDY}")
    if not place.exists():
        raise ValueError(f"weights must be a safetensors file or a snapshot folder, got {place}, which does not exist.")
    try:
        with safe_open(place, "np") as file:
            names = list(file.keys())
    except SafetensorError as error:
        raise ValueError(f"weights must be a safetensors file, got {place}: {error}. Is the copy complete?") from error
    return {name: lambda name=name: _read(place, name) for name in names}


_REMEDY = "Where you trust the file, `transformers`' from_pretrained(FOLDER).save_pretrained(NEW_FOLDER) writes safetensors."


def _read(place: pathlib.Path, name: str) -> np.ndarray:
    with safe_open(place, "np") as file:
        return file.get_tensor(name).astype(np.float32)


def _best(candidates: Sequence[tuple[Layout, str]], tensors: Mapping[str, Any]) -> tuple[Layout, str]:
    """The naming that most of the file follows."""

    def score(candidate: tuple[Layout, str]) -> int:
        layout, prefix = candidate
        names = {prefix + name.replace("{}", "0") for source in layout.sources.values() for name in source.names}
        return len(names & set(tensors))

    return max(candidates, key=score)


def _matches(name: str, prefix: str, patterns: Sequence[str]) -> bool:
    return any(fnmatch.fnmatch(name, pattern) or fnmatch.fnmatch(name, prefix + pattern) for pattern in patterns)


def _leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(tree, Mapping):
        for name, value in tree.items():
            yield from _leaves(value, f"{path}/{name}" if path else name)
    else:
        yield path, tree

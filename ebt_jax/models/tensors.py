"""Published tensors and our parameters: which becomes which, and how its axes move.

Each encoder's file ends with a table of these, so that a reader compares module and published names side by side.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np


class Source(NamedTuple):
    """Where one parameter comes from.

    Attributes:
      names: published tensors; `{}` stands for the layer, and the layers are stacked along a new first axis.
      make: those tensors -> the parameter of one layer.
    """

    names: tuple[str, ...]
    make: Callable[..., np.ndarray]


class Layout(NamedTuple):
    """One published naming of an encoder.

    Attributes:
      sources: parameter path ("blocks/norm1/scale") -> where it comes from.
      prefixes: what may stand before every name, "" or the name of the model that the encoder is a part of.
      unused: patterns (fnmatch, after the prefix or whole) of tensors that may be there and are of no use to us.
    """

    sources: Mapping[str, Source]
    prefixes: tuple[str, ...] = ("",)
    unused: tuple[str, ...] = ()


def same(name: str) -> Source:
    """The tensor as it is, without axes of length 1 before its last two."""
    return Source((name,), lambda x: x.reshape(x.shape[-2:]) if x.ndim > 2 else x)


def linear(path: str, name: str, bias: bool = True) -> dict[str, Source]:
    """torch.nn.Linear -> flax Dense: [out in] -> [in out]."""
    sources = {f"{path}/kernel": Source((f"{name}.weight",), np.transpose)}
    return sources | {f"{path}/bias": same(f"{name}.bias")} if bias else sources


def convolution(path: str, name: str, bias: bool = False) -> dict[str, Source]:
    """torch.nn.Conv2d -> flax Conv: [out in y x] -> [y x in out]."""
    sources = {f"{path}/kernel": Source((f"{name}.weight",), lambda x: x.transpose(2, 3, 1, 0))}
    return sources | {f"{path}/bias": same(f"{name}.bias")} if bias else sources


def layer_norm(path: str, name: str) -> dict[str, Source]:
    """torch.nn.LayerNorm -> flax LayerNorm."""
    return {f"{path}/scale": same(f"{name}.weight"), f"{path}/bias": same(f"{name}.bias")}


def batch_norm(path: str, name: str, epsilon: float = 1e-5) -> dict[str, Source]:
    """torch.nn.BatchNorm2d with its running statistics -> x * scale + bias."""
    names = tuple(f"{name}.{part}" for part in ("weight", "running_var", "bias", "running_mean"))

    def scale(weight: np.ndarray, variance: np.ndarray) -> np.ndarray:
        return weight / np.sqrt(variance + epsilon)

    return {
        f"{path}/scale": Source(names[:2], scale),
        f"{path}/bias": Source(names, lambda weight, variance, bias, mean: bias - mean * scale(weight, variance)),
    }

"""The sizes of encoders that others have trained: what a name such as `model.vision=dinov2_small` stands for."""

import dataclasses
from typing import NamedTuple

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
"""Mean and standard deviation of pixels in [0, 1], per channel."""

HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
"""Pixels in [-1, 1]."""


@dataclasses.dataclass(frozen=True)
class TowerSize:
    """A vision transformer over patches.

    Attributes:
      family: "dinov2" (class token, layer scale, exact GELU) or "siglip" (neither, tanh GELU); names the parameters too.
      patch: side of a patch, pixels.
      grid: side of the square of learned positions, patches; other image sizes interpolate between them.
      registers: tokens that belong to no patch (Darcet et al. 2024).
      pixels: mean and standard deviation that images were normalised with.
    """

    family: str
    width: int
    layers: int
    heads: int
    mlp_width: int
    patch: int
    grid: int
    registers: int = 0
    pixels: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET


class ResNetSize(NamedTuple):
    """A residual network as trained on ImageNet; `bottleneck` blocks widen their output four times."""

    blocks: tuple[int, int, int, int]
    width: int
    bottleneck: bool
    family: str = "imagenet"
    pixels: tuple[tuple[float, float, float], tuple[float, float, float]] = IMAGENET


@dataclasses.dataclass(frozen=True)
class TextSize:
    """A text encoder.

    Attributes:
      family: "bert" (a sentence encoder: mean pooling, unit norm) or "t5" (one vector a token); names the parameters too.
      tokenizer: the kind of `LanguageSpec.tokenizer` whose ids it reads.
      vocabulary: rows of its embedding.
      head_width: of one attention head; T5's is not width / heads.
      gated: MLP of T5 v1.1 and Flan-T5, gelu(x W0) * (x W1), in place of relu(x W).
    """

    family: str
    tokenizer: str
    vocabulary: int
    width: int
    layers: int
    heads: int
    mlp_width: int
    head_width: int
    gated: bool = False


_DINOV2 = {"small": (384, 12, 6, 1536), "base": (768, 12, 12, 3072), "large": (1024, 24, 16, 4096)}

TOWERS: dict[str, TowerSize] = {
    **{f"dinov2_{name}": TowerSize("dinov2", *size, patch=14, grid=37) for name, size in _DINOV2.items()},
    **{f"dinov2_{name}_registers": TowerSize("dinov2", *size, patch=14, grid=37, registers=4) for name, size in _DINOV2.items()},
    "siglip_base": TowerSize("siglip", 768, 12, 12, 3072, patch=16, grid=14, pixels=HALF),
    "siglip_large": TowerSize("siglip", 1024, 24, 16, 4096, patch=16, grid=16, pixels=HALF),
    "siglip_so400m": TowerSize("siglip", 1152, 27, 16, 4304, patch=14, grid=27, pixels=HALF),
}
"""DINOv2 of 518 pixels, SigLIP base of 224, large of 256, so400m of 384."""

RESNETS: dict[str, ResNetSize] = {
    "resnet18_imagenet": ResNetSize((2, 2, 2, 2), 64, bottleneck=False),
    "resnet34_imagenet": ResNetSize((3, 4, 6, 3), 64, bottleneck=False),
    "resnet50_imagenet": ResNetSize((3, 4, 6, 3), 64, bottleneck=True),
}

TEXTS: dict[str, TextSize] = {
    "minilm": TextSize("bert", "wordpiece", 30522, 384, 6, 12, 1536, head_width=32),
    "t5_small": TextSize("t5", "unigram", 32128, 512, 6, 8, 2048, head_width=64),
    "t5_base": TextSize("t5", "unigram", 32128, 768, 12, 12, 3072, head_width=64),
    "flan_t5_small": TextSize("t5", "unigram", 32128, 512, 8, 6, 1024, head_width=64, gated=True),
    "flan_t5_base": TextSize("t5", "unigram", 32128, 768, 12, 12, 2048, head_width=64, gated=True),
}


def vision_size(name: str) -> TowerSize | ResNetSize | None:
    """The published size of this name, None for a network that starts from nothing."""
    return TOWERS.get(name) or RESNETS.get(name)

"""The size and shape of an energy network, with named sizes from "debug" (under 1 M parameters) to "xl" (about 1 B), and "paper"."""

import dataclasses
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from ebt_jax.models.sizes import RESNETS, TEXTS, TOWERS, vision_size

CHOICES = {
    "vision": ("resnet18", "resnet_small", "vit", *TOWERS, *RESNETS),
    "language": ("words", *TEXTS),
    "stem": ("large", "small"),
    "pooling": ("grid", "spatial_softmax"),
    "encoder_attention": ("einsum", "fused"),
    "precision": ("float32", "bfloat16", "float64"),
}
"""The valid values of the settings that are names."""


def in_full(*dtypes: DTypeLike) -> jax.lax.Precision | None:
    """How numbers of these types are multiplied: float32 in full, where a GPU by itself takes TF32 and a TPU bfloat16; else as it is."""
    return jax.lax.Precision.HIGHEST if all(jnp.finfo(dtype).bits >= 32 for dtype in dtypes) else None


class Precision(NamedTuple):
    """Where numbers are rounded: `parameters` also holds for residuals, norms, softmax and energies; `products` for matrix products."""

    parameters: DTypeLike
    products: DTypeLike

    @property
    def multiplied(self) -> jax.lax.Precision | None:
        """`in_full` of products."""
        return in_full(self.products)

    @property
    def exact(self) -> "Precision":
        """Products in the parameters' precision too: for the way from actions in and to the energy out, which cost little."""
        return self._replace(products=self.parameters)


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Everything that decides the network's parameters and arithmetic, beside the `Specs` of robot and data.

    Attributes:
      width: d, of the observation encoder and of the energy decoder.
      encoder_layers, decoder_layers: transformer blocks over observation tokens, and over action tokens.
      heads: attention heads; must divide width.
      mlp_ratio: hidden width of a block's MLP over its width.
      actions_per_token: consecutive actions that share one decoder token (zeros fill the last one): a step of the descent
        costs about 1 / actions_per_token as much.
      qk_norm: RMS-normalise queries and keys per head, which bounds the attention logits.
      vision: image encoder: one that starts from nothing ("vit" needs images divisible by patch_size), or a published one
        (docs/encoders.md).
      vision_weights: safetensors file or snapshot folder that a published encoder starts from, read once, when a run begins; "" starts
        it from nothing.
      vision_frozen: a published encoder keeps its weights, and no gradient is computed in it, but for FiLM's in its midst.
      film: the instruction scales and shifts the channels of a ResNet after every block, beside coming as tokens; that is trained
        where the ResNet is frozen too.
      language: encoder of token ids: "words" learns a vector for each, others are published. Embeddings of a dataset need none.
      language_weights, language_frozen: as for vision; a folder of weights also holds the tokenizer.
      vision_width: channels of the ResNet's first stage, or the ViT's width.
      vision_layers: blocks of the ViT; a ResNet ignores it.
      patch_size: side of a ViT patch, pixels.
      stem: of the ResNet: "large" divides the image by 32 in all (ImageNet's), "small" by 16 (for 64 to 128 pixels).
      pooling: "grid": one token a feature cell; "spatial_softmax": one token an image, made of expected keypoint positions.
      keypoints: of the spatial softmax.
      share_vision: one image encoder for all cameras, told apart by an embedding: cameras that are rare in a mixture learn
        from the others, and a new camera adds one vector. False gives each camera its own, as robomimic does.
      motion_gain: above 0, each proprio token also reads how far it moved since the step before, times this: the difference of
        two normalised states is small, and few demonstrations do not teach a network to take it.
      encoder_attention: of observation tokens and of "vit" (published encoders keep "einsum"): "fused" takes cuDNN's kernel on a GPU,
        in bfloat16, which saves the memory traffic of the attention weights. It is for training: policies act with "einsum", which
        differs by rounding. The decoder has no such choice: training differentiates it twice.
      precision: "bfloat16" rounds matrix products and nothing else, "float32" nothing on any device (`in_full`); "float64" (with
        jax_enable_x64) is for checking derivatives.
      remat: recompute block activations in the backward pass: less memory, about a third more work.
      unroll: blocks that one iteration of the scan over layers runs; small networks on CPU gain from all of them.
    """

    width: int
    encoder_layers: int
    decoder_layers: int
    heads: int
    mlp_ratio: int = 4
    actions_per_token: int = 1
    qk_norm: bool = True
    vision: str = "resnet18"
    vision_weights: str = ""
    vision_frozen: bool = False
    film: bool = False
    language: str = "words"
    language_weights: str = ""
    language_frozen: bool = True
    vision_width: int = 64
    vision_layers: int = 8
    patch_size: int = 16
    stem: str = "large"
    pooling: str = "grid"
    keypoints: int = 32
    share_vision: bool = True
    motion_gain: float = 0.0
    encoder_attention: str = "einsum"
    precision: str = "float32"
    remat: bool = False
    unroll: int = 1

    def __post_init__(self) -> None:
        for name in ("width", "encoder_layers", "decoder_layers", "heads", "mlp_ratio", "actions_per_token", "vision_width"):
            _check(name, "be at least 1", getattr(self, name), getattr(self, name) >= 1)
        for name in ("vision_layers", "patch_size", "keypoints", "unroll"):
            _check(name, "be at least 1", getattr(self, name), getattr(self, name) >= 1)
        _check("width", f"be a multiple of 4 and of heads = {self.heads}", self.width, self.width % 4 == self.width % self.heads == 0)
        _check("motion_gain", "be at least 0", self.motion_gain, self.motion_gain >= 0)
        if self.vision == "vit":
            multiple = math.lcm(4, max(1, self.vision_width // 64))
            _check(
                "vision_width", f"be a multiple of {multiple} for a vit of this size", self.vision_width, self.vision_width % multiple == 0
            )
        for name, choices in CHOICES.items():
            _check(name, f"be one of {choices}", getattr(self, name), getattr(self, name) in choices)
        _check(
            "vision_frozen", "be False for an encoder that nobody trained", True, not self.vision_frozen or bool(vision_size(self.vision))
        )
        _check("film", "be False for a vision transformer", True, not self.film or self.vision.startswith("resnet"))
        fits = self.encoder_attention == "einsum" or self.precision == "bfloat16"
        _check("encoder_attention", f"be 'einsum' in {self.precision}", self.encoder_attention, fits)

    @property
    def dtypes(self) -> Precision:
        wide = jnp.float64 if self.precision == "float64" else jnp.float32
        return Precision(wide, jnp.bfloat16 if self.precision == "bfloat16" else wide)

    @property
    def frozen(self) -> dict[str, tuple[str, ...]]:
        """ "vision", "language" -> patterns on the names of its parameters that never change: those that its publishers had."""
        vision, language, found = vision_size(self.vision), TEXTS.get(self.language), {}
        if vision and self.vision_frozen:
            own = ("stem*", "stage*") if self.film else ("*",)
            found["vision"] = tuple(f"*/{vision.family}/{name}" for name in own)
        if language and self.language_frozen:
            found["language"] = (f"*/{language.family}/*",)
        return found


def _check(name: str, rule: str, value: Any, holds: bool) -> None:
    if not holds:
        raise ValueError(f"{name} must {rule}, got {value!r}.")


PAPER_FREE = ("width", "encoder_layers", "decoder_layers", "heads", "keypoints", "first_action", "precision", "remat", "unroll")
"""Settings of the published network that need not be as published."""


@dataclasses.dataclass(frozen=True)
class PaperConfig(ModelConfig):
    """The published network (`models/paper.py`), at any width and depth; what it has not cannot be set.

    Attributes:
      first_action: the observation step that a chunk's first action belongs to, for the mask that hides an observation from the
        actions before it: "newest" as in our data, so that every action sees every observation, or "oldest" as in the published
        data, so that action r sees observation j where r >= j. No parameter depends on it.
    """

    width: int = 256
    encoder_layers: int = 8
    decoder_layers: int = 8
    heads: int = 4
    mlp_ratio: int = 1
    pooling: str = "spatial_softmax"
    share_vision: bool = False
    first_action: str = "newest"

    def __post_init__(self) -> None:
        super().__post_init__()
        _check("first_action", "be 'newest' or 'oldest'", self.first_action, self.first_action in ("newest", "oldest"))
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            _check(field.name, f"be {field.default!r}, as published", value, field.name in PAPER_FREE or value == field.default)


VARIANTS: dict[str, ModelConfig] = {
    # A laptop: trains in minutes on two CPU cores.
    "debug": ModelConfig(
        width=64,
        encoder_layers=1,
        decoder_layers=2,
        heads=2,
        mlp_ratio=2,
        actions_per_token=4,
        vision="resnet_small",
        vision_width=16,
        stem="small",
        unroll=2,
    ),
    # The published energy-based policy's own network, 8.6 M beside its cameras.
    "paper": PaperConfig(),
    # One GPU: about the size of the published network.
    "small": ModelConfig(width=256, encoder_layers=4, decoder_layers=8, heads=4, stem="small"),
    # About 100 M parameters.
    "base": ModelConfig(width=768, encoder_layers=4, decoder_layers=6, heads=12),
    # About 300 M.
    "large": ModelConfig(
        width=1024, encoder_layers=6, decoder_layers=12, heads=16, vision="vit", vision_width=512, vision_layers=8, remat=True
    ),
    # About 1 B.
    "xl": ModelConfig(
        width=1536, encoder_layers=8, decoder_layers=18, heads=24, vision="vit", vision_width=768, vision_layers=12, remat=True
    ),
}


def model_variant(name: str, **overrides: Any) -> ModelConfig:
    """`VARIANTS[name]` with fields replaced: `model_variant("base", precision="bfloat16")`. Raises ValueError for unknown names."""
    if name not in VARIANTS:
        raise ValueError(f"model variant must be one of {sorted(VARIANTS)}, got {name!r}.")
    known = [field.name for field in dataclasses.fields(VARIANTS[name])]
    unknown = sorted(set(overrides) - set(known))
    if unknown:
        raise ValueError(f"model settings must be among {known}, got {unknown}.")
    return dataclasses.replace(VARIANTS[name], **overrides)

"""Residual networks with weights from ImageNet (He et al. 2016): BatchNorm's statistics stand still, folded into scale and bias.

So each image passes alone, as everywhere here, and the published features stay what they were at the start of training.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float

from ebt_jax.models.config import Precision
from ebt_jax.models.film import FiLM
from ebt_jax.models.sizes import ResNetSize
from ebt_jax.models.tensors import Layout, Source, batch_norm, convolution


class Affine(nn.Module):
    """x * scale + bias, one of each a channel: BatchNorm in evaluation."""

    dtypes: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "n y x c"]) -> Float[Array, "n y x c"]:
        parameter = lambda name, initial: self.param(name, initial, x.shape[-1:], self.dtypes.parameters)[None, None, None]
        return x * parameter("scale", nn.initializers.ones) + parameter("bias", nn.initializers.zeros)


class ImageNetBlock(nn.Module):
    """relu(shortcut(x) + norms and convolutions of x): 3x3, 3x3, or as a bottleneck 1x1, 3x3, 1x1."""

    channels: int
    stride: int
    bottleneck: bool
    dtypes: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "n y x c"]) -> Float[Array, "n y2 x2 c2"]:
        convolutions = [(3, self.stride, self.channels), (3, 1, self.channels)]
        if self.bottleneck:
            convolutions = [(1, 1, self.channels), (3, self.stride, self.channels), (1, 1, 4 * self.channels)]
        y = x
        for i, (side, stride, channels) in enumerate(convolutions):
            y = _conv(channels, side, stride, self.dtypes, f"conv{i + 1}")(y if i == 0 else nn.relu(y))
            y = Affine(self.dtypes, name=f"norm{i + 1}")(y)
        if x.shape != y.shape:
            x = _conv(y.shape[-1], 1, self.stride, self.dtypes, "conv_shortcut")(x)
            x = Affine(self.dtypes, name="norm_shortcut")(x)
        return nn.relu(x + y)


class ImageNetResNet(nn.Module):
    """Normalised images -> features at 1/32 of their size; FiLM after every block where an instruction is given."""

    size: ResNetSize
    dtypes: Precision

    @nn.compact
    def __call__(self, images: Float[Array, "n y x c"], instruction: Float[Array, "n d"] | None = None) -> Float[Array, "n y2 x2 c2"]:
        s = self.size
        x = Affine(self.dtypes, name="stem_norm")(_conv(s.width, 7, 2, self.dtypes, "stem")(images))
        # After a ReLU the border may be 0 as well as minus infinity.
        x = nn.max_pool(jnp.pad(nn.relu(x), ((0, 0), (1, 1), (1, 1), (0, 0))), (3, 3), (2, 2))
        for i, j in _blocks(s):
            stride = 2 if i > 0 and j == 0 else 1
            x = ImageNetBlock(s.width * 2**i, stride, s.bottleneck, self.dtypes, name=f"stage{i}_block{j}")(x)
            if instruction is not None:
                x = FiLM(self.dtypes, name=f"film{i}_{j}")(x, instruction)
        return x


def _conv(channels: int, side: int, stride: int, dtypes: Precision, name: str) -> nn.Conv:
    return nn.Conv(
        channels,
        (side, side),
        (stride, stride),
        padding=((side // 2, side // 2),) * 2,
        use_bias=False,
        dtype=dtypes.products,
        param_dtype=dtypes.parameters,
        precision=dtypes.multiplied,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal"),
        name=name,
    )


def _blocks(size: ResNetSize) -> list[tuple[int, int]]:
    return [(i, j) for i, blocks in enumerate(size.blocks) for j in range(blocks)]


def layouts(size: ResNetSize) -> tuple[Layout, ...]:
    """Names as in transformers, and as in torchvision and timm."""
    transformers: dict[str, Source] = {
        **convolution("stem", "embedder.embedder.convolution"),
        **batch_norm("stem_norm", "embedder.embedder.normalization"),
    }
    torchvision: dict[str, Source] = {**convolution("stem", "conv1"), **batch_norm("stem_norm", "bn1")}
    for i, j in _blocks(size):
        ours, theirs, short = f"stage{i}_block{j}", f"encoder.stages.{i}.layers.{j}", f"layer{i + 1}.{j}"
        for k in range(3 if size.bottleneck else 2):
            transformers |= convolution(f"{ours}/conv{k + 1}", f"{theirs}.layer.{k}.convolution")
            transformers |= batch_norm(f"{ours}/norm{k + 1}", f"{theirs}.layer.{k}.normalization")
            torchvision |= convolution(f"{ours}/conv{k + 1}", f"{short}.conv{k + 1}")
            torchvision |= batch_norm(f"{ours}/norm{k + 1}", f"{short}.bn{k + 1}")
        if j == 0 and (i > 0 or size.bottleneck):
            transformers |= convolution(f"{ours}/conv_shortcut", f"{theirs}.shortcut.convolution")
            transformers |= batch_norm(f"{ours}/norm_shortcut", f"{theirs}.shortcut.normalization")
            torchvision |= convolution(f"{ours}/conv_shortcut", f"{short}.downsample.0")
            torchvision |= batch_norm(f"{ours}/norm_shortcut", f"{short}.downsample.1")
    counts = "*.num_batches_tracked"
    return (
        Layout(transformers, prefixes=("", "resnet."), unused=(counts, "classifier.*")),
        Layout(torchvision, unused=(counts, "fc.*")),
    )

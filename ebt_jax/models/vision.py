"""uint8 images -> tokens: an encoder of our own or a published one, then one token a feature cell or a spatial softmax.

Each image passes alone: no statistic couples it with its neighbours in the batch.
"""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Float, UInt8

from ebt_jax.models.config import ModelConfig, Precision, in_full
from ebt_jax.models.film import FiLM
from ebt_jax.models.imagenet import ImageNetResNet
from ebt_jax.models.sizes import TOWERS, TowerSize, vision_size
from ebt_jax.models.transformer import BlockSettings, EncoderBlock, dense, norm, sin_cos, stack
from ebt_jax.models.vision_tower import VisionTower
from ebt_jax.specs import ObservationSpec

STAGES = {"resnet18": (2, 2, 2, 2), "resnet_small": (1, 1, 1, 1)}
"""Blocks of each stage."""
_CHANNELS_PER_GROUP = 16


def grid_positions(rows: int, columns: int, width: int) -> Float[Array, "rows columns d"]:
    """Sine-cosine positions of a grid: half the width for the row, half for the column."""
    row = jnp.broadcast_to(sin_cos(jnp.arange(rows) * 1.0, width // 2)[:, None], (rows, columns, width // 2))
    column = jnp.broadcast_to(sin_cos(jnp.arange(columns) * 1.0, width // 2)[None], (rows, columns, width // 2))
    return jnp.concatenate([row, column], axis=-1)


def spatial_softmax(logits: Float[Array, "n y x keypoints"], temperature: float = 1.0) -> Float[Array, "n two_keypoints"]:
    """Expected (row, column) in [-1, 1] of each channel's softmax(logits / temperature) over the image (Finn et al. 2016).

    Keypoint k stands at [2k : 2k + 2]. robomimic's order is (x, y), that is (column, row).
    """
    n, rows, columns, keypoints = logits.shape
    weights = jax.nn.softmax(logits.reshape(n, rows * columns, keypoints) / temperature, axis=1)
    places = jnp.stack(jnp.meshgrid(jnp.linspace(-1, 1, rows), jnp.linspace(-1, 1, columns), indexing="ij"), axis=-1)
    places = places.reshape(-1, 2).astype(weights.dtype)
    return jnp.einsum("nsk,sc->nkc", weights, places, precision=in_full(weights.dtype)).reshape(n, 2 * keypoints)


class ResNetBlock(nn.Module):
    """relu(shortcut(x) + norm(conv(relu(norm(conv(x)))))); starts as its shortcut (last norm's scale is zero)."""

    channels: int
    stride: int
    dtypes: Precision

    @nn.compact
    def __call__(self, x: Float[Array, "n y x c"]) -> Float[Array, "n y2 x2 c2"]:
        y = conv(self.channels, 3, self.stride, self.dtypes, "conv1")(x)
        y = nn.relu(group_norm(self.channels, self.dtypes, "norm1")(y))
        y = conv(self.channels, 3, 1, self.dtypes, "conv2")(y)
        y = group_norm(self.channels, self.dtypes, "norm2", scale_init=nn.initializers.zeros)(y)
        if x.shape != y.shape:
            x = conv(self.channels, 1, self.stride, self.dtypes, "conv_shortcut")(x)
            x = group_norm(self.channels, self.dtypes, "norm_shortcut")(x)
        return nn.relu(x + y)


class ResNet(nn.Module):
    """Residual network (He et al. 2016) with GroupNorm for BatchNorm; any image size.

    FiLM after every block where an instruction is given.
    """

    stages: tuple[int, ...]
    width: int
    stem: str
    dtypes: Precision

    @nn.compact
    def __call__(self, images: Float[Array, "n y x c"], instruction: Float[Array, "n d"] | None = None) -> Float[Array, "n y2 x2 c2"]:
        x = conv(self.width, 7 if self.stem == "large" else 3, 2, self.dtypes, "stem")(images)
        x = nn.relu(group_norm(self.width, self.dtypes, "stem_norm")(x))
        if self.stem == "large":
            x = nn.max_pool(x, (3, 3), (2, 2), "SAME")
        for i, blocks in enumerate(self.stages):
            for j in range(blocks):
                stride = 2 if i > 0 and j == 0 else 1
                x = ResNetBlock(self.width * 2**i, stride, self.dtypes, name=f"stage{i}_block{j}")(x)
                if instruction is not None:
                    x = FiLM(self.dtypes, name=f"film{i}_{j}")(x, instruction)
        return x


class ViT(nn.Module):
    """Vision transformer over patches (Dosovitskiy et al. 2021), with fixed positions; any image size that patches fill."""

    config: ModelConfig

    @nn.compact
    def __call__(self, images: Float[Array, "n y x c"]) -> Float[Array, "n y2 x2 d"]:
        c = self.config
        heads = max(1, c.vision_width // 64)
        settings = BlockSettings(c.vision_width, heads, c.mlp_ratio, c.qk_norm, c.vision_layers, c.dtypes, c.encoder_attention)
        x = conv(c.vision_width, c.patch_size, c.patch_size, c.dtypes, "patches", padding="VALID")(images)
        n, rows, columns, _ = x.shape
        x = x.astype(c.dtypes.parameters) + grid_positions(rows, columns, c.vision_width)[None].astype(c.dtypes.parameters)
        tokens, _ = stack(EncoderBlock, settings, nn.broadcast, c.remat, c.unroll, "blocks")(
            x.reshape(n, rows * columns, c.vision_width), None
        )
        return norm(c.dtypes, "norm")(tokens).reshape(n, rows, columns, c.vision_width)


class ImageEncoder(nn.Module):
    """Images of one camera -> tokens of the model's width, with their place in the image but not yet camera or time."""

    config: ModelConfig

    @nn.compact
    def __call__(self, images: UInt8[Array, "n y x c"], instruction: Float[Array, "n d"] | None = None) -> Float[Array, "n m d"]:
        c = self.config
        size = vision_size(c.vision)
        if size is not None:
            mean, deviation = (jnp.asarray(part, c.dtypes.parameters)[None, None, None] for part in size.pixels)
            pixels = (images.astype(c.dtypes.parameters) / 255 - mean) / deviation
            if isinstance(size, TowerSize):
                features = VisionTower(size, c.dtypes, c.remat, c.unroll, name=size.family)(pixels)
            else:
                features = ImageNetResNet(size, c.dtypes, name=size.family)(pixels, instruction)
            # A gradient that FiLM needs passes through what is frozen around it; training holds that by name (`ModelConfig.frozen`).
            features = jax.lax.stop_gradient(features) if c.vision_frozen and not c.film else features
        elif c.vision == "vit":
            features = ViT(c, name="vit")(images.astype(c.dtypes.parameters) / 127.5 - 1)
        else:
            pixels = images.astype(c.dtypes.parameters) / 127.5 - 1
            features = ResNet(STAGES[c.vision], c.vision_width, c.stem, c.dtypes, name="resnet")(pixels, instruction)
        features = features.astype(c.dtypes.parameters)
        n, rows, columns, _ = features.shape
        if c.pooling == "spatial_softmax":
            logits = dense(c.keypoints, c.dtypes, "keypoints")(features).astype(c.dtypes.parameters)
            return dense(c.width, c.dtypes, "out")(spatial_softmax(logits))[:, None].astype(c.dtypes.parameters)
        tokens = dense(c.width, c.dtypes, "out")(features).astype(c.dtypes.parameters)
        tokens = tokens + grid_positions(rows, columns, c.width)[None].astype(tokens.dtype)
        return tokens.reshape(n, rows * columns, c.width)


def check_cameras(config: ModelConfig, spec: ObservationSpec) -> None:
    """Raises ValueError for images that the config's encoder cannot be shown, and for FiLM without an instruction."""
    if not spec.cameras and (config.vision_frozen or config.vision_weights):
        raise ValueError(
            f"model.cameras must name a camera for model.vision={config.vision!r} with weights of its own, got none. Name one, or leave "
            "model.vision_weights and model.vision_frozen out."
        )
    tower = TOWERS.get(config.vision)
    patch = tower.patch if tower else config.patch_size if config.vision == "vit" else 1
    for camera in spec.cameras:
        height, width = camera.height, camera.width
        if height % patch or width % patch:
            remedy = "Resize them, data.image_size" + (", or change model.patch_size." if config.vision == "vit" else f"={16 * patch} say.")
            raise ValueError(
                f"images of camera {camera.name!r} must be divisible by patch_size = {patch}, got {height} x {width}. {remedy}"
            )
    if config.film and spec.language.kind == "none":
        raise ValueError("model.film must be False without an instruction, got True and language of kind 'none'. Set data.language.")


def conv(channels: int, size: int, stride: int, dtypes: Precision, name: str, padding: str = "SAME") -> nn.Conv:
    return nn.Conv(
        channels,
        (size, size),
        (stride, stride),
        padding=padding,
        use_bias=False,
        dtype=dtypes.products,
        param_dtype=dtypes.parameters,
        precision=dtypes.multiplied,
        kernel_init=nn.initializers.variance_scaling(2.0, "fan_in", "truncated_normal"),
        name=name,
    )


def group_norm(channels: int, dtypes: Precision, name: str, scale_init: nn.initializers.Initializer = nn.initializers.ones) -> nn.GroupNorm:
    """Normalises groups of about 16 channels of one image."""
    return nn.GroupNorm(
        num_groups=max(1, channels // _CHANNELS_PER_GROUP),
        dtype=dtypes.parameters,
        param_dtype=dtypes.parameters,
        scale_init=scale_init,
        name=name,
    )

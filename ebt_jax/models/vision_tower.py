"""DINOv2 (Oquab et al. 2023) and SigLIP's vision tower (Zhai et al. 2023): patch features of images of any size that patches fill."""

import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Float

from ebt_jax.models.config import Precision, in_full
from ebt_jax.models.sizes import TowerSize
from ebt_jax.models.tensors import Layout, convolution, layer_norm, linear, same
from ebt_jax.models.tower import TowerBlock, TowerSettings
from ebt_jax.models.tower import layer_norm as norm
from ebt_jax.models.transformer import stack


class VisionTower(nn.Module):
    """Normalised images -> one feature a patch, after the last norm. DINOv2's class token and registers are computed and dropped."""

    size: TowerSize
    dtypes: Precision
    remat: bool = False
    unroll: int = 1

    def __call__(self, images: Float[Array, "n y x c"]) -> Float[Array, "n y2 x2 d"]:
        tokens = self.tokens(images)
        rows, columns = images.shape[1] // self.size.patch, images.shape[2] // self.size.patch
        return tokens[:, tokens.shape[1] - rows * columns :].reshape(len(images), rows, columns, self.size.width)

    @nn.compact
    def tokens(self, images: Float[Array, "n y x c"]) -> Float[Array, "n m d"]:
        """Class token, registers and patches, as many as the family has."""
        s, dtypes, dino = self.size, self.dtypes, self.size.family == "dinov2"
        initial = nn.initializers.normal(0.02)
        x = nn.Conv(
            s.width,
            (s.patch,) * 2,
            (s.patch,) * 2,
            padding="VALID",
            dtype=dtypes.products,
            param_dtype=dtypes.parameters,
            precision=dtypes.multiplied,
            name="patches",
        )(images)
        n, rows, columns, _ = x.shape
        positions = self.param("positions", initial, (dino + s.grid**2, s.width), dtypes.parameters)
        place = interpolate(positions[int(dino) :], s.grid, rows, columns, antialias=s.registers > 0)
        x = x.reshape(n, rows * columns, s.width).astype(dtypes.parameters) + place[None]
        if dino:
            first = self.param("class_token", initial, (1, s.width), dtypes.parameters) + positions[:1]
            if s.registers:
                first = jnp.concatenate([first, self.param("registers", initial, (s.registers, s.width), dtypes.parameters)])
            x = jnp.concatenate([jnp.broadcast_to(first[None], (n, *first.shape)), x], axis=1)
        settings = TowerSettings(s.width, s.layers, s.heads, s.mlp_width, dtypes, exact_gelu=dino, layer_scale=dino)
        x, _ = stack(TowerBlock, settings, nn.broadcast, self.remat, self.unroll, "blocks")(x, None)
        return norm(dtypes, settings.epsilon, "norm")(x)


def interpolate(positions: Float[Array, "m d"], grid: int, rows: int, columns: int, antialias: bool) -> Float[Array, "m2 d"]:
    """A square of learned positions at another number of patches, bicubic as the published code does it."""
    if (rows, columns) == (grid, grid):
        return positions
    row, column = (jnp.asarray(bicubic(grid, count, antialias), positions.dtype) for count in (rows, columns))
    resized = jnp.einsum("yr,xc,rcd->yxd", row, column, positions.reshape(grid, grid, -1), precision=in_full(positions.dtype))
    return resized.reshape(rows * columns, -1)


def bicubic(old: int, new: int, antialias: bool) -> Float[np.ndarray, "new old"]:
    """Weights of `old` samples in each of `new`, pixel centres at halves, as torch.nn.functional.interpolate draws them.

    Without `antialias` the kernel (a = -0.75) keeps its width when shrinking, and what it reads past the border is the border's
    sample; with it (a = -0.5) the kernel widens, and weights past the border are left out.
    """
    ratio = old / new
    stretch, a = (max(ratio, 1.0), -0.5) if antialias else (1.0, -0.75)
    centers = (np.arange(new) + 0.5) * ratio - 0.5
    reach = int(np.ceil(2 * stretch)) + 1
    taps = np.floor(centers)[:, None] + np.arange(-reach, reach + 1)
    x = np.abs(taps - centers[:, None]) / stretch
    near, far = (a + 2) * x**3 - (a + 3) * x**2 + 1, a * (x**3 - 5 * x**2 + 8 * x - 4)
    weights = np.where(x <= 1, near, np.where(x < 2, far, 0.0))
    if antialias:
        weights = np.where((taps >= 0) & (taps < old), weights, 0.0)
    matrix = np.zeros((new, old))
    np.add.at(matrix, (np.arange(new)[:, None], np.clip(taps, 0, old - 1).astype(int)), weights)
    return matrix / matrix.sum(1, keepdims=True)


_DINOV2 = Layout(
    {
        "class_token": same("embeddings.cls_token"),
        "positions": same("embeddings.position_embeddings"),
        **convolution("patches", "embeddings.patch_embeddings.projection", bias=True),
        **layer_norm("norm", "layernorm"),
        **layer_norm("blocks/norm1", "encoder.layer.{}.norm1"),
        **layer_norm("blocks/norm2", "encoder.layer.{}.norm2"),
        **linear("blocks/attention/query", "encoder.layer.{}.attention.attention.query"),
        **linear("blocks/attention/key", "encoder.layer.{}.attention.attention.key"),
        **linear("blocks/attention/value", "encoder.layer.{}.attention.attention.value"),
        **linear("blocks/attention/out", "encoder.layer.{}.attention.output.dense"),
        **linear("blocks/mlp/hidden", "encoder.layer.{}.mlp.fc1"),
        **linear("blocks/mlp/out", "encoder.layer.{}.mlp.fc2"),
        "blocks/scale1": same("encoder.layer.{}.layer_scale1.lambda1"),
        "blocks/scale2": same("encoder.layer.{}.layer_scale2.lambda1"),
    },
    prefixes=("", "dinov2.", "dinov2_with_registers."),
    unused=("embeddings.mask_token", "classifier.*"),
)

_SIGLIP = Layout(
    {
        "positions": same("embeddings.position_embedding.weight"),
        **convolution("patches", "embeddings.patch_embedding", bias=True),
        **layer_norm("norm", "post_layernorm"),
        **layer_norm("blocks/norm1", "encoder.layers.{}.layer_norm1"),
        **layer_norm("blocks/norm2", "encoder.layers.{}.layer_norm2"),
        **linear("blocks/attention/query", "encoder.layers.{}.self_attn.q_proj"),
        **linear("blocks/attention/key", "encoder.layers.{}.self_attn.k_proj"),
        **linear("blocks/attention/value", "encoder.layers.{}.self_attn.v_proj"),
        **linear("blocks/attention/out", "encoder.layers.{}.self_attn.out_proj"),
        **linear("blocks/mlp/hidden", "encoder.layers.{}.mlp.fc1"),
        **linear("blocks/mlp/out", "encoder.layers.{}.mlp.fc2"),
    },
    prefixes=("", "vision_model."),
    unused=("head.*", "text_model.*", "logit_scale", "logit_bias"),
)


def layouts(size: TowerSize) -> tuple[Layout, ...]:
    """The published names of this tower's parameters."""
    if size.family == "siglip":
        return (_SIGLIP,)
    registers = {"registers": same("embeddings.register_tokens")} if size.registers else {}
    return (_DINOV2._replace(sources={**_DINOV2.sources, **registers}),)

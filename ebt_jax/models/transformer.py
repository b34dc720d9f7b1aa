"""x + attention(norm(x)), x + mlp(norm(x)): the two kinds of block, stacked under one scan over layers.

Decoders are smooth and made of plain XLA operations, so that energies are twice differentiable in the actions. The fused attention
kernels (cuDNN, Pallas) are not, and serve encoders alone: an energy is differentiated in the actions, which no observation token sees,
so that the encoder's keys and values want one derivative and no more. Residuals, norms and softmax keep the parameters' precision.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float

from ebt_jax.models.config import Precision, in_full


@dataclasses.dataclass(frozen=True)
class BlockSettings:
    """What the blocks of one stack share.

    Attributes:
      depth: scales the output projections, so that a deep stack starts near the identity.
      attention: "einsum", or "fused" for encoder blocks: cuDNN's kernel where there is a GPU, elsewhere the same as "einsum".
    """

    width: int
    heads: int
    mlp_ratio: int
    qk_norm: bool
    depth: int
    dtypes: Precision
    attention: str = "einsum"

    @property
    def head_width(self) -> int:
        return self.width // self.heads

    @property
    def output_scale(self) -> float:
        return 1 / (2 * self.depth)


def dense(
    features: int | tuple[int, ...], dtypes: Precision, name: str | None = None, scale: float = 1.0, use_bias: bool = True
) -> nn.DenseGeneral:
    """x W + c, with W of variance scale / fan-in."""
    return nn.DenseGeneral(
        features,
        use_bias=use_bias,
        dtype=dtypes.products,
        param_dtype=dtypes.parameters,
        precision=dtypes.multiplied,
        kernel_init=nn.initializers.variance_scaling(scale, "fan_in", "truncated_normal"),
        name=name,
    )


def norm(dtypes: Precision, name: str | None = None) -> nn.RMSNorm:
    """x / sqrt(mean(x^2) + 1e-6) * scale, in the parameters' precision."""
    return nn.RMSNorm(epsilon=1e-6, dtype=dtypes.parameters, param_dtype=dtypes.parameters, name=name)


def sin_cos(positions: Float[Array, " n"], width: int) -> Float[Array, "n d"]:
    """[sin(p w_i), cos(p w_i)], w_i = 10000^(-2i/d): fixed positions that hold for any length (Vaswani et al. 2017)."""
    frequencies = 10_000.0 ** (-jnp.arange(width // 2) / (width // 2))
    angles = positions[:, None] * frequencies[None, :]
    return jnp.concatenate([jnp.sin(angles), jnp.cos(angles)], axis=-1)


def attend(
    queries: Float[Array, "b q heads k"],
    keys: Float[Array, "b heads k n"],
    values: Float[Array, "b heads k n"],
    mask: Bool[Array, "#b #q n"] | None = None,
) -> Float[Array, "b q heads k"]:
    """softmax(q k^T / sqrt(k)) v over the positions whose mask is True; for every query at least one must be.

    With positions last in keys and values, neither this nor its derivative in the queries turns them around: in any other order
    XLA's products on a CPU copy all of them at every step of a descent.
    """
    softmax_dtype = jnp.promote_types(queries.dtype, jnp.float32)
    logits = score(jnp.moveaxis(queries, 1, 2), keys) * queries.shape[-1] ** -0.5
    if mask is not None:
        logits = jnp.where(mask[:, None], logits, jnp.finfo(softmax_dtype).min)
    weights = jax.nn.softmax(logits, axis=-1).astype(values.dtype)
    return jnp.moveaxis(mix(weights, values), 2, 1)


def _score(x: Float[Array, "b heads q k"], y: Float[Array, "b heads k n"]) -> Float[Array, "b heads q n"]:
    """x y, in float32 at least."""
    return _product(x, y, (3, 2), jnp.promote_types(x.dtype, jnp.float32))


def _mix(x: Float[Array, "b heads q n"], y: Float[Array, "b heads k n"]) -> Float[Array, "b heads q k"]:
    """x y^T, with the large array first: on a CPU in two thirds of the time of the other order."""
    return jnp.swapaxes(_product(y, x, (3, 3), y.dtype), 2, 3)


def _product(x: Array, y: Array, contracted: tuple[int, int], dtype: DTypeLike) -> Array:
    axes = ((contracted[0],), (contracted[1],)), ((0, 1), (0, 1))
    return jax.lax.dot_general(x, y, axes, precision=in_full(x.dtype, y.dtype), preferred_element_type=dtype)


# In x, either is the other's derivative. JAX's own rules would put the cotangent first, whichever array is large. What stands in the
# rules is plain, so that they can be differentiated in both directions: the lean descent goes forward over reverse.
score, mix = jax.custom_vjp(_score), jax.custom_vjp(_mix)
score.defvjp(
    lambda x, y: (_score(x, y), (x, y)),
    lambda xy, cotangent: (_mix(cotangent, xy[1]).astype(xy[0].dtype), _product(xy[0], cotangent, (2, 2), xy[1].dtype)),
)
mix.defvjp(
    lambda x, y: (_mix(x, y), (x, y)),
    lambda xy, cotangent: (_score(cotangent, xy[1]).astype(xy[0].dtype), _product(cotangent, xy[0], (2, 2), xy[1].dtype)),
)


def positions_last(x: Float[Array, "b n heads k"]) -> Float[Array, "b heads k n"]:
    """Keys or values in the order in which `attend` reads them."""
    return jnp.transpose(x, (0, 2, 3, 1))


def attend_fused(
    queries: Float[Array, "b q heads k"],
    keys: Float[Array, "b n heads k"],
    values: Float[Array, "b n heads k"],
    mask: Bool[Array, "b n"] | None = None,
) -> Float[Array, "b q heads k"]:
    """`attend` in one cuDNN kernel that never writes the weights to memory; the mask must be True first and then False.

    Can be differentiated once. Wants a GPU and bfloat16.
    """
    lengths = None if mask is None else jnp.sum(mask, axis=1, dtype=jnp.int32)
    return jax.nn.dot_product_attention(queries, keys, values, key_value_seq_lengths=lengths, implementation="cudnn")


def check_twice_differentiable(settings: BlockSettings) -> None:
    """Raises ValueError for decoder blocks that training could not differentiate."""
    if settings.attention != "einsum":
        raise ValueError(
            f"attention of a decoder block must be 'einsum', got {settings.attention!r}. Training differentiates dE/da once more, which "
            "fused kernels cannot; in the encoder they are fine: model.encoder_attention."
        )


class SelfAttention(nn.Module):
    """Every position attends to every position whose mask is True."""

    settings: BlockSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None = None) -> Float[Array, "b n d"]:
        s = self.settings
        projected = dense((3, s.heads, s.head_width), s.dtypes, "query_key_value", use_bias=False)(x)
        queries, keys, values = (projected[:, :, i] for i in range(3))
        if s.qk_norm:
            queries, keys = norm(s.dtypes, "query_norm")(queries), norm(s.dtypes, "key_norm")(keys)
        queries, keys = queries.astype(values.dtype), keys.astype(values.dtype)
        if s.attention == "fused" and jax.default_backend() == "gpu":
            mixed = attend_fused(queries, keys, values, mask)
        else:
            mixed = attend(queries, positions_last(keys), positions_last(values), None if mask is None else mask[:, None])
        return dense(s.width, s.dtypes, "out", s.output_scale)(mixed.reshape(x.shape))


class CrossAttention(nn.Module):
    """Every position attends to keys and values that were computed beforehand."""

    settings: BlockSettings

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b q d"],
        keys: Float[Array, "b heads k n"],
        values: Float[Array, "b heads k n"],
        mask: Bool[Array, "b n"],
    ) -> Float[Array, "b q d"]:
        s = self.settings
        queries = dense((s.heads, s.head_width), s.dtypes, "query", use_bias=False)(x)
        if s.qk_norm:
            queries = norm(s.dtypes, "query_norm")(queries)
        mixed = attend(queries.astype(values.dtype), keys, values, mask[:, None])
        return dense(s.width, s.dtypes, "out", s.output_scale)(mixed.reshape(x.shape))


class MLP(nn.Module):
    """W2 gelu(W1 x)."""

    settings: BlockSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        s = self.settings
        hidden = dense(s.mlp_ratio * s.width, s.dtypes, "hidden")(x).astype(s.dtypes.parameters)
        return dense(s.width, s.dtypes, "out", s.output_scale)(jax.nn.gelu(hidden))


class EncoderBlock(nn.Module):
    """Self-attention over the valid tokens, then an MLP."""

    settings: BlockSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None) -> tuple[Float[Array, "b n d"], None]:
        s = self.settings
        x = x + SelfAttention(s, name="self_attention")(norm(s.dtypes, "self_norm")(x), mask)
        x = x + MLP(s, name="mlp")(norm(s.dtypes, "mlp_norm")(x))
        return x, None


class DecoderBlock(nn.Module):
    """Self-attention over action tokens, cross-attention to the cached context, then an MLP."""

    settings: BlockSettings

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b q d"],
        keys: Float[Array, "b heads k n"],
        values: Float[Array, "b heads k n"],
        mask: Bool[Array, "b n"],
    ) -> tuple[Float[Array, "b q d"], None]:
        s = self.settings
        check_twice_differentiable(s)
        x = x + SelfAttention(s, name="self_attention")(norm(s.dtypes, "self_norm")(x))
        x = x + CrossAttention(s, name="cross_attention")(norm(s.dtypes, "cross_norm")(x), keys, values, mask)
        x = x + MLP(s, name="mlp")(norm(s.dtypes, "mlp_norm")(x))
        return x, None


class AdaptiveDecoderBlock(nn.Module):
    """`DecoderBlock` whose branches a condition scales, shifts and gates, the gates shut at first (AdaLN-zero, Peebles & Xie 2023)."""

    settings: BlockSettings

    @nn.compact
    def __call__(
        self,
        x: Float[Array, "b q d"],
        keys: Float[Array, "b heads k n"],
        values: Float[Array, "b heads k n"],
        mask: Bool[Array, "b n"],
        condition: Float[Array, "b d"],
    ) -> tuple[Float[Array, "b q d"], None]:
        s = self.settings
        check_twice_differentiable(s)
        modulation = dense((3, 3, s.width), s.dtypes, "modulation", scale=0.0)(nn.silu(condition)).astype(s.dtypes.parameters)
        cross_attention = CrossAttention(s, name="cross_attention")
        branches = {
            "self_norm": SelfAttention(s, name="self_attention"),
            "cross_norm": lambda y: cross_attention(y, keys, values, mask),
            "mlp_norm": MLP(s, name="mlp"),
        }
        for i, (name, branch) in enumerate(branches.items()):
            shift, scale, gate = (modulation[:, None, i, j] for j in range(3))
            x = x + gate * branch(norm(s.dtypes, name)(x) * (1 + scale) + shift)
        return x, None


def stack(block: type[nn.Module], settings: Any, in_axes: Any, remat: bool, unroll: int, name: str | None = None) -> nn.Module:
    """`settings.depth` blocks as one scan over parameters with a leading layer axis: compiled once, whatever the depth."""
    if remat:
        block = nn.remat(block, prevent_cse=False)
    scanned = nn.scan(
        block,
        variable_axes={"params": 0},
        split_rngs={"params": True},
        in_axes=in_axes,
        length=settings.depth,
        unroll=min(unroll, settings.depth),
    )
    return scanned(settings, name=name)

"""Transformer blocks as published encoders have them: LayerNorm, biases everywhere, three projections.

norm first   x + s1 * attention(norm1(x)),  x + s2 * mlp(norm2(x))        vision transformers; s is DINOv2's layer scale
norm last    norm1(x + attention(x)),       norm2(x + mlp(x))             BERT
"""

import dataclasses
import functools

import jax
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from ebt_jax.models.config import Precision
from ebt_jax.models.transformer import attend, dense, positions_last


@dataclasses.dataclass(frozen=True)
class TowerSettings:
    """What the blocks of one published encoder share.

    Attributes:
      exact_gelu: x Phi(x); False takes the tanh approximation.
      norm_first, layer_scale: see the formulas above.
    """

    width: int
    depth: int
    heads: int
    mlp_width: int
    dtypes: Precision
    epsilon: float = 1e-6
    exact_gelu: bool = True
    norm_first: bool = True
    layer_scale: bool = False


def layer_norm(dtypes: Precision, epsilon: float, name: str) -> nn.LayerNorm:
    """(x - mean) / sqrt(variance + epsilon) * scale + bias, in the parameters' precision."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtypes.parameters, param_dtype=dtypes.parameters, use_fast_variance=False, name=name)


class TowerAttention(nn.Module):
    """Every position attends to every position whose mask is True."""

    settings: TowerSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None) -> Float[Array, "b n d"]:
        s = self.settings
        split = lambda name: dense(s.width, s.dtypes, name)(x).reshape(*x.shape[:2], s.heads, s.width // s.heads)
        keys, values = positions_last(split("key")), positions_last(split("value"))
        mixed = attend(split("query"), keys, values, None if mask is None else mask[:, None])
        return dense(s.width, s.dtypes, "out")(mixed.reshape(x.shape))


class TowerMLP(nn.Module):
    """W2 gelu(W1 x)."""

    settings: TowerSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        s = self.settings
        hidden = dense(s.mlp_width, s.dtypes, "hidden")(x).astype(s.dtypes.parameters)
        return dense(s.width, s.dtypes, "out")(jax.nn.gelu(hidden, approximate=not s.exact_gelu))


class TowerBlock(nn.Module):
    """One block; for `transformer.stack`."""

    settings: TowerSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"] | None) -> tuple[Float[Array, "b n d"], None]:
        s = self.settings
        attention = functools.partial(TowerAttention(s, name="attention"), mask=mask)
        for number, branch in (("1", attention), ("2", TowerMLP(s, name="mlp"))):
            norm = layer_norm(s.dtypes, s.epsilon, f"norm{number}")
            if not s.norm_first:
                x = norm(x + branch(x).astype(s.dtypes.parameters))
                continue
            change = branch(norm(x)).astype(s.dtypes.parameters)
            if s.layer_scale:
                change = change * self.param(f"scale{number}", nn.initializers.ones, (s.width,), s.dtypes.parameters)[None, None]
            x = x + change
        return x, None

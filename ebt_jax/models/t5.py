"""The encoder of T5 (Raffel et al. 2020), of T5 v1.1 and of Flan-T5: one vector a token of the instruction."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from ebt_jax.models.config import Precision
from ebt_jax.models.sizes import TextSize
from ebt_jax.models.tensors import Layout, Source, linear, same
from ebt_jax.models.transformer import dense, norm, stack

_BUCKETS, _MAX_DISTANCE = 32, 128


@dataclasses.dataclass(frozen=True)
class T5Settings:
    """What the blocks share."""

    size: TextSize
    depth: int
    dtypes: Precision


class T5Block(nn.Module):
    """x + attention(norm(x)), x + mlp(norm(x)); logits are not scaled, a bias of the distance is added to them."""

    settings: T5Settings

    @nn.compact
    def __call__(
        self, x: Float[Array, "b n d"], mask: Bool[Array, "b n"], bias: Float[Array, "heads n n"]
    ) -> tuple[Float[Array, "b n d"], None]:
        s, dtypes = self.settings.size, self.settings.dtypes
        linear = lambda features, name: dense(features, dtypes, name, use_bias=False)
        y = norm(dtypes, "self_norm")(x)
        queries, keys, values = (linear((s.heads, s.head_width), name)(y) for name in ("query", "key", "value"))
        logits = jnp.einsum("bqhk,bnhk->bhqn", queries, keys, precision=dtypes.multiplied, preferred_element_type=dtypes.parameters)
        logits = logits + bias[None]
        weights = jax.nn.softmax(jnp.where(mask[:, None, None], logits, jnp.finfo(logits.dtype).min), axis=-1)
        mixed = jnp.einsum("bhqn,bnhk->bqhk", weights.astype(values.dtype), values, precision=dtypes.multiplied)
        x = x + linear(s.width, "out")(mixed.reshape(*x.shape[:2], -1)).astype(dtypes.parameters)
        y = norm(dtypes, "mlp_norm")(x)
        hidden = linear(s.mlp_width, "hidden")(y).astype(dtypes.parameters)
        hidden = jax.nn.gelu(hidden) * linear(s.mlp_width, "gated")(y).astype(dtypes.parameters) if s.gated else jax.nn.relu(hidden)
        return x + linear(s.width, "mlp_out")(hidden).astype(dtypes.parameters), None


class T5(nn.Module):
    """Token ids and their mask -> one vector a token, after the last norm."""

    size: TextSize
    dtypes: Precision
    remat: bool = False
    unroll: int = 1

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        s, dtypes = self.size, self.dtypes
        initial = nn.initializers.normal(1.0)
        x = nn.Embed(s.vocabulary, s.width, param_dtype=dtypes.parameters, embedding_init=initial, name="words")(ids)
        distances = self.param("distances", nn.initializers.normal(0.02), (_BUCKETS, s.heads), dtypes.parameters)
        bias = jnp.moveaxis(distances[distance_buckets(ids.shape[1])], -1, 0)
        blocks: Any = stack(T5Block, T5Settings(s, s.layers, dtypes), (nn.broadcast,) * 2, self.remat, self.unroll, "blocks")
        x, _ = blocks(x, mask, bias)
        return norm(dtypes, "norm")(x)


def distance_buckets(length: int) -> Int[np.ndarray, "q n"]:
    """The bucket of n - q: half for either direction; of each half the first 8 for 0..7 and 8 more, logarithmic, up to 128."""
    offset = np.arange(length)[None] - np.arange(length)[:, None]
    half, exact = _BUCKETS // 2, _BUCKETS // 4
    distance = np.abs(offset)
    steps = np.log(np.maximum(distance, 1).astype(np.float32) / exact) / np.float32(np.log(_MAX_DISTANCE / exact)) * (half - exact)
    far = np.minimum(exact + steps.astype(np.int32), half - 1)
    return np.where(distance < exact, distance, far) + half * (offset > 0)


def _heads(path: str, name: str, heads: int) -> dict[str, Source]:
    """torch.nn.Linear [heads * k, in] -> [in heads k]."""
    return {f"{path}/kernel": Source((f"{name}.weight",), lambda x: x.T.reshape(x.shape[1], heads, -1))}


def layouts(size: TextSize) -> tuple[Layout, ...]:
    """The published names of this encoder's parameters."""
    attention, mlp = "encoder.block.{}.layer.0.SelfAttention", "encoder.block.{}.layer.1.DenseReluDense"
    sources = {
        "words/embedding": same("shared.weight"),
        "distances": same("encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight"),
        "norm/scale": same("encoder.final_layer_norm.weight"),
        "blocks/self_norm/scale": same("encoder.block.{}.layer.0.layer_norm.weight"),
        "blocks/mlp_norm/scale": same("encoder.block.{}.layer.1.layer_norm.weight"),
        **_heads("blocks/query", f"{attention}.q", size.heads),
        **_heads("blocks/key", f"{attention}.k", size.heads),
        **_heads("blocks/value", f"{attention}.v", size.heads),
        **linear("blocks/out", f"{attention}.o", bias=False),
        **linear("blocks/hidden", f"{mlp}.{'wi_0' if size.gated else 'wi'}", bias=False),
        **(linear("blocks/gated", f"{mlp}.wi_1", bias=False) if size.gated else {}),
        **linear("blocks/mlp_out", f"{mlp}.wo", bias=False),
    }
    return (Layout(sources, unused=("decoder.*", "lm_head.*", "encoder.embed_tokens.weight")),)

"""MiniLM (Wang et al. 2020) as a sentence encoder: a small BERT whose mean token, scaled to length 1, stands for the instruction."""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from ebt_jax.models.config import Precision
from ebt_jax.models.sizes import TextSize
from ebt_jax.models.tensors import Layout, layer_norm, linear, same
from ebt_jax.models.tower import TowerBlock, TowerSettings
from ebt_jax.models.tower import layer_norm as norm
from ebt_jax.models.transformer import stack

_EPSILON = 1e-12
_POSITIONS, _TYPES = 512, 2


class Bert(nn.Module):
    """Token ids and their mask -> one vector a token."""

    size: TextSize
    dtypes: Precision
    remat: bool = False
    unroll: int = 1

    @nn.compact
    def __call__(self, ids: Int[Array, "b l"], mask: Bool[Array, "b l"]) -> Float[Array, "b l d"]:
        s, dtypes = self.size, self.dtypes
        initial = nn.initializers.normal(0.02)
        words = nn.Embed(s.vocabulary, s.width, param_dtype=dtypes.parameters, embedding_init=initial, name="words")(ids)
        positions = self.param("positions", initial, (_POSITIONS, s.width), dtypes.parameters)
        types = self.param("types", initial, (_TYPES, s.width), dtypes.parameters)
        x = norm(dtypes, _EPSILON, "norm")(words + positions[None, : ids.shape[1]] + types[None, :1])
        settings = TowerSettings(s.width, s.layers, s.heads, s.mlp_width, dtypes, epsilon=_EPSILON, norm_first=False)
        x, _ = stack(TowerBlock, settings, nn.broadcast, self.remat, self.unroll, "blocks")(x, mask)
        return x


def sentence(tokens: Float[Array, "b l d"], mask: Bool[Array, "b l"]) -> Float[Array, "b d"]:
    """mean / |mean| over the tokens whose mask is True; 0 where none is."""
    total = jnp.sum(jnp.where(mask[:, :, None], tokens, 0), axis=1)
    mean = total / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)
    return mean / jnp.sqrt(jnp.maximum(jnp.sum(mean**2, axis=1, keepdims=True), 1e-24))


LAYOUT = Layout(
    {
        "words/embedding": same("embeddings.word_embeddings.weight"),
        "positions": same("embeddings.position_embeddings.weight"),
        "types": same("embeddings.token_type_embeddings.weight"),
        **layer_norm("norm", "embeddings.LayerNorm"),
        **linear("blocks/attention/query", "encoder.layer.{}.attention.self.query"),
        **linear("blocks/attention/key", "encoder.layer.{}.attention.self.key"),
        **linear("blocks/attention/value", "encoder.layer.{}.attention.self.value"),
        **linear("blocks/attention/out", "encoder.layer.{}.attention.output.dense"),
        **layer_norm("blocks/norm1", "encoder.layer.{}.attention.output.LayerNorm"),
        **linear("blocks/mlp/hidden", "encoder.layer.{}.intermediate.dense"),
        **linear("blocks/mlp/out", "encoder.layer.{}.output.dense"),
        **layer_norm("blocks/norm2", "encoder.layer.{}.output.LayerNorm"),
    },
    prefixes=("", "bert."),
    unused=("pooler.*", "embeddings.position_ids", "cls.*"),
)

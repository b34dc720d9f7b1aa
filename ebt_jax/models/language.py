"""Instructions -> tokens: embeddings that the dataset carries, trainable vectors of token ids, or a published text encoder of them."""

import jax
import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Int

from ebt_jax.models.bert import Bert, sentence
from ebt_jax.models.config import ModelConfig
from ebt_jax.models.sizes import TEXTS
from ebt_jax.models.t5 import T5
from ebt_jax.models.transformer import dense, norm, sin_cos
from ebt_jax.specs import LanguageSpec
from ebt_jax.types import AnyArray


class LanguageEncoder(nn.Module):
    """One token a word with its position, or one for the sentence; what the mask hides has no influence on the rest."""

    config: ModelConfig
    spec: LanguageSpec

    @nn.compact
    def __call__(
        self, language: Float[AnyArray, "b l e"] | Int[AnyArray, "b l"], mask: Bool[AnyArray, "b l"]
    ) -> tuple[Float[Array, "b l2 d"], Bool[AnyArray, "b l2"]]:
        c = self.config
        if self.spec.kind == "tokens" and c.language == "words":
            tokens = nn.Embed(self.spec.size, c.width, param_dtype=c.dtypes.parameters, name="embedding")(language)
        else:
            vectors, mask = self.published(language, mask) if self.spec.kind == "tokens" else (language, mask)
            # Published embeddings come at any scale (unit norm, unit variance); NaN behind the mask must not reach a gradient.
            vectors = jnp.where(mask[:, :, None], vectors, 0).astype(c.dtypes.parameters)
            tokens = dense(c.width, c.dtypes, "project")(norm(c.dtypes, "norm")(vectors)).astype(c.dtypes.parameters)
        return tokens + sin_cos(jnp.arange(tokens.shape[1]) * 1.0, c.width)[None].astype(tokens.dtype), mask

    def published(self, ids: Int[AnyArray, "b l"], mask: Bool[AnyArray, "b l"]) -> tuple[Float[Array, "b l2 e"], Bool[Array, "b l2"]]:
        """Features of a published encoder: of the sentence, where it was trained for that, else of each token."""
        c, size, ids, mask = self.config, TEXTS[self.config.language], jnp.asarray(ids), jnp.asarray(mask)
        kind = {"bert": Bert, "t5": T5}[size.family]
        features = kind(size, c.dtypes, c.remat, c.unroll, name=size.family)(ids, mask)
        if size.family == "bert":
            features, mask = sentence(features, mask)[:, None], jnp.any(mask, axis=1, keepdims=True)
        return jax.lax.stop_gradient(features) if c.language_frozen else features, mask


def pooled(tokens: Float[Array, "b l d"], mask: Bool[AnyArray, "b l"]) -> Float[Array, "b d"]:
    """The mean token, 0 without an instruction."""
    return jnp.sum(jnp.where(mask[:, :, None], tokens, 0), axis=1) / jnp.maximum(jnp.sum(mask, axis=1, keepdims=True), 1)


def check_language(config: ModelConfig, spec: LanguageSpec) -> None:
    """Raises ValueError for an instruction that the config's text encoder was not trained to read."""
    size = TEXTS.get(config.language)
    if size is None:
        return
    if spec.kind != "tokens":
        raise ValueError(
            f"model.language={config.language!r} must be given token ids, got language of kind {spec.kind!r}. "
            "Set data.language=tokens, or model.language=words."
        )
    if spec.tokenizer != size.tokenizer or spec.size > size.vocabulary:
        raise ValueError(
            f"model.language={config.language!r} must be given at most {size.vocabulary} ids of its own {size.tokenizer} tokenizer, got "
            f"{spec.size} of {spec.tokenizer!r}. Name the folder that holds its tokenizer.json: model.language_weights or data.tokenizer."
        )

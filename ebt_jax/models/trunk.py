"""What every network shares: observations are encoded once, action tokens are decoded many times.

    observation --> tokens --> encoder --> keys, values of every decoder layer      `encode`, once
                                                      |
    actions ------> tokens --> decoder (self-attention; cross-attention) --> hidden tokens    `decode`, at every step

No observation token attends to an action, so that the context is a function of the observation alone. A head makes of the hidden
tokens a number (`energy.py`) or a chunk (`vector.py`).
"""

from typing import Any, NamedTuple

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float, Key

from ebt_jax.models.config import ModelConfig, PaperConfig
from ebt_jax.models.language import check_language
from ebt_jax.models.observation import ObservationTokens
from ebt_jax.models.transformer import AdaptiveDecoderBlock, BlockSettings, DecoderBlock, EncoderBlock, dense, norm, sin_cos, stack
from ebt_jax.models.vision import check_cameras
from ebt_jax.specs import Specs
from ebt_jax.types import Batch, Observation, Params


class CachedContext(NamedTuple):
    """What every decoder layer reads of an observation.

    Attributes:
      keys, values: one head per `heads`, for each decoder layer: one array of all layers where the decoder loops over them; where it
        is unrolled, an array a layer, so that no step of a descent copies it out of the others'.
      mask: True where a token carries something.
      present: `Observation.action_present`.
    """

    keys: Float[Array, "b layers heads k n"] | tuple[Float[Array, "b heads k n"], ...]
    values: Float[Array, "b layers heads k n"] | tuple[Float[Array, "b heads k n"], ...]
    mask: Bool[Array, "b n"]
    present: Bool[Array, "b a"] | None = None


def cached(
    config: ModelConfig, keys: Float[Array, "b layers heads k n"], values: Float[Array, "b layers heads k n"], mask: Bool[Array, "b n"]
) -> CachedContext:
    """The context as the config's decoder reads it (`read`)."""
    if layer_axis(config) == 1:
        return CachedContext(keys, values, mask)
    layers = range(config.decoder_layers)
    return CachedContext(tuple(keys[:, i] for i in layers), tuple(values[:, i] for i in layers), mask)


def read(context: CachedContext) -> tuple[Float[Array, "..."], Float[Array, "..."]]:
    """Keys and values with all layers along `layer_axis`."""
    keys, values = (jnp.stack(x) if isinstance(x, tuple) else x for x in (context.keys, context.values))
    return keys, values


def layer_axis(config: ModelConfig) -> int:
    """Where `read` gives the layers: along axis 0 if the decoder is unrolled, since XLA drops a stack whose slices are all that is read."""
    return 1 if config.unroll < config.decoder_layers else 0


class Trunk(nn.Module):
    """Observation encoder and action decoder, up to one hidden vector a token.

    Attributes:
      timed: the decoder is conditioned on a time in [0, 1], by AdaLN-zero.
    """

    config: ModelConfig
    specs: Specs
    timed: bool = False

    def setup(self) -> None:
        c = self.config
        layers = (c.encoder_layers, c.encoder_attention), (c.decoder_layers, "einsum")
        settings = [BlockSettings(c.width, c.heads, c.mlp_ratio, c.qk_norm, n, c.dtypes, attention) for n, attention in layers]
        self.tokens = ObservationTokens(c, self.specs.observation)
        self.encoder = stack(EncoderBlock, settings[0], nn.broadcast, c.remat, c.unroll)
        self.encoder_norm = norm(c.dtypes)
        self.key_value = dense((c.decoder_layers, 2, c.heads, c.width // c.heads), c.dtypes, use_bias=False)
        self.key_norm = norm(c.dtypes)
        self.action = dense(c.width, c.dtypes.exact)
        axis = layer_axis(c)
        if self.timed:
            self.time_hidden = dense(c.width, c.dtypes.exact)
            self.time = dense(c.width, c.dtypes.exact)
            self.decoder = stack(AdaptiveDecoderBlock, settings[1], (axis, axis, nn.broadcast, nn.broadcast), c.remat, c.unroll)
        else:
            self.decoder = stack(DecoderBlock, settings[1], (axis, axis, nn.broadcast), c.remat, c.unroll)
        self.head_norm = norm(c.dtypes)
        self.head_hidden = dense(c.width, c.dtypes.exact)

    def encode(self, observation: Observation) -> CachedContext:
        tokens, mask = self.tokens(observation)
        if self.config.encoder_attention == "fused":
            tokens, mask = real_first(tokens, mask)
        tokens, _ = self.encoder(tokens, mask)
        projected = self.key_value(self.encoder_norm(tokens))
        keys, values = projected[:, :, :, 0], projected[:, :, :, 1]
        if self.config.qk_norm:
            keys = self.key_norm(keys).astype(values.dtype)
        return cached(self.config, jnp.moveaxis(keys, 1, -1), jnp.moveaxis(values, 1, -1), mask)

    def decode(
        self, context: CachedContext, actions: Float[Array, "b h a"], time: Float[Array, " b"] | None = None
    ) -> Float[Array, "b q d"]:
        """Hidden tokens, `actions_per_token` actions each (zeros fill the last)."""
        c = self.config
        if (time is not None) != self.timed:
            raise ValueError(f"time must be {'given to' if self.timed else 'None for'} a model made with timed={self.timed}, got {time}.")
        b, h, a = actions.shape
        filler = -h % c.actions_per_token
        groups = jnp.pad(actions, ((0, 0), (0, filler), (0, 0))).reshape(b, -1, c.actions_per_token * a)
        positions = sin_cos(jnp.arange(groups.shape[1]) * 1.0, c.width)[None].astype(c.dtypes.parameters)
        x = self.action(groups) + positions
        condition = () if time is None else (self.time(nn.silu(self.time_hidden(sin_cos(1000 * time, c.width)))),)
        x, _ = self.decoder(x, *read(context), context.mask, *condition)
        return nn.gelu(self.head_hidden(self.head_norm(x)))


def real_first(tokens: Float[Array, "b n d"], mask: Bool[Array, "b n"]) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
    """Tokens in another order, which means nothing to those who attend to them: that of the mask, True first."""
    order = jnp.argsort(~mask, axis=1, stable=True)
    return jnp.take_along_axis(tokens, order[:, :, None], axis=1), jnp.take_along_axis(mask, order, axis=1)


def check_specs(config: ModelConfig, specs: Specs) -> None:
    """Raises ValueError for specs that the config cannot serve."""
    if isinstance(config, PaperConfig) and specs.observation.language.kind != "none":
        raise ValueError(
            f"the published network must have no language, got {specs.observation.language.kind!r}. "
            "Say data.language = none, or use model.variant = small."
        )
    if config.motion_gain and specs.observation.horizon < 2:
        raise ValueError(
            f"model.motion_gain must be 0 for a policy that sees one step, got {config.motion_gain}. "
            "Set data.observation_horizon to 2 or more."
        )
    check_cameras(config, specs.observation)
    check_language(config, specs.observation.language)


def init(network: Trunk, key: Key[Array, ""], batch: Batch) -> Params:
    """The network's parameters. Raises ValueError for a batch that does not show every camera: its encoder would go missing."""
    missing = [camera.name for camera in network.specs.observation.cameras if camera.name not in batch.observation.images]
    if missing:
        raise ValueError(f"the batch at initialisation must show every camera of the specs, got none of {missing}. Pass masked frames.")
    return network.init(key, batch)["params"]


def apply(network: Trunk, params: Params, *arguments: Any, method: str) -> Any:
    """One of the network's methods as a pure function of its parameters."""
    return network.apply({"params": params}, *arguments, method=method)


def encode(network: Trunk, params: Params, observation: Observation) -> CachedContext:
    """The observation's context, with the numbers of an action that its robot has."""
    present = observation.action_present
    return apply(network, params, observation, method="encode")._replace(present=None if present is None else jnp.asarray(present))


def only_present(context: CachedContext, values: Float[Array, "b h a"]) -> Float[Array, "b h a"]:
    """0 in place of numbers that a sample's robot lacks."""
    return values if context.present is None else jnp.where(context.present[:, None], values, 0.0)


def action_shape(specs: Specs) -> tuple[int, int]:
    """(h, a)."""
    return specs.action.horizon, len(specs.action.dimensions)


def check_actions(actions: Float[Array, "b h a"], specs: Specs) -> None:
    """Raises ValueError for chunks that are not the specs'."""
    h, a = action_shape(specs)
    if actions.shape[1:] != (h, a):
        raise ValueError(f"actions must have shape [b, {h}, {a}], got {list(actions.shape)}.")

"""The published EBT-Policy network (arXiv 2510.27545, as its authors' code has it), parameter for parameter.

    observation   each camera: ResNet18 - spatial softmax - 64 numbers - ReLU; with proprio, one vector of features a step
    encoder       Linear + learned positions; blocks of causal self-attention over the steps; no norm at the end
    decoder       Linear - LayerNorm - GELU - Linear - GELU + fixed positions; blocks of self-attention over actions, cross-attention
                  to the encoded steps, MLP
    energy        mean over (h, a) of RMSNorm - Linear - GELU - Linear

With 181 proprio numbers, 7 action numbers and no camera: 3,210,240 parameters in the encoder and 5,405,703 in the decoder. The
published count of the decoder, 5,409,799, holds its 4,096 fixed positions too; here they are constants.

Since E is a mean and not a sum, its gradient is h x a times smaller, and the published step size 1,000 is a step of about 9 for the
sums of `energy.py`. Left out is the dropout of attention (0.3), whose every draw is another energy: a descent that draws anew at
each step follows none of them. Steps before an episode's first are filled with the first, as the published data are.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn
from jax.typing import DTypeLike
from jaxtyping import Array, Bool, Float, Key

from ebt_jax.models.config import PaperConfig, Precision
from ebt_jax.models.observation import check_shapes
from ebt_jax.models.transformer import BlockSettings, attend, norm, positions_last, sin_cos, stack
from ebt_jax.models.trunk import CachedContext, Trunk, cached, layer_axis, read
from ebt_jax.models.vision import STAGES, ResNet, spatial_softmax
from ebt_jax.types import Batch, Observation

FEATURES = 64
"""Numbers that a camera gives."""


class PaperNetwork(Trunk):
    """The network behind `make_energy_model` of a `PaperConfig`."""

    config: PaperConfig

    def setup(self) -> None:
        c = self.config
        encoder, decoder = (BlockSettings(c.width, c.heads, 1, True, n, c.dtypes) for n in (c.encoder_layers, c.decoder_layers))
        self.cameras = {camera.name: CameraFeatures(c) for camera in self.specs.observation.cameras}
        inputs = FEATURES * len(self.cameras) + len(self.specs.observation.proprio)
        self.features = torch_dense(inputs, c.width, c.dtypes)
        self.positions = self.param("positions", nn.initializers.zeros, (self.specs.observation.horizon, c.width), c.dtypes.parameters)
        self.encoder = stack(PaperEncoderBlock, encoder, nn.broadcast, c.remat, c.unroll)
        shared: Any = None  # Linen types in_axes as an integer, and takes None
        self.key_value = nn.vmap(
            KeyValue, variable_axes={"params": 0}, split_rngs={"params": True}, in_axes=shared, out_axes=1, axis_size=c.decoder_layers
        )(decoder)
        self.action_hidden = torch_dense(len(self.specs.action.dimensions), c.width, c.dtypes.exact)
        self.action_norm = nn.LayerNorm(1e-5, dtype=c.dtypes.parameters, param_dtype=c.dtypes.parameters)
        self.action = torch_dense(c.width, c.width, c.dtypes.exact)
        self.decoder = stack(PaperDecoderBlock, decoder, (layer_axis(c), layer_axis(c), nn.broadcast), c.remat, c.unroll)
        self.head_norm = norm(c.dtypes)
        self.head_hidden = xavier(c.width, c.dtypes.exact)
        self.head = xavier(len(self.specs.action.dimensions), c.dtypes.exact)

    def encode(self, observation: Observation) -> CachedContext:
        check_shapes(observation, self.specs.observation)
        x = self.features(self._steps(observation)).astype(self.config.dtypes.parameters) + self.positions[None]
        t = x.shape[1]
        x, _ = self.encoder(x, jnp.tril(jnp.ones((t, t), bool)))
        keys, values = self.key_value(x)
        return cached(self.config, keys, values, jnp.ones(x.shape[:2], bool))

    def energy(self, context: CachedContext, actions: Float[Array, "b h a"]) -> Float[Array, " b"]:
        c = self.config
        t, h = context.mask.shape[1], actions.shape[1]
        start = t - 1 if c.first_action == "newest" else 0
        visible = jnp.asarray(start + np.arange(h)[:, None] >= np.arange(t)[None])
        x = nn.gelu(self.action(nn.gelu(self.action_norm(self.action_hidden(actions)))))
        x = x + sin_cos(jnp.arange(h) * jnp.ones((), x.dtype), c.width)[None]
        x, _ = self.decoder(x, *read(context), visible)
        return jnp.mean(self.head(nn.gelu(self.head_hidden(self.head_norm(x)))), axis=(1, 2))

    def __call__(self, batch: Batch) -> Float[Array, " b"]:
        return self.energy(self.encode(batch.observation), jnp.asarray(batch.actions))

    def _steps(self, observation: Observation) -> Float[Array, "b t f"]:
        """One vector a step: every camera's numbers (zeros where it shows nothing), then proprio."""
        b, t = observation.timestep_mask.shape
        dtype = self.config.dtypes.parameters
        parts = []
        for name, encoder in self.cameras.items():
            if name in observation.images:
                frames = jnp.asarray(observation.images[name])
                seen = encoder(frames.reshape(b * t, *frames.shape[2:])).reshape(b, t, -1)
                parts.append(jnp.where(observation.image_masks[name][:, :, None], seen, 0))
            else:
                parts.append(jnp.zeros((b, t, FEATURES), dtype))
        parts.append(jnp.asarray(observation.proprio, dtype))
        mask = jnp.asarray(observation.timestep_mask)
        features = jnp.where(mask[:, :, None], jnp.concatenate(parts, axis=-1), 0)
        first = jnp.maximum(jnp.arange(t)[None], jnp.argmax(mask, axis=1)[:, None])
        return jnp.take_along_axis(features, first[:, :, None], axis=1)


class CameraFeatures(nn.Module):
    """Images of one camera -> 64 numbers each: ResNet18, 32 expected positions, a linear layer, ReLU."""

    config: PaperConfig

    @nn.compact
    def __call__(self, images: Array) -> Float[Array, "n f"]:
        c = self.config
        pixels = images.astype(c.dtypes.parameters) / 255
        maps = ResNet(STAGES[c.vision], c.vision_width, c.stem, c.dtypes, name="resnet")(pixels)
        places = spatial_softmax(torch_dense(maps.shape[-1], c.keypoints, c.dtypes, "keypoints")(maps).astype(c.dtypes.parameters))
        return nn.relu(torch_dense(2 * c.keypoints, FEATURES, c.dtypes, "out")(places)).astype(c.dtypes.parameters)


class PaperEncoderBlock(nn.Module):
    """Self-attention under a mask, then an MLP."""

    settings: BlockSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "n n"]) -> tuple[Float[Array, "b n d"], None]:
        s = self.settings
        x = x + PaperSelfAttention(s, name="self_attention")(norm(s.dtypes, "self_norm")(x), mask)
        x = x + PaperMLP(s, name="mlp")(norm(s.dtypes, "mlp_norm")(x))
        return x, None


class PaperDecoderBlock(nn.Module):
    """Self-attention over all actions, cross-attention to cached keys and values under a mask, then an MLP."""

    settings: BlockSettings

    @nn.compact
    def __call__(
        self, x: Float[Array, "b q d"], keys: Float[Array, "b heads k n"], values: Float[Array, "b heads k n"], mask: Bool[Array, "q n"]
    ) -> tuple[Float[Array, "b q d"], None]:
        s = self.settings
        x = x + PaperSelfAttention(s, name="self_attention")(norm(s.dtypes, "self_norm")(x))
        y = norm(s.dtypes, "cross_norm")(x)
        queries = norm(s.dtypes, "query_norm")(xavier((s.heads, s.head_width), s.dtypes, "query")(y)).astype(values.dtype)
        mixed = attend(queries, keys, values, mask[None])
        x = x + xavier(s.width, s.dtypes, "cross_out", use_bias=False)(mixed.reshape(x.shape))
        x = x + PaperMLP(s, name="mlp")(norm(s.dtypes, "mlp_norm")(x))
        return x, None


class PaperSelfAttention(nn.Module):
    """Queries and keys RMS-normalised per head, a bias on every product."""

    settings: BlockSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"], mask: Bool[Array, "n n"] | None = None) -> Float[Array, "b n d"]:
        s = self.settings
        projected = xavier((3, s.heads, s.head_width), s.dtypes, "query_key_value")(x)
        queries, keys, values = (projected[:, :, i] for i in range(3))
        queries, keys = norm(s.dtypes, "query_norm")(queries), norm(s.dtypes, "key_norm")(keys)
        keys = keys.astype(values.dtype)
        mixed = attend(queries.astype(values.dtype), positions_last(keys), positions_last(values), None if mask is None else mask[None])
        return xavier(s.width, s.dtypes, "out")(mixed.reshape(x.shape))


class KeyValue(nn.Module):
    """Encoded steps -> what one decoder layer's cross-attention reads: RMS-normalised keys, and values."""

    settings: BlockSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> tuple[Float[Array, "b heads k n"], Float[Array, "b heads k n"]]:
        s = self.settings
        projected = xavier((2, s.heads, s.head_width), s.dtypes, "product")(x)
        keys, values = projected[:, :, 0], projected[:, :, 1]
        return positions_last(norm(s.dtypes, "key_norm")(keys).astype(values.dtype)), positions_last(values)


class PaperMLP(nn.Module):
    """W2 gelu(W1 x), all of one width."""

    settings: BlockSettings

    @nn.compact
    def __call__(self, x: Float[Array, "b n d"]) -> Float[Array, "b n d"]:
        s = self.settings
        hidden = xavier(s.width, s.dtypes, "hidden")(x).astype(s.dtypes.parameters)
        return xavier(s.width, s.dtypes, "out")(nn.gelu(hidden))


def xavier(features: int | tuple[int, ...], dtypes: Precision, name: str | None = None, use_bias: bool = True) -> nn.DenseGeneral:
    """x W + c, W uniform within sqrt(6 / (fan-in + fan-out)), c = 0 (Glorot & Bengio 2010)."""
    return nn.DenseGeneral(
        features,
        use_bias=use_bias,
        dtype=dtypes.products,
        param_dtype=dtypes.parameters,
        precision=dtypes.multiplied,
        kernel_init=nn.initializers.xavier_uniform(),
        name=name,
    )


def torch_dense(inputs: int, features: int, dtypes: Precision, name: str | None = None) -> nn.DenseGeneral:
    """x W + c, W and c uniform within 1 / sqrt(inputs): PyTorch's default, which the layers outside the blocks were left with."""
    bound = inputs**-0.5

    def uniform(key: Key[Array, ""], shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Float[Array, "..."]:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return nn.DenseGeneral(
        features,
        dtype=dtypes.products,
        param_dtype=dtypes.parameters,
        precision=dtypes.multiplied,
        kernel_init=uniform,
        bias_init=uniform,
        name=name,
    )

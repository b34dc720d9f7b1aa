"""Observation -> one sequence of tokens and its mask.

    register | language, l tokens | camera 1, t x m tokens | camera 2 ... | proprio, t tokens

The register is learned and always valid, so that attention has something to look at when all else is masked.
"""

import jax.numpy as jnp
from flax import linen as nn
from jaxtyping import Array, Bool, Float

from ebt_jax.models.config import ModelConfig
from ebt_jax.models.language import LanguageEncoder, pooled
from ebt_jax.models.transformer import dense
from ebt_jax.models.vision import ImageEncoder
from ebt_jax.specs import ObservationSpec
from ebt_jax.types import AnyArray, Observation


class ObservationTokens(nn.Module):
    """Tokens [b n d] and mask [b n]; what a mask hides is replaced by zeros before it meets a parameter.

    A camera of the spec that `images` lacks counts as masked. A camera beyond the spec is ignored.
    """

    config: ModelConfig
    spec: ObservationSpec

    @nn.compact
    def __call__(self, observation: Observation) -> tuple[Float[Array, "b n d"], Bool[Array, "b n"]]:
        c, spec = self.config, self.spec
        check_shapes(observation, spec)
        b, t = observation.timestep_mask.shape
        initial = nn.initializers.normal(0.02)
        time = self.param("time", initial, (spec.horizon, c.width), c.dtypes.parameters)
        register = self.param("register", nn.initializers.normal(1.0), (1, c.width), c.dtypes.parameters)

        tokens = [jnp.broadcast_to(register[None], (b, 1, c.width))]
        masks: list[Bool[AnyArray, "b _"]] = [jnp.ones((b, 1), bool)]

        instruction = None
        if spec.language.kind != "none":
            words, said = LanguageEncoder(c, spec.language, name="language")(observation.language, observation.language_mask)
            tokens.append(words)
            masks.append(said)
            instruction = jnp.repeat(pooled(words, said), t, axis=0) if c.film else None

        if spec.cameras:
            cameras = self.param("cameras", initial, (len(spec.cameras), c.width), c.dtypes.parameters)
            shared = ImageEncoder(c, name="images") if c.share_vision else None
            for i, camera in enumerate(spec.cameras):
                if camera.name not in observation.images:
                    continue
                encoder = shared or ImageEncoder(c, name=f"images_{camera.name}")
                frames = jnp.asarray(observation.images[camera.name])
                encoded = encoder(frames.reshape(b * t, *frames.shape[2:]), instruction).reshape(b, t, -1, c.width)
                encoded = encoded + time[None, :, None] + cameras[i][None, None, None]
                valid = observation.image_masks[camera.name] & observation.timestep_mask
                tokens.append(encoded.reshape(b, -1, c.width))
                masks.append(jnp.repeat(valid, encoded.shape[2], axis=1))

        if spec.proprio:
            proprio = jnp.where(observation.timestep_mask[:, :, None], observation.proprio, 0).astype(c.dtypes.parameters)
            if c.motion_gain:
                before = jnp.concatenate([proprio[:, :1], proprio[:, :-1]], axis=1)
                moved = observation.timestep_mask & jnp.roll(observation.timestep_mask, 1, axis=1)
                motion = jnp.where(moved[:, :, None], c.motion_gain * (proprio - before), 0)
                proprio = jnp.concatenate([proprio, motion], axis=-1)
            hidden = nn.gelu(dense(c.width, c.dtypes, "proprio_hidden")(proprio))
            projected = dense(c.width, c.dtypes, "proprio")(hidden).astype(c.dtypes.parameters)
            tokens.append(projected + time[None])
            masks.append(observation.timestep_mask)

        mask = jnp.concatenate(masks, axis=1)
        return jnp.where(mask[:, :, None], jnp.concatenate(tokens, axis=1), 0), mask


def check_shapes(observation: Observation, spec: ObservationSpec) -> None:
    """Raises ValueError naming every part of the observation whose shape, past the batch axis, is not the spec's."""
    t = spec.horizon
    rows = [("timestep_mask", (t,), observation.timestep_mask), ("proprio", (t, len(spec.proprio)), observation.proprio)]
    if spec.language.kind != "none":
        length, size = spec.language.length, spec.language.size
        rows.append(("language", (length, size) if spec.language.kind == "embedding" else (length,), observation.language))
        rows.append(("language_mask", (length,), observation.language_mask))
    for camera in spec.cameras:
        if camera.name in observation.images:
            rows.append((f"images[{camera.name!r}]", (t, camera.height, camera.width, 3), observation.images[camera.name]))
    wrong = [f"{name}: expected {expected}, got {value.shape[1:]}" for name, expected, value in rows if value.shape[1:] != expected]
    if wrong:
        raise ValueError("observation must have the shapes of the specs, past the batch axis:\n  " + "\n  ".join(wrong))

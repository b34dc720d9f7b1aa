"""Training images, changed a little: crops, light and colour, cameras that fail; on the device, every sample by its own key.

One draw serves all steps of a sample's history, so that motion stays what it was; each camera draws for itself, and may have
settings of its own.
"""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple, get_args

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key, UInt8

from ebt_jax.specs import GOAL, Camera
from ebt_jax.types import Keys, Observation

_STREAM = 0x617567
"""Folded into each sample's key, so that a method's noise does not depend on whether images are augmented."""


@dataclasses.dataclass(frozen=True)
class Augmentation:
    """Settings; the defaults change nothing.

    Attributes:
      crop: least side of the crop over the image's, in (0, 1]; the crop is anywhere in the image and scaled back to its size.
      brightness: values are multiplied by U[1 - x, 1 + x].
      contrast: distances from the image's mean grey are multiplied by U[1 - x, 1 + x].
      saturation: distances from each pixel's grey are multiplied by U[1 - x, 1 + x].
      hue: colours are turned by U[-x, x] of the circle.
      camera_dropout: probability that a camera is hidden from a sample, as where it failed.
      views: settings of single cameras, camera -> those that differ: {"wrist": {"crop": 1.0}}. A goal image follows its camera.
    """

    crop: float = 1.0
    brightness: float = 0.0
    contrast: float = 0.0
    saturation: float = 0.0
    hue: float = 0.0
    camera_dropout: float = 0.0
    views: Mapping[str, Mapping[str, float]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        if not 0 < self.crop <= 1:
            raise ValueError(f"augmentation.crop must lie in (0, 1], got {self.crop}.")
        for name in ("brightness", "contrast", "saturation", "camera_dropout"):
            if not 0 <= getattr(self, name) < 1:
                raise ValueError(f"augmentation.{name} must lie in [0, 1), got {getattr(self, name)}.")
        if not 0 <= self.hue <= 0.5:
            raise ValueError(f"augmentation.hue must lie in [0, 0.5], got {self.hue}.")
        known = sorted(field.name for field in dataclasses.fields(self) if field.name != "views")
        for camera, changes in self.views.items():
            unknown = sorted(set(changes) - set(known))
            if camera not in get_args(Camera) or unknown:
                raise ValueError(
                    f"augmentation.views must map cameras {get_args(Camera)} to settings among {known}, "
                    f"got {camera!r} with {dict(changes)}."
                )
            self.of(camera)

    def of(self, camera: str) -> "Augmentation":
        """The settings of one camera: its own, else those of the camera whose goal it shows, else the common ones."""
        changes = self.views.get(camera, self.views.get(camera.removeprefix(GOAL), {}))
        return dataclasses.replace(self, views={}, **changes)


NO_AUGMENTATION = Augmentation()


class Draws(NamedTuple):
    """One key for each draw: keys split from one parent are independent, where some of them folded in and some split may be equal."""

    crop: Key[Array, "*b"]
    hue: Key[Array, "*b"]
    saturation: Key[Array, "*b"]
    contrast: Key[Array, "*b"]
    brightness: Key[Array, "*b"]
    camera_dropout: Key[Array, "*b"]

    @classmethod
    def of(cls, keys: Keys) -> "Draws":
        return cls(*jnp.moveaxis(jax.vmap(lambda key: jax.random.split(key, len(cls._fields)))(keys), 1, 0))


def augment(settings: Augmentation, observation: Observation, keys: Keys) -> Observation:
    """The observation as another moment of light and camera placement might have shown it; masks say what was dropped."""
    if settings == NO_AUGMENTATION:
        return observation
    images, masks = dict(observation.images), dict(observation.image_masks)
    for number, camera in enumerate(sorted(images)):
        own = settings.of(camera)
        draws = Draws.of(jax.vmap(lambda key, number=number: jax.random.fold_in(jax.random.fold_in(key, _STREAM), number))(keys))
        images[camera] = jax.vmap(lambda image, draws, own=own: _change(own, image, draws))(jnp.asarray(images[camera]), draws)
        if own.camera_dropout > 0:
            kept = jax.vmap(lambda key, own=own: jax.random.bernoulli(key, 1 - own.camera_dropout))(draws.camera_dropout)
            masks[camera] = masks[camera] & kept[:, None]
    return observation._replace(images=images, image_masks=masks)


def _change(settings: Augmentation, images: UInt8[Array, "t y x c"], draws: Draws) -> UInt8[Array, "t y x c"]:
    values = images.astype(jnp.float32)
    if settings.crop < 1:
        values = _crop(settings.crop, values, draws.crop)
    if settings.hue > 0:
        values = _turn(settings.hue, values, draws.hue)
    grey = jnp.mean(values, axis=-1, keepdims=True)
    values = grey + _factor(draws.saturation, settings.saturation) * (values - grey)
    mean = jnp.mean(values, axis=(1, 2, 3), keepdims=True)
    values = mean + _factor(draws.contrast, settings.contrast) * (values - mean)
    values = values * _factor(draws.brightness, settings.brightness)
    return jnp.clip(jnp.rint(values), 0, 255).astype(jnp.uint8)


def _crop(least: float, values: Float[Array, "t y x c"], key: Key[Array, ""]) -> Float[Array, "t y x c"]:
    """A crop of side U[least, 1] at a uniform place, bilinearly scaled to the image's own size."""
    side_key, place_key = jax.random.split(key)
    side = jax.random.uniform(side_key, minval=least, maxval=1.0)
    size = jnp.array(values.shape[1:3], jnp.float32)
    corner = jax.random.uniform(place_key, (2,)) * (1 - side) * size
    scale = jnp.broadcast_to(1 / side, (2,))
    return jax.image.scale_and_translate(values, values.shape, (1, 2), scale, -corner / side, "linear", antialias=False)


def _turn(most: float, values: Float[Array, "t y x c"], key: Key[Array, ""]) -> Float[Array, "t y x c"]:
    """Colours turned about the grey axis by U[-most, most] of a circle; grey stays as it is (Rodrigues' formula)."""
    angle = 2 * jnp.pi * jax.random.uniform(key, minval=-most, maxval=most)
    one, third = jnp.cos(angle), (1 - jnp.cos(angle)) / 3
    side = jnp.sin(angle) / jnp.sqrt(3.0)
    turn = jnp.array(
        [[third + one, third - side, third + side], [third + side, third + one, third - side], [third - side, third + side, third + one]]
    )
    return jnp.matmul(values, turn.T, precision="highest")


def _factor(key: Key[Array, ""], width: float) -> Float[Array, ""]:
    return jax.random.uniform(key, minval=1 - width, maxval=1 + width)

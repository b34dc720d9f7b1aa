"""Images become tokens of any number, each image alone."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.models import make_energy_model, num_parameters
from ebt_jax.models.config import Precision, model_variant
from ebt_jax.models.film import FiLM
from ebt_jax.models.observation import ObservationTokens
from ebt_jax.models.vision import ImageEncoder, grid_positions, spatial_softmax
from ebt_jax.models.vision_tower import bicubic


def test_spatial_softmax_finds_a_peak():
    """A sharp peak in cell (row 1, column 3) of 5 x 5 lies at (-0.5, 0.5); a flat map at the centre."""
    logits = jnp.zeros((1, 5, 5, 2)).at[0, 1, 3, 0].set(50.0)
    np.testing.assert_allclose(spatial_softmax(logits)[0], [-0.5, 0.5, 0, 0], atol=1e-6)


def test_spatial_softmax_expects_at_a_temperature():
    """Two cells of 1 x 2 with logits 0 and z: the column is tanh(z / (2 T))."""
    logits = jnp.array([0.0, 1.5]).reshape(1, 1, 2, 1)
    for temperature in (0.5, 1.0, 3.0):
        row, column = spatial_softmax(logits, temperature)[0]
        np.testing.assert_allclose([row, column], [-1, np.tanh(1.5 / (2 * temperature))], rtol=1e-6)


def test_grid_positions_are_distinct_and_separate_rows_from_columns():
    positions = grid_positions(4, 6, 32)
    flat = np.asarray(positions.reshape(24, 32))
    assert len(np.unique(flat.round(4), axis=0)) == 24
    np.testing.assert_array_equal(positions[0, :, :16], positions[0, :1, :16].repeat(6, axis=0))
    np.testing.assert_array_equal(positions[:, 0, 16:], positions[:1, 0, 16:].repeat(4, axis=0))


@pytest.mark.parametrize(
    ("settings", "size", "tokens"),
    [
        ({"vision": "resnet_small", "stem": "small"}, (64, 64), 16),
        ({"vision": "resnet_small", "stem": "small"}, (76, 90), 5 * 6),
        ({"vision": "resnet18", "stem": "large"}, (224, 224), 49),
        ({"vision": "vit", "patch_size": 16, "vision_width": 64, "vision_layers": 2}, (64, 96), 24),
        ({"vision": "resnet_small", "pooling": "spatial_softmax"}, (128, 128), 1),
        ({"vision": "dinov2_small"}, (224, 224), 16 * 16),
        ({"vision": "dinov2_base_registers"}, (56, 84), 4 * 6),
        ({"vision": "siglip_base", "pooling": "spatial_softmax"}, (224, 224), 1),
        ({"vision": "resnet50_imagenet"}, (224, 200), 7 * 7),
    ],
)
def test_tokens_of_an_image(settings, size, tokens):
    encoder = ImageEncoder(model_variant("debug", **settings))
    images = jax.ShapeDtypeStruct((3, *size, 3), jnp.uint8)
    params = jax.eval_shape(encoder.init, jax.random.key(0), images)
    assert jax.eval_shape(encoder.apply, params, images).shape == (3, tokens, 64)


@pytest.mark.parametrize("vision", ["resnet_small", "vit"])
def test_images_never_mix(vision, random_params, jit):
    encoder = ImageEncoder(model_variant("debug", vision=vision, vision_width=16, vision_layers=1))
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    params = random_params(encoder, jnp.asarray(images))
    apply = jit(encoder.apply)
    together = apply(params, jnp.asarray(images))
    images[[0, 1, 3]] = 255 - images[[0, 1, 3]]
    np.testing.assert_allclose(apply(params, jnp.asarray(images))[2], together[2], rtol=1e-6, atol=1e-6)
    assert jnp.std(together) > 0.1


MILLIONS = {
    "dinov2_small": 22.06, "dinov2_base": 86.58, "dinov2_large": 304.37, "dinov2_base_registers": 86.58,
    "siglip_base": 85.80, "siglip_large": 303.36, "siglip_so400m": 412.99,
    "resnet18_imagenet": 11.18, "resnet34_imagenet": 21.28, "resnet50_imagenet": 23.51,
}  # fmt: skip


@pytest.mark.parametrize("vision", MILLIONS)
def test_published_encoders_have_their_published_size(vision):
    """Of the encoder alone; DINOv2 without its mask token, SigLIP without its pooling head, ResNets without their classifier."""
    encoder = ImageEncoder(model_variant("debug", vision=vision))
    params = jax.eval_shape(encoder.init, jax.random.key(0), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.uint8))["params"]
    (inside,) = [part for name, part in params.items() if name in ("dinov2", "siglip", "imagenet")]
    assert round(num_parameters(inside) / 1e6, 2) == MILLIONS[vision]


@pytest.mark.parametrize(("vision", "grey", "white"), [("dinov2_small", (0.485, 0.456, 0.406), 2.2489), ("siglip_base", (0.5,) * 3, 1.0)])
def test_published_encoders_see_the_pixels_they_were_trained_on(vision, grey, white, monkeypatch):
    """The mean pixel is 0, red at its brightest (1 - mean) / deviation."""
    seen = []
    tower = lambda *_, **__: lambda pixels: (seen.append(pixels), jnp.zeros((1, 2, 2, 384)))[1]
    monkeypatch.setattr("ebt_jax.models.vision.VisionTower", tower)
    image = jnp.broadcast_to(jnp.round(255 * jnp.array(grey)).astype(jnp.uint8), (1, 32, 32, 3)).at[0, 0, 0, 0].set(255)
    ImageEncoder(model_variant("debug", vision=vision)).init(jax.random.key(0), image)
    np.testing.assert_allclose(seen[0][0, 1], 0, atol=0.01)
    np.testing.assert_allclose(seen[0][0, 0, 0, 0], white, rtol=1e-3)


@pytest.mark.parametrize("antialias", [False, True])
def test_interpolation_keeps_constants_and_lines(antialias):
    """Rows of weights sum to 1, in the right place; as many samples as before stay as they are; half-way between, a is in the weights."""
    for old, new in ((37, 16), (16, 37), (14, 14)):
        matrix = bicubic(old, new, antialias)
        np.testing.assert_allclose(matrix.sum(1), 1, rtol=1e-12)
        places = (np.arange(new) + 0.5) * old / new - 0.5
        inner = (places > 6) & (places < old - 7)
        np.testing.assert_allclose((matrix @ np.arange(old))[inner], places[inner], atol=0.15)
    np.testing.assert_allclose(bicubic(14, 14, antialias), np.eye(14), atol=1e-12)
    halves = np.array([-0.09375, 0.59375, 0.59375, -0.09375])  # a = -0.75; widened twice, the kernel of a = -0.5 has eight taps
    np.testing.assert_allclose(bicubic(8, 4, antialias=False)[1, 1:5], halves)
    assert np.count_nonzero(bicubic(16, 8, antialias)[4]) == (8 if antialias else 4)


def test_film_is_linear_in_the_instruction_and_nothing_at_first():
    film, x, instruction = FiLM(Precision(jnp.float32, jnp.float32)), jnp.arange(24.0).reshape(2, 2, 2, 3), jnp.ones((2, 4))
    params = film.init(jax.random.key(0), x, instruction)
    np.testing.assert_array_equal(film.apply(params, x, instruction), x)
    kernel = jnp.zeros((4, 2, 3)).at[0, 0, 1].set(2.0).at[1, 1, 2].set(5.0)  # channel 1: + 2 i_0 x; channel 2: + 5 i_1
    moved = film.apply(
        {"params": {"modulation": {"kernel": kernel, "bias": jnp.zeros((2, 3))}}}, x, jnp.array([[1.0, 0, 0, 0], [0, 1, 0, 0]])
    )
    np.testing.assert_allclose(moved[0], x[0] * jnp.array([1, 3, 1])[None, None])
    np.testing.assert_allclose(moved[1], x[1] + jnp.array([0, 0, 5])[None, None])


def test_film_lets_the_instruction_change_what_is_seen(make_specs, make_batch, random_params, jit):
    """Features of the image move with the instruction where it is valid, and not where it is masked."""
    specs = make_specs(("primary",), "embedding", horizon=1)
    model, batch = make_energy_model(model_variant("debug", width=16, film=True, unroll=1), specs), make_batch(specs, 2)
    params, o = random_params(model, batch), batch.observation
    modulations = [path for path, _ in jax.tree_util.tree_leaves_with_path(params) if any("film" in str(entry) for entry in path)]
    assert len(modulations) == 8  # kernel and bias after each of four blocks
    network = ObservationTokens(model_variant("debug", width=16, film=True, unroll=1), specs.observation)
    seen = jit(lambda o: network.apply({"params": params["tokens"]}, o)[0][:, 1 + 3 : -1])  # after register and words, before proprio
    read = lambda mask, language: seen(o._replace(language=language, language_mask=jnp.full_like(o.language_mask, mask)))
    assert jnp.max(jnp.abs(read(True, o.language) - read(True, -o.language))) > 0.01
    np.testing.assert_array_equal(read(False, o.language), read(False, -o.language))


def test_images_that_no_patch_fills_are_refused(make_specs):
    with pytest.raises(ValueError, match=r"divisible by patch_size = 14, got 32 x 32. Resize them, data.image_size=224"):
        make_energy_model(model_variant("debug", vision="dinov2_small"), make_specs(("primary",)))
    with pytest.raises(ValueError, match="film must be False without an instruction"):
        make_energy_model(model_variant("debug", film=True), make_specs(("primary",)))
    with pytest.raises(ValueError, match="vision_frozen must be False for an encoder that nobody trained, got True"):
        model_variant("debug", vision_frozen=True)
    with pytest.raises(
        ValueError, match="model.cameras must name a camera for model.vision='dinov2_small' with weights of its own, got none"
    ):
        make_energy_model(model_variant("debug", vision="dinov2_small", vision_frozen=True), make_specs())


@pytest.mark.parametrize("vision", ["dinov2_small", "siglip_base", "resnet18_imagenet"])
def test_an_energy_over_a_published_encoder_and_two_cameras(vision, make_specs, make_batch):
    """Shapes alone; the encoder is there once, or once a camera, under a path that is easy to name."""
    specs = make_specs(("primary", "wrist"), size=112)
    batch = jax.eval_shape(lambda: make_batch(specs, 2))
    for share, modules in ((True, {"images"}), (False, {"images_primary", "images_wrist"})):
        model = make_energy_model(model_variant("debug", vision=vision, share_vision=share, precision="bfloat16"), specs)
        params = jax.eval_shape(model.init, jax.random.key(0), batch)
        family = {"dinov2_small": "dinov2", "siglip_base": "siglip"}.get(vision, "imagenet")
        assert {name for name in params["tokens"] if name.startswith("images")} == modules
        assert all(family in params["tokens"][name] for name in modules)
        assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype(jnp.float32)}
        context = jax.eval_shape(model.encode, params, batch.observation)
        energy = jax.eval_shape(model.energy, params, context, batch.actions)
        assert (energy.shape, energy.dtype) == ((2,), jnp.float32)

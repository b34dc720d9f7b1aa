"""Weights as others publish them: read back exactly, layers in order, and every tensor that does not fit named."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from ebt_jax.models import make_energy_model, model_variant
from ebt_jax.models.bert import Bert
from ebt_jax.models.config import Precision
from ebt_jax.models.imagenet import ImageNetResNet
from ebt_jax.models.pretrained import convert, layouts, load_pretrained
from ebt_jax.models.sizes import RESNETS, TEXTS, TOWERS, ResNetSize
from ebt_jax.models.t5 import T5
from ebt_jax.models.vision_tower import VisionTower

FLOAT32 = Precision(jnp.float32, jnp.float32)
SMALL = {"width": 16, "layers": 3, "heads": 2, "mlp_width": 24}
TOWER = dataclasses.replace(TOWERS["dinov2_small_registers"], **SMALL, patch=4, grid=3)
TEXT = {**SMALL, "head_width": 8, "vocabulary": 20}
IMAGE, IDS = (jax.ShapeDtypeStruct((1, 12, 12, 3), jnp.float32),), tuple(jax.ShapeDtypeStruct((1, 5), t) for t in (jnp.int32, jnp.bool_))
ENCODERS = {
    "dinov2": (VisionTower(TOWER, FLOAT32), IMAGE),
    "siglip": (VisionTower(dataclasses.replace(TOWERS["siglip_base"], **SMALL, patch=4, grid=3), FLOAT32), IMAGE),
    "t5": (T5(dataclasses.replace(TEXTS["flan_t5_small"], **TEXT), FLOAT32), IDS),
    "bert": (Bert(dataclasses.replace(TEXTS["minilm"], **TEXT), FLOAT32), IDS),
    "imagenet": (ImageNetResNet(ResNetSize((1, 2, 1, 1), 4, bottleneck=True), FLOAT32), IMAGE),
}


def flat(tree, path=""):
    if not isinstance(tree, dict):
        return {path.strip("/"): tree}
    return {name: leaf for key, value in tree.items() for name, leaf in flat(value, f"{path}/{key}").items()}


def shapes(module, inputs):
    return flat(jax.eval_shape(module.init, jax.random.key(0), *inputs)["params"])


def publish(module, inputs, prefix=""):
    """Random parameters of the module, and the tensors that others would have published them as."""
    draw = np.random.default_rng(0)
    layout, parameters, tensors = layouts(module.size)[0], {}, {}
    wanted = shapes(module, inputs)
    for path, leaf in wanted.items():
        names = layout.sources[path].names
        if len(names) > 1:  # BatchNorm: statistics are in the way, see below
            continue
        value = parameters[path] = draw.normal(size=leaf.shape).astype(np.float32)
        layers = value if "{}" in names[0] else value[None]
        for i, x in enumerate(layers):
            if path.endswith("kernel"):
                x = x.transpose(3, 2, 0, 1) if x.ndim == 4 else x.reshape(x.shape[0], -1).T
            tensors[prefix + names[0].replace("{}", str(i))] = np.ascontiguousarray(x)
    for path, source in layout.sources.items():
        if len(source.names) == 4:
            weight, variance, bias, mean = (draw.uniform(0.5, 2, wanted[path].shape).astype(np.float32) for _ in range(4))
            tensors |= {prefix + name: x for name, x in zip(source.names, (weight, variance, bias, mean), strict=True)}
            parameters[path] = bias - mean * weight / np.sqrt(variance + 1e-5)
            parameters[path.replace("bias", "scale")] = weight / np.sqrt(variance + 1e-5)
    return parameters, tensors


@pytest.mark.parametrize("name", ENCODERS)
def test_what_was_published_is_read_back(name, tmp_path):
    module, inputs = ENCODERS[name]
    parameters, tensors = publish(module, inputs)
    save_file(tensors, tmp_path / "model.safetensors")
    wanted = shapes(module, inputs)
    values, report = convert(str(tmp_path), name, layouts(module.size), wanted)
    assert set(values) == set(parameters) == set(wanted)
    for path, value in values.items():
        np.testing.assert_allclose(value, parameters[path], rtol=1e-6, atol=1e-6, err_msg=path)
    assert (len(report.loaded), report.new, report.unused) == (len(values), (), ())


@pytest.fixture
def bert(tmp_path):
    """(tensors) -> the error that reading them gives, or the values and report; beside it the published tensors."""
    module, inputs = ENCODERS["bert"]
    _, tensors = publish(module, inputs)

    def read(tensors, path=tmp_path / "weights.safetensors"):
        save_file(tensors, path)
        return convert(str(path), "minilm", layouts(module.size), shapes(module, inputs))

    return tensors, read


def test_parts_prefixes_and_other_precisions_read_alike(bert, tmp_path):
    tensors, read = bert
    expected, _ = read(tensors)
    prefixed, report = read({f"bert.{name}": x for name, x in tensors.items()} | {"cls.bias": np.zeros(3, np.float32)})
    assert report.unused == ("cls.bias",)
    assert "1 unused\n  cls.bias" in str(report)
    assert "blocks/norm1/scale <- bert.encoder.layer.{}.attention.output.LayerNorm.weight, 3 layers" in str(report)
    half, _ = read({name: x.astype(ml_dtypes.bfloat16) for name, x in tensors.items()})
    for path, value in expected.items():
        np.testing.assert_array_equal(value, prefixed[path])
        assert half[path].dtype == np.float32
        np.testing.assert_allclose(half[path], value, rtol=0.01)

    names = sorted(tensors)
    parts = {"a.safetensors": names[::2], "b.safetensors": names[1::2]}
    for file, part in parts.items():
        save_file({name: tensors[name] for name in part}, tmp_path / file)
    index = {"weight_map": {name: file for file, part in parts.items() for name in part}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    module, inputs = ENCODERS["bert"]
    found, _ = convert(str(tmp_path), "minilm", layouts(module.size), shapes(module, inputs))
    np.testing.assert_array_equal(found["blocks/mlp/hidden/kernel"], expected["blocks/mlp/hidden/kernel"])


def test_every_tensor_that_does_not_fit_is_named(bert):
    tensors, read = bert
    wrong = dict(tensors)
    del wrong["encoder.layer.1.output.dense.bias"]
    wrong["embeddings.LayerNorm.weight"] = np.zeros(7, np.float32)
    wrong["encoder.layer.3.output.dense.bias"] = np.zeros(16, np.float32)
    with pytest.raises(ValueError, match="weights of minilm must be the tensors it is published as, got 3 differences") as error:
        read(wrong)
    lines = str(error.value).splitlines()[1:]
    assert lines == [
        "  embeddings.LayerNorm.weight: expected [16] for norm/scale, got [7]",
        "  encoder.layer.1.output.dense.bias: expected for blocks/mlp/out/bias, missing",
        "  encoder.layer.3.output.dense.bias: expected nothing, got it",
        "Are these the weights of another encoder or size?",
    ]


def test_files_that_hold_no_weights_are_refused(tmp_path):
    config = model_variant("debug", vision="dinov2_small")
    load = lambda path: load_pretrained(
        dataclasses.replace(config, vision_weights=str(path)), {"images": {"dinov2": {"norm": jnp.zeros(3)}}}
    )
    (tmp_path / "model.safetensors").write_bytes(b"not weights")
    for path, message in (
        (tmp_path / "nowhere.safetensors", "which does not exist"),
        (tmp_path / "pytorch_model.bin", "reading a pickle runs whatever code is in it.*save_pretrained"),
        (tmp_path, "must be a safetensors file.*Is the copy complete"),
    ):
        with pytest.raises(ValueError, match=message):
            load(path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(b"")
    with pytest.raises(ValueError, match=r"must be a folder with model.safetensors .* holds only \['pytorch_model.bin'\]. Where you trust"):
        load(tmp_path)


def test_every_camera_that_has_the_encoder_gets_the_weights(monkeypatch, make_specs, make_batch, tmp_path):
    """And the weights of an encoder that the network does not have are refused."""
    monkeypatch.setitem(TOWERS, "dinov2_small", TOWER)
    parameters, tensors = publish(*ENCODERS["dinov2"])
    save_file(tensors, tmp_path / "model.safetensors")
    specs = make_specs(("primary", "wrist"))
    batch = jax.eval_shape(lambda: make_batch(specs, 1))
    shapes_of = lambda config: jax.eval_shape(make_energy_model(config, specs).init, jax.random.key(0), batch)
    config = model_variant("debug", vision="dinov2_small", vision_weights=str(tmp_path), share_vision=False)
    found = load_pretrained(config, {"model": shapes_of(config)})
    assert len(found) == 2 * len(parameters)
    for camera in ("primary", "wrist"):
        path = f"model/tokens/images_{camera}/dinov2/blocks/mlp/out/kernel"
        np.testing.assert_array_equal(found[path], parameters["blocks/mlp/out/kernel"])
    assert load_pretrained(dataclasses.replace(config, vision_weights=""), shapes_of(config)) == {}
    with pytest.raises(ValueError, match=r"must have a dinov2_small in the network to fill, got none. Name cameras in model.cameras"):
        load_pretrained(config, shapes_of(model_variant("debug")))
    scratch = model_variant("debug", vision_weights=str(tmp_path))
    with pytest.raises(ValueError, match="must be of a published encoder, got .* for model.vision='resnet_small'"):
        load_pretrained(scratch, shapes_of(scratch))


def test_film_beside_published_weights_is_new(monkeypatch, make_specs, make_batch, tmp_path):
    size = ResNetSize((1, 1, 1, 1), 4, bottleneck=False)
    monkeypatch.setitem(RESNETS, "resnet18_imagenet", size)
    _, tensors = publish(ImageNetResNet(size, FLOAT32), IMAGE)
    save_file(tensors, tmp_path / "model.safetensors")
    specs = make_specs(("primary",), "tokens")
    config = model_variant("debug", vision="resnet18_imagenet", vision_weights=str(tmp_path), film=True)
    params = jax.eval_shape(make_energy_model(config, specs).init, jax.random.key(0), jax.eval_shape(lambda: make_batch(specs, 1)))
    encoder = flat(params["tokens"]["images"]["imagenet"])
    values, report = convert(str(tmp_path), "resnet18_imagenet", layouts(size), encoder)
    assert report.new == tuple(sorted(f"film{i}_0/modulation/{leaf}" for i in range(4) for leaf in ("bias", "kernel")))
    assert set(values) | set(report.new) == set(encoder)

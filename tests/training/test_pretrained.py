"""A run that begins at published weights: they enter once, stay where they are frozen, and travel in the checkpoint."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from safetensors.numpy import save_file

from ebt_jax.evaluation.execution import History, assemble
from ebt_jax.loading import load
from ebt_jax.models.sizes import RESNETS, TEXTS, ResNetSize
from ebt_jax.models.vision import ImageEncoder
from ebt_jax.policy import empty_batch
from ebt_jax.sharding import make_mesh
from ebt_jax.specs import ActionDimension, ActionSpec, CameraSpec, LanguageSpec, ObservationSpec, Specs
from ebt_jax.training import loop
from ebt_jax.training.initialize import Start, check_frozen, check_tuning
from ebt_jax.training.loop import train
from ebt_jax.training.optimizer import OptimizerSettings, labels, make_optimizer, tuned
from ebt_jax.training.settings import Settings
from ebt_jax.training.state import TrainState, with_values
from ebt_jax.tree import leaf_name, named_leaves

PIECES = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "pick", "place", "the", "##s"]


@pytest.fixture
def weights(tmp_path, monkeypatch):
    """A folder with a tiny "minilm" and its vocabulary, and the published word embeddings in it."""
    monkeypatch.setitem(TEXTS, "minilm", dataclasses.replace(TEXTS["minilm"], vocabulary=8, width=8, layers=2, heads=2, mlp_width=12))
    draw = np.random.default_rng(0)
    shapes = {"embeddings.word_embeddings.weight": (8, 8), "embeddings.position_embeddings.weight": (512, 8)}
    shapes |= {"embeddings.token_type_embeddings.weight": (2, 8)}
    layers = [("attention.self.query", 8, 8), ("attention.self.key", 8, 8), ("attention.self.value", 8, 8)]
    layers += [("attention.output.dense", 8, 8), ("intermediate.dense", 12, 8), ("output.dense", 8, 12)]
    for i in range(2):
        for name, out, into in layers:
            shapes |= {f"encoder.layer.{i}.{name}.weight": (out, into), f"encoder.layer.{i}.{name}.bias": (out,)}
        for name in ("attention.output.LayerNorm", "output.LayerNorm"):
            shapes |= {f"encoder.layer.{i}.{name}.{part}": (8,) for part in ("weight", "bias")}
    shapes |= {f"embeddings.LayerNorm.{part}": (8,) for part in ("weight", "bias")}
    tensors = {name: draw.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    folder = tmp_path / "published"
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    vocabulary = {piece: number for number, piece in enumerate(PIECES)}
    normalizer = {"type": "BertNormalizer", "lowercase": True}
    (folder / "tokenizer.json").write_text(json.dumps({"normalizer": normalizer, "model": {"type": "WordPiece", "vocab": vocabulary}}))
    return folder, tensors


@pytest.mark.slow
def test_published_weights_enter_stay_and_travel(weights, tiny_config, tmp_path):
    """Two updates with a decay that would show; then the folder is gone, and the policy still understands what it is told."""
    folder, tensors = weights
    config = {
        **tiny_config,
        "num_steps": 2,
        "batch_size": 8,
        "eval_interval": 0,
        "method": {"name": "regression"},
        "model": {**tiny_config["model"], "language": "minilm", "language_weights": str(folder)},
        "optimizer": {**tiny_config["optimizer"], "weight_decay": 1.0, "warmup_steps": 0},
    }
    train(config, tmp_path / "run")
    for file in folder.iterdir():
        file.unlink()
    for ema in (True, False):
        policy = load(tmp_path / "run", ema=ema)
        encoder = policy.params["tokens"]["language"]["bert"]
        np.testing.assert_array_equal(encoder["words"]["embedding"], tensors["embeddings.word_embeddings.weight"])
        second = encoder["blocks"]["mlp"]["hidden"]["kernel"][1]
        np.testing.assert_array_equal(second, tensors["encoder.layer.1.intermediate.dense.weight"].T)

    spec = policy.specs.observation
    assert (spec.language.tokenizer, spec.language.size) == ("wordpiece", 8)
    seen = {"images": {}, "proprio": np.zeros(len(spec.proprio), np.float32)}
    histories = [History(spec.horizon, {**seen, "language": text}) for text in ("pick the place", "the picks", "")]
    observation = assemble(histories, spec, batch_size=4)
    assert observation.language[:, :6].tolist() == [[2, 4, 6, 5, 3, 0], [2, 6, 4, 7, 3, 0], [0] * 6, [2, 4, 6, 5, 3, 0]]
    keys = policy.sample_keys(0, np.zeros(4, int), np.zeros(4, int))
    actions = policy.sample_actions(observation, keys).actions
    assert np.isfinite(actions).all()
    np.testing.assert_array_equal(actions[3], actions[0])
    assert np.abs(actions[1] - actions[0]).max() > 0


def test_missing_weights_are_said_before_anything_compiles(weights, tiny_config, tmp_path, monkeypatch):
    folder, _ = weights
    (folder / "model.safetensors").unlink()
    monkeypatch.setattr(loop, "sharded_init", lambda *_: pytest.fail("compiled first"))
    config = {**tiny_config, "model": {**tiny_config["model"], "language": "minilm", "language_weights": str(folder)}}
    with pytest.raises(ValueError, match=r"must be a folder with model.safetensors .* got .*published"):
        train(config, tmp_path / "run")


def test_a_frozen_encoder_that_nobody_trained_is_refused(weights, tiny_config, tmp_path, monkeypatch):
    """Before anything compiles; trained from random weights it may be."""
    folder, _ = weights

    def compile_(*_):
        raise InterruptedError("compiles")

    monkeypatch.setattr(loop, "sharded_init", compile_)
    for model, error, words in (
        ({}, ValueError, r"model\.language_frozen must be False .* no values for 21 of its 21 .* model\.language_weights .* --init_from"),
        ({"language_frozen": False}, InterruptedError, "compiles"),
        ({"language_weights": str(folder)}, InterruptedError, "compiles"),
    ):
        config = {**tiny_config, "model": {**tiny_config["model"], "language": "minilm", **model}}
        config["data"] = {**tiny_config["data"], "tokenizer": str(folder)}
        with pytest.raises(error, match=words):
            train(config, tmp_path / "run")


def test_a_source_may_supply_a_frozen_encoder(weights, tiny_config):
    settings = Settings.from_dict({**tiny_config, "model": {**tiny_config["model"], "language": "minilm"}})
    target = {"tokens": {"language": {"bert": {"words": {"embedding": 0}}, "project": {"kernel": 0}}}}
    name = "tokens/language/bert/words/embedding"
    check_frozen(settings, target, [f"base/{name}"], None)
    check_frozen(settings, target, [], Start({name: np.zeros(1)}, {}, [], ""))
    with pytest.raises(ValueError, match=r"no values for 1 of its 1 parameters \(tokens/language/bert/words/embedding"):
        check_frozen(settings, target, [], Start({"tokens/language/project/kernel": np.zeros(1)}, {}, [], ""))


def test_adapters_and_what_would_stay_as_drawn_are_refused_where_nothing_trains_it(tiny_config):
    def settings(frozen=True, **optimizer):
        model = {**tiny_config["model"], "language": "minilm", "language_frozen": frozen}
        return Settings.from_dict({**tiny_config, "model": model, "optimizer": {**tiny_config["optimizer"], **optimizer}})

    leaf = jax.ShapeDtypeStruct((4, 4), jnp.float32)
    target = {"tokens": {"language": {"bert": {"words": {"kernel": leaf}}, "project": {"kernel": leaf}}}}
    dead, alive = "tokens/language/bert/words/kernel", "tokens/language/project/kernel"
    with pytest.raises(ValueError, match=rf"optimizer.lora must match no encoder .* got 1 matrices of model.language='minilm' \({dead}"):
        check_tuning(settings(lora=["tokens/*"]), target, [], None)
    check_tuning(settings(lora=["tokens/language/project/*"]), target, [], None)
    check_tuning(settings(frozen=False, lora=["tokens/*"]), target, [], None)
    held = settings(freeze=["tokens/language/project/*"])
    with pytest.raises(ValueError, match=rf"optimizer.freeze must match parameters that the source has, got 1 .*: {alive}. Name"):
        check_tuning(held, target, [], Start({dead: np.zeros(1)}, {}, [], ""))
    check_tuning(held, target, [], Start({alive: np.zeros(1)}, {}, [], ""))
    with pytest.raises(ValueError, match=rf"got 1 that would stay as they begin, whole or in part: {alive}"):
        check_tuning(held, target, [], Start({alive: np.zeros(1)}, {}, [], "", {alive}))
    check_tuning(held, target, [f"base/{alive}"], Start({dead: np.zeros(1)}, {}, [], ""))  # published weights, not drawn
    check_tuning(held, target, [], None)


def test_film_learns_in_a_frozen_resnet(tiny_config, monkeypatch):
    """From its start at zero; the published parameters around it get no gradient. Of the loss what matters is that it sees the image."""
    monkeypatch.setitem(RESNETS, "resnet18_imagenet", ResNetSize((1, 1, 1, 1), 4, bottleneck=False))
    model = {"vision": "resnet18_imagenet", "vision_frozen": True, "film": True, "cameras": ("primary",)}
    settings = Settings.from_dict({**tiny_config, "model": {**tiny_config["model"], **model}, "method": {"name": "regression"}})
    observation = ObservationSpec((CameraSpec("primary", 16, 16),), (), LanguageSpec("tokens", 3, 20), 1)
    specs = Specs(observation, ActionSpec((ActionDimension("x", "eef_delta", "m"),), "base", 4, 10.0))
    draw = np.random.default_rng(0)
    images = jnp.asarray(draw.integers(0, 256, (2, 16, 16, 3)), jnp.uint8)
    instruction = jnp.asarray(draw.normal(size=(2, 16)), jnp.float32)

    def loss(params, *_):
        return jnp.sum(ImageEncoder(settings.model).apply({"params": params["tokens"]["images"]}, images, instruction) ** 2), {}

    method = settings.make_method(specs)
    shapes = jax.eval_shape(method.init, jax.random.key(0), empty_batch(specs, 2))
    begun = lambda path, leaf: draw.normal(size=leaf.shape).astype(np.float32) * ("film" not in leaf_name(path))
    params = jax.tree_util.tree_map_with_path(begun, shapes)
    gradient = jax.jit(jax.grad(lambda params: tuned(method._replace(loss=loss), settings.optimizer).loss(params)[0]))(params)
    encoder = named_leaves(gradient["tokens"]["images"]["imagenet"])
    learnt = {name for name, leaf in encoder.items() if np.any(leaf)}
    assert learnt == {name for name in encoder if name.startswith("film")}
    words = named_leaves(labels(settings.optimizer, params)["tokens"]["images"]["imagenet"])
    assert {name for name, word in words.items() if word == "trained"} == learnt


@pytest.mark.parametrize("fsdp", [1, 4])
def test_values_land_on_every_shard(fsdp):
    mesh: Mesh = make_mesh(8 // fsdp, fsdp)
    params = {"a": {"kernel": np.zeros((256, 128), np.float32), "bias": np.ones(4, np.float32)}}
    placed = [jax.device_put(params, jax.tree.map(lambda leaf: _sharding(leaf, mesh), params)) for _ in range(2)]
    state = TrainState(np.zeros((), np.int32), *placed, (), np.zeros(2, np.uint32))  # pyright: ignore
    kernel = np.random.default_rng(0).normal(size=(256, 128))
    after = with_values(state, {"a/kernel": kernel})
    for tree, before in ((after.params, state.params), (after.ema_params, state.ema_params)):
        np.testing.assert_array_equal(tree["a"]["kernel"], kernel.astype(np.float32))
        assert tree["a"]["kernel"].sharding == before["a"]["kernel"].sharding
        np.testing.assert_array_equal(tree["a"]["bias"], np.ones(4))
    assert after.params["a"]["kernel"] is not after.ema_params["a"]["kernel"]
    with pytest.raises(ValueError, match=r"must be of parameters of the state, got \['a/scale'\]"):
        with_values(state, {"a/scale": kernel})


def _sharding(leaf, mesh):
    from ebt_jax.sharding import shardings

    return shardings({"leaf": leaf}, mesh)["leaf"]


def test_decay_spares_what_is_frozen():
    """Without a gradient a matrix shrinks by learning_rate x weight_decay, and not at all where its module is frozen."""
    settings = OptimizerSettings(learning_rate=0.1, warmup_steps=0, weight_decay=0.5, freeze=("t5/*",))
    params = {"t5": {"norm": {"kernel": np.ones((2, 2), np.float32)}}, "head": {"kernel": np.ones((2, 2), np.float32)}}
    optimizer = make_optimizer(settings, 1000)
    zero = jax.tree.map(np.zeros_like, params)
    updates, _ = optimizer.update(zero, optimizer.init(params), params)
    assert not np.any(updates["t5"]["norm"]["kernel"])
    np.testing.assert_allclose(updates["head"]["kernel"], -0.05, rtol=1e-3)

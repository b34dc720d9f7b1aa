"""Fine-tuning's start: what is loaded, what is new, what is skipped, and what the network computes then."""

import dataclasses
import json
import re
import shutil

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ebt_jax.checkpoint import CheckpointError, sealed
from ebt_jax.loading import load
from ebt_jax.normalize import Statistics, VectorStatistics, make_normalizer, normalize
from ebt_jax.policy import empty_batch
from ebt_jax.sharding import make_mesh, shardings
from ebt_jax.specs import ActionDimension, ActionSpec, CameraSpec, Dimension, LanguageSpec, ObservationSpec, Specs
from ebt_jax.training.initialize import begin, read_source, start_from
from ebt_jax.training.loop import train
from ebt_jax.training.optimizer import tuned
from ebt_jax.training.settings import Settings
from ebt_jax.training.state import TrainState
from ebt_jax.training.trained import Trained, read_trained
from ebt_jax.tree import named_leaves

HAND = tuple(ActionDimension(name, "eef_delta", "m") for name in ("x", "y", "z"))
JOINTS = tuple(ActionDimension(f"joint_{i}", "joint_position", "rad") for i in range(4))
STATE = tuple(Dimension(name, "m") for name in ("x", "y", "z"))
GRIPPER = ActionDimension("gripper", "gripper", "", 0.0, 1.0)


def make_specs(cameras=(), proprio=STATE, action=(*HAND, GRIPPER), observation_horizon=1, action_horizon=8):
    images = tuple(CameraSpec(name, 16, 16) for name in cameras)
    observation = ObservationSpec(images, tuple(proprio), LanguageSpec("tokens", 3, 20), observation_horizon)
    return Specs(observation, ActionSpec(tuple(action), "base", action_horizon, 10.0))


def make_statistics(specs, seed=0):
    draw = np.random.default_rng(seed)

    def one(size):
        rows = draw.normal(size=(100, size)) * draw.uniform(0.5, 2.0, size) + draw.uniform(-1, 1, size)
        return VectorStatistics.of(rows)

    return Statistics(one(len(specs.action.dimensions)), one(len(specs.observation.proprio)), 100, 2)


@pytest.fixture(scope="module")
def setting(tiny_config):
    """Settings of the tiny network, with changes to the model, the method and the optimiser."""

    def make(model=(), method=None, optimizer=()):
        tree = {**tiny_config, "model": {**tiny_config["model"], **dict(model)}, "method": method or {"name": "ebt", "objective": "mse"}}
        return Settings.from_dict({**tree, "optimizer": {**tiny_config["optimizer"], **dict(optimizer)}})

    return make


def abstract(method, specs):
    return jax.eval_shape(method.init, jax.random.key(0), empty_batch(specs))


def filled(tree, seed):
    draw = np.random.default_rng(seed)
    return jax.tree.map(lambda leaf: jnp.asarray(draw.normal(size=leaf.shape) * 0.3, leaf.dtype), tree)


def make_source(settings, specs, statistics=None, datasets="[]"):
    """A run that has learnt something: random parameters."""
    method = settings.make_method(specs)
    return Trained(7, settings, specs, statistics or make_statistics(specs), method, filled(abstract(method, specs), 1), "", datasets)


def fresh_state(settings, specs, mesh):
    """A run of these settings before its first update, as far as `begin` looks."""
    params = filled(abstract(tuned(settings.make_method(specs), settings.optimizer), specs), 2)
    params = jax.device_put(params, shardings(params, mesh))
    return TrainState(jnp.int32(0), params, jax.tree.map(jnp.copy, params), (), jnp.zeros(2, jnp.uint32))


def started(source, settings, specs, statistics=None, mesh=None, dataset="mine"):
    """(state that a run of these settings begins with, what became of each parameter by name)."""
    state = fresh_state(settings, specs, mesh or make_mesh(devices=jax.devices()[:1]))
    network = state.params["base"] if settings.optimizer.lora else state.params
    start = start_from(source, settings, specs, statistics or source.statistics, dataset, network)
    return begin(state, start), {row.parameter: row for row in start.rows}


def draw_batch(specs, proprio=None):
    draw = np.random.default_rng(3)
    batch = empty_batch(specs, 4)
    if proprio is None:
        proprio = draw.normal(size=batch.observation.proprio.shape).astype(np.float32)
    images = {name: draw.integers(0, 256, x.shape, dtype=np.uint8) for name, x in batch.observation.images.items()}
    language = draw.integers(0, 20, batch.observation.language.shape, dtype=np.int32)
    observation = batch.observation._replace(images=images, proprio=proprio, language=language)
    return jax.tree.map(
        jnp.asarray, batch._replace(observation=observation, actions=draw.normal(size=batch.actions.shape).astype(np.float32))
    )


def context(method, params, batch):
    """Keys and values that the decoder's only layer reads of the observation, where the mask lets it."""
    found = jax.jit(method.encode)(params, batch.observation)
    valid = np.asarray(found.mask)[:, None, None, :]
    return [np.compress(found.mask[0], np.where(valid, part, 0), axis=3) for (part,) in (found.keys, found.values)]


def test_equal_specs_and_statistics_load_every_bit(setting):
    specs = make_specs(cameras=("primary",))
    source = make_source(setting(), specs)
    state, rows = started(source, setting(), specs)
    assert {row.status for row in rows.values()} == {"loaded"}
    assert set(rows) == set(named_leaves(source.params))
    for name, leaf in named_leaves(state.params).items():
        np.testing.assert_array_equal(leaf, named_leaves(source.params)[name], err_msg=name)


def test_new_statistics_leave_the_function_of_the_robots_own_numbers(setting):
    """Other means and spreads of the state: what is made of the same metres is the same, to rounding; without the correction it is not."""
    specs = make_specs(observation_horizon=3)
    settings = setting(model={"motion_gain": 4.0})
    source, statistics = make_source(settings, specs, make_statistics(specs, 0)), make_statistics(specs, 5)
    halved = setting(model={"motion_gain": 2.0})
    state, _ = started(source, halved, specs, statistics)
    robot = np.random.default_rng(9).normal(size=(4, 3, 3)).astype(np.float32)
    there, here = (make_normalizer(s.proprio, "mean_std") for s in (source.statistics, statistics))
    old, new = (draw_batch(specs, np.asarray(normalize(robot, normalizer), np.float32)) for normalizer in (there, here))
    target = halved.make_method(specs)
    expected = context(source.method, source.params, old)
    chex.assert_trees_all_close(context(target, state.params, new), expected, atol=1e-5)
    assert np.abs(np.subtract(context(target, source.params, new), expected)).max() > 0.1


def manifest(**datasets):
    """datasets.json, as far as it is read, of datasets given by (names of the state's numbers, their statistics)."""
    trees = [
        {"name": name, "spec": {"proprio": [{"name": number} for number in names]}, "statistics": json.loads(statistics.to_json())}
        for name, (names, statistics) in datasets.items()
    ]
    return json.dumps(trees)


def test_a_dataset_of_the_sources_mixture_is_read_by_its_own_statistics(setting):
    """By which it was normalised there, and not by the main dataset's: the same metres make the same context, whoever is main."""
    specs = make_specs()
    main, small, now = (make_statistics(specs, seed) for seed in (0, 1, 2))
    known = manifest(main=("xyz", main), small=("xyz", small))
    source = make_source(setting(), specs, main, known)
    robot = np.random.default_rng(9).normal(size=(4, 1, 3)).astype(np.float32)
    for dataset, there in (("small", small), ("main", main)):
        state, _ = started(source, setting(), specs, now, dataset=dataset)
        old, new = (
            draw_batch(specs, np.asarray(normalize(robot, make_normalizer(s.proprio, "mean_std")), np.float32)) for s in (there, now)
        )
        expected = context(source.method, source.params, old)
        chex.assert_trees_all_close(context(setting().make_method(specs), state.params, new), expected, atol=1e-5)


def test_a_dataset_that_the_sources_mixture_did_not_know_is_read_by_its_own(setting):
    """Each dataset of a mixture is deviations from its own mean, and so is one more: no row and no bias changes."""
    specs = make_specs()
    source = make_source(
        setting(), specs, make_statistics(specs), manifest(a=("xyz", make_statistics(specs)), b=("xyz", make_statistics(specs, 1)))
    )
    start = start_from(source, setting(), specs, make_statistics(specs, 2), "c", abstract(setting().make_method(specs), specs))
    for name in ("tokens/proprio_hidden/kernel", "tokens/proprio_hidden/bias"):
        np.testing.assert_array_equal(start.values[name], named_leaves(source.params)[name])
    assert start.state_read_by == "its own, since none of the source's 2 datasets is c"


def test_a_number_that_any_dataset_of_the_mixture_moved_is_taught(setting):
    """y stands still in one and moves in the other, z in none that has it, x is one's alone: z alone starts as new."""
    specs = make_specs()
    moving = make_statistics(specs)

    def stopped(*numbers):
        keep = np.isin(np.arange(3), numbers, invert=True)
        proprio = VectorStatistics(
            **{f.name: np.where(keep, getattr(moving.proprio, f.name), 0.0) for f in dataclasses.fields(VectorStatistics)}
        )
        return dataclasses.replace(moving, proprio=proprio)

    def columns(statistics, at):
        proprio = VectorStatistics(**{f.name: getattr(statistics.proprio, f.name)[at] for f in dataclasses.fields(VectorStatistics)})
        return dataclasses.replace(statistics, proprio=proprio)

    known = manifest(main=("xyz", stopped(1, 2)), other=("zy", columns(stopped(2), [2, 1])))
    source = make_source(setting(), specs, stopped(1, 2), known)
    for dataset in ("main", "other", "another"):
        _, rows = started(source, setting(), specs, make_statistics(specs, 4), dataset=dataset)
        assert rows["tokens/proprio_hidden/kernel"].reason == "same name: x, y; new, as 0: z; skipped: z (never moved)"


def test_numbers_of_state_and_action_keep_their_values_by_name(setting):
    """A robot with another order, one number less and two more: rows follow names, what is new reads as nothing."""
    there = make_specs(proprio=STATE, action=(*HAND, GRIPPER))
    here = make_specs(proprio=(*STATE[::-1], Dimension("w", "m")), action=(GRIPPER, ActionDimension("roll", "eef_delta", "rad"), *HAND[:2]))
    source = make_source(setting(), there)
    state, rows = started(source, setting(), here, make_statistics(here))
    new, old = (named_leaves(tree)["action/kernel"].reshape(4, 4, -1) for tree in (state.params, source.params))
    np.testing.assert_array_equal(new[:, 0], old[:, 3])
    np.testing.assert_array_equal(new[:, 2:], old[:, :2])
    np.testing.assert_array_equal(new[:, 1], 0)
    np.testing.assert_array_equal(named_leaves(state.params)["tokens/proprio_hidden/kernel"][3], 0)
    assert rows["action/kernel"].status == rows["tokens/proprio_hidden/kernel"].status == "partly loaded"
    assert rows["action/kernel"].reason == "same name: gripper, x, y; new, as 0: roll; skipped: z"
    assert rows["tokens/proprio_hidden/kernel"].reason == "same name: z, y, x; new, as 0: w"


def test_what_a_new_number_says_changes_nothing_at_first(setting):
    there, here = make_specs(), make_specs(proprio=(*STATE, Dimension("w", "m")), action=(*HAND, GRIPPER, *JOINTS))
    source = make_source(setting(), there)
    statistics = make_statistics(here)
    names = [field.name for field in dataclasses.fields(VectorStatistics)]
    proprio = [np.append(getattr(source.statistics.proprio, name), getattr(statistics.proprio, name)[3]) for name in names]
    state, _ = started(source, setting(), here, dataclasses.replace(statistics, proprio=VectorStatistics(*proprio)))
    old = draw_batch(there)
    new = draw_batch(here)
    proprio = new.observation.proprio.at[..., :3].set(old.observation.proprio)
    observation = new.observation._replace(proprio=proprio, language=old.observation.language)
    new = new._replace(observation=observation, actions=new.actions.at[..., :4].set(old.actions))
    answers = []
    for method, params, batch in ((source.method, source.params, old), (setting().make_method(here), state.params, new)):
        answers.append(jax.jit(lambda p, b, m=method: m.energy(p, m.encode(p, b.observation), b.actions))(params, batch))
    np.testing.assert_allclose(*answers, rtol=1e-5)


def test_a_new_camera_that_is_masked_leaves_the_answer(setting):
    settings = setting(model={"share_vision": False})
    there, here = make_specs(cameras=("primary",)), make_specs(cameras=("wrist", "primary"))
    source = make_source(settings, there)
    state, rows = started(source, settings, here)
    old, new = draw_batch(there), draw_batch(here)
    images = {"wrist": new.observation.images["wrist"], "primary": old.observation.images["primary"]}
    masks = {"wrist": jnp.zeros((4, 1), bool), "primary": jnp.ones((4, 1), bool)}
    rest = {"proprio": old.observation.proprio, "language": old.observation.language}
    new = new._replace(observation=new.observation._replace(images=images, image_masks=masks, **rest), actions=old.actions)
    expected = context(source.method, source.params, old)
    chex.assert_trees_all_close(context(settings.make_method(here), state.params, new), expected, atol=1e-5)
    assert {row.status for name, row in rows.items() if "images_wrist" in name} == {"new"}
    assert {row.status for name, row in rows.items() if "images_primary" in name} == {"loaded"}
    assert rows["tokens/cameras"].reason == "same name: primary; new: wrist"
    np.testing.assert_array_equal(
        named_leaves(state.params)["tokens/cameras"][0], named_leaves(fresh_state(settings, here, make_mesh()).params)["tokens/cameras"][0]
    )


def test_horizons_change_freely_and_steps_align_at_the_newest(setting):
    there, here = make_specs(observation_horizon=2, action_horizon=8), make_specs(observation_horizon=3, action_horizon=12)
    source = make_source(setting(), there)
    state, rows = started(source, setting(), here)
    np.testing.assert_array_equal(named_leaves(state.params)["tokens/time"][1:], named_leaves(source.params)["tokens/time"])
    assert rows["tokens/time"].reason == "same name: -1, 0; new: -2"
    assert {row.status for row in rows.values()} == {"loaded", "partly loaded"}


def test_from_an_arm_to_two_arms_in_joint_space(setting):
    """Nothing of the robot is shared: its own projections are new, all else is loaded."""
    two = tuple(dataclasses.replace(d, name=f"{side}_{d.name}") for side in ("left", "right") for d in (*JOINTS, GRIPPER))
    here = make_specs(proprio=[Dimension(d.name, d.unit) for d in two], action=two)
    source = make_source(setting(), make_specs())
    state, rows = started(source, setting(), here, make_statistics(here))
    new = {"action/kernel", "tokens/proprio_hidden/kernel"}
    assert {name for name, row in rows.items() if row.status == "new"} == new
    assert {row.status for name, row in rows.items() if name not in new} == {"loaded"}
    assert np.abs(named_leaves(state.params)["action/kernel"]).max() > 0


def test_another_method_and_language_keep_the_trunk(setting):
    """From descent with a learnt step size to flow matching: names in the network count, heads and clocks are new."""
    source = make_source(setting(method={"name": "ebt", "objective": "mse", "learn_step_size": True}), make_specs())
    assert set(source.params) == {"model", "log_step_size"}
    state, rows = started(source, setting(method={"name": "flow"}), make_specs())
    np.testing.assert_array_equal(state.params["action"]["kernel"], source.params["model"]["action"]["kernel"])
    assert rows["log_step_size"].status == "skipped"
    assert rows["head/bias"].status == rows["time/kernel"].status == "new"
    assert rows["head/kernel"].reason == "its shape in the source is [16, 1]"
    assert rows["encoder/mlp/hidden/kernel"].status == "loaded"


def test_another_image_encoder_starts_anew_under_the_same_trunk(setting):
    specs = make_specs(cameras=("primary",))
    source = make_source(setting(), specs)
    _, rows = started(source, setting(model={"pooling": "spatial_softmax"}), specs)
    images = {name: row for name, row in rows.items() if name.startswith("tokens/images")}
    assert {row.status for row in images.values()} == {"new"}
    assert "model.pooling: there grid, here spatial_softmax" in images["tokens/images/out/kernel"].reason
    assert rows["encoder/mlp/hidden/kernel"].status == "loaded"


def test_the_published_network_follows_the_robots_numbers_by_name(setting):
    """Other order, one number more, other statistics: rows move, and what is made of the same metres stays the same."""
    silent = lambda specs: dataclasses.replace(specs, observation=dataclasses.replace(specs.observation, language=LanguageSpec()))
    there = silent(make_specs(cameras=("primary",), observation_horizon=2))
    here = silent(
        make_specs(
            cameras=("wrist", "primary"), proprio=(*STATE[::-1], Dimension("w", "m")), action=(GRIPPER, *HAND[:2], *JOINTS[:1]),
            observation_horizon=3,
        )
    )  # fmt: skip
    settings = setting(model={"variant": "paper"})
    statistics = make_statistics(here, 5)
    source = make_source(settings, there)
    state, rows = started(source, settings, here, statistics)
    new, old = named_leaves(state.params), named_leaves(source.params)
    for name in ("action_hidden/kernel", "head/bias"):
        np.testing.assert_array_equal(new[name][:3], old[name][jnp.array([3, 0, 1])])
        np.testing.assert_array_equal(new[name][3], 0)
    np.testing.assert_array_equal(new["head/kernel"][:, :3], old["head/kernel"][:, jnp.array([3, 0, 1])])
    np.testing.assert_array_equal(new["positions"][1:], old["positions"])
    np.testing.assert_array_equal(new["features/kernel"][64:128], old["features/kernel"][:64])
    np.testing.assert_array_equal(new["features/kernel"][:64], 0)
    assert rows["head/kernel"].reason == "same name: gripper, x, y; new, as 0: joint_0; skipped: z"
    assert rows["features/kernel"].reason == "same name: camera primary, z, y, x; new, as 0: camera wrist, w"
    robot = np.random.default_rng(9).normal(size=(4, 3)).astype(np.float32)
    there_normalizer, here_normalizer = (make_normalizer(s.proprio, "mean_std") for s in (source.statistics, statistics))
    layers = [{name: np.asarray(leaves[f"features/{name}"], np.float64) for name in ("kernel", "bias")} for leaves in (old, new)]
    read_there = normalize(robot, there_normalizer) @ layers[0]["kernel"][64:] + layers[0]["bias"]
    more = np.concatenate([robot[:, ::-1], np.ones((4, 1), np.float32)], axis=1)
    np.testing.assert_allclose(normalize(more, here_normalizer) @ layers[1]["kernel"][128:] + layers[1]["bias"], read_there, atol=1e-5)


def test_an_instruction_of_another_kind_starts_anew(setting):
    """512 numbers that a dataset carries are not the 512 of a text encoder, nor one vocabulary's ids another's."""

    def changed(language, spec):
        specs = make_specs()
        return setting(model={"language": language}), dataclasses.replace(
            specs, observation=dataclasses.replace(specs.observation, language=spec)
        )

    ids = LanguageSpec("tokens", 3, 20, "wordpiece", "\n".join(map(str, range(20))))
    pieces = LanguageSpec("tokens", 32, 3, "unigram", "a\t0\nb\t0\nc\t0")
    for here, there, parameter, why in (
        (
            changed("t5_small", pieces),
            changed("words", LanguageSpec("embedding", 1, 512)),
            "project/kernel",
            "embedding, here tokens for t5_",
        ),
        (
            changed("words", ids),
            changed("words", LanguageSpec("tokens", 3, 20)),
            "embedding/embedding",
            "words, here .* of tokenizer wordpiece",
        ),
    ):
        source = make_source(*there)
        start = start_from(source, *here, source.statistics, "mine", abstract(here[0].make_method(here[1]), here[1]))
        rows = {row.parameter: row for row in start.rows}
        assert rows[f"tokens/language/{parameter}"].status == "new"
        assert re.search(why, rows[f"tokens/language/{parameter}"].reason)
        assert rows["encoder/mlp/hidden/kernel"].status == "loaded"


def test_a_number_that_stood_elsewhere_starts_as_new_and_leaves_the_bias(setting):
    """0 throughout there, 100 throughout here: no row was trained to read the way between them; at 0 in both it is what it was."""
    specs = make_specs()
    moving = make_statistics(specs).proprio
    at = lambda y: dataclasses.replace(moving, **{n: np.array([-1, y, -1.0]) for n in ("min", "mean", "q01")}, max=np.array([1, y, 1.0]),
                                       std=np.array([1, 0, 1.0]))  # fmt: skip
    source = make_source(setting(), specs, dataclasses.replace(make_statistics(specs), proprio=at(0.0)))
    for place, kept in ((100.0, False), (0.0, True)):
        state, rows = started(source, setting(), specs, dataclasses.replace(make_statistics(specs), proprio=at(place)))
        layer, old = state.params["tokens"]["proprio_hidden"], source.params["tokens"]["proprio_hidden"]
        np.testing.assert_array_equal(layer["bias"], old["bias"])
        np.testing.assert_array_equal(layer["kernel"][1], old["kernel"][1] if kept else 0)
        assert ("y (never moved)" in rows["tokens/proprio_hidden/kernel"].reason) != kept


def test_a_number_that_never_moved_there_and_does_here_starts_as_new(setting):
    specs = make_specs()
    still = dataclasses.replace(make_statistics(specs).proprio, min=np.zeros(3), max=np.array([1.0, 0.0, 1.0]))
    source = make_source(setting(), specs, dataclasses.replace(make_statistics(specs), proprio=still))
    state, rows = started(source, setting(), specs, make_statistics(specs, 4))
    kernel = named_leaves(state.params)["tokens/proprio_hidden/kernel"]
    np.testing.assert_array_equal(kernel[1], 0)
    assert np.abs(kernel[0]).min() > 0
    assert rows["tokens/proprio_hidden/kernel"].reason == "same name: x, z; new, as 0: y; skipped: y (never moved)"


def test_nothing_in_common_is_an_error(setting):
    nothing = make_specs(proprio=())
    source = make_source(setting(), nothing)._replace(params={"elsewhere": np.zeros(3)})
    with pytest.raises(ValueError, match="init_from must share parameters with this configuration, got none of"):
        start_from(
            source,
            setting(),
            make_specs(),
            make_statistics(make_specs()),
            "mine",
            abstract(setting().make_method(make_specs()), make_specs()),
        )


def test_a_start_is_placed_on_any_mesh(setting, monkeypatch):
    """Eight devices with sharded matrices and adapters: the same bits as on one."""
    monkeypatch.setattr("ebt_jax.sharding.SMALLEST_SHARDED", 64)
    specs = make_specs(action=(*HAND, GRIPPER, *JOINTS))
    settings = setting(optimizer={"lora": ["encoder/*"], "lora_rank": 2})
    source, mesh = make_source(setting(), make_specs()), make_mesh(2, 4)
    one, many = started(source, settings, specs)[0], started(source, settings, specs, mesh=mesh)[0]
    assert jax.tree.map(lambda leaf: leaf.sharding, many.params) == shardings(many.params, mesh)
    for name, leaf in named_leaves(one.params).items():
        np.testing.assert_array_equal(named_leaves(many.params)[name], leaf, err_msg=name)
        np.testing.assert_array_equal(named_leaves(many.ema_params)[name], leaf, err_msg=name)


# Whole runs, from the workdir of another.


@pytest.fixture(scope="module")
def fine_tuned(tiny_run, tiny_config, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("fine_tuned")
    config = {**tiny_config, "num_steps": 12, "save_interval": 6, "eval_interval": 0, "init_from": str(tiny_run)}
    config["optimizer"] = {**tiny_config["optimizer"], "freeze": ["encoder/*", "decoder/*/kernel"]}
    config["data"] = {**tiny_config["data"], "observation_horizon": 3}
    train(config, workdir)
    return config, workdir


@pytest.mark.slow
def test_a_run_says_what_it_began_with(fine_tuned, tiny_run):
    _, workdir = fine_tuned
    said = json.loads((workdir / "init_from.json").read_text())
    assert (said["path"], said["step"]) == (str(tiny_run), 20)
    names = set(named_leaves(load(workdir).params))
    assert {row["parameter"] for row in said["parameter"]} == names
    assert said["parameters"] == {"loaded": len(names) - 1, "partly loaded": 1, "new": 0, "skipped": 0}
    assert said["action_scale"]["hand_x"]["there"] == said["action_scale"]["hand_x"]["here"] > 0


@pytest.mark.slow
def test_frozen_parameters_keep_the_sources_bits_and_the_rest_trains(fine_tuned, tiny_run):
    _, workdir = fine_tuned
    before = named_leaves(load(tiny_run).params)
    frozen = {n for n in before if n.startswith("encoder/") or (n.startswith("decoder/") and n.endswith("/kernel"))}
    for ema in (True, False):
        after = named_leaves(load(workdir, ema=ema).params)
        moved = {name for name, leaf in after.items() if name != "tokens/time" and not np.array_equal(leaf, before[name])}
        assert not moved & frozen
        assert {"action/kernel", "head/kernel", "key_value/kernel", "tokens/proprio/bias", "decoder/mlp/out/bias"} <= moved


@pytest.mark.slow
def test_a_fine_tuning_run_resumes_bit_for_bit_without_its_source(fine_tuned, tmp_path):
    """Its first checkpoint, kept alone, leads to the same end when the source is gone."""
    config, workdir = fine_tuned
    again = tmp_path / "again"
    shutil.copytree(workdir, again)
    shutil.rmtree(again / "checkpoints" / "12")
    moved = {**config, "init_from": str(tmp_path / "gone")}
    (again / "config.json").write_text(json.dumps(moved))
    train(moved, again)
    for ema in (True, False):
        for (name, a), b in zip(
            named_leaves(load(again, ema=ema).params).items(), jax.tree.leaves(load(workdir, ema=ema).params), strict=True
        ):
            np.testing.assert_array_equal(a, b, err_msg=name)


@pytest.mark.slow
def test_resuming_from_another_source_is_refused_by_name(fine_tuned):
    config, workdir = fine_tuned
    with pytest.raises(ValueError, match=r"1 differences:\n  init_from: there .*, now /other"):
        train({**config, "init_from": "/other"}, workdir)


def test_a_source_that_is_none_is_refused_before_anything_is_written(tmp_path, tiny_config):
    with pytest.raises(CheckpointError, match="init_from must be a workdir, its checkpoints folder or one step of it, got .*nowhere"):
        train({**tiny_config, "init_from": str(tmp_path / "nowhere")}, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_source_with_another_trunk_is_refused_with_its_differences(tiny_run, tiny_config, tmp_path):
    model = {**tiny_config["model"], "width": 32, "decoder_layers": 2}
    with pytest.raises(ValueError, match="this configuration's trunk, got 2 differences") as error:
        train({**tiny_config, "model": model, "init_from": str(tiny_run)}, tmp_path / "run")
    assert re.search(r"model.width: there 16, here 32\n  model.decoder_layers: there 1, here 2", str(error.value))
    assert not (tmp_path / "run").exists()


def test_the_published_network_is_another_trunk(tiny_run, tiny_config):
    settings = Settings.from_dict({**tiny_config, "model": {**tiny_config["model"], "variant": "paper"}})
    with pytest.raises(ValueError, match="model.variant: there another, here paper"):
        read_source(str(tiny_run), settings, make_mesh())


def test_a_source_whose_configuration_is_unreadable_is_refused(tiny_run, tiny_config, tmp_path):
    shutil.copytree(tiny_run / "checkpoints" / "20", tmp_path / "checkpoints" / "20")
    folder = tmp_path / "checkpoints" / "20" / "assets"
    files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in ("digests.json", "commit_success.txt")}
    files["config.json"] = json.dumps({**json.loads(files["config.json"]), "unheard_of": 1}).encode()
    for name, content in sealed(files, json.loads((folder / "digests.json").read_text())["arrays"]).items():
        (folder / name).write_bytes(content)
    with pytest.raises(CheckpointError, match="init_from must be a checkpoint that this version reads.*unheard_of"):
        read_source(str(tmp_path), Settings.from_dict(tiny_config), make_mesh())


def test_fine_tuning_starts_from_the_average(tiny_run):
    average, raw = load(tiny_run).params, load(tiny_run, ema=False).params
    source = read_trained(tiny_run, "init_from")
    for mine, other in zip(*map(jax.tree.leaves, (source.params, average)), strict=True):
        np.testing.assert_array_equal(mine, other)
    assert not all(np.array_equal(mine, other) for mine, other in zip(*map(jax.tree.leaves, (source.params, raw)), strict=True))

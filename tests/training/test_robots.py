"""Robots that differ: what one lacks reaches no network, in training or when the policy acts as one of them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import toy_rlds

import ebt_jax
from ebt_jax.artifact import export_policy
from ebt_jax.data.mixture import open_mixture
from ebt_jax.evaluation.open_loop import open_dataset, open_loop
from ebt_jax.methods import method_settings
from ebt_jax.models import make_model
from ebt_jax.models.placed import placed
from ebt_jax.normalize import Statistics, make_normalizer
from ebt_jax.policy import empty_batch
from ebt_jax.report.descents import DESCENT
from ebt_jax.report.held_out import draw_held_out
from ebt_jax.training.loop import train
from ebt_jax.training.settings import Settings
from ebt_jax.training.trained import acting_as, read_trained
from ebt_jax.types import EnergyModel

METHODS = [{"name": "ebt"}, {"name": "flow"}, pytest.param({"name": "equilibrium", "head": "vector"}, marks=pytest.mark.slow)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """A toy robot and an arm, of which each has numbers that the other lacks."""
    folder = tmp_path_factory.mktemp("robots")
    toy_rlds.write_folder(folder, "toy", toy_rlds.STEPS, {"train": toy_rlds.shards()}, toy_rlds.SPEC)
    toy_rlds.write_folder(folder, "arm", toy_rlds.STEPS, {"train": toy_rlds.arm_shards()}, toy_rlds.ARM)
    return folder


@pytest.fixture(scope="module")
def config(tiny_config, data):
    about = {"data_dir": str(data), "mixture": {"toy": 3.0, "arm": 1.0}, "combine": "union", "validation_fraction": 0.0}
    short = {"num_steps": 1, "batch_size": 8, "eval_interval": 0, "save_interval": 0, "log_interval": 1}
    return {**tiny_config, **short, "method": {"name": "ebt"}, "data": {**tiny_config["data"], **about}}


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """The workdir of one update on both robots."""
    workdir = tmp_path_factory.mktemp("run")
    train(config, workdir)
    return workdir


def untrained(settings, config):
    """The model of a method on the union, all of it random, and a batch of both robots."""
    parsed = Settings.from_dict({**config, "method": settings})
    mixture = open_mixture(parsed.data)
    model = make_model(parsed.model, mixture.specs, method_settings(settings).head)
    parts = [mixture.batch(one, one.train, np.arange(2)) for one in mixture.datasets]
    batch = jax.tree.map(lambda *leaves: np.concatenate(leaves), *parts)
    draw = np.random.default_rng(0)
    shapes = jax.eval_shape(model.init, jax.random.key(0), batch)
    return model, jax.tree.map(lambda leaf: 0.3 * draw.standard_normal(leaf.shape, np.float32), shapes), batch, mixture


def answers(model, params, observation, actions):
    """E and its gradient, or the chunk that is predicted."""

    def ask(params, observation, actions):
        context = model.encode(params, observation)
        if isinstance(model, EnergyModel):
            energy, back = jax.vjp(lambda a: model.energy(params, context, a), actions)
            return energy, back(jnp.ones_like(energy))[0]
        return model.predict(params, context, actions, jnp.full(len(actions), 0.5) if "time_hidden" in params else None)

    return jax.tree.leaves(jax.jit(ask)(params, observation, actions))


@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: settings["name"])
def test_a_network_never_sees_what_a_robot_lacks(settings, config):
    model, params, batch, _ = untrained(settings, config)
    lacking = ~np.broadcast_to(batch.observation.action_present[:, None], batch.actions.shape)
    assert lacking.any(axis=(1, 2)).all()
    noise = np.random.default_rng(0).normal(size=(2, *lacking.shape)).astype(np.float32)
    first, second = (answers(model, params, batch.observation, np.where(lacking, n, noise[0])) for n in noise)
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one, other)
    move = np.asarray(first[-1])
    assert (move[lacking] == 0).all()
    assert (move[~lacking] != 0).all()


@pytest.mark.parametrize("settings", METHODS, ids=lambda settings: settings["name"])
def test_a_placed_model_is_the_union_s_on_one_robot(settings, config):
    """On the columns of a robot it says what the union's says of a sample of that robot."""
    model, params, batch, mixture = untrained(settings, config)
    chunks = np.random.default_rng(1).normal(size=batch.actions.shape).astype(np.float32)
    whole = answers(model, params, batch.observation, chunks)
    for number, dataset in enumerate(mixture.datasets):
        rows, place = slice(2 * number, 2 * number + 2), dataset.place
        own = placed(model, mixture.specs, *place)
        assert own.action_shape == (4, 3)
        mine = jax.tree.map(lambda leaf, rows=rows: leaf[rows], batch.observation)
        seen = mine._replace(proprio=mine.proprio[..., place.proprio], action_present=None)
        found = answers(own, params, seen, chunks[rows][..., place.action])
        for theirs, ours in zip(whole, found, strict=True):
            expected = np.asarray(theirs)[rows]
            np.testing.assert_allclose(ours, expected[..., place.action] if expected.ndim == 3 else expected, atol=1e-5)


@pytest.mark.slow
def test_a_policy_acts_as_one_of_its_robots(run, data):
    trees = {tree["name"]: tree for tree in json.loads(next(run.glob("checkpoints/*/assets/datasets.json")).read_text())}
    for name, spec in ((None, toy_rlds.SPEC), ("toy", toy_rlds.SPEC), ("arm", toy_rlds.ARM)):
        policy = ebt_jax.load(run, robot=name) if name else ebt_jax.load(run)
        assert (policy.specs.action.dimensions, policy.specs.observation.proprio) == (spec.action, spec.proprio)
        assert (policy.specs.action.control_rate_hz, policy.specs.action.frame) == (spec.control_rate_hz, spec.action_frame)
        assert policy.identity.robot == spec.name
        own = Statistics.from_json(json.dumps(trees[spec.name]["statistics"]))
        np.testing.assert_array_equal(policy.action_normalizer.scale, make_normalizer(own.action, "min_max", spec.action).scale)
        output = policy.sample_actions(empty_batch(policy.specs, 2).observation, policy.sample_keys(0, np.arange(2), np.zeros(2, int)))
        assert output.actions.shape == (2, 4, 3)
        assert np.isfinite(output.energy).all()
        measured = open_loop(policy, open_dataset(policy, str(data), spec.name, as_trained=True), "train", 2, seed=0)
        assert list(measured["rmse"]) == [dimension.name for dimension in spec.action]
    with pytest.raises(ValueError, match=r"robot must be one of the datasets .*\['toy', 'arm'\], got 'leg'"):
        ebt_jax.load(run, robot="leg")
    with pytest.raises(ValueError, match="dataset 'arm' must match the specs"):
        open_dataset(ebt_jax.load(run), str(data), "arm")


@pytest.mark.slow
def test_an_artifact_is_of_one_robot(run, tmp_path):
    arm = ebt_jax.load(run, robot="arm")
    export_policy(arm, tmp_path / "arm", ["cpu"])
    policy = ebt_jax.load(tmp_path / "arm", robot="arm")
    assert policy.specs == arm.specs
    observation, keys = empty_batch(arm.specs, 2).observation, arm.sample_keys(0, np.arange(2), np.zeros(2, int))
    np.testing.assert_allclose(policy.sample_actions(observation, keys).actions, arm.sample_actions(observation, keys).actions, atol=1e-5)
    with pytest.raises(ValueError, match="robot must be arm for this artifact, which acts as no other, got 'toy'"):
        ebt_jax.load(tmp_path / "arm", robot="toy")


@pytest.mark.slow
def test_datasets_of_one_robot_differ_in_statistics_alone(config, data, tmp_path):
    """Without a union a named dataset's numbers are the policy's, by its own statistics; the network is the same."""
    far = [[{**toy_rlds.make_episode(number, 4), "action": 5 * toy_rlds.arm_moves(number) / [1, 1, 5]} for number in range(3)]]
    far = [[{**episode, "action": episode["action"].astype(np.float32)} for episode in shard] for shard in far]
    toy_rlds.write_folder(data, "far", toy_rlds.STEPS, {"train": far}, dataclasses.replace(toy_rlds.SPEC, name="far"))
    same = {**config["data"], "mixture": {"toy": 3.0, "far": 1.0}, "combine": "equal"}
    train({**config, "data": same}, tmp_path)
    toy, far = ebt_jax.load(tmp_path), ebt_jax.load(tmp_path, robot="far")
    assert toy.identity.sha256 == far.identity.sha256
    assert (toy.identity.robot, far.identity.robot) == ("toy", "far")
    assert far.action_normalizer.scale[1] == pytest.approx(5 * 3 / 2)
    assert toy.specs == far.specs


@pytest.mark.slow
def test_a_union_that_does_not_place_its_robots_states_acts_in_all_its_numbers(run):
    trained = read_trained(run, "policy")
    trees = [{key: value for key, value in tree.items() if key != "proprio_columns"} for tree in json.loads(trained.datasets)]
    old = trained._replace(datasets=json.dumps(trees))
    assert acting_as(old) == (old, "")
    with pytest.raises(ValueError, match="robot must be left out for a union"):
        acting_as(old, "arm")


@pytest.mark.slow
def test_the_report_draws_a_union_s_main_robot(config, run, data):
    settings = Settings.from_dict({**config, "data": {**config["data"], "validation_fraction": 0.3}})
    draw_held_out(run, settings.data, 0)
    assert (run / DESCENT).is_file()

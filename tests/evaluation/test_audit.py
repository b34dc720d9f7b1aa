"""An audit with an energy that is known finds what was spoiled, and its files say so."""

import csv
import dataclasses
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest
from formulas import formula_policy, suite_specs

from ebt_jax import audit as command
from ebt_jax.data.mixture import TOKENS, Mixture
from ebt_jax.data.settings import bundled_sample_dir
from ebt_jax.evaluation.audit import Audit, audit, chunks, episode_means, make_scorer, reference_chunks, write_csv
from ebt_jax.evaluation.open_loop import open_dataset
from ebt_jax.normalize import Normalizer
from ebt_jax.policy import Policy
from ebt_jax.report.audit import write_audit_report
from ebt_jax.uncertainty import Fit

SAMPLE = "metaworld_pick_place_v3"


@pytest.fixture(scope="module")
def policy() -> Policy:
    """E(o, a) = |gripper of the chunk - mean of the observed hand height| + 100 hand_x: a level that says nothing of the chunk."""
    specs = suite_specs("metaworld", observation_horizon=1, action_horizon=3)
    specs = dataclasses.replace(specs, observation=dataclasses.replace(specs.observation, language=TOKENS))
    made = formula_policy(specs, lambda proprio, keys, horizon: jnp.zeros((len(proprio), horizon, 4)))

    def energy(params, context, actions):
        return jnp.abs(jnp.mean(actions[:, :, 3], axis=1) - context[:, -1, 2]) + 100 * context[:, -1, 0]

    return dataclasses.replace(made, method=made.method._replace(energy=energy))


@pytest.fixture(scope="module")
def mixture(policy: Policy, tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    return open_dataset(policy, bundled_sample_dir(), SAMPLE, str(tmp_path_factory.mktemp("cache")))


def test_every_whole_chunk_is_scored_by_the_energy_of_its_observation(policy: Policy, mixture: Mixture) -> None:
    references = reference_chunks(mixture, 16)
    assert references.shape == (16, 3, 4)
    found = audit(policy, mixture, "train", references, every=7)
    lengths = mixture.main.train.episodes["length"]
    assert len(found.number) == sum(len(range(0, length - 2, 7)) for length in lengths)
    np.testing.assert_array_equal(np.unique(found.episode), np.arange(len(lengths)))
    rows = np.array([0, 5, len(found.number) - 1])
    batch = chunks(mixture, "train", found.number[rows])
    np.testing.assert_allclose(found.fit.energy[rows], policy.energy(batch.observation, batch.actions), rtol=1e-5)
    scale, shift = np.asarray(policy.action_normalizer.scale), np.asarray(policy.action_normalizer.shift)
    height, grip = batch.observation.proprio[:, -1, 2], ((batch.actions - shift) / scale)[:, :, 3].mean(1)
    other = np.abs(((references - shift) / scale)[:, :, 3].mean(1)[:, None] - height)
    np.testing.assert_allclose(found.fit.relative_energy[rows], np.abs(grip - height) + np.log(np.mean(np.exp(-other), axis=0)), atol=1e-4)
    np.testing.assert_allclose(found.fit.above_answer[rows], np.abs(grip - height) - np.abs(height), atol=1e-4)


def test_spoiled_chunks_rank_first_where_the_level_would_hide_them(policy: Policy, mixture: Mixture) -> None:
    """Grippers far outside their range in ten chunks of 640; the raw energy, ruled by hand_x, does not find them."""
    batch = chunks(mixture, "train", np.arange(0, 640, 10))
    score = make_scorer(policy, reference_chunks(mixture, 16))
    spoiled = np.array(batch.actions)
    spoiled[:10, :, 3] += 5
    fit, _ = score(batch.observation, spoiled, policy.sample_keys(0, np.arange(64), np.zeros(64, np.int64)))
    for statistic in ("relative_energy", "above_answer", "rank"):
        assert set(np.argsort(-getattr(fit, statistic), kind="stable")[:10]) == set(range(10)), statistic
    assert set(np.argsort(-fit.energy)[:10]) != set(range(10))


def test_the_files_put_the_worst_first(policy: Policy, mixture: Mixture, tmp_path: pathlib.Path) -> None:
    found = audit(policy, mixture, "train", reference_chunks(mixture, 8), every=30)
    order = np.argsort(-found.fit.relative_energy, kind="stable")
    rows = list(csv.DictReader(write_csv(tmp_path / "energies.csv", found, order, "relative_energy").open()))
    assert len(rows) == len(found.number)
    values = [float(row["relative_energy"]) for row in rows]
    assert values == sorted(values, reverse=True)
    first = found.episode == int(rows[0]["episode"])
    assert float(rows[0]["episode_relative_energy"]) == pytest.approx(found.fit.relative_energy[first].mean(), rel=1e-4)
    assert rows[0]["instruction"]
    top = order[:4]
    actions = np.asarray(chunks(mixture, "train", found.number[top]).actions)
    page = write_audit_report(
        tmp_path / "report.html",
        title="Audit",
        subtitle="",
        statistic="relative_energy",
        values=found.fit.relative_energy,
        means=episode_means(found, "relative_energy"),
        episode=found.episode,
        step=found.step,
        names=found.names,
        instructions=found.instructions,
        top=top,
        demonstrated=actions,
        answers=0 * actions,
        dimensions=["x", "y", "z", "grip"],
        normalizer=Normalizer(np.zeros(4, np.float32), np.ones(4, np.float32)),
        pictures=np.zeros((4, 8, 8, 3), np.uint8),
    ).read_text()
    assert f"episode {found.episode[top[0]]}, step {found.step[top[0]]}" in page
    assert found.names[found.episode[top[0]]] in page
    assert page.count("<img") == 4


def test_a_table_that_fails_half_way_leaves_the_earlier_one(tmp_path: pathlib.Path) -> None:
    found = Audit(*(np.zeros(2, int) for _ in range(3)), Fit(*(np.zeros(2) for _ in Fit._fields)), ["a"], ["lift"])
    path = write_csv(tmp_path / "energies.csv", found, np.array([0, 1]), "energy")
    before = path.read_text()
    with pytest.raises(IndexError):
        write_csv(path, found, np.array([0, 2]), "energy")
    assert path.read_text() == before


def test_the_command_offers_what_is_measured() -> None:
    assert set(command.STATISTICS) == set(Fit._fields)

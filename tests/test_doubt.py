"""The policy's doubt, energies of many chunks for one observation, and abstention: units, costs and the way through an artifact."""

import dataclasses
import subprocess
import sys

import numpy as np
import pytest
from quadratic import SCALE, A, H, keys, observe, quadratic_policy, without_energy

from ebt_jax.artifact import export_policy, load_artifact
from ebt_jax.calibration import Calibration
from ebt_jax.proposals import rank_proposals
from ebt_jax.starts import start_keys
from ebt_jax.types import Observation
from ebt_jax.uncertainty import Doubt

CENTERS = np.array([[0.5, -0.5], [0.2, 0.1], [-1.0, 0.3]], np.float32)
REFERENCES = SCALE * np.random.default_rng(3).normal(size=(5, H, A)).astype(np.float32)


@pytest.fixture(scope="module")
def policy():
    """Two steps of size 1/2: the answer lies a quarter of the start's distance from the centre, |dE/da| is that distance."""
    return quadratic_policy(step_size=0.5)


def heights(chunks):
    """1/2 |a - centre|^2 of chunks [... b h a] in robot units, one for each centre."""
    return 0.5 * np.sum((chunks / SCALE - CENTERS[:, None]) ** 2, axis=(-2, -1))


def test_one_observation_is_encoded_once_for_all_chunks(policy):
    """The energies are those of the repeated observation; `encode` sees one row."""
    seen = []

    def encode(params, observation: Observation):
        seen.append(len(observation.proprio))
        return policy.method.encode(params, observation)

    watched = dataclasses.replace(policy, method=policy.method._replace(encode=encode))
    repeated = observe(np.repeat(CENTERS[:1], 5, axis=0))
    np.testing.assert_allclose(watched.energy(observe(CENTERS[:1]), REFERENCES), policy.energy(repeated, REFERENCES), rtol=1e-6)
    assert seen == [1]
    with pytest.raises(ValueError, match="observation must have 1 row or one for each of 5 chunks, got 2"):
        policy.energy(observe(CENTERS[:2]), REFERENCES)
    for wrong in (REFERENCES[:, :, :1], REFERENCES[:, :1], REFERENCES[:0]):
        with pytest.raises(ValueError, match=r"actions must have shape \[m, 6, 2\] with m at least 1, got"):
            policy.energy(observe(CENTERS[:1]), wrong)


def test_proposals_are_ranked_by_energy(policy):
    order, energy = rank_proposals(policy, observe(CENTERS[:1]), REFERENCES)
    np.testing.assert_allclose(energy, 0.5 * np.sum((REFERENCES / SCALE - CENTERS[0]) ** 2, axis=(1, 2)), rtol=1e-5)
    assert (np.diff(energy[order]) >= 0).all()
    with pytest.raises(ValueError, match="observation must have 1 row, got 2"):
        rank_proposals(policy, observe(CENTERS[:2]), REFERENCES)


def test_the_command_ranks_proposals_of_a_file(policy, tmp_path):
    artifact = export_policy(policy, tmp_path / "artifact", ["cpu"])
    np.savez(tmp_path / "proposals.npz", proprio=observe(CENTERS[:1]).proprio[0], actions=REFERENCES, prompt="stir")
    flags = (f"--policy={artifact}", f"--proposals={tmp_path / 'proposals.npz'}")
    done = subprocess.run([sys.executable, "-m", "ebt_jax.rank", *flags], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    order, energy = rank_proposals(policy, observe(CENTERS[:1]), REFERENCES)
    lines = done.stdout.splitlines()
    assert lines[0] == "place,proposal,energy"
    assert [int(line.split(",")[1]) for line in lines[1:-1]] == order.tolist()
    assert lines[-1] == f"best of 5: proposal {order[0]} (energy {energy[order[0]]:.4g})"
    for said in (f"checking the artifact {artifact}", "compiling the energy of 5 chunks"):
        assert said in done.stderr


def test_doubt_is_of_the_answer_and_of_its_other_starts(policy):
    observation, key = observe(CENTERS), keys(policy, 3)
    found = policy.doubt(observation, key, num_starts=2, references=REFERENCES)
    other = start_keys(key, 2)[1::2]
    answers = np.stack([policy.sample_actions(observation, k).actions for k in (key, other)])
    energy = heights(answers)
    np.testing.assert_allclose(found.energy_drop, 15 * energy.mean(0), rtol=1e-4)  # 16 x as high at the start
    np.testing.assert_allclose(found.gradient_norm, np.sqrt(2 * energy).mean(0), rtol=1e-4)
    np.testing.assert_allclose(found.energy_spread, energy.std(0), rtol=1e-3, atol=1e-5)
    apart = (answers[0] - answers[1]) / SCALE
    np.testing.assert_allclose(found.action_spread, np.sqrt(np.mean(apart**2, axis=(1, 2))), rtol=1e-4)
    expected = energy[0] + np.log(np.mean(np.exp(-heights(REFERENCES[:, None])), axis=0))
    np.testing.assert_allclose(found.relative_energy, expected, rtol=1e-4, atol=1e-4)
    assert np.isnan(policy.doubt(observation, key, num_starts=2).relative_energy).all()


def test_a_method_without_an_energy_says_so(policy):
    with pytest.raises(ValueError, match="doubt must be asked of a policy that has an energy, got method 'ebt' without"):
        without_energy(policy).doubt(observe(CENTERS), keys(policy, 3))


def test_an_artifact_doubts_and_abstains_as_the_policy_does(policy, tmp_path):
    """With the calibration's own number of starts, references and temperature."""
    scores = {"stir": {name: tuple(float(n) for n in range(9)) for name in Doubt._fields}}
    text = Calibration("gradient_norm", 3, 0.5, "held out", scores, REFERENCES).to_json()
    calibrated = dataclasses.replace(policy, calibration=text)
    loaded = load_artifact(export_policy(calibrated, tmp_path / "artifact", ["cpu"]))
    observation, key = observe(CENTERS), keys(policy, 3)
    explicit = policy.doubt(observation, key, 3, REFERENCES, 0.5)
    for other in (calibrated.doubt(observation, key), loaded.doubt(observation, key)):
        for name in Doubt._fields:
            np.testing.assert_allclose(getattr(other, name), getattr(explicit, name), rtol=1e-4, atol=1e-5, err_msg=name)
    assert loaded.abstain(0.1, "stir") == ("gradient_norm", 8.0)
    assert not loaded.abstain(0.1, "stir")(explicit).any()
    with pytest.raises(ValueError, match="must be calibrated first"):
        policy.abstain(0.1)

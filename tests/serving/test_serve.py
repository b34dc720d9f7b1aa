"""The command: a trained policy served, asked over a socket, stopped by SIGTERM."""

import signal
import subprocess
import sys

import numpy as np
import pytest

import ebt_jax
from ebt_jax.serving.client import Client
from ebt_jax.serving.schema import Schema


@pytest.mark.slow
def test_a_trained_policy_is_served(tiny_run):
    command = [sys.executable, "-m", "ebt_jax.serve", f"--policy={tiny_run}", "--port=0", "--batch_sizes=1,2"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            ready = process.stdout.readline()
            assert ready.startswith("ready on 127.0.0.1:")
            with Client(f"ws://{ready.split()[-1]}") as client:
                policy = ebt_jax.load(tiny_run)
                observation = client.metadata["example_observation"]
                answer = client.infer({**observation, "seed": 3, "episode": 4, "step": 5})
                request = Schema(policy.specs, (policy.sample_steps,), 0).parse(observation, 0, 0, 0)
                keys = policy.sample_keys(3, np.array([4]), np.array([5]))
                expected = policy.sample_actions(request.observation, keys)
                np.testing.assert_allclose(answer["actions"], expected.actions[0], rtol=1e-5, atol=1e-5)
                energies = client.energies(observation, np.stack([answer["actions"]] * 3))
                np.testing.assert_allclose(energies, policy.energy(request.observation, answer["actions"][None])[[0, 0, 0]], rtol=1e-4)
            process.send_signal(signal.SIGTERM)
            assert process.wait(60) == 0
        finally:
            process.kill()


def test_wrong_usage_is_exit_code_2():
    command = [sys.executable, "-m", "ebt_jax.serve", "--policy=nowhere", "--batch_sizes=one"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2
    assert "--batch_sizes must be whole numbers, got one" in done.stderr


@pytest.mark.slow
def test_a_server_that_still_compiles_leaves_at_once(tiny_run):
    many = ",".join(map(str, range(1, 100)))
    command = [sys.executable, "-m", "ebt_jax.serve", f"--policy={tiny_run}", "--port=0", f"--batch_sizes={many}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            next(line for line in process.stderr if "compiled for" in line)
            process.send_signal(signal.SIGTERM)
            assert process.wait(5) == 0
            assert process.stdout.read() == ""
        finally:
            process.kill()

"""The command: a trained policy served, asked over a socket, stopped by SIGTERM."""

import signal
import subprocess
import sys

import numpy as np
import pytest
from typed import outcomes

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


def test_wrong_usage_is_exit_code_2_before_anything_is_loaded(tmp_path):
    (tmp_path / "short").write_text("abc\n")
    wrong = (
        (("--batch_sizes=one",), "--batch_sizes must be whole numbers, got one"),
        (("--batch_sizes=4,1",), "--batch_sizes must be positive and ascending, got (4, 1)"),
        (("--sample_steps=0",), "--sample_steps must be positive, got (0,)"),
        (("--host=0.0.0.0",), "host must be a loopback address where no token is set, got 0.0.0.0"),
        ((f"--token_file={tmp_path / 'short'}",), "the token must have at least 16 characters, got 3"),
        ((f"--token_file={tmp_path / 'none'}",), "--token_file must be a file that can be read"),
    )
    *refused, loaded = outcomes("serve", [*(("--policy=nowhere", *flags) for flags, _ in wrong), ("--policy=nowhere",)])
    for (flags, words), (code, said) in zip(wrong, refused, strict=True):
        assert (code, words in said, "loaded" in said) == (2, True, False), (flags, said)
    assert loaded[0] == 3


def test_steps_that_the_policy_does_not_take_are_wrong_usage():
    taking_two = """
def load(path, robot):
    import dataclasses, echo
    def sample(*given):
        if given[-1] > 2:
            raise ValueError(f"num_steps must be at most 2, got {given[-1]}.")
        return policy.method.sample(*given)
    policy = echo.echo_policy()
    return dataclasses.replace(policy, method=policy.method._replace(sample=sample))
ebt_jax.loading.load = load
"""
    ((code, said),) = outcomes("serve", [("--policy=echo", "--sample_steps=1,3")], prepare=taking_two)
    assert (code, "--sample_steps: num_steps must be at most 2, got 3" in said) == (2, True), said


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

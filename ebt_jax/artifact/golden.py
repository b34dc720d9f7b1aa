"""One question and its answers, kept when a policy is exported and asked again when it is loaded.

    actions, trace_energy, sample_energy    the policy's own answer
    energy                                  E of that chunk, of a method that has one
    under_way_...                           the same three where a robot moves, of a method that descends: the chunk, a few steps later, is
                                            where the descent begins, its first rows held, `Stopping` in place of the method's rule

A constraint's descent is traced around `energy` where it is asked for, and is not among them.
"""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from ebt_jax.artifact.manifest import GoldenMismatchError
from ebt_jax.artifact.programs import flat, plain
from ebt_jax.execution import WarmStart
from ebt_jax.policy import NotFiniteError, Policy, PolicyOutput, empty_batch
from ebt_jax.stopping import CAPACITY, Stopping
from ebt_jax.types import Keys, Observation

TOLERANCE, ROUNDED_TOLERANCE = 1e-5, 1e-2
"""Largest difference, relative to the largest number in the answer: float32, asked and answered on CPUs; elsewhere, and for bfloat16."""

COMMITTED = 2
"""Rows that are held under way."""


def ask(policy: Policy) -> dict[str, np.ndarray]:
    """One observation near the training data, noise for pictures, and the policy's answers to it."""
    draw = np.random.default_rng(0)
    example = empty_batch(policy.specs).observation
    proprio = policy.statistics.proprio
    state = proprio.mean + proprio.std * draw.uniform(-1, 1, example.proprio.shape)
    observation = example._replace(
        images={name: draw.integers(0, 256, frames.shape, np.uint8) for name, frames in example.images.items()},
        proprio=state.astype(np.float32),
    )
    key = policy.sample_keys(0, np.zeros(1, np.int64), np.zeros(1, np.int64))
    answer = _answer(policy.sample_actions(observation, key))
    if policy.method.energy is not None:
        answer["energy"] = policy.energy(observation, answer["actions"])
    if policy.method.minimize is not None:
        answer |= _answer(_under_way(policy, observation, key, answer["actions"]), "under_way_")
    tensors = {**flat(plain(observation), "observation/"), "key": np.asarray(jax.random.key_data(key))}
    return {name: np.asarray(value, order="C") for name, value in {**tensors, **{f"answer/{n}": v for n, v in answer.items()}}.items()}


def check(policy: Policy, golden: Mapping[str, np.ndarray], tolerance: float) -> None:
    """Asks again. Of a trace only the first look is compared: a descent that stops by itself may take one more on another machine.
    What an older artifact does not hold is not asked for.

    Raises GoldenMismatchError, naming what differs, in shape or by how much.
    """
    parts: dict[str, Any] = {"images": {}, "image_masks": {}}
    for name, value in golden.items():
        _, _, rest = name.partition("observation/")
        field, _, camera = rest.partition("/")
        if camera:
            parts[field][camera] = value
        elif field:
            parts[field] = value
    observation, chunk, key = Observation(**parts), golden["answer/actions"], jax.random.wrap_key_data(jnp.asarray(golden["key"]))
    try:
        answer = _answer(policy.sample_actions(observation, key))
        if "answer/under_way_actions" in golden:
            answer |= _answer(_under_way(policy, observation, key, chunk), "under_way_")
    except NotFiniteError as error:
        raise GoldenMismatchError(_mismatch("actions", "finite", "NaN or infinity")) from error
    scale = np.asarray(policy.action_normalizer.scale)
    if policy.method.energy is not None:
        answer["energy"] = policy.energy(observation, chunk)
    for name, value in answer.items():
        wanted = golden[f"answer/{name}"]
        if name.endswith("trace_energy"):
            value, wanted = value[:1], wanted[:1]
        if value.shape != wanted.shape:
            raise GoldenMismatchError(_mismatch(name, f"of shape {list(wanted.shape)}", f"{list(value.shape)}"))
        unit = scale if name.endswith("actions") else 1
        size = np.max(np.abs(np.nan_to_num(wanted / unit)), initial=1.0)
        if not np.allclose(value / unit, wanted / unit, rtol=0, atol=tolerance * size, equal_nan=True):
            difference = np.max(np.abs((value - wanted) / unit))
            raise GoldenMismatchError(
                _mismatch(name, f"what it was at export within {tolerance * size:.2g}", f"a difference of {difference:.3g}")
            )


def _answer(output: PolicyOutput, prefix: str = "") -> dict[str, np.ndarray]:
    answer = {"actions": output.actions, "trace_energy": output.trace_energy, "sample_energy": output.energy}
    return {f"{prefix}{name}": value for name, value in answer.items()}


def _under_way(policy: Policy, observation: Observation, key: Keys, chunk: np.ndarray) -> PolicyOutput:
    """The next answer of a robot that is executing `chunk`."""
    committed = min(COMMITTED, chunk.shape[1] // 2)
    later = np.full_like(chunk, np.nan)
    later[:, : chunk.shape[1] - committed] = chunk[:, committed:]
    stopping = Stopping(min(policy.sample_steps, CAPACITY))
    return policy.sample_actions(observation, key, stopping=stopping, warm_start=WarmStart(later, np.full(len(chunk), committed)))


def _mismatch(name: str, rule: str, got: str) -> str:
    return (
        f"{name} of the golden observation must be {rule}, got {got}. "
        "This machine computes something else: run ebt_jax.doctor, or export here."
    )

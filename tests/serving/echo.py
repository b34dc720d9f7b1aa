"""A policy whose chunk says which observation it belongs to."""

import dataclasses
import threading

import jax.numpy as jnp
import numpy as np
from formulas import formula_policy

from ebt_jax.policy import NotFiniteError, Policy, PolicyOutput
from ebt_jax.specs import ActionDimension, ActionSpec, CameraSpec, Dimension, LanguageSpec, ObservationSpec, Specs

SPECS = Specs(
    ObservationSpec((CameraSpec("primary", 16, 16),), (Dimension("x", "m"), Dimension("y", "m")), LanguageSpec("tokens", 8, 64), horizon=2),
    ActionSpec((ActionDimension("x", "eef_delta", "m", -1e6, 1e6), ActionDimension("y", "eef_delta", "m", -1e6, 1e6)), "base", 4, 10.0),
)


def echo_policy() -> Policy:
    """Every action is the newest proprio; E is the sum of the chunk, normalised."""
    policy = formula_policy(SPECS, lambda proprio, keys, h: jnp.repeat(proprio[:, -1:] / 1e6, h, axis=1))
    return dataclasses.replace(policy, method=policy.method._replace(energy=lambda params, context, a: jnp.sum(a, (1, 2))))


class Gate:
    """Keeps calls waiting while it is shut, and says when one has come."""

    def __init__(self) -> None:
        self._open, self._arrived = threading.Event(), threading.Event()
        self._open.set()

    def shut(self) -> None:
        self._arrived.clear()
        self._open.clear()

    def open(self) -> None:
        self._open.set()

    def wait_for_a_call(self) -> None:
        assert self._arrived.wait(60)

    def pass_through(self) -> None:
        self._arrived.set()
        assert self._open.wait(60)


class HeldPolicy(Policy):
    """Answers nobody while `gate` is shut."""

    gate = Gate()

    def sample_actions(self, *args, **kwargs) -> PolicyOutput:
        self.gate.pass_through()
        return super().sample_actions(*args, **kwargs)


class FailingPolicy(Policy):
    """Fails where x = 13, and is no number where x = 14."""

    def sample_actions(self, observation, keys, num_steps=None) -> PolicyOutput:
        x = observation.proprio[:, -1, 0]
        if (x == 13).any():
            raise RuntimeError("a secret of the server")
        output = super().sample_actions(observation, keys, num_steps)
        if (x == 14).any():
            raise NotFiniteError(output._replace(actions=np.where((x == 14)[:, None, None], np.nan, output.actions).astype(np.float32)))
        return output


def like(kind: type[Policy]) -> Policy:
    """`echo_policy` as another kind of policy."""
    policy = echo_policy()
    return kind(**{field.name: getattr(policy, field.name) for field in dataclasses.fields(Policy)})


def observation(x: float, y: float = 0.0) -> dict:
    return {
        "images/primary": np.zeros((2, 16, 16, 3), np.uint8),
        "proprio": np.array([[0, 0], [x, y]], np.float32),
        "prompt": "pick up the block",
    }


def two_camera_policy() -> Policy:
    """The state again, from two cameras of 224 x 224 and seven numbers: what a request of a real robot weighs."""
    cameras = tuple(CameraSpec(name, 224, 224) for name in ("primary", "wrist"))
    specs = Specs(
        ObservationSpec(cameras, tuple(Dimension(f"joint_{i}", "rad") for i in range(7)), LanguageSpec(), horizon=1),
        ActionSpec(tuple(ActionDimension(f"joint_{i}", "joint_position", "rad", -4.0, 4.0) for i in range(7)), "joint", 16, 30.0),
    )
    return formula_policy(specs, lambda proprio, keys, h: jnp.repeat(proprio[:, -1:] / 4, h, axis=1))

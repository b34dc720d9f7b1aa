"""Policies written down in place of trained ones: real `Policy` objects whose method is a formula."""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from ebt_jax import simulators
from ebt_jax.data.mixture import TOKENS
from ebt_jax.normalize import Normalizer, Statistics, VectorStatistics
from ebt_jax.policy import Experiment, Identity, Policy
from ebt_jax.specs import ActionSpec, LanguageSpec, ObservationSpec, Specs
from ebt_jax.types import Context, Keys, Method, Observation, Params, Sample

Rule = Callable[[Float[Array, "b t p"], Keys, int], Float[Array, "b h a"]]


def formula_policy(specs: Specs, rule: Rule, execution_horizon: int = 4) -> Policy:
    """Chunks `rule(proprio in robot units, keys, h)`, normalised so that the dimensions' limits are -1 and 1."""
    low, high = (np.array([getattr(d, side) for d in specs.action.dimensions], np.float32) for side in ("low", "high"))
    horizon, width = specs.action.horizon, len(specs.observation.proprio)

    def encode(params: Params, observation: Observation) -> Context:
        return observation.proprio

    def sample(params: Params, context: Context, keys: Keys, num_steps: int) -> Sample:
        actions = rule(context, keys, horizon)
        nothing = jnp.zeros((num_steps, len(actions)))
        trace = jnp.broadcast_to(actions, (num_steps + 1, *actions.shape))
        return Sample(actions, nothing[0], trace, nothing, nothing, jnp.full(len(actions), num_steps))

    def energy(params: Params, context: Context, actions: Float[Array, "b h a"]) -> Float[Array, " b"]:
        return jnp.zeros(len(actions))

    rows = np.stack([low, high])
    return Policy(
        method=Method(lambda key, batch: {}, lambda *_: (jnp.zeros(()), {}), sample, encode, energy),
        params={},
        specs=specs,
        statistics=Statistics(VectorStatistics.of(rows), VectorStatistics.of(np.zeros((2, width))), 2, 1),
        action_normalizer=Normalizer(jnp.asarray((low + high) / 2), jnp.asarray((high - low) / 2)),
        proprio_normalizer=Normalizer(jnp.zeros(width), jnp.ones(width)),
        sample_steps=2,
        execution_horizon=execution_horizon,
        identity=Identity("formula", "0" * 64, 7, "formula"),
    )


def suite_specs(suite: str, observation_horizon: int = 2, action_horizon: int = 8) -> Specs:
    """A policy's specs for a suite, states and instruction tokens."""
    robot = simulators.embodiment(suite)
    return Specs(
        ObservationSpec((), robot.proprio, LanguageSpec("tokens", 16, 128), observation_horizon),
        ActionSpec(robot.action, robot.frame, action_horizon, robot.control_rate_hz),
    )


def constant_policy(normalised: list[float], experiment: Experiment | None = None) -> Policy:
    """On the bundled sample: always the same action, [-1, 1]."""

    def rule(proprio: Float[Array, "b t p"], keys: Keys, horizon: int) -> Float[Array, "b h a"]:
        return jnp.broadcast_to(jnp.array(normalised), (len(proprio), horizon, 4))

    specs = suite_specs("metaworld", action_horizon=3)
    specs = dataclasses.replace(specs, observation=dataclasses.replace(specs.observation, language=TOKENS))
    return dataclasses.replace(formula_policy(specs, rule), experiment=experiment)


def reaching_policy() -> Policy:
    """Meta-World's hand goes to the goal: normalised action = 10 (goal - hand), gripper closed."""

    def rule(proprio: Float[Array, "b t p"], keys: Keys, horizon: int) -> Float[Array, "b h a"]:
        towards = jnp.clip(10 * (proprio[:, -1, -3:] - proprio[:, -1, :3]), -1, 1)
        action = jnp.concatenate([towards, -jnp.ones((len(towards), 1))], axis=-1)
        return jnp.repeat(action[:, None], horizon, axis=1)

    return formula_policy(suite_specs("metaworld"), rule)


def diverging(policy: Policy, seed: int, episode: int, step: int) -> Policy:
    """The same, but for one answer, which is no number: that to (seed, episode, step)."""
    key = jax.random.key_data(policy.sample_keys(seed, np.array([episode]), np.array([step])))

    def sample(params: Params, context: Context, keys: Keys, num_steps: int) -> Sample:
        found = policy.method.sample(params, context, keys, num_steps)
        wrong = (jax.random.key_data(keys) == key).all(axis=-1)
        return found._replace(actions=jnp.where(wrong[:, None, None], jnp.nan, found.actions))

    return dataclasses.replace(policy, method=policy.method._replace(sample=sample))

"""The words every module shares: axis letters, observations, batches, energies.

Axis letters: b batch, t observation steps, h action horizon, a action dim, p proprio dim, v views, y x c image, l language
tokens, e language embedding, n context tokens, d width, k MCMC steps.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

AnyArray = Array | np.ndarray
"""On devices jax, on the host numpy."""

Params = Any
"""A pytree of float arrays."""

Context = Any
"""What `encode` makes of an observation once and `energy` reads at every step: a pytree whose leaves start with b."""

Keys = Key[Array, " b"]
"""One typed PRNG key per sample, each a function of (seed, episode, step): a sample draws the same noise in any batch."""

EnergyFn = Callable[[Float[Array, "b h a"]], Float[Array, " b"]]
"""E(o, .) with the observation bound: normalised actions in, one energy per sample out, lower is better."""

Metrics = dict[str, Float[Array, ""]]


class Observation(NamedTuple):
    """What the policy sees. Absent parts are empty: no cameras is {}, no proprio p = 0, no language l = 0.

    Attributes:
      images: camera name -> uint8 in [0, 255] on the host; models scale them to [-1, 1].
      image_masks: camera name -> True where that camera delivered a real frame.
      proprio: robot state; robot units at the policy's door, normalised inside training and models.
      language: embeddings given by the dataset (float, [b l e]) or token ids (int32, [b l]).
      language_mask: True for real tokens; all False is "no instruction".
      timestep_mask: True for steps that happened, False for padding before the episode's first step.
      action_present: True for numbers of an action that the sample's robot has: the network sees 0 in place of others. None where robots
        do not differ: all are.
    """

    images: Mapping[str, UInt8[AnyArray, "b t y x c"]]
    image_masks: Mapping[str, Bool[AnyArray, "b t"]]
    proprio: Float[AnyArray, "b t p"]
    language: Float[AnyArray, "b l e"] | Int[AnyArray, "b l"]
    language_mask: Bool[AnyArray, "b l"]
    timestep_mask: Bool[AnyArray, "b t"]
    action_present: Bool[AnyArray, "b a"] | None = None


class Batch(NamedTuple):
    """Observations with the chunk of actions that the demonstrator executed from each.

    Attributes:
      observation: see `Observation`.
      actions: normalised, about [-1, 1]; row 0 belongs to the newest observation step.
      action_mask: True = real; False past the episode's end and for dimensions this robot does not have.
    """

    observation: Observation
    actions: Float[AnyArray, "b h a"]
    action_mask: Bool[AnyArray, "b h a"]


class EnergyModel(NamedTuple):
    """A scalar energy E(o, a) as three pure functions; where the parameters come from (flax, a file) stays behind them.

    Attributes:
      init: (key, batch) -> params; touches both other functions, so nothing goes missing.
      encode: (params, observation) -> context; once per observation, outside the descent.
      energy: (params, context, actions [b h a]) -> [b] float32; row i depends on row i alone.
      action_shape: (h, a), the chunk E is defined on.
    """

    init: Callable[[Key[Array, ""], Batch], Params]
    encode: Callable[[Params, Observation], Context]
    energy: Callable[[Params, Context, Float[Array, "b h a"]], Float[Array, " b"]]
    action_shape: tuple[int, int]


class VectorModel(NamedTuple):
    """A chunk-valued function V(o, a, t) over the same trunk as an energy: what methods without an energy learn.

    Attributes:
      init, encode, action_shape: as in `EnergyModel`.
      predict: (params, context, actions [b h a], time) -> [b h a] float32; row i depends on row i alone. time [b], in [0, 1], is the
        noise level of methods that have one; a model made without a clock takes None.
    """

    init: Callable[[Key[Array, ""], Batch], Params]
    encode: Callable[[Params, Observation], Context]
    predict: Callable[[Params, Context, Float[Array, "b h a"], Float[Array, " b"] | None], Float[Array, "b h a"]]
    action_shape: tuple[int, int]


HEADS = ("energy", "vector", "timed_vector")
"""What a method learns: an `EnergyModel`, a `VectorModel` without a clock, or one with."""


class Sample(NamedTuple):
    """A method's answer: chunks, and what the energy said on the way.

    Attributes:
      actions: the returned chunk, normalised.
      energy: E at the returned chunk; NaN for methods without an energy.
      trace_actions: the chunk before each step and after the last.
      trace_energy: E where each step evaluated its gradient; NaN past the last step taken, and without an energy.
      trace_gradient_norm: |dE/da| there, over the whole chunk; NaN likewise, and where a sampler takes no gradient.
      num_steps: steps each sample took.
    """

    actions: Float[Array, "b h a"]
    energy: Float[Array, " b"]
    trace_actions: Float[Array, "k1 b h a"]
    trace_energy: Float[Array, "k b"]
    trace_gradient_norm: Float[Array, "k b"]
    num_steps: Int[Array, " b"]


class Descent(NamedTuple):
    """One call's descent: where it begins, what it may not move, when it rests. Arrays alone, so that new values do not recompile.

    Attributes:
      start: chunk to begin from, normalised.
      given: True where `start` counts; elsewhere a sample begins with noise from its key.
      held: True where `start` counts and stays as it is.
      max_steps, min_gradient, min_energy_drop, min_step_length: see `ebt_jax.stopping`. A `min_gradient` of NaN leaves the gradient to the
        method's own rule, as `Method.sample` has it.
    """

    start: Float[Array, "b h a"]
    given: Bool[Array, "b h a"]
    held: Bool[Array, "b h a"]
    max_steps: Int[Array, ""]
    min_gradient: Float[Array, ""]
    min_energy_drop: Float[Array, ""]
    min_step_length: Float[Array, ""]


class Method(NamedTuple):
    """One way of learning and sampling chunks, over any `EnergyModel` or `VectorModel`.

    Attributes:
      init: (key, batch) -> params: the model's, with the method's own (a learnable step size) where it has some.
      loss: (params, batch, keys) -> (scalar, metrics); differentiable in params.
      sample: (params, context, keys, num_steps) -> Sample; num_steps static, no gradient flows out.
      encode: (params, observation) -> context, the model's.
      energy: (params, context, actions) -> [b], the model's; None for methods that have no energy.
      sample_steps: steps that `sample` takes where nobody says otherwise.
      minimize: (params, context, keys, descent, penalty) -> Sample: the same descent from where, and until when, `descent` says, with
        `penalty`, a second energy of normalised chunks, added to E (None: nothing is). `Sample.energy` is E alone, the trace is of what
        was descended. None for methods that do not descend.
    """

    init: Callable[[Key[Array, ""], Batch], Params]
    loss: Callable[[Params, Batch, Keys], tuple[Float[Array, ""], Metrics]]
    sample: Callable[[Params, Context, Keys, int], Sample]
    encode: Callable[[Params, Observation], Context]
    energy: Callable[[Params, Context, Float[Array, "b h a"]], Float[Array, " b"]] | None = None
    sample_steps: int = 1
    minimize: Callable[[Params, Context, Keys, Descent, EnergyFn | None], Sample] | None = None

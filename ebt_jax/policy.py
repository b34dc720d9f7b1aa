"""From what a robot sees to what it does: normalise, encode once, sample, unnormalise. Trained and served by the same lines."""

import dataclasses
import functools
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from ebt_jax.calibration import Calibration, DoubtSettings, Rule
from ebt_jax.constraints import Constraint
from ebt_jax.execution import WarmStart
from ebt_jax.frames import delivered, shown_steps
from ebt_jax.images import resize
from ebt_jax.normalize import Normalizer, Statistics, normalize, normalize_within, unnormalize
from ebt_jax.observation import check_observation
from ebt_jax.specs import Specs
from ebt_jax.starts import lowest, repeat, spread_descent, start_keys
from ebt_jax.steering import check_request, check_sampler, make_descent
from ebt_jax.stopping import Stopping
from ebt_jax.types import Batch, Context, Descent, Keys, Method, Observation, Params, Sample
from ebt_jax.uncertainty import Doubt, doubt


class Identity(NamedTuple):
    """Where a policy came from: enough to find it again, and to tell two apart.

    `robot` is the dataset of its run in whose numbers it acts; "" where that was not noted.
    """

    path: str
    sha256: str
    step: int
    method: str
    robot: str = ""


class Experiment(NamedTuple):
    """What the run that trained a policy learnt from, and the evaluation that belongs to it.

    Attributes:
      datasets: names, those of its mixture.
      held_out: how it chose and held out episodes of them: `validation_fraction`, `validation_folds`, `validation_fold`, `seed`, `on_bad`,
        `normalization` (in which filters count) and `filters` (a table), as in `ebt_jax.data.settings.DataSettings`.
      evaluation: `suite` ("" for none), `tasks`, `episodes` and `seed`, as its config had them.
      init_from: the checkpoint that the run started from, which has learnt from what nobody here knows; "" for none.
    """

    datasets: tuple[str, ...]
    held_out: Mapping[str, Any]
    evaluation: Mapping[str, Any]
    init_from: str = ""


class PolicyOutput(NamedTuple):
    """What a policy answers.

    Attributes:
      actions: the chunk in robot units, within the spec's limits; row 0 is to be executed now.
      energy: E at the returned chunk, before limits; NaN for methods without an energy.
      energy_drop: how far the descent came down: E (and penalty) at the start minus that at the returned chunk; NaN likewise.
      gradient_norm: |dE/da| at the last look of the descent; NaN likewise.
      penalty: the constraint's at the returned chunk, before limits; 0 without one.
      trace_energy, trace_gradient_norm: at every look; NaN past a sample's last, and without an energy.
      num_steps: steps each sample took.
      seconds: wall time of each stage: prepare, encode, minimize, total.
    """

    actions: Float[np.ndarray, "b h a"]
    energy: Float[np.ndarray, " b"]
    energy_drop: Float[np.ndarray, " b"]
    gradient_norm: Float[np.ndarray, " b"]
    penalty: Float[np.ndarray, " b"]
    trace_energy: Float[np.ndarray, "k b"]
    trace_gradient_norm: Float[np.ndarray, "k b"]
    num_steps: Int[np.ndarray, " b"]
    seconds: dict[str, float]


class NotFiniteError(FloatingPointError):
    """Rows of an answer are no numbers, and must not be executed.

    Attributes:
      output: the whole answer, for a caller whose other rows are for other robots; all actions of the rows in question are NaN.
    """

    def __init__(self, output: PolicyOutput) -> None:
        rows = np.flatnonzero(np.isnan(output.actions).any(axis=(1, 2))).tolist()
        super().__init__(f"actions must be finite, got NaN or infinity in rows {rows}. Do not move: the sampler diverged.")
        self.output = output


@dataclasses.dataclass(frozen=True, eq=False)
class Policy:
    """A trained method with everything a robot needs; see `ebt_jax.load`.

    Attributes:
      sample_steps: steps of the method's sampler unless a call says otherwise.
      execution_horizon: actions to execute of each chunk before asking again.
      calibration: text of calibration.json, what is known of how far the policy's doubt can be trusted; "" where nothing was measured.
      experiment: what the policy's run was; None where that is not known.
    """

    method: Method
    params: Params
    specs: Specs
    statistics: Statistics
    action_normalizer: Normalizer
    proprio_normalizer: Normalizer
    sample_steps: int
    execution_horizon: int
    identity: Identity
    calibration: str = ""
    experiment: Experiment | None = None

    def sample_actions(
        self,
        observation: Observation,
        keys: Keys,
        num_steps: int | None = None,
        *,
        stopping: Stopping | None = None,
        num_starts: int = 1,
        warm_start: WarmStart | None = None,
        constraint: Constraint | None = None,
    ) -> PolicyOutput:
        """Chunks for a batch of observations in robot units.

        A row's answer depends on its observation and its key alone: on CPUs in float32 1e-5 (normalised) at any batch size, and bit for
        bit at one batch size, whatever the other rows hold. GPUs need --xla_gpu_deterministic_ops=true for that; in bfloat16 another batch
        size may flip a rounding, 2^-8 of a number.

        Args:
          observation: host arrays; cameras may have any size (they are resized as in training) or be missing (masked).
          keys: one per row, see `sample_keys`.
          num_steps: steps of the sampler for every row, or the cap of a method that rests by its own rule (`mcmc.min_gradient`), with a
            warm start or a constraint as without; `sample_steps` where None.
          stopping: in place of `num_steps`, when each row rests by itself.
          num_starts: descents of each row, of which the one that ends lowest is returned.
          warm_start: where the descent begins and what it holds, while a robot is moving: see `ebt_jax.execution`.
          constraint: an energy of robot units minimised together with E, see `ebt_jax.constraints`.

        Raises ValueError for an observation that does not fit `specs` or holds NaN, for another number of keys than rows, and for what
        this policy's method cannot do; NotFiniteError for an answer that is not finite.
        """
        start = time.perf_counter()
        check_request(self.method, self.identity.method, num_steps, stopping, num_starts, warm_start, constraint)
        prepared = self.prepare(observation)
        _check_keys(keys, len(prepared.proprio))
        steps, descent = self.sample_steps if num_steps is None else num_steps, None
        if stopping is not None or warm_start is not None or constraint is not None:
            shape = (len(prepared.proprio), self.specs.action.horizon, len(self.specs.action.dimensions))
            descent = make_descent(shape, steps, stopping, warm_start, self.action_normalizer)
        ready = time.perf_counter()
        context = jax.block_until_ready(self._encode(self.params, prepared))
        encoded = time.perf_counter()
        proprio = jnp.asarray(observation.proprio[:, -1], jnp.float32)
        fixed = 0 if descent else steps  # of a descent the cap is an array: another one compiles nothing anew
        sample = self._sample(self.params, context, keys, proprio, descent, num_steps=fixed, num_starts=num_starts, constraint=constraint)
        actions, penalty = jax.block_until_ready(self._to_robot(sample.actions, proprio, constraint=constraint))
        done = time.perf_counter()
        actions = np.asarray(actions)
        if warm_start is not None:
            committed = np.arange(actions.shape[1]) < np.asarray(warm_start.committed)[:, None]
            actions = np.where(committed[:, :, None], warm_start.actions, actions).astype(np.float32)
        seconds = {"prepare": ready - start, "encode": encoded - ready, "minimize": done - encoded, "total": done - start}
        sample = jax.device_get(sample)
        finite = np.isfinite(sample.actions).all(axis=(1, 2))  # before limits, which would make a number of infinity
        output = _output(sample, np.where(finite[:, None, None], actions, np.float32(np.nan)), np.asarray(penalty), seconds)
        if not finite.all():
            raise NotFiniteError(output)
        return output

    def energy(self, observation: Observation, actions: Float[np.ndarray, "m h a"]) -> Float[np.ndarray, " m"]:
        """E of any chunks in robot units, from wherever they come; comparable within one observation.

        Args:
          observation: one row for each chunk, or a single row for all of them, which is then encoded once.

        Raises ValueError where the policy's method has no energy, for chunks of another shape than the specs', and for another number of
        rows.
        """
        self.check_energy("energy")
        rows, chunk = len(observation.proprio), self.no_chunks.shape[1:]
        if actions.shape[1:] != chunk or not len(actions):
            raise ValueError(f"actions must have shape [m, {chunk[0]}, {chunk[1]}] with m at least 1, got {list(actions.shape)}.")
        if rows not in (1, len(actions)):
            raise ValueError(f"observation must have 1 row or one for each of {len(actions)} chunks, got {rows}.")
        return np.asarray(self._energy(self.params, self.prepare(observation), jnp.asarray(actions, jnp.float32)))

    def doubt(
        self,
        observation: Observation,
        keys: Keys,
        num_starts: int | None = None,
        references: Float[np.ndarray, "r h a"] | None = None,
        temperature: float | None = None,
    ) -> Doubt:
        """The statistics of `ebt_jax.uncertainty` for what `sample_actions(observation, keys)` answers, one number a row.

        Args:
          num_starts: descents of each row, the answer's own among them.
          references: chunks to compare with, robot units.
          temperature: of `relative_energy`. All three are those of `doubt_settings` where None.

        Raises ValueError where the policy's method has no energy, and for an observation or keys that `sample_actions` refuses.
        """
        self.check_energy("doubt")
        usual, prepared = self.doubt_settings, self.prepare(observation)
        _check_keys(keys, len(prepared.proprio))
        found = self._doubt(
            self.params,
            prepared,
            keys,
            jnp.asarray(usual.references if references is None else references, jnp.float32),
            jnp.float32(usual.temperature if temperature is None else temperature),
            num_starts=num_starts or usual.num_starts,
        )
        return Doubt(*map(np.asarray, found))

    @property
    def doubt_settings(self) -> DoubtSettings:
        """With what `doubt` takes its statistics unless told otherwise: the calibration's; without one 4 starts, no chunks and 1."""
        return self.calibrated.doubt_settings if self.calibration else DoubtSettings(4, self.no_chunks, 1.0)

    @functools.cached_property
    def calibrated(self) -> Calibration:
        """`calibration`, read. Raises ValueError where there is none."""
        if not self.calibration:
            raise ValueError(
                "the policy must be calibrated first, got no calibration.json. Run `python -m ebt_jax.calibrate --policy=...`."
            )
        return Calibration.from_json(self.calibration)

    @property
    def no_chunks(self) -> Float[np.ndarray, "0 h a"]:
        """None, in the shape of the specs."""
        return np.zeros((0, self.specs.action.horizon, len(self.specs.action.dimensions)), np.float32)

    def abstain(self, risk: float, task: str | None = None, statistic: str | None = None) -> Rule:
        """When not to act: `rule(policy.doubt(...))` is True beyond the conformal threshold of this risk.

        An episode exchangeable with the calibration's of `task` (None: of all tasks, in their proportions) ever raises it with probability
        at most `risk`; see `ebt_jax.calibration` for what that does not say, and for the errors.
        """
        return self.calibrated.rule(risk, task, statistic)

    def check_energy(self, asked: str) -> None:
        """Raises ValueError, naming what was `asked`, where the policy's method has no energy."""
        if self.method.energy is None:
            raise ValueError(
                f"{asked} must be asked of a policy that has an energy, got method {self.identity.method!r} without. "
                "Train one with method.name=ebt, equilibrium or contrastive."
            )

    def check_steps(self, num_steps: int) -> None:
        """Raises ValueError for a number of steps that the method's sampler does not take. Nothing is computed."""
        check_sampler(self.method, self.params, empty_batch(self.specs).observation, num_steps)

    def sample_keys(self, seed: int, episodes: Int[np.ndarray, " b"], steps: Int[np.ndarray, " b"]) -> Keys:
        """One key per row from (seed, episode, step): the same draw in whatever batch the row comes."""
        fold = jax.vmap(lambda episode, step: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), episode), step))
        return fold(jnp.asarray(episodes), jnp.asarray(steps))

    def prepare(self, observation: Observation) -> Observation:
        """Robot units -> what the model reads: cameras of the spec at its size, proprio normalised, masks as in training.

        Masked, beside what `image_masks` says: a camera that is missing, a frame that is all black, and a goal before the newest step.

        Raises ValueError for what does not fit the spec, for a camera that it does not name, and for proprio that is not finite.
        """
        check_observation(observation, self.specs.observation)
        batch, steps = observation.proprio.shape[:2]
        images, masks = {}, {}
        for camera in self.specs.observation.cameras:
            seen = np.zeros((batch, steps, camera.height, camera.width, 3), np.uint8)
            mask = np.zeros((batch, steps), bool)
            if camera.name in observation.images:
                shown = np.s_[:, shown_steps(camera.name)]
                seen[shown] = resize(np.asarray(observation.images[camera.name])[shown], camera.height, camera.width)
                mask[shown] = np.asarray(observation.image_masks[camera.name])[shown] & delivered(seen[shown])
            images[camera.name], masks[camera.name] = seen, mask
        state = normalize_within(np.asarray(observation.proprio, np.float32), self.proprio_normalizer)
        return observation._replace(images=images, image_masks=masks, proprio=state)

    @functools.cached_property
    def _encode(self) -> Callable[[Params, Observation], Context]:
        return jax.jit(self.method.encode)

    @functools.cached_property
    def _sample(self) -> Callable[..., Sample]:
        def sample(
            params: Params,
            context: Context,
            keys: Keys,
            proprio: Float[Array, "b p"],
            descent: Descent | None,
            num_steps: int,
            num_starts: int,
            constraint: Constraint | None,
        ) -> Sample:
            if num_starts > 1:
                context, proprio, keys = repeat(context, num_starts), repeat(proprio, num_starts), start_keys(keys, num_starts)
                descent = descent and spread_descent(descent, num_starts)

            def penalty(actions: Float[Array, "b h a"]) -> Float[Array, " b"]:
                return (
                    constraint(jnp.asarray(unnormalize(actions, self.action_normalizer)), proprio)
                    if constraint
                    else jnp.zeros(actions.shape[0])
                )

            if descent is None:
                sample = self.method.sample(params, context, keys, num_steps)
            else:
                assert self.method.minimize is not None
                sample = self.method.minimize(params, context, keys, descent, penalty if constraint else None)
            return sample if num_starts == 1 else lowest(sample, penalty(sample.actions), num_starts)

        return jax.jit(sample, static_argnames=("num_steps", "num_starts", "constraint"))

    @functools.cached_property
    def _to_robot(self) -> Callable[..., tuple[Float[Array, "b h a"], Float[Array, " b"]]]:
        """Chunks in robot units within limits, and the constraint's penalty before them.

        A program of its own, so that it rounds alike whatever the sampler before it is fused with.
        """
        limits = [(dimension.low, dimension.high) for dimension in self.specs.action.dimensions]
        low = jnp.array([-jnp.inf if low is None else low for low, _ in limits], jnp.float32)[None, None]
        high = jnp.array([jnp.inf if high is None else high for _, high in limits], jnp.float32)[None, None]

        def to_robot(
            normalised: Float[Array, "b h a"], proprio: Float[Array, "b p"], constraint: Constraint | None
        ) -> tuple[Float[Array, "b h a"], Float[Array, " b"]]:
            actions = jnp.asarray(unnormalize(normalised, self.action_normalizer))
            return jnp.clip(actions, low, high), constraint(actions, proprio) if constraint else jnp.zeros(actions.shape[0])

        return jax.jit(to_robot, static_argnames="constraint")

    @functools.cached_property
    def _energy(self) -> Callable[..., Float[Array, " b"]]:
        model_energy = self.method.energy
        assert model_energy is not None

        def energy(params: Params, observation: Observation, actions: Float[Array, "m h a"]) -> Float[Array, " m"]:
            context = self.method.encode(params, observation)
            if len(observation.proprio) != len(actions):
                context = jax.tree.map(lambda leaf: jnp.broadcast_to(leaf, (len(actions), *leaf.shape[1:])), context)
            return model_energy(params, context, jnp.asarray(normalize(actions, self.action_normalizer)))

        return jax.jit(energy)

    @functools.cached_property
    def _doubt(self) -> Callable[..., Doubt]:
        model_energy = self.method.energy
        assert model_energy is not None

        def statistics(
            params: Params,
            observation: Observation,
            keys: Keys,
            references: Float[Array, "r h a"],
            temperature: Float[Array, ""],
            num_starts: int,
        ) -> Doubt:
            context = self.method.encode(params, observation)
            wide = repeat(context, num_starts)
            sample = self.method.sample(params, wide, start_keys(keys, num_starts), self.sample_steps)
            starts, answers = (
                jnp.moveaxis(chunks.reshape(-1, num_starts, *chunks.shape[1:]), 1, 0)
                for chunks in (sample.trace_actions[0], sample.actions)
            )
            chunks = jnp.asarray(normalize(references, self.action_normalizer))
            return doubt(functools.partial(model_energy, params, context), starts, answers, chunks, temperature)

        return jax.jit(statistics, static_argnames="num_starts")


def _output(
    sample: Sample, actions: Float[np.ndarray, "b h a"], penalty: Float[np.ndarray, " b"], seconds: dict[str, float]
) -> PolicyOutput:
    """The answer, its trace cut after the last look of any row."""
    energy, trace_energy, trace_norm, num_steps = (
        np.asarray(part) for part in (sample.energy, sample.trace_energy, sample.trace_gradient_norm, sample.num_steps)
    )
    looks = max(1, int(np.isfinite(trace_norm).any(axis=1).sum()), int(np.max(num_steps)))
    trace_energy, trace_norm = trace_energy[:looks], trace_norm[:looks]
    last = np.maximum(np.isfinite(trace_norm).sum(axis=0) - 1, 0)
    return PolicyOutput(
        actions=actions,
        energy=energy,
        energy_drop=trace_energy[0] - (energy + penalty),
        gradient_norm=np.take_along_axis(trace_norm, last[None], axis=0)[0],
        penalty=penalty,
        trace_energy=trace_energy,
        trace_gradient_norm=trace_norm,
        num_steps=num_steps,
        seconds=seconds,
    )


def _check_keys(keys: Keys, rows: int) -> None:
    if keys.shape != (rows,):
        raise ValueError(f"keys must be one for each of {rows} rows of the observation, got {list(keys.shape)}. See `Policy.sample_keys`.")


def empty_batch(specs: Specs, batch_size: int = 1) -> Batch:
    """A batch of zeros with every mask True: the shapes that a policy of these specs reads and writes."""
    spec, b, t = specs.observation, batch_size, specs.observation.horizon
    size = (b, spec.language.length, spec.language.size) if spec.language.kind == "embedding" else (b, spec.language.length)
    observation = Observation(
        images={camera.name: np.zeros((b, t, camera.height, camera.width, 3), np.uint8) for camera in spec.cameras},
        image_masks={camera.name: np.ones((b, t), bool) for camera in spec.cameras},
        proprio=np.zeros((b, t, len(spec.proprio)), np.float32),
        language=np.zeros(size, np.float32 if spec.language.kind == "embedding" else np.int32),
        language_mask=np.ones((b, spec.language.length), bool),
        timestep_mask=np.ones((b, t), bool),
    )
    shape = (b, specs.action.horizon, len(specs.action.dimensions))
    return Batch(observation, np.zeros(shape, np.float32), np.ones(shape, bool))

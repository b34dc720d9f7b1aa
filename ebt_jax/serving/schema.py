"""What a client sends and what it gets, made from the policy's specs: every array's name, dtype and shape, checked by name.

An observation is a flat dict, its time axis the policy's `observation_horizon`, the newest step last:

    images/primary [t, y, x, 3] uint8     one a camera; up to 4096 pixels a side, resized as in training; masked where left out or black
    proprio        [t, p] float           robot units, in the order of the specs
    prompt         str                    the instruction, for policies that read text; "" for none
    language       [l, e] float           its embedding, for policies that were trained on a dataset's
    timestep_mask  [t] bool               False for steps before the episode began; all True where left out

The time axis is never guessed: a server that kept the last frames itself would see another rate than training did. With one step it
may be left out.
"""

import dataclasses
import math
import reprlib
from collections.abc import Mapping
from typing import Any, Literal

import numpy as np

from ebt_jax.images import resize
from ebt_jax.specs import Specs
from ebt_jax.text import tokenize
from ebt_jax.types import Observation

OPTIONS = ("id", "request", "seed", "episode", "step", "sample_steps", "deadline_ms", "actions")
"""Keys of a request beside the observation's."""

MAX_SIDE = 4096
"""Largest height or width of an image, pixels."""


class RequestError(ValueError):
    """A request that the policy cannot answer; the client is told why and may go on. `id` is the request's, where it was read."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code
        self.id: int | None = None


@dataclasses.dataclass(frozen=True, eq=False)
class Request:
    """One question, checked.

    Attributes:
      id: comes back with the answer, for clients that ask again before they were answered; None for none.
      kind: "act" wants a chunk, "energy" the energies of `actions` [m h a], robot units.
      observation: of one row.
      seed, episode, step: what the chunk's noise is a function of.
      sample_steps: of the sampler.
      deadline_ms: an answer that cannot be begun within so many milliseconds is not wanted; infinity waits for ever.
    """

    id: int | None
    kind: Literal["act", "energy"]
    observation: Observation
    seed: int
    episode: int
    step: int
    sample_steps: int
    deadline_ms: float
    actions: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Schema:
    """Reads requests for a policy of these specs.

    Attributes:
      sample_steps: numbers of sampler steps that a client may ask for, the first where it asks for none.
      max_chunks: the most chunks whose energy one request may ask for; 0 where the policy has no energy.
    """

    specs: Specs
    sample_steps: tuple[int, ...]
    max_chunks: int

    def parse(self, message: Any, seed: int, episode: int, step: int) -> Request:
        """The request in a decoded message; `seed`, `episode` and `step` where it names none.

        Raises RequestError naming the key, the rule and what came.
        """
        if not isinstance(message, dict) or not all(isinstance(key, str) for key in message):
            raise _refuse("request", "be a dict with names for keys", type(message).__name__)
        number = _whole(message, "id", None, 0, 2**63 - 1)
        try:
            return self._request(message, number, seed, episode, step)
        except RequestError as error:
            error.id = number
            raise

    def _request(self, message: Mapping[str, Any], number: int | None, seed: int, episode: int, step: int) -> Request:
        """`parse` of a dict whose `id` is `number`."""
        known = [*self.example(), "prompt", *OPTIONS]
        unknown = sorted(set(message) - set(known))
        if unknown:
            raise _refuse("keys", f"be among {', '.join(dict.fromkeys(known))}", ", ".join(unknown)[:200])
        kind = message.get("request", "act")
        if not isinstance(kind, str) or kind not in ("act", "energy"):
            raise _refuse("request", "be 'act' or 'energy'", reprlib.repr(kind))
        return Request(
            id=number,
            kind=kind,
            observation=self._observation(message),
            seed=_whole(message, "seed", seed, 0, 2**32 - 1),
            episode=_whole(message, "episode", episode, 0, 2**31 - 1),
            step=_whole(message, "step", step, 0, 2**31 - 1),
            sample_steps=self._sample_steps(message),
            deadline_ms=_deadline(message),
            actions=self._actions(message) if kind == "energy" else None,
        )

    def example(self) -> dict[str, Any]:
        """An observation of zeros that can be sent as it is: the metadata frame shows it."""
        spec = self.specs.observation
        t, language = spec.horizon, spec.language
        message: dict[str, Any] = {
            f"images/{camera.name}": np.zeros((t, camera.height, camera.width, 3), np.uint8) for camera in spec.cameras
        }
        message["proprio"] = np.zeros((t, len(spec.proprio)), np.float32)
        message["timestep_mask"] = np.ones(t, bool)
        if language.kind == "tokens":
            message["prompt"] = "pick up the block"
        if language.kind == "embedding":
            message["language"] = np.zeros((language.length, language.size), np.float32)
        return message

    def _observation(self, message: Mapping[str, Any]) -> Observation:
        spec = self.specs.observation
        t = spec.horizon
        images, masks = {}, {}
        for camera in spec.cameras:
            key = f"images/{camera.name}"
            if key in message:
                frames = self._with_time(key, message[key], 4)
                if frames.dtype != np.uint8 or frames.shape[-1] != 3 or not all(1 <= n <= MAX_SIDE for n in frames.shape[1:3]):
                    raise _refuse(key, f"be uint8 [{t}, height, width, 3] of at most {MAX_SIDE} pixels a side", _shape(frames))
                images[camera.name] = resize(frames, camera.height, camera.width)[None]
                masks[camera.name] = np.ones((1, t), bool)
            else:
                images[camera.name] = np.zeros((1, t, camera.height, camera.width, 3), np.uint8)
                masks[camera.name] = np.zeros((1, t), bool)
        if "proprio" not in message and spec.proprio:
            raise _refuse("proprio", f"be given: {', '.join(dimension.name for dimension in spec.proprio)}", "none")
        proprio = self._with_time("proprio", message.get("proprio", np.zeros((t, 0), np.float32)), 2)
        names = ", ".join(dimension.name for dimension in spec.proprio)
        proprio = _numbers("proprio", proprio, (t, len(spec.proprio)), names)
        happened = self._with_time("timestep_mask", message.get("timestep_mask", np.ones(t, bool)), 1)
        if happened.dtype != bool or happened.shape != (t,) or not happened[-1]:
            raise _refuse("timestep_mask", f"be bool [{t}], the newest step True", _shape(happened))
        language, language_mask = self._language(message)
        return Observation(images, masks, proprio[None], language[None], language_mask[None], happened[None])

    def _sample_steps(self, message: Mapping[str, Any]) -> int:
        """One of the numbers that are compiled: another would keep every client waiting for its program."""
        value = message.get("sample_steps")
        if value is None:
            return self.sample_steps[0]
        if type(value) is not int or value not in self.sample_steps:
            allowed = ", ".join(map(str, self.sample_steps))
            raise _refuse("sample_steps", f"be one of {allowed}, for which the server was started", reprlib.repr(value))
        return value

    def _with_time(self, key: str, value: Any, axes: int) -> np.ndarray:
        """The array with its time axis. Raises RequestError where it is no array, or has another number of steps."""
        t = self.specs.observation.horizon
        if not isinstance(value, np.ndarray):
            raise _refuse(key, "be an array", type(value).__name__)
        if value.ndim == axes - 1 and t == 1:
            value = value[None]
        if value.ndim != axes or len(value) != t:
            raise _refuse(key, f"have {axes} axes, the first of {t} observation steps, the newest last", _shape(value))
        return value

    def _language(self, message: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
        spec = self.specs.observation.language
        prompt = message.get("prompt", "")
        if not isinstance(prompt, str):
            raise _refuse("prompt", "be a string", type(prompt).__name__)
        if spec.kind == "tokens":
            if "prompt" not in message:
                raise _refuse("prompt", "be the instruction, as the policy reads text ('' to give none)", "none")
            return tokenize(prompt, spec)
        if spec.kind == "none":
            return np.zeros(0, np.int32), np.zeros(0, bool)
        if "language" not in message:
            rule = f"be the instruction's embedding, float [{spec.length}, {spec.size}]: the policy reads no text"
            raise _refuse("language", rule, "none")
        return _numbers("language", message["language"], (spec.length, spec.size)), np.ones(spec.length, bool)

    def _actions(self, message: Mapping[str, Any]) -> np.ndarray:
        if not self.max_chunks:
            raise _refuse("request", "be 'act': this policy's method has no energy", "'energy'")
        h, a = self.specs.action.horizon, len(self.specs.action.dimensions)
        actions = message.get("actions")
        if isinstance(actions, np.ndarray) and actions.ndim == 2:
            actions = actions[None]
        if not isinstance(actions, np.ndarray) or actions.ndim != 3 or not 1 <= len(actions) <= self.max_chunks:
            got = _shape(actions) if isinstance(actions, np.ndarray) else type(actions).__name__
            raise _refuse("actions", f"be float [m, {h}, {a}] with m from 1 to {self.max_chunks}", got)
        return _numbers("actions", actions, (len(actions), h, a))


def left_out(observation: Observation) -> list[str]:
    """The cameras of which a request's observation has no frame: the policy acts without them."""
    return [name for name, mask in observation.image_masks.items() if not np.any(mask)]


def _numbers(key: str, value: Any, shape: tuple[int, ...], names: str = "") -> np.ndarray:
    """float32, finite, of that shape. Raises RequestError."""
    if not isinstance(value, np.ndarray) or value.dtype.kind not in "fi" or value.shape != shape:
        got = _shape(value) if isinstance(value, np.ndarray) else type(value).__name__
        raise _refuse(key, f"be float {list(shape)}" + (f" ({names})" if names else ""), got)
    with np.errstate(over="ignore"):
        numbers = value.astype(np.float32)
    if not np.isfinite(numbers).all():
        raise _refuse(key, "be finite", "NaN or infinity")
    return numbers


def _whole(message: Mapping[str, Any], key: str, default: Any, low: int, high: int) -> Any:
    value = message.get(key)
    if value is None:
        return default
    if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
        raise _refuse(key, f"be a whole number from {low} to {high}", reprlib.repr(value))
    return value


def _deadline(message: Mapping[str, Any]) -> float:
    value = message.get("deadline_ms")
    if value is None:
        return math.inf
    if isinstance(value, bool) or not isinstance(value, int | float) or not value > 0:
        raise _refuse("deadline_ms", "be a positive number of milliseconds", reprlib.repr(value))
    return float(value)


def _refuse(key: str, rule: str, got: str) -> RequestError:
    return RequestError("bad_request", f"{key} must {rule}, got {got}.")


def _shape(value: np.ndarray) -> str:
    return f"{value.dtype} {list(value.shape)}"

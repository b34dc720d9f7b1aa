"""AdamW behind a global-norm clip, with warm-up and cosine; what of the parameters trains; the average that policies use."""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, PyTree

from ebt_jax.schedules import learning_rate
from ebt_jax.training.freeze import label, matching, stop_gradients
from ebt_jax.training.lora import BASE_PREFIX, frozen_beside_adapters, merge, with_adapters
from ebt_jax.tree import named_leaves
from ebt_jax.types import Method, Params

DECAYED = ("kernels", "all")


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """Settings.

    Attributes:
      learning_rate: peak, reached after `warmup_steps`; a cosine brings it to 0 at the run's end.
      clip_norm: bound on the gradient's global norm; descents through an energy need one.
      weight_decay: decoupled.
      decayed: the parameters it acts on: the "kernels" of products and convolutions, or "all", biases, norms and adapters too (the
        published choice).
      ema_decay: of the moving average that is evaluated and served.
      ema_warmup: min(ema_decay, (1 + step) / (10 + step)) in its place, so that the average soon forgets where training began.
        Without it a run of few updates averages over more of them.
      ema_power: above 0, min(ema_decay, 1 - step^-ema_power) in place of that (the published 0.75: a longer memory as a run goes on).
      accumulate_steps: equal parts that each batch is split into, one after another, to save memory.
      freeze: patterns on parameter names ("encoder/*", "*/bias"); what they match keeps its bits, counts for neither the clip nor the
        decay, and has no optimiser state.
      lora: likewise, of matrices that are frozen and changed by low-rank adapters in their place; () has none.
      lora_rank, lora_scale: r and s in base + s A B, with A [inputs r] and B [r outputs].
    """

    learning_rate: float = 1e-3
    warmup_steps: int = 100
    clip_norm: float = 1.0
    weight_decay: float = 1e-6
    decayed: str = "kernels"
    b2: float = 0.999
    ema_decay: float = 0.999
    ema_warmup: bool = True
    ema_power: float = 0.0
    accumulate_steps: int = 1
    freeze: Sequence[str] = ()
    lora: Sequence[str] = ()
    lora_rank: int = 8
    lora_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in ("freeze", "lora"):
            if isinstance(getattr(self, name), str):
                raise ValueError(
                    f"optimizer.{name} must be a list of patterns, got the one text {getattr(self, name)!r}. Put it in a list."
                )
            object.__setattr__(self, name, tuple(getattr(self, name)))  # JSON has lists
        for name, holds, rule in (
            ("learning_rate", self.learning_rate > 0, "be positive"),
            ("warmup_steps", self.warmup_steps >= 0, "be at least 0"),
            ("clip_norm", self.clip_norm > 0, "be positive"),
            ("weight_decay", self.weight_decay >= 0, "be at least 0"),
            ("decayed", self.decayed in DECAYED, f"be one of {DECAYED}"),
            ("b2", 0 < self.b2 < 1, "lie in (0, 1)"),
            ("ema_decay", 0 <= self.ema_decay < 1, "lie in [0, 1)"),
            ("ema_power", self.ema_power >= 0, "be at least 0"),
            ("accumulate_steps", self.accumulate_steps >= 1, "be at least 1"),
            ("lora_rank", self.lora_rank >= 1, "be at least 1"),
            ("lora_scale", self.lora_scale > 0, "be positive"),
        ):
            if not holds:
                raise ValueError(f"optimizer.{name} must {rule}, got {getattr(self, name)}.")


def make_optimizer(settings: OptimizerSettings, num_steps: int) -> optax.GradientTransformation:
    """clip -> Adam -> weight decay -> schedule over `num_steps`, on what trains; nothing on what `settings.freeze` holds."""

    def decays(path: tuple[Any, ...], _: Any) -> bool:
        """By name: stacked layers give a bias two axes too."""
        return settings.decayed == "all" or getattr(path[-1], "key", None) == "kernel"

    adamw = optax.chain(
        optax.clip_by_global_norm(settings.clip_norm),
        optax.adamw(
            learning_rate(settings.learning_rate, settings.warmup_steps, num_steps),
            b2=settings.b2,
            weight_decay=settings.weight_decay,
            mask=lambda params: jax.tree_util.tree_map_with_path(decays, params),
        ),
    )
    if not settings.freeze and not settings.lora:
        return adamw
    return optax.partition({"trained": adamw, "frozen": optax.set_to_zero()}, functools.partial(labels, settings))


def labels(settings: OptimizerSettings, params: Params) -> PyTree:
    """The tree with "frozen" or "trained" for each parameter. Raises ValueError for a pattern that matches nothing."""
    if settings.lora:
        return label(params, frozen_beside_adapters(params, settings.lora, settings.freeze))
    return label(params, matching("optimizer.freeze", settings.freeze, list(named_leaves(params))))


def tuned(method: Method, settings: OptimizerSettings) -> Method:
    """The method as it is trained: over adapters where `lora` asks for them, blind to changes of what is frozen."""
    if settings.lora:
        method = with_adapters(method, settings.lora, settings.lora_rank, settings.lora_scale)
    return stop_gradients(method, functools.partial(labels, settings)) if settings.freeze or settings.lora else method


def network(params: Params, settings: OptimizerSettings) -> Params:
    """Of what is trained, the method's own parameters, adapters left aside."""
    return params["base"] if settings.lora else params


def name_prefix(settings: OptimizerSettings) -> str:
    """What the names of the method's own parameters begin with."""
    return BASE_PREFIX if settings.lora else ""


def plain(params: Params, settings: OptimizerSettings) -> Params:
    """Trained parameters -> those of the method itself, adapters merged."""
    return merge(params, settings.lora_scale) if settings.lora else params


def update_ema(average: Params, params: Params, step: Int[Array, ""], settings: OptimizerSettings) -> Params:
    """average <- average + (1 - d) (params - average), with d = ema_decay, `ema_power` or `ema_warmup` apart; `step` updates are done.

    In this form an average of something that never changes keeps its bits.
    """
    decay: Any = settings.ema_decay
    if settings.ema_power > 0:
        decay = jnp.minimum(decay, 1 - jnp.maximum(step, 1) ** -settings.ema_power)
    elif settings.ema_warmup:
        decay = jnp.minimum(decay, (1 + step) / (10 + step))
    rate = jnp.asarray(1 - decay, jnp.float32)
    return jax.tree.map(lambda old, new: old + rate * (new - old), average, params)


def parameter_count(params: Params) -> int:
    """Numbers in a tree of arrays or of their shapes."""
    return sum(leaf.size for leaf in jax.tree.leaves(params))


def trained_share(params: Params, settings: OptimizerSettings) -> str:
    """How many parameters there are, and how many of them train, in words."""
    total = parameter_count(params)
    names = named_leaves(labels(settings, params))
    trained = sum(leaf.size for name, leaf in named_leaves(params).items() if names[name] == "trained")
    return f"{total:,} parameters, of which {trained:,} train ({trained / total:.1%})" if trained < total else f"{total:,} parameters"


def global_norm(tree: Params) -> Float[Array, ""]:
    """Euclidean norm over all leaves."""
    return optax.tree.norm(tree)

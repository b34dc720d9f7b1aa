"""Ways of learning and sampling chunks: one file each, the same order in each (settings, loss, sample)."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from ebt_jax.mcmc import MCMC
from ebt_jax.methods.contrastive import Contrastive, contrastive
from ebt_jax.methods.diffusion import Diffusion, diffusion
from ebt_jax.methods.ebt import EBT, ebt
from ebt_jax.methods.equilibrium import Equilibrium, equilibrium
from ebt_jax.methods.flow import Flow, flow
from ebt_jax.methods.regression import Regression, regression
from ebt_jax.types import EnergyModel, Method, VectorModel

METHODS: dict[str, tuple[Any, Any]] = {
    "ebt": (EBT, ebt),
    "equilibrium": (Equilibrium, equilibrium),
    "contrastive": (Contrastive, contrastive),
    "diffusion": (Diffusion, diffusion),
    "flow": (Flow, flow),
    "regression": (Regression, regression),
}
"""name -> its settings and (settings, mcmc, model) -> Method. How to add one: docs/extending.md.

Settings are a frozen dataclass with a default for every field, and say, as fields, class variables or properties,
  head: what the method learns, one of `types.HEADS`;
  mcmc_read: names of `MCMC`'s settings that decide something under it ("gradient", which decides nothing anywhere, is not among them);
  reaching: where some are lengths in units of the actions, a method (reach) -> the same settings for actions that reach so far.
"""


def settings_table() -> dict[str, dict[str, Any]]:
    """name -> every setting of that method with its default: for a config file, so that any can be changed on the command line."""
    return {name: dataclasses.asdict(kind()) for name, (kind, _) in METHODS.items()}


def method_settings(settings: Mapping[str, Any]) -> Any:
    """{"name": ..., setting: value, ...} checked. Raises ValueError for unknown names, listing the valid."""
    settings = dict(settings)
    name = settings.pop("name", None)
    if name not in METHODS:
        raise ValueError(f"method.name must be one of {sorted(METHODS)}, got {name!r}.")
    kind = METHODS[name][0]
    valid = {field.name for field in dataclasses.fields(kind)}
    unknown = sorted(set(settings) - valid)
    if unknown:
        raise ValueError(f"settings of method {name!r} must be among {sorted(valid)}, got {unknown}.")
    return kind(**settings)


def unread_mcmc(settings: Mapping[str, Any], mcmc: MCMC) -> list[str]:
    """What of `mcmc` was changed from its default and decides nothing under the method `settings`: only "ebt" descends in training, and
    others than it and "equilibrium" never do. `mcmc.gradient`, which changes no number anywhere, is not among them.
    """
    read = method_settings(settings).mcmc_read
    changed = [field.name for field in dataclasses.fields(MCMC) if getattr(mcmc, field.name) != field.default]
    return [f"mcmc.{name}" for name in changed if name not in read | {"gradient"}]


def make_method(settings: Mapping[str, Any], mcmc: MCMC, model: EnergyModel | VectorModel, reach: float = 1.0) -> Method:
    """The method called `settings["name"]` with the remaining settings.

    Args:
      reach: the largest magnitude of a number of the data's normalised actions, in which methods that confine chunks measure.

    Raises ValueError for unknown names, listing the valid, and for a model that has not the method's head.
    """
    chosen = method_settings(settings)
    if isinstance(model, EnergyModel) != (chosen.head == "energy"):
        raise ValueError(f"model of method {settings['name']!r} must have the head {chosen.head!r}, got {type(model).__name__}.")
    if hasattr(chosen, "reaching"):
        chosen = chosen.reaching(reach)
    return METHODS[settings["name"]][1](chosen, mcmc, model)

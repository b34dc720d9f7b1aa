"""The authors' own policy, from a checkout of ZhiChengAIR/benchmarks at c5f5464, without the packages it only passes by.

Their modules run as they are: `robomimic.algo.ebt_policy` and all it computes with. Stand-ins take the place of what an update or an
action from states never calls (imageio, torchvision, matplotlib, the CLIP
model that `lang_utils` loads at import, the package's other algorithms) and, written here, of three small things that it does call:

    timm        RmsNorm, Mlp                  used where installed, else the same in torch (`torch.nn.functional.rms_norm`)
    diffusers   EMAModel, of version 0.11.1   always ours: the same schedule, in fused operations, so if anything faster
    six         add_metaclass                 used where installed
"""

import copy
import importlib.abc
import importlib.machinery
import importlib.util
import json
import pathlib
import sys
import types
from typing import Any
from unittest import mock

import torch
from torch import nn

STATES = 181
"""Numbers of an observation of Tool Hang without cameras."""

STAND_INS: list[str] = []
"""Packages, and modules of theirs, that were replaced in this process."""

UNUSED = ("imageio", "torchvision", "matplotlib", "transformers", "tqdm", "h5py", "huggingface_hub", "termcolor")


def load_policy(checkout: pathlib.Path, mcmc_steps: int, dropout: float, device: str) -> Any:
    """Their EBTPolicy with their template's settings, `mcmc_steps` steps an update, for 181 state numbers and 7 action numbers."""
    if not (checkout / "robomimic" / "algo" / "ebt_policy.py").is_file():
        raise ValueError(f"checkout must hold robomimic/algo/ebt_policy.py, got {checkout}. Check out ZhiChengAIR/benchmarks at c5f5464.")
    _prepare(checkout)
    from robomimic.algo.ebt_policy import EBTPolicy
    from robomimic.config import config_factory
    from robomimic.utils.obs_utils import initialize_obs_utils_with_config

    config = config_factory("ebt_policy")
    with config.unlocked():
        config.update(json.loads((checkout / "robomimic/exps/templates/ebt_policy.json").read_text()))
        config.algo.ebt.mcmc_num_steps = mcmc_steps
        config.algo.ebt.randomize_mcmc_num_steps = 0
        config.algo.transformer.attn_dropout = dropout
        config.observation.modalities.obs.low_dim = ["object"]
        config.observation.modalities.obs.rgb = []
        config.algo.optim_params.policy.num_train_batches = 300
        config.algo.optim_params.policy.num_epochs = 3000
    initialize_obs_utils_with_config(config)
    return EBTPolicy(
        algo_config=config.algo,
        obs_config=config.observation,
        global_config=config,
        obs_key_shapes={"object": [STATES]},
        ac_dim=7,
        device=torch.device(device),
    )


class _Unused(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Imports of `UNUSED` packages give modules whose every attribute is a mock."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> Any:
        return importlib.machinery.ModuleSpec(name, self, is_package=True) if name.partition(".")[0] in UNUSED else None

    def create_module(self, spec: Any) -> types.ModuleType:
        module = mock.MagicMock(name=spec.name)
        module.__spec__, module.__path__, module.__name__ = spec, [], spec.name
        return module

    def exec_module(self, module: types.ModuleType) -> None:
        pass


def _prepare(checkout: pathlib.Path) -> None:
    if "robomimic" in sys.modules:
        return
    sys.path.insert(0, str(checkout))
    sys.meta_path.insert(0, _Unused())
    STAND_INS.extend(UNUSED)
    # Their package's door imports every algorithm it has; the two names that ebt_policy takes from it lie in algo.py.
    algo = _module("robomimic.algo", __path__=[str(checkout / "robomimic" / "algo")])
    _module("robomimic.utils.lang_utils", LANG_EMB_OBS_KEY="lang_emb")
    _module("diffusers")
    _module("diffusers.training_utils", EMAModel=EMAModel)
    if importlib.util.find_spec("timm") is None:
        _module("timm")
        _module("timm.models")
        _module("timm.models.vision_transformer", RmsNorm=RmsNorm, Mlp=Mlp, use_fused_attn=lambda: False)
    if importlib.util.find_spec("six") is None:
        _module("six", add_metaclass=lambda metaclass: lambda cls: metaclass(cls.__name__, cls.__bases__, dict(cls.__dict__)))
    from robomimic.algo.algo import PolicyAlgo, register_algo_factory_func

    algo.PolicyAlgo, algo.register_algo_factory_func = PolicyAlgo, register_algo_factory_func


def _module(name: str, **attributes: Any) -> Any:
    module = types.ModuleType(name)
    for key, value in attributes.items():
        setattr(module, key, value)
    sys.modules[name] = module
    STAND_INS.append(name)
    return module


class EMAModel:
    """average <- d average + (1 - d) parameters, d = min(0.9999, 1 - (1 + t)^-power), t the updates since the second."""

    def __init__(self, model: nn.Module, power: float) -> None:
        self.averaged_model = copy.deepcopy(model).eval().requires_grad_(False)
        self.power, self.steps = power, 0

    @torch.no_grad()
    def step(self, model: nn.Module) -> None:
        decay = min(0.9999, 1 - (1 + max(0, self.steps - 1)) ** -self.power)
        torch._foreach_lerp_(list(self.averaged_model.parameters()), list(model.parameters()), 1 - decay)
        self.steps += 1


class RmsNorm(nn.Module):
    def __init__(self, channels: int, eps: float = 1e-6) -> None:
        super().__init__()
        self.weight, self.eps = nn.Parameter(torch.ones(channels)), eps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return nn.functional.rms_norm(x, self.weight.shape, self.weight, self.eps)


class Mlp(nn.Module):
    def __init__(
        self,
        in_features: int,
        hidden_features: int,
        out_features: int | None = None,
        act_layer: Any = nn.GELU,
        drop: float = 0.0,
        bias=True,
    ) -> None:
        super().__init__()
        self.fc1 = nn.Linear(in_features, hidden_features, bias=bias)
        self.act, self.drop = act_layer(), nn.Dropout(drop)
        self.fc2 = nn.Linear(hidden_features, out_features or in_features, bias=bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.drop(self.fc2(self.drop(self.act(self.fc1(x)))))

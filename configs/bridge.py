"""EBT-Policy on a few real BridgeData V2 episodes (WidowX): what 250 frames can teach, by five folds.

    python benchmarks/bridge.py --data_dir=DIR         all folds, beside the mean action, ridge regression and blanked images
    python -m ebt_jax.train --config=configs/bridge.py --config.data.data_dir=DIR --workdir=runs/bridge

DIR holds `bridge_dataset/1.0.0`. Two CPU cores, two to four minutes a fold. :blind has no camera; :debug runs for seconds. Results:
docs/results.md. For BridgeData at full size see configs/oxe.py.
"""

from ml_collections import ConfigDict, config_dict

from ebt_jax.config import offer
from ebt_jax.methods import settings_table

VARIANTS = ("", "blind", "debug")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"variant of configs/bridge.py must be one of {VARIANTS}, got {variant!r}.")
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 100
    config.batch_size = 64
    config.log_interval = 25
    config.eval_interval = 50
    config.eval_batches = 4
    config.save_interval = 0
    config.keep_checkpoints = 1
    config.sample_steps = 0  # the method's own: mcmc.num_steps of a descent
    config.execution_horizon = 1
    config.precision = "float32"

    config.data = data = ConfigDict()
    data.data_dir = config_dict.placeholder(str)
    data.mixture = "bridge_dataset"
    data.observation_horizon = 2
    data.action_horizon = 1
    data.image_size = 64
    data.proprio = ("*",)
    data.language = "embedding"
    data.normalization = "mean_std"
    data.proprio_normalization = "mean_std"
    data.validation_fraction = 0.0
    data.validation_folds = 5
    data.validation_fold = 0
    data.cache_dir = ""

    config.model = ConfigDict({"variant": "debug", "cameras": ("primary",), "pooling": "spatial_softmax", "width": 128, "heads": 4})
    config.model.motion_gain = 10.0
    config.method = ConfigDict({"name": "ebt", **settings_table()})
    config.mcmc = ConfigDict({"num_steps": 2, "step_size": 1.0, "momentum": 0.0, "stop_gradient": True, "gradient": "saved"})

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 1e-3
    optimizer.warmup_steps = 10
    optimizer.clip_norm = 1.0
    optimizer.weight_decay = 0.05
    optimizer.ema_decay = 0.98
    optimizer.ema_warmup = False  # averages over half of so short a run
    optimizer.accumulate_steps = 1

    config.augmentation = ConfigDict({"crop": 0.8, "brightness": 0.2, "contrast": 0.2, "saturation": 0.2, "camera_dropout": 0.5})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1})
    config.evaluation = ConfigDict({"suite": "", "tasks": (), "episodes": 50, "seed": 0})

    if variant == "blind":
        config.model.cameras = ()
    if variant == "debug":
        config.num_steps = 20
        config.eval_interval = 10
    return offer(config)

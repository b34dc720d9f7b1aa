"""Fine-tuning: nine Meta-World tasks first, then a tenth from ten demonstrations. States and words, no camera; 0.67 M parameters.

    python benchmarks/finetune.py --output=runs/finetune      all of it: demonstrations, both trainings, five seeds, the twin from scratch
    python -m ebt_jax.train --config=configs/finetune.py:pretrain --config.data.data_dir=DATA --workdir=runs/nine
    python -m ebt_jax.train --config=configs/finetune.py --config.data.data_dir=DATA --init_from=runs/nine --workdir=runs/tenth

Without --init_from the second command is the twin: the same demonstrations, network and updates, from random parameters. :lora trains
low-rank adapters in place of the transformer's matrices. :debug runs for seconds on the bundled sample. Two CPU cores; what was reached,
and in what time: docs/finetuning.md.
"""

from ml_collections import ConfigDict, config_dict

from ebt_jax.config import offer
from ebt_jax.methods import settings_table

VARIANTS = ("", "pretrain", "lora", "debug")

PRETRAINING = (
    "reach-v3",
    "push-v3",
    "pick-place-v3",
    "drawer-open-v3",
    "drawer-close-v3",
    "door-open-v3",
    "button-press-topdown-v3",
    "window-open-v3",
    "plate-slide-v3",
)
TENTH = "coffee-pull-v3"


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"variant of configs/finetune.py must be one of {VARIANTS}, got {variant!r}.")
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 200
    config.batch_size = 32
    config.log_interval = 25
    config.eval_interval = 0
    config.eval_batches = 4
    config.save_interval = 100
    config.keep_checkpoints = 1
    config.sample_steps = 0  # the method's own: mcmc.num_steps of a descent
    config.execution_horizon = 8
    config.precision = "float32"

    config.data = data = ConfigDict()
    data.data_dir = config_dict.placeholder(str)
    data.mixture = "metaworld_tenth"
    data.observation_horizon = 1
    data.action_horizon = 16
    data.image_size = 64
    data.proprio = ("*",)
    data.language = "tokens"
    data.normalization = "min_max"
    data.proprio_normalization = "mean_std"
    data.validation_fraction = 0.0
    data.validation_folds = 6  # of twelve demonstrations, ten are trained on
    data.validation_fold = 0
    data.cache_dir = ""

    config.model = ConfigDict({"variant": "debug", "cameras": ()})
    config.method = ConfigDict({"name": "ebt", **settings_table()})
    config.mcmc = ConfigDict({"num_steps": 2, "step_size": 1.0, "momentum": 0.0, "stop_gradient": True})

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 1e-3
    optimizer.warmup_steps = 50
    optimizer.clip_norm = 1.0
    optimizer.weight_decay = 1e-6
    optimizer.ema_decay = 0.98
    optimizer.accumulate_steps = 1
    optimizer.freeze = ()
    optimizer.lora = ()
    optimizer.lora_rank = 8
    optimizer.lora_scale = 1.0

    config.mesh = ConfigDict({"data": -1, "fsdp": 1})
    config.evaluation = ConfigDict({"suite": "metaworld", "tasks": (TENTH,), "episodes": 50, "seed": 0})

    if variant == "pretrain":
        config.num_steps = 3_000
        config.log_interval = 100
        config.save_interval = 500
        data.mixture = "metaworld_nine"
        data.validation_folds = 45
        optimizer.ema_decay = 0.995
        config.evaluation.tasks = PRETRAINING
    if variant == "lora":
        optimizer.lora = ("encoder/*", "decoder/*", "key_value/*")
    if variant == "debug":
        config.num_steps = 20
        config.save_interval = 10
        data.data_dir = "bundled"
        data.mixture = "metaworld_pick_place_v3"
        config.evaluation.tasks = ("pick-place-v3",)
    return offer(config)

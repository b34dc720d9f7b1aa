"""EBT-Policy as its authors' code trains it (arXiv 2510.27545): their network, their descent, their optimiser, on PushT.

    python -m ebt_jax.convert --source=pusht_zarr --input=pusht_cchi_v7_replay.zarr --output=data
    python -m ebt_jax.train --config=configs/paper.py --config.data.data_dir=data --workdir=runs/paper
    python -m ebt_jax.evaluate --policy=runs/paper --suite=pusht --episodes=50 --seed=0 --output=runs/paper/evaluation

The settings of 30 October 2025; :later are those of 6 November: loss at the last step only, T = 9, a third of the learning rate, and up to
20 steps by the stopping rule. 900,000 updates of 6 to 10 second-order steps through 8.6 M parameters, for one GPU; not run. :debug is a
narrow network on the bundled sample for a minute on two CPU cores. For other data, --config.data.mixture=NAME, and mcmc.step_size and
mcmc.min_gradient that fit their chunk (see below); with --config.model.cameras="('primary','wrist')" the network is the published one of
31 M.

What differs from the published code, and why: docs/parity.md.
"""

from ml_collections import ConfigDict, config_dict

from ebt_jax.config import offer
from ebt_jax.methods import settings_table

VARIANTS = ("", "later", "debug")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"variant of configs/paper.py must be one of {VARIANTS}, got {variant!r}.")
    config = ConfigDict()
    config.seed = 1
    config.num_steps = 900_000
    config.batch_size = 64
    config.log_interval = 300
    config.eval_interval = 15_000
    config.eval_batches = 4
    config.save_interval = 15_000
    config.keep_checkpoints = 3
    config.sample_steps = 2  # their max_mcmc_steps, a cap on the stopping rule
    config.execution_horizon = 8
    config.precision = "float32"

    config.data = data = ConfigDict()
    data.data_dir = config_dict.placeholder(str)
    data.mixture = "pusht"
    data.observation_horizon = 2
    data.action_horizon = 16
    data.image_size = 84
    data.proprio = ("*",)
    data.language = "none"
    data.normalization = "min_max"
    data.proprio_normalization = "min_max"
    data.validation_fraction = 0.05
    data.cache_dir = ""

    config.model = ConfigDict({"variant": "paper", "cameras": ()})
    config.method = ConfigDict({"name": "ebt", **settings_table()})
    config.method.update({"ebt": {"objective": "mse", "loss_steps": "every"}})

    config.mcmc = mcmc = ConfigDict()
    mcmc.num_steps = 6
    mcmc.extra_steps = 4
    mcmc.step_size = 1000.0 / (16 * 7) * (16 * 2)  # 1000 for their chunks of 16 x 7: as much for each number of PushT's 16 x 2
    mcmc.step_size_jitter = 1.5
    mcmc.momentum = 0.9
    mcmc.action_norm = "every"
    mcmc.noise_start = 0.2
    mcmc.noise_end = 0.002
    mcmc.energy_temperature = 1.0
    mcmc.min_gradient = 1e-3 * (16 * 7 / (16 * 2)) ** 0.5  # 1e-3 for their chunks: at rest where a number's own step is as short as there
    mcmc.stop_gradient = True
    mcmc.stop_gradient_velocity = False

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 1e-4
    optimizer.warmup_steps = 500
    optimizer.clip_norm = 1.0
    optimizer.weight_decay = 1e-6
    optimizer.decayed = "all"
    optimizer.ema_decay = 0.9999
    optimizer.ema_power = 0.75
    optimizer.accumulate_steps = 1

    config.augmentation = ConfigDict({"crop": 76 / 84, "brightness": 0.3, "contrast": 0.3, "saturation": 0.3, "camera_dropout": 0.0})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1})
    config.evaluation = ConfigDict({"suite": "pusht", "tasks": ("pusht",), "episodes": 50, "seed": 0})

    if variant == "later":
        config.sample_steps = 20
        config.method.update({"ebt": {"loss_steps": "last"}})
        mcmc.energy_temperature = 9.0
        mcmc.stop_gradient_velocity = True
        optimizer.learning_rate = 3e-5
    if variant == "debug":
        config.num_steps = 60
        config.batch_size = 16
        config.log_interval = 10
        config.eval_interval = 30
        config.save_interval = 30
        config.keep_checkpoints = 1
        data.data_dir = "bundled"
        data.mixture = "metaworld_pick_place_v3"
        mcmc.step_size = 1000.0 / (16 * 7) * (16 * 4)
        mcmc.min_gradient = 1e-3 * (16 * 7 / (16 * 4)) ** 0.5
        config.model.update({"width": 32, "heads": 2, "encoder_layers": 1, "decoder_layers": 2})
        optimizer.learning_rate = 1e-3
        optimizer.warmup_steps = 10
        config.evaluation = ConfigDict({"suite": "metaworld", "tasks": ("pick-place-v3",), "episodes": 50, "seed": 0})
    return offer(config)

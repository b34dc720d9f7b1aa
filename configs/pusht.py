"""EBT-Policy on PushT: 206 human demonstrations, nine keypoints of the block and the agent as state.

    python -m ebt_jax.convert --source=pusht_zarr --input=pusht_cchi_v7_replay.zarr --output=data
    python -m ebt_jax.train --config=configs/pusht.py --config.data.data_dir=data --workdir=runs/pusht
    python -m ebt_jax.evaluate --policy=runs/pusht --suite=pusht --episodes=100 --seed=0 --output=runs/pusht/evaluation

The energy-score objective keeps both ways around the block, where the paper's squared error averages them (variant :mse).
:equilibrium trains faster and takes five descent steps. :cpu is sized for two cores and 10 to 13 minutes, :debug for one minute.
Scores, hardware and hours: docs/results.md.
"""

from ml_collections import ConfigDict, config_dict

from ebt_jax.config import offer
from ebt_jax.methods import settings_table

VARIANTS = ("", "mse", "equilibrium", "cpu", "debug")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"variant of configs/pusht.py must be one of {VARIANTS}, got {variant!r}.")
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 20_000
    config.batch_size = 256
    config.log_interval = 100
    config.eval_interval = 2_000
    config.eval_batches = 4
    config.save_interval = 5_000
    config.keep_checkpoints = 1
    config.sample_steps = 0  # the method's own: mcmc.num_steps of a descent
    config.execution_horizon = 8
    config.precision = "float32"

    config.data = data = ConfigDict()
    data.data_dir = config_dict.placeholder(str)
    data.mixture = "pusht"
    data.observation_horizon = 2
    data.action_horizon = 16
    data.image_size = 96
    data.proprio = ("*",)  # names of the state that the policy sees: ("agent_*",), () for none
    data.language = "none"
    data.normalization = "min_max"
    data.proprio_normalization = "min_max"
    data.validation_fraction = 0.05
    data.cache_dir = ""

    config.model = ConfigDict({"variant": "small", "cameras": (), "width": 256, "encoder_layers": 1, "decoder_layers": 4})
    config.method = ConfigDict({"name": "ebt", **settings_table()})  # --config.method.name=flow, --config.method.ebt.num_starts=2
    config.method.update({"ebt": {"objective": "energy_score"}})
    config.mcmc = ConfigDict({"num_steps": 2, "step_size": 1.0, "momentum": 0.0, "stop_gradient": True, "gradient": "saved"})

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 5e-4
    optimizer.warmup_steps = 500
    optimizer.clip_norm = 1.0
    optimizer.weight_decay = 1e-3
    optimizer.ema_decay = 0.9995
    optimizer.accumulate_steps = 1

    config.mesh = ConfigDict({"data": -1, "fsdp": 1})
    config.evaluation = ConfigDict({"suite": "pusht", "tasks": ("pusht",), "episodes": 100, "seed": 0})

    if variant == "mse":
        config.method.update({"ebt": {"objective": "mse"}})
    if variant == "equilibrium":
        config.method.update({"name": "equilibrium", "equilibrium": {"travel": 1.25}})
        config.sample_steps = 5
    if variant in ("cpu", "debug"):
        config.num_steps = 2_500 if variant == "cpu" else 60
        config.batch_size = 64
        config.log_interval = 100 if variant == "cpu" else 10
        config.eval_interval = 500 if variant == "cpu" else 30
        config.save_interval = 500 if variant == "cpu" else 30
        config.method.update({"ebt": {"num_starts": 2}})
        config.model = ConfigDict({"variant": "debug", "cameras": (), "width": 128, "heads": 4})
        optimizer.learning_rate = 1e-3
        optimizer.warmup_steps = 100
        optimizer.ema_decay = 0.999
    return offer(config)

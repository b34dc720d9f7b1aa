"""A training configuration that takes seconds: the bundled sample, a network of a few thousand parameters.

:regression compiles in a fraction of the time, for tests that start many processes.
"""

from ml_collections import ConfigDict

VARIANTS = ("", "sample", "regression")


def get_config(variant=""):
    config = ConfigDict(
        {
            "seed": 0,
            "num_steps": 20,
            "batch_size": 16,
            "log_interval": 1,
            "eval_interval": 10,
            "eval_batches": 2,
            "save_interval": 10,
            "keep_checkpoints": 2,
            "sample_steps": 0,
            "execution_horizon": 2,
            "precision": "float32",
            "data": {
                "data_dir": "bundled",
                "mixture": "metaworld_pick_place_v3",
                "observation_horizon": 2,
                "action_horizon": 4,
                "image_size": 32,
                "language": "auto",
                "normalization": "min_max",
                "proprio_normalization": "mean_std",
                "validation_fraction": 0.1,
                "cache_dir": "",
            },
            "model": {"variant": "debug", "cameras": (), "width": 16, "decoder_layers": 1, "encoder_layers": 1, "heads": 2, "unroll": 1},
            "method": {"name": "ebt", "objective": "energy_score", "loss_steps": "every", "num_starts": 2},
            "mcmc": {"num_steps": 2, "step_size": 1.0, "momentum": 0.0, "stop_gradient": True},
            "optimizer": {
                "learning_rate": 1e-3,
                "warmup_steps": 5,
                "clip_norm": 1.0,
                "weight_decay": 1e-6,
                "ema_decay": 0.99,
                "accumulate_steps": 1,
            },
            "mesh": {"data": -1, "fsdp": 1},
            "evaluation": {"suite": "metaworld", "tasks": ("pick-place-v3",), "episodes": 2, "seed": 0},
        }
    )
    if variant == "regression":
        config.method = ConfigDict({"name": "regression", "objective": "energy_score", "num_starts": 2})
    return config

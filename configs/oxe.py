"""EBT-Policy on Open X-Embodiment.

python -m ebt_jax.train --config=configs/oxe.py --config.data.data_dir=/data/oxe --workdir=runs/oxe
    BridgeData V2 (60,096 episodes), one 224x224 camera, language; about 100 M parameters, batch 1024 over all devices.
    For a TPU pod slice or a node of data-centre GPUs (few of them: optimizer.accumulate_steps, docs/finetuning.md); not run at this scale
    yet. :large has about 300 M parameters, :xl about 1 B, their state shared by 8 and 16 devices. :xl differentiates the descent the
    lean way, so that it fits the 16 GB of a v5e. What each takes of which chip: docs/scaling.md.

python -m ebt_jax.train --config=configs/oxe.py:sample --workdir=runs/sample
    The bundled sample: 100 scripted demonstrations of Meta-World pick-place, states only, 0.14 M parameters.
    Two CPU cores, about 2.5 minutes; then closed-loop success over 50 fresh initial states with 2 descent steps: see README.

:debug is the sample for a minute, to see that everything runs.
"""

from ml_collections import ConfigDict, config_dict

from ebt_jax.config import offer
from ebt_jax.methods import settings_table

VARIANTS = ("", "large", "xl", "sample", "debug")


def get_config(variant: str = "") -> ConfigDict:
    if variant not in VARIANTS:
        raise ValueError(f"variant of configs/oxe.py must be one of {VARIANTS}, got {variant!r}.")
    config = ConfigDict()
    config.seed = 0
    config.num_steps = 300_000
    config.batch_size = 1024
    config.log_interval = 100
    config.eval_interval = 5_000
    config.eval_batches = 16
    config.save_interval = 5_000
    config.keep_checkpoints = 3
    config.keep_every = 50_000
    config.sample_steps = 0  # the method's own: mcmc.num_steps of a descent
    config.execution_horizon = 4
    config.precision = "bfloat16"

    config.data = data = ConfigDict()
    data.data_dir = config_dict.placeholder(str)
    data.mixture = "bridge_dataset"  # or "octo/oxe_magic_soup", "mine.json": docs/data.md
    data.weighting = "given"  # or "transitions", for mixtures published so
    data.combine = "equal"  # or "union", for robots that differ
    data.observation_horizon = 2
    data.action_horizon = 8
    data.image_size = 224
    data.proprio = ("*",)  # names of the state that the policy sees, () for none
    data.language = "auto"  # tokens of the text where there is any; "embedding", the dataset's own vectors, no robot can be told
    data.normalization = "quantile"
    data.proprio_normalization = "quantile"
    data.validation_fraction = 0.01
    data.cache_dir = ""
    data.filters = filters = ConfigDict()  # nothing is left out; docs/data.md
    filters.min_steps = 1
    filters.require_instruction = False
    filters.require_success = False
    filters.max_action = 0.0
    filters.idle_steps = 0
    data.on_bad = "raise"  # or "skip": leave out what cannot be read, and count it
    data.language_dropout = 0.0
    data.goal_dropout = 0.0  # of goal images, for cameras "goal_primary", ...
    data.windows_per_visit = 1  # 8 or so where the data lie in a bucket

    config.model = ConfigDict({"variant": "base", "cameras": ("primary",)})  # --config.model.vision=dinov2_small: docs/encoders.md
    config.method = ConfigDict({"name": "ebt", **settings_table()})  # --config.method.name=flow, --config.method.ebt.num_starts=2
    config.method.update({"ebt": {"objective": "energy_score"}})
    config.mcmc = ConfigDict({"num_steps": 2, "step_size": 1.0, "momentum": 0.0, "stop_gradient": True, "gradient": "saved"})

    config.optimizer = optimizer = ConfigDict()
    optimizer.learning_rate = 3e-4
    optimizer.warmup_steps = 2_000
    optimizer.clip_norm = 1.0
    optimizer.weight_decay = 0.01
    optimizer.ema_decay = 0.9999
    optimizer.accumulate_steps = 1
    optimizer.freeze = ()  # with --init_from, ("encoder/*",): docs/finetuning.md
    optimizer.lora = ()
    optimizer.lora_rank = 8
    optimizer.lora_scale = 1.0

    config.augmentation = ConfigDict({"crop": 0.9, "brightness": 0.1, "contrast": 0.1, "saturation": 0.1, "camera_dropout": 0.0})
    config.mesh = ConfigDict({"data": -1, "fsdp": 1})
    config.evaluation = ConfigDict({"suite": "", "tasks": (), "episodes": 50, "seed": 0})

    if variant in ("large", "xl"):
        config.model.variant = variant
        config.mesh.fsdp = 8 if variant == "large" else 16
        optimizer.learning_rate = 2e-4 if variant == "large" else 1e-4
        config.mcmc.gradient = "saved" if variant == "large" else "lean"
    if variant in ("sample", "debug"):
        config.num_steps = 2_000 if variant == "sample" else 100
        config.batch_size = 64
        config.log_interval = 100 if variant == "sample" else 10
        config.eval_interval = 500 if variant == "sample" else 50
        config.eval_batches = 8
        config.save_interval = 500 if variant == "sample" else 50
        config.keep_every = 0
        config.execution_horizon = 8
        config.precision = "float32"
        data.data_dir = "bundled"
        data.mixture = "metaworld_pick_place_v3"
        data.observation_horizon = 1
        data.action_horizon = 16
        data.language = "none"
        data.normalization = "min_max"
        data.proprio_normalization = "mean_std"
        data.validation_fraction = 0.05
        config.model.variant = "debug"
        config.model.cameras = ()
        config.method.update({"ebt": {"objective": "mse"}})
        optimizer.learning_rate = 1e-3
        optimizer.warmup_steps = 100
        optimizer.weight_decay = 1e-6
        optimizer.ema_decay = 0.995
        config.evaluation = ConfigDict({"suite": "metaworld", "tasks": ("pick-place-v3",), "episodes": 50, "seed": 0})
    return offer(config)

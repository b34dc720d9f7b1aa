"""Trains a policy.

  python -m ebt_jax.train --config=FILE.py[:variant] --workdir=DIR [--config.key=value ...]
  python -m ebt_jax.train --config=FILE.py[:variant] --workdir=DIR --init_from=PATH      fine-tunes another run's checkpoint
  python -m ebt_jax.train --config=FILE.py[:variant] --compile_only --topology=v5e:16x16

Writes DIR/config.json, DIR/checkpoints/STEP/, DIR/metrics.jsonl, TensorBoard events and DIR/report.html. A workdir that exists
is resumed where its configuration is the same, and refused with the differing keys where it is not. The same command in every
process of a pod, a Slurm job, or with --coordinator_address, is one run. --compile_only writes nothing: it prints what one
update takes on a machine that need not be there.
"""

import json
import os
import pathlib

from absl import flags, logging

from ebt_jax import cli, config, distributed

CONFIG = config.define_config_flag()
WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run.")
INIT_FROM = flags.DEFINE_string(
    "init_from",
    "",
    "Start from this checkpoint's parameters: a workdir, its checkpoints, or one step. What was loaded: DIR/init_from.json.",
)
PROFILE = flags.DEFINE_string("profile", "", "START:STOP: write a profiler trace of these updates into workdir/profile.")
WATCHDOG = flags.DEFINE_float(
    "watchdog_seconds",
    60.0,
    "End a run that is silent for longer than this and than ten updates; 0: never. For all but updates: --watchdog_slow_seconds.",
    lower_bound=0,
)
WATCHDOG_SLOW = flags.DEFINE_float(
    "watchdog_slow_seconds",
    1800.0,
    "The same, while it starts, compiles, makes its first updates, looks at held-out data or saves.",
    lower_bound=1,
)
COORDINATOR = flags.DEFINE_string("coordinator_address", None, "host:port of process 0. Slurm, mpirun and TPU slices need none.")
PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes run this command.", lower_bound=1)
PROCESS = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.", lower_bound=0)
HEARTBEAT = flags.DEFINE_integer("heartbeat_seconds", 30, "A process silent for so long is dead: all others end.", lower_bound=5)
COMPILE_ONLY = flags.DEFINE_bool("compile_only", False, "Compile one update for --topology, print what it takes, and stop.")
TOPOLOGY = flags.DEFINE_string("topology", None, "TPU slice, v5e:16x16, or a number of virtual CPU devices.")


def main() -> None:
    """Resolves the configuration, trains, reports."""
    if COMPILE_ONLY.value:
        compile_only()
        return
    import jax

    from ebt_jax.report.held_out import draw_held_out
    from ebt_jax.report.run import write_run_report
    from ebt_jax.training.loop import train
    from ebt_jax.training.profile import parse_window
    from ebt_jax.training.settings import Settings

    if WORKDIR.value is None:
        raise flags.ValidationError("--workdir must name the folder of the run, got none.")
    with cli.wrong_usage():
        profile = parse_window(PROFILE.value) if PROFILE.value else range(0)
        cluster = distributed.find_cluster(COORDINATOR.value, PROCESSES.value, PROCESS.value, tpu_machine=distributed.tpu_machine())
    jax.config.update(
        "jax_compilation_cache_dir", os.environ.get("JAX_COMPILATION_CACHE_DIR", str(pathlib.Path.home() / ".cache/ebt_jax/xla"))
    )
    if cluster is not None:
        distributed.join(cluster, HEARTBEAT.value)
    workdir = pathlib.Path(WORKDIR.value)
    logging.info("devices: %s", jax.devices())
    with cli.wrong_usage():
        values = config.resolve(CONFIG)
        if INIT_FROM.value:
            values["init_from"] = INIT_FROM.value if "://" in INIT_FROM.value else str(pathlib.Path(INIT_FROM.value).resolve())
        settings = Settings.from_dict(values)
    state = train(values, workdir, cli.progress, profile, WATCHDOG.value, WATCHDOG_SLOW.value)
    if jax.process_index() == 0:
        draw_held_out(workdir, settings.data, settings.seed)
        logging.info("wrote %s", write_run_report(workdir))
    print(f"trained to step {int(state.step)} in {workdir}")


def compile_only() -> None:
    """Compiles one update for the topology and prints what it takes: one line of JSON."""
    from ebt_jax.data.described import described_specs
    from ebt_jax.data.mixture import open_mixture
    from ebt_jax.training.compile import compile_step, topology_devices
    from ebt_jax.training.settings import Settings

    if TOPOLOGY.value is None:
        raise flags.ValidationError(
            "--topology must name a TPU slice (v5e:16x16) or a number of CPU devices with --compile_only, got none."
        )
    with cli.wrong_usage():
        values = config.plain(CONFIG.value)
        here = values["data"]["data_dir"] is not None
        settings = Settings.from_dict(values if here else {**values, "data": {**values["data"], "data_dir": "(none)"}})
    specs = open_mixture(settings.data).specs if here else described_specs(settings.data)
    with cli.wrong_usage():
        devices = topology_devices(TOPOLOGY.value)
    print(json.dumps(compile_step(settings, specs, TOPOLOGY.value, devices)._asdict()))


if __name__ == "__main__":
    cli.on_disk("workdir")
    flags.mark_flag_as_required("config")
    cli.run(main, __doc__ or "", distributed.leave)

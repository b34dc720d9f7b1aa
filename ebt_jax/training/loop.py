"""The one loop over updates, top to bottom: open, resume or start, step, log, save, look at held-out data, stop."""

import contextlib
import itertools
import pathlib
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import logging
from jaxtyping import Int

from ebt_jax import distributed
from ebt_jax.checkpoint import Checkpoints, finished_steps
from ebt_jax.data.loader import make_loader, whose
from ebt_jax.data.mixture import Mixture, open_mixture
from ebt_jax.interruption import Interrupted, termination_requested
from ebt_jax.methods import unread_mcmc
from ebt_jax.models.pretrained import load_pretrained
from ebt_jax.sharding import batch_shapes, make_mesh, to_devices
from ebt_jax.steering import check_sampler
from ebt_jax.training import initialize
from ebt_jax.training.metrics import MetricsLog, Stopwatch
from ebt_jax.training.optimizer import make_optimizer, name_prefix, network, trained_share, tuned
from ebt_jax.training.profile import profiled
from ebt_jax.training.saving import checkpoint_assets, restore, save
from ebt_jax.training.settings import Settings
from ebt_jax.training.state import TrainState, init_state, sharded_init, with_values
from ebt_jax.training.step import make_train_step
from ebt_jax.training.utilization import samples_at_peak
from ebt_jax.training.validate import make_validate
from ebt_jax.training.watchdog import SLOW_SECONDS, Watchdog
from ebt_jax.training.workdir import check_workdir, claim_workdir, compare_workdir, hold_workdir
from ebt_jax.types import Batch

Progress = Callable[[Iterable[int], int, str], Iterable[int]]

IN_FLIGHT = 2
"""Updates that devices may be behind the loop: enough to keep them busy, few enough that the loop's pace is theirs.

It is also how batches are prefetched to the devices: the loop copies the next while they compute those before. No thread does it, so
that the processes of a run make their arrays in one order.
"""

LOOK_INTERVAL = 100
"""Updates after which losses are looked at where `log_interval` is 0."""


def train(
    config: Mapping[str, Any],
    workdir: pathlib.Path,
    progress: Progress = lambda steps, total, name: steps,
    profile: range = range(0),
    watchdog_seconds: float = 0.0,
    watchdog_slow_seconds: float = SLOW_SECONDS,
) -> TrainState:
    """Trains what `config` describes in `workdir`, from its newest checkpoint if it has one; returns the final state.

    A run that was killed and started again computes what it would have computed anyway, bit for bit where the devices do: batches, keys
    and schedules are functions of (seed, step), and the rest is in the checkpoint.

    Args:
      profile: updates whose trace is written into workdir/profile.
      watchdog_seconds: end the process, with the stacks of its threads, where the loop is silent for longer than this and than ten
        updates take; 0 never does. For commands: it ends more than this function.
      watchdog_slow_seconds: how long it may be silent in what is no update (starting, compiling, looking at held-out data, saving), and
        in the first few, whose pace is not known.

    Raises:
      ValueError: a bad configuration, or a workdir that belongs to another one (the differing keys are listed); of several processes,
        other data or another newest checkpoint in one of them.
      FloatingPointError: the loss is no longer finite; names the step and the last checkpoint.
      CheckpointError: a save failed, or the newest checkpoint is damaged; names the newest good one.
      OSError: the workdir cannot be written, or is no longer there.
      Interrupted: SIGTERM or Ctrl-C came to any process; all have saved the same step, or there was nothing to save before the first.
    """
    watch = Stopwatch()
    with contextlib.ExitStack() as stack:
        # Alone, a process that is asked to stop before its first update does so at once; several agree after one.
        requested = stack.enter_context(termination_requested(at_once=jax.process_count() == 1))
        settings = Settings.from_dict(config)
        mesh = make_mesh(settings.mesh.data, settings.mesh.fsdp)
        newest = finished_steps(workdir / "checkpoints")[-1:]
        distributed.check_same(
            "newest checkpoint", str(newest), f"It is {newest or 'none'} here: do all see the same {workdir}, and all of what is in it?"
        )
        starts_from = "" if newest else settings.init_from
        source = initialize.read_source(starts_from, settings, mesh) if starts_from else None
        compare_workdir(workdir, config)
        settings.check_batches(mesh.size)
        mixture = open_mixture(settings.data)
        logging.info("data:\n%s", mixture.describe())
        if settings.eval_interval:
            mixture.split("validation")  # opened, or refused, before anything is spent
        distributed.check_same(
            "datasets", mixture.rows(settings.eval_interval > 0), "Compare the tables that both logged, and the copies in data.data_dir."
        )

        method = tuned(settings.make_method(mixture.specs, mixture.statistics, mixture.manifest()), settings.optimizer)
        if unread := unread_mcmc(settings.method, settings.mcmc):
            logging.warning("method %s does not read %s: it decides nothing in this run.", settings.method["name"], ", ".join(unread))
        optimizer = make_optimizer(settings.optimizer, settings.num_steps)
        example = mixture.example_batch(1)
        shapes = jax.eval_shape(lambda: init_state(method, optimizer, example, settings.seed))
        logging.info("model: %s in %s", trained_share(shapes.params, settings.optimizer), mesh)

        stack.enter_context(hold_workdir(workdir))
        checkpoints = stack.enter_context(
            Checkpoints(workdir / "checkpoints", keep=settings.keep_checkpoints, keep_every=settings.keep_every)
        )
        watchdog = stack.enter_context(
            Watchdog(watchdog_seconds, distributed.end, slow_seconds=watchdog_slow_seconds, in_flight=IN_FLIGHT, **hosts())
        )
        start = None
        if checkpoints.steps:
            mixture.check_manifest(checkpoints.assets(checkpoints.steps[-1])["datasets.json"].decode())
            state = restore(checkpoints, shapes, mesh)
            logging.info("resumed at step %d", int(state.step))
        else:
            # Before anything compiles: files are where mistakes are made.
            own = network(shapes.params, settings.optimizer)
            main = mixture.main.folder.name
            start = initialize.prepare(source, settings, mixture.specs, mixture.statistics, main, own) if source else None
            published = {name_prefix(settings.optimizer) + name: value for name, value in load_pretrained(settings.model, own).items()}
            initialize.check_frozen(settings, own, published, start)
            initialize.check_tuning(settings, own, published, start)
            state = with_values(sharded_init(method, optimizer, example, settings.seed, mesh), published)
            if start is not None:
                state = initialize.begin(state, start)
        first = int(state.step)
        train_step = make_train_step(method, optimizer, settings.optimizer, mesh, state, settings.augmentation)
        watch.rest("init")
        sample_steps = settings.sample_steps or method.sample_steps
        with watch.part("compile"):
            check_sampler(method, shapes.params, example.observation, sample_steps)
            traced = train_step.lower(state, batch_shapes(example, settings.batch_size, mesh))
            distributed.meet("checked")  # nothing is written before every process had its chance to refuse
            claim_workdir(workdir, config)
            if source is not None and start is not None:
                initialize.record(workdir, source, start, settings, mixture.specs, mixture.statistics)
            train_step = traced.compile()
            distributed.meet("compiled")
        parts = settings.optimizer.accumulate_steps
        validate = make_validate(method, sample_steps, mesh, mixture.specs.action, mixture.units, settings.seed, parts)
        batches = train_batches(mixture, settings, first)
        full_speed = samples_at_peak(settings, mixture.specs, jax.devices()[0].device_kind, mesh.size)
        steps = profiled(range(first + 1, settings.num_steps + 1), profile, workdir / "profile", watchdog.slow)
        pending: list[Any] = []
        requested.at_once = False
        logged = first
        with MetricsLog(workdir, first, silent=jax.process_index() > 0) as log:
            for step in progress(steps, settings.num_steps - first, "training"):
                watchdog.update(step)
                asked = time.perf_counter()
                batch = next(batches)
                watch.add("data" if out_of_work(pending) else "step", time.perf_counter() - asked)
                with watch.part("step"):
                    state, metrics = train_step(state, to_devices(batch, mesh))
                    pending.append(metrics)
                    jax.block_until_ready(pending[-1 - IN_FLIGHT : -IN_FLIGHT])
                last, stopping = step == settings.num_steps, distributed.agree_to_stop(requested, step)
                validating = due(step, settings.eval_interval) or (last and settings.eval_interval > 0)
                logging_now = due(step, settings.log_interval) or validating or last
                looking = logging_now or due(step, settings.log_interval or LOOK_INTERVAL)
                if looking or due(step, settings.save_interval) or stopping:
                    with watch.part("step"):
                        pending = jax.device_get(pending)
                    finite = flush(log, step, pending, step - logged if logging_now else 0, watch, settings.batch_size, full_speed)
                    pending, logged = ([] if looking else pending), (step if logging_now else logged)
                    checkpoints.check()
                    if finite is not None:
                        watchdog.slow("checkpoint")  # a save may be under way
                        checkpoints.wait()
                        raise FloatingPointError(
                            f"loss and gradient must stay finite, got NaN or infinity at step {finite}. The last good checkpoint is "
                            f"{checkpoints.steps[-1:] or 'none'}; lower optimizer.learning_rate or mcmc.step_size and start from it."
                        )
                if mixture.faults is not None and logging_now:
                    log.write(step, {"data/replaced_windows": mixture.faults.total})
                if due(step, settings.save_interval) or last or stopping:
                    watchdog.slow("checkpoint")
                    check_workdir(workdir)
                    with watch.part("checkpoint"):
                        log.sync()
                        save(checkpoints, state, checkpoint_assets(config, mixture, step))
                if validating:  # after saving: it may fail, or take long
                    watchdog.slow("validation")
                    with watch.part("validation"):
                        log.write(step, validate(state.ema_params, itertools.islice(held_out(mixture, settings), settings.eval_batches)))
                if stopping and not last:
                    checkpoints.wait()
                    raise Interrupted(f"saved step {step} of {settings.num_steps} in {workdir}; start the same command again to go on")
        checkpoints.wait()
    return state


def out_of_work(pending: list[Any]) -> bool:
    """Whether the devices have done all that they were given: then whoever waits for a batch keeps them waiting."""
    newest = jax.tree.leaves(pending[-1:])
    return all(leaf.is_ready() for leaf in newest if hasattr(leaf, "is_ready"))  # fetched ones are numbers


def due(step: int, interval: int) -> bool:
    """Whether something done every `interval` steps (0: never) is done after this one."""
    return interval > 0 and step % interval == 0


def hosts() -> dict[str, int]:
    return {"process_index": jax.process_index(), "process_count": jax.process_count()}


def train_batches(mixture: Mixture, settings: Settings, start_step: int) -> Iterator[Batch]:
    """This host's rows of batch `start_step`, `start_step` + 1, ..."""
    return iter(make_loader(mixture, "train", batch_size=settings.batch_size, seed=settings.seed, start_step=start_step, **hosts()))


def held_out(mixture: Mixture, settings: Settings) -> Iterator[tuple[Batch, Int[np.ndarray, " b"]]]:
    """This host's rows of every held-out batch, and the datasets that they are of."""
    same = {"batch_size": settings.batch_size, "seed": settings.seed, **hosts()}
    return zip(make_loader(mixture, "validation", **same), whose(mixture, **same), strict=True)


def flush(
    log: MetricsLog, step: int, fetched: list[Any], updates: int, watch: Stopwatch, batch_size: int, full_speed: float | None
) -> int | None:
    """Logs the newest of the fetched metrics, and their mean; returns the first step that was not finite, if any.

    Rates are of training itself: updates over the seconds that they and the wait for their batches took. Opening, compiling, looking at
    held-out data and saving have shares of their own (time/NAME), and goodput counts them all.

    Args:
      updates: those since the last line; 0 writes none.
    """
    first = step - len(fetched) + 1
    for number, metrics in enumerate(fetched):
        if not np.isfinite([metrics["loss"], metrics["gradient_norm"]]).all():
            return first + number
    if updates:
        wall, parts = watch.take()
        values = {name: float(value) for name, value in fetched[-1].items()}
        values["loss_mean"] = float(np.mean([metrics["loss"] for metrics in fetched]))
        updates_per_second = updates / (parts["step"] + parts.get("data", 0.0))
        values |= {"updates_per_second": updates_per_second, "samples_per_second": batch_size * updates_per_second}
        if full_speed is not None:
            values["mfu"] = batch_size * updates_per_second / full_speed
        log.write(step, {**values, **log.goodput(wall, parts)})
    return None

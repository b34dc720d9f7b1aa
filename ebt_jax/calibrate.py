"""Calibrates a run's doubt on episodes that it did not learn from, so that it can abstain at a chosen rate of false alarms.

  python -m ebt_jax.calibrate --policy=RUN                                        on the episodes that the run held out of its main dataset
  python -m ebt_jax.calibrate --policy=RUN --data_dir=FOLDER --dataset=NAME       on the training split of a dataset of another name
  python -m ebt_jax.calibrate --policy=RUN --evaluation=DIR                       on the successes of `evaluate --doubt --output=DIR`

The first two promise something about demonstrations, the third about the policy's own successes: calibrate on what the alarm will see.
The third takes the number of starts, the reference chunks and the temperature from the evaluation, which took them from the policy.
Writes calibration.json into the newest checkpoint (or the step that --policy names), from where `export` takes it along. The last line is
the threshold.
"""

import json
import pathlib

from absl import flags, logging

from ebt_jax import cli

_POLICY = flags.DEFINE_string("policy", None, "A workdir, its checkpoints, or one step of them.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", "", "The folder that holds another dataset.")
_DATASET = flags.DEFINE_string("dataset", "", "Its name.")
_EVALUATION = flags.DEFINE_string("evaluation", "", "Folder of results.json, written by `evaluate --doubt`.")
_STATISTIC = flags.DEFINE_string("statistic", "", "What `Policy.abstain` goes by; action_spread where empty.")
_RISK = flags.DEFINE_float("risk", 0.1, "Of the threshold to print; any other can be asked for later.", lower_bound=0.0)
_NUM_STARTS = flags.DEFINE_integer("num_starts", 4, "Descents of each observation.", lower_bound=1)
_REFERENCES = flags.DEFINE_integer("references", 32, "Chunks of the training data for relative_energy.", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "T of relative_energy, in units of the energy.", lower_bound=1e-6)
_SEED = flags.DEFINE_integer("seed", 0, "Draws the reference chunks and the policy's noise.", lower_bound=0)


def main() -> None:
    """Loads, measures, writes, prints."""
    from ebt_jax.calibration import DEFAULT_STATISTIC, Calibration, DoubtSettings, check_enough, episode_scores, episodes_needed
    from ebt_jax.data.mixture import open_mixture
    from ebt_jax.evaluation.audit import reference_chunks
    from ebt_jax.evaluation.calibrating import demonstrated, find_step, measured_with, rolled_out, run_settings, write_calibration
    from ebt_jax.evaluation.open_loop import check_same, open_dataset
    from ebt_jax.loading import load
    from ebt_jax.uncertainty import Doubt

    if _STATISTIC.value and _STATISTIC.value not in Doubt._fields:
        raise flags.ValidationError(f"--statistic must be one of {', '.join(Doubt._fields)}, got {_STATISTIC.value}.")
    with cli.wrong_usage("--"):
        episodes_needed(_RISK.value)
    given = [flag.name for flag in (_NUM_STARTS, _REFERENCES, _TEMPERATURE, _SEED) if flag.present]
    if _EVALUATION.value and given:
        raise flags.ValidationError(f"--{' and --'.join(given)} must not go with --evaluation, which has measured already. Leave them out.")
    if bool(_DATA_DIR.value) != bool(_DATASET.value) or (_DATASET.value and _EVALUATION.value):
        raise flags.ValidationError("--data_dir and --dataset must be given together, and not beside --evaluation.")
    step = find_step(_POLICY.value)
    policy = load(str(step))
    if _EVALUATION.value:
        results = json.loads((pathlib.Path(_EVALUATION.value) / "results.json").read_text())
        courses, episodes = rolled_out(results, policy.identity.sha256), f"successes of {_EVALUATION.value}"
        settings = measured_with(results, policy)
        if not results["asking"]["doubt"]["references_sha256"]:
            logging.warning("relative_energy is left out: calibrate on demonstrations before `evaluate --doubt` to have reference chunks.")
    else:
        if _DATASET.value and policy.experiment and _DATASET.value in policy.experiment.datasets:
            raise flags.ValidationError(
                f"--dataset must be one that the run did not learn from, got {_DATASET.value}. Without --data_dir and --dataset it is the "
                "episodes that the run held out."
            )
        if policy.experiment and policy.experiment.init_from:
            logging.warning(
                "the run started from %s: the rate of false alarms holds where that has not learnt from these episodes either.",
                policy.experiment.init_from,
            )
        own = open_mixture(run_settings(step).data)
        if len(own.datasets) > 1:
            logging.info("of %d datasets %s calibrates, in whose numbers the policy acts", len(own.datasets), own.main.folder.name)
        own = own.alone
        if not _DATASET.value:
            check_same(policy, own)
        settings = DoubtSettings(_NUM_STARTS.value, reference_chunks(own, _REFERENCES.value, _SEED.value), _TEMPERATURE.value)
        mixture = open_dataset(policy, _DATA_DIR.value, _DATASET.value) if _DATASET.value else own
        split = "train" if _DATASET.value else "validation"
        check_enough(_RISK.value, sum(len(part.episodes) for part in mixture.split(split)))  # before hours of measuring
        courses = demonstrated(policy, mixture, split, settings, seed=_SEED.value, progress=cli.progress)
        episodes = f"of the training split of {_DATASET.value}" if _DATASET.value else "held out of training"
        if policy.experiment and policy.experiment.init_from:
            episodes += f" (but the run started from {policy.experiment.init_from}, which may have learnt from them)"
    calibration = Calibration(
        statistic=_STATISTIC.value or DEFAULT_STATISTIC,
        num_starts=settings.num_starts,
        temperature=settings.temperature,
        episodes=episodes,
        scores=episode_scores(courses),
        references=settings.references,
    )
    rule = calibration.rule(_RISK.value)  # before anything is written: too few episodes are no calibration
    logging.info("wrote %s", write_calibration(step, calibration.to_json()))
    print(
        f"abstain where {rule.statistic} > {rule.threshold:.4g}: risk {_RISK.value:g} of a false alarm, {len(courses)} episodes {episodes}"
    )


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

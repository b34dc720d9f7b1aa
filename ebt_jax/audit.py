"""Ranks the chunks and episodes of a dataset by how badly they fit what a policy has learnt: the likely mislabelled or failed ones first.

  python -m ebt_jax.audit --policy=PATH --data_dir=FOLDER --dataset=NAME --output=DIR [--statistic=above_answer] [--every=4]

PATH is a run or an exported artifact whose method has an energy; any RLDS folder that its specs fit will do. A dataset that the run learnt
from is split as there: --split=validation audits what the run held out, of a dataset of another name --split=train is all but its own
validation split. Writes DIR/energies.csv, one line a chunk, and DIR/report.html. The last line says whose episodes these are and names the
first. What the statistics are: docs/doubt.md.
"""

import pathlib

from absl import flags, logging

from ebt_jax import cli

STATISTICS = ("relative_energy", "rank", "above_answer", "gradient_norm", "energy")

_POLICY = flags.DEFINE_string("policy", None, "A workdir, its checkpoints, one step of them, or an artifact.", required=True)
_DATA_DIR = flags.DEFINE_string("data_dir", None, "The folder that holds the dataset.", required=True)
_DATASET = flags.DEFINE_string("dataset", None, "Its name.", required=True)
_OUTPUT = flags.DEFINE_string("output", None, "Folder for energies.csv and report.html.", required=True)
_SPLIT = flags.DEFINE_enum("split", "train", ["train", "validation"], "Episodes that the policy's run trained on, or held out.")
_STATISTIC = flags.DEFINE_enum("statistic", "above_answer", STATISTICS, "What to rank by; higher fits worse. All are written.")
_EVERY = flags.DEFINE_integer("every", 1, "Score the chunk that begins at every so-manyth step.", lower_bound=1)
_REFERENCES = flags.DEFINE_integer("references", 64, "Chunks of the dataset that the others are held against.", lower_bound=1)
_TEMPERATURE = flags.DEFINE_float("temperature", 1.0, "T of relative_energy, in units of the energy.", lower_bound=1e-6)
_SEED = flags.DEFINE_integer("seed", 0, "Draws the reference chunks and the policy's noise.", lower_bound=0)
_TOP = flags.DEFINE_integer("top", 12, "Chunks to draw in the report.", lower_bound=1)
cli.on_disk("output")


def main() -> None:
    """Loads, scores, writes, prints."""
    import numpy as np

    from ebt_jax.evaluation.audit import audit, chunks, episode_means, make_scorer, reference_chunks, write_csv
    from ebt_jax.evaluation.open_loop import open_dataset, which_episodes
    from ebt_jax.loading import load
    from ebt_jax.report.audit import write_audit_report

    policy = load(_POLICY.value)
    mixture = open_dataset(policy, _DATA_DIR.value, _DATASET.value, as_trained=True)
    which = which_episodes(policy, _DATASET.value, _SPLIT.value)
    references = reference_chunks(mixture, _REFERENCES.value, _SEED.value)
    settings = {"every": _EVERY.value, "temperature": _TEMPERATURE.value, "seed": _SEED.value}
    found = audit(policy, mixture, _SPLIT.value, references, **settings, progress=cli.progress)
    output = pathlib.Path(_OUTPUT.value)
    values = getattr(found.fit, _STATISTIC.value)
    order = np.argsort(-np.nan_to_num(values, nan=np.inf), kind="stable")
    logging.info("wrote %s", write_csv(output / "energies.csv", found, order, _STATISTIC.value))
    top = order[: _TOP.value]
    batch = chunks(mixture, _SPLIT.value, found.number[top])
    keys = policy.sample_keys(_SEED.value, found.episode[top], found.step[top])
    answers = make_scorer(policy, references, _TEMPERATURE.value)(batch.observation, np.asarray(batch.actions), keys)[1]
    pictures = {name: np.asarray(frames)[:, -1] for name, frames in batch.observation.images.items()}
    means = episode_means(found, _STATISTIC.value)
    path = write_audit_report(
        output / "report.html",
        title=f"Audit of {_DATASET.value}",
        subtitle=f"{policy.identity.method} · step {policy.identity.step} · {_POLICY.value} · episodes {which}",
        statistic=_STATISTIC.value,
        values=values,
        means=means,
        episode=found.episode,
        step=found.step,
        names=found.names,
        instructions=found.instructions,
        top=top,
        demonstrated=np.asarray(batch.actions),
        answers=answers,
        dimensions=[dimension.name for dimension in policy.specs.action.dimensions],
        normalizer=policy.action_normalizer,
        pictures=next(iter(pictures.values()), None),
    )
    logging.info("wrote %s", path)
    first = int(np.nanargmax(means))
    worst = f"{found.names[first]} ({_STATISTIC.value} {means[first]:.4g})"
    print(f"{len(values)} chunks of {len(found.names)} episodes {which}; first: {worst}")


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

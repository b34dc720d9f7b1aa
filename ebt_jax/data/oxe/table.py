"""The tables as a page: python -m ebt_jax.data.oxe.table > docs/datasets.md."""

from ebt_jax.data.oxe import RECORDS
from ebt_jax.data.oxe.mixtures import MIXTURES
from ebt_jax.data.oxe.record import Record
from ebt_jax.data.oxe.sources import SOURCES

HEAD = """# Datasets of Open X-Embodiment

What `ebt_jax/data/oxe/` knows of the 69 datasets in the public bucket, and of BridgeData V2's own edition: written by
`python -m ebt_jax.data.oxe.table`, compared with the tables by a test, and the tables with the published features.

Facts come from public pages and code, each named in the last column; what none of them states is "unknown". Units are those
after conversion: where no source gives a scale, the dataset's own stay, and say "unknown". Nobody here has seen the records, Bridge's
apart: look at a dataset (gripper, pictures, instructions) before you trust it.
"""


def markdown() -> str:
    """The whole page."""
    usable = [record for record in RECORDS.values() if not record.not_for_control]
    refused = [record for record in RECORDS.values() if record.not_for_control]
    lines = [HEAD, f"## {len(usable)} for control", ""]
    lines += _table(
        ("dataset", "robot", "Hz", "action", "frame", "gripper as stored", "state", "cameras", "language", "sources"), map(_row, usable)
    )
    lines += ["", "## What to know before using them", ""]
    lines += [f"- **{record.name}**: {'; '.join(record.defects)}." for record in usable if record.defects]
    lines += ["", f"## {len(refused)} not for control", "", "A run that names one is refused with the reason.", ""]
    lines += _table(("dataset", "robot", "Hz", "stored action", "cameras", "why not", "sources"), map(_refused, refused))
    lines += ["", "## Mixtures by name", ""]
    lines += _table(("mixture", "datasets", "refused, and the mixture with them"), map(_mixture, MIXTURES))
    lines += ["", "## Sources", ""]
    lines += [f"- {name}: {meaning}" for name, meaning in SOURCES.items()]
    return "\n".join(lines) + "\n"


def _row(record: Record) -> tuple[str, ...]:
    kinds: dict[tuple[str, str], list[str]] = {}
    for dimension in record.action:
        kinds.setdefault((dimension.kind, dimension.unit), []).append(dimension.name)
    action = "; ".join(f"{kind} {' '.join(names)}" + (f" [{unit}]" if unit else "") for (kind, unit), names in kinds.items())
    return (
        f"{record.name} {record.version}",
        record.robot,
        _rate(record),
        action.replace("gripper gripper", "gripper"),
        record.frame,
        record.gripper,
        " ".join(dimension.name for dimension in record.proprio) or "none",
        _cameras(record),
        (record.language or "none")
        + (f" + {len(record.paraphrases)} wordings" if record.paraphrases else "")
        + (" + embedding" if record.embedding else ""),
        _sources(record),
    )


def _mixture(name: str) -> tuple[str, ...]:
    without = [dataset for dataset in MIXTURES[name] if RECORDS[dataset].not_for_control]
    return f"`{name}`", str(len(MIXTURES[name])), ", ".join(without)


def _refused(record: Record) -> tuple[str, ...]:
    stored = ", ".join(f"{feature} ({dtype})" for feature, dtype in record.action_features.items())
    name = f"{record.name} {record.version}"
    return name, record.robot, _rate(record), stored, _cameras(record), record.not_for_control, _sources(record)


def _rate(record: Record) -> str:
    return "unknown" if record.rate_hz is None else f"{record.rate_hz:g}"


def _cameras(record: Record) -> str:
    return (
        ", ".join(
            f"{camera}: {feature.removeprefix('observation/')} ({encoding})" for camera, (feature, encoding) in record.cameras.items()
        )
        or "none"
    )


def _sources(record: Record) -> str:
    return "; ".join(f"{fact}: {source}" for fact, source in record.sources.items() if fact != "features")


def _table(head, rows) -> list[str]:
    return [f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *rows)]


if __name__ == "__main__":
    print(markdown(), end="")

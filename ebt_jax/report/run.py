"""A workdir -> workdir/report.html: curves, descents, landscape, closed loop, configuration.

The report is made from files alone, so it can be made again at any time, by whoever adds something to the folder: training draws the
descent of a few validation samples into figures/, evaluation puts its results and videos beside them.
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

from ebt_jax.report.descents import DESCENT, LANDSCAPE
from ebt_jax.report.evaluation import evaluation_sections, headline, read_results
from ebt_jax.report.html import Section, figure, fold, table, write_page
from ebt_jax.report.plots import JOINT, readable, training_curves
from ebt_jax.tree import flatten


def write_run_report(workdir: str | os.PathLike[str]) -> pathlib.Path:
    """Makes workdir/report.html of whatever of metrics.jsonl, config.json, figures/ and evaluation/ is there.

    Raises FileNotFoundError where the folder is no workdir, that is, has neither metrics nor a configuration.
    """
    workdir = pathlib.Path(workdir)
    records, config = read_metrics(workdir / "metrics.jsonl"), _read_config(workdir / "config.json")
    if not records and not config:
        raise FileNotFoundError(f"{workdir} must hold metrics.jsonl or config.json, got neither. Train with --workdir={workdir} first.")
    sections = [*_curves(records), *_time(records), *_descent(workdir)]
    summary = _last_numbers(records)
    folders = [results.parent for results in sorted(workdir.glob("*/results.json"))]
    for folder in folders:
        of = f"{folder.name}: " if len(folders) > 1 else ""  # numbers of one are not those of another
        summary |= {f"{of}{name}": value for name, value in headline(read_results(folder)).items()}
        sections += [section._replace(title=f"{of}{section.title}") for section in evaluation_sections(folder)]
    if config:
        settings = [(name, json.dumps(value)) for name, value in flatten(config).items()]
        sections.append(Section("Configuration", "", [fold(f"{len(settings)} settings", table(("setting", "value"), settings))]))
    return write_page(workdir / "report.html", workdir.resolve().name, sections, _subtitle(config), summary)


def read_metrics(path: pathlib.Path) -> list[dict[str, Any]]:
    """The steps of metrics.jsonl, oldest first; a last line that a kill cut short is left out, of a number logged twice the last counts."""
    lines = path.read_text().splitlines() if path.is_file() else []
    records: dict[float, dict[str, Any]] = {}
    for number, line in enumerate(lines, start=1):
        try:
            record = json.loads(line)
            records.setdefault(record["step"], {}).update(record)
        except (json.JSONDecodeError, TypeError, KeyError) as error:
            if number < len(lines):
                raise ValueError(f"line {number} of {path} must be a JSON object with a step, got {line[:80]!r}.") from error
    return [records[step] for step in sorted(records)]


def _read_config(path: pathlib.Path) -> dict[str, Any]:
    return json.loads(path.read_text()) if path.is_file() else {}


def _subtitle(config: Mapping[str, Any]) -> str:
    settings = flatten(config)
    words = {
        "method.name": "{}",
        "model.variant": "{} model",
        "data.mixture": "{}",
        "num_steps": "{} updates",
        "batch_size": "batches of {}",
    }
    return " · ".join(words[name].format(settings[name]) for name in words if settings.get(name) not in (None, ""))


def _last_numbers(records: list[dict[str, Any]]) -> dict[str, Any]:
    """The last value of the step, the loss and what was measured on all of the held-out episodes."""
    last = {key: value for record in records for key, value in record.items()}
    names = ["step", "loss_mean" if "loss_mean" in last else "loss", "validation/loss", "validation/action_mse", "mfu", "goodput"]
    return {readable(name).removesuffix(" mean"): last[name] for name in names if name in last}


def _curves(records: list[dict[str, Any]]) -> list[Section]:
    """What was learned, and behind a click how it went: norms, speed, where the time was spent."""

    def panels(learned: bool) -> list[dict[str, Any]]:
        kept = [{key: record[key] for key in record if key == "step" or _is_learned(key) == learned} for record in records]
        return [record for record in kept if len(record) > 1]

    text = "Faint lines are single records, strong ones their running mean. Validation means episodes held out of training."
    blocks = [figure(training_curves(panels(True)), "")] if panels(True) else []
    blocks += [fold("norms, energies, speed", figure(training_curves(panels(False)), ""))] if panels(False) else []
    return [Section("Training", text, blocks)] if blocks else []


def _time(records: list[dict[str, Any]]) -> list[Section]:
    """Where the run's seconds went, over all its processes."""
    spent: dict[str, float] = {}
    for record in records:
        for name, share in record.items():
            if name.startswith("time/"):
                spent[name.removeprefix("time/")] = spent.get(name.removeprefix("time/"), 0.0) + share * record.get("seconds", 0.0)
    lost = sum(record.get("lost_seconds", 0.0) for record in records)
    total = sum(record.get("seconds", 0.0) for record in records) + lost
    if not total:
        return []
    spent |= {"undone by a kill": lost} if lost else {}
    spent["other"] = total - sum(spent.values())
    rows = [(name, seconds, 100 * seconds / total) for name, seconds in sorted(spent.items(), key=lambda part: -part[1])]
    text = f"{100 * spent.get('step', 0.0) / total:.1f} % of {total:,.0f} seconds went into updates that count."
    return [Section("Time", text, [fold("where it went", table(("part", "seconds", "share, %"), rows))])]


def _is_learned(key: str) -> bool:
    return key in ("loss", *JOINT) or key.startswith("validation/")


def _descent(workdir: pathlib.Path) -> list[Section]:
    if not (workdir / DESCENT).is_file():
        return []
    if not (workdir / LANDSCAPE).is_file():
        text = "This method has no energy. Distance of the sampled chunk to the demonstrated one, on held-out observations."
        return [Section("Sampling", "", [figure((workdir / DESCENT).read_text(), text)])]
    captions = {
        DESCENT: "Descents from noise on held-out observations. Energies are drawn relative to the returned chunk's: their level "
        "differs between observations without meaning anything.",
        LANDSCAPE: "The energy of one held-out observation on the plane through three chunks: the noise the descent started from, "
        "the chunk it returned, and what the demonstrator did. Distances between these three are true; the path between is "
        "projected. The colour scale follows the square root, so that the valley shows.",
    }
    blocks = [figure((workdir / name).read_text(), caption) for name, caption in captions.items()]
    return [Section("Minimising the energy", "", blocks)]

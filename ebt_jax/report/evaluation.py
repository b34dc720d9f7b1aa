"""DIR/results.json and the films that it names -> what a person wants to see of an evaluation."""

import collections
import json
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from markupsafe import Markup

from ebt_jax.report.html import Section, code, figure, fold, gallery, table, video, write_page
from ebt_jax.report.plots import readable, risk_coverage, success_rates

MOST_VIDEOS = 12
MOST_BYTES = 48 * 2**20
"""What a page carries; the other videos stay beside it in the folder."""


def write_evaluation_report(folder: str | os.PathLike[str]) -> pathlib.Path:
    """Makes `folder`/report.html from `folder`/results.json and the videos that it names; raises FileNotFoundError without results."""
    folder = pathlib.Path(folder)
    results = read_results(folder)
    policy = results.get("policy", {})
    about = [policy.get("method"), f"step {policy['step']}" if "step" in policy else None, policy.get("path")]
    return write_page(
        folder / "report.html",
        f"Evaluation on {results.get('suite', folder.name)}",
        evaluation_sections(folder),
        subtitle=" · ".join(str(word) for word in about if word),
        summary=headline(results),
    )


def read_results(folder: pathlib.Path) -> dict[str, Any]:
    """results.json of an evaluation; FileNotFoundError or ValueError names the file."""
    path = folder / "results.json"
    if not path.is_file():
        raise FileNotFoundError(f"{path} must exist. Run `python -m ebt_jax.evaluate --output={folder}` first.")
    try:
        return json.loads(path.read_text())
    except json.JSONDecodeError as error:
        raise ValueError(f"{path} must be JSON, got a fault at {error}. Evaluate again.") from error


def headline(results: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers an evaluation is run for, those of them it has."""
    tasks = results.get("tasks", {}).values()
    rate = results.get("mean_success_rate")
    relative = [task["relative_mse"] for task in tasks if "relative_mse" in task]
    values = {
        "success rate": f"{100 * rate:.1f} %" if rate is not None else None,
        "squared error, of the mean action's": f"{100 * sum(relative) / len(relative):.1f} %" if relative else None,
        "masked cameras": ", ".join(results.get("masked_cameras", [])) or None,
        "disturbed by": _disturbance(results.get("disturbance", {})),
        "disturbed episodes": _disturbed(tasks),
        "episodes": sum(task.get("episodes", 0) for task in tasks) or None,
        "could not go on": _stopped(tasks),
        "sampler steps": results.get("sample_steps", {}).get("mean"),
        "ms a batch (median)": results.get("latency_ms", {}).get("total", {}).get("p50"),
    }
    return {name: value for name, value in values.items() if value is not None}


def _stopped(tasks: Iterable[Mapping[str, Any]]) -> str | None:
    """Episodes that ended because of the policy's answer or the simulator, by reason; None without."""
    counts = collections.Counter()
    for task in tasks:
        counts.update(task.get("failures", {}))
    return ", ".join(f"{count} ({readable(name)})" for name, count in sorted(counts.items())) or None


def _disturbed(tasks: Iterable[Mapping[str, Any]]) -> str | None:
    """Episodes that lasted until the disturbance, and those of them that succeeded; None where nothing is known of any."""
    found = [task["disturbed"] for task in tasks if "disturbed" in task]
    episodes, successes = (sum(one[name] for one in found) for name in ("episodes", "successes"))
    return f"{episodes} ({successes} succeeded)" if found else None


def _disturbance(settings: Mapping[str, Any]) -> str | None:
    """What goes wrong in every episode that lasts until then, in words; None where nothing does."""
    at = f" at step {settings['at']}" if settings.get("at") else " at the start"
    words = [
        f"a push of {settings['push']:g}{at}" if settings.get("push") else "",
        f"the gripper open for {settings['release']} steps{at}" if settings.get("release") else "",
        f"noise of {settings['noise']:g} standard deviations" if settings.get("noise") else "",
    ]
    return ", ".join(filter(None, words)) or None


def evaluation_sections(folder: pathlib.Path) -> list[Section]:
    """Success or error, how it looks, how it was measured."""
    results = read_results(folder)
    tasks = results.get("tasks", {})
    closed = {name: task for name, task in tasks.items() if "success_rate" in task}
    opened = {name: task for name, task in tasks.items() if "relative_mse" in task}
    films = _films(folder, results.get("videos", []))
    return [
        *([_closed_loop(closed)] if closed else []),
        *(_doubt(name, task["doubt"]) for name, task in closed.items() if task.get("doubt", {}).get("statistics")),
        *([Section("Rollouts", "", [gallery(films)])] if films else []),
        *([_open_loop(opened)] if opened else []),
        Section("How it was measured", "", _conditions(results)),
    ]


def _closed_loop(tasks: Mapping[str, Any]) -> Section:
    caption = "Dots are success rates, bars 95 % Wilson intervals: what this many episodes of one network can tell."
    means = sorted({key for task in tasks.values() for key in task if key.startswith("mean_")})
    rows = []
    for name, task in tasks.items():
        low, high = task["wilson_95"]
        lengths = [episode["length"] for episode in task.get("episode", [])]
        rate, interval = f"{100 * task['success_rate']:.1f} %", f"{100 * low:.0f} to {100 * high:.0f} %"
        length = sum(lengths) / len(lengths) if lengths else None
        rows.append((name, task["episodes"], task["successes"], rate, interval, length, *map(task.get, means)))
    header = ("task", "episodes", "successes", "success rate", "95 % interval", "mean length", *map(readable, means))
    if _disturbed(tasks.values()):
        header = (*header, "disturbed")
        rows = [(*row, _disturbed([task])) for row, task in zip(rows, tasks.values(), strict=True)]
    if _stopped(tasks.values()):
        header = (*header, "could not go on")
        rows = [(*row, _stopped([task])) for row, task in zip(rows, tasks.values(), strict=True)]
    return Section("Closed loop", "Success from fixed initial states.", [figure(success_rates(tasks), caption), table(header, rows)])


def _doubt(name: str, found: Mapping[str, Any]) -> Section:
    text = (
        "Does doubt predict failure? AUROC: the chance that a failed episode's highest value exceeds a successful one's; 0.5 is a coin, "
        "below it the number points the other way. Failures last longer, which alone lifts the whole episode's: believe the first "
        f"{found['decisions']} decisions, as many as the shortest episode has. The curve: failures among the episodes acted in, the least "
        "doubtful first."
    )
    header = ("statistic", "AUROC, first decisions", "AUROC, whole episode", "mean risk")
    rows = [(readable(key), one["auroc_beginning"], one["auroc"], one["aurc"]) for key, one in found["statistics"].items()]
    caption = f"Dashed: acting in all episodes that could go on, {100 * found['failure_rate']:.0f} % failures."
    return Section(
        f"Doubt in {name}", text, [figure(risk_coverage(found["statistics"], found["failure_rate"]), caption), table(header, rows)]
    )


def _open_loop(tasks: Mapping[str, Any]) -> Section:
    text = (
        "How far the policy's chunks are from the demonstrator's, beside always acting the mean action. Root mean square, each dimension "
        "in its own unit. This finds faults; it does not rank policies in closed loop."
    )
    learnt = {True: "trained on", False: "not trained on", None: "not known whether trained on"}
    header = ("dataset", "episodes", "dimension", "chunk", "first action", "mean action")
    rows = [
        (
            name,
            learnt[task.get("trained_on")],
            dimension,
            task["rmse"][dimension],
            task["first_rmse"][dimension],
            task["mean_action_rmse"][dimension],
        )
        for name, task in tasks.items()
        for dimension in task["rmse"]
    ]
    return Section("Open loop", text, [table(header, rows)])


def _films(folder: pathlib.Path, names: Sequence[str]) -> list[Markup]:
    """The videos of these names that are still in `folder`, up to the limits; others there are of another evaluation."""
    films, room = [], MOST_BYTES
    for name in names:
        path = folder / name
        if not path.is_file():
            continue
        room -= path.stat().st_size
        if len(films) == MOST_VIDEOS or room < 0:
            break
        films.append(video(path, f"{path.parent.name} {path.stem}"))
    return films


def _conditions(results: Mapping[str, Any]) -> list[Markup]:
    """Steps, latency, hardware, versions, command: what is needed to believe the numbers or to repeat them."""
    blocks = []
    for machine in results.get("machines", [results]):
        stages = machine.get("latency_ms", {})
        if stages:
            percentiles = sorted({key for stage in stages.values() for key in stage})
            rows = [(readable(name), *(stage.get(key) for key in percentiles)) for name, stage in stages.items()]
            of = f", workers {', '.join(map(str, machine['workers']))}" if "workers" in machine else ""
            blocks.append(table((f"latency of a batch of {results.get('batch_size', 'all')}, ms{of}", *percentiles), rows))
    keys = ("seed", "execution_horizon", "split", "git", "sources", "renderer", "mixed_hardware")
    facts = {key: results[key] for key in keys if key in results}
    facts |= {f"sample_steps/{key}": value for key, value in results.get("sample_steps", {}).items()}
    facts |= {f"policy/{key}": value for key, value in results.get("policy", {}).items()}
    hardware = results.get("hardware", {})
    several = {f"worker {i}": one for i, one in enumerate(hardware)} if isinstance(hardware, list) else {"hardware": hardware}
    for key, value in {**several, "versions": results.get("versions", {})}.items():
        facts |= {f"{key}/{name}": part for name, part in value.items()} if isinstance(value, Mapping) else {key: value}
    rows = [(readable(name), str(value)) for name, value in facts.items()]
    blocks.append(fold("settings, versions, hardware", table(("", "value"), rows)))
    if "command" in results:
        command = results["command"]
        blocks.append(code(command if isinstance(command, str) else "\n".join(command)))
    return blocks

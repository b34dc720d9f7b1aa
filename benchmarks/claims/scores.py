"""What contestants reach and what an answer costs, across tasks: by score and other measures, steps, budget, and when things go wrong."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.claims.cells import Cell
from benchmarks.claims.claims import HEADLINE, Claim, Place
from benchmarks.claims.finished import Finished, column, has_column, largest, places, planned, trainings
from benchmarks.claims.pairs import pair
from benchmarks.claims.settings import Answer, Contestant, Settings, Suite
from benchmarks.claims.statistics import pooled_interval
from benchmarks.claims.tables import broken, kind, label, row, steps_taken

Trained = list[tuple[Cell, dict[str, Any]]]

MEASURES = {"success": "success", "final_coverage": "final coverage"}
"""PushT's other scores: column -> words."""


def complete(settings: Settings, finished: Finished, scale: str) -> list[Place]:
    """The places without a missing cell."""
    missing = {(cell.suite, cell.budget) for cell in finished.missing}
    return [place for place in places(settings, finished, scale) if place not in missing]


def headline(settings: Settings, finished: Finished, scale: str, timing: Mapping[str, Any]) -> str:
    """Mean score (lowest and highest training) by task, at the largest budget that is complete; price of a chunk.

    Args:
      timing: of an idle machine (`store.read_timing`), whose suite the price is of; where {}, the first task's cells say it.
    """
    shown = largest(complete(settings, finished, scale))
    if not shown:
        return "No task is complete yet."
    priced = f" ({timing.get('suite', shown[0][0])})" if len(dict(shown)) > 1 else ""
    header = ("policy, steps", *_columns(shown, " core-minutes"), f"MFLOP a chunk{priced}", f"ms, batch 1{priced}", f"ms, batch 32{priced}")
    lines = _table(header)
    for answer in _headline_answers(settings, scale):
        found = {place: _asked(settings, finished, place, answer) for place in shown}
        quiet = timing.get("contestants", {}).get(answer.contestant, {}).get(answer.sampler)
        timed = [one for _, tree in found[shown[0]] if "latency_ms" in (one := tree["samplers"].get(answer.sampler, {}))]
        timed = [quiet] if quiet else timed
        milliseconds = (f"{np.median([one['latency_ms'][size]['p50'] for one in timed]):.1f}" if timed else "" for size in ("1", "32"))
        operations = f"{timed[0]['chunk_flops'] / 1e6:.1f}" if timed else ""
        lines.append(
            row(_named(settings, answer), *(_scores(settings, mine, answer) for mine in found.values()), operations, *milliseconds)
        )
    return "\n".join(lines)


def load(finished: Finished) -> str:
    """What else kept the machine busy while latencies were taken, in words; "" where no cell says so."""
    loads = [tree["hardware"]["load"] for tree in finished.cells.values() if "load" in tree["hardware"]]
    cores = {tree["hardware"]["cores"] for tree in finished.cells.values()}
    if not loads:
        return ""
    return f"{min(loads):.0f} to {max(loads):.0f} on {'/'.join(map(str, sorted(cores)))} cores"


def measures_table(settings: Settings, finished: Finished, scale: str) -> str:
    """Means over trainings of PushT's success and final coverage, and of jitter everywhere, at the largest complete budgets."""
    shown = [
        (place, name)
        for place in largest(complete(settings, finished, scale))
        for name in (*(MEASURES if _told(finished, place, "final_coverage") else ()), "jitter")
        if _told(finished, place, name)
    ]
    if not shown:
        return ""
    lines = _table(("policy, steps", *(f"{suite}, {budget}: {MEASURES.get(name, name)}" for (suite, budget), name in shown)))
    for answer in _headline_answers(settings, scale):
        cells = []
        for place, name in shown:
            mine = [
                one for one in _asked(settings, finished, place, answer) if name in MEASURES or has_column(one[1], answer.sampler, name)
            ]
            values = [np.mean(column(settings, cell, tree, answer.sampler, name)) for cell, tree in mine]
            cells.append(f"{np.mean(values):.{2 if name in MEASURES else 3}f}" if values else "")
        lines.append(row(_named(settings, answer), *cells))
    return "\n".join(lines)


def other_differences(settings: Settings, finished: Finished, scale: str, claim: Claim) -> str:
    """The claim's comparisons by PushT's other measures, at its largest complete budget: difference and interval, no verdict."""
    shown = [place for place in largest(complete(settings, finished, scale)) if all(_told(finished, place, name) for name in MEASURES)]
    if not shown:
        return ""
    known = settings.contestants_of(scale)
    lines = _table(
        ("subject", "reference", *(f"{suite}, {budget}: {words}" for suite, budget in shown for words in ("score", *MEASURES.values())))
    )
    for names in claim.comparisons:
        subject, reference = map(Answer.parse, names)
        if subject.contestant in known and reference.contestant in known:
            found = [pair(settings, finished, scale, *place, subject, reference, name) for place in shown for name in ("score", *MEASURES)]
            lines.append(row(*names, *(one.interval or "" for one in found)))
    return "\n".join(lines)


def steps_table(settings: Settings, finished: Finished, scale: str, place: Place) -> str:
    """Mean score of every contestant by the steps of its sampler, and of answers that rest by themselves with the steps they took."""
    contestants = settings.contestants_of(scale)
    fixed = {name: {one.num_steps: key for key, one in c.samplers.items() if not one.stopping} for name, c in contestants.items()}
    resting = {name: [key for key, one in c.samplers.items() if one.stopping] for name, c in contestants.items()}
    counts = sorted({steps for samplers in fixed.values() for steps in samplers})
    lines = _table(("contestant", *counts, "rests by itself"))
    for name, contestant in contestants.items():
        several = len({kind(key) for key in fixed[name].values()}) > 1

        def mean(sampler: str, name: str = name, several: bool = several) -> str:
            answer = Answer(name, sampler)
            scores = [column(settings, *one, sampler, "score").mean() for one in _asked(settings, finished, place, answer)]
            return f"{np.mean(scores):.2f}{f' ({kind(sampler)})' if several else ''}" if scores else ""

        cells = [mean(fixed[name][steps]) if steps in fixed[name] else "" for steps in counts]
        by_itself = [
            f"{mean(key)} in {steps_taken(key, contestant.samplers[key], [tree for _, tree in mine]).partition(' ')[0]}"
            for key in resting[name]
            if (mine := _asked(settings, finished, place, Answer(name, key)))
        ]
        if any(cells):
            lines.append(row(f"`{name}`", *cells, "; ".join(by_itself)))
    return "\n".join(lines)


def budgets_table(settings: Settings, finished: Finished, scale: str) -> str:
    """Mean score of each contestant's first sampler by budget, with its updates, where a task has two complete budgets; "" elsewhere."""
    done = complete(settings, finished, scale)
    shown = [(suite, budget) for suite, budget in done if sum(one == suite for one, _ in done) > 1]
    if not shown:
        return ""
    lines = _table(("policy, steps", *(f"{suite}, {budget}: {what}" for suite, budget in shown for what in ("score", "updates"))))
    for name, contestant in settings.contestants_of(scale).items():
        answer = Answer(name, contestant.first)
        cells = []
        for place in shown:
            mine = _asked(settings, finished, place, answer)
            stages = [stage["updates"] for stage in (mine[0][1].get("pretraining"), mine[0][1]) if stage]
            cells += [_scores(settings, mine, answer), " + ".join(f"{count:,}" for count in stages)]
        lines.append(row(_named(settings, answer), *cells))
    return "\n".join(lines)


def disturbed_tables(settings: Settings, finished: Finished, scale: str) -> str:
    """A table a condition: score of each contestant's first sampler under it, and what the condition changed where both count alike."""
    suites = settings.scale(scale).suites
    sections = []
    for condition in dict.fromkeys(name for suite in suites.values() for name in suite.conditions):
        where = [place for place in places(settings, finished, scale) if condition in suites[place[0]].conditions]
        rows = []
        for name, contestant in settings.contestants_of(scale).items():
            cells = [_disturbed(settings, finished, scale, place, name, contestant, condition) for place in where]
            if any(cells):
                rows.append(row(_named(settings, Answer(name, contestant.first)), *cells))
        if rows:
            sections.append("\n".join([f"{condition.capitalize()}:", "", *_table(("policy, steps", *_columns(where))), *rows]))
    return "\n\n".join(sections)


def _disturbed(settings: Settings, finished: Finished, scale: str, place: Place, name: str, contestant: Contestant, condition: str) -> str:
    """ "0.61 (0.13 [0.03, 0.22])", or without what changed where the push starts the score anew."""
    suite = settings.scale(scale).suites[place[0]]
    asked = {contestant.first: contestant.samplers[contestant.first], **contestant.disturbed({condition: suite.conditions[condition]})}
    mine = trainings(finished, *place, name, asked)
    if not mine:
        return ""
    plain, wrong = ([column(settings, cell, tree, sampler, "score") for cell, tree in mine] for sampler in asked)
    count = planned(finished, *place)
    partly = "" if len(mine) == count else f" ({len(mine)} of {count} trainings)"
    mean = f"{np.mean([one.mean() for one in wrong]):.2f}"
    if len(mine) == 1 or not starts_as_ever(suite, condition):
        return mean + partly
    change = pooled_interval([[one - other for one, other in zip(wrong, plain, strict=True)]])
    return f"{mean} ({change}){partly}"


def starts_as_ever(suite: Suite, condition: str) -> bool:
    """Whether the score under the condition is of the same thing as without; a push on PushT starts it anew."""
    return condition in suite.conditions and not (suite.simulator == "pusht" and suite.conditions[condition].push)


def _headline_answers(settings: Settings, scale: str) -> Iterable[Answer]:
    return [answer for answer in map(Answer.parse, HEADLINE) if answer.contestant in settings.contestants_of(scale)]


def _asked(settings: Settings, finished: Finished, place: Place, answer: Answer) -> Trained:
    """The trainings at the place that were asked for this answer."""
    return trainings(
        finished, *place, answer.contestant, {answer.sampler: settings.contestants[answer.contestant].samplers[answer.sampler]}
    )


def _scores(settings: Settings, mine: Trained, answer: Answer) -> str:
    """ "0.71 (0.70 to 0.72)", and what of it was not finite."""
    if not mine:
        return ""
    scores = [float(column(settings, cell, tree, answer.sampler, "score").mean()) for cell, tree in mine]
    faults = dict.fromkeys(filter(None, (broken(tree, answer.sampler) for _, tree in mine)))
    return f"{np.mean(scores):.2f} ({min(scores):.2f} to {max(scores):.2f}){''.join(faults)}"


def _told(finished: Finished, place: Place, name: str) -> bool:
    """Whether any sampler at the place has the column."""
    trees = [tree for cell, tree in finished.cells.items() if (cell.suite, cell.budget) == place]
    return any(name in found["episodes"] for tree in trees for found in tree["samplers"].values())


def _named(settings: Settings, answer: Answer) -> str:
    return f"`{answer.contestant}`, {label(answer.sampler, settings.contestants[answer.contestant].samplers[answer.sampler].num_steps)}"


def _columns(where: Iterable[Place], unit: str = "") -> list[str]:
    return [f"{suite}, {budget}{unit}" for suite, budget in where]


def _table(header: Sequence[object]) -> list[str]:
    return [row(*header), row(*["---"] * len(header))]

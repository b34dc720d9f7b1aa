"""What finished cells say, as markdown: scores with intervals and every seed, verdicts on the settings' comparisons, what is missing."""

import collections
import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from benchmarks.claims.finished import Finished, column, has_column, largest, places, trainings
from benchmarks.claims.pairs import grand_mean, pair, pool
from benchmarks.claims.provenance import disagreements, provenance
from benchmarks.claims.settings import BEST, Sampler, Settings
from benchmarks.claims.statistics import mean_interval, single_network
from ebt_jax.simulators.disturbance import Disturbance

COLUMNS = ("contestant", "steps", "score [95 %]", "each seed", "success", "final coverage", "jitter")
PRICES = ("updates", "training s", "MFLOP a chunk", "ms a chunk, batch 1", "batch 32")


def score_table(settings: Settings, finished: Finished, suite: str, budget: int) -> str:
    """A row for each contestant's sampler; only what is there."""
    lines = [row(*COLUMNS, *PRICES), row(*["---"] * len(COLUMNS + PRICES))]
    for name, contestant in settings.contestants.items():
        for sampler, asked in contestant.samplers.items():
            mine = trainings(finished, suite, budget, name, {sampler: asked})
            if not mine:
                continue
            values = [column(settings, cell, tree, sampler, "score") for cell, tree in mine]
            success = [column(settings, cell, tree, sampler, "success") for cell, tree in mine]
            rate = single_network(success[0].tolist()) if len(mine) == 1 else mean_interval(success)
            each = ", ".join(f"{value.mean():.2f}{broken(tree, sampler)}" for value, (_, tree) in zip(values, mine, strict=True))
            trees = [tree for _, tree in mine]
            steps = steps_taken(sampler, asked, trees)
            cells = (name, steps, mean_interval(values), each, rate, _mean(trees, sampler, "final_coverage"))
            lines.append(row(*cells, _mean(trees, sampler, "jitter", 3), *_prices(trees, sampler)))
    shown = [(c, t) for c, t in finished.cells.items() if (c.suite, c.budget) == (suite, budget)]
    unequal = disagreements((f"{cell.contestant}, seed {cell.seed}", provenance(tree)) for cell, tree in shown)
    return "\n".join([*lines, *(["", f"Not all of these cells came about alike: {'; '.join(unequal)}."] if unequal else [])])


def task_table(settings: Settings, finished: Finished, scale: str, suite: str, budget: int) -> str:
    """Mean score of each contestant's first sampler by task, over seeds; "" for a suite of one task."""
    tasks = settings.scale(scale).suites[suite].tasks
    if len(tasks) == 1:
        return ""
    lines = [row("contestant, steps", *tasks), row(*["---"] * (1 + len(tasks)))]
    for name, contestant in settings.contestants.items():
        first = contestant.samplers[contestant.first]
        mine = trainings(finished, suite, budget, name, {contestant.first: first})
        if mine:
            scores = np.mean([column(settings, cell, tree, contestant.first, "score") for cell, tree in mine], axis=0)
            means = scores.reshape(len(tasks), -1).mean(axis=1)
            lines.append(row(f"{name}, {label(contestant.first, first.num_steps)}", *(f"{value:.2f}" for value in means)))
    return "\n".join(["Mean score by task:", "", *lines])


def checkpoint_table(settings: Settings, finished: Finished, scale: str, suite: str, budget: int) -> str:
    """The last checkpoint's score beside the mean of the best ones', as published tables count; "" where no other was evaluated."""
    plan = settings.scale(scale).suites[suite]
    if plan.checkpoints == 1:
        return ""
    lines = [row("contestant, steps", "last checkpoint", f"mean of the {BEST} best of {plan.checkpoints}", "each seed"), row(*["---"] * 4)]
    for name, contestant in settings.contestants.items():
        for sampler, asked in contestant.samplers.items():
            trees = [tree for _, tree in trainings(finished, suite, budget, name, {sampler: asked})]
            if trees:
                scores = [_checkpoint_scores(tree, sampler) for tree in trees]
                best = [float(np.mean(sorted(one, reverse=True)[:BEST])) for one in scores]
                last = np.mean([one[-1] for one in scores])
                each = ", ".join(f"{value:.2f}{broken(tree, sampler)}" for value, tree in zip(best, trees, strict=True))
                lines.append(row(f"{name}, {steps_taken(sampler, asked, trees)}", f"{last:.2f}", f"{np.mean(best):.2f}", each))
    return "\n".join(["As published tables count, choosing checkpoints by the score that is told:", "", *lines])


def _checkpoint_scores(tree: Mapping[str, Any], sampler: str) -> list[float]:
    """In their order; a training that diverged scores 0."""
    return [0.0] if "diverged" in tree else [one["score"] for one in tree["samplers"][sampler]["checkpoints"]]


def sweep_table(settings: Settings, finished: Finished, suite: str, budget: int) -> str:
    """Contestants' sweeps, where one was run: mean score over seeds, and jitter, by steps and step size; "" where none was."""
    sections = []
    for name, contestant in settings.contestants.items():
        if (sweep := contestant.sweep) is None:
            continue
        trees = [tree for _, tree in trainings(finished, suite, budget, name, sweep.samplers) if "diverged" not in tree]
        if not trees:
            continue
        lines = [row(f"{name}, {len(trees)} seeds: steps", *(f"{sweep.key} {value}" for value in sweep.values))]
        lines += [row(*["---"] * (1 + len(sweep.values)))]
        for n in sweep.num_steps:
            shown = (
                (_mean(trees, sweep.sampler_name(n, v), "score"), _mean(trees, sweep.sampler_name(n, v), "jitter", 3)) for v in sweep.values
            )
            lines.append(row(n, *(f"{score} ({jitter})" for score, jitter in shown)))
        sections.append("\n".join(lines))
    return "\n\n".join(["Score (jitter) by steps and step size:", *sections]) if sections else ""


def disturbed_table(settings: Settings, finished: Finished, scale: str, suite: str, budget: int) -> str:
    """Score of each contestant's first sampler, as it is and under the suite's conditions; "" where none was run."""
    conditions = settings.scale(scale).suites[suite].conditions
    lines = [row("contestant, steps", "undisturbed", *conditions), row(*["---"] * (2 + len(conditions)))]
    rows = []
    for name, contestant in settings.contestants.items():
        names = {contestant.first: contestant.samplers[contestant.first], **contestant.disturbed(conditions)}
        mine = trainings(finished, suite, budget, name, names)
        if mine and conditions:
            scores = (mean_interval([column(settings, cell, tree, sampler, "score") for cell, tree in mine]) for sampler in names)
            rows.append(row(f"{name}, {label(contestant.first, contestant.samplers[contestant.first].num_steps)}", *scores))
    about = "; ".join(f"{name}: {_wrong(one)}" for name, one in conditions.items())
    return "\n".join([f"Under disturbance ({about}):", "", *lines, *rows]) if rows else ""


def _wrong(disturbance: Disturbance) -> str:
    return ", ".join(f"{key} {value:g}" for key, value in dataclasses.asdict(disturbance).items() if value)


def verdict_table(settings: Settings, finished: Finished, scale: str, suite: str, budget: int) -> str:
    """The comparisons of the settings, where both have trained the same seeds; a verdict where these are all that were planned."""
    lines = [row("subject", "reference", "difference in score [95 %]", "bootstrap", "each seed", "verdict"), row(*["---"] * 6)]
    for subject, reference in settings.comparisons:
        found = pair(settings, finished, scale, suite, budget, subject, reference)
        if not found.subject:
            continue
        each = ", ".join(f"{values.mean():+.2f}" for values in found.differences)
        mean, low, high = mean_interval(found.differences)
        shown = (found.interval or f"{mean:.2f}", f"[{low:.2f}, {high:.2f}]", each, found.said(settings.margin))
        lines.append(row(str(subject), str(reference), *shown))
    return "\n".join(lines)


def primary_table(settings: Settings, finished: Finished, scale: str) -> str:
    """The settings' primary comparisons over all suites of the phase, each at its largest budget; a verdict where no cell is missing.

    All of them hold at once with 95 %: each is told at 1 - 5 % / their number. Tasks that nobody, or everybody, can do are left out.
    """
    confidence = primary_confidence(settings)
    known = settings.contestants_of(scale)
    where = largest(places(settings, finished, scale))
    title = f"difference in score [{100 * confidence:.1f} %]"
    lines = [row("subject", "reference", *(f"{suite}, {budget}" for suite, budget in where), title, "verdict")]
    lines += [row(*["---"] * (4 + len(where)))]
    for subject, reference in settings.primary:
        if not {subject.contestant, reference.contestant} <= set(known):
            continue
        pairs = {suite: pair(settings, finished, scale, suite, budget, subject, reference) for suite, budget in where}
        difference, said = pool(pairs, settings.margin, confidence)
        each = (f"{grand_mean(found.differences):+.2f}" if found.subject else "" for found in pairs.values())
        lines.append(row(str(subject), str(reference), *each, difference or "", said))
    return "\n".join(lines)


def primary_confidence(settings: Settings) -> float:
    """At which each comparison over all tasks is told, so that the primary ones hold at once with 95 %."""
    return 1 - 0.05 / max(1, len(settings.primary))


def missing_table(finished: Finished) -> str:
    """Which cells are not there, in words."""
    if not finished.missing:
        return "No cell is missing."
    grouped = collections.defaultdict(lambda: collections.defaultdict(list))
    for cell in finished.missing:
        grouped[(cell.suite, cell.budget)][cell.contestant].append(str(cell.seed))
    total = len(finished.missing) + len(finished.cells)
    lines = [
        f"Missing: {len(finished.missing)} of {total} cells.",
        "",
        row("suite", "core-minutes", "contestants: seeds"),
        row(*["---"] * 3),
    ]
    for (suite, budget), contestants in grouped.items():
        alike = collections.defaultdict(list)
        for name, seeds in contestants.items():
            alike[", ".join(seeds)].append(name)
        words = (f"{', '.join(names)}: {seeds}" for seeds, names in alike.items())
        lines.append(row(suite, budget, "; ".join(words)))
    return "\n".join(lines)


def trial_table(settings: Settings, finished: Finished) -> str:
    """How often each contestant was tried in development: its different recipes on each suite and budget, the present one among them."""
    trials = collections.defaultdict(set)
    for cell, tree in [*finished.cells.items(), *finished.others]:
        trials[cell.suite, cell.budget, cell.contestant].add(tree["trial"])
    where = sorted({(suite, budget) for suite, budget, _ in trials})
    lines = [row("contestant", *(f"{suite}, {budget}" for suite, budget in where)), row(*["---"] * (1 + len(where)))]
    lines += [row(name, *(len(trials[(*place, name)]) for place in where)) for name in settings.contestants]
    unequal = [f"{suite}, {budget}" for suite, budget in where if len({len(trials[suite, budget, n]) for n in settings.contestants}) > 1]
    return "\n".join([*lines, *(["", f"Not every contestant was tried as often: {'; '.join(unequal)}."] if unequal else [])])


def label(sampler: str, steps: int) -> str:
    """ "10" or "10 (DDIM)"."""
    return f"{steps} ({kind(sampler)})" if kind(sampler) else str(steps)


def kind(sampler: str) -> str:
    """ "DDIM" of "ddim-10"; "" of "10"."""
    return sampler.rstrip("0123456789-").upper()


def steps_taken(sampler: str, asked: Sampler, trees: Sequence[Mapping[str, Any]]) -> str:
    """ "10", or, of one whose answers rest by themselves, "5.3 (ADAPTIVE, at most 10)": the mean over episodes of their decisions' mean."""
    if not asked.stopping:
        return label(sampler, asked.num_steps)
    return f"{_mean(trees, sampler, 'num_steps_mean', 1)} ({sampler.upper()}, at most {asked.num_steps})"


def broken(tree: Mapping[str, Any], sampler: str) -> str:
    """Why a 0 is one."""
    if "diverged" in tree:
        return " (diverged)"
    return " (not finite)" if "not_finite" in tree["samplers"][sampler] else ""


def _mean(trees: Sequence[Mapping[str, Any]], sampler: str, name: str, digits: int = 2) -> str:
    values = [np.mean(tree["samplers"][sampler]["episodes"][name]) for tree in trees if has_column(tree, sampler, name)]
    return f"{np.mean(values):.{digits}f}" if values else ""


def _prices(trees: Sequence[Mapping[str, Any]], sampler: str) -> list[str]:
    whole = [tree for tree in trees if "diverged" not in tree]
    seconds = [tree["training"]["update_seconds"] for tree in whole]
    found = [tree["samplers"][sampler] for tree in whole]
    timed = [one for one in found if "latency_ms" in one]
    milliseconds = [f"{np.median([one['latency_ms'][size]['p50'] for one in timed]):.2f}" if timed else "" for size in ("1", "32")]
    flops = f"{timed[0]['chunk_flops'] / 1e6:.2f}" if timed else ""
    updates = " + ".join(f"{stage['updates']:,}" for stage in (trees[0].get("pretraining"), trees[0]) if stage)
    return [updates, f"{np.mean(seconds):.0f}" if whole else "", flops, *milliseconds]


def row(*cells: object) -> str:
    """A line of a table."""
    return f"| {' | '.join(map(str, cells))} |"

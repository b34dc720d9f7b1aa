"""What finished cells say, as markdown: scores with intervals and every seed, verdicts on the settings' comparisons, what is missing."""

import collections
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Num

from benchmarks.claims.cells import Cell, enumerate_cells, initial_states
from benchmarks.claims.recipe import recipe
from benchmarks.claims.settings import Answer, Settings
from benchmarks.claims.statistics import mean_interval, paired_difference, single_network, verdict

COLUMNS = ("contestant", "steps", "score [95 %]", "each seed", "success", "final coverage", "jitter")
PRICES = ("updates", "training s", "MFLOP a chunk", "ms a chunk, batch 1", "batch 32")


class Finished(NamedTuple):
    """The cells of one phase and scale.

    Attributes:
      cells: those that were run from the settings as they are, with their JSON.
      others: of development, those that were run from other settings: trials.
      missing: planned and not there.
    """

    cells: dict[Cell, dict[str, Any]]
    others: list[tuple[Cell, dict[str, Any]]]
    missing: list[Cell]


def sort_out(settings: Settings, phase: str, scale: str, results: Iterable[tuple[Cell, dict[str, Any]]]) -> Finished:
    """Raises ValueError for a confirmation from more than one file of settings, or from another than this one."""
    planned = enumerate_cells(settings, phase, scale)
    trials = {cell: recipe(settings, cell).trial for cell in planned}
    cells, others = {}, []
    for cell, tree in results:
        if (cell.phase, cell.scale) != (phase, scale):
            continue
        if phase == "confirmation" and tree["settings_sha256"] != settings.sha256:
            raise ValueError(
                f"cells of a confirmation must come from settings.json as it is, got {cell} from another. Nothing of that file, its "
                "comparisons included, may change once confirmation has begun."
            )
        if trials.get(cell) == tree["trial"]:
            cells[cell] = tree
        else:
            others.append((cell, tree))
    return Finished(cells, others, [cell for cell in planned if cell not in cells])


def column(settings: Settings, cell: Cell, tree: Mapping[str, Any], sampler: str, name: str) -> Num[np.ndarray, " e"]:
    """A column of a cell's episodes, in order; a training that diverged has no policy, and scores 0 everywhere."""
    states = initial_states(settings, cell)
    if "diverged" in tree:
        return np.array(states) if name == "state" else np.zeros(len(states))
    return np.array(tree["samplers"][sampler]["episodes"][name])


def has_column(tree: Mapping[str, Any], sampler: str, name: str) -> bool:
    return "diverged" not in tree and name in tree["samplers"][sampler]["episodes"]


def trainings(finished: Finished, suite: str, budget: int, contestant: str) -> list[tuple[Cell, dict[str, Any]]]:
    """The finished seeds of one contestant, in order."""
    found = [(c, t) for c, t in finished.cells.items() if (c.suite, c.budget, c.contestant) == (suite, budget, contestant)]
    return sorted(found, key=lambda one: one[0].seed)


def score_table(settings: Settings, finished: Finished, suite: str, budget: int) -> str:
    """A row for each contestant's sampler; only what is there."""
    lines = [_row(*COLUMNS, *PRICES), _row(*["---"] * len(COLUMNS + PRICES))]
    for name, contestant in settings.contestants.items():
        mine = trainings(finished, suite, budget, name)
        for sampler, asked in contestant.samplers.items() if mine else ():
            values = [column(settings, cell, tree, sampler, "score") for cell, tree in mine]
            success = [column(settings, cell, tree, sampler, "success") for cell, tree in mine]
            rate = single_network(success[0].tolist()) if len(mine) == 1 else mean_interval(success)
            each = ", ".join(
                f"{value.mean():.2f}{' (diverged)' if 'diverged' in tree else ''}" for value, (_, tree) in zip(values, mine, strict=True)
            )
            trees = [tree for _, tree in mine]
            cells = (name, label(sampler, asked.num_steps), mean_interval(values), each, rate, _mean(trees, sampler, "final_coverage"))
            lines.append(_row(*cells, _mean(trees, sampler, "jitter", 3), *_prices(trees, sampler)))
    return "\n".join(lines)


def sweep_table(settings: Settings, finished: Finished, suite: str, budget: int) -> str:
    """Contestants' sweeps, where one was run: mean score over seeds, and jitter, by steps and step size; "" where none was."""
    sections = []
    for name, contestant in settings.contestants.items():
        if (sweep := contestant.sweep) is None:
            continue
        names = sweep.samplers.keys()
        trees = [tree for _, tree in trainings(finished, suite, budget, name) if names <= tree["samplers"].keys()]
        if not trees:
            continue
        lines = [_row(f"{name}, {len(trees)} seeds: steps", *(f"{sweep.key} {value}" for value in sweep.values))]
        lines += [_row(*["---"] * (1 + len(sweep.values)))]
        for n in sweep.num_steps:
            shown = (
                (_mean(trees, sweep.sampler_name(n, v), "score"), _mean(trees, sweep.sampler_name(n, v), "jitter", 3)) for v in sweep.values
            )
            lines.append(_row(n, *(f"{score} ({jitter})" for score, jitter in shown)))
        sections.append("\n".join(lines))
    return "\n\n".join(["Score (jitter) by steps and step size:", *sections]) if sections else ""


def verdict_table(settings: Settings, finished: Finished, suite: str, budget: int) -> str:
    """The comparisons of the settings, where both have trained the same seeds; a verdict where these are all that were planned."""
    planned = {cell.seed for cell in [*finished.cells, *finished.missing] if (cell.suite, cell.budget) == (suite, budget)}
    lines = [_row("subject", "reference", "difference in score [95 %]", "each seed", "verdict"), _row(*["---"] * 5)]
    for subject, reference in settings.comparisons:
        one, other = ({c.seed: (c, t) for c, t in trainings(finished, suite, budget, answer.contestant)} for answer in (subject, reference))
        seeds = sorted(set(one) & set(other))
        if not seeds:
            continue
        pairs = [(_scores(settings, *one[seed], subject), _scores(settings, *other[seed], reference)) for seed in seeds]
        difference = paired_difference([a for a, _ in pairs], [b for _, b in pairs])
        each = ", ".join(f"{(a - b).mean():+.2f}" for a, b in pairs)
        complete = set(seeds) == planned and len(planned) > 1
        said = verdict(difference, settings.margin) if complete else f"none: {len(seeds)} of {len(planned)} seeds"
        lines.append(_row(str(subject), str(reference), difference, each, said))
    return "\n".join(lines)


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
        _row("suite", "core-minutes", "contestants: seeds"),
        _row(*["---"] * 3),
    ]
    for (suite, budget), contestants in grouped.items():
        alike = collections.defaultdict(list)
        for name, seeds in contestants.items():
            alike[", ".join(seeds)].append(name)
        words = (f"{', '.join(names)}: {seeds}" for seeds, names in alike.items())
        lines.append(_row(suite, budget, "; ".join(words)))
    return "\n".join(lines)


def trial_table(settings: Settings, finished: Finished) -> str:
    """How often each contestant was tried in development: its different recipes on each suite and budget, the present one among them."""
    trials = collections.defaultdict(set)
    for cell, tree in [*finished.cells.items(), *finished.others]:
        trials[cell.suite, cell.budget, cell.contestant].add(tree["trial"])
    places = sorted({(suite, budget) for suite, budget, _ in trials})
    lines = [_row("contestant", *(f"{suite}, {budget}" for suite, budget in places)), _row(*["---"] * (1 + len(places)))]
    lines += [_row(name, *(len(trials[(*place, name)]) for place in places)) for name in settings.contestants]
    unequal = [f"{suite}, {budget}" for suite, budget in places if len({len(trials[suite, budget, n]) for n in settings.contestants}) > 1]
    return "\n".join([*lines, *(["", f"Not every contestant was tried as often: {'; '.join(unequal)}."] if unequal else [])])


def label(sampler: str, steps: int) -> str:
    """ "10" or "10 (DDIM)"."""
    kind = sampler.rstrip("0123456789-").upper()
    return f"{steps} ({kind})" if kind else str(steps)


def _scores(settings: Settings, cell: Cell, tree: Mapping[str, Any], answer: Answer) -> Num[np.ndarray, " e"]:
    """Raises ValueError where the cell did not start from the states that its seed has."""
    states = column(settings, cell, tree, answer.sampler, "state").tolist()
    if states != initial_states(settings, cell):
        raise ValueError(f"{cell} must start from the initial states of its seed, got others. Run it again.")
    return column(settings, cell, tree, answer.sampler, "score")


def _mean(trees: Sequence[Mapping[str, Any]], sampler: str, name: str, digits: int = 2) -> str:
    values = [np.mean(tree["samplers"][sampler]["episodes"][name]) for tree in trees if has_column(tree, sampler, name)]
    return f"{np.mean(values):.{digits}f}" if values else ""


def _prices(trees: Sequence[Mapping[str, Any]], sampler: str) -> list[str]:
    whole = [tree for tree in trees if "diverged" not in tree]
    seconds = [tree["training"]["update_seconds"] for tree in whole]
    found = [tree["samplers"][sampler] for tree in whole]
    milliseconds = [f"{np.mean([one['latency_ms'][size]['p50'] for one in found]):.2f}" if found else "" for size in ("1", "32")]
    flops = f"{found[0]['chunk_flops'] / 1e6:.2f}" if found else ""
    return [f"{trees[0]['updates']:,}", f"{np.mean(seconds):.0f}" if whole else "", flops, *milliseconds]


def _row(*cells: object) -> str:
    return f"| {' | '.join(map(str, cells))} |"

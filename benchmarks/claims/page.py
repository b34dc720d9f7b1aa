"""What the finished cells say of each claim, as docs/claims.md shows it: comparisons by task and budget, and a verdict in words.

The claims, and which answers are held against each other for them, are fixed here; the numbers come from the cells alone.
"""

import collections
from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from benchmarks.claims.finished import Finished, column, has_column, largest, places, trainings
from benchmarks.claims.foresight import ENOUGH, STATISTICS, chances
from benchmarks.claims.pairs import Paired, grand_mean, pair, pool
from benchmarks.claims.published import published_table
from benchmarks.claims.settings import Answer, Settings
from benchmarks.claims.tables import checkpoint_table, label, missing_table, row


class Claim(NamedTuple):
    """Attributes:
    title: what is claimed.
    measured: how it was tried here.
    comparisons: (subject, reference), as "contestant/sampler".
    condition: what goes wrong while both are asked; "" for nothing.
    """

    title: str
    measured: str
    comparisons: tuple[tuple[str, str], ...]
    condition: str = ""


CLAIMS = (
    Claim(
        "Two steps do what diffusion needs a hundred for",
        "The paper's objective and descent, the same objective with two plain steps, and the two energies that this project proposes, in "
        "two steps each, against a hundred of DDPM; and against two of DDIM and of flow matching: the hundred alone would be a straw man.",
        (
            ("ebt-paper/2", "diffusion/ddpm-100"),
            ("ebt-mse/2", "diffusion/ddpm-100"),
            ("equilibrium/2", "diffusion/ddpm-100"),
            ("equilibrium-energy-score/2", "diffusion/ddpm-100"),
            ("ebt-energy-score/1", "diffusion/ddpm-100"),
            ("ebt-mse/2", "diffusion/ddim-2"),
            ("ebt-mse/2", "flow/2"),
            ("equilibrium/2", "flow/2"),
            ("equilibrium-energy-score/2", "flow/2"),
            ("flow/2", "diffusion/ddpm-100"),
        ),
    ),
    Claim(
        "Energies succeed more often than diffusion policies",
        "Each with the steps that suit it, against DDPM-100, ten steps of flow matching and plain regression.",
        (
            ("equilibrium/5", "diffusion/ddpm-100"),
            ("equilibrium/5", "flow/10"),
            ("equilibrium-energy-score/2", "flow/10"),
            ("ebt-mse/2", "flow/10"),
            ("ebt-mse/2", "regression/1"),
            ("flow/10", "diffusion/ddpm-100"),
        ),
    ),
    Claim(
        "It is the energy that helps, and not the loss",
        "Each objective with an energy against the same objective on a network that has none: equilibrium matching on a vector field, the "
        "energy score on a generator of one pass.",
        (
            ("equilibrium/2", "equilibrium-field/2"),
            ("equilibrium/5", "equilibrium-field/5"),
            ("ebt-energy-score/1", "generator/1"),
            ("equilibrium-energy-score/2", "generator/1"),
        ),
    ),
    Claim(
        "Steps that stop by themselves are worth more than a fixed number",
        "Equilibrium's descent, at rest where its next step would be short, against fixed numbers of steps about its mean.",
        (("equilibrium/adaptive", "equilibrium/5"), ("equilibrium/adaptive", "equilibrium/4")),
    ),
    Claim(
        "Energies recover from pushes that nobody demonstrated",
        "The object is pushed mid-episode, the same for all; the score counts from then on.",
        (
            ("ebt-mse/2", "diffusion/ddpm-100"),
            ("equilibrium/2", "diffusion/ddpm-100"),
            ("equilibrium-energy-score/2", "diffusion/ddpm-100"),
            ("equilibrium/2", "flow/10"),
            ("equilibrium-energy-score/2", "flow/10"),
        ),
        "pushed",
    ),
    Claim(
        "... and from drops",
        "The gripper is held open for a while mid-episode.",
        (
            ("ebt-mse/2", "diffusion/ddpm-100"),
            ("equilibrium/2", "diffusion/ddpm-100"),
            ("equilibrium-energy-score/2", "diffusion/ddpm-100"),
            ("equilibrium/2", "flow/10"),
        ),
        "dropped",
    ),
    Claim(
        "Energies bear noisy sensors better",
        "Noise on everything that the policy sees, a tenth of its standard deviation.",
        (
            ("ebt-mse/2", "diffusion/ddpm-100"),
            ("equilibrium/2", "diffusion/ddpm-100"),
            ("equilibrium-energy-score/2", "diffusion/ddpm-100"),
            ("equilibrium/2", "flow/10"),
        ),
        "noisy",
    ),
)


PREFACE = """\
# The paper's claims, tried

EBT-Policy ([arXiv 2510.27545](https://arxiv.org/abs/2510.27545)) claims more success than diffusion policies, in two steps where they
take a hundred, with less training; doubt that the energy tells; steps by difficulty; recovery without being taught. This page says what a
confirmation found: settings frozen in the git history before it ran, fresh trainings and initial states, Meta-World tasks that nobody had
tuned on. How it was done, and what is not equal: [benchmarks/claims/README.md](../benchmarks/claims/README.md). Every training, interval
and price: [confirmation/{scale}.md](../benchmarks/results/claims/confirmation/{scale}.md). What was tried before:
[experiments.md](experiments.md).

Small networks ({parameters} parameters), state observations, minutes of training on CPU cores: what holds here may not hold at a thousand
times the size. PushT is scored by the best coverage / 0.95, Meta-World (ten demonstrations) by success. Columns are task and core-minutes
of training (operations, equal for all). Differences are paired, intervals Student's over trainings (95 %), so that three trainings give
wide ones. "As good" is non-inferiority: the lower bound lies above -{margin}. A place without all its trainings has no verdict. This page
is written by `python -m benchmarks.claims.render --phase=confirmation --claims=docs/claims.md`.
"""


def claims_page(settings: Settings, finished: Mapping[str, Finished]) -> str:
    """The whole of docs/claims.md: all claims at the first of the scales, scores and the first claims at the others."""
    (scale, cells), *others = finished.items()
    preface = PREFACE.format(scale=scale, margin=settings.margin, parameters=_parameters(cells)).rstrip()
    sections = [preface, missing_table(cells), "## Scores, and what a chunk costs"]
    sections += [HEADLINE_CAPTION, headline(settings, cells, scale)]
    if published := published_table(_shown_tasks(settings, cells, scale)):
        sections += [PUBLISHED, published]
    sections += [claim_section(settings, cells, scale, claim) for claim in CLAIMS]
    sections += [FORESIGHT, foresight_summary(settings, cells, scale)]
    for name, theirs in others:
        tasks = ", ".join(f"{suite} ({plan.difficulty})" for suite, plan in settings.scale(name).suites.items())
        sections += [f"# {name.capitalize()}: {tasks}", missing_table(theirs), HEADLINE_CAPTION, headline(settings, theirs, name)]
        shown = places(settings, theirs, name)
        sections += [
            f"{suite}, {budget}. {by}" for suite, budget in shown if (by := checkpoint_table(settings, theirs, name, suite, budget))
        ]
        if published := published_table(_shown_tasks(settings, theirs, name)):
            sections += [PUBLISHED_CAPTION, published]
        sections += [claim_section(settings, theirs, name, claim) for claim in CLAIMS[:OF_OTHER_SCALES]]
    return "\n\n".join(sections) + "\n"


def readme_section(settings: Settings, finished: Finished, scale: str) -> str:
    """What the README shows between its marks: the headline, and a few published numbers beside it."""
    published = published_table(_shown_tasks(settings, finished, scale), headline=True)
    return "\n\n".join([HEADLINE_CAPTION, headline(settings, finished, scale), *([PUBLISHED_CAPTION, published] if published else [])])


PUBLISHED_CAPTION = "Published for the same tasks, each under a protocol of its own, so that a difference from the above says little:"

PUBLISHED = """\
## Beside published numbers

Each under a protocol of its own: larger networks, hours on a GPU where these have minutes on a core, the best checkpoints by the score that
is told, images where these see the state. Ours are of the last checkpoint of every training. No table of EBT-Policy itself was at hand."""

HEADLINE_CAPTION = "Mean score over trainings (worst and best training); milliseconds on one core."
OF_OTHER_SCALES = 3
"""Claims that are asked at other scales, too: steps, success, and whether it is the energy."""

FORESIGHT = f"""\
## The energy knows when it will fail

AUROC of failure (a score below {ENOUGH}) by what the descent says at the first decision of an episode; mean over trainings (lowest and
highest). 0.5 is a coin, below it the statistic is the wrong way round."""


def claim_section(settings: Settings, finished: Finished, scale: str, claim: Claim) -> str:
    """Title, how it was tried, a verdict a comparison, and every comparison by task and budget."""
    where = [place for place in places(settings, finished, scale) if _asked(settings, scale, place[0], claim.condition)]
    header = ("subject", "reference", *(f"{suite}, {budget}" for suite, budget in where), "all, largest budgets")
    lines = [row(*header), row(*["---"] * len(header))]
    said = []
    for names in _compared(settings, scale, claim):
        subject, reference = (Answer.parse(f"{name}, {claim.condition}" if claim.condition else name) for name in names)
        found = {place: pair(settings, finished, scale, *place, subject, reference) for place in where}
        shown = [_shown(one, settings.margin) for one in found.values()]
        interval, over_all = pool({place[0]: found[place] for place in largest(where)}, settings.margin)
        pooled = f"{interval} {over_all}" if interval else ""
        lines.append(row(*names, *shown, pooled))
        verdicts = {place: one.said(settings.margin) for place, one in found.items() if one.whole}
        said.append(f"- `{names[0]}` against `{names[1]}`: {in_words(verdicts)}")
    return "\n\n".join([f"## {claim.title}", claim.measured, "\n".join(said), "\n".join(lines)])


def in_words(verdicts: dict[tuple[str, int], str]) -> str:
    """(task, budget) -> verdict, grouped: "better on pusht, 2; as good on hammer, 4"."""
    if not verdicts:
        return "not judged yet."
    groups = collections.defaultdict(list)
    for (suite, budget), said in verdicts.items():
        groups[said].append(f"{suite}, {budget}")
    return "; ".join(f"{said} ({' / '.join(places)})" for said, places in groups.items()) + "."


def headline(settings: Settings, finished: Finished, scale: str) -> str:
    """Mean score (of the worst and the best training) by task, at the largest budget that is complete; milliseconds of a chunk."""
    shown = largest([place for place in places(settings, finished, scale) if _complete(finished, *place)])
    if not shown:
        return "No task is complete yet."
    header = ("policy, steps", *(f"{suite}, {budget} core-minutes" for suite, budget in shown), "ms a chunk, batch 1", "batch 32")
    lines = [row(*header), row(*["---"] * len(header))]
    for answer in filter(lambda one: one.contestant in settings.contestants_of(scale), map(Answer.parse, HEADLINE)):
        asked = {answer.sampler: settings.contestants[answer.contestant].samplers[answer.sampler]}
        found = {place: trainings(finished, *place, answer.contestant, asked) for place in shown}
        cells = []
        for mine in found.values():
            scores = [float(column(settings, cell, tree, answer.sampler, "score").mean()) for cell, tree in mine]
            cells.append(f"{np.mean(scores):.2f} ({min(scores):.2f} to {max(scores):.2f})")
        timed = [tree["samplers"][answer.sampler]["latency_ms"] for mine in found.values() for _, tree in mine if "diverged" not in tree]
        costs = (f"{np.median([one[size]['p50'] for one in timed]):.1f}" if timed else "" for size in ("1", "32"))
        lines.append(row(f"`{answer.contestant}`, {label(answer.sampler, asked[answer.sampler].num_steps)}", *cells, *costs))
    return "\n".join(lines)


HEADLINE = (
    "ebt-paper/2",
    "ebt-mse/2",
    "equilibrium/2",
    "equilibrium/5",
    "ebt-energy-score/1",
    "equilibrium-energy-score/2",
    "contrastive/50",
    "diffusion/ddpm-100",
    "diffusion/ddim-2",
    "flow/10",
    "flow/2",
    "regression/1",
    "equilibrium-field/2",
    "equilibrium-field/5",
    "generator/1",
)
"""Every contestant, as it is mostly asked, and few steps of the baselines; the last three are energies without their energy."""


def foresight_summary(settings: Settings, finished: Finished, scale: str) -> str:
    """AUROC of failure by what the descent says at the first decision: mean over trainings, by task and budget."""
    where = [place for place in places(settings, finished, scale) if any((c.suite, c.budget) == place for c in finished.cells)]
    header = ("contestant, statistic", *(f"{suite}, {budget}" for suite, budget in where))
    lines = [row(*header), row(*["---"] * len(header))]
    for name, contestant in settings.contestants.items():
        for statistic in STATISTICS:
            cells = []
            for suite, budget in where:
                mine = trainings(finished, suite, budget, name, {contestant.first: contestant.samplers[contestant.first]})
                told = [(cell, tree) for cell, tree in mine if has_column(tree, contestant.first, f"{statistic}_first")]
                values = chances(settings, told, contestant.first, statistic)
                cells.append(f"{np.mean(values):.2f} ({min(values):.2f} to {max(values):.2f})" if values else "")
            if any(cells):
                lines.append(row(f"{name}, {statistic}", *cells))
    return "\n".join(lines)


def _compared(settings: Settings, scale: str, claim: Claim) -> list[tuple[str, str]]:
    """The claim's comparisons between contestants of the scale."""
    known = settings.contestants_of(scale)
    return [names for names in claim.comparisons if all(Answer.parse(name).contestant in known for name in names)]


def _asked(settings: Settings, scale: str, suite: str, condition: str) -> bool:
    return not condition or condition in settings.scale(scale).suites[suite].conditions


def _parameters(finished: Finished) -> str:
    """ "0.6 to 0.9 M", of the networks that were trained."""
    counts = [tree["parameters"] / 1e6 for tree in finished.cells.values() if "parameters" in tree]
    return f"{min(counts):.1f} to {max(counts):.1f} M" if counts else "not yet trained; under 1 M"


def _shown_tasks(settings: Settings, finished: Finished, scale: str) -> set[str]:
    """Of suites that have a complete place, each of one task."""
    suites = settings.scale(scale).suites
    shown = {place[0] for place in places(settings, finished, scale) if _complete(finished, *place)}
    return {suites[name].task for name in shown}


def _complete(finished: Finished, suite: str, budget: int) -> bool:
    return not any((cell.suite, cell.budget) == (suite, budget) for cell in finished.missing)


def _shown(found: Paired, margin: float) -> str:
    """The difference with its verdict, or with how many trainings there are."""
    if not found.subject:
        return ""
    difference = found.interval or f"{grand_mean(found.differences):.2f}"
    return f"{difference} " + (f"**{found.said(margin)}**" if found.whole else f"({len(found.subject)} of {found.planned} trainings)")

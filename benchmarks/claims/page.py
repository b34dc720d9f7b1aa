"""What the finished cells say of each claim, as docs/claims.md shows it: comparisons by task and budget, and a verdict in words."""

import collections
from collections.abc import Collection, Mapping

import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims.claims import CLAIMS, HEADLINE, Claim, Place, holds
from benchmarks.claims.finished import Finished, column, largest, places, trainings
from benchmarks.claims.foresight import COIN, ENOUGH, foretold
from benchmarks.claims.pairs import Paired, grand_mean, pair, pool
from benchmarks.claims.plots import intervals_plot
from benchmarks.claims.published import published_table
from benchmarks.claims.settings import Answer, Settings
from benchmarks.claims.tables import checkpoint_table, label, missing_table, row

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
wide ones. "As good" is non-inferiority: the lower bound lies above -{margin}. A place without all its trainings has no verdict. A
claim "holds" where some energy does what it says at every task and budget, "does not hold" where all fail at all; grey in the plots is
undecided. This page is written by `python -m benchmarks.claims.render --phase=confirmation --claims=docs/claims.md`.
"""


def claims_page(settings: Settings, finished: Mapping[str, Finished], drawn: Collection[str] = ()) -> str:
    """The whole of docs/claims.md: all claims at the first of the scales, scores and the first claims at the others.

    Args:
      drawn: names of the first scale's `claim_plots`.
    """
    (scale, cells), *others = finished.items()
    preface = PREFACE.format(scale=scale, margin=settings.margin, parameters=_parameters(cells)).rstrip()
    sections = [preface, missing_table(cells), "## Scores, and what a chunk costs"]
    sections += [HEADLINE_CAPTION, headline(settings, cells, scale)]
    if published := published_table(_shown_tasks(settings, cells, scale)):
        sections += [PUBLISHED, published]
    for number, claim in enumerate(CLAIMS):
        name = _plot_name(number)
        sections.append(claim_section(settings, cells, scale, claim, f"{IMAGES}/{name}" if name in drawn else ""))
    sections.append(foresight_section(settings, cells, scale, f"{IMAGES}/{FORESIGHT_PLOT}" if FORESIGHT_PLOT in drawn else ""))
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
FORESIGHT_PLOT = "claims_foresight.png"
IMAGES = "images"
"""Folder of the plots, beside the page."""
OF_OTHER_SCALES = 3
"""Claims that are asked at other scales, too: steps, success, and whether it is the energy."""

FORESIGHT = f"""\
## The energy knows when it will fail

AUROC of failure (a score below {ENOUGH}) by what the descent says at the first decision of an episode; mean over trainings (lowest and
highest). 0.5 is a coin, below it the statistic is the wrong way round; what lies above with its whole interval foretells."""


def compared(settings: Settings, finished: Finished, scale: str, claim: Claim) -> dict[tuple[str, str], dict[Place, Paired]]:
    """The claim's comparisons between contestants of the scale, at every place that is asked for it."""
    known = settings.contestants_of(scale)
    where = _where(settings, finished, scale, claim)
    found = {}
    for names in claim.comparisons:
        subject, reference = (Answer.parse(f"{name}, {claim.condition}" if claim.condition else name) for name in names)
        if subject.contestant in known and reference.contestant in known:
            found[names] = {place: pair(settings, finished, scale, *place, subject, reference) for place in where}
    return found


def claim_section(settings: Settings, finished: Finished, scale: str, claim: Claim, picture: str = "") -> str:
    """Title, whether it holds, how it was tried, a verdict a comparison, and every comparison by task and budget.

    Args:
      picture: the path of the claim's plot; "" for none.
    """
    where = _where(settings, finished, scale, claim)
    header = ("subject", "reference", *(f"{suite}, {budget}" for suite, budget in where), "all, largest budgets")
    lines, said = [row(*header), row(*["---"] * len(header))], {}
    pairs = compared(settings, finished, scale, claim)
    for names, found in pairs.items():
        shown = [_shown(one, settings.margin) for one in found.values()]
        interval, over_all = pool({place[0]: found[place] for place in largest(where)}, settings.margin)
        lines.append(row(*names, *shown, f"{interval} {over_all}" if interval else ""))
        said[names] = {place: one.said(settings.margin) for place, one in found.items() if one.whole}
    whole = all(one.whole for found in pairs.values() for one in found.values())
    verdicts = "\n".join(f"- `{names[0]}` against `{names[1]}`: {in_words(at)}" for names, at in said.items())
    pictures = [f"![differences in score, by task]({picture})"] if picture else []
    shown = [*pictures, *([claim.picture] if claim.picture and picture else [])]
    return "\n\n".join([f"## {claim.title}", *holds(settings, claim, said, whole), claim.measured, *shown, verdicts, "\n".join(lines)])


def claim_plots(settings: Settings, finished: Finished, scale: str) -> dict[str, Figure]:
    """Name -> plot of every claim of which something is decided."""
    found = {}
    for number, claim in enumerate(CLAIMS):
        pairs = compared(settings, finished, scale, claim)
        where = [place for place in _where(settings, finished, scale, claim) if any(at[place].whole for at in pairs.values())]
        if where:
            differences = {
                " - ".join(names): {place: (at[place].interval, at[place].said(settings.margin)) for place in where}
                for names, at in pairs.items()
            }
            found[_plot_name(number)] = intervals_plot(where, differences, "difference in score", 0.0, settings.margin)
    told = foretold(settings, finished, places(settings, finished, scale))
    where = [place for place in places(settings, finished, scale) if any(place in at and at[place].said != "none" for at in told.values())]
    if where:
        rows = {
            f"{name}, {statistic}": {place: (at[place].interval, at[place].said) for place in where if place in at}
            for (name, statistic), at in told.items()
        }
        found[FORESIGHT_PLOT] = intervals_plot(where, rows, "AUROC of failure", COIN)
    return found


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


def foresight_section(settings: Settings, finished: Finished, scale: str, picture: str = "") -> str:
    """Whether any statistic of any energy foretells failure, and AUROC of each by task and budget: mean over trainings, lowest, highest."""
    where = places(settings, finished, scale)
    found = foretold(settings, finished, where)
    shown = [place for place in where if any(place in at for at in found.values())]
    judged = {(who, place): one for who, at in found.items() for place, one in at.items() if one.said != "none"}
    above = [
        f"{name}, {statistic} ({suite}, {budget})" for ((name, statistic), (suite, budget)), one in judged.items() if one.said == "better"
    ]
    words = "not judged yet" if not judged else f"above a coin: {', '.join(above)}" if above else "none does"
    count = f", of {len(judged)} that were looked at, of which chance lets one in forty through" if judged else ""
    header = ("contestant, statistic", *(f"{suite}, {budget}" for suite, budget in shown))
    lines = [row(*header), row(*["---"] * len(header))]
    for (name, statistic), at in found.items():
        chances = [at[place].chances if place in at else [] for place in shown]
        cells = (f"{np.mean(one):.2f} ({min(one):.2f} to {max(one):.2f})" if one else "" for one in chances)
        lines.append(row(f"{name}, {statistic}", *cells))
    pictures = [f"![AUROC of failure, by task]({picture})"] if picture else []
    return "\n\n".join([f"{FORESIGHT}\n\nStatistics that foretell failure: **{words}**{count}.", *pictures, "\n".join(lines)])


def _where(settings: Settings, finished: Finished, scale: str, claim: Claim) -> list[Place]:
    """Where the claim is asked: everywhere, or where its condition is met."""
    suites = settings.scale(scale).suites
    return [place for place in places(settings, finished, scale) if not claim.condition or claim.condition in suites[place[0]].conditions]


def _plot_name(number: int) -> str:
    return f"claims_{number + 1}.png"


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

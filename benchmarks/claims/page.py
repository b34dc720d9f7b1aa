"""What the finished cells say of each claim, as docs/claims.md shows it: comparisons by task and budget, and a verdict in words."""

import collections
from collections.abc import Collection, Mapping
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from benchmarks.claims.claims import CLAIMS, OF_THE_PAPER, OTHER_ENERGIES, WAITING, Claim, Held, Names, Place, holds
from benchmarks.claims.finished import Finished, largest, places
from benchmarks.claims.foresight import COIN, ENOUGH, MIXED, WORDS, Foretold, foretold, noticed, of_planned, surer_half
from benchmarks.claims.pairs import Paired, grand_mean, pair, pool
from benchmarks.claims.plots import compute_plot, intervals_plot, palette, steps_plot
from benchmarks.claims.published import published_table
from benchmarks.claims.scores import (
    budgets_table,
    complete,
    disturbed_tables,
    headline,
    load,
    measures_table,
    other_differences,
    starts_as_ever,
    steps_table,
)
from benchmarks.claims.settings import Answer, Settings
from benchmarks.claims.statistics import CEILING, FLOOR, pooled_interval, short
from benchmarks.claims.tables import checkpoint_table, missing_table, primary_confidence, primary_table, row

PREFACE = """\
# The paper's claims, tried

EBT-Policy ([arXiv 2510.27545](https://arxiv.org/abs/2510.27545)) claims more success than diffusion policies, on some tasks in two steps
where they take a hundred, with less training; that the energy measures uncertainty; that steps can adapt to difficulty; that policies
recover from failures nobody demonstrated. This page says what a confirmation found: settings frozen in the git history before it ran, fresh
trainings and initial states. How it was done: [benchmarks/claims/README.md](../benchmarks/claims/README.md). Every training, interval and
price: [confirmation/{scale}.md](../benchmarks/results/claims/confirmation/{scale}.md). What was tried before:
[experiments.md](experiments.md).

**How far it reaches.** Small networks, state observations, minutes of training on CPU cores. What holds here may not hold at a thousand
times the size, and what fails here may not fail there: the paper trains for 900,000 updates, at the smallest of these budgets `ebt-paper`
for {updates}. PushT is the task that settings were tuned on, with more trials for some contestants than for others (`equilibrium`, `flow`
and `ebt-energy-score` had five to seven before the freeze, the paper's two three together); nobody tuned on the Meta-World tasks, whose
ten demonstrations come from a script. Parameters: {parameters}.

**How to read it.** PushT is scored by the best coverage / 0.95, Meta-World by success. Columns are task and core-minutes of training
(operations, equal for all). Differences are paired, intervals Student's over trainings (95 %), so that three trainings give wide ones, and
never narrower than what their episodes leave open.
"As good" is non-inferiority: the lower bound lies above -{margin}. A place without all its trainings has no verdict, nor has one where both
score below {floor} ("floor") or above {ceiling} ("ceiling"). A claim "holds" where one of the contestants named does what it says at
every place that tells anything, against the references that its section names; it "does not hold" where all of them are worse at all of
them; else it is "not shown". "Worse by less than the margin" is worse, and as good. What is said of pushes, drops and noise compares scores
while something is wrong, so that who is better without is better with it; their sections show beside it what it changed. Only the primary
comparisons are corrected for their number: of the others, chance alone calls one in forty better. Plots: green better, blue as good,
orange worse, grey undecided.

**What was fixed when.** Comparisons and margin before the first cell was finished. What makes a claim hold, the comparisons of
`ebt-paper/2`, `ebt-mse/2`, `ebt-energy-score/1` and `equilibrium-energy-score/2` under "succeed more often", and all that has no verdict
(other measures, what disturbances change) when PushT at 2 core-minutes was complete; that rule was made stricter when 54 cells were
finished, and when 100 were: one policy must do it everywhere, intervals may not be narrower than their episodes have them, and foresight
counts at a confidence for all that was planned to be looked at. These took "holds" from the first claim and "some do" from the last; no
comparison changed its verdict.

This page is written by `python -m benchmarks.claims.render --phase=confirmation --claims=docs/claims.md`.
"""

SCORES = """\
## Scores, and what a chunk costs

{caption} {taken}"""

HEADLINE_CAPTION = """\
Mean score (lowest to highest training), and what a chunk of actions costs on {where}. `diffusion`, `flow` and `regression` have no energy;
the last rows, from `equilibrium-field` on, are two of the energies' objectives on networks without one."""

PRIMARY = """\
## The primary comparisons

Five, fixed beforehand, over all tasks at their largest budget; they hold together with 95 %. Tasks that nobody, or everybody, can do are
left out and named."""

MEASURES = """\
## By other measures

The best coverage of an episode is a lenient score. Success is a coverage above 95 % at any time, final coverage that of the last step;
jitter the mean second difference of the executed actions, normalised (the demonstrations of PushT: 0.014). No comparison of these was fixed
beforehand."""

OTHER_DIFFERENCES = 'Differences of the comparisons of "{title}", by these measures:'

STEPS = """\
## Score against steps

The same trainings, asked in several ways. `equilibrium` and its field travel 1.0 in one and two steps, 1.25 in more, a quarter a
step where they rest by themselves (in the mean of the steps they took, at most ten). Steps times step size was swept for every
contestant with a descent, in development, one training each ([experiments.md](experiments.md#pusht-steps-and-step-sizes))."""

LESS_TRAINING = """\
## Less training

All contestants of a column have the same operations of training, whatever an update costs. Nothing was fixed beforehand that would decide
this claim: the curves must. Open diamonds: not all trainings are there, or not all counted."""

DISTURBED = """\
## When something goes wrong

Each contestant's first sampler; in brackets what the disturbance changed, by the same policy from the same states. Pushed on PushT, the
score starts anew and has no such difference. Larger shifts of the sensors, other initial states and other cameras were not run."""

CHANGES = """\
What it changed of the subject's score, less what it changed of the reference's: above 0 the subject bears it better. No verdict is taken
from it, since this was added when 100 cells were finished; who scores little has little to lose."""

PUBLISHED_CAPTION = "Published for the same tasks, each under a protocol of its own, so that a difference from the above says little:"

PUBLISHED = """\
## Beside published numbers

Each under a protocol of its own: larger networks, hours on a GPU where these have minutes on a core, the best checkpoints, chosen by the
very score reported, images where these see the state. Ours are of the last checkpoint of every training. No table of EBT-Policy itself was
found."""

FORESIGHT_TITLE = "The energy knows when it will fail"
FORESIGHT_PLOT = "claims_foresight.png"
COMPUTE_PLOT, STEPS_PLOT = "claims_compute.png", "claims_steps.png"
IMAGES = "images"
"""Folder of the plots, beside the page."""
OF_OTHER_SCALES = 3
"""Claims that are asked at other scales, too: steps, success, and whether it is the energy."""

FORESIGHT = f"""\
## {FORESIGHT_TITLE}

AUROC of failure (a score below {ENOUGH}) by what the descent says at the first decision of an episode, larger meaning more doubt; mean over
trainings (lowest to highest), of those with at least {MIXED} failures and {MIXED} successes. Above 0.5 it foretells failure, below it
success. It counts where the whole interval lies on one side, at a confidence that holds for all that are looked at together: {{looked_at}},
every energy's three statistics at every place, whether or not they turn out to say anything. The interval is the wider of Student's over
trainings and of what their episodes leave open (DeLong), since three trainings agree by luck soon enough. The gradient is the last that the
descent took: that before its last step, which for one step is the slope at the noise it began from."""


NOISE = """\
Noisy sensors (a tenth of a standard deviation, which is little) against the same observations without: the AUROC of every statistic of
every energy at every place lies between {low:.2f} and {high:.2f}."""


def claims_page(
    settings: Settings,
    finished: Mapping[str, Finished],
    drawn: Collection[str] = (),
    timings: Mapping[str, Mapping[str, Any]] | None = None,
) -> str:
    """The whole of docs/claims.md: all claims at the first of the scales, scores and the first claims at the others.

    Args:
      drawn: names of the first scale's `claim_plots`.
      timings: scale -> latencies of an idle machine, where they were taken.
    """
    timings = timings or {}
    (scale, cells), *others = finished.items()

    def picture(name: str) -> str:
        return f"{IMAGES}/{name}" if name in drawn else ""

    sections = [preface(settings, cells, scale), "## In short", in_short(settings, cells, scale), missing_table(cells)]
    beside = load(cells)
    timing = timings.get(scale, {})
    sections += [SCORES.format(caption=caption(timing), taken=_taken(timing, beside)), headline(settings, cells, scale, timing)]
    sections += [PRIMARY, primary_table(settings, cells, scale)]
    if measures := measures_table(settings, cells, scale):
        sections += [MEASURES, measures]
    if differences := other_differences(settings, cells, scale, CLAIMS[0]):
        sections += [OTHER_DIFFERENCES.format(title=CLAIMS[0].title), differences]
    shown = largest(complete(settings, cells, scale))
    sections += [STEPS] if shown else []
    for place in shown:
        sections += [f"{place[0]}, {place[1]} core-minutes:", steps_table(settings, cells, scale, place)]
    sections += _picture("score against steps", picture(STEPS_PLOT))
    if budgets := budgets_table(settings, cells, scale):
        sections += [LESS_TRAINING, *_picture("score against operations, updates and seconds", picture(COMPUTE_PLOT)), budgets]
    if disturbed := disturbed_tables(settings, cells, scale):
        sections += [DISTURBED, disturbed]
    if published := published_table(_shown_tasks(settings, cells, scale)):
        sections += [PUBLISHED, published]
    sections += [claim_section(settings, cells, scale, claim, picture(_plot_name(number))) for number, claim in enumerate(CLAIMS)]
    sections.append(foresight_section(settings, cells, scale, picture(FORESIGHT_PLOT)))
    for name, theirs in others:
        sections += _other_scale(settings, theirs, name, timings.get(name, {}))
    return "\n\n".join(sections) + "\n"


def caption(timing: Mapping[str, Any]) -> str:
    """Of the table of scores."""
    cores = {1: "one core"}.get(timing.get("cores", 0), f"{timing.get('cores')} cores")
    return HEADLINE_CAPTION.format(where=f"{cores} of an idle CPU" if timing else "a CPU")


def _taken(timing: Mapping[str, Any], beside: str) -> str:
    if timing:
        calls = {one["latency_ms"]["1"].get("calls") for at in timing["contestants"].values() for one in at.values()}
        apart = "one contestant after the other: rows of equal operations differ by what the machine's minutes do"
        return (
            f"Latencies are of an idle machine ({timing['hardware']['cpu']}; p50 of a call from host arrays to host arrays), "
            f"{'all rows taking turns' if len(calls) == 1 else apart}."
        )
    return f"Latencies were taken beside other work{f' (load {beside})' if beside else ''}: compare the operations."


def _other_scale(settings: Settings, finished: Finished, scale: str, timing: Mapping[str, Any]) -> list[str]:
    """The sections of another scale: its tasks in this phase, what is missing, scores and the first claims."""
    suites = settings.scale(scale).suites
    shown = places(settings, finished, scale)
    tasks = ", ".join(f"{suite} ({suites[suite].difficulty})" for suite in dict(shown))
    sections = [f"# {scale.capitalize()}: {tasks}", missing_table(finished), caption(timing), headline(settings, finished, scale, timing)]
    sections += [
        f"{suite}, {budget}. {by}" for suite, budget in shown if (by := checkpoint_table(settings, finished, scale, suite, budget))
    ]
    if published := published_table(_shown_tasks(settings, finished, scale)):
        sections += [PUBLISHED_CAPTION, published]
    return sections + [claim_section(settings, finished, scale, claim) for claim in CLAIMS[:OF_OTHER_SCALES]]


def readme_section(settings: Settings, finished: Finished, scale: str, timing: Mapping[str, Any]) -> str:
    """What the README shows between its marks: the verdicts, the headline, and a few published numbers beside it."""
    published = published_table(_shown_tasks(settings, finished, scale), headline=True)
    count = f"{len(finished.cells)} of {len(finished.cells) + len(finished.missing)} cells are finished." if finished.missing else ""
    parts = [count, in_short(settings, finished, scale), caption(timing), headline(settings, finished, scale, timing)]
    return "\n\n".join([*filter(None, parts), *([PUBLISHED_CAPTION, published] if published else [])])


def preface(settings: Settings, finished: Finished, scale: str) -> str:
    """What the page is, how far it reaches and how it is to be read."""
    updates = [tree["updates"] for cell, tree in finished.cells.items() if cell.contestant == "ebt-paper"]
    return PREFACE.format(
        scale=scale,
        margin=settings.margin,
        floor=FLOOR,
        ceiling=CEILING,
        updates=f"{min(updates):,}" if updates else "some hundreds",
        parameters=_parameters(finished),
    ).rstrip()


def in_short(settings: Settings, finished: Finished, scale: str) -> str:
    """A row a claim and side: whether it holds, and where."""
    lines = [row("claim", "with", "", "where"), row(*["---"] * 4)]
    for claim in CLAIMS:
        sides = held(settings, finished, scale, claim)
        lines += [row("" if number else claim.title, one.side, f"**{one.word}**", one.where) for number, one in enumerate(sides)]
    shown = places(settings, finished, scale)
    word, where = foreseen(foretold(settings, finished, shown), looked_at(settings, finished, scale), not finished.missing)
    lines.append(row(FORESIGHT_TITLE, "any energy", f"**{word}**", where))
    return "\n".join(lines)


def held(settings: Settings, finished: Finished, scale: str, claim: Claim) -> list[Held]:
    """Whether the claim holds, for each of its sides."""
    pairs = compared(settings, finished, scale, claim)
    whole = all(one.whole for found in pairs.values() for one in found.values())
    return holds(claim, said_of(settings, pairs), whole)


def said_of(settings: Settings, pairs: Mapping[Names, Mapping[Place, Paired]]) -> dict[Names, dict[Place, str]]:
    """The verdicts, where all trainings are there."""
    return {names: {place: one.said(settings.margin) for place, one in found.items() if one.whole} for names, found in pairs.items()}


def looked_at(settings: Settings, finished: Finished, scale: str) -> int:
    """How many statistics of energies are asked whether they foretell failure, at all places of the plan together."""
    energies = {*OF_THE_PAPER, *OTHER_ENERGIES} & set(settings.contestants_of(scale))
    return max(1, len(energies) * len(WORDS) * len(places(settings, finished, scale)))


def foreseen(told: Mapping[tuple[str, str], Mapping[Place, Foretold]], number: int, whole: bool) -> tuple[str, str]:
    """Whether any statistic of any energy foretells failure, and which.

    Args:
      number: `looked_at`.
      whole: whether no cell is missing.
    """
    judged = {(who, place): one for who, at in told.items() for place, one in at.items() if one.said() != "none"}
    if not judged:
        return WAITING, ""

    def named(chosen: Mapping[tuple[tuple[str, str], Place], Foretold]) -> str:
        found = [(*who, *place, float(np.mean(one.chances))) for (who, place), one in chosen.items()]
        return "; ".join(
            f"`{name}`, {WORDS[statistic]} ({suite}, {budget}: AUROC {chance:.2f})" for name, statistic, suite, budget, chance in found
        )

    right, wrong = ({key: one for key, one in judged.items() if one.said(number) == verdict} for verdict in ("better", "worse"))
    alone = {key: one for key, one in judged.items() if one.said() in ("better", "worse") and key not in {*right, *wrong}}
    parts = [named(right), f"the wrong way round: {named(wrong)}" if wrong else ""]
    parts.append(f"each by itself, as chance calls one in twenty: {named(alone)}" if alone else "")
    return ("some do" if right else "not shown") + ("" if whole else " so far"), "; ".join(filter(None, parts))


def compared(settings: Settings, finished: Finished, scale: str, claim: Claim) -> dict[Names, dict[Place, Paired]]:
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
    """Title, whether it holds, how it was tried, and every comparison by task and budget, with its verdict.

    Args:
      picture: the path of the claim's plot; "" for none.
    """
    where = _where(settings, finished, scale, claim)
    confidence = primary_confidence(settings)
    pooled = f"all, largest budgets [{100 * confidence:.0f} %]"
    lines = [row("subject", "reference", *(f"{suite}, {budget}" for suite, budget in where), pooled), row(*["---"] * (3 + len(where)))]
    pairs = compared(settings, finished, scale, claim)
    for names, found in pairs.items():
        shown = [_shown(one, settings.margin) for one in found.values()]
        interval, over_all = pool({place[0]: found[place] for place in largest(where)}, settings.margin, confidence)
        lines.append(row(*names, *shown, f"{interval} {over_all}" if interval else ""))
    pictures = [*_picture("differences in score, by task", picture), *([claim.picture] if claim.picture and picture else [])]
    words = map(str, held(settings, finished, scale, claim))
    against = ", ".join(f"`{name}`" for name in claim.references)
    judged = f" Judged against {against} alone; the other rows stand beside it." if against else ""
    changes = changes_table(settings, finished, scale, claim)
    sections = [f"## {claim.title}", *words, claim.measured + judged, *pictures, "\n".join(lines)]
    return "\n\n".join([*sections, *([CHANGES, changes] if changes else [])])


def changes_table(settings: Settings, finished: Finished, scale: str, claim: Claim) -> str:
    """What the claim's condition changed of the subject's score, less what it changed of the reference's; "" where nothing says it."""
    suites = settings.scale(scale).suites
    where = [place for place in _where(settings, finished, scale, claim) if starts_as_ever(suites[place[0]], claim.condition)]
    if not claim.condition or not where:
        return ""
    wrong = compared(settings, finished, scale, claim)
    usual = compared(settings, finished, scale, claim._replace(condition=""))
    lines = [row("subject", "reference", *(f"{suite}, {budget}" for suite, budget in where)), row(*["---"] * (2 + len(where)))]
    lines += [row(*names, *(_change(found[place], usual[names][place]) for place in where)) for names, found in wrong.items()]
    return "\n".join(lines)


def _change(wrong: Paired, usual: Paired) -> str:
    """(subject wrong - usual) - (reference wrong - usual), episode by episode, or with how many trainings there are."""
    if not wrong.subject or len(wrong.subject) != len(usual.subject):
        return ""
    changes = [one - other for one, other in zip(wrong.differences, usual.differences, strict=True)]
    shown = pooled_interval([changes]) if len(changes) > 1 else short(grand_mean(changes))
    return f"{shown}" + ("" if wrong.whole else f" ({len(changes)} of {wrong.planned} trainings)")


def claim_plots(settings: Settings, finished: Finished, scale: str) -> dict[str, Figure]:
    """Name -> plot: of every claim of which something is decided, of foresight, and of scores against steps and compute."""
    found = {}
    for number, claim in enumerate(CLAIMS):
        pairs = compared(settings, finished, scale, claim)
        where = [place for place in _where(settings, finished, scale, claim) if any(at[place].judged for at in pairs.values())]
        if where:
            differences = {
                " - ".join(names): {place: (at[place].interval, at[place].said(settings.margin)) for place in where}
                for names, at in pairs.items()
            }
            found[_plot_name(number)] = intervals_plot(where, differences, "difference in score", 0.0, settings.margin)
    told, number = foretold(settings, finished, places(settings, finished, scale)), looked_at(settings, finished, scale)
    judged = {who: {place: one for place, one in at.items() if one.said() != "none"} for who, at in told.items()}
    where = [place for place in places(settings, finished, scale) if any(place in at for at in judged.values())]
    if where:
        rows = {
            f"{name}, {WORDS[statistic]}": {place: (one.interval(), one.said(number)) for place, one in at.items()}
            for (name, statistic), at in judged.items()
            if at
        }
        found[FORESIGHT_PLOT] = intervals_plot(where, rows, "AUROC of failure", COIN)
    suites, colours = list(settings.scale(scale).suites), palette(settings)
    for name, draw in ((STEPS_PLOT, steps_plot), (COMPUTE_PLOT, compute_plot)):
        if figure := draw(settings, finished, suites, colours):
            found[name] = figure
    return found


def foresight_section(settings: Settings, finished: Finished, scale: str, picture: str = "") -> str:
    """Whether any statistic of any energy foretells failure; AUROC of failure, and what the surer half fails in."""
    where = places(settings, finished, scale)
    told = foretold(settings, finished, where)
    number = looked_at(settings, finished, scale)
    word, by = foreseen(told, number, not finished.missing)
    failure = _by_place(where, {names: {place: _auroc(one) for place, one in at.items()} for names, at in told.items()})
    noise = noticed(settings, finished, where)
    risk = _by_place(where, surer_half(settings, finished, where))
    sections = [
        FORESIGHT.format(looked_at=number),
        f"Statistics that foretell failure: **{word}**{f' ({by})' if by else ''}.",
        *_picture("AUROC of failure, by task", picture),
    ]
    sections += [failure] if failure else []
    sections += [NOISE.format(low=min(noise), high=max(noise))] if noise else []
    sections += ["Share of failures among all episodes, and in the half that the statistic holds surer:", risk] if risk else []
    return "\n\n".join(sections)


def _by_place(where: Collection[Place], found: Mapping[tuple[str, str], Mapping[Place, str]]) -> str:
    """A row for each contestant's statistic, a column for each place that has any; "" for none."""
    shown = [place for place in where if any(place in at for at in found.values())]
    if not shown:
        return ""
    lines = [row("contestant, statistic", *(f"{suite}, {budget}" for suite, budget in shown)), row(*["---"] * (1 + len(shown)))]
    lines += [
        row(f"`{name}`, {WORDS[statistic]}", *(at.get(place, "") for place in shown)) for (name, statistic), at in found.items() if at
    ]
    return "\n".join(lines)


def _auroc(told: Foretold) -> str:
    """Mean (lowest to highest), and of how many trainings where not of all."""
    counted = of_planned(len(told.chances), told.trained, told.planned)
    return f"{np.mean(told.chances):.2f} ({min(told.chances):.2f} to {max(told.chances):.2f}){counted}"


def _picture(words: str, path: str) -> list[str]:
    return [f"![{words}]({path})"] if path else []


def _where(settings: Settings, finished: Finished, scale: str, claim: Claim) -> list[Place]:
    """Where the claim is asked: everywhere, or where its condition is met."""
    suites = settings.scale(scale).suites
    return [place for place in places(settings, finished, scale) if not claim.condition or claim.condition in suites[place[0]].conditions]


def _plot_name(number: int) -> str:
    return f"claims_{number + 1}.png"


def _parameters(finished: Finished) -> str:
    """ "0.57 M (ebt-mse, flow)", of the networks that were trained."""
    names = collections.defaultdict(set)
    for cell, tree in finished.cells.items():
        if "parameters" in tree:
            names[f"{tree['parameters'] / 1e6:.2f} M"].add(cell.contestant)
    few = sorted(names, key=lambda size: len(names[size]))[:-1]
    most = next((size for size in names if size not in few), "")
    parts = [f"{most} for all others" if few else f"{most} for all"] if most else ["not yet trained"]
    return "; ".join([*(f"{size} for {', '.join(sorted(names[size]))}" for size in few), *parts])


def _shown_tasks(settings: Settings, finished: Finished, scale: str) -> set[str]:
    """Of suites that have a complete place."""
    suites = settings.scale(scale).suites
    return {task for suite, _ in complete(settings, finished, scale) for task in suites[suite].tasks if len(suites[suite].tasks) == 1}


def _shown(found: Paired, margin: float) -> str:
    """The difference with its verdict, or with how many trainings there are."""
    if not found.subject:
        return ""
    difference = found.interval or short(grand_mean(found.differences))
    return f"{difference} " + (f"**{found.said(margin)}**" if found.whole else f"({len(found.subject)} of {found.planned} trainings)")

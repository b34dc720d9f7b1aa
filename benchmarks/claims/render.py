"""python -m benchmarks.claims.render [--phase=development] [--scale=small]

Finished cells -> PHASE/SCALE.md with tables, and plots beside it, under --results. Says which cells are missing, and gives no verdict
where seeds are. Nothing is computed but means and intervals: the same cells give the same page.
"""

import pathlib
from collections.abc import Sequence
from typing import Any

import matplotlib
from absl import flags

from benchmarks.claims.cells import Cell
from benchmarks.claims.finished import Finished, sort_out
from benchmarks.claims.foresight import ENOUGH, MIXED, foresight_table
from benchmarks.claims.page import IMAGES, claim_plots, claims_page, readme_section
from benchmarks.claims.plots import compute_plot, palette, save, steps_plot
from benchmarks.claims.provenance import processors
from benchmarks.claims.settings import FILE, PHASES, Settings, read_settings
from benchmarks.claims.statistics import CEILING, FLOOR
from benchmarks.claims.store import RESULTS, read_results, read_timing
from benchmarks.claims.tables import (
    checkpoint_table,
    disturbed_table,
    missing_table,
    primary_table,
    score_table,
    sweep_table,
    task_table,
    trial_table,
    verdict_table,
)
from ebt_jax import cli
from ebt_jax.report.style import STYLE

_SCALE = flags.DEFINE_string("scale", "small", "Of settings.json.")
_PHASE = flags.DEFINE_enum("phase", "development", PHASES, "Whose cells.")
_RESULTS = flags.DEFINE_string("results", str(RESULTS), "Folder of finished cells.")
_CLAIMS = flags.DEFINE_string("claims", "", "Write the page of the claims here, too; docs/claims.md is the confirmation's.")
_README = flags.DEFINE_string("readme", "", "Write the headline between this file's marks, too; README.md is the confirmation's.")
_SETTINGS = flags.DEFINE_string("settings", str(FILE), "The settings they were run from.")

HOW_TO_READ = """\
Score: PushT the best coverage of an episode / 0.95, at most 1, elsewhere success. Intervals: 95 %, hierarchical bootstrap over trainings
and then episodes; with one training they speak of initial states alone, and of its success rate Wilson's interval stands there.
Differences are paired, and verdicts are of Student's t interval over the trainings' mean differences; there is none where both score
below {floor} or above {ceiling}. "As good" is non-inferiority: the lower bound lies above -{margin}. Jitter: mean second difference of the
executed actions, normalised. Training is bought by counted operations, equal for all contestants of a budget; "training s" is the wall
time that the updates took here, without compilation. A training that diverged scores 0, and so does a sampler with an answer that is not
finite."""

FORESIGHT = f"""\
What a descent says at an episode's first decision. Failure: a score below {ENOUGH}. AUROC .5 is a coin, below it the statistic is the
wrong way round. Trainings with fewer than {MIXED} failures or {MIXED} successes are left out."""


def main() -> None:
    settings = read_settings(pathlib.Path(_SETTINGS.value))
    results = pathlib.Path(_RESULTS.value)
    print(render(settings, _PHASE.value, _SCALE.value, results))
    if not (_CLAIMS.value or _README.value):
        return
    finished = finished_scales(settings, _PHASE.value, _SCALE.value, read_results(results, _PHASE.value))
    if _CLAIMS.value:
        page = pathlib.Path(_CLAIMS.value)
        (page.parent / IMAGES).mkdir(exist_ok=True)
        with matplotlib.rc_context(STYLE):
            drawn = claim_plots(settings, finished[_SCALE.value], _SCALE.value)
            for name, figure in drawn.items():
                save(figure, page.parent / IMAGES / name)
        timings = {scale: read_timing(results, scale) for scale in finished}
        page.write_text(claims_page(settings, finished, drawn, timings))
        print(page)
    if _README.value:
        readme = pathlib.Path(_README.value)
        section = readme_section(settings, finished[_SCALE.value], _SCALE.value, read_timing(results, _SCALE.value))
        readme.write_text(between_marks(readme.read_text(), section))
        print(_README.value)


def finished_scales(settings: Settings, phase: str, scale: str, results: Sequence[tuple[Cell, dict[str, Any]]]) -> dict[str, Finished]:
    """Scale -> its cells: `scale` first, then the others that have any."""
    scales = [scale, *sorted({cell.scale for cell, _ in results} - {scale})]
    return {name: sort_out(settings, phase, name, results) for name in scales}


MARKS = ("<!-- claims: from here", "<!-- claims: to here -->")
"""Of the lines between which the README shows the headline."""


def between_marks(text: str, section: str) -> str:
    """The text with `section` between the line that begins with the first mark and that with the second. Raises ValueError without them."""
    lines = text.splitlines()
    places = [[number for number, line in enumerate(lines) if line.startswith(mark)] for mark in MARKS]
    if [len(found) for found in places] != [1, 1] or places[0] > places[1]:
        raise ValueError(f"the file must have one line that begins with {MARKS[0]!r} and, after it, one {MARKS[1]!r}, got lines {places}.")
    return "\n".join([*lines[: places[0][0] + 1], "", section, "", *lines[places[1][0] :]]) + "\n"


def render(settings: Settings, phase: str, scale: str, results: pathlib.Path) -> pathlib.Path:
    """Writes the page and its plots; its path."""
    finished = sort_out(settings, phase, scale, read_results(results, phase))
    folder = results / phase
    folder.mkdir(parents=True, exist_ok=True)
    suites, colours = list(settings.scale(scale).suites), palette(settings)
    pictures = []
    with matplotlib.rc_context(STYLE):
        for name, draw in (("compute", compute_plot), ("steps", steps_plot)):
            figure = draw(settings, finished, suites, colours)
            if figure is not None:
                save(figure, folder / f"{scale}_{name}.png")
                pictures.append(f"![score against {name}]({scale}_{name}.png)")
    page = folder / f"{scale}.md"
    page.write_text("\n\n".join([*_page(settings, finished, phase, scale), *pictures]) + "\n")
    return page


def _page(settings: Settings, finished: Finished, phase: str, scale: str) -> list[str]:
    sections = [f"# Claims: {phase} at scale {scale}"]
    if phase == "development":
        sections.append("Development: settings were chosen while looking at these numbers. None of them is evidence for a claim.")
    sections += [HOW_TO_READ.format(margin=settings.margin, floor=FLOOR, ceiling=CEILING), circumstances(finished), missing_table(finished)]
    for suite, plan in settings.scale(scale).suites.items():
        for budget in plan.budgets:
            if not any((cell.suite, cell.budget) == (suite, budget) for cell in finished.cells):
                continue
            sections.append(f"## {suite} ({plan.difficulty}), {budget} core-minutes")
            sections.append(score_table(settings, finished, suite, budget))
            if by_task := task_table(settings, finished, scale, suite, budget):
                sections.append(by_task)
            if by_checkpoint := checkpoint_table(settings, finished, scale, suite, budget):
                sections.append(by_checkpoint)
            sections.append(verdict_table(settings, finished, scale, suite, budget))
            if disturbed := disturbed_table(settings, finished, scale, suite, budget):
                sections.append(disturbed)
            if foresight := foresight_table(settings, finished, suite, budget):
                sections += [FORESIGHT, foresight]
            if swept := sweep_table(settings, finished, suite, budget):
                sections.append(swept)
    if settings.primary and finished.cells:
        sections += ["## Primary comparisons, over all tasks", primary_table(settings, finished, scale)]
    if phase == "development":
        sections += ["## Trials", trial_table(settings, finished)]
    return sections


def circumstances(finished: Finished) -> str:
    """On which machines and from which commits."""
    if not finished.cells:
        return "No cell is finished."
    trees = finished.cells.values()
    machines = sorted({f"{t['hardware']['cpu']}, {t['hardware']['cores']} cores, {t['hardware']['devices']}" for t in trees})
    elsewhere = set[str]().union(*map(processors, trees)) - {tree["hardware"]["cpu"] for tree in trees}
    commits = sorted(
        {tree["training"]["trained_at"][:12] + ("-dirty" if "dirty" in tree["training"]["trained_at"] else "") for tree in trees}
    )
    frozen = sorted({tree["frozen"][:12] for tree in trees if tree["frozen"]})
    words = [
        f"Hardware: {'; '.join(machines)}.",
        f"Trained at: {', '.join(commits)}.",
    ]
    words += [f"Some trainings or rollouts on: {', '.join(sorted(elsewhere))}."] if elsewhere else []
    return " ".join([*words, *([f"Settings frozen at: {', '.join(frozen)}."] if frozen else [])])


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

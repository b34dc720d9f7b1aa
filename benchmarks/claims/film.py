"""python -m benchmarks.claims.film --suite=pusht --budget=2 --answers=equilibrium/2,diffusion/ddpm-100 --condition=pushed --output=DIR

Films trained contestants beside each other, from the same initial states and under what goes wrong there: EPISODE.mp4 each, all of them in
one film.gif to put into a page, four times as fast, and film.json with every episode's score. The first initial states are shown, whatever
happens in them. The contestants are those of run folders below --runs, as python -m benchmarks.claims leaves them.
"""

import json
import pathlib
import tempfile

import numpy as np
from absl import flags

from benchmarks.claims.cells import Cell, evaluation_seed, parts, run_path
from benchmarks.claims.films import GIF_WIDTH, Film, side_by_side, write_gif
from benchmarks.claims.measure import changed_policy
from benchmarks.claims.recipe import recipe
from benchmarks.claims.settings import FILE, PHASES, Answer, Settings, read_settings
from benchmarks.claims.tables import label
from ebt_jax import cli, simulators
from ebt_jax.evaluation.rollouts import rollout
from ebt_jax.loading import load
from ebt_jax.report.video import read_video, write_video
from ebt_jax.simulators.disturbance import UNDISTURBED, Disturbance

_SCALE = flags.DEFINE_string("scale", "small", "Of settings.json.")
_PHASE = flags.DEFINE_enum("phase", "development", PHASES, "Whose trainings, and whose initial states.")
_SUITE = flags.DEFINE_string("suite", "pusht", "Of the scale.")
_BUDGET = flags.DEFINE_integer("budget", 2, "Core-minutes of training.")
_SEED = flags.DEFINE_integer("seed", 0, "Number of the training.")
_ANSWERS = flags.DEFINE_list("answers", ["equilibrium/2", "diffusion/ddpm-100", "flow/2"], "Who is shown, from left to right.")
_CONDITION = flags.DEFINE_string("condition", "pushed", "Of the suite; nothing goes wrong where empty.")
_EPISODES = flags.DEFINE_integer("episodes", 3, "The first so many initial states.", lower_bound=1)
_RUNS = flags.DEFINE_string("runs", "runs/claims", "Folder of the run folders.")
_DATA = flags.DEFINE_string("data_dir", "", "Folder of datasets; RUNS/data where empty.")
_OUTPUT = flags.DEFINE_string("output", None, "Folder to write into.", required=True)
_SETTINGS = flags.DEFINE_string("settings", str(FILE), "The settings they were run from.")


def main() -> None:
    settings = read_settings(pathlib.Path(_SETTINGS.value))
    suites = settings.scale(_SCALE.value).suites
    if _SUITE.value not in suites:
        raise flags.ValidationError(f"--suite must be one of {sorted(suites)}, got {_SUITE.value!r}.")
    conditions = {"": UNDISTURBED, **suites[_SUITE.value].conditions}
    if _CONDITION.value not in conditions:
        raise flags.ValidationError(f"--condition must be one of {sorted(conditions)}, got {_CONDITION.value!r}.")
    wrong = conditions[_CONDITION.value]
    output, shown = pathlib.Path(_OUTPUT.value), []
    films = [film(settings, answer, wrong) for answer in map(Answer.parse, _ANSWERS.value)]
    for number, beside in enumerate(zip(*films, strict=True)):
        shown.append(side_by_side(beside, _CONDITION.value, wrong.at))
        write_video(output / f"{number:03d}.mp4", shown[-1], beside[0].fps)
    write_gif(output / "film.gif", np.concatenate(shown), films[0][0].fps, GIF_WIDTH * len(films))
    told = [
        {"state": beside[0].result.state, "scores": {one.label: round(one.score, 4) for one in beside}}
        for beside in zip(*films, strict=True)
    ]
    (output / "film.json").write_text(json.dumps({"condition": _CONDITION.value, "episodes": told}, indent=2) + "\n")
    for one in told:
        print(f"state {one['state']}: " + ", ".join(f"{label} {score:.2f}" for label, score in one["scores"].items()))
    print(output / "film.gif")


def film(settings: Settings, answer: Answer, wrong: Disturbance) -> list[Film]:
    """An answer's first episodes. Raises ValueError for an unknown sampler, FileNotFoundError for a run folder that is not there."""
    cell = Cell(_PHASE.value, _SCALE.value, _SUITE.value, answer.contestant, _BUDGET.value, _SEED.value)
    if answer.contestant not in settings.contestants or answer.sampler not in settings.contestants[answer.contestant].samplers:
        known = [f"{name}/{sampler}" for name, one in settings.contestants.items() for sampler in one.samplers]
        raise ValueError(f"answers must be among {known}, got {str(answer)!r}.")
    suite, contestant = parts(settings, cell)
    sampler, what = contestant.samplers[answer.sampler], recipe(settings, cell)
    runs = pathlib.Path(_RUNS.value).resolve()
    workdir = run_path(runs, cell, what.trial)
    if not (workdir / "training.json").exists():
        raise FileNotFoundError(f"{workdir} must hold a finished training, got none. Run python -m benchmarks.claims for {cell} first.")
    data = pathlib.Path(_DATA.value).resolve() if _DATA.value else runs / "data"
    policy = changed_policy(load(workdir), what, sampler, str(data))
    seed, rate = evaluation_seed(settings, cell), simulators.embodiment(suite.simulator).control_rate_hz
    with tempfile.TemporaryDirectory() as folder:
        found = rollout(
            policy,
            suite.simulator,
            suite.tasks[:1],
            _EPISODES.value,
            seed,
            asking=sampler.asking,
            disturbance=wrong,
            videos=_EPISODES.value,
            video_dir=pathlib.Path(folder),
            progress=cli.progress,
        )
        films = [read_video(path) for path in sorted(pathlib.Path(folder).rglob("*.mp4"))]
    name = f"{answer.contestant}, {label(answer.sampler, sampler.num_steps)}"
    return [Film(name, frames, fps, rate / fps, one) for (frames, fps), one in zip(films, found.episodes, strict=True)]


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

"""Settings and finished cells that nobody ran, to see what the pages make of them: never written but into a test's own folder."""

import copy
import json
import pathlib

import numpy as np

from benchmarks.claims.cells import Cell, enumerate_cells, initial_states, result_path
from benchmarks.claims.recipe import recipe
from benchmarks.claims.rollouts import asked
from benchmarks.claims.settings import FILE, Settings, read_settings
from benchmarks.claims.store import write_json

MADE_UP = "MADE UP BY A TEST"


def write_settings(folder: pathlib.Path, change=lambda tree: None) -> Settings:
    """The committed settings, changed, as read from a file in `folder`."""
    tree = copy.deepcopy(json.loads(FILE.read_text()))
    change(tree)
    path = folder / "settings.json"
    path.write_text(json.dumps(tree))
    return read_settings(path)


def small(tree: dict) -> None:
    """One scale: two contestants on PushT at two budgets, three seeds of 20 episodes."""
    tree["scales"] = {"small": tree["scales"]["small"]}
    suite = {**tree["scales"]["small"]["suites"]["pusht"], "budgets": [2, 6], "episodes": {"development": 20, "confirmation": 20}}
    tree["scales"]["small"]["suites"] = {"pusht": suite}
    tree["contestants"] = {name: tree["contestants"][name] for name in ("ebt-mse", "flow")}
    tree["comparisons"] = [["ebt-mse/2", "flow/10"]]
    tree["primary"] = [["ebt-mse/2", "flow/10"]]


def made_up_cell(settings: Settings, cell: Cell, score: float, seed: int = 0) -> dict:
    """A finished cell whose scores lie about `score`."""
    what = recipe(settings, cell)
    draw = np.random.default_rng([seed, cell.seed, cell.budget])
    samplers = {}
    for name, sampler in what.samplers.items():
        values = np.clip(score + 0.02 * draw.standard_normal(what.episodes), 0, 1)
        table = {"state": initial_states(settings, cell), "score": values.tolist(), "success": (values > 0.5).astype(int).tolist()}
        table |= {"length": [300] * what.episodes, "jitter": [0.01] * what.episodes, "final_coverage": (values / 2).tolist()}
        timed = {size: {"p50": 1.0, "p99": 2.0, "calls": 5, "an_action": 0.1} for size in ("1", "32")}
        samplers[name] = {
            **asked(sampler),
            "episodes": table,
            "seconds": 1.0,
            "cores": 2,
            "latency_ms": timed,
            "chunk_flops": 10**6,
        }
    return {
        "cell": cell._asdict(),
        "trial": what.trial,
        "changes": {},
        "frozen": MADE_UP if cell.phase == "confirmation" else "",
        "settings_sha256": settings.sha256[cell.scale],
        "updates": 100 * cell.budget,
        "flops": 1e9 * cell.budget,
        "training": {
            "seconds": 10.0,
            "update_seconds": 9.0,
            "compile_seconds": 1.0,
            "cpu_seconds": 15.0,
            "last_loss": 0.1,
            "trained_at": MADE_UP,
        },
        "samplers": samplers,
        "hardware": {"cpu": MADE_UP, "cores": 2, "devices": "none"},
        "seconds": 60.0,
    }


def write_cells(settings: Settings, folder: pathlib.Path, phase: str, scores: dict[str, float], leave_out=()) -> list[Cell]:
    """Finished cells of every contestant in `scores`, but those in `leave_out`."""
    cells = [cell for cell in enumerate_cells(settings, phase, "small") if cell.contestant in scores and cell not in leave_out]
    for cell in cells:
        write_json(result_path(folder, cell, recipe(settings, cell).trial), made_up_cell(settings, cell, scores[cell.contestant]))
    return cells

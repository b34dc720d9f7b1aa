"""The committed settings hold together, and no task can be both tuned on and confirmed with."""

import collections
import dataclasses
import fnmatch

import pytest
from made_up import small, write_settings

from benchmarks.claims.cells import enumerate_cells
from benchmarks.claims.finished import sort_out
from benchmarks.claims.recipe import recipe
from benchmarks.claims.settings import PHASES, read_settings
from benchmarks.claims.store import RESULTS, read_results
from ebt_jax import simulators
from ebt_jax.training.settings import Settings

CONTESTANTS = {
    "ebt-mse",
    "ebt-energy-score",
    "equilibrium",
    "diffusion",
    "flow",
    "regression",
    "contrastive",
    "ebt-paper",
    "equilibrium-energy-score",
    "equilibrium-field",
    "generator",
}


@pytest.mark.parametrize("scale", read_settings().scales)
@pytest.mark.parametrize("phase", PHASES)
def test_every_cell_is_a_training_configuration(phase, scale):
    settings = read_settings()
    assert set(settings.contestants) == CONTESTANTS
    trunks = collections.defaultdict(set)
    for cell in enumerate_cells(settings, phase, scale):
        what = recipe(settings, cell)
        config = {**what.config, "num_steps": 1, "data": {**what.config["data"], "data_dir": "(none)"}}
        made = Settings.from_dict(config)
        rate = what.pretraining[0]["optimizer"]["learning_rate"] if what.pretraining else made.optimizer.learning_rate  # then more gently
        trunks[cell.suite].add(repr((made.model, made.batch_size, dataclasses.replace(made.optimizer, learning_rate=rate))))
    assert {len(one) for one in trunks.values()} <= {1}, "contestants must share trunk, batch size and optimiser until trials say otherwise"


def test_what_was_confirmed_was_confirmed_from_these_settings_and_from_one_code():
    settings = read_settings()
    results = read_results(RESULTS, "confirmation")
    for scale in settings.scales:
        finished = sort_out(settings, "confirmation", scale, results)
        assert not finished.others
    assert {cell.scale for cell, _ in results} <= set(settings.scales)


def test_tasks_of_the_phases_are_disjoint_where_there_is_a_choice():
    suites = read_settings().scale("small").suites.values()
    tuned, fresh = ({(suite.simulator, suite.task) for suite in suites if phase in suite.phases} for phase in PHASES)
    assert {simulator for simulator, _ in tuned & fresh} == {"pusht"}
    assert len(simulators.tasks("pusht")) == 1
    assert len([task for task in fresh if task[0] == "metaworld"]) == 3


def test_one_task_may_be_seen_in_two_ways_in_one_phase():
    suites = read_settings().scale("full").suites
    assert suites["square"].tasks == suites["square-pixels"].tasks
    assert suites["square"].phases == suites["square-pixels"].phases
    assert (suites["square"].cameras, suites["square-pixels"].cameras) == ((), ("primary", "wrist"))


def test_a_camera_s_policy_is_not_told_where_things_lie():
    for scale in read_settings().scales.values():
        for suite in scale.suites.values():
            if suite.cameras:
                state = [dimension.name for dimension in simulators.embodiment(suite.simulator).proprio]
                patterns = suite.config["data"]["proprio"]
                shown = [name for name in state if any(fnmatch.fnmatchcase(name, pattern) for pattern in patterns)]
                assert shown
                assert not [name for name in shown if name.startswith(("object", "goal", "keypoint"))]


def both_phases(tree):
    suite = tree["scales"]["small"]["suites"]["assembly"]
    suite["phases"], suite["episodes"] = list(PHASES), dict.fromkeys(PHASES, 50)


def under_two_names(tree):
    suites = tree["scales"]["small"]["suites"]
    suites["again"] = {**suites["assembly"], "phases": ["confirmation"], "episodes": {"confirmation": 50}}


def unknown_sampler(tree):
    tree["comparisons"].append(["flow/10", "flow/3"])


def falling_budgets(tree):
    tree["scales"]["small"]["suites"]["pusht"]["budgets"] = [6, 2]


def nameless(tree):
    tree["contestants"]["flow"]["config"] = {}


def stranger_at_a_scale(tree):
    tree["scales"]["small"]["contestants"] = ["flow", "guessing"]


def of_other_states(tree):
    tree["scales"]["small"]["suites"]["pusht"]["states"] = "easy"


def some_people(tree):
    tree["scales"]["small"]["suites"]["pusht"]["demonstrations"] = 10


def few_checkpoints(tree):
    tree["scales"]["small"]["suites"]["assembly"]["checkpoints"] = 3


def one_unknown_of_two(tree):
    tree["scales"]["small"]["suites"]["assembly"]["task"] = ["assembly-v3", "cooking-v3"]


def without_margin(tree):
    del tree["margin"]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (both_phases, "task 'assembly-v3' must belong to one phase"),
        (under_two_names, "a task must belong to one phase"),
        (unknown_sampler, "comparisons must be between .* got 'flow/3'"),
        (falling_budgets, "budgets of 'pusht' must be rising"),
        (nameless, "must name its method"),
        (stranger_at_a_scale, r"contestants of scale 'small' must be among .* got \['guessing'\]"),
        (of_other_states, "states of 'pusht' must be one of .* got 'easy'"),
        (some_people, r"demonstrations of 'pusht', which people showed, must be 0 \(all\) or 90"),
        (few_checkpoints, "checkpoints of 'assembly-v3' must be 1 or at least 5, got 3"),
        (one_unknown_of_two, "task must be one of .* or several, got 'assembly-v3, cooking-v3'"),
        (without_margin, "must hold margin"),
    ],
)
def test_what_does_not_hold_together_is_refused(change, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write_settings(tmp_path, change)


def test_what_a_scale_depends_on_is_hashed_and_no_other_scale(tmp_path):
    before = write_settings(tmp_path, small).sha256["small"]

    def with_another_scale(tree):
        small(tree)
        tree["scales"]["large"] = tree["scales"]["small"]

    assert write_settings(tmp_path, with_another_scale).sha256["small"] == before
    for change in (
        lambda tree: tree.update(margin=0.1),
        lambda tree: tree["comparisons"].append(["flow/10", "ebt-mse/2"]),
        lambda tree: tree["primary"].append(["flow/10", "ebt-mse/2"]),
        lambda tree: tree["contestants"]["flow"]["samplers"].update({"3": 3}),
        lambda tree: tree["scales"]["small"].update(warmup=0.1),
    ):
        assert write_settings(tmp_path, lambda tree, change=change: (small(tree), change(tree))).sha256["small"] != before


def test_an_unknown_scale_lists_the_known(tmp_path):
    with pytest.raises(ValueError, match=r"scale must be one of \['small'\], got 'huge'"):
        write_settings(tmp_path, small).scale("huge")

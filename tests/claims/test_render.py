"""Pages of made-up cells: what is there, what is not, and nothing claimed without its seeds."""

import json

import pytest
from made_up import MADE_UP, made_up_cell, small, write_cells, write_settings

from benchmarks.claims.cells import Cell, Wanted, enumerate_cells, initial_states, result_path
from benchmarks.claims.plots import palette
from benchmarks.claims.provenance import SAME_DATA
from benchmarks.claims.recipe import recipe
from benchmarks.claims.render import render
from benchmarks.claims.settings import read_settings
from benchmarks.claims.store import write_json


def row(page, *beginning):
    (found,) = [line for line in page.splitlines() if line.startswith("| " + " | ".join(beginning))]
    return [cell.strip() for cell in found.strip("|").split("|")]


def section(page, title):
    return page.split(title)[1].split("\n## ")[0]


def test_a_complete_confirmation_gives_verdicts_and_shows_every_seed(tmp_path):
    settings = write_settings(tmp_path, small)
    write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.70, "flow": 0.71})
    path = render(settings, "confirmation", "small", tmp_path)
    page = path.read_text()
    assert "No cell is missing." in page
    assert MADE_UP in page
    assert "Development" not in page
    cheap = section(page, "## pusht (human demonstrations), 2 core-minutes")
    contestant, steps, score, each, *_ = row(cheap, "ebt-mse", "2")
    assert (contestant, steps) == ("ebt-mse", "2")
    mean, low, high = (float(number.strip("[],")) for number in score.split())
    assert low <= mean <= high
    assert mean == pytest.approx(0.70, abs=0.01)
    assert len(each.split(", ")) == 3
    *_, seeds, said = row(cheap, "ebt-mse/2", "flow/10")
    assert said in ("as good", "worse by less than the margin")
    assert len(seeds.split(", ")) == 3
    _, _, pusht, _, said = row(page.split("## Primary")[1], "ebt-mse/2", "flow/10")
    assert float(pusht) == pytest.approx(-0.01, abs=0.01)
    assert said in ("as good", "worse by less than the margin")
    assert (tmp_path / "confirmation" / "small_compute.png").read_bytes().startswith(b"\x89PNG")
    assert len(set(palette(read_settings()).values())) == len(read_settings().contestants)
    assert (tmp_path / "confirmation" / "small_steps.png").stat().st_size > 10_000


def test_missing_cells_are_named_and_verdicts_wait_for_them(tmp_path):
    settings = write_settings(tmp_path, small)
    (absent,) = enumerate_cells(settings, "confirmation", "small", Wanted(contestants=("flow",), budgets=(6,), seeds=(1,)))
    write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.9, "flow": 0.5}, leave_out=[absent])
    page = render(settings, "confirmation", "small", tmp_path).read_text()
    assert "Missing: 1 of 12 cells." in page
    assert row(page, "pusht", "6") == ["pusht", "6", "flow: 1"]
    assert row(section(page, ", 2 core-minutes"), "ebt-mse/2", "flow/10")[-1] == "better"
    assert row(section(page, ", 6 core-minutes"), "ebt-mse/2", "flow/10")[-1] == "none: 2 of 3 seeds"


def test_one_network_gets_wilson_and_no_verdict(tmp_path):
    settings = write_settings(tmp_path, lambda tree: (small(tree), tree["scales"]["small"]["suites"]["pusht"].update(seeds=1)))
    write_cells(settings, tmp_path, "development", {"ebt-mse": 0.9, "flow": 0.5})
    page = render(settings, "development", "small", tmp_path).read_text()
    assert "None of them is evidence for a claim." in page
    cheap = section(page, ", 2 core-minutes")
    assert row(cheap, "ebt-mse", "2")[4] == "1.00 [0.84, 1.00]"  # Wilson of 20 of 20
    assert row(cheap, "ebt-mse/2", "flow/10")[-1] == "none: 1 of 1 seeds"


def test_a_training_that_diverged_scores_nothing(tmp_path):
    settings = write_settings(tmp_path, small)
    write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.9, "flow": 0.9})
    cell = Cell("confirmation", "small", "pusht", "ebt-mse", 2, 2)
    path = result_path(tmp_path, cell, recipe(settings, cell).trial)
    path.write_text(json.dumps({**json.loads(path.read_text()), "samplers": {}, "diverged": "loss must stay finite"}))
    page = section(render(settings, "confirmation", "small", tmp_path).read_text(), ", 2 core-minutes")
    assert row(page, "ebt-mse", "2")[3].endswith("0.00 (diverged)")
    assert row(page, "ebt-mse/2", "flow/10")[4].endswith("-0.90")


def test_where_nobody_can_do_it_nobody_is_as_good(tmp_path):
    settings = write_settings(tmp_path, small)
    write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.03, "flow": 0.03})
    page = section(render(settings, "confirmation", "small", tmp_path).read_text(), ", 2 core-minutes")
    assert row(page, "ebt-mse/2", "flow/10")[-1] == "none: floor"


def test_a_task_that_nobody_can_do_does_not_make_all_as_good(tmp_path):
    def two_tasks(tree):
        small(tree)
        other = {**tree["scales"]["small"]["suites"]["pusht"], "simulator": "metaworld", "task": "hammer-v3", "phases": ["confirmation"]}
        tree["scales"]["small"]["suites"]["hammer"] = {**other, "budgets": [6], "episodes": {"confirmation": 20}}

    settings = write_settings(tmp_path, two_tasks)
    write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.03, "flow": 0.03})

    def primary():
        page = render(settings, "confirmation", "small", tmp_path).read_text()
        return row(page.split("## Primary")[1], "ebt-mse/2", "flow/10")[-2:]

    assert primary() == ["", "none; without pusht: floor, hammer: floor"]
    for cell in enumerate_cells(settings, "confirmation", "small", Wanted(suites=("pusht",))):
        tree = made_up_cell(settings, cell, 0.9 if cell.contestant == "flow" else 0.6)
        write_json(result_path(tmp_path, cell, tree["trial"]), tree)
    difference, said = primary()
    assert difference.startswith("-0.3")
    assert said == "worse; without hammer: floor"


def test_what_goes_wrong_has_a_table_of_its_own(tmp_path):
    settings = write_settings(tmp_path, small)
    cells = write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.9, "flow": 0.5})
    for cell in cells:
        path = result_path(tmp_path, cell, recipe(settings, cell).trial)
        tree = json.loads(path.read_text())
        for name, found in tree["samplers"].items():
            if name.endswith("pushed"):
                found["episodes"]["score"] = [0.25 for _ in found["episodes"]["score"]]
        path.write_text(json.dumps(tree))
    page = section(render(settings, "confirmation", "small", tmp_path).read_text(), ", 2 core-minutes")
    table = page.split("Under disturbance (pushed: at 100, push 80; noisy: noise 0.1):")[1]
    name, plain, pushed, noisy = row(table, "ebt-mse, 2")
    assert pushed == "0.25 [0.25, 0.25]"
    assert plain[:3] == noisy[:3] == "0.9"


def test_a_sampler_that_was_not_finite_scores_nothing(tmp_path):
    settings = write_settings(tmp_path, small)
    write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.9, "flow": 0.9})
    cell = Cell("confirmation", "small", "pusht", "ebt-mse", 2, 2)
    path = result_path(tmp_path, cell, recipe(settings, cell).trial)
    tree = json.loads(path.read_text())
    two, episodes = tree["samplers"]["2"], recipe(settings, cell).episodes
    two["episodes"] = {"state": two["episodes"]["state"], "score": [0] * episodes, "success": [0] * episodes}
    path.write_text(json.dumps({**tree, "samplers": {**tree["samplers"], "2": {**two, "not_finite": "actions must be finite"}}}))
    page = section(render(settings, "confirmation", "small", tmp_path).read_text(), ", 2 core-minutes")
    assert row(page, "ebt-mse", "2")[3].endswith("0.00 (not finite)")
    assert "finite" not in row(page, "ebt-mse", "1")[3]
    assert row(page, "ebt-mse/2", "flow/10")[4].endswith("-0.90")


def test_what_the_descent_says_is_held_against_what_became_of_it(tmp_path):
    settings = write_settings(tmp_path, small)
    for cell in write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.5, "flow": 0.5}):
        path = result_path(tmp_path, cell, recipe(settings, cell).trial)
        tree = json.loads(path.read_text())
        if cell.contestant == "ebt-mse":
            told = tree["samplers"]["2"]["episodes"]
            told["score"] = [0.2] * 10 + [1.0] * 10
            told["energy_first"] = [*range(20, 0, -1)]  # failures lie highest
            told["gradient_norm_first"] = [1.0] * 20
            told["energy_drop_first"] = [*range(10), *range(10)]
            noisy = tree["samplers"]["2, noisy"]["episodes"]
            noisy["energy_first"] = [100, None, *range(-18, 0)]  # 2 of 20 lie above all others
            noisy["gradient_norm_first"] = [2.0] * 20
            if cell.budget == 6:
                del tree["samplers"]["2, noisy"]
        path.write_text(json.dumps(tree))
    whole = render(settings, "confirmation", "small", tmp_path).read_text()
    assert row(section(whole, ", 6 core-minutes"), "ebt-mse, energy ")[1:] == ["1.00", "1.00, 1.00, 1.00", "0.50", "0.00", "", ""]
    page = section(whole, ", 2 core-minutes")
    energy = row(page, "ebt-mse, energy ")
    assert energy[1:] == ["1.00", "1.00, 1.00, 1.00", "0.50", "0.00", "0.10", "0.10, 0.10, 0.10"]
    assert row(page, "ebt-mse, gradient_norm")[1:] == ["0.50", "0.50, 0.50, 0.50", "0.50", "0.50", "1.00", "1.00, 1.00, 1.00"]
    drop = row(page, "ebt-mse, energy_drop")
    assert drop[5:] == ["", ""]  # nobody asked it with noise
    assert not [line for line in page.splitlines() if line.startswith("| flow, energy")]


def test_answers_that_rest_by_themselves_are_shown_with_the_steps_they_took(tmp_path):
    def resting(tree):
        small(tree)
        tree["contestants"]["ebt-mse"]["samplers"]["adaptive"] = {"num_steps": 9, "stopping": {"min_step_length": 0.01}}

    settings = write_settings(tmp_path, resting)
    for cell in write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.9, "flow": 0.5}):
        path = result_path(tmp_path, cell, recipe(settings, cell).trial)
        tree = json.loads(path.read_text())
        if "adaptive" in tree["samplers"]:
            found = tree["samplers"]["adaptive"]
            del found["latency_ms"], found["chunk_flops"]
            found["episodes"]["num_steps_mean"] = [4.0 + cell.seed] * 20
        path.write_text(json.dumps(tree))
    page = section(render(settings, "confirmation", "small", tmp_path).read_text(), ", 2 core-minutes")
    assert row(page, "ebt-mse", "5.0 (ADAPTIVE, at most 9)")[-3:] == ["", "", ""]


def test_other_trials_are_counted_and_do_not_enter(tmp_path):
    settings = write_settings(tmp_path, small)
    write_cells(settings, tmp_path, "development", {"flow": 0.5})
    slower = write_settings(
        tmp_path, lambda tree: (small(tree), tree["contestants"]["flow"]["config"].update(optimizer={"learning_rate": 1e-4}))
    )
    write_cells(slower, tmp_path, "development", {"flow": 0.9})
    page = render(settings, "development", "small", tmp_path).read_text()
    assert row(section(page, ", 2 core-minutes"), "flow", "10")[2].startswith("0.5")
    assert row(page.split("## Trials")[1], "flow") == ["flow", "2", "2"]
    assert row(page.split("## Trials")[1], "ebt-mse") == ["ebt-mse", "0", "0"]
    assert "Not every contestant was tried as often: pusht, 2; pusht, 6." in page


def test_a_confirmation_under_changed_settings_is_refused(tmp_path):
    """Even where only a comparison was added, after the fact."""
    settings = write_settings(tmp_path, small)
    write_cells(settings, tmp_path, "confirmation", {"flow": 0.5})
    later = write_settings(tmp_path, lambda tree: (small(tree), tree["comparisons"].append(["ebt-mse/4", "flow/4"])))
    with pytest.raises(ValueError, match="must come from settings.json as it is"):
        render(later, "confirmation", "small", tmp_path)


def edit(settings, folder, cell, **changes):
    path = result_path(folder, cell, recipe(settings, cell).trial)
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


DIFFERENCES = [
    ({"data_sha256": "other"}, "data_sha256 of pusht 'unknown' .*, 'other'"),
    ({"sources": {"ebt_jax": "other"}}, "sources of ebt_jax 'unknown' .*ebt-mse.*, 'other' .*flow"),
    ({"versions": {"jax": "0.1"}}, "jax 'unknown' .*, '0.1'"),
    ({"hardware": {"cpu": MADE_UP, "cores": 2, "devices": "none", "xla_flags": "--fast"}}, "xla_flags 'unknown' .*, '--fast'"),
]


@pytest.mark.parametrize(("changes", "message"), DIFFERENCES)
def test_a_confirmation_of_cells_that_came_about_differently_is_refused(changes, message, tmp_path):
    settings = write_settings(tmp_path, small)
    cells = write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.9, "flow": 0.5})
    edit(settings, tmp_path, cells[-1], **changes)
    with pytest.raises(ValueError, match=f"must come from the same sources, packages, XLA flags and data, got {message}"):
        render(settings, "confirmation", "small", tmp_path)


def test_conversions_that_hold_the_same_are_the_same_data(tmp_path):
    settings = write_settings(tmp_path, small)
    cells = write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.9, "flow": 0.5})
    (later, first), *_ = SAME_DATA.items()
    for number, cell in enumerate(cells):
        edit(settings, tmp_path, cell, data_sha256=first if number % 2 else later)
    assert "No cell is missing." in render(settings, "confirmation", "small", tmp_path).read_text()


def test_rollouts_elsewhere_than_the_training_are_seen(tmp_path):
    settings = write_settings(tmp_path, small)
    (cell, *_) = write_cells(settings, tmp_path, "confirmation", {"flow": 0.5})
    path = result_path(tmp_path, cell, recipe(settings, cell).trial)
    samplers = json.loads(path.read_text())["samplers"]
    samplers["10"]["machine"] = {"cpu": "another", "xla_flags": ""}
    edit(settings, tmp_path, cell, samplers=samplers)
    page = render(settings, "development", "small", tmp_path)
    with pytest.raises(ValueError, match="xla_flags '' .*, 'unknown'"):
        render(settings, "confirmation", "small", tmp_path)
    assert "No cell is finished." in page.read_text()


def test_development_says_which_cells_came_about_differently(tmp_path):
    settings = write_settings(tmp_path, small)
    cells = write_cells(settings, tmp_path, "development", {"ebt-mse": 0.9, "flow": 0.5})
    edit(settings, tmp_path, cells[0], versions={"jax": "0.1"}, sources={"ebt_jax": "other"})
    page = render(settings, "development", "small", tmp_path).read_text()
    said = "Not all of these cells came about alike: jax '0.1' (ebt-mse, seed 0), 'unknown' (ebt-mse, seed 1)."
    assert said in section(page, ", 2 core-minutes")
    assert "came about alike" not in section(page, ", 6 core-minutes")


def test_other_initial_states_do_not_pair(tmp_path):
    settings = write_settings(tmp_path, small)
    cells = write_cells(settings, tmp_path, "confirmation", {"ebt-mse": 0.5, "flow": 0.5})
    path = result_path(tmp_path, cells[0], recipe(settings, cells[0]).trial)
    tree = json.loads(path.read_text())
    for found in tree["samplers"].values():
        found["episodes"]["state"][0] += 1
    path.write_text(json.dumps(tree))
    with pytest.raises(ValueError, match="must start from the initial states of its seed"):
        render(settings, "confirmation", "small", tmp_path)


def test_an_empty_folder_says_so(tmp_path):
    settings = write_settings(tmp_path, small)
    page = render(settings, "development", "small", tmp_path).read_text()
    assert "No cell is finished." in page
    assert "Missing: 12 of 12 cells." in page


def test_a_broken_file_is_named(tmp_path):
    settings = write_settings(tmp_path, small)
    (cell, *_) = write_cells(settings, tmp_path, "development", {"flow": 0.5})
    path = result_path(tmp_path, cell, recipe(settings, cell).trial)
    path.write_text(path.read_text()[:100])
    with pytest.raises(ValueError, match=f"{path.name} must hold a finished cell"):
        render(settings, "development", "small", tmp_path)


def test_one_policy_of_many_tasks_is_shown_by_task(tmp_path):
    def two_tasks(tree):
        breadth = tree["scales"]["breadth"]
        small(tree)
        suite = {**breadth["suites"]["ten-tasks"], "task": ["reach-v3", "push-v3"]}
        tree["scales"]["small"] = {**breadth, "suites": {"both": suite}, "contestants": ["flow"]}

    settings = write_settings(tmp_path, two_tasks)
    for cell in enumerate_cells(settings, "confirmation", "small"):
        tree = made_up_cell(settings, cell, 0.5)
        told = tree["samplers"]["10"]["episodes"]
        half = len(initial_states(settings, cell)) // 2
        told |= {"state": initial_states(settings, cell), "score": [1.0] * half + [0.25] * half}
        write_json(result_path(tmp_path, cell, tree["trial"]), tree)
    page = render(settings, "confirmation", "small", tmp_path).read_text()
    assert row(page, "flow, 10", "1.00")[1:] == ["1.00", "0.25"]
    assert row(page, "contestant, steps", "reach-v3")
    assert "No cell is missing." in page

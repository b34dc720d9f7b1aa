"""The page of claims: verdicts of what is there, and nothing of what is not."""

import numpy as np
import pytest
from made_up import made_up_cell, write_cells, write_settings

from benchmarks.claims.cells import Wanted, enumerate_cells, result_path
from benchmarks.claims.claims import CLAIMS, DIFFUSION, HEADLINE, OF_THE_PAPER, OTHER_ENERGIES, holds
from benchmarks.claims.finished import sort_out
from benchmarks.claims.foresight import Foretold, auroc_error, of_planned
from benchmarks.claims.frozen import ROOT
from benchmarks.claims.page import claim_plots, claim_section, claims_page, foreseen, foresight_section, in_short, readme_section
from benchmarks.claims.published import published_table, read_published
from benchmarks.claims.render import between_marks, finished_scales
from benchmarks.claims.scores import headline
from benchmarks.claims.settings import Answer, read_settings
from benchmarks.claims.store import RESULTS, read_results, read_timing, write_json
from ebt_jax.evaluation.doubt import auroc

STEPS, _, TWINS, BY_ITSELF, *_ = CLAIMS
PUSHED = next(claim for claim in CLAIMS if claim.condition == "pushed")


def pusht_alone(tree):
    suite = {**tree["scales"]["small"]["suites"]["pusht"], "budgets": [2, 6], "episodes": {"development": 20, "confirmation": 20}}
    tree["scales"]["small"]["suites"] = {"pusht": suite}


def row(page, *beginning):
    (found,) = [line for line in page.splitlines() if line.startswith("| " + " | ".join(beginning) + " |")]
    return [cell.strip() for cell in found.strip("|").split("|")]


@pytest.fixture
def shown(tmp_path):
    """settings, and a function of scores (and cells left out) that gives what is finished."""
    settings = write_settings(tmp_path, pusht_alone)

    def finish(scores, leave_out=()):
        write_cells(settings, tmp_path, "confirmation", scores, leave_out)
        return sort_out(settings, "confirmation", "small", read_results(tmp_path, "confirmation"))

    return settings, finish


def test_every_claim_compares_answers_that_every_suite_is_asked_for():
    settings = read_settings()
    for claim in CLAIMS:
        for name in (name for names in claim.comparisons for name in names):
            answer = Answer.parse(name)
            assert answer.sampler in settings.contestants[answer.contestant].samplers
            if claim.condition:  # the first sampler alone is asked while something goes wrong
                assert answer.sampler == settings.contestants[answer.contestant].first
    for name in (member for claim in CLAIMS for side in claim.sides.values() for member in side):
        assert Answer.parse(name).contestant in settings.contestants
    for name in HEADLINE:
        answer = Answer.parse(name)
        assert answer.sampler in settings.contestants[answer.contestant].samplers


def test_the_sides_are_those_that_have_an_energy():
    methods = {name: one.config["method"] for name, one in read_settings().contestants.items()}
    with_one = {name for name, method in methods.items() if method["name"] in ("ebt", "equilibrium", "contrastive")}
    fields = {name for name, method in methods.items() if method.get("head") == "vector"}
    assert {*OF_THE_PAPER, *OTHER_ENERGIES} == with_one - fields


def test_a_claim_is_judged_where_all_trainings_are_there(shown):
    settings, finish = shown
    (absent,) = enumerate_cells(settings, "confirmation", "small", Wanted(contestants=("diffusion",), budgets=(6,), seeds=(1,)))
    finished = finish({"equilibrium": 0.8, "diffusion": 0.5, "flow": 0.9}, [absent])
    section = claim_section(settings, finished, "small", STEPS)
    assert "With other energies: **holds so far**: pusht, 2 (`equilibrium/2`)." in section
    assert "With the paper's objective: **not judged yet**." in section
    _, _, two, six, pooled = row(section, "equilibrium/2", "diffusion/ddpm-100")
    assert two.startswith("0.3")
    assert two.endswith("**better**")
    assert six.startswith("0.3")
    assert six.endswith("] (2 of 3 trainings)")
    assert pooled == ""
    assert row(section, "equilibrium/2", "flow/2")[-1].endswith("worse")


def test_what_goes_wrong_is_compared_as_it_went(shown, tmp_path):
    settings, finish = shown
    finish({"equilibrium": 0.8, "diffusion": 0.5})
    for cell in enumerate_cells(settings, "confirmation", "small", Wanted(contestants=("equilibrium",))):
        tree = made_up_cell(settings, cell, 0.8)
        tree["samplers"]["2, pushed"]["episodes"]["score"] = [0.25] * 20
        write_json(result_path(tmp_path, cell, tree["trial"]), tree)
    finished = sort_out(settings, "confirmation", "small", read_results(tmp_path, "confirmation"))
    _, _, two, six, _ = row(claim_section(settings, finished, "small", PUSHED), "equilibrium/2", "diffusion/ddpm-100")
    assert two.endswith("**worse**")
    assert six.endswith("**worse**")
    dropped = next(claim for claim in CLAIMS if claim.condition == "dropped")
    assert "| subject | reference | all, largest budgets [99 %] |" in claim_section(
        settings, finished, "small", dropped
    )  # PushT has no gripper
    page = claims_page(settings, {"small": finished}).split("## When something goes wrong")[1]
    pushed, noisy = (page.split(f"\n{condition}:\n\n")[1].split("\n\n")[0] for condition in ("Pushed", "Noisy"))
    assert row(pushed, "`equilibrium`, 2") == ["`equilibrium`, 2", "0.25", "0.25"]  # the push starts the score anew
    score, change = row(noisy, "`equilibrium`, 2")[1].split(" ", 1)
    assert score.startswith("0.8")
    assert change.startswith("(0.00")


def test_what_a_disturbance_changes_is_told_beside_who_is_better_under_it(shown, tmp_path):
    """Worse with noise, because worse without: the noise itself costs the subject a tenth less."""
    settings, finish = shown
    finish({"equilibrium": 0.5, "diffusion": 0.9})
    for cell in enumerate_cells(settings, "confirmation", "small", Wanted(contestants=("equilibrium", "diffusion"))):
        equilibrium = cell.contestant == "equilibrium"
        tree = made_up_cell(settings, cell, 0.5)
        plain, noisy, changed = ("2", "2, noisy", -0.1) if equilibrium else ("ddpm-100", "ddpm-100, noisy", -0.2)
        before = np.linspace(0.4, 0.6, 20) if equilibrium else np.linspace(0.9, 1.0, 20)
        tree["samplers"][plain]["episodes"]["score"] = before.tolist()
        tree["samplers"][noisy]["episodes"]["score"] = (before + changed).tolist()
        write_json(result_path(tmp_path, cell, tree["trial"]), tree)
    finished = sort_out(settings, "confirmation", "small", read_results(tmp_path, "confirmation"))
    section = claim_section(settings, finished, "small", next(claim for claim in CLAIMS if claim.condition == "noisy"))
    compared, changes = section.split("What it changed of the subject's score")
    assert row(compared, "equilibrium/2", "diffusion/ddpm-100")[2].endswith("**worse**")
    assert row(changes, "equilibrium/2", "diffusion/ddpm-100")[2:] == ["0.10 [0.10, 0.10]"] * 2
    assert "Judged against `diffusion/ddpm-100` alone" in compared


def test_the_headline_shows_the_largest_budget_that_is_complete(shown):
    settings, finish = shown
    assert headline(settings, finish({"flow": 0.5}), "small", {}) == "No task is complete yet."
    (absent,) = enumerate_cells(settings, "confirmation", "small", Wanted(contestants=("flow",), budgets=(6,), seeds=(1,)))
    finished = finish(dict.fromkeys(settings.contestants, 0.5))
    assert "pusht, 6 core-minutes" in headline(settings, finished, "small", {})
    finished.missing.append(absent)
    table = headline(settings, finished, "small", {})
    assert "pusht, 2 core-minutes" in table
    _, score, operations, one, many = row(table, "`diffusion`, 100 (DDPM)")
    assert score.startswith("0.5")
    assert (operations, one, many) == ("1.0", "1.0", "1.0")
    calls = {"latency_ms": {"1": {"p50": 7.0}, "32": {"p50": 9.0}}, "chunk_flops": 2e6}
    idle = {"suite": "pusht", "cores": 1, "hardware": {"cpu": "a processor"}, "contestants": {"diffusion": {"ddpm-100": calls}}}
    timed = headline(settings, finished, "small", idle)
    assert row(timed, "`diffusion`, 100 (DDPM)")[2:] == ["2.0", "7.0", "9.0"]
    assert row(timed, "`flow`, 10")[2:] == ["1.0", "1.0", "1.0"]
    page = claims_page(settings, {"small": finished}, timings={"small": idle})
    assert "costs on one core of an idle CPU." in page
    assert "Latencies are of an idle machine (a processor; p50" in page


def test_a_training_that_diverged_is_marked_in_the_headline(shown, tmp_path):
    settings, finish = shown
    finish(dict.fromkeys(settings.contestants, 0.5))
    (cell,) = enumerate_cells(settings, "confirmation", "small", Wanted(contestants=("flow",), budgets=(6,), seeds=(1,)))
    tree = {**made_up_cell(settings, cell, 0.5), "samplers": {}, "diverged": "loss must stay finite"}
    write_json(result_path(tmp_path, cell, tree["trial"]), tree)
    finished = sort_out(settings, "confirmation", "small", read_results(tmp_path, "confirmation"))
    assert row(headline(settings, finished, "small", {}), "`flow`, 10")[1].endswith("(0.00 to 0.50) (diverged)")
    page = claims_page(settings, {"small": finished})
    assert "nan" not in page
    budgets = page.split("## Less training")[1]
    assert row(budgets.split("\n## ")[0], "`diffusion`, 100 (DDPM)")[2::2] == ["200", "600"]


def test_other_measures_and_steps_are_shown_where_a_place_is_complete(shown):
    settings, finish = shown
    page = claims_page(settings, {"small": finish({"flow": 0.5})})
    assert "## By other measures" not in page
    assert "## Less training" not in page
    page = claims_page(settings, {"small": finish(dict.fromkeys(settings.contestants, 0.6))})
    measures, differences = page.split("## By other measures")[1].split("Differences of the comparisons")
    _, success, final, jitter = row(measures, "`flow`, 2")
    assert success == "1.00"
    assert final.startswith("0.3")
    assert jitter == "0.010"
    assert row(differences.split("\n## ")[0], "flow/2", "diffusion/ddpm-100")[3] == "0.00 [0.00, 0.00]"
    steps = page.split("## Score against steps")[1].split("\n## ")[0]
    header = row(steps, "contestant")
    assert header == ["contestant", "1", "2", "4", "5", "8", "10", "20", "50", "100", "rests by itself"]
    assert [bool(cell) for cell in row(steps, "`diffusion`")] == [True, True, True, True, False, False, True, False, False, True, False]


def test_energies_that_told_are_shown(shown, tmp_path):
    settings, finish = shown
    finish({"flow": 0.5, "ebt-mse": 0.5})
    for cell in enumerate_cells(settings, "confirmation", "small", Wanted(contestants=("ebt-mse",), budgets=(2,))):
        tree = made_up_cell(settings, cell, 0.5)
        told = tree["samplers"]["2"]["episodes"]
        told |= {"score": [0.2] * 5 + [1.0] * 15, "energy_first": [*range(20, 0, -1)]}
        write_json(result_path(tmp_path, cell, tree["trial"]), tree)
    finished = sort_out(settings, "confirmation", "small", read_results(tmp_path, "confirmation"))
    section = foresight_section(settings, finished, "small")
    assert "foretell failure: **not judged yet**." in section  # five failures say nothing


def test_ten_failures_and_ten_successes_say_something(shown, tmp_path):
    settings, finish = shown
    finish({"flow": 0.5, "ebt-mse": 0.5})
    for cell in enumerate_cells(settings, "confirmation", "small", Wanted(contestants=("ebt-mse",), budgets=(2,))):
        tree = made_up_cell(settings, cell, 0.5)
        tree["samplers"]["2"]["episodes"] |= {"score": [0.2] * 10 + [1.0] * 10, "energy_first": [*range(20, 0, -1)]}
        tree["samplers"]["2, noisy"]["episodes"]["energy_first"] = [30.0] * 20
        write_json(result_path(tmp_path, cell, tree["trial"]), tree)
    finished = sort_out(settings, "confirmation", "small", read_results(tmp_path, "confirmation"))
    section = foresight_section(settings, finished, "small")
    assert "at a confidence that holds for all that are looked at together: 36," in section  # six energies, three statistics, two places
    assert "foretell failure: **some do so far** (`ebt-mse`, energy (pusht, 2: AUROC 1.00))." in section
    assert "lies between 1.00 and 1.00." in section
    assert [line for line in section.splitlines() if line.startswith("| `ebt-mse`")] == [
        "| `ebt-mse`, energy | 1.00 (1.00 to 1.00) |",
        "| `ebt-mse`, energy | 0.50, surer half 0.00 |",
    ]
    assert "claims_foresight.png" in claim_plots(settings, finished, "small")
    assert row(in_short(settings, finished, "small"), "The energy knows when it will fail")[2] == "**some do so far**"
    assert "Missing:" in claims_page(settings, {"small": finished})


def test_what_chance_would_call_is_not_a_verdict():
    """Three trainings above a coin: 0.55 by .01 is more than chance where one statistic is looked at, and not where 24 are."""
    barely, clearly, under = (Foretold(values, [0.01] * 3, 3, 3) for values in ([0.54, 0.55, 0.56], [0.9, 0.905, 0.91], [0.1, 0.095, 0.09]))
    assert (barely.said(), barely.said(24)) == ("better", "undecided")
    assert (clearly.said(24), under.said(24)) == ("better", "worse")
    others = {("other", str(i)): {("pusht", 2): Foretold([0.4, 0.5, 0.6], [0.01] * 3, 3, 3)} for i in range(23)}
    words = "each by itself, as chance calls one in twenty: `ebt`, energy (pusht, 2: AUROC 0.55)"
    assert foreseen({("ebt", "energy"): {("pusht", 2): barely}, **others}, 24, whole=True) == ("not shown", words)
    assert foreseen({("ebt", "energy"): {("pusht", 2): clearly}, **others}, 24, whole=True)[0] == "some do"
    words = "the wrong way round: `ebt`, energy (pusht, 2: AUROC 0.10)"
    assert foreseen({("ebt", "energy"): {("pusht", 2): under}, **others}, 24, whole=True) == ("not shown", words)


def test_trainings_that_agree_by_luck_foretell_nothing():
    """0.55 three times over, of 200 episodes whose own error is .045 (DeLong): the interval is theirs."""
    lucky = Foretold([0.546, 0.55, 0.551], [0.045] * 3, 3, 3)
    assert lucky.said() == "undecided"
    assert lucky.interval() == pytest.approx((0.549, 0.549 - 1.959964 * 0.045 / 3**0.5, 0.549 + 1.959964 * 0.045 / 3**0.5))


def test_the_error_of_an_auroc_is_delongs():
    """Failures 3, 1 and successes 2, 0: shares ranked right 1, 1/2 and 1/2, 1, so that the variance is 1/8 / 2 + 1/8 / 2."""
    failed = np.array([True, True, False, False])
    assert auroc_error(np.array([3.0, 1.0, 2.0, 0.0]), failed) == pytest.approx(0.125**0.5)
    draw = np.random.default_rng(0)
    values, failed = np.concatenate([draw.normal(0.5, 1, 80), draw.normal(0, 1, 120)]), np.arange(200) < 80
    drawn = [auroc(np.concatenate([draw.choice(values[:80], 80), draw.choice(values[80:], 120)]), failed) for _ in range(2000)]
    assert auroc_error(values, failed) == pytest.approx(np.std(drawn), rel=0.1)


def test_trainings_that_seldom_fail_are_not_called_missing():
    assert of_planned(5, 5, 5) == ""
    assert of_planned(1, 1, 5) == " (1 of 5 trainings)"
    assert of_planned(4, 5, 5) == " (4 of 5 trainings fail and succeed enough)"


AT = {"pusht": ("pusht", 2), "hammer": ("hammer", 4)}


@pytest.mark.parametrize(
    ("pusht", "hammer", "words"),
    [
        ({"equilibrium/2": "as good"}, {"equilibrium/2": "better"}, "**holds**: pusht, 2 (`equilibrium/2`); hammer, 4 (`equilibrium/2`)."),
        ({"equilibrium/2": "worse"}, {"equilibrium/2": "better"}, "**holds on some of these tasks**: hammer, 4 (`equilibrium/2`)."),
        ({"equilibrium/2": "worse", "ebt-energy-score/1": "better"}, {}, "**holds**: pusht, 2 (`ebt-energy-score/1`)."),
        (
            {"equilibrium/2": "worse", "ebt-energy-score/1": "better"},
            {"equilibrium/2": "better", "ebt-energy-score/1": "worse"},
            "**holds, each time by another policy**: pusht, 2 (`ebt-energy-score/1`); hammer, 4 (`equilibrium/2`).",
        ),
        (
            {"equilibrium/2": "worse"},
            {"equilibrium/2": "worse by less than the margin"},  # which is as good
            "**holds on some of these tasks**: hammer, 4 (`equilibrium/2`).",
        ),
        ({"equilibrium/2": "worse"}, {"equilibrium/2": "worse"}, "**does not hold**."),
        ({"equilibrium/2": "worse"}, {"equilibrium/2": "undecided"}, "**not shown**."),
        ({"equilibrium/2": "worse"}, {"equilibrium/2": "none: ceiling"}, "**does not hold**: left out hammer, 4: ceiling."),
        (
            {"equilibrium/2": "as good"},
            {"equilibrium/2": "none: ceiling"},
            "**holds**: pusht, 2 (`equilibrium/2`); left out hammer, 4: ceiling.",
        ),
        ({}, {"equilibrium/2": "none: floor"}, "**cannot be judged here**: left out hammer, 4: floor."),
    ],
)
def test_whether_a_claim_holds_in_words(pusht, hammer, words):
    said = {}
    for place, verdicts in (("pusht", pusht), ("hammer", hammer)):
        for subject, verdict in verdicts.items():
            said.setdefault((subject, DIFFUSION), {})[AT[place]] = verdict
            said.setdefault((subject, "flow/2"), {})[AT[place]] = "better"  # against others than the claim speaks of
    said["flow/2", DIFFUSION] = {AT["pusht"]: "better"}  # and of one without an energy
    assert list(map(str, holds(STEPS, said, whole=True))) == [f"With other energies: {words}"]


def test_the_paper_s_objective_is_told_apart_and_what_is_to_come():
    said = {("ebt-mse/2", DIFFUSION): {AT["pusht"]: "worse"}, ("equilibrium/2", DIFFUSION): {AT["pusht"]: "as good"}}
    assert list(map(str, holds(STEPS, said, whole=False))) == [
        "With the paper's objective: **does not hold so far**.",
        "With other energies: **holds so far**: pusht, 2 (`equilibrium/2`).",
    ]
    better = STEPS._replace(enough=("better",))
    assert str(holds(better, said, whole=True)[1]) == "With other energies: **not shown**."
    nothing = {names: {} for names in said}
    assert {one.word for one in holds(STEPS, nothing, whole=False)} == {"not judged yet"}


@pytest.mark.parametrize(
    ("against_5", "against_4", "word"),
    [
        ("worse", "better", "does not hold"),
        ("worse by less than the margin", "better", "does not hold"),
        ("undecided", "better", "not shown"),
        ("better", "better", "holds"),
        ("better", "none: ceiling", "holds"),
        ("better", None, "not judged yet"),
    ],
)
def test_one_favourable_comparison_of_two_is_not_enough(against_5, against_4, word):
    place = AT["pusht"]
    said = {
        ("equilibrium/adaptive", "equilibrium/5"): {place: against_5},
        ("equilibrium/adaptive", "equilibrium/4"): {place: against_4} if against_4 else {},
    }
    (found,) = holds(BY_ITSELF, said, whole=against_4 is not None)
    assert found.word == word


def test_each_loss_is_held_against_its_own_twin():
    place = AT["pusht"]
    said = {
        ("equilibrium/2", "equilibrium-field/2"): {place: "better"},
        ("equilibrium/5", "equilibrium-field/5"): {place: "worse"},
        ("ebt-energy-score/1", "generator/1"): {place: "worse"},
    }
    assert {one.side: one.word for one in holds(TWINS, said, whole=True)} == {
        "equilibrium matching, two steps": "holds",
        "equilibrium matching, five steps": "does not hold",
        "an energy score": "does not hold",
    }


def test_what_is_decided_is_drawn_and_shown(shown, tmp_path):
    settings, finish = shown
    finished = finish({"equilibrium": 0.8, "diffusion": 0.5, "flow": 0.9})
    drawn = claim_plots(settings, finished, "small")
    page = claims_page(settings, {"small": finished}, drawn)
    assert all(f"(images/{name})" in page for name in drawn if name != "claims_compute.png")  # no two budgets are complete
    assert "claims_1.png" in drawn
    assert "claims_3.png" not in drawn  # no twin was run
    labels = [label.get_text() for label in drawn["claims_1.png"].axes[0].get_yticklabels()]
    assert "equilibrium/2 - diffusion/ddpm-100" in labels


def test_other_scales_come_after(shown, tmp_path):
    settings, finish = shown
    small = finish({"flow": 0.5})
    other = Wanted(seeds=(0,), contestants=("equilibrium", "flow"))
    for cell in enumerate_cells(settings, "confirmation", "two-sided", other):
        write_json(result_path(tmp_path, cell, ""), made_up_cell(settings, cell, 0.5))
    two_sided = sort_out(settings, "confirmation", "two-sided", read_results(tmp_path, "confirmation"))
    assert len(two_sided.cells) == 2
    whole = claims_page(settings, {"small": small, "two-sided": two_sided})
    page = whole.split("# Two-sided: reach-around (two ways around a pillar)")[1]
    assert "Missing: 53 of 55 cells." in page
    assert page.count("\n## ") == 3
    assert row(page.split("## It is the energy")[0], "equilibrium/2", "flow/2")[2].endswith(" (1 of 5 trainings)")


def test_a_scale_of_fewer_contestants_shows_no_others(tmp_path):
    settings = read_settings()
    for cell in enumerate_cells(settings, "confirmation", "published"):
        write_json(result_path(tmp_path, cell, ""), made_up_cell(settings, cell, 0.5))
    finished = sort_out(settings, "confirmation", "published", read_results(tmp_path, "confirmation"))
    assert not finished.missing
    shown = headline(settings, finished, "published", {})
    assert "`flow`, 10" in shown
    assert "equilibrium-energy-score" not in shown
    assert "nan" not in shown
    section = claim_section(settings, finished, "published", STEPS)
    assert row(section, "ebt-mse/2", "diffusion/ddpm-100")
    assert "energy-score" not in section.split("\n\n", 2)[2]


@pytest.mark.slow
def test_the_committed_pages_show_the_committed_cells():
    settings = read_settings()
    finished = finished_scales(settings, "confirmation", "small", read_results(RESULTS, "confirmation"))
    remedy = "Run python -m benchmarks.claims.render --phase=confirmation --claims=docs/claims.md --readme=README.md."
    timings = {scale: read_timing(RESULTS, scale) for scale in finished}
    page = claims_page(settings, finished, claim_plots(settings, finished["small"], "small"), timings)
    assert (ROOT / "docs/claims.md").read_text() == page, remedy
    readme = (ROOT / "README.md").read_text()
    assert readme == between_marks(readme, readme_section(settings, finished["small"], "small", timings["small"])), remedy


def test_a_section_takes_the_place_of_the_one_between_the_marks():
    text = "before\n<!-- claims: from here, by this -->\nold\n<!-- claims: to here -->\nafter\n"
    once = between_marks(text, "new")
    assert once == "before\n<!-- claims: from here, by this -->\n\nnew\n\n<!-- claims: to here -->\nafter\n"
    assert between_marks(once, "new") == once
    with pytest.raises(ValueError, match="must have one line that begins with '<!-- claims: from here'"):
        between_marks("nothing marked\n", "new")
    with pytest.raises(ValueError, match="after it"):
        between_marks("\n".join(reversed(text.splitlines())), "new")


def test_published_numbers_stand_beside_suites_that_there_are():
    known = {task for scale in read_settings().scales.values() for suite in scale.suites.values() for task in suite.tasks}
    assert {one.task for one in read_published()} <= known
    both, few = published_table(["pusht"]), published_table(["pusht"], headline=True)
    assert set(few.splitlines()) < set(both.splitlines())
    assert published_table(["nothing published"]) == ""

"""The page of claims: verdicts of what is there, and nothing of what is not."""

import pytest
from made_up import made_up_cell, write_cells, write_settings

from benchmarks.claims.cells import Wanted, enumerate_cells, result_path
from benchmarks.claims.claims import CLAIMS, DIFFUSION, HEADLINE, holds
from benchmarks.claims.finished import sort_out
from benchmarks.claims.frozen import ROOT
from benchmarks.claims.page import claim_plots, claim_section, claims_page, foresight_section, headline, in_words, readme_section
from benchmarks.claims.published import published_table, read_published
from benchmarks.claims.render import between_marks, finished_scales
from benchmarks.claims.settings import Answer, read_settings
from benchmarks.claims.store import RESULTS, read_results, write_json

STEPS, *_ = CLAIMS
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
    for name in HEADLINE:
        answer = Answer.parse(name)
        assert answer.sampler in settings.contestants[answer.contestant].samplers


def test_a_claim_is_judged_where_all_trainings_are_there(shown):
    settings, finish = shown
    (absent,) = enumerate_cells(settings, "confirmation", "small", Wanted(contestants=("diffusion",), budgets=(6,), seeds=(1,)))
    finished = finish({"equilibrium": 0.8, "diffusion": 0.5, "flow": 0.9}, [absent])
    section = claim_section(settings, finished, "small", STEPS)
    assert "- `equilibrium/2` against `diffusion/ddpm-100`: better (pusht, 2)." in section
    assert "- `equilibrium/2` against `flow/2`: worse (pusht, 2 / pusht, 6)." in section
    assert "- `ebt-paper/2` against `diffusion/ddpm-100`: not judged yet." in section
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
    assert "`equilibrium/2` against `diffusion/ddpm-100`: worse (pusht, 2 / pusht, 6)." in claim_section(
        settings, finished, "small", PUSHED
    )
    dropped = next(claim for claim in CLAIMS if claim.condition == "dropped")
    assert "| subject | reference | all, largest budgets |" in claim_section(settings, finished, "small", dropped)  # PushT has no gripper


def test_the_headline_shows_the_largest_budget_that_is_complete(shown):
    settings, finish = shown
    assert headline(settings, finish({"flow": 0.5}), "small") == "No task is complete yet."
    (absent,) = enumerate_cells(settings, "confirmation", "small", Wanted(contestants=("flow",), budgets=(6,), seeds=(1,)))
    finished = finish(dict.fromkeys(settings.contestants, 0.5))
    assert "pusht, 6 core-minutes" in headline(settings, finished, "small")
    finished.missing.append(absent)
    table = headline(settings, finished, "small")
    assert "pusht, 2 core-minutes" in table
    _, score, one, many = row(table, "`diffusion`, 100 (DDPM)")
    assert score.startswith("0.5")
    assert (one, many) == ("1.0", "1.0")


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
    assert section.splitlines()[-3:] == [
        "| contestant, statistic | pusht, 2 |",
        "| --- | --- |",
        "| ebt-mse, energy | 1.00 (1.00 to 1.00) |",
    ]
    assert "foretell failure: **above a coin: ebt-mse, energy (pusht, 2)**, of 1 that were looked at" in section
    assert "claims_foresight.png" in claim_plots(settings, finished, "small")
    page = claims_page(settings, {"small": finished})
    assert page.count("\n## ") == len(CLAIMS) + 2
    assert "Missing:" in page


AT = {"pusht": ("pusht", 2), "hammer": ("hammer", 4)}


@pytest.mark.parametrize(
    ("pusht", "hammer", "words"),
    [
        ({"equilibrium/2": "as good"}, {"equilibrium/2": "better"}, "**holds**: hammer, 4 (`equilibrium/2`); pusht, 2 (`equilibrium/2`)."),
        ({"equilibrium/2": "worse"}, {"equilibrium/2": "better"}, "**holds on some of these tasks**: hammer, 4 (`equilibrium/2`)."),
        ({"equilibrium/2": "worse", "ebt-energy-score/1": "better"}, {}, "**holds**: pusht, 2 (`ebt-energy-score/1`)."),
        ({"equilibrium/2": "worse"}, {"equilibrium/2": "worse by less than the margin"}, "**does not hold**."),
        ({"equilibrium/2": "worse"}, {"equilibrium/2": "undecided"}, "**not shown**."),
        ({"equilibrium/2": "worse"}, {"equilibrium/2": "none: ceiling"}, "**does not hold**."),
        ({}, {"equilibrium/2": "none: floor"}, "**not judged yet**."),
    ],
)
def test_whether_a_claim_holds_in_words(pusht, hammer, words):
    said = {}
    for place, verdicts in (("pusht", pusht), ("hammer", hammer)):
        for subject, verdict in verdicts.items():
            said.setdefault((subject, DIFFUSION), {})[AT[place]] = verdict
            said.setdefault((subject, "flow/2"), {})[AT[place]] = "better"  # against others than the claim speaks of
    said["flow/2", DIFFUSION] = {AT["pusht"]: "better"}  # and of one without an energy
    assert holds(read_settings(), STEPS, said, whole=True) == [f"With other energies: {words}"]


def test_the_paper_s_objective_is_told_apart_and_what_is_to_come():
    said = {("ebt-mse/2", DIFFUSION): {AT["pusht"]: "worse"}, ("equilibrium/2", DIFFUSION): {AT["pusht"]: "as good"}}
    assert holds(read_settings(), STEPS, said, whole=False) == [
        "With the paper's objective: **does not hold so far**.",
        "With other energies: **holds so far**: pusht, 2 (`equilibrium/2`).",
    ]
    better = STEPS._replace(enough=("better",))
    assert holds(read_settings(), better, said, whole=True)[1] == "With other energies: **not shown**."


def test_what_is_decided_is_drawn_and_shown(shown, tmp_path):
    settings, finish = shown
    finished = finish({"equilibrium": 0.8, "diffusion": 0.5, "flow": 0.9})
    drawn = claim_plots(settings, finished, "small")
    page = claims_page(settings, {"small": finished}, drawn)
    assert set(drawn) == {name for name in (f"claims_{number + 1}.png" for number in range(len(CLAIMS))) if f"(images/{name})" in page}
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
    assert row(page.split("## It is the energy")[0], "equilibrium/2", "flow/2")[2].endswith("0.00 (1 of 5 trainings)")


def test_a_scale_of_fewer_contestants_shows_no_others(tmp_path):
    settings = read_settings()
    for cell in enumerate_cells(settings, "confirmation", "published"):
        write_json(result_path(tmp_path, cell, ""), made_up_cell(settings, cell, 0.5))
    finished = sort_out(settings, "confirmation", "published", read_results(tmp_path, "confirmation"))
    assert not finished.missing
    shown = headline(settings, finished, "published")
    assert "`flow`, 10" in shown
    assert "equilibrium-energy-score" not in shown
    assert "nan" not in shown
    section = claim_section(settings, finished, "published", STEPS)
    assert row(section, "ebt-mse/2", "diffusion/ddpm-100")
    assert "energy-score" not in section.split("\n\n", 2)[2]


def test_verdicts_in_words():
    assert in_words({}) == "not judged yet."
    told = {("pusht", 2): "better", ("hammer", 4): "as good", ("pusht", 6): "better"}
    assert in_words(told) == "better (pusht, 2 / pusht, 6); as good (hammer, 4)."


def test_the_committed_pages_show_the_committed_cells():
    settings = read_settings()
    finished = finished_scales(settings, "confirmation", "small", read_results(RESULTS, "confirmation"))
    remedy = "Run python -m benchmarks.claims.render --phase=confirmation --claims=docs/claims.md --readme=README.md."
    page = claims_page(settings, finished, claim_plots(settings, finished["small"], "small"))
    assert (ROOT / "docs/claims.md").read_text() == page, remedy
    readme = (ROOT / "README.md").read_text()
    assert readme == between_marks(readme, readme_section(settings, finished["small"], "small")), remedy


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

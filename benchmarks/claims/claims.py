"""The paper's claims: which answers are held against each other for each, and when it holds. The numbers come from the cells alone."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

from benchmarks.claims.settings import Answer, Contestant, Settings

DIFFUSION = "diffusion/ddpm-100"
THE_PAPERS = ("ebt-paper", "ebt-mse")
"""Contestants of the paper's own objective."""
WAITING = "not judged yet"
LOST = {"worse", "worse by less than the margin"}

Place = tuple[str, int]
"""(suite, core-minutes)."""


class Claim(NamedTuple):
    """Attributes:
    title: what is claimed.
    measured: how it was tried here.
    comparisons: (subject, reference), as "contestant/sampler".
    condition: what goes wrong while both are asked; "" for nothing.
    references: against which of them an energy must stand for the claim to hold; () for all.
    enough: the verdicts that are enough for it.
    picture: what else the page shows, markdown.
    """

    title: str
    measured: str
    comparisons: tuple[tuple[str, str], ...]
    condition: str = ""
    references: tuple[str, ...] = (DIFFUSION,)
    enough: tuple[str, ...] = ("better",)
    picture: str = ""


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
        enough=("better", "as good"),
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
        references=(),
    ),
    Claim(
        "Steps that stop by themselves are worth more than a fixed number",
        "Equilibrium's descent, at rest where its next step would be short, against fixed numbers of steps about its mean.",
        (("equilibrium/adaptive", "equilibrium/5"), ("equilibrium/adaptive", "equilibrium/4")),
        references=(),
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
        picture="![three policies pushed, beside each other](images/recovery.gif)\n\n"
        "The first three initial states of the first training in development (PushT, 2 core-minutes), nothing chosen, four times as fast; "
        "`python -m benchmarks.claims.film` makes such films of any trained cells.",
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


def holds(settings: Settings, claim: Claim, said: Mapping[tuple[str, str], Mapping[Place, str]], whole: bool) -> list[str]:
    """Whether the claim holds, in words: with the paper's objective, and with the other energies.

    "holds": at every place that was judged, some energy does what is claimed; "holds on some of these tasks": at some; "does not hold":
    every energy fails at every place; else "not shown". That one of several does it at a place is said by name, and is less than each of
    them would be.

    Args:
      said: comparison -> place -> verdict, where there is one.
      whole: whether no place waits for its trainings.
    """
    found = []
    for who, names in (("the paper's objective", THE_PAPERS), ("other energies", _others(settings.contestants))):
        theirs = {
            names_: at
            for names_, at in said.items()
            if Answer.parse(names_[0]).contestant in names and (not claim.references or names_[1] in claim.references)
        }
        if theirs:
            held, where = _held(claim, theirs)
            found.append(f"With {who}: **{held}{'' if whole or held == WAITING else ' so far'}**{where}.")
    return found


def _held(claim: Claim, said: Mapping[tuple[str, str], Mapping[Place, str]]) -> tuple[str, str]:
    """In a word, and where by whom."""
    judged = {place for at in said.values() for place, verdict in at.items() if not verdict.startswith("none")}
    if not judged:
        return WAITING, ""
    winners = {place: [names[0] for names, at in said.items() if at.get(place) in claim.enough] for place in sorted(judged)}
    held = {place: names for place, names in winners.items() if names}
    if held:
        who = {place: ", ".join(f"`{name}`" for name in dict.fromkeys(names)) for place, names in held.items()}
        shown = (f"{suite}, {budget} ({names})" for (suite, budget), names in who.items())
        return "holds" if len(held) == len(judged) else "holds on some of these tasks", f": {'; '.join(shown)}"
    verdicts = {verdict for at in said.values() for verdict in at.values() if not verdict.startswith("none")}
    return "does not hold" if verdicts <= LOST else "not shown", ""


def _others(contestants: Mapping[str, Contestant]) -> Collection[str]:
    """Of those that have an energy, the ones that are not the paper's."""
    methods = {name: one.config["method"] for name, one in contestants.items()}
    energies = [name for name, method in methods.items() if method["name"] in ("ebt", "equilibrium", "contrastive")]
    return [name for name in energies if methods[name].get("head") != "vector" and name not in THE_PAPERS]

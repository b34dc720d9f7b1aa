"""The paper's claims: which answers are held against each other for each, and when it holds. The numbers come from the cells alone."""

from collections.abc import Collection, Mapping
from typing import NamedTuple

DIFFUSION = "diffusion/ddpm-100"
WAITING = "not judged yet"
LOST = {"worse", "worse by less than the margin"}

Place = tuple[str, int]
"""(suite, core-minutes)."""

Names = tuple[str, str]
"""(subject, reference), each "contestant/sampler"."""

OF_THE_PAPER = ("ebt-paper", "ebt-mse")
"""Contestants of the paper's own objective."""

OTHER_ENERGIES = ("ebt-energy-score", "equilibrium", "equilibrium-energy-score", "contrastive")

WITH_AN_ENERGY: Mapping[str, Collection[str]] = {"the paper's objective": OF_THE_PAPER, "other energies": OTHER_ENERGIES}


class Claim(NamedTuple):
    """Attributes:
    title: what is claimed.
    measured: how it was tried here.
    comparisons: (subject, reference), as "contestant/sampler".
    condition: what goes wrong while both are asked; "" for nothing.
    references: against which of them an energy must stand for the claim to hold; () for all.
    enough: the verdicts that are enough for it, though one of them be lost by less than the margin.
    sides: of whom it is judged: words -> contestants, or single answers of theirs.
    picture: what else the page shows, markdown.
    """

    title: str
    measured: str
    comparisons: tuple[Names, ...]
    condition: str = ""
    references: tuple[str, ...] = (DIFFUSION,)
    enough: tuple[str, ...] = ("better",)
    sides: Mapping[str, Collection[str]] = WITH_AN_ENERGY
    picture: str = ""


CLAIMS = (
    Claim(
        "Two steps do what diffusion needs a hundred for",
        "The paper's objective with its own descent and with two plain steps, equilibrium matching alone and refined by an energy score, "
        "in two steps each, and an energy score in one, against a hundred of DDPM; and against two of DDIM and of flow matching: the "
        "hundred alone would be a straw man. By best coverage; other measures are above.",
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
        enough=("better", "as good", "worse by less than the margin"),
    ),
    Claim(
        "Energies succeed more often than diffusion policies",
        "Each with the steps that suit it, against DDPM-100, ten steps of flow matching and plain regression.",
        (
            ("ebt-paper/2", "diffusion/ddpm-100"),
            ("ebt-mse/2", "diffusion/ddpm-100"),
            ("ebt-energy-score/1", "diffusion/ddpm-100"),
            ("equilibrium-energy-score/2", "diffusion/ddpm-100"),
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
        sides={
            "equilibrium matching, two steps": ("equilibrium/2",),
            "equilibrium matching, five steps": ("equilibrium/5",),
            "an energy score": ("ebt-energy-score",),
            "an energy score after equilibrium matching": ("equilibrium-energy-score",),
        },
    ),
    Claim(
        "Steps that stop by themselves are worth more than a fixed number",
        "Equilibrium's descent, at rest where its next step would be short, against fixed numbers of steps about its mean, which the table "
        "of steps above tells. It was not timed.",
        (("equilibrium/adaptive", "equilibrium/5"), ("equilibrium/adaptive", "equilibrium/4")),
        references=(),
        sides={"equilibrium's energy": ("equilibrium",)},
    ),
    Claim(
        "Energies recover from pushes that nobody demonstrated",
        "PushT: at step 100 the block jumps 80 px away from wherever the agent is, at most a sixth of a turn to either side (where it "
        "lands is cut to 100 to 400 px, so that a jump may be shorter, and a block that lay outside comes back in), and the score "
        "starts anew (an episode solved before keeps its 1). Meta-World: at step 10 the object jumps 3 cm, in a direction that is the "
        "initial state's; the score is success.",
        (
            ("ebt-mse/2", "diffusion/ddpm-100"),
            ("equilibrium/2", "diffusion/ddpm-100"),
            ("equilibrium-energy-score/2", "diffusion/ddpm-100"),
            ("equilibrium/2", "flow/10"),
            ("equilibrium-energy-score/2", "flow/10"),
        ),
        "pushed",
        picture="![three policies pushed, beside each other](images/recovery.gif)\n\n"
        "Policies of development, not the confirmation's: `equilibrium/2`, DDPM-100 and `flow/2` from the first three initial states of "
        "the first training (PushT, 2 core-minutes), nothing chosen, four times as fast; `python -m benchmarks.claims.film` makes such "
        "films of any trained cells.",
    ),
    Claim(
        "Energies recover from drops",
        "The gripper is held open in steps 40 to 54, whatever the policy asks.",
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
        "The score under noise on everything that the policy sees, a tenth of its standard deviation.",
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
"""Every contestant, as it is mostly asked, and few steps of the baselines; energies without their energy come last."""


class Held(NamedTuple):
    """Whether a claim holds for one side: "holds", "holds, each time by another policy", "holds on some of these tasks", "does not hold",
    "not shown", "cannot be judged here" or "not judged yet"; `where`, by whom, and which places tell nothing."""

    side: str
    word: str
    where: str

    def __str__(self) -> str:
        return f"With {self.side}: **{self.word}**{f': {self.where}' if self.where else ''}."


def holds(claim: Claim, said: Mapping[Names, Mapping[Place, str]], whole: bool) -> list[Held]:
    """Whether the claim holds, for each of its sides of which something was asked.

    At a place a subject does what is claimed where every one of its comparisons that counts gives a verdict that is enough, and fails
    where one of them is lost; comparisons with both on the floor or at the ceiling do not count. "Holds": one subject of the side does it
    at every place that tells anything; where at every one of them some subject does, but none at all, that is said. "Does not hold": at
    every one of them all fail.

    Args:
      said: comparison -> place -> verdict, where all trainings are there.
      whole: whether no place waits for its trainings.
    """
    found = []
    for side, members in claim.sides.items():
        theirs = {
            names: at
            for names, at in said.items()
            if {names[0], names[0].partition("/")[0]} & set(members) and (not claim.references or names[1] in claim.references)
        }
        if theirs:
            word, where = _held(claim, theirs, whole)
            found.append(Held(side, word, where))
    return found


def _held(claim: Claim, said: Mapping[Names, Mapping[Place, str]], whole: bool) -> tuple[str, str]:
    """The word, and where by whom."""
    places = list(dict.fromkeys(place for at in said.values() for place in at))
    subjects = list(dict.fromkeys(subject for subject, _ in said))
    judged = {place: {one: _done(claim, said, one, place) for one in subjects} for place in places}
    told = {place: {one: done for one, done in at.items() if done} for place, at in judged.items()}
    silent = [f"{suite}, {budget}: {why}" for suite, budget in places if not told[suite, budget] and (why := _why(said, (suite, budget)))]
    told = {place: at for place, at in told.items() if at}
    left_out = f"left out {'; '.join(silent)}" if silent else ""
    so_far = "" if whole else " so far"
    if not told:
        return ("cannot be judged here", left_out) if whole and silent else (WAITING, left_out)
    winners = {place: [one for one, done in at.items() if done == "does"] for place, at in told.items()}
    held = [f"{suite}, {budget} ({', '.join(f'`{one}`' for one in names)})" for (suite, budget), names in winners.items() if names]
    where = "; ".join([*held, *([left_out] if left_out else [])])
    if held:
        if any(all(one in winners[place] for place in told) for one in subjects):
            return "holds" + so_far, where
        everywhere = len(held) == len(told)
        return f"holds{so_far}, each time by another policy" if everywhere else f"holds on some of these tasks{so_far}", where
    failed = all(done == "fails" for at in told.values() for done in at.values())
    return ("does not hold" if failed else "not shown") + so_far, where


def _done(claim: Claim, said: Mapping[Names, Mapping[Place, str]], subject: str, place: Place) -> str:
    """ "does" what is claimed, "fails", "undecided"; "" where a comparison waits or none tells anything."""
    mine = [at.get(place) for names, at in said.items() if names[0] == subject]
    if any(verdict is None for verdict in mine):
        return ""
    telling = [verdict for verdict in mine if verdict and not verdict.startswith("none")]
    if not telling:
        return ""
    if any(verdict in LOST and verdict not in claim.enough for verdict in telling):
        return "fails"
    return "does" if all(verdict in claim.enough for verdict in telling) else "undecided"


def _why(said: Mapping[Names, Mapping[Place, str]], place: Place) -> str:
    """ "floor", "ceiling" or both; "" where a comparison waits for its trainings."""
    if not all(place in at for at in said.values()):
        return ""
    return " and ".join(sorted({at[place].removeprefix("none: ") for at in said.values()}))

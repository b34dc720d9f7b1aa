"""The exchanges between devices in a compiled program, and those among them that a loop repeats."""

import re
from collections.abc import Iterable, Mapping

COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all|ragged-all-to-all)(?:-start)?\(")


def count_collectives(hlo: str) -> tuple[dict[str, int], int]:
    """(kind -> instructions, instructions in anything that a while loop runs) of a module's text."""
    bodies = computations(hlo)
    kinds: dict[str, int] = {}
    for body in bodies.values():
        for kind in COLLECTIVE.findall(body):
            kinds[kind] = kinds.get(kind, 0) + 1
    loops = re.findall(r"(?:body|condition)=%?([\w.\-]+)", "\n".join(bodies.values()))
    return kinds, sum(len(COLLECTIVE.findall(bodies[name])) for name in reachable(bodies, loops))


def computations(hlo: str) -> dict[str, str]:
    """Name -> body of each computation of an HLO module."""
    return {found[1]: found[2] for found in re.finditer(r"^(?:ENTRY )?%?([\w.\-]+) [^\n]*\{\n(.*?)^\}", hlo, re.M | re.S)}


def reachable(bodies: Mapping[str, str], roots: Iterable[str]) -> set[str]:
    """The computations that `roots` run, themselves included."""
    seen: set[str] = set()
    todo = list(roots)
    while todo:
        name = todo.pop()
        if name in bodies and name not in seen:
            seen.add(name)
            called = re.findall(
                r"(?:calls|to_apply|body|condition|called_computations|branch_computations)=\{?([^,}\s]+(?:, ?%[^,}\s]+)*)", bodies[name]
            )
            todo += [word.strip(" %") for group in called for word in group.split(",")]
    return seen

"""The exchanges between devices in a compiled program, and those among them that a loop repeats.

The TPU compiler hides an exchange behind computation that does not need it, also behind the iterations of a loop. It then cuts the
exchange into pieces: a start before the loop, parts inside fusions of the loop's body, and a done after it. All carry the same
`chain_id` and the start's buffers, and together they exchange once. Here they are one collective, which a loop repeats only where the
whole chain lies within it.
"""

import re
from collections.abc import Iterable, Iterator, Mapping

COLLECTIVE = re.compile(r" (all-reduce|all-gather|reduce-scatter|collective-permute|all-to-all|ragged-all-to-all)(?:-start)?\(([^\n]*)")
CHAIN = re.compile(r'chain_id="(\d+)"')
LOOP = re.compile(r"(?:body|condition)=%?([\w.\-]+)")
CALLS = re.compile(r"(?:calls|to_apply|body|condition|called_computations|branch_computations)=\{?([^,}\s]+(?:, ?%[^,}\s]+)*)")


def count_collectives(hlo: str) -> tuple[dict[str, int], int]:
    """(kind -> collectives, those among them that a while loop repeats) of a module's text."""
    bodies = computations(hlo)
    repeated = reachable(bodies, LOOP.findall("\n".join(bodies.values())))
    places: dict[tuple[str, str], list[str]] = {}
    for name, body in bodies.items():
        for kind, label in labelled(name, body):
            places.setdefault((kind, label), []).append(name)
    kinds: dict[str, int] = {}
    for kind, _ in places:
        kinds[kind] = kinds.get(kind, 0) + 1
    return kinds, sum(repeated.issuperset(names) for names in places.values())


def labelled(name: str, body: str) -> Iterator[tuple[str, str]]:
    """(kind, label) of every collective instruction of a computation; the pieces of one chain share their label."""
    for number, (kind, rest) in enumerate(COLLECTIVE.findall(body)):
        chain = CHAIN.search(rest)
        yield kind, f"chain {chain[1]}" if chain else f"{name} {number}"


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
            todo += [word.strip(" %") for group in CALLS.findall(bodies[name]) for word in group.split(",")]
    return seen

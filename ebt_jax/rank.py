"""Ranks proposals for one observation, other policies' among them, by the energy of a policy that need not have made any.

  python -m ebt_jax.rank --policy=PATH --proposals=FILE.npz [--output=FILE.csv]

PATH is a run or an exported artifact whose method has an energy. FILE.npz (`numpy.savez`) holds `actions` [m, h, a] in robot units and an
observation as a client of the server sends it: `proprio` [t, p], `images/CAMERA` [t, y, x, 3], `prompt`, ... (docs/serving.md). Prints
place, proposal and energy, lowest and so best first, as CSV; the last line is the best. Low energy is likeness to demonstrations.
"""

import csv
import io
import pathlib
import sys

from absl import flags, logging

from ebt_jax import cli

_POLICY = flags.DEFINE_string("policy", None, "A workdir, its checkpoints, one step of them, or an artifact.", required=True)
_PROPOSALS = flags.DEFINE_string("proposals", None, "The .npz file.", required=True)
_OUTPUT = flags.DEFINE_string("output", "", "File for the table; standard output where empty.")
cli.on_disk("output")


def main() -> None:
    """Loads, ranks, writes, prints."""
    import numpy as np

    from ebt_jax.loading import load
    from ebt_jax.proposals import rank_proposals
    from ebt_jax.serving.schema import Schema

    policy = load(_POLICY.value)
    policy.check_energy("rank")
    with np.load(_PROPOSALS.value) as file:
        message = {name: str(value) if value.dtype.kind == "U" else value for name, value in file.items()}
    schema = Schema(policy.specs, (policy.sample_steps,), max_chunks=sys.maxsize)
    request = schema.parse({**message, "request": "energy"}, seed=0, episode=0, step=0)
    assert request.actions is not None, "a request for energies has chunks"
    logging.info("compiling the energy of %d chunks", len(request.actions))
    order, energy = rank_proposals(policy, request.observation, request.actions)
    table = io.StringIO()
    writer = csv.writer(table, lineterminator="\n")
    writer.writerow(["place", "proposal", "energy"])
    writer.writerows((place, number, f"{energy[number]:.6g}") for place, number in enumerate(order.tolist(), start=1))
    if _OUTPUT.value:
        path = pathlib.Path(_OUTPUT.value)
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(table.getvalue())
    else:
        print(table.getvalue(), end="")
    print(f"best of {len(order)}: proposal {order[0]} (energy {energy[order[0]]:.4g})")


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

"""What a run spends beside its updates: waiting for data, and saving while it goes on.

    python benchmarks/overhead.py --config=configs/oxe.py:sample
    python benchmarks/overhead.py --config=configs/bridge.py --config.data.data_dir=DIR --output=overhead.json

The config is trained as `ebt_jax.train` does, in turn without a checkpoint and with one every --interval updates, and its
metrics.jsonl says where the seconds went; the first --interval updates, which compile, are left out. The cost of a save is what an
interval with one takes longer than one without, spread over the config's own save_interval.
"""

import json
import pathlib
import statistics
import sys
import tempfile
from typing import Any

import jax
from absl import app, flags

from ebt_jax.config import define_config_flag, resolve
from ebt_jax.training.loop import train

CONFIG = define_config_flag()
INTERVAL = flags.DEFINE_integer("interval", 50, "Updates between two lines of metrics, and between two saves.")
INTERVALS = flags.DEFINE_integer("intervals", 4, "Intervals that count in one run.")
REPEATS = flags.DEFINE_integer("repeats", 3, "Runs of each kind.")
OUTPUT = flags.DEFINE_string("output", "", "JSON file for the results.")


def intervals(values: dict[str, Any], save: bool) -> list[dict[str, float]]:
    """The lines of one run, its first left out."""
    size = INTERVAL.value
    changes = {"num_steps": size * (INTERVALS.value + 2), "log_interval": size, "eval_interval": 0, "save_interval": size if save else 0}
    with tempfile.TemporaryDirectory() as folder:
        train({**values, **changes}, pathlib.Path(folder))
        lines = [json.loads(line) for line in (pathlib.Path(folder) / "metrics.jsonl").read_text().splitlines()]
    return lines[1:-1]  # the last save comes after the last line


def main(argv: list[str]) -> None:
    jax.config.update("jax_compilation_cache_dir", str(pathlib.Path.home() / ".cache/ebt_jax/xla"))
    values = resolve(CONFIG)
    plain, saving = [], []
    for _ in range(REPEATS.value):
        plain += intervals(values, save=False)
        saving += intervals(values, save=True)
    seconds = {name: statistics.median(line["seconds"] for line in lines) for name, lines in (("plain", plain), ("saving", saving))}
    update, published = seconds["plain"] / INTERVAL.value, values["save_interval"] or values["num_steps"]
    result = {
        "seconds_per_update": update,
        "data_wait_share": statistics.median(line.get("time/data", 0.0) for line in plain),
        "blocked_by_a_save_seconds": statistics.median(line.get("time/checkpoint", 0.0) * line["seconds"] for line in saving),
        "save_seconds": seconds["saving"] - seconds["plain"],
        "save_interval": published,
        "save_share": (seconds["saving"] - seconds["plain"]) / (published * update),
        "hardware": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "versions": {"jax": jax.__version__, "python": sys.version.split()[0]},
        "command": "python " + " ".join(["benchmarks/overhead.py", *sys.argv[1:]]),
        "seconds_of_intervals": {"plain": [line["seconds"] for line in plain], "saving": [line["seconds"] for line in saving]},
    }
    print(f"update {1e3 * update:.1f} ms, of which waiting for data {100 * result['data_wait_share']:.2f} %")
    print(
        f"a save takes {result['save_seconds']:.2f} s of the run ({result['blocked_by_a_save_seconds']:.2f} s blocked): "
        f"{100 * result['save_share']:.2f} % at one in {published} updates"
    )
    if OUTPUT.value:
        pathlib.Path(OUTPUT.value).write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    flags.mark_flag_as_required("config")
    app.run(main)

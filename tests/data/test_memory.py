"""Memory holds batches in flight and little else, however many datasets there are."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import simplejpeg
import toy_rlds

DATASETS, EPISODES, LENGTH, BATCHES, BATCH = 20, 20, 40, 150, 16
PROGRAM = """
import json, pathlib, sys
from ebt_jax.data.loader import make_loader
from ebt_jax.data.mixture import open_mixture
from ebt_jax.data.settings import DataSettings
def peak():
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024
imported = peak()
names = {f"toy_{number}": 1.0 for number in range(int(sys.argv[2]))}
mixture = open_mixture(DataSettings(sys.argv[1], names, cameras=("primary",), image_size=128, validation_fraction=0.0))
opened = peak()
batches = make_loader(mixture, "train", int(sys.argv[4]), seed=0, num_threads=2, prefetch=4)
seen = []
for _ in range(int(sys.argv[3])):
    next(batches)
    seen.append(peak())
print(json.dumps({"imported": imported, "opened": opened, "early": seen[len(seen) // 3], "last": seen[-1]}))
"""


@pytest.mark.slow
def test_twenty_datasets_stay_within_a_budget(make_folder, tmp_path):
    rng = np.random.default_rng(0)
    pictures = [simplejpeg.encode_jpeg(rng.integers(0, 256, (128, 128, 3), np.uint8)) for _ in range(LENGTH)]
    made = []
    for number in range(EPISODES):
        steps = np.stack([np.full(LENGTH, number), np.arange(LENGTH)], 1).astype(np.float32)
        action = np.concatenate([steps, steps[:, 1:] % 2], axis=1)
        words = [b"do it"] * LENGTH
        made.append({"action": action, "observation/state": steps, "observation/image": pictures, "language_instruction": words})
    for number in range(DATASETS):
        make_folder(f"toy_{number}", toy_rlds.STEPS, {"train": [made]}, dataclasses.replace(toy_rlds.SPEC, name=f"toy_{number}"))
    arguments = [str(tmp_path / "data"), str(DATASETS), str(BATCHES), str(BATCH)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *arguments], env=environment, capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 0, done.stderr
    megabytes = json.loads(done.stdout)
    print(megabytes)
    in_flight = (4 + 2 + 1) * BATCH * 2 * 128 * 128 * 3 / 1e6
    assert megabytes["last"] - megabytes["imported"] < 40 + 4 * in_flight, megabytes
    assert megabytes["last"] - megabytes["early"] < 20, megabytes

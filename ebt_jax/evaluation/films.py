"""Where films lie: DIR/videos/HASH/TASK/NUMBER.mp4, with the hash of the conditions that they were filmed under.

An evaluation into a folder that holds another's results films beside that one's films, which go once its own results have taken the place
of those that name them. So no results.json names a film of another evaluation, wherever one is stopped.
"""

import hashlib
import json
import pathlib
import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from ebt_jax.evaluation.unfinished import LEFT_OUT

VIDEOS = "videos"


def film_folder(conditions: Mapping[str, Any]) -> str:
    """Of an evaluation under these conditions, as seen from its DIR; what is in `LEFT_OUT` does not count."""
    told = json.dumps({name: value for name, value in conditions.items() if name not in LEFT_OUT}, sort_keys=True)
    return f"{VIDEOS}/{hashlib.sha256(told.encode()).hexdigest()[:12]}"


def remove_other_films(output: pathlib.Path, named: Sequence[str]) -> None:
    """Removes from DIR `output` the films of every evaluation but the one whose films are `named`; nothing else that lies there."""
    kept = {pathlib.PurePosixPath(name).parts[1] for name in named}
    for folder in (output / VIDEOS).glob("*/"):
        if re.fullmatch("[0-9a-f]{12}", folder.name) and folder.name not in kept:
            shutil.rmtree(folder)

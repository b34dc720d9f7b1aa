"""Under which conditions a cell's numbers came about."""

import os
from typing import Any

from ebt_jax.evaluation.results import git_commit, hardware, versions

COMMIT = git_commit()
"""Of the code that this process has read, whatever becomes of the files while it runs."""


def here() -> dict[str, Any]:
    """Of this process: "machine" (processor and XLA's flags) and "versions" of Python and packages."""
    return {"machine": {"cpu": hardware()["cpu"], "xla_flags": os.environ.get("XLA_FLAGS", "")}, "versions": versions()}

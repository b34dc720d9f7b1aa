"""A policy as a folder that runs without the code that trained it: programs, parameters, and what their numbers mean.

    manifest.json              SHA-256 and length of every other file; versions, dates, platforms, settings
    parameters.safetensors     normalizers.safetensors  specs.json  statistics.json  calibration.json (where measured)
    encode.bin  energy.bin  minimize.bin  step_size.bin  sample_K.bin      StableHLO by `jax.export`, for any batch size
    golden.safetensors         an observation, its key, and what the policy answered when it was exported

Loading checks hashes and dates before a program is read, and the golden answer after. It imports jax, numpy, flatbuffers, safetensors and
jaxtyping: no model, no training code. A program is trusted code: hashes find damage, not an attacker who writes them anew.

Baked in at export: network, parameters' shapes, the settings of the descent, and the numbers of steps of `sample`. Arguments: batch size,
keys, start, what is held, cap and thresholds of `minimize`. Constraints are the caller's functions: with one, the descent is traced around
`energy`, which is exported with its derivative.
"""

from ebt_jax.artifact.folder import PLATFORMS as PLATFORMS
from ebt_jax.artifact.folder import check_export as check_export
from ebt_jax.artifact.folder import export_policy as export_policy
from ebt_jax.artifact.folder import load_artifact as load_artifact
from ebt_jax.artifact.manifest import MANIFEST as MANIFEST
from ebt_jax.artifact.manifest import ArtifactError as ArtifactError
from ebt_jax.artifact.manifest import ExpiredArtifactError as ExpiredArtifactError
from ebt_jax.artifact.manifest import FutureArtifactError as FutureArtifactError
from ebt_jax.artifact.manifest import GoldenMismatchError as GoldenMismatchError
from ebt_jax.artifact.manifest import TamperedArtifactError as TamperedArtifactError
from ebt_jax.artifact.manifest import TruncatedArtifactError as TruncatedArtifactError
from ebt_jax.artifact.manifest import this_platform as this_platform

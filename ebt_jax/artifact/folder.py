"""The artifact's folder, written whole or not at all, and read with every check."""

import dataclasses
import datetime
import hashlib
import json
import logging
import math
import pathlib
import tempfile
from collections.abc import Mapping, Sequence

import jax
import jax.numpy as jnp
import jaxlib
import numpy as np
from jax import export
from safetensors.numpy import load as load_tensors
from safetensors.numpy import save as save_tensors

from ebt_jax.artifact import golden
from ebt_jax.artifact.manifest import FORMAT, MANIFEST, digest, read_verified, this_platform
from ebt_jax.artifact.programs import as_method, flat, lower
from ebt_jax.methods.descent import Steered
from ebt_jax.normalize import Normalizer, Statistics
from ebt_jax.policy import Experiment, Identity, Policy
from ebt_jax.specs import Specs

_LOG = logging.getLogger(__name__)

PLATFORMS = ("cpu", "cuda", "tpu")
LIFETIME = datetime.timedelta(days=180)
"""jax promises to read what a jax built up to six months before it has exported; counted here from the day of the export."""


def export_policy(
    policy: Policy, output: str | pathlib.Path, platforms: Sequence[str] = PLATFORMS, sample_steps: Sequence[int] = ()
) -> pathlib.Path:
    """Writes the artifact folder `output`, whole or not at all, and returns it.

    Args:
      sample_steps: numbers of steps that `sample` can be asked for, beside the policy's own.

    Raises ValueError for unknown platforms, where `output` already holds something, and for an artifact's policy that descends.
    """
    output = pathlib.Path(output)
    check_export(output, platforms)
    minimize = policy.method.minimize
    if minimize is not None and not isinstance(minimize, Steered):
        raise ValueError("policy must be a run's, whose descent can be lowered, got an artifact's. Export from its checkpoint.")
    steps = sorted({policy.sample_steps, *sample_steps})
    programs = lower(policy, tuple(platforms), steps)
    _LOG.info("asking for the golden answer")
    files = {
        "parameters.safetensors": save_tensors(flat(policy.params)),
        "normalizers.safetensors": save_tensors(_normalizers(policy)),
        "specs.json": policy.specs.to_json().encode(),
        "statistics.json": policy.statistics.to_json().encode(),
        "golden.safetensors": save_tensors(golden.ask(policy)),
        **({"calibration.json": policy.calibration.encode()} if policy.calibration else {}),
        **{f"{name}.bin": bytes(program.serialize(vjp_order=int(name == "energy"))) for name, program in programs.items()},
    }
    now = datetime.datetime.now(datetime.UTC)
    manifest = {
        "format": FORMAT,
        "files": {name: {"sha256": hashlib.sha256(content).hexdigest(), "bytes": len(content)} for name, content in files.items()},
        "jax": jax.__version__,
        "jaxlib": jaxlib.__version__,
        "calling_convention": programs["encode"].calling_convention_version,
        "exported": now.isoformat(timespec="seconds"),
        "not_after": (now + LIFETIME).isoformat(timespec="seconds"),
        "platforms": list(platforms),
        "answered_on": this_platform(),
        "rounded": any("bf16" in program.mlir_module() for program in programs.values()),
        "identity": {name: value for name, value in policy.identity._asdict().items() if name != "path"},
        "experiment": policy.experiment._asdict() if policy.experiment else None,
        "sample_steps": {"own": policy.sample_steps, "all": steps},
        "execution_horizon": policy.execution_horizon,
        "mcmc": dataclasses.asdict(minimize.mcmc) if minimize else None,
    }
    manifest["sha256"] = digest(manifest)
    output.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=output.parent, prefix=f".{output.name}.") as folder:
        unfinished = pathlib.Path(folder) / "artifact"
        unfinished.mkdir()
        for name, content in {**files, MANIFEST: json.dumps(manifest, indent=2).encode()}.items():
            (unfinished / name).write_bytes(content)
        unfinished.rename(output)
    return output


def check_export(output: pathlib.Path, platforms: Sequence[str]) -> None:
    """Raises ValueError for unknown platforms, and where `output` already holds something."""
    unknown = sorted(set(platforms) - set(PLATFORMS))
    if unknown or not platforms:
        raise ValueError(f"platforms must be among {PLATFORMS}, got {unknown or 'none'}.")
    if output.exists() and (not output.is_dir() or any(output.iterdir())):
        raise ValueError(f"output must be a new or empty folder, got {output}. Remove it or name another.")


def load_artifact(path: str | pathlib.Path) -> Policy:
    """The policy in an artifact folder, after all its checks; it has compiled its answers to one observation, which are the golden ones.

    Raises ArtifactError, of the kind that says what is wrong.
    """
    path = pathlib.Path(path)
    manifest, files = read_verified(path)
    programs = {name.removesuffix(".bin"): export.deserialize(bytearray(files[name])) for name in files if name.endswith(".bin")}
    specs = Specs.from_json(files["specs.json"].decode())
    experiment = manifest.get("experiment")  # older artifacts have none
    normalizers = load_tensors(files["normalizers.safetensors"])
    action, proprio = (_normalizer(normalizers, part) for part in ("action", "proprio"))
    policy = Policy(
        method=as_method(programs, specs, manifest),
        params=jax.tree.map(jnp.asarray, load_tensors(files["parameters.safetensors"])),
        specs=specs,
        statistics=Statistics.from_json(files["statistics.json"].decode()),
        action_normalizer=action,
        proprio_normalizer=proprio,
        sample_steps=manifest["sample_steps"]["own"],
        execution_horizon=manifest["execution_horizon"],
        identity=Identity(path=str(path), **manifest["identity"]),
        calibration=files.get("calibration.json", b"").decode(),
        experiment=Experiment(**{**experiment, "datasets": tuple(experiment["datasets"])}) if experiment else None,
    )
    _LOG.info("checking the artifact %s", path)
    answered_on = manifest.get("answered_on", "cpu")  # older artifacts do not say, and were held to a CPU's answer
    exact = this_platform() == answered_on == "cpu" and not manifest["rounded"]
    golden.check(policy, load_tensors(files["golden.safetensors"]), golden.TOLERANCE if exact else golden.ROUNDED_TOLERANCE)
    return policy


def _normalizer(tensors: Mapping[str, np.ndarray], part: str) -> Normalizer:
    reach = tensors.get(f"{part}.reach", math.inf)  # older artifacts clip nothing
    return Normalizer(tensors[f"{part}.shift"], tensors[f"{part}.scale"], float(reach))


def _normalizers(policy: Policy) -> dict[str, np.ndarray]:
    parts = {"action": policy.action_normalizer, "proprio": policy.proprio_normalizer}
    return {f"{part}.{field}": np.asarray(value, np.float32) for part, both in parts.items() for field, value in both._asdict().items()}

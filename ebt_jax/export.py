"""Exports a policy as an artifact: a folder that acts without the code that trained it.

  python -m ebt_jax.export --policy=PATH --output=DIR [--platforms=cpu,cuda,tpu] [--sample_steps=2,4]
  python -m ebt_jax.export --policy=PATH --output=FILE.safetensors [--noema]

`ebt_jax.load(DIR)`, evaluate and serve take it as they take a checkpoint. It may be used for 180 days. The last line is its hash.
An output that ends in .safetensors is one file of parameters alone, for other frameworks: tensors by path, "tokens/proprio/kernel".
"""

import json
import pathlib

from absl import flags, logging

from ebt_jax import cli

_POLICY = flags.DEFINE_string("policy", None, "A workdir, its checkpoints, or one step of them.", required=True)
_ROBOT = flags.DEFINE_string("robot", "", "Of a run on several datasets: in whose numbers to act; the heaviest's where empty.")
_OUTPUT = flags.DEFINE_string("output", None, "Artifact folder, new or empty; or FILE.safetensors for parameters alone.", required=True)
_PLATFORMS = flags.DEFINE_list("platforms", ["cpu", "cuda", "tpu"], "Where it will run.")
_SAMPLE_STEPS = flags.DEFINE_list("sample_steps", [], "Steps its sampler can be asked for, beside the policy's own.")
_EMA = flags.DEFINE_bool("ema", True, "The moving average of the parameters, as policies use it; FILE.safetensors can take the raw ones.")
cli.on_disk("output")


def main() -> None:
    """Loads, exports, loads what was exported where it can run here, prints its hash."""
    from ebt_jax.artifact import MANIFEST, check_export, export_policy, load_artifact, this_platform
    from ebt_jax.loading import load

    if (pathlib.Path(_POLICY.value) / MANIFEST).is_file():
        raise flags.ValidationError(
            f"--policy must be a run, whose descent can be lowered, got the artifact {_POLICY.value}. Export from the checkpoint that it "
            "was made of."
        )
    if _OUTPUT.value.endswith(".safetensors"):
        write_parameters(pathlib.Path(_OUTPUT.value))
        return
    if not _EMA.value:
        raise flags.ValidationError("--noema must go with --output=FILE.safetensors: an artifact acts, and with the average.")
    try:
        steps = [int(word) for word in _SAMPLE_STEPS.value]
    except ValueError as error:
        raise flags.ValidationError(f"--sample_steps must be numbers, got {','.join(_SAMPLE_STEPS.value)}.") from error
    if min(steps, default=1) < 1:
        raise flags.ValidationError(f"--sample_steps must be at least 1, got {min(steps)}.")
    with cli.wrong_usage("--"):
        check_export(pathlib.Path(_OUTPUT.value), _PLATFORMS.value)
    policy = load(_POLICY.value, robot=_ROBOT.value)
    with cli.wrong_usage("--sample_steps: "):
        for number in steps:
            policy.check_steps(number)
    output = export_policy(policy, _OUTPUT.value, _PLATFORMS.value, steps)
    if this_platform() in _PLATFORMS.value:
        load_artifact(output)
    else:
        logging.warning("not tried: this machine is %s, the artifact for %s.", this_platform(), ", ".join(_PLATFORMS.value))
    manifest = json.loads((pathlib.Path(output) / MANIFEST).read_text())
    size = sum(about["bytes"] for about in manifest["files"].values())
    logging.info("wrote %s: %d files, %.1f MB, usable until %s", output, len(manifest["files"]) + 1, size / 1e6, manifest["not_after"][:10])
    print(f"sha256 {manifest['sha256']}")


def write_parameters(path: pathlib.Path) -> None:
    """The policy's parameters as one safetensors file, whose header says of which step, method and hash they are."""
    from ebt_jax.checkpoint import save_safetensors
    from ebt_jax.loading import load

    policy = load(_POLICY.value, ema=_EMA.value)
    about = policy.identity
    header = {"step": str(about.step), "method": about.method, "sha256": about.sha256, "average": str(_EMA.value).lower()}
    path.parent.mkdir(parents=True, exist_ok=True)
    save_safetensors(path, policy.params, header)
    logging.info("wrote %s: %.1f MB of parameters at step %d", path, path.stat().st_size / 1e6, about.step)
    print(f"sha256 {about.sha256}")


if __name__ == "__main__":
    cli.run(main, __doc__ or "")

"""What an artifact's manifest promises, checked before anything else of the folder is believed."""

import datetime
import hashlib
import json
import pathlib
from collections.abc import Mapping
from typing import Any

import jax
from jax import export

FORMAT = 1
MANIFEST = "manifest.json"
CLOCK_SKEW = datetime.timedelta(days=1)


class ArtifactError(Exception):
    """An artifact that cannot be used; its subclasses say why."""


class TruncatedArtifactError(ArtifactError):
    """A file is missing or shorter than the manifest says: a copy was cut off."""


class TamperedArtifactError(ArtifactError):
    """A file is not the one that was exported."""


class ExpiredArtifactError(ArtifactError):
    """Past the day until which it may be used."""


class FutureArtifactError(ArtifactError):
    """Exported by a newer jax or ebt_jax than this, or on a later day."""


class GoldenMismatchError(ArtifactError):
    """Reads well, but does not answer what it answered when it was exported."""


def read_verified(path: pathlib.Path) -> tuple[dict[str, Any], dict[str, bytes]]:
    """The manifest and the bytes of every file it names, once hashes, dates, versions and platforms have been checked."""
    try:
        manifest = json.loads((path / MANIFEST).read_bytes())
        listed, named = manifest["files"], manifest["sha256"]
        exported, not_after = (datetime.datetime.fromisoformat(manifest[key]) for key in ("exported", "not_after"))
    except OSError as error:
        raise ArtifactError(f"artifact must be a folder with a {MANIFEST}, got {path}: {error}.") from error
    except (ValueError, KeyError, TypeError) as error:
        raise TruncatedArtifactError(f"{path / MANIFEST} must be whole JSON, got a fault at {error}. Copy the folder again.") from error
    if named != digest(manifest):
        raise TamperedArtifactError(f"{path / MANIFEST} must have the hash it names, {named}, got {digest(manifest)}. Export again.")
    now, convention = datetime.datetime.now(datetime.UTC), export.maximum_supported_calling_convention_version
    if manifest["format"] > FORMAT or _release(manifest["jax"]) > _release(jax.__version__) or manifest["calling_convention"] > convention:
        raise FutureArtifactError(
            f"artifact must come from jax {jax.__version__} and format {FORMAT} or older, got jax {manifest['jax']} and format "
            f"{manifest['format']}. Update this machine, or export there with this version."
        )
    if exported > now + CLOCK_SKEW:
        raise FutureArtifactError(f"artifact must have been exported by now, {now:%Y-%m-%d}, got {exported:%Y-%m-%d}. Set the clock.")
    if now > not_after:
        raise ExpiredArtifactError(f"artifact must be used until {not_after:%Y-%m-%d}, got {now:%Y-%m-%d}. Export the checkpoint again.")
    outside = [name for name in listed if pathlib.PurePath(name).name != name]
    if outside:
        raise TamperedArtifactError(f"files of {path / MANIFEST} must each be the name of a file in the folder, got {outside}.")
    files = {name: _verified(path / name, about["sha256"], about["bytes"]) for name, about in listed.items()}
    platform = this_platform()
    if platform not in manifest["platforms"]:
        raise ArtifactError(f"artifact must be exported for {platform}, got {manifest['platforms']}. Export with --platforms={platform}.")
    return manifest, files


def this_platform() -> str:
    """Where jax computes, as `jax.export` calls it: "cpu", "cuda", "tpu"."""
    return {"gpu": "cuda"}.get(jax.default_backend(), jax.default_backend())


def _verified(path: pathlib.Path, sha256: str, length: int) -> bytes:
    if not path.is_file():
        raise TruncatedArtifactError(f"artifact must hold {path.name}, got no such file in {path.parent}. Copy the folder again.")
    content = path.read_bytes()
    if len(content) < length:
        raise TruncatedArtifactError(f"{path} must have {length} bytes, got {len(content)}. Copy the folder again.")
    found = hashlib.sha256(content).hexdigest()
    if found != sha256:
        raise TamperedArtifactError(f"{path} must have SHA-256 {sha256}, got {found}. Do not use it; export again.")
    return content


def digest(manifest: Mapping[str, Any]) -> str:
    rest = {key: value for key, value in manifest.items() if key != "sha256"}
    return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()


def _release(version: str) -> tuple[int, ...]:
    """(major, minor): patches read each other."""
    return tuple(int(part) for part in version.split(".")[:2])

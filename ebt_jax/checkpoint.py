"""Checkpoints through Orbax: asynchronous, atomic, kept by policy, and complete: a step folder holds all that a policy needs.

    STEP/params  STEP/ema_params  STEP/training     arrays; `training` is optimiser, key and step
    STEP/assets                                     config.json, specs.json, statistics.json, datasets.json, example_batch.npz, loader.json,
                                                    format.json, digests.json

A step counts only once Orbax has finished it; what a kill leaves behind is removed at the next start. Whatever is read is compared with
the digests that were taken before it was written: no changed byte is ever trained on, or acted on.
"""

import contextlib
import hashlib
import io
import json
import os
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jaxtyping import PyTree
from safetensors.numpy import save_file

from ebt_jax.digests import changed, digests
from ebt_jax.formats import migrate
from ebt_jax.tree import named_leaves

Assets = Mapping[str, bytes]
"""File name -> content."""

DIGESTS = "digests.json"


class AssetsHandler(ocp.CheckpointHandler):
    """Writes a few small files into a step folder, inside Orbax's own atomic commit."""

    def save(self, directory: epath.Path, args: "SaveAssets") -> None:
        if jax.process_index() == 0:
            for name, content in args.files.items():
                (directory / name).write_bytes(content)

    def restore(self, directory: epath.Path, args: "RestoreAssets | None" = None) -> Assets:
        return {path.name: path.read_bytes() for path in directory.iterdir() if path.suffix in (".json", ".npz")}


@ocp.args.register_with_handler(AssetsHandler, for_save=True)
class SaveAssets(ocp.args.CheckpointArgs):
    """The files to write."""

    def __init__(self, files: Assets) -> None:
        self.files = files


@ocp.args.register_with_handler(AssetsHandler, for_restore=True)
class RestoreAssets(ocp.args.CheckpointArgs):
    """All files of the folder."""


class CheckpointError(Exception):
    """A checkpoint that is missing, damaged, not of the expected shape, or could not be written."""


def finished_steps(directory: str | os.PathLike[str]) -> list[int]:
    """The steps of a folder of checkpoints that hold a whole one, ascending; none where there is no such folder."""
    if not epath.Path(directory).is_dir():
        return []
    with Checkpoints(directory, read_only=True) as checkpoints:
        return checkpoints.steps


def locate(path: str | os.PathLike[str], what: str) -> tuple[epath.Path, int]:
    """The folder of checkpoints and the step that `path` names: a workdir or its checkpoints (the newest), or one step folder.

    A folder that holds `checkpoints` is a workdir, though its name be a number.

    Raises CheckpointError where there is no finished checkpoint, saying what (`what`) was looked for.
    """
    root = epath.Path(path)
    if root.name.isdigit() and root.is_dir() and not (root / "checkpoints").is_dir():
        return root.parent, int(root.name)
    for directory in (root / "checkpoints", root):
        steps = finished_steps(directory)
        if steps:
            return directory, steps[-1]
    raise CheckpointError(
        f"{what} must be a workdir, its checkpoints folder or one step of it, got {path}, which holds no finished checkpoint. "
        "Has the run saved yet?"
    )


class Checkpoints:
    """The checkpoints of one run, newest last."""

    def __init__(
        self, directory: str | os.PathLike[str], keep: int | None = None, read_only: bool = False, keep_every: int | None = None
    ) -> None:
        """Opens the folder. A writer removes what an interrupted save left behind; of several processes all must write, any may read alone.

        Args:
          keep: so many of the newest stay; None keeps all.
          keep_every: steps divisible by this stay for ever beside them; None or 0 keeps none so.

        Raises CheckpointError where a reader's folder does not exist, or a writer's cannot be made.
        """
        self.directory = epath.Path(directory).resolve()
        if read_only and not self.directory.is_dir():
            raise CheckpointError(f"checkpoints must lie in an existing folder, got {self.directory}.")
        alone = {jax.process_index()} if read_only and jax.process_count() > 1 else None
        options = ocp.CheckpointManagerOptions(
            max_to_keep=keep,
            keep_period=keep_every or None,
            cleanup_tmp_directories=not read_only,
            read_only=read_only,
            create=not read_only,
            multiprocessing_options=ocp.options.MultiprocessingOptions(
                primary_host=jax.process_index() if alone else 0,
                active_processes=alone,
                barrier_sync_key_prefix="reader" if alone else None,
            ),
        )
        handlers = {name: ocp.StandardCheckpointHandler() for name in ("params", "ema_params", "training")}
        with self._writing("opened"):
            self._manager = ocp.CheckpointManager(self.directory, options=options, item_handlers={**handlers, "assets": AssetsHandler()})

    def __enter__(self) -> "Checkpoints":
        return self

    def __exit__(self, kind: type[BaseException] | None, *error: object) -> None:
        """Closes; what goes wrong in that is not said over the error that came first."""
        with contextlib.suppress(*(() if kind is None else (CheckpointError,))):
            self.close()

    @property
    def steps(self) -> list[int]:
        """Finished steps on disk, ascending; a save that is under way or failed is none."""
        return sorted(ocp.utils.checkpoint_steps(self.directory))

    def save(self, step: int, trees: Mapping[str, PyTree], assets: Assets) -> None:
        """Starts writing and returns once the arrays are copied; a failure shows in the next `check`, `save`, `wait` or `close`.

        Raises CheckpointError where this or the last save failed, naming the newest step that is safe.
        """
        items = {name: ocp.args.StandardSave(tree) for name, tree in trees.items()}
        files = sealed(assets, {name: digests(tree) for name, tree in trees.items()})
        with self._writing(f"saved at step {step}"):
            self._manager.save(step, args=ocp.args.Composite(**items, assets=SaveAssets(files)), force=True)

    def restore(self, step: int, name: str, like: PyTree) -> PyTree:
        """The tree saved as `name`, on the shardings of `like` (arrays or ShapeDtypeStructs).

        Raises CheckpointError listing every leaf that is missing, unexpected or of another shape or dtype, or where a byte is not the
        one that was saved, with the newest step that is whole.
        """
        found = self._item(step, name)
        differences = tree_differences(like, found)
        if differences:
            raise CheckpointError(
                f"{self.directory / str(step) / name} must hold the parameters this configuration asks for, got "
                f"{len(differences)} differences:\n  " + "\n  ".join(differences)
            )
        try:
            tree = self._read(step, name, like)
        except Exception as error:
            raise self._damaged(step, f"its {name!r} cannot be read: {_first_line(error)}") from error
        wrong = altered_arrays(self.assets(step), name, tree)
        if wrong:
            raise self._damaged(step, _altered([f"{name}/{path}" for path in wrong]))
        return tree

    def assets(self, step: int) -> Assets:
        """The small files of a step, brought to today's format (`formats.py`). Raises CheckpointError where one is not as it was saved."""
        try:
            files = self._manager.restore(step, args=ocp.args.Composite(assets=RestoreAssets()))["assets"]
        except (KeyError, FileNotFoundError) as error:
            raise CheckpointError(f"{self.directory / str(step)} must hold a finished checkpoint, got none. Use another step.") from error
        try:
            wrong, today = altered_files(files), migrate(files)
        except (KeyError, UnicodeDecodeError, json.JSONDecodeError) as error:
            raise self._damaged(step, f"its assets cannot be read: {_first_line(error)}") from error
        if wrong:
            raise self._damaged(step, _altered([f"assets/{file}" for file in wrong]))
        return today

    def check(self) -> None:
        """Raises CheckpointError where a save that was under way has failed; waits for nothing."""
        with self._writing("saved"):
            self._manager.check_for_errors()

    def wait(self) -> None:
        """Blocks until the last save is on disk. Raises CheckpointError where it failed."""
        with self._writing("saved"):
            self._manager.wait_until_finished()

    def close(self) -> None:
        """`wait`, then let go of the folder."""
        with self._writing("saved"):
            self._manager.close()

    @contextlib.contextmanager
    def _writing(self, done: str) -> Iterator[None]:
        """Whatever Orbax raises becomes one line that says what is safe."""
        try:
            yield
        except Exception as error:
            safe = self.steps[-1:] if self.directory.is_dir() else []
            raise CheckpointError(
                f"checkpoints in {self.directory} must be {done}, got {type(error).__name__}: {_first_line(error)}. "
                f"The newest good checkpoint is {safe[0] if safe else 'none'}; is the disk full, gone or read-only? "
                "Then start the same command again."
            ) from error

    def _item(self, step: int, name: str) -> PyTree:
        if step not in self.steps:
            raise CheckpointError(f"step must be one of {self.steps} in {self.directory}, got {step}.")
        try:
            metadata = self._manager.item_metadata(step)[name]
        except Exception as error:
            raise self._damaged(step, f"its {name!r} cannot be read: {_first_line(error)}") from error
        if metadata is None:
            raise self._damaged(step, f"it holds no {name!r}")
        return metadata.tree if hasattr(metadata, "tree") else metadata

    def _read(self, step: int, name: str, like: PyTree) -> PyTree:
        abstract = jax.tree.map(ocp.utils.to_shape_dtype_struct, like)
        return self._manager.restore(step, args=ocp.args.Composite(**{name: ocp.args.StandardRestore(abstract)}))[name]

    def _damaged(self, step: int, what: str) -> CheckpointError:
        """Names the newest other step of which every array can be read: found by reading them, without the other processes.

        Those may have read this step well, and wait for nobody.
        """
        whole, faults = None, []
        with Checkpoints(self.directory, read_only=True) as alone:
            for other in (other for other in reversed(alone.steps) if other != step):
                fault = alone._fault(other)
                if not fault:
                    whole = other
                    break
                faults.append(f"{other}: {fault}")
        remedy = (
            f"No other step is whole{f' ({_some(faults)})' if faults else ''}: start a new workdir."
            if whole is None
            else f"The newest whole one is {whole}: use that, or remove {self.directory / str(step)} to go on from there."
        )
        return CheckpointError(f"{self.directory / str(step)} must hold a whole checkpoint, got damage: {what}. {remedy}")

    def _fault(self, step: int) -> str:
        """What keeps a step from being read and as it was saved; "" for nothing."""
        try:
            assets = self._manager.restore(step, args=ocp.args.Composite(assets=RestoreAssets()))["assets"]
            if wrong := altered_files(assets):
                return _altered([f"assets/{file}" for file in wrong])
            for name in ("params", "ema_params", "training"):
                metadata = self._manager.item_metadata(step)[name]
                like = jax.tree.map(_on_this_device, metadata.tree if hasattr(metadata, "tree") else metadata)
                if wrong := altered_arrays(assets, name, self._read(step, name, like)):
                    return _altered([f"{name}/{path}" for path in wrong])
        except Exception as error:
            return f"cannot be read: {type(error).__name__}: {_first_line(error)}"
        return ""


def sealed(assets: Assets, arrays: Mapping[str, Mapping[str, str]]) -> Assets:
    """The files with digests.json beside them: of every array of every tree (`digests`), and the SHA-256 of every file."""
    files = {name: hashlib.sha256(content).hexdigest() for name, content in assets.items()}
    return {**assets, DIGESTS: json.dumps({"files": files, "arrays": arrays}, indent=1).encode()}


def altered_files(files: Assets) -> list[str]:
    """The names of those that are missing or changed since they were sealed; one that was added later (calibration.json) is as it is."""
    saved = (json.loads(migrate(files)[DIGESTS]) or {"files": {}})["files"]
    return [name for name, sha256 in saved.items() if hashlib.sha256(files.get(name, b"")).hexdigest() != sha256]


def altered_arrays(files: Assets, name: str, tree: PyTree) -> list[str]:
    """The paths in which the tree read as `name` is not what was saved; none where a checkpoint is older than digests are."""
    saved = json.loads(migrate(files)[DIGESTS])
    return [] if saved is None else changed(digests(tree), saved.get("arrays", {}).get(name, {}))


def pack(tree: PyTree) -> bytes:
    """The arrays of a tree as an .npz file, named by path: `observation/proprio`. Opens with numpy alone, without pickle."""
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {name: np.asarray(leaf) for name, leaf in named_leaves(tree).items()}
    np.savez(buffer, **arrays)
    return buffer.getvalue()


def unpack(content: bytes) -> dict[str, np.ndarray]:
    """Inverse of `pack`, flat."""
    with np.load(io.BytesIO(content), allow_pickle=False) as arrays:
        return dict(arrays)


def save_safetensors(path: str | pathlib.Path, params: PyTree, metadata: Mapping[str, str] | None = None) -> None:
    """The arrays of a tree as one safetensors file, named by path like `pack`'s: `encoder/block/kernel`. For other frameworks.

    `metadata`: short texts for the file's header. Written beside and renamed, so the file is there whole or not at all.
    """
    arrays = {name: np.asarray(jax.device_get(leaf), order="C") for name, leaf in named_leaves(params).items()}  # scalars stay scalars
    path = pathlib.Path(path)
    part = path.with_name(path.name + ".part")
    save_file(arrays, part, dict(metadata or {}))
    part.replace(path)


def tree_differences(expected: PyTree, found: PyTree) -> list[str]:
    """Every leaf in which two trees of arrays differ in presence, shape or dtype, by path."""
    want, have = named_leaves(expected), named_leaves(found)
    rows = [f"{path}: expected {_describe(want[path])}, got nothing" for path in sorted(set(want) - set(have))]
    rows += [f"{path}: expected nothing, got {_describe(have[path])}" for path in sorted(set(have) - set(want))]
    shared = [path for path in want if path in have]
    return rows + [
        f"{path}: expected {_describe(want[path])}, got {_describe(have[path])}"
        for path in shared
        if _describe(want[path]) != _describe(have[path])
    ]


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _altered(names: list[str]) -> str:
    return f"changed since it was saved: {_some(names)}"


def _some(names: list[str], most: int = 5) -> str:
    """The first names, and how many more there are."""
    return ", ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")


def _on_this_device(leaf: Any) -> jax.ShapeDtypeStruct:
    device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=device)


def _describe(leaf: Any) -> str:
    return f"{np.dtype(leaf.dtype).name}{list(leaf.shape)}"

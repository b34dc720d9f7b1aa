"""A bucket as fsspec shows one: gs://NAME/... over a folder of this machine, that remembers every range it was asked for."""

import pathlib
from typing import ClassVar

import fsspec


class FakeBucket(fsspec.AbstractFileSystem):
    """`root` is the folder that stands for gs://, `reads` the (path, start, stop) served, `failures` how many more reads of a path fail."""

    protocol = ("gs", "gcs")
    root = pathlib.Path()
    reads: ClassVar[list[tuple[str, int, int]]] = []
    failures: ClassVar[dict[str, int]] = {}
    cachable = False

    def _local(self, path: str) -> pathlib.Path:
        return self.root / self._strip_protocol(path)

    def _describe(self, path: pathlib.Path) -> dict:
        stat = path.stat()
        kind = "directory" if path.is_dir() else "file"
        return {"name": str(path.relative_to(self.root)), "size": stat.st_size, "type": kind, "etag": f"{stat.st_mtime_ns}"}

    def info(self, path: str, **kwargs) -> dict:
        return self._describe(self._local(path))

    def ls(self, path: str, detail: bool = True, **kwargs) -> list:
        rows = [self._describe(entry) for entry in self._local(path).iterdir()]
        return rows if detail else [row["name"] for row in rows]

    def cat_file(self, path: str, start: int | None = None, end: int | None = None, **kwargs) -> bytes:
        if self.failures.get(path, 0) > 0:
            self.failures[path] -= 1
            raise TimeoutError("the bucket is busy")
        data = self._local(path).read_bytes()[start:end]
        self.reads.append((path, start or 0, (start or 0) + len(data)))
        return data

    def _open(self, path: str, mode: str = "rb", **kwargs):
        return self._local(path).open(mode)

"""A server that answers Google's storage client as gs:// would, from a folder: media of objects, whole or by range."""

import contextlib
import http.server
import pathlib
import re
import threading
import urllib.parse
from collections.abc import Iterator

OBJECT = re.compile(r"/storage/v1/b/([^/]+)/o/([^?]+)\?.*alt=media.*")


@contextlib.contextmanager
def serve(root: pathlib.Path) -> Iterator[tuple[str, list[tuple[str, str]]]]:
    """Its address, and the (object, range) that it was asked for; gs://NAME is the folder NAME in `root`."""
    asked: list[tuple[str, str]] = []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            bucket, name = (urllib.parse.unquote(part) for part in OBJECT.fullmatch(self.path).groups())
            wanted = self.headers.get("Range", "bytes=0-")
            asked.append((name, wanted))
            if not (root / bucket / name).exists():
                self.send_error(404)
                return
            data = (root / bucket / name).read_bytes()
            first, last = wanted.removeprefix("bytes=").split("-")
            start = int(first) if first else max(0, len(data) - int(last))
            stop = min(int(last) + 1, len(data)) if first and last else len(data)
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {start}-{stop - 1}/{len(data)}")
            self.send_header("Content-Length", str(stop - start))
            self.send_header("x-goog-generation", "1")
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # a reader hangs up when it has what it wanted
                self.wfile.write(data[start:stop])

        def log_message(self, *args: object) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}", asked
        server.shutdown()

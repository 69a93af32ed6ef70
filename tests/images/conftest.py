import gzip
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest

from diptych.images.datasets import Dataset, DatasetFile
from diptych.images.idx import write_idx
from diptych.images.transport import Transport

Contents = dict[str, bytes]


@pytest.fixture
def contents() -> Contents:
    """Uncompressed IDX bytes of a small data set, by official file name."""
    random = np.random.default_rng(0)
    train, test = np.arange(12) % 3, np.arange(6) % 3
    return {
        "train-images-idx3-ubyte": write_idx(random.integers(0, 256, (12, 28, 28), np.uint8)),
        "train-labels-idx1-ubyte": write_idx(train.astype(np.uint8)),
        "t10k-images-idx3-ubyte": write_idx(random.integers(0, 256, (6, 28, 28), np.uint8)),
        "t10k-labels-idx1-ubyte": write_idx(test.astype(np.uint8)),
    }


def published(contents: Contents, *, gz_only: bool = False) -> Dataset:
    """Facts about the contents: by sha256, or by the md5 of `gzipped`."""
    files = [
        DatasetFile(
            "small",
            name,
            len(content),
            idx_sha256=None if gz_only else hashlib.sha256(content).hexdigest(),
            gz_md5=hashlib.md5(gzipped(content), usedforsecurity=False).hexdigest()
            if gz_only
            else None,
        )
        for name, content in contents.items()
    ]
    return Dataset("small", ("a", "b", "c"), (), *files)


def gzipped(content: bytes) -> bytes:
    return gzip.compress(content, mtime=0)


def fill(folder: Path, contents: Contents) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_bytes(content)
    return folder


@dataclass
class Web:
    """An http server on loopback: what a path answers, and which paths were asked for."""

    origin: str
    closing: threading.Event
    routes: dict[str, Callable[..., None]] = field(default_factory=dict)
    requests: list[str] = field(default_factory=list)

    def transport(self) -> Transport:
        return Transport(
            timeout_seconds=0.3,
            num_attempts=2,
            backoff_seconds=0.01,
            plain_http_origin=self.origin,
        )


def body(content: bytes, num_announced: int | None = None) -> Callable[..., None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(200)
        announced = len(content) if num_announced is None else num_announced
        request.send_header("Content-Length", str(announced))
        request.end_headers()
        request.wfile.write(content)

    return answer


def status(code: int, location: str | None = None) -> Callable[..., None]:
    def answer(request: BaseHTTPRequestHandler) -> None:
        request.send_response(code)
        if location is not None:
            request.send_header("Location", location)
        request.send_header("Content-Length", "0")
        request.end_headers()

    return answer


@pytest.fixture
def web(monkeypatch: pytest.MonkeyPatch) -> Iterator[Web]:
    monkeypatch.setenv("no_proxy", "*")

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            served.requests.append(self.path)
            served.routes.get(self.path, status(404))(self)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Print nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    served = Web(f"http://127.0.0.1:{server.server_port}", threading.Event())
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield served
    served.closing.set()
    server.shutdown()
    server.server_close()
    thread.join()

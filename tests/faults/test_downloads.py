"""R20: bad downloads lead to the next source or to one line, never to a file that is not whole."""

import gzip
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from diptych.images.integrity import DataError
from diptych.images.raw import fetch_raw, read_raw
from diptych.images.sources import FolderSource, Source, WebSource
from diptych.images.transport import Transport
from tests.faults.tiers import trials
from tests.images import conftest as small
from tests.stages.conftest import ROOT

contents, web = small.contents, small.web  # fixtures
Answer = Callable[..., None]


def announced(num_bytes: int, *pieces: bytes, pause_seconds: float = 0.0) -> Answer:
    """An answer in pieces; the client may hang up meanwhile."""

    def answer(request):
        request.send_response(200)
        request.send_header("Content-Length", str(num_bytes))
        request.end_headers()
        for piece in pieces:
            time.sleep(pause_seconds)
            try:
                request.wfile.write(piece)
                request.wfile.flush()
            except ConnectionError:
                return

    return answer


def bad_answers(content: bytes, origin: str) -> dict[str, Answer]:
    """What a server may give for a file that it should have, gzipped."""
    good = small.gzipped(content)
    wrong = small.gzipped(content[:-1] + bytes([content[-1] ^ 1]))
    flipped = good[:20] + bytes([good[20] ^ 1]) + good[21:]
    elsewhere = origin.replace("127.0.0.1", "localhost")
    return {
        "404": small.status(404),
        "403": small.status(403),
        "503": small.status(503),
        "cut, as announced": small.body(good[:-9]),
        "cut off": announced(len(good), good[:-9]),
        "empty": small.body(b""),
        "wrong bytes": small.body(wrong),
        "a flipped bit": small.body(flipped),
        "bytes behind the end": small.body(good + b"more"),
        "another file": small.body(small.gzipped(b"hello")),
        "a page": small.body(b"<html>Please log in</html>"),
        "a gzip bomb": small.body(gzip.compress(bytes(3_000_000))),
        "too many bytes": small.body(bytes(len(content) + 100_000)),
        "too many announced": announced(10**12, good),
        "http elsewhere": small.status(302, f"{elsewhere}/good/{{}}"),
        "a local file": small.status(302, "file:///etc/hostname"),
        "round and round": small.status(302, f"{origin}/bad/train-images-idx3-ubyte.gz"),
        "no http": lambda request: request.wfile.write(b"no http\r\n\r\n"),
        "silence": lambda _: time.sleep(1.0),
        "a trickle": announced(
            len(good), *(good[i : i + 1] for i in range(40)), pause_seconds=0.05
        ),
    }


def transport_of(web) -> Transport:
    return replace(web.transport(), min_bytes_per_second=100_000.0, num_attempts=1)


def files_in(folder: Path) -> dict[str, bytes]:
    if not folder.exists():
        return {}
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def hidden(folder: Path) -> list[str]:
    return [path.name for path in folder.parent.iterdir() if path.name.startswith(".")]


def test_a_bad_answer_leads_to_the_next_source_or_one_line(promise, web, contents, tmp_path):
    dataset, (name, content) = small.published(contents), next(iter(contents.items()))
    next_source = FolderSource(small.fill(tmp_path / "next", contents))
    answers = bad_answers(content, web.origin)
    survived = 0
    for number, (what, answer) in enumerate(answers.items()):
        for path in (f"/bad/{name}.gz", f"/bad/{name}"):
            web.routes[path] = answer
        bad: Source = WebSource(f"{web.origin}/bad/", transport_of(web))
        alone, both = tmp_path / f"alone{number}", tmp_path / f"both{number}"
        said: list[str] = []
        with pytest.raises(DataError) as caught:
            fetch_raw(dataset, [bad], alone, said.append)
        fetch_raw(dataset, [bad, next_source], both, said.append)
        first, *_, last = "".join(said).splitlines()
        holds = (
            len(str(caught.value).splitlines()) == 1
            and first.startswith(f"{bad}: {name}")
            and last.startswith(str(next_source))
            and not alone.exists()
            and not hidden(alone)
            and {**files_in(both), **contents} == files_in(both)
        )
        survived += holds
        if not holds:
            print(what, said, caught.value, files_in(alone).keys())
    promise("R20", "bad answers", len(answers), survived)


def test_bytes_of_any_kind_from_a_source_are_never_kept(promise, contents, tmp_path):
    """Flips and cuts at random places of every file, gzipped or plain."""
    dataset, source = small.published(contents), random.Random(0)
    num, survived = trials(quick=100, full=2000), 0
    for _ in range(num):
        name = source.choice(list(contents))
        is_gzipped = source.random() < 0.5
        damaged = bytearray(small.gzipped(contents[name]) if is_gzipped else contents[name])
        if source.random() < 0.5:
            damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        else:
            del damaged[source.randrange(len(damaged)) :]
        folder = small.fill(tmp_path / "source", contents)
        (folder / f"{name}.gz").unlink(missing_ok=True)
        (folder / (f"{name}.gz" if is_gzipped else name)).write_bytes(damaged)
        raw = tmp_path / "raw"
        try:
            fetch_raw(dataset, [FolderSource(folder)], raw, lambda _: None)
        except DataError:
            survived += not raw.exists()
        else:  # a flip in a gzip header that says nothing about the content
            survived += is_gzipped and {**files_in(raw), **contents} == files_in(raw)
            for path in raw.iterdir():
                path.unlink()
            raw.rmdir()
        (folder / f"{name}.gz").unlink(missing_ok=True)
    promise("R20", "damaged files", num, survived)


FETCH = """
import hashlib, sys
from pathlib import Path
from diptych.images.datasets import Dataset, DatasetFile
from diptych.images.raw import fetch_raw
from diptych.images.sources import WebSource
from diptych.images.transport import Transport
origin, raw, *files = sys.argv[1:]
described = [DatasetFile("small", *one.split(":")) for one in files]
described = [DatasetFile("small", f.name, int(f.num_bytes), f.idx_sha256) for f in described]
print("ready", flush=True)
source = WebSource(origin + "/", Transport(plain_http_origin=origin))
fetch_raw(Dataset("small", ("a", "b", "c"), (), *described), [source], Path(raw), lambda _: None)
"""


def start_fetching(web, contents: dict[str, bytes], raw: Path) -> "subprocess.Popen[bytes]":
    described = [
        f"{file.name}:{file.num_bytes}:{file.idx_sha256}"
        for file in small.published(contents).files
    ]
    command = [sys.executable, "-c", FETCH, web.origin, str(raw), *described]
    environment = {"PYTHONPATH": str(ROOT / "src"), "no_proxy": "*"}
    return subprocess.Popen(command, stdout=subprocess.PIPE, env=environment)


def test_a_download_that_is_killed_leaves_nothing_or_all(promise, web, contents, tmp_path):
    for name, content in contents.items():
        gz = small.gzipped(content)
        third = len(gz) // 3
        pieces = (gz[:third], gz[third : 2 * third], gz[2 * third :])
        web.routes[f"/{name}.gz"] = announced(len(gz), *pieces, pause_seconds=0.02)
    dataset, source = small.published(contents), random.Random(0)
    num, survived = trials(quick=5, full=50), 0
    for number in range(num):
        raw = tmp_path / f"raw{number}"
        with start_fetching(web, contents, raw) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            time.sleep(source.uniform(0.0, 0.4))
            process.kill()
        if raw.exists():
            read_raw(raw, dataset, "train")
            read_raw(raw, dataset, "test")
        is_whole = not raw.exists() or {**files_in(raw), **contents} == files_in(raw)
        fetch_raw(dataset, [WebSource(f"{web.origin}/", transport_of(web))], raw, lambda _: None)
        survived += is_whole and {**files_in(raw), **contents} == files_in(raw)
    promise("R20", "kills", num, survived)

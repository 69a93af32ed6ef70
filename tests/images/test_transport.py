import http.server
import socket
import struct
import threading
import time
from collections.abc import Callable
from dataclasses import replace

import pytest

from diptych.images.transport import NotFoundError, Transport, TransportError

from .conftest import body, status


@pytest.mark.parametrize("url", ["https://a.b/x y", "https://a..b/", "https://a.b/é"])
def test_an_impossible_address_is_one_line(url):
    with pytest.raises(TransportError, match="no valid address"):
        Transport().get(url, 100)


def test_a_whole_body_is_returned(web):
    web.routes["/file"] = body(b"content")
    assert web.transport().get(f"{web.origin}/file", 7) == b"content"
    assert web.requests == ["/file"]


def test_plain_http_is_refused_without_a_request(web):
    web.routes["/file"] = body(b"content")
    with pytest.raises(TransportError, match=r"must stay on https \(got http://127.0.0.1"):
        Transport().get(f"{web.origin}/file", 7)
    assert web.requests == []


@pytest.mark.parametrize("url", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_no_other_kind_of_address_is_opened(url):
    with pytest.raises(TransportError, match="unknown url type"):
        Transport().get(url, 100)


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed_only_where_the_first_request_may_go(web, code):
    web.routes["/new"] = body(b"content")
    web.routes["/old"] = status(code, f"{web.origin}/new")
    web.routes["/out"] = status(code, f"{web.origin.replace('127.0.0.1', 'localhost')}/new")
    assert web.transport().get(f"{web.origin}/old", 7) == b"content"
    with pytest.raises(TransportError, match=r"must stay on https \(got http://localhost:"):
        web.transport().get(f"{web.origin}/out", 7)
    assert web.requests == ["/old", "/new", "/out"]


@pytest.mark.parametrize("location", ["file:///etc/hostname", "ftp://127.0.0.1/x", "data:,x"])
def test_a_redirect_to_another_kind_of_address_is_refused(web, location):
    web.routes["/out"] = status(302, location)
    with pytest.raises(TransportError, match=r"unknown url type|302 Found"):
        web.transport().get(f"{web.origin}/out", 100)
    assert web.requests == ["/out"]


def test_a_missing_file_is_asked_for_once(web):
    with pytest.raises(NotFoundError, match="the server answers 404 Not Found"):
        web.transport().get(f"{web.origin}/none", 7)
    assert web.requests == ["/none"]


def test_a_refusal_is_final(web):
    web.routes["/file"] = status(403)
    with pytest.raises(TransportError, match="the server answers 403 Forbidden"):
        web.transport().get(f"{web.origin}/file", 7)
    assert web.requests == ["/file"]


def test_a_busy_server_is_asked_again(web):
    answers = iter([status(503), body(b"content")])
    web.routes["/file"] = lambda request: next(answers)(request)
    assert web.transport().get(f"{web.origin}/file", 7) == b"content"
    assert web.requests == ["/file"] * 2


def test_the_number_of_attempts_is_bounded(web):
    web.routes["/file"] = status(503)
    with pytest.raises(TransportError, match="answers 503 Service Unavailable, 2 times"):
        web.transport().get(f"{web.origin}/file", 7)
    assert web.requests == ["/file"] * 2


def test_waiting_doubles_with_each_attempt(web):
    web.routes["/file"] = status(503)
    begin = time.monotonic()
    with pytest.raises(TransportError):
        replace(web.transport(), num_attempts=3, backoff_seconds=0.1).get(f"{web.origin}/file", 7)
    assert time.monotonic() - begin >= 0.3


def test_a_truncated_body_is_refused(web):
    web.routes["/file"] = body(b"cont", num_announced=7)
    with pytest.raises(TransportError, match="cut off after 4 of 7 bytes, 2 times"):
        web.transport().get(f"{web.origin}/file", 7)


def test_a_broken_connection_is_one_line(web):
    web.routes["/file"] = lambda request: request.wfile.write(b"no http\r\n\r\n")
    with pytest.raises(TransportError, match="the connection broke"):
        web.transport().get(f"{web.origin}/file", 7)


def test_a_body_larger_than_expected_is_refused(web):
    def endless(request):
        request.send_response(200)
        request.end_headers()
        while not web.closing.is_set():
            request.wfile.write(bytes(1000))

    web.routes["/announced"] = body(b"content")
    web.routes["/endless"] = silenced(endless)
    with pytest.raises(TransportError, match=r"must have at most 6 bytes \(got 7\)"):
        web.transport().get(f"{web.origin}/announced", 6)
    with pytest.raises(TransportError, match=r"must have at most 5000 bytes \(got more\)"):
        web.transport().get(f"{web.origin}/endless", 5000)


def test_a_silent_server_is_given_up(web):
    def wait(request):
        web.closing.wait(10)

    web.routes["/file"] = wait
    begin = time.monotonic()
    with pytest.raises(TransportError, match=r"no answer within 0.3 s, 2 times"):
        web.transport().get(f"{web.origin}/file", 7)
    assert time.monotonic() - begin < 5


def test_a_trickling_body_is_given_up(web):
    def trickle(request):
        request.send_response(200)
        request.end_headers()
        while not web.closing.wait(0.02):
            request.wfile.write(b".")

    web.routes["/file"] = silenced(trickle)
    transport = replace(web.transport(), min_bytes_per_second=10_000.0)
    with pytest.raises(TransportError, match="slower than 10000 bytes/s"):
        transport.get(f"{web.origin}/file", 1000)


def test_the_time_for_a_body_follows_from_its_announced_length(web):
    def trickle(request):
        request.send_response(200)
        request.send_header("Content-Length", "1000")
        request.end_headers()
        for _ in range(100):
            request.wfile.write(b".")
            web.closing.wait(0.02)

    web.routes["/file"] = silenced(trickle)
    transport = replace(web.transport(), min_bytes_per_second=10_000.0)
    begin = time.monotonic()
    with pytest.raises(TransportError, match="slower than 10000 bytes/s"):
        transport.get(f"{web.origin}/file", 10_000_000)
    assert time.monotonic() - begin < 1.5


def test_a_trickling_header_is_given_up(web):
    def trickle(request):
        while not web.closing.wait(0.1):
            request.wfile.write(b"H")

    web.routes["/file"] = silenced(trickle)
    with pytest.raises(TransportError, match="no connection"):
        web.transport().get(f"{web.origin}/file", 7)


def test_a_closed_port_is_tried_once():
    with http.server.HTTPServer(("127.0.0.1", 0), http.server.BaseHTTPRequestHandler) as server:
        origin = f"http://127.0.0.1:{server.server_port}"
    transport = Transport(backoff_seconds=60.0, plain_http_origin=origin)
    with pytest.raises(TransportError, match=r"no connection \(Connection refused\)"):
        transport.get(f"{origin}/file", 7)


@pytest.mark.parametrize("resets", [True, False])
def test_a_connection_that_breaks_while_it_is_made_is_tried_again(web, resets):
    accepted: list[socket.socket] = []

    def hang_up() -> None:
        for _ in range(2):
            connection, _address = server.accept()
            accepted.append(connection)
            connection.recv(1 << 16)  # the client's first words of TLS
            if resets:
                connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(5)
        thread = threading.Thread(target=hang_up)
        thread.start()
        url = f"https://127.0.0.1:{server.getsockname()[1]}/file"
        with pytest.raises(TransportError, match=r"no connection \(.*\), 2 times"):
            replace(web.transport(), timeout_seconds=5.0).get(url, 7)
        thread.join()
    assert len(accepted) == 2


def test_a_server_that_is_silent_while_the_connection_is_made_is_tried_again(web):
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"https://127.0.0.1:{server.getsockname()[1]}/file"
        with pytest.raises(TransportError, match=r"no connection \(.*timed out\), 2 times"):
            web.transport().get(url, 7)


def test_an_unknown_host_is_tried_once(web, monkeypatch):
    asked: list[str] = []

    def unknown(host, *_args, **_kwargs):
        asked.append(host)
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr(socket, "getaddrinfo", unknown)
    with pytest.raises(TransportError, match=r"no connection \(Name or service not known\)$"):
        web.transport().get("https://a.b/file", 7)
    assert asked == ["a.b"]


def silenced(answer: Callable[..., None]) -> Callable[..., None]:
    """The client hangs up on purpose."""

    def quiet(request):
        try:
            answer(request)
        except ConnectionError:
            request.close_connection = True

    return quiet

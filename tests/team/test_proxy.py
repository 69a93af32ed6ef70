"""The proxy of deploy/Caddyfile before the real server, with a certificate of its own making."""

import base64
import http.client
import os
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest

from .conftest import LOOPBACK, ROOT, Account, TeamServer, free_port, running

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"
ASSISTANT = "/ajax-api/3.0/mlflow/assistant/config"
CLOSED = [
    *("/", SEARCH, "/graphql", "/version", ASSISTANT, "/healthy", "/health/../graphql"),
    *("/static-files/1", "/api/3.0/mlflow/server-info"),  # open in MLflow
]


class Proxy(NamedTuple):
    """Where it answers, and how to be sure that it is it."""

    port: int
    context: ssl.SSLContext
    server: TeamServer

    def ask(
        self, method: str, path: str, account: Account | None = None, **headers: str
    ) -> http.client.HTTPResponse:
        """Send one request by TLS; only the headers of the answer remain."""
        if account is not None:
            login = base64.b64encode(":".join(account).encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        name = self.server.settings["SERVER_NAME"]
        connection = http.client.HTTPConnection(LOOPBACK, self.port)
        with socket.create_connection((LOOPBACK, self.port), timeout=60) as plain:
            connection.sock = self.context.wrap_socket(plain, server_hostname=name)
            connection.request(method, path, headers={"Host": name} | headers)
            response = connection.getresponse()
            response.read()
            connection.close()
        return response


@pytest.fixture(scope="module")
def proxy(
    caddy: str, team_server: TeamServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Proxy]:
    folder = tmp_path_factory.mktemp("proxy")
    port = free_port()
    settings = {
        "SERVER_NAME": team_server.settings["SERVER_NAME"],
        "CADDY_TLS": "tls internal",
        "UPSTREAM": team_server.uri.removeprefix("http://"),
        "HTTP_PORT": str(free_port()),
        "HTTPS_PORT": str(port),
        "XDG_DATA_HOME": str(folder),
        "XDG_CONFIG_HOME": str(folder),
        "HOME": str(folder),
    }
    command = [caddy, "run", "--adapter", "caddyfile", "--config", str(ROOT / "deploy/Caddyfile")]
    environment = {"PATH": os.environ["PATH"], **settings}
    with running(command, folder / "log", env=environment, cwd=folder) as process:
        name = settings["SERVER_NAME"]
        certificate = folder / "caddy/certificates/local" / name / f"{name}.crt"
        wait_for_file(certificate, process)
        root = folder / "caddy/pki/authorities/local/root.crt"
        yield Proxy(port, ssl.create_default_context(cafile=root), team_server)


def wait_for_file(path: Path, process: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + 60
    while not path.exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.parametrize("path", CLOSED)
def test_without_credentials_not_even_open_routes_answer(proxy: Proxy, path: str) -> None:
    for answer in (proxy.ask("GET", path), proxy.ask("GET", path, Authorization="Bearer x")):
        assert (answer.status, answer.headers["WWW-Authenticate"]) == (401, 'Basic realm="mlflow"')


def test_health_is_open(proxy: Proxy) -> None:
    assert proxy.ask("GET", "/health").status == 200


def test_a_member_comes_through_and_others_do_not(proxy: Proxy) -> None:
    member = proxy.server.member
    answer = proxy.ask("GET", SEARCH, member)
    assert answer.status == 200
    assert "max-age" in answer.headers["Strict-Transport-Security"]
    assert proxy.ask("GET", "/", member).status == 200
    assert proxy.ask("GET", SEARCH, Account(member.name, "wrong")).status == 401


@pytest.mark.parametrize("origin", ["https://evil.com", "http://localhost:3000", "null"])
@pytest.mark.parametrize("method", ["GET", "POST"])
def test_another_site_is_refused(proxy: Proxy, method: str, origin: str) -> None:
    assert proxy.ask(method, SEARCH, proxy.server.admin, Origin=origin).status == 403


def test_its_own_site_is_let_in(proxy: Proxy) -> None:
    own = f"https://{proxy.server.settings['SERVER_NAME']}"
    assert proxy.ask("GET", SEARCH, proxy.server.member, Origin=own).status == 200


@pytest.mark.parametrize(
    "path", [ASSISTANT, f"/{ASSISTANT}", ASSISTANT.replace("assistant", "%61ssistant")]
)
def test_the_assistant_is_out_of_reach(proxy: Proxy, path: str) -> None:
    answer = proxy.ask("GET", path, proxy.server.admin, **{"X-Forwarded-For": LOOPBACK})
    assert answer.status == 404


def test_a_foreign_host_reaches_no_server(proxy: Proxy) -> None:
    answer = proxy.ask("GET", SEARCH, proxy.server.admin, Host="rebound.evil.com")
    assert answer.headers.get("Server") == "Caddy"
    assert answer.headers["Content-Length"] == "0"


def test_the_server_sees_who_asks_and_not_what_they_claim(proxy: Proxy) -> None:
    proxy.ask("GET", f"{SEARCH}&claimed", proxy.server.member, **{"X-Forwarded-For": "8.8.8.8"})
    log = proxy.server.log.read_text(encoding="utf-8")
    (line,) = [line for line in log.splitlines() if "claimed" in line]
    assert "8.8.8.8" not in line

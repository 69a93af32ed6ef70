"""The team's server of deploy/ on loopback: a real PostgreSQL, a real S3 server, MLflow itself."""

import base64
import http.client
import json
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple, NoReturn

import pytest

ROOT = Path(__file__).parents[2]
LOOPBACK = "127.0.0.1"
REQUIRE_VARIABLE = "DIPTYCH_REQUIRE_SERVERS"
"""Environment variable: no test may be skipped because PostgreSQL or Caddy is not installed."""

# PostgreSQL refuses to run as root.
PERSON: dict[str, Any] = {
    "user": "nobody",
    "group": pwd.getpwnam("nobody").pw_gid,
    "extra_groups": (),
}
SECRET_ENDS = ("PASSWORD", "SECRET_KEY", "SECRET_ACCESS_KEY")

Settings = dict[str, str]


class Account(NamedTuple):
    """What somebody logs in with."""

    name: str
    password: str


class Answer(NamedTuple):
    """A server's answer."""

    status: int
    body: bytes

    @property
    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class TeamServer:
    """A running server and its people.

    Attributes:
        uri: Where it answers, without TLS: in a deployment the proxy stands here.
        user: A member's name.
        password: The member's password.
        stranger: A second member, who was granted nothing.
        admin: The administrator.
        settings: What mlflow.env holds in a deployment.
        log: What the server prints.
        process_id: Of `mlflow server`.
    """

    uri: str
    user: str
    password: str
    stranger: Account
    admin: Account
    settings: Settings
    log: Path
    process_id: int

    @property
    def member(self) -> Account:
        return Account(self.user, self.password)

    @property
    def secrets(self) -> list[str]:
        """Every text that must show nowhere."""
        chosen = [value for key, value in self.settings.items() if key.endswith(SECRET_ENDS)]
        return [*chosen, self.password, self.stranger.password]

    def environment(self, account: Account) -> Settings:
        """What a client of MLflow wants to know."""
        return {
            "MLFLOW_TRACKING_URI": self.uri,
            "MLFLOW_TRACKING_USERNAME": account.name,
            "MLFLOW_TRACKING_PASSWORD": account.password,
        }

    def ask(
        self,
        method: str,
        path: str,
        account: Account | None = None,
        body: object = None,
        **headers: str,
    ) -> Answer:
        """Send one request as it is: neither the path nor the Host header is put right."""
        if account is not None:
            login = base64.b64encode(":".join(account).encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        content = body if isinstance(body, bytes) else json.dumps(body or {}).encode()
        connection = http.client.HTTPConnection(self.uri.removeprefix("http://"), timeout=60)
        try:
            kept = None if method in ("GET", "HEAD") else content
            connection.request(method, path, kept, {"Content-Type": "application/json"} | headers)
            response = connection.getresponse()
            return Answer(response.status, response.read())
        finally:
            connection.close()


@pytest.fixture(scope="session")
def database() -> Iterator[Settings]:
    """An empty database in a PostgreSQL of its own, and its owner, who is no superuser."""
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    if not programs:
        not_installed("PostgreSQL", "postgresql")
    person = PERSON if is_root() else {}
    # Not below pytest's own folder, which others than its owner cannot enter.
    with tempfile.TemporaryDirectory(prefix="diptych-postgresql-") as folder:
        superuser = new_settings("postgres", str(free_port()))
        make_cluster(programs[-1], Path(folder), superuser["PGPASSWORD"], person)
        command = [
            *(str(programs[-1] / "postgres"), "-D", f"{folder}/data", "-p", superuser["PGPORT"]),
            *("-c", f"listen_addresses={LOOPBACK}", "-c", "unix_socket_directories="),
            *("-c", "fsync=off", "-c", "max_connections=50"),
        ]
        with running(command, Path(folder, "log"), cwd=folder, **person):
            yield make_database(superuser)


@pytest.fixture(scope="session")
def caddy() -> str:
    """The path of Caddy's program."""
    return shutil.which("caddy") or not_installed("Caddy", "caddy")


def not_installed(program: str, package: str) -> NoReturn:
    """Skip what needs a program, or fail where all of them are said to be there."""
    reason = f"{program} is not installed (Debian: {package})"
    if REQUIRE_VARIABLE in os.environ:
        pytest.fail(reason)
    pytest.skip(reason)


def is_root() -> bool:
    return os.geteuid() == 0


def new_settings(user: str, port: str) -> Settings:
    settings = {"PGHOST": LOOPBACK, "PGPORT": port, "PGUSER": user, "PGDATABASE": user}
    return settings | {"PGPASSWORD": secrets.token_hex(16)}


def make_cluster(programs: Path, folder: Path, password: str, person: Mapping[str, Any]) -> None:
    password_file = folder / "password"
    password_file.write_text(password)
    if is_root():
        shutil.chown(folder, PERSON["user"], PERSON["group"])
        shutil.chown(password_file, PERSON["user"], PERSON["group"])
    command = [
        *(str(programs / "initdb"), "-D", str(folder / "data"), "--no-sync"),
        *("--username", "postgres", "--auth", "scram-sha-256", "--pwfile", str(password_file)),
    ]
    subprocess.run(command, check=True, capture_output=True, cwd=folder, **person)


def make_database(superuser: Settings) -> Settings:
    """What README says to do with psql."""
    import psycopg

    owner = new_settings("mlflow", superuser["PGPORT"])
    names = {"PGHOST": "host", "PGPORT": "port", "PGUSER": "user", "PGPASSWORD": "password"}
    login = " ".join(f"{name}={superuser[key]}" for key, name in names.items())
    deadline = time.monotonic() + 60
    while True:
        try:
            connection = psycopg.connect(login, autocommit=True)
        except psycopg.OperationalError:
            assert time.monotonic() < deadline
            time.sleep(0.1)
        else:
            break
    with connection:
        connection.execute(f"CREATE ROLE mlflow LOGIN PASSWORD '{owner['PGPASSWORD']}'")
        connection.execute("CREATE DATABASE mlflow OWNER mlflow")
    return owner


@pytest.fixture(scope="session")
def storage(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """An S3 server without a bucket."""
    uri = f"http://{LOOPBACK}:{free_port()}"
    command = [sys.executable, "-m", "moto.server", "-H", LOOPBACK, "-p", uri.rpartition(":")[2]]
    with running(command, tmp_path_factory.mktemp("storage") / "log") as process:
        wait_for(uri, process)
        yield {
            "MLFLOW_S3_ENDPOINT_URL": uri,
            "ARTIFACTS_BUCKET": "mlflow",
            "AWS_ACCESS_KEY_ID": "mlflow",
            "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
            "AWS_DEFAULT_REGION": "us-east-1",
        }


@pytest.fixture(scope="session")
def team_server(
    database: Settings, storage: Settings, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TeamServer]:
    """The server, by the two commands with which a deployment starts it, and two members."""
    folder = tmp_path_factory.mktemp("team")
    admin = Account("admin", secrets.token_hex(16))
    settings = {
        **database,
        **storage,
        "SERVER_NAME": "mlflow.test",
        "MLFLOW_AUTH_ADMIN_USERNAME": admin.name,
        "MLFLOW_AUTH_ADMIN_PASSWORD": admin.password,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        "MLFLOW_PORT": str(free_port()),
        "MLFLOW_WORKERS": "1",
    }
    environment = clean_environment() | settings
    command = [sys.executable, str(ROOT / "deploy" / "server.py")]
    subprocess.run([*command, "init"], env=environment, cwd=folder, check=True, timeout=300)
    log = folder / "log"
    with running([*command, "serve"], log, env=environment, cwd=folder) as process:
        uri = f"http://{LOOPBACK}:{settings['MLFLOW_PORT']}"
        wait_for(f"{uri}/health", process)
        member, stranger = (Account(name, secrets.token_hex(16)) for name in ("ann", "ben"))
        server = TeamServer(uri, *member, stranger, admin, settings, log, process.pid)
        for account in (member, stranger):
            add_member(server, account)
        yield server


def add_member(server: TeamServer, account: Account) -> None:
    """What docs/team.md says to do with curl."""
    body = {"username": account.name, "password": account.password}
    made = server.ask("POST", "/api/2.0/mlflow/users/create", server.admin, body)
    assert made.status == 200, made.body


def experiment_of(server: TeamServer) -> str:
    """The number of an experiment of the member's own; no pipeline records in it."""
    prefix, name = "/api/2.0/mlflow/experiments", "by-hand"
    made = server.ask("POST", f"{prefix}/create", server.member, {"name": name})
    if made.status == 200:
        return str(made.json["experiment_id"])
    found = server.ask("GET", f"{prefix}/get-by-name?experiment_name={name}", server.member)
    return str(found.json["experiment"]["experiment_id"])


@contextmanager
def running(command: list[str], log: Path, **options: Any) -> "Iterator[subprocess.Popen[bytes]]":
    """Keep a server running, and its output in a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, **options)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(timeout=60)


def clean_environment() -> Settings:
    """This process's environment without what would steer a server or its clients."""
    steering = ("MLFLOW_", "DIPTYCH_", "DVC_", "GIT_", "AWS_", "PG")
    kept = {key: value for key, value in os.environ.items() if not key.startswith(steering)}
    return kept | {"MLFLOW_DISABLE_TELEMETRY": "true", "DO_NOT_TRACK": "true"}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


def wait_for(address: str, process: "subprocess.Popen[bytes]") -> None:
    """Wait until a server accepts connections; whatever it answers."""
    host, _, port = address.removeprefix("http://").partition("/")[0].partition(":")
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError:
            time.sleep(0.1)
        else:
            return
    pytest.fail(f"the server did not start: {process.args!r}")

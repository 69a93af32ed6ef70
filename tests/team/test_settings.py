"""What deploy/ starts with, and what it refuses to start with."""

import subprocess
import sys
from pathlib import Path

import pytest

from deploy.server import FIXED, STORE, server_command, server_environment
from diptych.params import read_yaml

from .conftest import ROOT, SECRET_ENDS

DEPLOY = ROOT / "deploy"
GOOD = {
    "SERVER_NAME": "mlflow.test",
    "PGHOST": "database",
    "PGDATABASE": "mlflow",
    "PGUSER": "mlflow",
    "PGPASSWORD": "0123456789abcdef",
    "ARTIFACTS_BUCKET": "mlflow",
    "AWS_ACCESS_KEY_ID": "mlflow",
    "AWS_SECRET_ACCESS_KEY": "123456789abcdef0",
    "MLFLOW_AUTH_ADMIN_USERNAME": "admin",
    "MLFLOW_AUTH_ADMIN_PASSWORD": "23456789abcdef01",
    "MLFLOW_FLASK_SERVER_SECRET_KEY": "3456789abcdef012",
}
SECRETS = [name for name in GOOD if name.endswith(SECRET_ENDS)]


def example() -> dict[str, str]:
    lines = (DEPLOY / "mlflow.env.example").read_text(encoding="utf-8").splitlines()
    return dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))


def refusals(environment: dict[str, str], *arguments: str) -> list[str]:
    """The lines with which the command refuses to do anything."""
    done = subprocess.run(
        [sys.executable, str(DEPLOY / "server.py"), *arguments],
        env=environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    return done.stderr.splitlines()


@pytest.mark.parametrize("command", ["init", "serve"])
def test_the_example_starts_nothing(command: str) -> None:
    named = {line.split(":")[0] for line in refusals(example(), command)}
    spared = {"MLFLOW_AUTH_ADMIN_PASSWORD"} if command == "serve" else set()
    assert named == {"SERVER_NAME", *SECRETS} - spared
    assert refusals({}, command) != []


@pytest.mark.parametrize("name", SECRETS)
@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("", "must have >= 16 characters (got 0)"),
        ("hunter2", "must have >= 16 characters (got 7)"),
        ("change-me", "must be a secret of your own (got the placeholder)"),
        ("change-me-and-make-it-longer", "must be a secret of your own (got the placeholder)"),
    ],
)
def test_a_weak_secret_is_refused_and_not_shown(name: str, value: str, reason: str) -> None:
    assert refusals(GOOD | {name: value}, "init") == [f"{name}: {reason}"]


@pytest.mark.parametrize(
    "name", ["", "*", "10.*", "*.test", "mlflow.example.org", "a,b", "a:80", "https://a", "a/b"]
)
def test_only_one_plain_name_is_let_in(name: str) -> None:
    (line,) = refusals(GOOD | {"SERVER_NAME": name}, "serve")
    assert line == f"SERVER_NAME: must be the server's own name, as in a URL (got {name!r})"


@pytest.mark.parametrize("name", ["PGHOST", "PGUSER", "ARTIFACTS_BUCKET", "AWS_ACCESS_KEY_ID"])
def test_what_is_missing_is_named(name: str) -> None:
    assert refusals(GOOD | {name: ""}, "serve") == [f"{name}: must be set (got '')"]


def test_other_commands_and_ports_are_refused() -> None:
    assert refusals(GOOD) == ["server.py: must be init or serve (got nothing)"]
    assert refusals(GOOD, "x", "y") == ["server.py: must be init or serve (got x y)"]
    (line,) = refusals(GOOD | {"MLFLOW_PORT": "0"}, "serve")
    assert line == "MLFLOW_PORT: must be from 1 to 65535 (got '0')"


def test_a_database_that_is_not_there_is_said_in_one_line() -> None:
    elsewhere = GOOD | {"PGHOST": "127.0.0.1", "PGPORT": "1"}
    (line,) = refusals(elsewhere, "init")
    assert line.startswith("PGHOST: must be a PostgreSQL that PGUSER can log in to (got ")
    assert not any(GOOD[name] in line for name in SECRETS)


def test_no_argument_is_a_secret_and_no_variable_of_mlflow_slips_in() -> None:
    stray = {
        "MLFLOW_SERVER_ALLOWED_HOSTS": "*",
        "MLFLOW_SERVER_DISABLE_SECURITY_MIDDLEWARE": "true",
        "MLFLOW_ENABLE_REMOTE_ASSISTANT": "true",
        "MLFLOW_BASIC_AUTH_FAIL_CLOSED": "false",
    }
    environment = server_environment(GOOD | stray)
    kept = {key: environment[key] for key in environment if key.startswith("MLFLOW_")}
    allowed = ("MLFLOW_FLASK_SERVER_SECRET_KEY", "MLFLOW_AUTH_ADMIN_USERNAME")
    fixed = {key: value for key, value in FIXED.items() if key.startswith("MLFLOW_")}
    assert kept == {key: GOOD[key] for key in allowed} | fixed
    assert not {GOOD[name] for name in SECRETS} & set(server_command(GOOD))


def test_the_auth_app_keeps_its_users_in_the_same_database_and_holds_no_password() -> None:
    from configparser import ConfigParser

    config = ConfigParser()
    config.read(FIXED["MLFLOW_AUTH_CONFIG_PATH"])
    assert config["mlflow"]["database_uri"] == STORE
    assert config["mlflow"]["default_permission"] == "READ"
    assert not [key for key in config["mlflow"] if "password" in key]


def test_compose_runs_the_same_commands_and_publishes_the_proxy_alone() -> None:
    services = read_yaml(DEPLOY / "compose.yaml")["services"]
    assert services["init"]["command"] == ["init"]
    assert services["server"]["command"] == ["serve"]
    assert [name for name, service in services.items() if "ports" in service] == ["proxy"]
    with_admin = [n for n, s in services.items() if "MLFLOW_AUTH_ADMIN_PASSWORD" in str(s)]
    assert with_admin == ["init"]
    dockerfile = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    assert 'ENTRYPOINT ["python", "server.py"]' in dockerfile


def test_compose_takes_every_secret_from_the_file_of_settings() -> None:
    text = (DEPLOY / "compose.yaml").read_text(encoding="utf-8")
    for name in SECRETS:
        assert f"${{{name}:?}}" in text
        assert example()[name] == "change-me"


def test_the_file_of_settings_stays_out_of_git(tmp_path: Path) -> None:
    ignored = subprocess.run(
        ["git", "check-ignore", "-q", "deploy/mlflow.env"], cwd=ROOT, check=False
    )
    assert ignored.returncode == 0


def test_the_image_has_the_versions_that_are_tested() -> None:
    def pinned(path: Path) -> set[str]:
        lines = path.read_text(encoding="utf-8").splitlines()
        return {line.split(" ")[0] for line in lines if line[:1].isalnum()}

    image = pinned(DEPLOY / "requirements.lock")
    assert len(image) > 50
    assert image - pinned(ROOT / "requirements.lock") == set()

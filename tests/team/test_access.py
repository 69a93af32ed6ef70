"""Who gets in, and where to: the real server under the arguments of its deployment."""

import os
import re
import secrets
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest

from deploy.server import server_environment

from .conftest import ROOT, Account, TeamServer, add_member, clean_environment, experiment_of

SEARCH = "/api/2.0/mlflow/experiments/search?max_results=5"
CREATE = "/api/2.0/mlflow/experiments/create"
GRANT = "/api/3.0/mlflow/users/permissions/grant"
EDIT, MANAGE = {"permission": "EDIT"}, {"permission": "MANAGE"}
ARTIFACTS = "/api/2.0/mlflow-artifacts/artifacts"
# Flask's part of the server, FastAPI's part of it, and the pages' own requests.
EACH_PART = [SEARCH, f"{ARTIFACTS}/x", SEARCH.replace("/api/", "/ajax-api/"), "/", "/graphql"]

FOREIGN_HOSTS = [
    *("10.evil.com", "192.168.evil.com", "127.0.0.1.evil.com", "mlflow.test.evil.com"),
    *("rebound.evil.com", "evil.com:5000", "10.0.0.1", "localhost", "localhost:1", "127.0.0.1"),
    "",
]
FOREIGN_ORIGINS = ["https://evil.com", "http://mlflow.test", "https://mlflow.test.evil.com", "null"]
PATHS_OUTSIDE = [
    *("../x", "a/../../x", "..%2Fx", "1/%2e%2e/x", "1/%2e%2e%2f%2e%2e%2fx", "%252e%252e%252fx"),
    *("%2Fetc%2Fpasswd", "file:%2F%2F%2Fetc%2Fpasswd"),
]

# docs/team.md names what MLflow itself leaves open; behind the proxy only /health is.
OPEN = {"/health", "/static-files/1"} | {
    f"/{kind}/3.0/mlflow/server-info" for kind in ("api", "ajax-api")
}

LIST_ROUTES = """
from mlflow.server.auth import create_app
from mlflow.server import app as pages
for path, methods in create_app().openapi()["paths"].items():
    print(*(f"{method.upper()} {path}" for method in methods), sep="\\n")
for rule in pages.url_map.iter_rules():
    print(*(f"{method} {rule.rule}" for method in rule.methods), sep="\\n")
"""


@pytest.fixture(scope="module")
def routes(team_server: TeamServer) -> list[tuple[str, str]]:
    """Method and path of every route, from a second instance of the same application."""
    private = {"_MLFLOW_SGI_NAME": "uvicorn", "_MLFLOW_AUTH_ADMIN_BOOTSTRAPPED": "true"}
    environment = server_environment(clean_environment() | team_server.settings) | private
    listed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", LIST_ROUTES],
        env=environment,
        check=True,
        stdout=subprocess.PIPE,
        text=True,
        timeout=300,
    ).stdout
    filled = re.sub(r"<[^>]*>|{[^}]*}", "1", listed)
    found = {(method, path) for method, path in (line.split(" ") for line in filled.splitlines())}
    return sorted(found)


def test_without_credentials_every_route_is_closed(
    team_server: TeamServer, routes: list[tuple[str, str]]
) -> None:
    assert len(routes) > 500
    with ThreadPoolExecutor(4) as pool:
        answers = pool.map(lambda route: team_server.ask(*route).status, routes)
        opened = {path for (_, path), status in zip(routes, answers, strict=True) if status != 401}
    assert opened == OPEN


@pytest.mark.parametrize("path", ["/static-files/../graphql", "/health/../graphql", "/healthy"])
def test_an_open_prefix_leads_nowhere_else(team_server: TeamServer, path: str) -> None:
    assert team_server.ask("GET", path).status in (401, 404)


@pytest.mark.parametrize("path", EACH_PART)
def test_wrong_credentials_are_no_credentials(team_server: TeamServer, path: str) -> None:
    wrong = [
        Account(team_server.user, team_server.stranger.password),
        Account(team_server.user, ""),
        Account("nobody", team_server.password),
        Account(team_server.admin.name, "password1234"),  # once the default
    ]
    assert [team_server.ask("GET", path, account).status for account in wrong] == [401] * 4
    assert team_server.ask("GET", path, team_server.member).status != 401


@pytest.mark.parametrize("path", EACH_PART)
def test_a_foreign_host_is_refused(team_server: TeamServer, path: str) -> None:
    answers = {
        host: team_server.ask("GET", path, team_server.admin, Host=host).status
        for host in FOREIGN_HOSTS
    }
    assert answers == dict.fromkeys(FOREIGN_HOSTS, 403)


def test_its_own_names_are_let_in(team_server: TeamServer) -> None:
    port = team_server.settings["MLFLOW_PORT"]
    for host in ("mlflow.test", f"localhost:{port}", f"127.0.0.1:{port}"):
        assert team_server.ask("GET", SEARCH, team_server.member, Host=host).status == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", CREATE),
        ("POST", CREATE.replace("/api/", "/ajax-api/")),
        ("PUT", f"{ARTIFACTS}/x"),
        ("DELETE", f"{ARTIFACTS}/x"),
        ("PATCH", "/api/2.0/mlflow/registered-models/update"),
    ],
)
def test_another_site_changes_nothing(team_server: TeamServer, method: str, path: str) -> None:
    """The browser would add the credentials that it keeps for the server."""
    answers = {
        origin: team_server.ask(method, path, team_server.admin, {"name": "x"}, Origin=origin)
        for origin in FOREIGN_ORIGINS
    }
    assert {origin: answer.status for origin, answer in answers.items()} == dict.fromkeys(
        FOREIGN_ORIGINS, 403
    )


def test_its_own_site_may_change_things(team_server: TeamServer) -> None:
    name = {"name": "by the site"}
    made = team_server.ask("POST", CREATE, team_server.member, name, Origin="https://mlflow.test")
    assert made.status == 200


@pytest.mark.parametrize("path", PATHS_OUTSIDE)
@pytest.mark.parametrize("kind", ["api", "ajax-api"])
def test_a_path_leads_out_of_the_artifacts_for_nobody(
    team_server: TeamServer, kind: str, path: str
) -> None:
    address = f"/{kind}/2.0/mlflow-artifacts/artifacts"
    answers = [
        team_server.ask("GET", f"{address}/{path}", team_server.admin),
        team_server.ask("PUT", f"{address}/{path}", team_server.admin, b"x"),
        team_server.ask("GET", f"{address}?path={path}", team_server.admin),
    ]
    assert [answer.status for answer in answers] == [400, 400, 400]


def test_a_member_writes_and_another_only_reads(team_server: TeamServer) -> None:
    member, stranger = team_server.member, team_server.stranger
    experiment = experiment_of(team_server)
    body = {"experiment_id": experiment}
    run = team_server.ask("POST", "/api/2.0/mlflow/runs/create", member, body).json["run"]["info"]
    run_id = run["run_id"]
    artifact = f"{ARTIFACTS}/{experiment}/{run_id}/artifacts/note.txt"
    assert team_server.ask("PUT", artifact, member, b"ours").status == 200
    changes = [
        ("POST", "/api/2.0/mlflow/runs/create", body),
        (
            "POST",
            "/api/2.0/mlflow/runs/log-parameter",
            {"run_id": run_id, "key": "a", "value": "b"},
        ),
        ("POST", "/api/2.0/mlflow/runs/delete", {"run_id": run_id}),
        ("POST", "/api/2.0/mlflow/experiments/update", body | {"new_name": "x"}),
        ("POST", "/api/2.0/mlflow/experiments/delete", body),
        ("PUT", artifact, b"theirs"),
        ("DELETE", artifact, None),
    ]
    answers = [team_server.ask(method, path, stranger, body) for method, path, body in changes]
    assert [answer.status for answer in answers] == [403] * len(changes)
    assert team_server.ask("GET", artifact, stranger).body == b"ours"
    found = f"/api/2.0/mlflow/runs/get?run_id={run_id}"
    assert team_server.ask("GET", found, stranger).json["run"]["data"].get("params", []) == []


def test_a_registered_model_is_its_makers_until_it_is_granted(team_server: TeamServer) -> None:
    name = {"name": "granted-model"}
    prefix = "/api/2.0/mlflow/registered-models"
    change = ("PATCH", f"{prefix}/update")
    body = name | {"description": "changed"}
    assert team_server.ask("POST", f"{prefix}/create", team_server.member, name).status == 200
    assert team_server.ask(*change, team_server.stranger, body).status == 403
    grant = {
        "username": team_server.stranger.name,
        "resource_type": "registered_model",
        "resource_id": name["name"],
    } | EDIT
    assert team_server.ask("POST", GRANT, team_server.stranger, grant).status == 403
    assert team_server.ask("POST", GRANT, team_server.admin, grant).status == 200
    assert team_server.ask(*change, team_server.stranger, body).status == 200


def add_colleague(server: TeamServer, name: str, of_models: dict[str, str] | None) -> Account:
    """A member with the grants of docs/team.md, or with others of registered models."""
    colleague = Account(name, secrets.token_hex(16))
    add_member(server, colleague)
    grants = {"experiment": EDIT, "registered_model": of_models}
    for kind, permission in grants.items():
        if permission is not None:
            grant = {"username": name, "resource_type": kind, "resource_id": "*"} | permission
            assert server.ask("POST", GRANT, server.admin, grant).status == 200
    return colleague


def test_a_colleague_to_whom_all_is_granted_works_with_the_others(team_server: TeamServer) -> None:
    create = ("POST", "/api/2.0/mlflow/runs/create")
    body = {"experiment_id": experiment_of(team_server)}
    assert team_server.ask(*create, team_server.stranger, body).status == 403
    colleague = add_colleague(team_server, "cat", MANAGE)
    assert team_server.ask(*create, colleague, body).status == 200


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "/api/2.0/mlflow/users/create", {"username": "eve", "password": "x" * 16}),
        ("PATCH", "/api/2.0/mlflow/users/update-admin", {"username": "ann", "is_admin": True}),
        (
            "PATCH",
            "/api/2.0/mlflow/users/update-password",
            {"username": "ben", "password": "x" * 16},
        ),
        ("DELETE", "/api/2.0/mlflow/users/delete", {"username": "ben"}),
    ],
)
def test_only_the_administrator_manages_people(
    team_server: TeamServer, method: str, path: str, body: dict[str, object]
) -> None:
    assert team_server.ask(method, path, team_server.member, body).status == 403


def test_init_again_changes_nothing(team_server: TeamServer) -> None:
    other = team_server.settings | {"MLFLOW_AUTH_ADMIN_PASSWORD": "another-password"}
    command = [sys.executable, str(ROOT / "deploy" / "server.py"), "init"]
    subprocess.run(command, env=clean_environment() | other, check=True, timeout=300)
    assert team_server.ask("GET", SEARCH, team_server.admin).status == 200
    another = Account(team_server.admin.name, other["MLFLOW_AUTH_ADMIN_PASSWORD"])
    assert team_server.ask("GET", SEARCH, another).status == 401


def test_processes_show_no_secret_and_run_no_jobs(team_server: TeamServer) -> None:
    process = psutil.Process(team_server.process_id)
    family = [process, *process.children(recursive=True)]
    commands = [" ".join(one.cmdline()) for one in family]
    assert len(commands) > 1
    assert [
        text for text in commands if any(secret in text for secret in team_server.secrets)
    ] == []
    assert [text for text in commands if "mlflow.server.jobs" in text or "huey" in text] == []
    known = {text for one in family for text in one.environ().values()}
    assert team_server.admin.password not in known
    assert os.environ.get("PGPASSWORD") is None


def test_the_log_shows_no_secret(team_server: TeamServer) -> None:
    wrong = Account(team_server.user, "a-wrong-password-1")
    assert team_server.ask("GET", SEARCH, wrong).status == 401
    log = team_server.log.read_text(encoding="utf-8")
    assert "experiments/search" in log
    assert [text for text in (*team_server.secrets, wrong.password) if text in log] == []

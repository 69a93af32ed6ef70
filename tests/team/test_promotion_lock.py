"""Whom a promotion's lock keeps out on the team's server, by what they may read."""

import secrets
import shutil
import sys
from collections.abc import Iterator
from dataclasses import replace

import pytest

from diptych.tracking.promotion_lock import LockError, promotion_lock

from .conftest import (
    LOOPBACK,
    ROOT,
    Account,
    TeamServer,
    add_member,
    clean_environment,
    free_port,
    running,
    wait_for,
)
from .projects import logged_in
from .test_access import GRANT, MANAGE, add_colleague

READ = {"permission": "READ"}


@pytest.fixture(scope="module")
def closed_server(
    team_server: TeamServer, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[TeamServer]:
    """A second server of the same people and models, where nobody reads what is not granted."""
    folder = tmp_path_factory.mktemp("closed")
    shutil.copy(ROOT / "deploy" / "server.py", folder)
    deployed = (ROOT / "deploy" / "basic_auth.ini").read_text(encoding="utf-8")
    closed = deployed.replace("default_permission = READ", "default_permission = NO_PERMISSIONS")
    assert closed != deployed
    (folder / "basic_auth.ini").write_text(closed, encoding="utf-8")
    settings = team_server.settings | {"MLFLOW_PORT": str(free_port())}
    uri = f"http://{LOOPBACK}:{settings['MLFLOW_PORT']}"
    environment = clean_environment() | settings
    command = [sys.executable, str(folder / "server.py"), "serve"]
    with running(command, folder / "log", env=environment, cwd=folder) as process:
        wait_for(f"{uri}/health", process)
        yield replace(team_server, uri=uri, settings=settings, process_id=process.pid)


@pytest.fixture(scope="module")
def promoter_of_one(team_server: TeamServer) -> Account:
    """Somebody to whom one registered model is granted, `of-one-cnn`."""
    account = Account("of-one", secrets.token_hex(16))
    add_member(team_server, account)
    with logged_in(team_server, team_server.member) as member:
        member.create_registered_model("of-one-cnn")
    model = {"resource_type": "registered_model", "resource_id": "of-one-cnn"}
    grant = {"username": account.name} | model | MANAGE
    assert team_server.ask("POST", GRANT, team_server.admin, grant).status == 200
    return account


def may_hold_lock(server: TeamServer, account: Account, name: str) -> bool:
    """Tell whether somebody gets a registered model's lock at once."""
    with logged_in(server, account) as client:
        try:
            with promotion_lock(client, name, print, patience_seconds=0.0):
                return True
        except LockError:
            return False


def test_who_may_read_all_models_waits_for_the_others_lock_where_nothing_else_is_open(
    team_server: TeamServer, closed_server: TeamServer
) -> None:
    promoters = [
        add_colleague(team_server, "manages-all", MANAGE),  # the grants of docs/team.md
        add_colleague(team_server, "reads-all", READ),
    ]
    with (
        logged_in(closed_server, team_server.member) as member,
        promotion_lock(member, "closed-cnn", print),
    ):
        held = [may_hold_lock(closed_server, one, "closed-cnn") for one in promoters]
    assert held == [False, False]
    assert [may_hold_lock(closed_server, one, "closed-cnn") for one in promoters] == [True, True]


def test_a_grant_for_one_model_is_enough_where_everybody_reads_everything(
    team_server: TeamServer, promoter_of_one: Account
) -> None:
    """As deployed; and of no other deployment does docs/team.md say it."""
    with (
        logged_in(team_server, team_server.member) as member,
        promotion_lock(member, "of-one-cnn", print),
    ):
        assert not may_hold_lock(team_server, promoter_of_one, "of-one-cnn")
    assert may_hold_lock(team_server, promoter_of_one, "of-one-cnn")


def test_a_grant_for_one_model_shows_nobodys_lock_where_nothing_else_is_open(
    team_server: TeamServer, closed_server: TeamServer, promoter_of_one: Account
) -> None:
    """What docs/team.md warns of: MLflow lists nobody a model that they may not read."""
    with (
        logged_in(closed_server, team_server.member) as member,
        promotion_lock(member, "of-one-cnn", print),
    ):
        assert may_hold_lock(closed_server, promoter_of_one, "of-one-cnn")

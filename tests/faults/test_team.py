"""X2: every route of the team's server, asked from elsewhere, by nobody or for files outside."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from types import MappingProxyType
from typing import NamedTuple
from urllib.parse import unquote

import pytest

from tests.faults.tiers import chosen_tier
from tests.team.conftest import Account, TeamServer, database, experiment_of, storage, team_server
from tests.team.test_access import (
    FOREIGN_HOSTS,
    FOREIGN_ORIGINS,
    OPEN,
    PATHS_OUTSIDE,
    SEARCH,
    routes,
)

__all__ = ["database", "routes", "storage", "team_server"]  # fixtures from beside

pytestmark = pytest.mark.skipif(
    chosen_tier() == "quick", reason="tests/team/test_access.py asks a sample of this"
)

Route = tuple[str, str]
REFUSALS = (400, 401, 403)
REST = ("/api/", "/ajax-api/")
OF_ARTIFACTS = tuple(f"{prefix}2.0/mlflow-artifacts/" for prefix in REST)
CHANGING = ("POST", "PUT", "PATCH", "DELETE")
OF_ANY_HOST = ("/health", "/version")  # MLflow looks at no Host header there, nor says more
DOTTED = [path for path in PATHS_OUTSIDE if ".." in unquote(unquote(path))]


class Attack(NamedTuple):
    """A request that must be refused."""

    method: str
    path: str
    account: Account | None = None
    headers: Mapping[str, str] = MappingProxyType({})


def without_login(_: TeamServer, method: str, path: str) -> Iterator[Attack]:
    if path not in OPEN:
        yield Attack(method, path)


def with_a_wrong_login(server: TeamServer, method: str, path: str) -> Iterator[Attack]:
    if path not in OPEN:
        yield Attack(method, path, Account(server.user, server.stranger.password))
        yield Attack(method, path, Account("nobody", server.password))


def for_another_host(server: TeamServer, method: str, path: str) -> Iterator[Attack]:
    if path not in OF_ANY_HOST:
        for host in FOREIGN_HOSTS:
            yield Attack(method, path, server.admin, {"Host": host})


def from_another_site(server: TeamServer, method: str, path: str) -> Iterator[Attack]:
    """What changes something by REST; the rest, which MLflow lets in, is the proxy's to refuse."""
    if method in CHANGING and path.startswith(REST):
        for origin in FOREIGN_ORIGINS:
            yield Attack(method, path, server.admin, {"Origin": origin})


def beside_the_route(_: TeamServer, method: str, path: str) -> Iterator[Attack]:
    """Without a login: no way in by way of what is open, or of how a path is put right."""
    if path not in OPEN:
        for outside in DOTTED:
            yield Attack(method, f"{path}/{outside}")


def beside_the_artifacts(server: TeamServer, method: str, path: str) -> Iterator[Attack]:
    """With the login that may do everything."""
    if path.startswith(OF_ARTIFACTS) and path.endswith("/1") and method != "OPTIONS":
        for outside in DOTTED:
            yield Attack(method, path.removesuffix("1") + outside, server.admin)


ATTACKS: dict[str, Callable[[TeamServer, str, str], Iterator[Attack]]] = {
    "no login": without_login,
    "a wrong login": with_a_wrong_login,
    "foreign Host": for_another_host,
    "foreign Origin": from_another_site,
    "`..` behind a route": beside_the_route,
    "`..` to an artifact": beside_the_artifacts,
}


def answers(server: TeamServer, attacks: Sequence[Attack]) -> list[int]:
    """Return the statuses of all answers."""

    def ask(attack: Attack) -> int:
        method, path, account, headers = attack
        return server.ask(method, path, account, {"path": "x", "num_parts": 1}, **headers).status

    with ThreadPoolExecutor(4) as pool:
        return list(pool.map(ask, attacks))


@pytest.mark.parametrize("what", ATTACKS)
def test_every_route_refuses(
    team_server: TeamServer, routes: list[Route], promise: Callable[..., None], what: str
) -> None:
    assert team_server.ask("GET", SEARCH, team_server.member).status == 200
    assert len(routes) > 500
    by_route = [list(ATTACKS[what](team_server, *route)) for route in routes]
    attacks = [attack for own in by_route for attack in own]
    statuses = answers(team_server, attacks)
    for attack, status in zip(attacks, statuses, strict=True):
        if status not in REFUSALS:
            print(status, attack)
    survived = sum(status in REFUSALS for status in statuses)
    num_routes = sum(map(bool, by_route))
    promise("X2", what, len(attacks), survived, detail=f"on {num_routes} routes")


def test_a_run_hands_out_no_file_beside_its_own(
    team_server: TeamServer, promise: Callable[..., None]
) -> None:
    """To its own maker, who may read and write all that is the run's."""
    member = team_server.member
    body = {"experiment_id": experiment_of(team_server)}
    made = team_server.ask("POST", "/api/2.0/mlflow/runs/create", member, body).json
    run_id = made["run"]["info"]["run_id"]
    addresses = [
        ("GET", f"/get-artifact?run_uuid={run_id}&path="),
        ("POST", f"/ajax-api/2.0/mlflow/upload-artifact?run_uuid={run_id}&path="),
        *(("GET", f"{prefix}2.0/mlflow/artifacts/list?run_id={run_id}&path=") for prefix in REST),
    ]
    assert team_server.ask(*addresses[-1], member).status == 200
    attacks = [
        Attack(method, path + outside, member)
        for method, path in addresses
        for outside in PATHS_OUTSIDE
    ]
    statuses = answers(team_server, attacks)
    survived = sum(status in REFUSALS for status in statuses)
    promise("X2", "`..` to a run's file", len(attacks), survived)

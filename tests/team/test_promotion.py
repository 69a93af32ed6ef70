"""Who may promote and roll back on the team's server, and what a refusal leaves behind."""

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import pytest

from diptych.promotion.params import PromotionParams
from diptych.tracking.audit import AuditEntry, Standing
from diptych.tracking.promoting import Request, promote, read_history, read_status, roll_back
from diptych.tracking.promotion_lock import STALE_SECONDS, LockError, promotion_lock
from diptych.tracking.registrar import Registrar
from diptych.tracking.registry import DeniedError
from diptych.tracking.tracker import now_ms
from tests.stages.conftest import PROCESSED
from tests.tracking.conftest import empty_database
from tests.tracking.promotions import (
    POLICY,
    Death,
    Project,
    add_execution,
    dying,
    images_of,
    recorded,
)

from .conftest import Account, TeamServer, add_member
from .projects import logged_in
from .test_access import EDIT, GRANT, MANAGE, add_colleague

__all__ = ["empty_database", "recorded"]  # fixtures from beside


@pytest.fixture(scope="module")
def project(
    team_server: TeamServer, recorded: Project, tmp_path_factory: pytest.TempPathFactory
) -> Project:
    """Two executions of the member's on the team's server: `plain`, and `better`."""
    project = Project(recorded.root, team_server.uri, {})
    folder = tmp_path_factory.mktemp("executions")
    results = {"plain": (15, 90.0), "better": (3, 80.0)}
    with logged_in(team_server, team_server.member) as client:
        made = {
            name: add_execution(
                client, recorded.root / PROCESSED, folder / name, images_of(*result), seed
            )
            for seed, (name, result) in enumerate(results.items())
        }
    return replace(project, executions=made)


@contextmanager
def registrar_of(
    server: TeamServer, project: Project, account: Account, prefix: str
) -> Iterator[Registrar]:
    """What somebody promotes with, in registered models of this prefix."""
    policy = PromotionParams.model_validate({**POLICY, "prefix": prefix})
    with logged_in(server, account) as client:
        yield project.registrar(client, policy=policy)


def promoted(registrar: Registrar, project: Project, name: str) -> bool:
    request = Request(run_id=project.executions[name].run_id)
    return promote(registrar, "cnn", request, project.evaluate).decision.is_promoted


def standing(registrar: Registrar) -> Standing:
    return registrar.registry("cnn").read().standing


def last_entry(registrar: Registrar) -> AuditEntry:
    return read_history(registrar, "cnn")[-1]


def test_a_colleague_with_the_grants_of_the_page_promotes_and_rolls_back(
    team_server: TeamServer, project: Project
) -> None:
    colleague = add_colleague(team_server, "may-all", MANAGE)
    with registrar_of(team_server, project, team_server.member, "granted") as member:
        assert promoted(member, project, "plain")
        assert last_entry(member).who.startswith(f"{team_server.user} (")
    with registrar_of(team_server, project, colleague, "granted") as registrar:
        assert promoted(registrar, project, "better")
        assert standing(registrar) == Standing(2, 1)
        entry = roll_back(registrar, "cnn")
        assert entry.after == standing(registrar) == Standing(1, None)
        assert entry.who.startswith("may-all (")


def test_a_refused_rollback_leaves_nothing_that_others_would_complete(
    team_server: TeamServer, project: Project
) -> None:
    colleague = add_colleague(team_server, "may-edit", EDIT)
    with registrar_of(team_server, project, team_server.member, "refusing") as member:
        member.client.create_registered_model("refusing-cnn")
    with registrar_of(team_server, project, colleague, "refusing") as registrar:
        for name in ("plain", "better"):  # the first one finds no alias to take away
            assert promoted(registrar, project, name)
        with pytest.raises(DeniedError, match="refusing-cnn: must be granted to you with MANAGE"):
            roll_back(registrar, "cnn")
        assert (last_entry(registrar).action, last_entry(registrar).state) == (
            "rolled back",
            "undone",
        )
    with registrar_of(team_server, project, team_server.stranger, "refusing") as reader:
        with pytest.raises(DeniedError, match="refusing-cnn: must be granted to you with EDIT"):
            roll_back(reader, "cnn")
        assert last_entry(reader).number == 3
    with registrar_of(team_server, project, team_server.member, "refusing") as member:
        assert not promoted(member, project, "plain")
        assert standing(member) == Standing(2, 1)
        assert read_status(member, "cnn").disagreement is None


def test_who_may_change_models_but_no_runs_promotes_without_the_cards_second_copy(
    team_server: TeamServer, project: Project
) -> None:
    colleague = Account("may-no-runs", secrets.token_hex(16))
    add_member(team_server, colleague)
    grant = {"username": colleague.name, "resource_type": "registered_model", "resource_id": "*"}
    assert team_server.ask("POST", GRANT, team_server.admin, grant | MANAGE).status == 200
    notices: list[str] = []
    with registrar_of(team_server, project, colleague, "no-runs") as registrar:
        registrar = replace(registrar, notice=notices.append)
        assert promoted(registrar, project, "plain")
        assert standing(registrar) == Standing(1, None)
        description = registrar.client.get_model_version("no-runs-cnn", "1").description
    assert description is not None
    assert "Promoted" in description
    run_id = project.executions["plain"].runs["train_cnn"]
    assert notices == [
        f"run {run_id}: its experiment must be granted to you with EDIT to keep model_card.md "
        "(got a refusal); the version's description has the card"
    ]


def test_what_was_interrupted_is_told_to_readers_and_kept_for_those_who_may(
    team_server: TeamServer, project: Project
) -> None:
    colleague = add_colleague(team_server, "may-not-delete", EDIT)
    notices: list[str] = []
    with registrar_of(team_server, project, team_server.member, "interrupted") as member:
        for name in ("plain", "better"):
            assert promoted(member, project, name)
        # Its lock and its intention are written, and no alias is moved any more.
        killed = project.registrar(dying(member.client, 2), policy=member.policy)
        with pytest.raises(Death):
            roll_back(killed, "cnn")
    with registrar_of(team_server, project, team_server.stranger, "interrupted") as reader:
        told = read_status(reader, "cnn").disagreement
        assert told is not None
        assert told.startswith("audit entry 3 is not finished (rolled back: version 1)")
    with registrar_of(team_server, project, colleague, "interrupted") as registrar:
        registrar = replace(registrar, notice=notices.append)
        with pytest.raises(DeniedError, match=r"interrupted: to be completed first: .* MANAGE"):
            promoted(registrar, project, "plain")
        assert notices == [], "it could not take the dead one's lock away"
        assert last_entry(registrar).state == "intended"
    with registrar_of(team_server, project, team_server.member, "interrupted") as member:
        assert roll_back(member, "cnn").after == standing(member) == Standing(1, None)


def test_a_holder_whose_lock_others_cannot_delete_learns_that_they_went_on(
    team_server: TeamServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    notices: list[str] = []
    with logged_in(team_server, team_server.member) as member:
        with promotion_lock(member, "slow-cnn", notices.append) as raise_if_lost:
            raise_if_lost()
            later = now_ms() + round(1000 * STALE_SECONDS) + 1000
            monkeypatch.setattr("diptych.tracking.promotion_lock.now_ms", lambda: later)
            with (
                logged_in(team_server, team_server.stranger) as stranger,
                promotion_lock(stranger, "slow-cnn", notices.append, patience_seconds=0.0),
            ):
                found = stranger.search_registered_models("name LIKE 'slow-cnn.lock.%'")
                assert len(found) == 2
                with pytest.raises(LockError, match="must stay locked until the end"):
                    raise_if_lost()
        assert member.search_registered_models("name LIKE 'slow-cnn.lock.%'") == []
    assert notices == []

"""Promotion and rollback on real stores: laws of the registry, whatever happens to a process."""

import multiprocessing
import shutil
import sqlite3
import threading
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import pytest

from diptych.tracking.audit import AuditEntry, Standing, champions, standing_of
from diptych.tracking.client import StoreError
from diptych.tracking.model_records import FIGURES_FILE, PER_IMAGE_FILE
from diptych.tracking.promoting import (
    Outcome,
    Request,
    promote,
    read_history,
    read_status,
    roll_back,
)
from diptych.tracking.promotion_reports import verdict_lines
from diptych.tracking.registry import VERDICT_TAG, RegistryError
from diptych.tracking.store import ARTIFACT_FOLDER, DATABASE_FILE
from tests.stages.conftest import PROCESSED
from tests.tracking.promotions import (
    COMMIT,
    Copier,
    Death,
    DyingClient,
    Execution,
    Project,
    act,
    act_and_exit,
    add_execution,
    complete,
    dying,
    images_of,
)

NAME = "diptych-cnn"


@pytest.fixture
def project(copied: Copier) -> Project:
    return copied("project")


def promoted(project: Project, name: str, **request: Any) -> Outcome:
    run_id = project.executions[name].run_id
    return promote(project.registrar(), "cnn", Request(run_id=run_id, **request), project.evaluate)


def standing(project: Project, name: str = NAME) -> Standing:
    if name not in model_names(project):
        return Standing(None, None)
    aliases = project.client.get_registered_model(name).aliases
    numbers = {alias: int(version) for alias, version in aliases.items()}
    return Standing(numbers.get("champion"), numbers.get("previous"))


def check_laws(project: Project) -> Standing:
    """The aliases are the log's, the champion passed the gate, nothing is unfinished."""
    found = standing(project)
    log = read_history(project.registrar(), "cnn")
    assert [entry.number for entry in log] == list(range(1, len(log) + 1))
    assert {entry.state for entry in log} <= {"done"}
    assert standing_of(log) == found
    stack = champions(log)
    assert Standing(*[*reversed(stack), None, None][:2]) == found
    if found.champion is not None:
        version = project.client.get_model_version(NAME, str(found.champion))
        assert version.tags[VERDICT_TAG] == "promoted"
    return found


def model_names(project: Project) -> list[str]:
    return [model.name for model in project.client.search_registered_models()]


@pytest.mark.parametrize("family", ["cnn", "vae", "pair"])
def test_the_first_is_promoted_the_better_replaces_it_and_the_worse_is_refused(
    project: Project, family: Any
) -> None:
    registrar, name = project.registrar(), f"diptych-{family}"
    first = promote(
        registrar, family, Request(run_id=project.executions["plain"].run_id), project.evaluate
    )
    assert first.decision.is_promoted
    assert standing(project, name) == Standing(1, None)
    better = promote(
        registrar, family, Request(run_id=project.executions["better"].run_id), project.evaluate
    )
    assert better.decision.is_promoted
    assert better.champion == 1
    assert standing(project, name) == Standing(2, 1)
    worse = promote(registrar, family, Request(), project.evaluate)  # the newest
    assert worse.candidate.model_id == project.executions["worse"].models[family]
    assert not worse.decision.is_promoted
    assert worse.decision.refusals
    assert standing(project, name) == Standing(2, 1)
    assert [entry.action for entry in read_history(registrar, family)] == [
        "promoted",
        "promoted",
        "refused",
    ]
    assert read_status(registrar, family).disagreement is None


def test_a_version_says_what_it_is_and_what_the_gate_said(project: Project) -> None:
    promoted(project, "better")
    promoted(project, "worse")
    execution = project.executions["worse"]
    good, bad = (project.client.get_model_version(NAME, number) for number in "12")
    assert good.tags[VERDICT_TAG] == "promoted"
    assert bad.tags[VERDICT_TAG] == "refused"
    assert bad.source == f"models:/{execution.models['cnn']}"
    assert bad.run_id == bad.tags["run"] == execution.runs["train_cnn"]
    assert bad.tags["evaluation_run"] == execution.runs["evaluate"]
    assert bad.tags["commit"] == COMMIT
    model = project.client.get_logged_model(execution.models["cnn"])
    assert bad.tags["weights_sha256"] == model.tags["weights_sha256"]
    assert bad.description.startswith("# Classifier")
    assert len(bad.description) <= 5000
    (entry,) = [one for one in read_history(project.registrar(), "cnn") if one.action == "refused"]
    assert bad.tags["diptych.verdict_reasons"].splitlines() == list(entry.why)
    assert any("got" in reason for reason in entry.why)
    assert entry.figures["cnn.accuracy"] == 12 / 30
    card = project.client.list_artifacts(execution.runs["train_cnn"])
    assert "model_card.md" in [file.path for file in card]


def test_a_dry_run_decides_and_writes_nothing(project: Project) -> None:
    assert promoted(project, "better", is_dry_run=True).decision.is_promoted
    assert project.client.search_registered_models() == []


def test_the_same_model_again_is_refused_and_stays_what_it_is(project: Project) -> None:
    promoted(project, "better")
    again = promoted(project, "better")
    assert not again.decision.is_promoted
    assert again.candidate.version == 1
    assert check_laws(project) == Standing(1, None)


@pytest.mark.parametrize("given", ["train_cnn", "train_vae", "evaluate"])
def test_any_stage_of_an_execution_leads_to_its_model(project: Project, given: str) -> None:
    execution = project.executions["better"]
    outcome = promote(
        project.registrar(),
        "cnn",
        Request(run_id=execution.runs[given], is_dry_run=True),
        project.evaluate,
    )
    assert outcome.candidate.run_id == execution.runs["train_cnn"]


def test_a_link_leads_to_the_run_that_made_the_model(project: Project) -> None:
    client, old = project.client, project.executions["better"]
    experiment = client.get_run(old.run_id).info.experiment_id
    parent = client.create_run(experiment, tags={"diptych.execution": "skipped"}).info.run_id
    for stage, run_id in old.runs.items():
        tags = {
            "diptych.stage": stage,
            "mlflow.parentRunId": parent,
            "diptych.reused_run_id": run_id,
        }
        client.set_terminated(client.create_run(experiment, tags=tags).info.run_id)
    client.set_terminated(parent)
    outcome = promote(project.registrar(), "cnn", Request(), project.evaluate)
    assert outcome.candidate.run_id == old.runs["train_cnn"]
    assert outcome.decision.is_promoted


def test_rollbacks_go_back_through_the_champions_until_there_is_none(project: Project) -> None:
    promoted(project, "plain")
    with pytest.raises(RegistryError, match="must have a version @previous"):
        roll_back(project.registrar(), "cnn")
    promoted(project, "better")
    entry = roll_back(project.registrar(), "cnn")
    assert (entry.before, entry.after) == (Standing(2, 1), Standing(1, None))
    assert check_laws(project) == Standing(1, None)
    with pytest.raises(RegistryError, match="must have a version @previous"):
        roll_back(project.registrar(), "cnn")
    promoted(project, "better")
    assert check_laws(project) == Standing(2, 1)


def test_an_unexpected_champion_stops_a_promotion(project: Project) -> None:
    with pytest.raises(RegistryError, match=r"must be version 1 \(got none\)"):
        promoted(project, "plain", expected_champion=1)
    assert promoted(project, "plain", expected_champion=0).decision.is_promoted
    with pytest.raises(RegistryError, match=r"must be none \(got version 1\)"):
        promoted(project, "better", expected_champion=0)
    assert promoted(project, "better", expected_champion=1).decision.is_promoted
    check_laws(project)


def test_an_unexpected_champion_stops_a_rollback(project: Project) -> None:
    promoted(project, "plain")
    promoted(project, "better")
    for expected in (1, 0):
        with pytest.raises(RegistryError, match=r"must be (version 1|none) \(got version 2\)"):
            roll_back(project.registrar(), "cnn", expected_champion=expected)
    assert check_laws(project) == Standing(2, 1)
    entry = roll_back(project.registrar(), "cnn", expected_champion=2)
    assert entry.after == check_laws(project) == Standing(1, None)


def test_log_and_version_give_the_same_reasons_and_count_the_others_right(
    project: Project,
) -> None:
    request = Request(run_id=project.executions["better"].run_id)
    decision = promote(project.registrar(), "pair", request, project.evaluate).decision
    num_passed = sum(one.status == "passed" for one in decision.checks)
    (entry,) = read_history(project.registrar(), "pair")
    assert num_passed > 11
    assert entry.why[-1] == f"and {num_passed - 10} more"
    assert len(entry.why) == 11
    version = project.client.get_model_version("diptych-pair", "1")
    assert version.tags["diptych.verdict_reasons"].splitlines() == list(entry.why)


@pytest.fixture
def built(recorded: Project, copied: Copier) -> Callable[..., Project]:
    """A project with one more execution, as good as the best, with changes; artifacts its own."""

    def build(**changes: Any) -> Project:
        project = copied("built")
        client, folder = project.client, project.root / ARTIFACT_FOLDER
        images = changes.pop("images", images_of(3, 80.0))
        made = add_execution(client, recorded.root / PROCESSED, folder, images, 7, **changes)
        return Project(project.root, project.uri, {**project.executions, "built": made})

    return build


def refusals(project: Project, name: str = "built") -> dict[str, str]:
    outcome = promoted(project, name)
    assert not outcome.decision.is_promoted
    assert project.client.get_registered_model(NAME).aliases == {}
    return {check.name: check.found for check in outcome.decision.refusals}


def test_dirty_code_is_refused_unless_allowed(built: Callable[..., Project]) -> None:
    project = built(is_dirty=True)
    assert list(refusals(project)) == ["code"]
    assert "Refused" in project.client.get_model_version(NAME, "1").description
    assert promoted(project, "built", allow_dirty=True).candidate.version == 1
    assert "Promoted" in project.client.get_model_version(NAME, "1").description
    check_laws(project)


@pytest.mark.parametrize(
    ("dirty", "family", "is_refused"),
    [
        ("train_cnn", "cnn", True),
        ("evaluate", "cnn", True),  # all figures are from there
        ("train_vae", "cnn", False),
        ("evaluate", "vae", True),
        ("train_vae", "pair", True),
    ],
)
def test_changed_code_counts_where_model_or_figures_come_from(
    project: Project, dirty: str, family: Any, is_refused: bool
) -> None:
    execution = project.executions["better"]
    project.client.set_tag(execution.runs[dirty], "diptych.git_dirty", "true")
    outcome = promote(
        project.registrar(),
        family,
        Request(run_id=execution.run_id, is_dry_run=True),
        project.evaluate,
    )
    found = [check.name for check in outcome.decision.refusals]
    assert found == (["code"] if is_refused else [])


def _weights_of(project: Project, execution: Execution, family: str) -> Path:
    location = project.client.get_logged_model(execution.models[family]).artifact_location
    return Path(location.removeprefix("file://"), "data", family, "weights.safetensors")


def test_tampered_weights_are_refused_and_not_rolled_back_to(
    built: Callable[..., Project],
) -> None:
    project = built(images=images_of(15, 90.0))
    weights = _weights_of(project, project.executions["built"], "cnn")
    sound = weights.read_bytes()
    weights.write_bytes(sound[:-1] + bytes([sound[-1] ^ 1]))
    assert "weights" in refusals(project)
    weights.write_bytes(sound)
    promoted(project, "built")
    promoted(project, "better")
    weights.unlink()
    with pytest.raises(StoreError, match=r"version 1: must have weights .* \(got weights none,"):
        roll_back(project.registrar(), "cnn")
    assert check_laws(project) == Standing(2, 1)


@pytest.mark.parametrize(
    ("family", "missing"),
    [("cnn", FIGURES_FILE), ("vae", PER_IMAGE_FILE), ("pair", FIGURES_FILE)],
)
def test_a_champion_without_stored_results_is_evaluated_anew(
    built: Callable[..., Project], recorded: Project, missing: str, family: Any
) -> None:
    project = built(images=images_of(15, 600.0))
    project = Project(recorded.root, project.uri, project.executions)
    registrar = project.registrar()
    promote(registrar, family, Request(run_id=project.executions["built"].run_id), project.evaluate)
    run = project.client.get_run(project.executions["built"].runs["evaluate"])
    Path(run.info.artifact_uri.removeprefix("file://"), missing).unlink()
    outcome = promote(
        registrar, family, Request(run_id=project.executions["better"].run_id), project.evaluate
    )
    # Untrained, it is right by chance, whatever its stored figures said.
    assert outcome.decision.is_promoted, outcome.decision.refusals
    assert standing(project, f"diptych-{family}") == Standing(2, 1)


@pytest.mark.parametrize("missing", [None, FIGURES_FILE])
def test_a_damaged_champion_refuses_the_next_in_one_line_that_says_what_to_do(
    built: Callable[..., Project], recorded: Project, missing: str | None
) -> None:
    project = built(images=images_of(15, 90.0))
    project = Project(recorded.root, project.uri, project.executions)
    promoted(project, "built")
    _weights_of(project, project.executions["built"], "cnn").write_bytes(b"damaged")
    if missing is not None:
        run = project.client.get_run(project.executions["built"].runs["evaluate"])
        Path(run.info.artifact_uri.removeprefix("file://"), missing).unlink()
    outcome = promoted(project, "better")
    refusals = {check.name: check.found for check in outcome.decision.refusals}
    assert refusals["the champion's results"].startswith(
        "to be evaluated anew its files must be those that its tags name: "
        "`diptych rollback cnn` goes back to the champion before; where that is refused, delete"
    )
    assert check_laws(project) == Standing(1, None)


def test_damaged_figures_of_a_champion_are_as_none(
    built: Callable[..., Project], recorded: Project
) -> None:
    project = built(images=images_of(15, 90.0))
    project = Project(recorded.root, project.uri, project.executions)
    promoted(project, "built")
    run = project.client.get_run(project.executions["built"].runs["evaluate"])
    Path(run.info.artifact_uri.removeprefix("file://"), FIGURES_FILE).write_text("{")
    assert promoted(project, "better").decision.is_promoted


@pytest.fixture(scope="module")
def processes() -> Any:
    """Makes processes that have imported everything already."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["mlflow", "tests.tracking.promotions"])
    return context


def run_together(processes: Any, target: Callable[..., None], *arguments: Any) -> list[int]:
    """Run processes, one per tuple of arguments, and return their exit codes."""
    running = [processes.Process(target=target, args=one) for one in arguments]
    for process in running:
        process.start()
    for process in running:
        process.join(120)
        assert process.exitcode is not None
    return [process.exitcode for process in running]


@pytest.mark.parametrize(
    ("first", "action", "ends"),
    [
        ([], "better", {Standing(None, None), Standing(1, None)}),
        (["plain"], "better", {Standing(1, None), Standing(2, 1)}),
        (["plain"], "worse", {Standing(1, None)}),
        (["plain", "better"], "rollback", {Standing(2, 1), Standing(1, None)}),
    ],
)
def test_a_kill_before_any_write_leaves_what_the_next_command_completes(
    copied: Copier, first: list[str], action: str, ends: set[Standing]
) -> None:
    project = copied("project")
    for name in first:
        promoted(project, name)
    start = Path(shutil.copy(project.root / DATABASE_FILE, project.root / "start.db"))
    found, is_dead, num_writes = set(), True, 0
    while is_dead:
        restore(project, start)
        is_dead = False
        try:
            act(project.registrar(dying(project.client, num_writes)), project, action)
        except Death:
            is_dead = True
        complete(project)
        found.add(standing(project))
        check_laws(project)
        num_writes += 1
    assert found == ends
    assert num_writes > 5


@pytest.mark.parametrize(
    "command",
    [
        "worse",
        "rollback",  # which was asked for when another was champion
    ],
)
def test_whichever_comes_next_completes_what_was_intended(project: Project, command: str) -> None:
    promoted(project, "plain")
    interrupt(project, "better")
    notices: list[str] = []
    assert standing(project) == Standing(1, None)
    act(project.registrar(notice=notices.append), project, command)
    assert check_laws(project) == Standing(2, 1)
    assert any("interrupted: completed (promoted: version 2)" in notice for notice in notices)


def interrupt(project: Project, action: str) -> None:
    """Do something and die as soon as it has been written down."""
    num_writes = 0
    while all(entry.state == "done" for entry in read_history(project.registrar(), "cnn")):
        with suppress(Death):
            act(project.registrar(dying(project.client, num_writes)), project, action)
        num_writes += 1


def test_an_interrupted_promotion_that_was_overtaken_by_hand_is_given_up(
    copied: Copier,
) -> None:
    project = copied("project")
    for name in ("plain", "worse"):
        promoted(project, name)
    start = Path(shutil.copy(project.root / DATABASE_FILE, project.root / "start.db"))
    found, num_writes = set(), 0
    while True:
        restore(project, start)
        try:
            act(project.registrar(dying(project.client, num_writes)), project, "better")
            break
        except Death:
            num_writes += 1
        project.client.set_registered_model_alias(NAME, "champion", "2")
        complete(project)
        *_, last = read_history(project.registrar(), "cnn")
        found.add(last.state)
        assert standing(project).champion == 2
        if last.state == "undone":
            assert standing(project).previous is None
            tags = project.client.get_model_version(NAME, str(last.version)).tags
            assert tags[VERDICT_TAG] == "not promoted"
    assert found == {"done", "undone"}  # done: the refusal before, while nothing was intended


def test_a_champion_of_the_past_keeps_its_verdict_whatever_is_given_up(project: Project) -> None:
    for name in ("plain", "better", "worse"):
        promoted(project, name)
    roll_back(project.registrar(), "cnn")
    interrupt(project, "better")
    project.client.set_registered_model_alias(NAME, "champion", "3")
    complete(project)
    assert read_history(project.registrar(), "cnn")[-1].state == "undone"
    assert project.client.get_model_version(NAME, "2").tags[VERDICT_TAG] == "promoted"


def test_status_and_history_tell_what_was_interrupted_and_write_nothing(project: Project) -> None:
    promoted(project, "plain")
    interrupt(project, "better")
    reader = project.registrar(dying(project.client, 0))
    status = read_status(reader, "cnn")
    assert status.state.standing == standing(project) == Standing(1, None)
    assert status.disagreement is not None
    assert status.disagreement.startswith("audit entry 2 is not finished (promoted: version 2)")
    assert [entry.state for entry in read_history(reader, "cnn")] == ["done", "intended"]


def die_in_rollback(project: Project, num_writes: int) -> None:
    """Begin a rollback and die after so many writes: ticket, intention, then the two aliases."""
    with pytest.raises(Death):
        roll_back(project.registrar(dying(project.client, num_writes)), "cnn")


@pytest.fixture
def ladder(recorded: Project, copied: Copier) -> Project:
    """A project in which four versions have been promoted, one after the other."""
    project = copied("ladder")
    made = {
        str(num_mistakes): add_execution(
            project.client,
            recorded.root / PROCESSED,
            project.root / ARTIFACT_FOLDER,
            images_of(num_mistakes, 90.0),
            seed=20 + num_mistakes,
        )
        for num_mistakes in (18, 12, 6, 0)
    }
    project = Project(project.root, project.uri, {**project.executions, **made})
    for name in made:
        promoted(project, name)
    assert check_laws(project) == Standing(4, 3)
    return project


@pytest.mark.parametrize(
    ("deleted", "ends"),
    [
        (["1"], [Standing(3, 2), Standing(2, None)]),
        (["2"], [Standing(3, 1), Standing(1, None)]),
        (["1", "2"], [Standing(3, None)]),
        (["3"], [Standing(2, 1), Standing(1, None)]),
        (["4"], [Standing(3, 2), Standing(2, 1), Standing(1, None)]),
        (["3", "4"], [Standing(2, 1), Standing(1, None)]),
        (["2", "4"], [Standing(3, 1), Standing(1, None)]),
        (["1", "2", "3"], []),
        (["2", "3", "4"], [Standing(1, None)]),
    ],
)
def test_rollbacks_pass_over_versions_that_were_deleted_by_hand(
    ladder: Project, deleted: list[str], ends: list[Standing]
) -> None:
    for version in deleted:
        ladder.client.delete_model_version(NAME, version)
    registrar = ladder.registrar()
    for end in ends:
        assert roll_back(registrar, "cnn").after == standing(ladder) == end
        assert read_status(registrar, "cnn").disagreement is None
    with pytest.raises(RegistryError, match="must have a version @previous"):
        roll_back(registrar, "cnn")
    is_another = standing(ladder).champion != 4
    assert promoted(ladder, "0").decision.is_promoted is is_another


@pytest.fixture
def best(ladder: Project, recorded: Project) -> Project:
    """The ladder with one more execution, `best`, without a mistake as its newest champion."""
    made = add_execution(
        ladder.client,
        recorded.root / PROCESSED,
        ladder.root / ARTIFACT_FOLDER / "best",
        images_of(0, 90.0),
        seed=30,
    )
    return Project(ladder.root, ladder.uri, {**ladder.executions, "best": made})


@pytest.mark.parametrize(
    ("deleted", "end"),
    [
        (["4"], Standing(5, 3)),
        (["3", "4"], Standing(5, 2)),
        (["1", "2", "3", "4"], Standing(5, None)),
    ],
)
def test_after_a_deletion_the_newest_champion_that_is_left_is_compared_and_kept(
    best: Project, deleted: list[str], end: Standing
) -> None:
    for version in deleted:
        best.client.delete_model_version(NAME, version)
    outcome = promoted(best, "best")
    assert outcome.decision.is_promoted
    assert (outcome.champion, outcome.compared_with) == (None, end.previous)
    assert standing(best) == end
    assert read_status(best.registrar(), "cnn").disagreement is None
    if end.previous is not None:
        assert roll_back(best.registrar(), "cnn").after.champion == end.previous


def test_without_the_champion_a_worse_model_does_not_pass(ladder: Project) -> None:
    ladder.client.delete_model_version(NAME, "4")
    outcome = promoted(ladder, "worse")
    assert (outcome.champion, outcome.compared_with) == (None, 3)
    assert not outcome.decision.is_promoted
    assert verdict_lines(outcome)[1].endswith("(champion until now: none; compared with version 3)")
    assert read_status(ladder.registrar(), "cnn").disagreement == (
        "aliases must be champion version 4, previous version 3 as in the log (got champion none, "
        "previous version 3); version 4 was deleted: `diptych rollback cnn` goes back to version 3"
    )


def test_without_its_alias_the_champion_can_be_promoted_again(ladder: Project) -> None:
    ladder.client.delete_registered_model_alias(NAME, "champion")
    outcome = promoted(ladder, "0")
    assert (outcome.champion, outcome.compared_with) == (None, 3)
    assert outcome.decision.is_promoted
    assert standing(ladder) == Standing(4, 3)


def test_a_sole_champion_that_was_deleted_is_told_and_the_next_is_the_first(
    project: Project,
) -> None:
    promoted(project, "plain")
    project.client.delete_model_version(NAME, "1")
    told = read_status(project.registrar(), "cnn").disagreement
    assert told is not None
    assert told.endswith("version 1 was deleted")
    assert promoted(project, "better").decision.is_promoted
    assert standing(project) == Standing(2, None)


def test_a_champion_that_was_made_by_hand_is_gone_back_to_and_from(ladder: Project) -> None:
    ladder.client.set_registered_model_alias(NAME, "champion", "2")  # previous is 3
    assert roll_back(ladder.registrar(), "cnn").after == standing(ladder) == Standing(1, None)
    ladder.client.set_registered_model_alias(NAME, "champion", "3")
    assert promoted(ladder, "0").decision.is_promoted
    assert standing(ladder) == Standing(4, 3)
    assert roll_back(ladder.registrar(), "cnn").after == standing(ladder) == Standing(3, 1)


def test_a_rollback_that_was_undone_by_hand_can_be_done_again(ladder: Project) -> None:
    assert roll_back(ladder.registrar(), "cnn").after == Standing(3, 2)
    ladder.client.set_registered_model_alias(NAME, "champion", "4")  # previous is 2
    assert roll_back(ladder.registrar(), "cnn").after == standing(ladder) == Standing(3, 2)


def test_a_rollback_says_what_it_left(
    ladder: Project, built: Callable[..., Project], recorded: Project
) -> None:
    ladder.client.delete_registered_model_alias(NAME, "champion")
    assert roll_back(ladder.registrar(), "cnn").why == ("rolled back from none",)
    ladder.client.delete_model_version(NAME, "3")
    assert roll_back(ladder.registrar(), "cnn").why == (
        "rolled back from version 3, which was deleted",
    )
    refused = built(is_dirty=True)
    refused = Project(recorded.root, refused.uri, refused.executions)
    assert not promoted(refused, "built").decision.is_promoted
    refused.client.set_registered_model_alias(NAME, "previous", "1")
    assert roll_back(refused.registrar(), "cnn").why == ("rolled back from none",)


@pytest.mark.parametrize("num_writes", [2, 3])  # ticket and intention; the first alias too
def test_a_rollback_from_a_version_that_is_deleted_meanwhile_is_completed(
    ladder: Project, num_writes: int
) -> None:
    die_in_rollback(ladder, num_writes)
    ladder.client.delete_model_version(NAME, "4")
    assert roll_back(ladder.registrar(), "cnn").after == standing(ladder) == Standing(3, 2)
    assert read_status(ladder.registrar(), "cnn").disagreement is None


@pytest.mark.parametrize("num_writes", [2, 3, 4])  # before, between and after the aliases
def test_what_would_lead_to_a_deleted_version_is_led_past_it(
    ladder: Project, num_writes: int
) -> None:
    die_in_rollback(ladder, num_writes)
    intended = read_history(ladder.registrar(), "cnn")[-1]
    assert (intended.state, intended.after) == ("intended", Standing(3, 2))
    ladder.client.delete_model_version(NAME, "2")
    assert roll_back(ladder.registrar(), "cnn").after == standing(ladder) == Standing(3, 1)
    assert read_status(ladder.registrar(), "cnn").disagreement is None


@pytest.mark.parametrize("num_writes", [2, 3, 4])
def test_a_rollback_whose_target_is_deleted_goes_to_the_champion_before(
    ladder: Project, num_writes: int
) -> None:
    die_in_rollback(ladder, num_writes)
    ladder.client.delete_model_version(NAME, "3")
    complete(ladder)
    assert read_history(ladder.registrar(), "cnn")[-1].state == "undone"
    assert roll_back(ladder.registrar(), "cnn").after == standing(ladder) == Standing(2, 1)


def test_a_promotion_that_is_half_moved_and_overtaken_by_hand_puts_previous_back(
    ladder: Project,
) -> None:
    roll_back(ladder.registrar(), "cnn")
    with suppress(Death):  # ticket, intention and the first alias are written
        act(ladder.registrar(dying(ladder.client, 3)), ladder, "0")
    assert standing(ladder) == Standing(3, 3)
    ladder.client.set_registered_model_alias(NAME, "champion", "1")
    complete(ladder)
    assert standing(ladder) == Standing(1, 2)
    with pytest.raises(RegistryError, match="must have a version @previous"):
        roll_back(ladder.registrar(), "cnn")


def test_of_two_rollbacks_at_once_one_is_refused(ladder: Project) -> None:
    others: list[AuditEntry] = []

    def meanwhile() -> None:
        if not others:
            others.append(roll_back(ladder.registrar(), "cnn"))

    registrar = ladder.registrar(DyingClient(ladder.client, 0, meanwhile))
    with pytest.raises(
        RegistryError,
        match=r"as when the rollback began, champion version 4, .* \(got champion version 3, ",
    ):
        roll_back(registrar, "cnn")
    assert [one.after for one in others] == [Standing(3, 2)]
    assert check_laws(ladder) == Standing(3, 2)


def test_an_interrupted_rollback_that_is_asked_for_again_goes_back_by_one_champion(
    ladder: Project,
) -> None:
    interrupt(ladder, "rollback")
    entry = roll_back(ladder.registrar(), "cnn")
    assert (entry.before, entry.after, entry.state) == (Standing(4, 3), Standing(3, 2), "done")
    assert check_laws(ladder) == Standing(3, 2)
    assert roll_back(ladder.registrar(), "cnn").after == Standing(2, 1)


def test_a_rollback_that_somebody_else_is_at_is_not_ones_own(ladder: Project) -> None:
    mine: list[AuditEntry] = []
    refused: list[str] = []
    has_read = threading.Event()

    class Reading(DyingClient):
        """One that tells when it has read the registered model."""

        def __getattr__(self, name: str) -> Any:
            if name == "search_registered_models":  # for the lock, after the log
                has_read.set()
            return super().__getattr__(name)

    def ask() -> None:
        """Ask for a rollback while another has written what it intends and holds the lock."""
        try:
            client = Reading(ladder.client, 100, lambda: None)
            mine.append(roll_back(ladder.registrar(client), "cnn"))
        except RegistryError as error:
            refused.append(str(error))

    thread = threading.Thread(target=ask)

    def let_other_begin() -> None:
        if not thread.ident:
            thread.start()
            assert has_read.wait(60)

    # Its ticket and its intention are written.
    entry = roll_back(ladder.registrar(DyingClient(ladder.client, 2, let_other_begin)), "cnn")
    thread.join(60)
    assert entry.after == check_laws(ladder) == Standing(3, 2)
    assert mine == []
    assert len(refused) == 1
    assert "nothing was rolled back" in refused[0]


@pytest.mark.parametrize("num_moved", [0, 1, 2])
def test_an_interrupted_rollback_expects_the_champion_that_it_began_with(
    ladder: Project, num_moved: int
) -> None:
    die_in_rollback(ladder, 2 + num_moved)  # so many aliases are moved
    for expected in (3, 0):
        with pytest.raises(RegistryError, match=r"must be (version 3|none) \(got version 4\)"):
            roll_back(ladder.registrar(), "cnn", expected_champion=expected)
    entry = roll_back(ladder.registrar(), "cnn", expected_champion=4)
    assert entry.after == check_laws(ladder) == Standing(3, 2)


def restore(project: Project, start: Path) -> None:
    """Put a store's earlier content back; SQLite itself does it, under open connections."""
    with (
        closing(sqlite3.connect(start)) as source,
        closing(sqlite3.connect(project.root / DATABASE_FILE)) as target,
    ):
        source.backup(target)


def test_a_killed_processes_lock_does_not_last(copied: Copier, processes: Any) -> None:
    project = copied("project")
    assert run_together(processes, act_and_exit, (project, "plain", 1)) == [9]
    assert [name for name in model_names(project) if ".lock." in name]
    assert promoted(project, "better").candidate.version == 1
    assert [name for name in model_names(project) if ".lock." in name] == []


def test_an_execution_that_evaluated_other_weights_is_no_candidate(project: Project) -> None:
    model = project.executions["better"].models["cnn"]
    project.client.set_logged_model_tags(model, {"weights_sha256": "0" * 64})
    with pytest.raises(StoreError, match="evaluation of other weights"):
        promoted(project, "better")


@pytest.mark.parametrize("family", ["cnn", "vae"])
def test_an_execution_that_evaluated_another_description_is_no_candidate(
    project: Project, family: str
) -> None:
    model = project.executions["better"].models[family]
    project.client.set_logged_model_tags(model, {"description_sha256": "0" * 64})
    with pytest.raises(StoreError, match=f"evaluation of another description of {family}"):
        promoted(project, "better")


@pytest.mark.parametrize("run_id", ["nonsense", "0" * 32])
def test_an_unknown_run_is_one_line(project: Project, run_id: str) -> None:
    with pytest.raises(StoreError, match=f"run {run_id}: does not exist"):
        promote(project.registrar(), "cnn", Request(run_id=run_id), project.evaluate)


def test_an_alias_moved_by_hand_is_told_and_the_log_is_kept(project: Project) -> None:
    promoted(project, "plain")
    promoted(project, "worse")
    project.client.set_registered_model_alias(NAME, "champion", "2")
    found = read_status(project.registrar(), "cnn").disagreement
    assert found is not None
    assert "must be champion version 1, previous none" in found
    assert promoted(project, "better").champion == 2

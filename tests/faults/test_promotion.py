"""R17, R18: the registry when promotions are killed, and the gate when what it gets is wrong."""

import multiprocessing
import random
import re
import signal
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from itertools import pairwise

import pytest

from diptych.promotion.record import Family
from diptych.tracking.audit import AuditEntry
from diptych.tracking.promoting import read_history
from diptych.tracking.registry import VERDICT_TAG
from tests.faults.candidates import CASES, FAMILIES, QUICK, Candidate, Case
from tests.faults.commands import Ended, end_of_diptych, sample
from tests.faults.promoters import (
    ACTIONS,
    NOTICES_FILE,
    NUM_AT_ONCE,
    Operation,
    carry_out_together,
    draw,
    note,
)
from tests.faults.tiers import trials
from tests.stages.conftest import PROCESSED
from tests.tracking.conftest import empty_database
from tests.tracking.promotions import (
    Copier,
    Execution,
    Project,
    act,
    add_execution,
    complete,
    copied,
    images_of,
    recorded,
)

__all__ = ["copied", "empty_database", "recorded"]  # fixtures from beside

NAME = "diptych-cnn"


@pytest.fixture
def project(copied: Copier, monkeypatch: pytest.MonkeyPatch) -> Project:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    return copied("project")


# R17

GOOD = ("plain", "better")  # the gate lets no other execution pass
KILLED = -signal.SIGKILL


def champion_of(project: Project) -> str:
    """Say which execution the champion is of; empty if there is none that passed the gate."""
    found = aliases_of(project).get("champion")
    version = found and project.client.get_model_version(NAME, str(found))
    if not version or version.tags.get(VERDICT_TAG) != "promoted":
        return ""
    names = {one.runs["train_cnn"]: name for name, one in project.executions.items()}
    return names[version.run_id]


def aliases_of(project: Project, name: str = NAME) -> dict[str, int]:
    aliases = project.client.get_registered_model(name).aliases
    return {alias: int(version) for alias, version in aliases.items()}


def replay(log: Sequence[AuditEntry]) -> dict[str, int]:
    """Return the aliases after a log: promotions put a version on top, rollbacks take it off.

    None of a log with a rollback to anything else.
    """
    stack: list[int] = []
    for entry in log:
        if entry.action == "promoted":
            stack.append(entry.version)
        elif entry.action == "rolled back":
            del stack[-1:]
            if stack[-1:] != [entry.version]:
                return {}
    return dict(zip(("champion", "previous"), reversed(stack), strict=False))


def broken_laws(project: Project) -> list[str]:
    """Name what does not hold of a registry in which nothing is going on."""
    log = read_history(project.registrar(), "cnn")
    laws = {
        "one champion that passed the gate": champion_of(project) in GOOD,
        "aliases as the log": aliases_of(project) == replay(log),
        "entries without a gap": [one.number for one in log] == [*range(1, len(log) + 1)],
        "every entry done": {one.state for one in log} == {"done"},
        "each begins where the last one ended": all(
            later.before == earlier.after for earlier, later in pairwise(log)
        ),
    }
    return [law for law, holds in laws.items() if not holds]


def is_accounted_for(
    operations: Sequence[Operation], codes: Sequence[int | None], entries: Sequence[AuditEntry]
) -> bool:
    """Tell whether what has finished is written down once, and what was killed at most once."""
    pairs = zip(operations, codes, strict=True)
    promotions = [code for operation, code in pairs if operation.action != "rollback"]
    num_rollbacks = len(operations) - len(promotions)
    num_rolled_back = sum(entry.action == "rolled back" for entry in entries)
    num_decisions = len(entries) - num_rolled_back
    return (
        promotions.count(0) <= num_decisions <= len(promotions) and num_rolled_back <= num_rollbacks
    )


@dataclass(slots=True)
class Tally:
    """What has been counted."""

    doomed: int = 0
    killed: int = 0
    undisturbed: int = 0
    looks: int = 0
    sound_looks: int = 0


def try_round(
    project: Project, pool: Executor, operations: Sequence[Operation], tally: Tally
) -> None:
    """Carry operations out at once, look at the champion meanwhile, and then at the laws."""
    registrar = project.registrar()
    before = len(read_history(registrar, "cnn"))
    together = pool.submit(carry_out_together, project, operations)
    while not together.done():
        tally.looks += 1
        tally.sound_looks += champion_of(project) in GOOD
        time.sleep(0.1)
    codes = together.result()
    complete(project, partial(note, project))  # as the next command does, undisturbed
    entries = read_history(registrar, "cnn")[before:]
    broken = broken_laws(project)
    if broken or not is_accounted_for(operations, codes, entries):
        print(operations, codes, broken, entries)
        return
    pairs = list(zip(operations, codes, strict=True))
    tally.undisturbed += sum(code == 0 for one, code in pairs if not one.is_doomed)
    tally.doomed += sum(code in (0, KILLED) for one, code in pairs if one.is_doomed)
    tally.killed += codes.count(KILLED)


def test_killed_promotions_and_rollbacks_leave_one_champion_and_a_true_log(
    project: Project, promise: Callable[..., None]
) -> None:
    """The registry goes on from round to round, so that versions and the log grow."""
    source, tally = random.Random(0), Tally()
    notices = project.root / NOTICES_FILE
    notices.touch()
    num_rounds = trials(quick=1, full=20)
    with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        for name in ("plain", "worse"):  # the second finds everything imported
            started = time.monotonic()
            assert pool.submit(carry_out_together, project, [Operation(name)]).result() == [0]
        max_seconds = NUM_AT_ONCE / 2 * (time.monotonic() - started)
        for _ in range(num_rounds):
            try_round(project, pool, draw(source, max_seconds), tally)
            act(project.registrar(), project, source.choice(ACTIONS))
    num_completed = notices.read_text().count("interrupted: completed")
    detail = f"({tally.killed} killed before the end, {num_completed} completed by others)"
    num_each = num_rounds * NUM_AT_ONCE // 2
    promise("R17", "killed", num_each, tally.doomed, detail=detail)
    promise("R17", "beside them", num_each, tally.undisturbed)
    promise("R17", "looks at the champion", tally.looks, tally.sound_looks)
    assert broken_laws(project) == []


# R18


def is_refused(ended: Ended, family: Family, case: Case) -> bool:
    """Tell whether a command has said no in one line, with its reason and the right exit code."""
    if case.is_error:
        return ended.is_refusal("diptych: ", case.named) and ended.stdout == ""
    *table, verdict = ended.stdout.splitlines() or [""]
    has_failed = re.compile(rf" *{re.escape(case.named)} .* failed *")
    return (
        ended.code == 1
        and ended.stderr == ""
        and any(map(has_failed.fullmatch, table))
        and re.fullmatch(
            rf"diptych-{family} version \d+ refused \(champion until now: version 1\)", verdict
        )
        is not None
    )


def test_whatever_is_wrong_is_refused_and_the_champion_stays(
    project: Project, recorded: Project, promise: Callable[..., None]
) -> None:
    def build(seed: int, statuses: Mapping[str, str]) -> Execution:
        folder, processed = project.root / str(seed), recorded.root / PROCESSED
        results = images_of(3, 80.0)
        return add_execution(project.client, processed, folder, results, seed, statuses=statuses)

    def command(family: Family, execution: Execution, *options: str) -> Ended:
        return end_of_diptych(project.root, "promote", family, "--run", execution.run_id, *options)

    sound = build(100, {})
    for family in FAMILIES:
        assert command(family, project.executions["plain"]).code == 0
        assert command(family, sound, "--dry-run").code == 0
    cases = CASES[: trials(quick=len(QUICK), full=len(CASES), soak=len(CASES))]
    num_families = trials(quick=1, full=len(FAMILIES), soak=len(FAMILIES))
    tried, survived = 0, 0
    for seed, case in enumerate(cases, 101):
        execution = build(seed, case.statuses)
        case.damage(Candidate(project.client, execution))
        for family in sample(case.families, num_families, seed):
            ended = command(family, execution, *case.options)
            is_unmoved = aliases_of(project, f"diptych-{family}") == {"champion": 1}
            tried += 1
            if is_refused(ended, family, case) and is_unmoved:
                survived += 1
            else:
                print(case.what, family, is_unmoved, ended)
    promise("R18", "candidates", tried, survived, detail=f"({len(cases)} things wrong)")

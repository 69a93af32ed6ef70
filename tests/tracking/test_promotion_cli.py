"""promote, rollback, status and history as commands, on a local store and on a server."""

import json
import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from diptych.cli import app, main
from diptych.locks import try_lock
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.process import LOCK_FILE
from diptych.tracking.promoting import Request, promote, read_status, roll_back
from diptych.tracking.registrar import await_recording
from diptych.tracking.store import DATABASE_FILE
from tests.stages.conftest import PROCESSED
from tests.tracking.promotions import POLICY, Copier, Project, add_execution, images_of


@pytest.fixture
def project(copied: Copier, monkeypatch: pytest.MonkeyPatch) -> Project:
    """A project that is the working directory."""
    made = copied("project")
    monkeypatch.chdir(made.root)
    monkeypatch.setenv("COLUMNS", "200")
    return made


def run(exit_code: int, *arguments: str) -> str:
    done = CliRunner().invoke(app, arguments, catch_exceptions=False)
    assert done.exit_code == exit_code, done.output
    return done.output


def test_the_commands_tell_verdicts_standing_and_history(project: Project) -> None:
    execution = project.executions["plain"].run_id
    assert "diptych-cnn, dry run: would be promoted" in run(
        0, "promote", "cnn", "--run", execution, "--dry-run"
    )
    out = run(0, "promote", "cnn", "--run", execution, "--expect-champion", "none")
    assert "diptych-cnn version 1 promoted (champion until now: none)" in out
    run(0, "promote", "cnn", "--run", project.executions["better"].run_id)
    out = run(1, "promote", "cnn")
    assert "diptych-cnn version 3 refused (champion until now: version 2)" in out
    assert "failed" in out
    assert (
        run(0, "rollback", "cnn", "--expect-champion", "2")
        == "diptych-cnn@champion: version 2 -> version 1\n"
    )
    row = next(line for line in run(0, "status").splitlines() if "diptych-cnn" in line)
    assert row.split()[:4] == ["diptych-cnn", "1", "–", "3"]
    assert row.split()[-1] == "agrees"
    lines = [line for line in run(0, "history", "cnn").splitlines() if "@" in line]
    assert [line.split()[3] for line in lines] == ["promoted", "promoted", "refused", "rolled"]


def test_a_narrow_terminal_is_told_every_figures_whole_name(
    project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    execution = project.executions["plain"].run_id
    out = run(0, "promote", "pair", "--run", execution, "--dry-run")
    names = "".join(line[1:24].strip() for line in out.splitlines())
    assert "pair.novel_abstention_share.inverted" in names
    assert "…" not in out


def test_nothing_that_a_terminal_obeys_comes_from_the_store(project: Project) -> None:
    execution = project.executions["plain"].run_id
    run(0, "promote", "cnn", "--run", execution)
    text = project.client.get_registered_model("diptych-cnn").tags["audit.000001"]
    entry = json.loads(text) | {"who": "ann\x1b[2J@\x9b1m", "why": ["a\rb"]}
    project.client.set_registered_model_tag("diptych-cnn", "audit.000001", json.dumps(entry))
    project.client.set_tag(execution, "mlflow.user", "ann\x1b]0;title\x07\nforged: line")
    for printed in (
        run(0, "history", "cnn"),
        run(0, "history", "cnn", "--json"),
        run(1, "promote", "cnn", "--run", execution),
    ):
        assert "ann" in printed
        assert all(one.isprintable() for line in printed.split("\n") for one in line)
        assert "\nforged" not in printed


def test_the_commands_speak_json(project: Project) -> None:
    better = project.executions["better"]
    first = json.loads(run(0, "promote", "vae", "--run", better.run_id, "--json"))
    assert first["is_promoted"]
    assert (first["model"], first["version"], first["champion_before"]) == ("diptych-vae", 1, None)
    assert first["run_id"] == better.runs["train_vae"]
    second = json.loads(run(1, "promote", "vae", "--json"))
    assert {check["status"] for check in second["checks"]} >= {"failed", "passed"}
    standing = json.loads(run(0, "status", "--json"))
    assert [one["champion"] for one in standing] == [None, 1, None]
    assert standing[1]["disagreement"] is None
    log = json.loads(run(0, "history", "vae", "--json"))
    assert [(entry["action"], entry["state"]) for entry in log] == [
        ("promoted", "done"),
        ("refused", "done"),
    ]
    assert log[0]["after"] == {"champion": 1, "previous": None}
    assert log[0]["figures"]["vae.nll_nats"] == pytest.approx(80, abs=1)


def test_a_server_is_served_like_a_file(recorded: Project, server_uri: str, tmp_path: Path) -> None:
    server = Project(recorded.root, server_uri, {})
    runs = [
        add_execution(
            server.client, recorded.root / PROCESSED, tmp_path / str(seed), images, seed
        ).run_id
        for seed, images in enumerate((images_of(15, 90.0), images_of(3, 80.0)))
    ]
    registrar = server.registrar()
    for run_id in runs:
        assert promote(
            registrar, "pair", Request(run_id=run_id), server.evaluate
        ).decision.is_promoted
    assert not promote(
        registrar, "pair", Request(run_id=runs[0]), server.evaluate
    ).decision.is_promoted
    assert roll_back(registrar, "pair").after.champion == 1
    found = read_status(registrar, "pair")
    assert found.disagreement is None
    assert [entry.action for entry in found.state.log] == [
        "promoted",
        "promoted",
        "refused",
        "rolled back",
    ]
    names = [model.name for model in server.client.search_registered_models()]
    assert not [name for name in names if ".lock." in name]


def fail(folder: Path, *arguments: str, **environment: str) -> str:
    """Run a command that must fail; return its one line."""
    done = subprocess.run(
        [sys.executable, "-c", "from diptych.cli import main; main()", *arguments],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, **environment},
        timeout=60,
    )
    assert done.returncode == 2, done.stderr
    (line,) = done.stderr.splitlines()
    assert done.stdout == ""
    return line


def test_a_server_that_does_not_answer_is_one_line_after_less_than_15_s(project: Project) -> None:
    started = time.monotonic()
    fail(project.root, "status", MLFLOW_TRACKING_URI="http://127.0.0.1:1")  # refused at once
    at_once = time.monotonic() - started
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        listening.listen()
        address = f"127.0.0.1:{listening.getsockname()[1]}"
        started = time.monotonic()
        line = fail(project.root, "status", MLFLOW_TRACKING_URI=f"http://me:hunter2@{address}")
        assert time.monotonic() - started < at_once + 15
    assert f"http://***@{address}: must answer (" in line
    assert "hunter2" not in line


def test_only_promote_waits_for_runs_that_are_still_being_recorded(project: Project) -> None:
    folder = project.root / JOURNALS_FOLDER / "execution"
    folder.mkdir(parents=True)
    notices: list[str] = []
    waiting = "runs that have ended are being recorded: waiting up to 60 s"
    with (folder / LOCK_FILE).open("ab") as lock:
        assert try_lock(lock)  # as by a recorder whose execution is over
        for words in (("status",), ("history", "cnn"), ("rollback", "cnn")):
            started = time.monotonic()
            done = CliRunner().invoke(app, words)
            assert time.monotonic() - started < 30, words
            assert "record" not in done.output
        await_recording(project.root / "params.yaml", notices.append, timeout_seconds=0.7)
        assert notices == [
            waiting.replace("60", "1"),
            "they are still being recorded after 1 s: waiting no longer",
        ]
        recorder = threading.Timer(2.0, lock.close)
        recorder.start()
        run_id = project.executions["better"].run_id
        done = CliRunner().invoke(app, ["promote", "cnn", "--run", run_id, "--dry-run"])
        recorder.join()
    assert done.exit_code == 0
    assert done.stderr == f"{waiting}\n"
    notices.clear()
    await_recording(project.root / "params.yaml", notices.append)
    assert notices == []


BURST = """
from diptych.cli import app, main

@app.command()
def burst() -> None:
    raise IndexError("http://ann:secret@host/runs")

main()
"""


def test_a_fault_of_ours_is_no_answer(tmp_path: Path) -> None:
    """Exit code 1 is the gate's, for a refusal."""
    command = [sys.executable, "-c", BURST, "burst"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, timeout=60)
    assert done.returncode == 2
    assert done.stderr.startswith("Traceback (most recent call last)")
    assert done.stderr.splitlines()[-1].startswith("IndexError: http://")
    assert "host/runs" in done.stderr
    assert "secret@" not in done.stderr


def test_nothing_to_roll_back_to_is_one_line(project: Project) -> None:
    done = CliRunner().invoke(app, ["rollback", "cnn"])
    line = "diptych-cnn: must have a version @previous to roll back to (got none)"
    assert str(done.exception) == line


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (("promote", "cnn", "--expect-champion", "first"), "a version's number or none"),
        (("promote", "cnn", "--params", "nowhere.yaml"), "must be a file (got nowhere.yaml)"),
        (("promote", "gan"), "'gan' is not one of"),
        (("rollback", "cnn", "--expect-champion", "0"), "a version's number or none"),
        (("rollback", "cnn", "--expect-champion", "7"), "must be version 7 (got none)"),
        (("rollback", "cnn", "--processed", "data"), "No such option: --processed"),
        (("status", "--processed", "data"), "No such option: --processed"),
        (("history", "cnn", "--processed", "data"), "No such option: --processed"),
    ],
)
def test_bad_input_exits_with_2(
    project: Project,
    arguments: tuple[str, ...],
    expected: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(sys, "argv", ["diptych", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    assert ended.value.code == 2
    assert expected in capsys.readouterr().err


def test_a_store_that_is_not_there_is_not_made(project: Project) -> None:
    database = project.root / DATABASE_FILE
    database.unlink()
    done: Any = CliRunner().invoke(app, ["status"])
    assert f"{database}: must hold recorded runs" in str(done.exception)
    assert not database.exists()


def test_the_policy_is_that_of_params_yaml(project: Project) -> None:
    strict = json.dumps({"promotion": {**POLICY, "min_cnn_accuracy": 1.0}})
    (project.root / "strict.yaml").write_text(strict)
    run_id = project.executions["better"].run_id
    out = run(1, "promote", "cnn", "--run", run_id, "--params", "strict.yaml", "--dry-run")
    assert "cnn.accuracy" in out

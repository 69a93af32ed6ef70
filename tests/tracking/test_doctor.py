"""Each illness is told in one line with what mends it, and a healthy project has none."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest

from diptych.reproduction import mend_dvc_files
from diptych.tracking.audit import AuditEntry, Standing, entry_text
from diptych.tracking.doctor import Finding, Patient, _dvc_files, examine
from diptych.tracking.events import RunStarted
from diptych.tracking.journal import Journal
from diptych.tracking.liveness import PROCESS_TAG, process_tag
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.store import DATABASE_FILE, find_store
from tests.faults.commands import end_of_diptych
from tests.stages.conftest import ROOT

PIPELINE = "stages: {make: {cmd: python -c 1, outs: [out]}}\n"
LOCK = """\
schema: '2.0'
stages:
  make:
    cmd: python -c 1
    outs:
    - path: out
      hash: md5
      md5: abcdef00000000000000000000000000
      size: 1
"""


@pytest.fixture(scope="module")
def initialised(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project that git and DVC know, in which nothing has happened."""
    folder = tmp_path_factory.mktemp("initialised") / "project"
    folder.mkdir()
    subprocess.run(["git", "init", "--quiet"], cwd=folder, check=True)
    program = Path(sys.executable).parent / "dvc"
    environment = {**os.environ, "DVC_NO_ANALYTICS": "1"}
    subprocess.run([program, "init", "--quiet"], cwd=folder, check=True, env=environment)
    shutil.copy(ROOT / "params.yaml", folder)
    return folder


@pytest.fixture
def project(initialised: Path, empty_database: Path, tmp_path: Path) -> Path:
    folder = shutil.copytree(initialised, tmp_path / "project")
    shutil.copy(empty_database, folder / DATABASE_FILE)
    return folder


def findings(project: Path, **environment: str) -> list[Finding]:
    return examine(Patient(project, environment))


def test_a_healthy_project_has_none(project: Path) -> None:
    assert findings(project) == []
    (project / DATABASE_FILE).unlink()
    assert findings(project) == []


def _interrupt_a_promotion(project: Path) -> None:
    import mlflow

    before, after = Standing(None, None), Standing(1, None)
    entry = AuditEntry(
        number=1,
        when="2026-01-01T00:00:00Z",
        who="me",
        action="promoted",
        state="intended",
        version=1,
        before=before,
        after=after,
        run_id="run",
        why=(),
        figures={},
    )
    client = mlflow.MlflowClient(tracking_uri=find_store(project, {}).uri)
    client.create_registered_model("diptych-cnn", {"audit.000001": entry_text(entry)})


def _leave_a_run(project: Path) -> None:
    import mlflow

    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        tag = process_tag(psutil.Process(process.pid))
        process.communicate()
    client = mlflow.MlflowClient(tracking_uri=find_store(project, {}).uri)
    client.create_run(client.create_experiment("any"), 1, {PROCESS_TAG: tag}, "stale")


def _leave_a_journal(project: Path) -> None:
    journal = Journal(project / JOURNALS_FOLDER / "a" / "a", {"store": "http://127.0.0.1:1"})
    journal.append(RunStarted("a", {}, None, 1))
    journal.close()


def _leave_a_lock(project: Path) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        pass
    _hold_locks(project, _mine(), {"pid": process.pid, "cmd": "dvc repro"})


def _leave_a_lock_whose_number_is_given_out_again(project: Path) -> None:
    _hold_locks(project, _mine(), {"pid": os.getpid(), "cmd": "/bin/dvc repro"})


def _mine() -> dict[str, Any]:
    """An entry of DVC's list that stands for this very process."""
    return {"pid": os.getpid(), "cmd": " ".join(psutil.Process().cmdline())}


def _hold_locks(project: Path, *holders: dict[str, Any]) -> None:
    held = {"write": {f"out{number}": one for number, one in enumerate(holders)}, "read": {}}
    (project / ".dvc/tmp/rwlock").write_text(json.dumps(held))


def _cut_the_lock(project: Path) -> None:
    (project / ".dvc/tmp/rwlock").write_text('{"write"')


def _merge_badly(project: Path) -> None:
    (project / "dvc.lock").write_text(f"<<<<<<< HEAD\n{LOCK}=======\n{LOCK}>>>>>>> other\n")


def _cut_dvc_lock(project: Path) -> None:
    (project / "dvc.lock").write_text(LOCK[: len(LOCK) // 2] + "\n  - [")


def _cut_dvc_lock_within_a_hash(project: Path) -> None:
    (project / "dvc.lock").write_text(LOCK[: LOCK.index("0000")])  # to YAML it is whole


def _lose_an_object(project: Path) -> None:
    (project / "dvc.yaml").write_text(PIPELINE)
    (project / "dvc.lock").write_text(LOCK)


def _interrupt_a_training(project: Path) -> None:
    folder = project / ".diptych/checkpoints/models/cnn/0123"
    folder.mkdir(parents=True)
    (folder / "000001.safetensors").touch()


def _pin_another_version(project: Path) -> None:
    (project / "requirements.lock").write_text("mlflow==1.0.0 \\\n    --hash=sha256:00\n")


def _age_the_schema(project: Path) -> None:
    with closing(sqlite3.connect(project / DATABASE_FILE)) as database:
        database.execute("update alembic_version set version_num = 'old'")
        database.commit()


def _damage_the_database(project: Path) -> None:
    path = project / DATABASE_FILE
    path.write_bytes(path.read_bytes()[:2000] + bytes(50_000))


def _put_artifacts_elsewhere(project: Path) -> None:
    import mlflow

    client = mlflow.MlflowClient(tracking_uri=find_store(project, {}).uri)
    client.create_experiment("diptych", "file:///elsewhere")


@pytest.mark.parametrize(
    ("infect", "subject", "what", "command"),
    [
        (_leave_a_journal, "runs", "1 told but not recorded", "diptych sync"),
        (_leave_a_run, "runs", "1 RUNNING without a process (stale)", "diptych reap"),
        (_interrupt_a_promotion, "registry", "promoted was interrupted", "diptych status"),
        (_lose_an_object, "dvc", "stage make: out not wholly in the cache", "diptych repro make"),
        (_interrupt_a_training, "training", "models/cnn: was interrupted", "diptych repro"),
        (_pin_another_version, "environment", "mlflow==1.0.0 (got 3.17.2)", "make setup"),
        (_age_the_schema, "store", "(got old)", "mlflow db upgrade sqlite:///"),
        (_put_artifacts_elsewhere, "store", "(got file:///elsewhere)", "MLFLOW_EXPERIMENT_NAME="),
        (_damage_the_database, "store", "mlflow.db: is ", "mv "),
    ],
)
def test_an_illness_is_told_with_what_mends_it(
    project: Path, infect: Callable[[Path], None], subject: str, what: str, command: str
) -> None:
    infect(project)
    (found,) = findings(project)
    assert found.subject == subject
    assert what in found.what
    assert "\n" not in found.what
    assert found.command.startswith(command)


@pytest.mark.parametrize(
    ("infect", "what"),
    [
        (_leave_a_lock, "rwlock: names processes that are gone"),
        (_leave_a_lock_whose_number_is_given_out_again, "rwlock: names processes that are gone"),
        (_cut_the_lock, "rwlock: was damaged"),
        (_merge_badly, "dvc.lock: is cut or has conflict markers"),
        (_cut_dvc_lock, "dvc.lock: is cut or has conflict markers"),
        (_cut_dvc_lock_within_a_hash, "dvc.lock: is cut or has conflict markers"),
    ],
)
def test_what_is_wrong_with_dvcs_files_is_what_the_pipelines_command_mends(
    project: Path, infect: Callable[[Path], None], what: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And the locks of processes that run are held on."""
    infect(project)
    (found,) = findings(project)
    assert (found.subject, found.command) == ("dvc", "diptych repro")
    assert what in found.what
    monkeypatch.chdir(project)
    told: list[str] = []
    mend_dvc_files(told.append)
    assert [what in line for line in told] == [True]
    assert findings(project) == []
    if "names processes" in what:
        left = json.loads((project / ".dvc/tmp/rwlock").read_text())
        assert left == {"write": {"out0": _mine()}, "read": {}}


def test_what_a_running_dvc_is_writing_is_no_illness(project: Path) -> None:
    path, patient = project / ".dvc/tmp/rwlock", Patient(project, {})
    path.write_text("")
    assert len(list(_dvc_files(patient))) == 1
    written = threading.Timer(0.05, path.write_text, ["{}"])
    written.start()
    assert list(_dvc_files(patient)) == []
    written.join(10)


def test_a_look_that_fails_names_no_command_that_would_not_help(project: Path) -> None:
    (project / "params.yaml").write_text("promotion: {}\n")
    (found,) = findings(project)
    assert (found.subject, found.command) == ("registry", "")
    assert "params.yaml: promotion" in found.what
    ended = end_of_diptych(project, "doctor")
    assert ended.stdout.splitlines()[0] == f"registry: {found.what}"


def test_a_server_that_does_not_answer_is_told_without_its_secrets(project: Path) -> None:
    (found,) = findings(project, MLFLOW_TRACKING_URI="http://me:hunter2@127.0.0.1:1")
    assert found.subject == "store"
    assert "must answer" in found.what
    assert "hunter2" not in f"{found}"


def test_more_threads_than_cores_are_told(project: Path) -> None:
    (found,) = findings(project, OMP_NUM_THREADS="1000")
    assert found.command.startswith("export OMP_NUM_THREADS=")


def test_the_commands_exit_code_tells_of_findings(project: Path) -> None:
    ended = end_of_diptych(project, "doctor")
    assert (ended.code, ended.stdout) == (0, "0 findings\n")
    _cut_the_lock(project)
    ended = end_of_diptych(project, "doctor")
    assert (ended.code, ended.stdout.count("\n")) == (1, 2)
    ended = end_of_diptych(project, "doctor", "--json")
    assert [one["subject"] for one in json.loads(ended.stdout)] == ["dvc"]
    assert ended.code == 1

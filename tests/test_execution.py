import itertools
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from diptych.execution import _is_dvc, find_execution, is_running, process_key


@pytest.mark.parametrize(
    ("command_line", "expected"),
    [
        (["/venv/bin/python", "/venv/bin/dvc", "repro"], True),
        (["/venv/bin/python3.11", "-X", "utf8", "-u", "/venv/bin/dvc", "exp", "run"], True),
        (["python", "/venv/bin/dvc", "exp", "exec-run", "--infofile", "x"], True),
        (["python", "/venv/bin/dvc", "exp", "run", "-m", "message"], True),
        (["python", "-m", "dvc", "repro"], True),
        (["python", "/site-packages/dvc/__main__.py", "repro"], True),
        (["/usr/bin/dvc", "repro"], True),
        (["/bin/sh", "-c", "dvc repro"], False),
        (["python", "stages/train_cnn.py", "dvc"], False),
        (["python", "-m", "pytest", "dvc"], False),
        (["python", "-c", "import dvc"], False),
        (["uv", "run", "dvc", "repro"], False),
        (["python"], False),
        ([], False),
    ],
)
def test_dvc_is_known_by_its_command_line(command_line: list[str], expected: bool) -> None:
    assert _is_dvc(command_line) == expected


DVC = """
import subprocess, sys
for _ in range(2):
    subprocess.run(sys.argv[1], shell=True, check=True)
"""
STAGE = """
from diptych.execution import find_execution, process_key
print(process_key(find_execution()))
"""


def test_stages_of_one_execution_share_a_key_and_executions_differ(tmp_path: Path) -> None:
    (tmp_path / "dvc").write_text(DVC)
    command = [sys.executable, str(tmp_path / "dvc"), f"{sys.executable} -c '{STAGE}'"]
    first, second = (
        subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
        for _ in range(2)
    )
    assert len(first) == len(second) == 2
    assert len(set(first)) == len(set(second)) == 1
    assert first[0] != second[0]


def test_without_dvc_there_is_no_execution() -> None:
    assert find_execution() is None


def test_a_key_is_stable_and_tells_processes_apart() -> None:
    me = psutil.Process()
    assert process_key(me) == process_key(psutil.Process(me.pid))
    parent = me.parent()
    assert parent is not None
    assert process_key(parent) != process_key(me)


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the clock's adjustment is Linux's")
def test_a_key_outlives_any_adjustment_of_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    me = psutil.Process()
    me.create_time()  # psutil keeps it, as the clock was then
    key = process_key(me)
    boot_seconds = psutil.boot_time()
    adjusted = (boot_seconds + number for number in itertools.count(1))
    for module in (psutil, psutil._pslinux):
        monkeypatch.setattr(module, "boot_time", lambda: next(adjusted))
    assert process_key(me) == process_key(psutil.Process()) == key


def test_a_process_that_has_ended_does_not_run_even_if_nobody_has_waited_for_it() -> None:
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as child:
        process = psutil.Process(child.pid)
        assert is_running(process)
        child.kill()
        deadline = time.monotonic() + 10
        while is_running(process) and time.monotonic() < deadline:
            time.sleep(0.01)
        assert not is_running(process)
    assert not is_running(process)

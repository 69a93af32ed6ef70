"""The machine in one line, and who runs this."""

import os
import pwd
import subprocess
import sys
from importlib.metadata import version

import pytest

from diptych.machine import cpu_model, describe_machine, num_cores, user_name


def test_the_line_names_processor_cores_and_torch() -> None:
    line = describe_machine()
    assert line.endswith(f", torch {version('torch')}")
    assert cpu_model() in line
    assert f", {num_cores()} core" in line
    assert "\n" not in line


def test_only_the_cores_that_a_process_may_use_are_counted() -> None:
    one = min(os.sched_getaffinity(0))
    code = (
        f"import os; os.sched_setaffinity(0, {{{one}}}); import sys; import diptych.machine as m; "
        "print(m.num_cores(), {'torch', 'mlflow'} & set(sys.modules))"
    )
    assert subprocess.check_output([sys.executable, "-c", code], text=True) == "1 set()\n"


def test_who_runs_this_is_known_without_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(pwd, "getpwuid", {os.getuid(): ["me"]}.__getitem__)
    assert user_name() == "me"
    monkeypatch.setattr(pwd, "getpwuid", {}.__getitem__)  # an account without a name
    assert user_name() == str(os.getuid())
    monkeypatch.setenv("USER", "ann")
    assert user_name() == "ann"

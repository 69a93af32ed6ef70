import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diptych.errors import UserError
from diptych.stage import PathOption, run_stage


@pytest.fixture
def run(monkeypatch, capsys, tmp_path):
    """Run a main as `python stages/example.py ARGUMENTS`: exit code, stdout, stderr."""
    monkeypatch.chdir(tmp_path)

    def run(main, *arguments):
        monkeypatch.setattr(sys, "argv", ["stages/example.py", *arguments])
        with pytest.raises(SystemExit) as stop:
            run_stage(main)
        printed = capsys.readouterr()
        return stop.value.code or 0, printed.out, printed.err

    before = signal.getsignal(signal.SIGTERM)
    yield run
    signal.signal(signal.SIGTERM, before)


def raising(error: BaseException) -> Callable[[], None]:
    def main() -> None:
        raise error

    return main


def two_paths(params: PathOption, model_folder: PathOption) -> None:
    """Read PARAMS."""
    print(f"{params!r} {model_folder!r}")


def test_paths_arrive_as_paths(run):
    result = run(two_paths, "--params", "params.yaml", "--model-folder", "models/cnn")
    assert result == (0, f"{Path('params.yaml')!r} {Path('models/cnn')!r}\n", "")


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            UserError("params.yaml: a.b: must be > 0 (got -1)"),
            "params.yaml: a.b: must be > 0 (got -1)",
        ),
        (UserError("of more\nthan  one\tline"), "of more than one line"),
        (
            FileNotFoundError(2, "No such file or directory", "x/y"),
            "x/y: No such file or directory",
        ),
        (OSError("no file is named"), "no file is named"),
        (
            OSError("403 Forbidden for url: http://ann:secret@host/x?token=secret"),
            "403 Forbidden for url: http://***@host/x?***",
        ),
        (
            RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried"),
            "not enough memory: must fit (smaller batch_size, width or num_hidden)",
        ),
    ],
)
def test_bad_input_is_one_line_and_exit_code_2(run, error, line):
    assert run(raising(error)) == (2, "", f"example: {line}\n")


def test_a_file_that_is_not_there_is_one_line(run):
    def main() -> None:
        Path("data/raw").read_bytes()

    assert run(main) == (2, "", "example: data/raw: No such file or directory\n")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ([], "Missing option '--params'"),
        (["--params", "x"], "Missing option '--model-folder'"),
        (["--params"], "Option '--params' requires an argument"),
        (["--params", "x", "--model-folder", "y", "--more", "z"], "No such option: --more"),
        (["--params", "x", "--model-folder", "y", "z"], "Got unexpected extra argument"),
    ],
)
def test_a_bad_command_line_is_one_line_and_exit_code_2(run, arguments, message):
    code, out, error = run(two_paths, *arguments)
    assert (code, out) == (2, "")
    assert error.startswith(f"example: {message}")
    assert error.count("\n") == 1
    assert error.endswith("\n")


def test_help_says_what_the_stage_does(run):
    code, out, error = run(two_paths, "--help")
    assert (code, error) == (0, "")
    assert "Read PARAMS." in out
    assert "--model-folder" in out


def test_ctrl_c_is_no_traceback(run):
    assert run(raising(KeyboardInterrupt())) == (128 + signal.SIGINT, "", "")


def test_a_termination_passes_every_finally(run):
    passed = []

    def main() -> None:
        try:
            signal.raise_signal(signal.SIGTERM)
        finally:
            passed.append("finally")

    assert run(main) == (128 + signal.SIGTERM, "", "")
    assert passed == ["finally"]


def test_a_fault_of_ours_keeps_its_traceback(run):
    with pytest.raises(ZeroDivisionError):
        run(raising(ZeroDivisionError("ours")))

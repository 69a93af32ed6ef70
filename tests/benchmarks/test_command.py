import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.__main__ import CommandLineError, main
from benchmarks.cases import CASES
from benchmarks.machine import describe_machine, file_name
from benchmarks.measure import MeasurementError, measure_apart
from benchmarks.prepare import PreparationError, data_folders, prepare
from benchmarks.results import ResultFileError

ROOT = Path(__file__).parents[2]


def test_patterns_that_match_nothing_are_refused():
    with pytest.raises(CommandLineError, match=r"--only: must match one of cnn/default, .*'abc'"):
        main(["--only", "abc"])


@pytest.mark.parametrize("option", ["--budget", "--seeds"])
@pytest.mark.parametrize("value", ["0", "-1", "nan", "much"])
def test_numbers_must_be_positive(option, value, capsys):
    with pytest.raises(SystemExit) as caught:
        main([option, value])
    assert caught.value.code == 2
    assert f"argument {option}" in capsys.readouterr().err


def test_a_case_without_its_data_or_preset_is_said_to_be_unmeasured(
    tmp_path, presets, processed, capsys
):
    chosen = ["--only", "cnn/tiny", "--presets", str(presets), "--results", str(tmp_path)]
    assert main([*chosen, "--data", str(processed)]) == 0
    assert "cnn/tiny: not measured: " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_result_file_is_not_overwritten(tmp_path, presets, processed, capsys):
    path = tmp_path / file_name(describe_machine(torch.device("cpu")).hardware)
    path.write_text("{}", encoding="utf-8")
    with pytest.raises(ResultFileError):
        main(["--presets", str(presets), "--results", str(tmp_path), "--data", str(processed)])
    assert path.read_text(encoding="utf-8") == "{}"


def test_what_a_measuring_process_refuses_is_the_error(presets, processed):
    (case,) = [case for case in CASES if case.name == "cnn/tiny"]
    with pytest.raises(MeasurementError, match=r"presets: a preset must be .* \(got 'tiny'\)"):
        measure_apart(case, 1, [processed], presets)


def test_bad_input_is_one_line_and_exit_code_2():
    command = [sys.executable, "-m", "benchmarks", "--only", "abc"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.startswith("benchmarks: --only: must match")


def test_data_that_are_there_are_found_and_not_made_again(tmp_path, presets, processed):
    own = tmp_path / "own"
    (own / "mnist").mkdir(parents=True)
    (own / "mnist" / "processed").symlink_to(processed)
    folders = data_folders(own, tmp_path / "pipeline")
    assert folders == [own / "mnist" / "processed"]
    prepare(["mnist"], folders, own, presets)
    assert [path.name for path in (own / "mnist").iterdir()] == ["processed"]


def test_data_that_cannot_be_had_are_an_error(tmp_path, presets_without_sources):
    own = tmp_path / "own"
    with pytest.raises(PreparationError, match=r"mnist: stages/download\.py must end with .* 2\)"):
        prepare(["mnist"], [], own, presets_without_sources)
    assert data_folders(own, tmp_path / "pipeline") == []

"""The command line: paths are the caller's."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from diptych.cli import app
from diptych.machine import describe_machine
from diptych.params import read_yaml
from diptych.presets import load_preset, preset_purposes
from diptych.reports.results import BEGIN, END, results_table

ROOT = Path(__file__).parents[1]
METRICS = ROOT / "metrics"
PRESETS = ROOT / "presets"


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """A copy of the parameter file that ships."""
    return Path(shutil.copy(ROOT / "params.yaml", tmp_path / "params.yaml"))


def output_of(*arguments: str | Path) -> list[str]:
    done = CliRunner().invoke(app, [*map(str, arguments)], catch_exceptions=False)
    assert done.exit_code == 0
    return done.output.splitlines()


def test_results_fill_the_table_and_say_which_run_and_machine(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text(f"{BEGIN}{END}")
    done = CliRunner().invoke(
        app, ["results", "--readme", str(readme), "--metrics", str(METRICS)], catch_exceptions=False
    )
    assert done.exit_code == 0
    block = readme.read_text().removeprefix(f"{BEGIN}\n").removesuffix(f"\n{END}")
    machine = block.splitlines()[-1]
    assert block == results_table(METRICS, machine)
    assert f"outputs are in `{METRICS}/`" in machine
    assert machine.endswith(f"written on: {describe_machine()}.")


@pytest.mark.parametrize("option", ["--readme", "--metrics"])
def test_no_path_is_guessed(option: str) -> None:
    done = CliRunner().invoke(app, ["results", option, "somewhere"])
    assert done.exit_code == 2
    assert "Missing option" in done.output


def test_a_preset_is_applied_and_its_changes_are_told(params: Path) -> None:
    options = ("--params", params, "--presets", PRESETS)
    old, new = read_yaml(params)["train_cnn"], load_preset(PRESETS, "tiny")["train_cnn"]
    lines = output_of("preset", "tiny", *options)
    assert f"train_cnn.width: {old['width']} -> {new['width']}" in lines
    assert all(re.fullmatch(r"\w+\.\w+: \S+ -> \S+", line) for line in lines)
    assert read_yaml(params) == load_preset(PRESETS, "tiny")
    assert output_of("preset", "tiny", *options) == [f"{params} is set to tiny already"]


def test_presets_are_listed_with_the_one_that_matches(params: Path) -> None:
    options = ("--params", params, "--presets", PRESETS)
    output_of("preset", "fast", *options)
    *rows, last = output_of("presets", *options)
    assert last == f"{params} is set to: fast"
    assert [row.lstrip("* ").split(maxsplit=1) for row in rows] == [
        [name, purpose] for name, purpose in preset_purposes(PRESETS).items()
    ]
    assert [row.split()[1] for row in rows if row.startswith("*")] == ["fast"]


def test_params_and_presets_are_those_of_the_working_directory(
    params: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(PRESETS, params.parent / "presets")
    monkeypatch.chdir(params.parent)
    output_of("preset", "tiny")
    assert output_of("presets")[-1] == "params.yaml is set to: tiny"


def test_an_unknown_preset_is_one_line_and_exit_code_2(params: Path) -> None:
    before = params.read_bytes()
    options = ["--params", str(params), "--presets", str(PRESETS)]
    done = subprocess.run(
        [
            sys.executable,
            "-c",
            "from diptych.cli import main; main()",
            "preset",
            "fastest",
            *options,
        ],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 2
    (line,) = done.stderr.splitlines()
    assert line.endswith(f"must be one of {', '.join(preset_purposes(PRESETS))} (got 'fastest')")
    assert params.read_bytes() == before

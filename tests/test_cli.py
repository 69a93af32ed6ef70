"""The command line: paths are the caller's."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from diptych.cli import app
from diptych.machine import describe_machine
from diptych.reports.results import BEGIN, END, results_table

METRICS = Path(__file__).parents[1] / "metrics"


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

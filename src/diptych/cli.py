"""The `diptych` command: parsing and printing only."""

import os
import platform
from importlib.metadata import version
from pathlib import Path

import typer

from diptych.stage import run_command

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def diptych() -> None:
    """A classifier and an autoencoder over the same images, in one pipeline."""


@app.command()
def results(readme: Path = Path("README.md"), metrics: Path = Path("metrics")) -> None:
    """Write the figures of METRICS, of a pipeline just run here, into README's table."""
    from diptych.reports.results import fill_results, results_table

    fill_results(readme, results_table(metrics, _machine()))


def _machine() -> str:
    return (
        f"One run with the seeds of `params.yaml`, on {os.cpu_count()} cores ({_processor()}), "
        f"torch {version('torch')}; figures from `metrics/`, table by `diptych results`."
    )


def _processor() -> str:
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        for line in cpuinfo.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def main() -> None:
    """Run the command and end the process."""
    run_command(app)

"""The `diptych` command: parsing and printing only."""

import typer

from diptych.stage import PathOption, run_command

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


@app.callback()
def diptych() -> None:
    """A classifier and an autoencoder over the same images, in one pipeline."""


@app.command()
def results(readme: PathOption, metrics: PathOption) -> None:
    """Write the figures of METRICS, of a pipeline just run on this machine, into README's table."""
    from diptych.machine import describe_machine
    from diptych.reports.results import fill_results, results_table

    machine = (
        f"Figures of the one run whose outputs are in `{metrics}/`; "
        f"the table was written on: {describe_machine()}."
    )
    fill_results(readme, results_table(metrics, machine))


def main() -> None:
    """Run the command and end the process."""
    run_command(app)

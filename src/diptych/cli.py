"""The `diptych` command: parsing and printing only."""

import sys
import traceback
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, get_args

import typer

from diptych.stage import PathOption, run_command
from diptych.tracking.printable import printable, printable_json
from diptych.tracking.secrets import redacted

if TYPE_CHECKING:
    from rich.text import Text


def _named_file(path: Path) -> Path:
    """Refuse a file that is not there; of the default, some commands need but the folder."""
    if path != Path("params.yaml") and not path.is_file():
        raise typer.BadParameter(f"must be a file (got {path})")
    return path


ParamsOption = Annotated[Path, typer.Option(callback=_named_file, help="The parameter file.")]
PresetsOption = Annotated[Path, typer.Option(help="The folder of presets.")]

Family = Literal["cnn", "vae", "pair"]  # as promotion.record says too, which imports pandas

FamilyArgument = Annotated[Family, typer.Argument(help="Which of the models.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON.")]
ProcessedOption = Annotated[Path, typer.Option(help="The data set, as preprocess wrote it.")]

app = typer.Typer(add_completion=False, pretty_exceptions_enable=False, no_args_is_help=True)


def _champion_version(text: str) -> int:
    """Return the version that must be the champion; 0 for none."""
    if text == "none":
        return 0
    if not text.isdecimal() or not int(text):
        raise typer.BadParameter(f"must be a version's number or none (got {text!r})")
    return int(text)


ExpectOption = Annotated[
    int | None,
    typer.Option(
        "--expect-champion",
        parser=_champion_version,
        metavar="VERSION|none",
        help="Refuse to act unless this is the champion.",
    ),
]


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


@app.command(context_settings={"ignore_unknown_options": True})
def repro(
    arguments: Annotated[
        list[str] | None, typer.Argument(help="For `dvc repro`, such as --force or a stage.")
    ] = None,
) -> None:
    """Run the pipeline as `dvc repro` does, one at a time; mend what kills left of DVC's files."""
    from diptych.reproduction import reproduce

    reproduce(arguments or (), lambda line: _notice(f"repro: {line}"))


@app.command()
def preset(
    name: Annotated[str, typer.Argument(help="The preset's; `diptych presets` lists them.")],
    params: ParamsOption = Path("params.yaml"),
    presets: PresetsOption = Path("presets"),
) -> None:
    """Set PARAMS to the preset NAME and print what has changed; other keys keep their values."""
    from diptych.presets import apply_preset

    changes = apply_preset(params, presets, name)
    for change in changes:
        print(f"{change.key}: {change.old} -> {change.new}")
    if not changes:
        print(f"{params} is set to {name} already")


@app.command("presets")
def list_presets(
    params: ParamsOption = Path("params.yaml"), presets: PresetsOption = Path("presets")
) -> None:
    """List the presets, what each is for, and which of them PARAMS is set to."""
    from diptych.params import read_yaml
    from diptych.presets import matching_preset, preset_purposes

    matching = matching_preset(read_yaml(params), presets)
    for name, purpose in preset_purposes(presets).items():
        print(f"{'*' if name == matching else ' '} {name:<16} {purpose}")
    print(f"{params} is set to: {matching}")


@app.command()
def promote(
    family: FamilyArgument,
    run: Annotated[
        str | None,
        typer.Option(help="Run of a pipeline execution or stage; else the newest complete one."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Decide, and write nothing.")] = False,
    allow_dirty: Annotated[
        bool, typer.Option("--allow-dirty", help="Accept code that was not committed.")
    ] = False,
    expect_champion: ExpectOption = None,
    json: JsonOption = False,
    params: ParamsOption = Path("params.yaml"),
    processed: ProcessedOption = Path("data/processed"),
) -> None:
    """Let the gate decide on a model and make it the champion: exit code 0 promoted, 1 refused."""
    from diptych.promotion.decision import decision_rows
    from diptych.tracking.origins import check_recorded
    from diptych.tracking.promoting import Request
    from diptych.tracking.promoting import promote as promote_model
    from diptych.tracking.promotion_reports import outcome_json, verdict_lines
    from diptych.tracking.registrar import await_recording, evaluator, open_registrar

    request = Request(run, dry_run, allow_dirty, expect_champion)
    await_recording(params, _notice)
    if run is None:
        check_recorded(params)
    with open_registrar(params, _notice) as registrar:
        outcome = promote_model(registrar, family, request, evaluator(params, processed))
    if json:
        _print_json(outcome_json(outcome))
    else:
        _print_table(("check", "expected", "found", ""), decision_rows(outcome.decision))
        _print_lines(*verdict_lines(outcome))
    if not outcome.decision.is_promoted:
        raise typer.Exit(1)


@app.command()
def rollback(
    family: FamilyArgument,
    expect_champion: ExpectOption = None,
    json: JsonOption = False,
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Make the champion before the present one the champion again."""
    from diptych.tracking.audit import as_json
    from diptych.tracking.moves import version_text
    from diptych.tracking.promoting import roll_back
    from diptych.tracking.registrar import open_registrar

    with open_registrar(params, _notice) as registrar:
        entry = roll_back(registrar, family, expect_champion)
        name = registrar.registry(family).name
    if json:
        _print_json(as_json(entry))
    else:
        champions = (version_text(one.champion) for one in (entry.before, entry.after))
        print(f"{name}@champion: {' -> '.join(champions)}")


@app.command()
def status(
    json: JsonOption = False,
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Show each registered model's champion, and whether its aliases are those of its log."""
    from diptych.tracking.promoting import read_status
    from diptych.tracking.promotion_reports import status_json, status_row
    from diptych.tracking.registrar import open_registrar

    with open_registrar(params, _notice) as registrar:
        found = [read_status(registrar, family) for family in get_args(Family)]
    if json:
        _print_json([status_json(one) for one in found])
    else:
        headings = ("model", "champion", "previous", "latest", "figures", "log")
        _print_table(headings, [status_row(one) for one in found])


@app.command()
def history(
    family: FamilyArgument,
    json: JsonOption = False,
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Show every decision on a registered model: who, when, from, to, why."""
    from diptych.tracking.promoting import read_history
    from diptych.tracking.promotion_reports import history_json, history_rows
    from diptych.tracking.registrar import open_registrar

    with open_registrar(params, _notice) as registrar:
        log = read_history(registrar, family)
    if json:
        _print_json(history_json(log))
    else:
        headings = ("", "when", "who", "decision", "version", "champion", "why")
        _print_table(headings, history_rows(log))


@app.command()
def lineage(
    model: Annotated[
        str, typer.Argument(help="NAME@ALIAS, NAME/VERSION, or NAME for its champion; or cnn, …")
    ],
    print_params: Annotated[
        bool,
        typer.Option("--print-params", help="Print its whole parameter file and nothing else."),
    ] = False,
    json: JsonOption = False,
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Say where a registered model comes from, and which commands make it again."""
    from os import environ

    from diptych.tracking.client import store_of
    from diptych.tracking.lineage import find_lineage, params_of
    from diptych.tracking.lineage_reports import lineage_as_json, lineage_lines
    from diptych.tracking.store import find_workspace

    found = find_lineage(store_of(params), model, params)
    workspace = find_workspace(params, environ)
    if print_params:
        print(params_of(found), end="")
    elif json:
        _print_json(lineage_as_json(found, workspace))
    else:
        print("\n".join(lineage_lines(found, workspace)))


@app.command()
def serve(
    family: Annotated[Family, typer.Argument(help="Which of the models.")] = "pair",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the loopback interface.")] = 5001,
    workers: Annotated[int, typer.Option(min=1, help="Processes that share the cores.")] = 1,
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Serve FAMILY's champion on 127.0.0.1, for `POST /invocations`, until interrupted."""
    from diptych.params import load_params
    from diptych.promotion.params import PromotionParams
    from diptych.tracking.client import store_of
    from diptych.tracking.serving import serve_champion

    prefix = load_params(params, "promotion", PromotionParams).prefix
    serve_champion(store_of(params), prefix, family, port, workers)


@app.command()
def ui(
    port: Annotated[int, typer.Option(min=1, max=65535, help="Of the loopback interface.")] = 5000,
    params: ParamsOption = Path("params.yaml"),
) -> None:
    """Show the runs in MLflow on 127.0.0.1; print the addresses of a table and of their images."""
    from diptych.tracking.client import store_of
    from diptych.tracking.views import show_runs

    show_runs(store_of(params), port)


@app.command()
def seeds(
    num: Annotated[int, typer.Option(min=1, help="How many seeds.")],
    first_seed: Annotated[int, typer.Option(min=0, help="The first; the others follow.")] = 1,
) -> None:
    """Run the pipeline with several seeds, as DVC experiments; print and record mean and s.d."""
    from diptych.tracking.seeds import run_seeds, spread_rows

    found = run_seeds(Path("params.yaml"), range(first_seed, first_seed + num))
    _print_table(("figure", "mean", "s.d.", "seeds"), spread_rows(found))


@app.command()
def sync(params: ParamsOption = Path("params.yaml")) -> None:
    """Record what runs have told while their store did not answer; safe to repeat."""
    from os import environ

    from diptych.tracking.store import find_root
    from diptych.tracking.sync import sync as bring_level

    for run in bring_level(find_root(params, environ), environ):
        what = "recorded" if run.is_recorded else "still being recorded"
        _print_lines(f"{run.name}: {what} in {run.store}")
    print("nothing is left to record that nobody is recording")


@app.command()
def reap(params: ParamsOption = Path("params.yaml")) -> None:
    """Mark runs that are RUNNING though their process has ended as KILLED; safe to repeat."""
    from os import environ

    from diptych.tracking.client import connect, failures_in_one_line, store_of
    from diptych.tracking.reap import find_stale_runs
    from diptych.tracking.reap import reap as mark_killed
    from diptych.tracking.store import find_root

    store = store_of(params)
    client = connect(store)
    with failures_in_one_line(store):
        stale = find_stale_runs(client, find_root(params, environ))
        mark_killed(client, stale)
    _print_lines(*(f"{run.name} ({run.run_id}): KILLED" for run in stale))
    print(f"{len(stale)} runs marked")


@app.command()
def doctor(json: JsonOption = False, params: ParamsOption = Path("params.yaml")) -> None:
    """Say what is wrong with store, runs, DVC and environment: exit code 1 with findings."""
    from dataclasses import asdict
    from os import environ

    from diptych.tracking.doctor import Patient, examine
    from diptych.tracking.store import find_root

    findings = examine(Patient(find_root(params, environ), environ))
    if json:
        _print_json([asdict(one) for one in findings])
    else:
        for one in findings:
            _print_lines(": ".join(filter(None, (one.subject, one.what, one.command))))
        print(f"{len(findings)} findings")
    if findings:
        raise typer.Exit(1)


@app.command()
def verify(json: JsonOption = False, params: ParamsOption = Path("params.yaml")) -> None:
    """Hash models, arrays and DVC's cache anew: exit code 1 if a file is not what it was."""
    from dataclasses import asdict
    from os import environ

    from diptych.tracking.store import find_workspace
    from diptych.verify import verify as hash_anew

    found = hash_anew(find_workspace(params, environ))
    if json:
        damages = [{**asdict(damage), "path": str(damage.path)} for damage in found.damages]
        _print_json({**asdict(found), "damages": damages})
    else:
        for damage in found.damages:
            _print_lines(f"{damage.path}: {damage.what}: {damage.command}")
        num = len(found.damages)
        print(f"{found.num_files} files, {found.num_bytes} bytes hashed: {num} damaged")
    if found.damages:
        raise typer.Exit(1)


def _notice(line: str) -> None:
    print(printable(line), file=sys.stderr)


def _print_lines(*lines: str) -> None:
    """Print lines in which there may be what anybody has written into a store."""
    for line in lines:
        print(printable(line))


def _print_json(value: object) -> None:
    print(printable_json(value))


def _print_table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for heading in headings:
        table.add_column(heading, overflow="fold")  # a figure's name is one word: none is cut
    for row in rows:
        table.add_row(*map(_printable_cell, row))
    Console().print(table)


def _printable_cell(text: str) -> "Text":
    from rich.text import Text

    lines = map(printable, text.split("\n"))  # a cell may have several
    return Text("\n".join(lines))  # not as markup: [x] is text


def main() -> None:
    """Run the command and end the process.

    Exit codes are those of `diptych.stage.run_stage`, and 1 where a command says no. A fault of
    ours keeps its traceback and ends with 2.
    """
    try:
        run_command(app)
    except Exception:
        print(redacted(traceback.format_exc()), end="", file=sys.stderr)
        sys.exit(2)  # Python's own 1 would be taken for an answer

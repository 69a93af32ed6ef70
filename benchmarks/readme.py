"""README's tables of benchmarks, written from the result files and nothing else."""

from pathlib import Path

from benchmarks.bench import with_targets
from benchmarks.cases import CASES
from benchmarks.kinds import params_of
from benchmarks.machine import is_dirty
from benchmarks.results import MachineResults, load_results, summarize
from benchmarks.tables import render
from diptych.errors import UserError
from diptych.files import write_atomically
from diptych.presets import load_preset

_NAMED = ("torch", "keras", "tensorflow-cpu")  # whose versions the tables' notes name
BEGIN, END = "<!-- benchmarks:begin -->", "<!-- benchmarks:end -->"


class ReadmeError(UserError):
    """README has no place for the tables."""


def load_all(folder: Path) -> list[MachineResults]:
    """Read every machine's result file, in the order of their names.

    Raises:
        ResultFileError: when one is not such a file.
    """
    return [load_results(path) for path in sorted(folder.glob("*.json"))]


def benchmark_block(folder: Path, presets: Path) -> str:
    """Return the tables of all result files, and what they were measured on and by.

    What was measured with other parameters than its preset has now is left out, and so are seeds
    measured by code that no commit holds. The rest is judged by the targets of today.

    Args:
        folder: Holds a result file per machine.
        presets: The folder of presets.
    """
    machines = [
        with_targets(_committed(_with_todays_params(machine, presets)), CASES)
        for machine in load_all(folder)
    ]
    protocol = (
        "Mean ± standard deviation over seeds, each trained in a process of its own and evaluated "
        "once on the whole test set; epoch and temperature were chosen on validation images. "
        "Training is from initial weights to chosen, calibrated ones, validation included, imports "
        "and the loading of data not. NLL of autoencoders: dynamic binarisation, importance "
        "sampling with the Monte Carlo error of its mean. Each row names the commits that were "
        "measured; what has changed since, `make bench` measures again. `make results` writes "
        "these tables from `benchmarks/results/`."
    )
    tables = render(machines, also_missing=True)
    return "\n\n".join(filter(None, [tables, protocol, *map(_provenance, machines)]))


def _with_todays_params(machine: MachineResults, presets: Path) -> MachineResults:
    measured = [case for case in CASES if case.name in machine.cases]
    cases = {
        case.name: machine.cases[case.name]
        for case in measured
        if machine.cases[case.name].params == params_of(case, load_preset(presets, case.preset))
    }
    return machine.model_copy(update={"cases": cases})


def _committed(machine: MachineResults) -> MachineResults:
    cases = {}
    for name, case in machine.cases.items():
        clean = tuple(one for one in case.measurements if not is_dirty(one.git_commit))
        if clean:
            update = {"measurements": clean, "summary": summarize(clean)}
            cases[name] = case.model_copy(update=update)
    return machine.model_copy(update={"cases": cases})


def fill_benchmarks(readme: Path, block: str) -> None:
    """Put the tables between README's two marks.

    Raises:
        ReadmeError: when the marks are not there.
    """
    text = readme.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise ReadmeError(f"{readme}: must hold the marks {BEGIN} and {END}")
    write_atomically(readme, f"{before}{BEGIN}\n{block}\n{END}{after}".encode())


def _provenance(machine: MachineResults) -> str:
    conditions = [case.conditions for case in machine.cases.values()]
    if not conditions:
        return f"{machine.hardware}: no results yet."
    threads = sorted({one.num_threads for one in conditions})
    precisions = sorted({one.precision for one in conditions})
    versions = sorted(
        {
            f"{package} {one.versions[package]}"
            for one in conditions
            for package in _NAMED
            if package in one.versions
        }
    )
    return (
        f"{machine.hardware}: {machine.system}, {'/'.join(map(str, threads))} CPU threads, "
        f"{'/'.join(precisions)}, {', '.join(versions)}."
    )

"""The command: `python -m benchmarks` measures, `python -m benchmarks readme` writes README."""

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.bench import Plan, make_plan, open_results, run_plans, with_targets
from benchmarks.cases import CASES, Case, select_cases
from benchmarks.command import run_command
from benchmarks.kinds import conditions_of
from benchmarks.machine import describe_machine, file_name
from benchmarks.measure import measure_apart
from benchmarks.prepare import data_folders
from benchmarks.readme import benchmark_block, fill_benchmarks
from benchmarks.results import MachineResults
from benchmarks.settings import PRESETS, ROOT, make_setting
from benchmarks.tables import render
from diptych.errors import UserError
from diptych.optimization.compute import ComputeParams, set_up_compute
from diptych.params import check_section
from diptych.presets import DEFAULT, load_preset


class CommandLineError(UserError):
    """The command line asks for what there is not."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure quality and speed, or write README's tables from the result files.

    Args:
        arguments: The command line's; this process's if None.

    Returns:
        The exit code: 0, also when the machine lacks what some cases need.
    """
    chosen = _parse(arguments)
    if chosen.command == "readme":
        fill_benchmarks(chosen.readme, benchmark_block(chosen.results, chosen.presets))
        return 0
    return _bench(chosen)


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks", description="Measure quality and speed.")
    add = parser.add_argument
    add("command", nargs="?", choices=["run", "readme"], default="run", help="default: run")
    add("--budget", type=_seconds, default=math.inf, metavar="SECONDS", help="default: no limit")
    add("--only", nargs="+", default=[], metavar="PATTERN", help="cases, as cnn/* or vae/default")
    add("--data", type=Path, nargs="+", metavar="FOLDER", help="processed data sets")
    add("--seeds", type=_count, metavar="N", help="at most so many seeds of each case")
    add("--again", action="store_true", help="measure also what the result file holds")
    add("--results", type=Path, default=ROOT / "benchmarks" / "results", metavar="FOLDER")
    add("--presets", type=Path, default=PRESETS, metavar="FOLDER")
    add("--readme", type=Path, default=ROOT / "README.md", metavar="FILE", help="of `readme`")
    return parser.parse_args(arguments)


def _bench(chosen: argparse.Namespace) -> int:
    cases = select_cases(CASES, [word for text in chosen.only for word in text.split()])
    if not cases:
        names = ", ".join(case.name for case in CASES)
        raise CommandLineError(f"--only: must match one of {names} (got {' '.join(chosen.only)!r})")
    folders = chosen.data or data_folders()
    machine = _this_machine(chosen.presets)
    path = chosen.results / file_name(machine.hardware)
    results = with_targets(open_results(path, machine), CASES)
    plans, unavailable = _plans(cases, folders, results, chosen)
    results, remarks = run_plans(
        plans,
        path,
        results,
        chosen.budget,
        lambda case, seed: measure_apart(case, seed, folders, chosen.presets),
        lambda line: print(line, file=sys.stderr, flush=True),
    )
    print(render([results], also_missing=False))
    for remark in [*unavailable, *remarks]:
        print(remark, file=sys.stderr)
    print(f"{path}: {len(results.cases)} cases on {results.hardware}", file=sys.stderr)
    return 0


def _this_machine(presets: Path) -> MachineResults:
    content = load_preset(presets, DEFAULT)
    compute = set_up_compute(check_section("params", content, "compute", ComputeParams))
    return describe_machine(compute.device)


def _plans(
    cases: Sequence[Case],
    folders: Sequence[Path],
    results: MachineResults,
    chosen: argparse.Namespace,
) -> tuple[list[Plan], list[str]]:
    """Return the plans of what can be measured here, and a line for each case that cannot."""
    plans, unavailable = [], []
    for case in cases:
        try:
            setting = make_setting(case, 0, folders, chosen.presets)
            conditions = conditions_of(case, setting)
        except UserError as error:
            unavailable.append(f"{case.name}: not measured: {error}")
            continue
        plans.append(make_plan(case, setting, conditions, results, chosen.seeds, chosen.again))
    return plans, unavailable


def _seconds(text: str) -> float:
    seconds = float(text)
    if not seconds > 0:
        raise argparse.ArgumentTypeError(f"must be > 0 (got {text})")
    return seconds


def _count(text: str) -> int:
    count = int(text)
    if count < 1:
        raise argparse.ArgumentTypeError(f"must be >= 1 (got {text})")
    return count


if __name__ == "__main__":
    run_command("benchmarks", main)

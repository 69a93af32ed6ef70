"""One seed of one case, in a process of its own: `python -m benchmarks.measure cnn/fast --seed 3`.

A fresh process is what a user starts too: what starts up in it counts, and no case warms another's
caches.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.cases import CASES, Case
from benchmarks.command import run_command
from benchmarks.kinds import KINDS
from benchmarks.machine import git_commit
from benchmarks.results import Measurement
from benchmarks.settings import PRESETS, ROOT, make_setting
from diptych.errors import UserError

NAME = "benchmarks.measure"


class MeasurementError(UserError):
    """The process that measures has failed."""


def measure(
    case: Case, seed: int, folders: Sequence[Path], presets: Path
) -> dict[str, int | float]:
    """Take the figures of one seed in this process.

    Args:
        case: What to measure.
        seed: The seed, or the number of the repetition.
        folders: Processed data sets.
        presets: The folder of presets.

    Raises:
        UnavailableError: when something that the case needs is not here.
        UserError: when its parameters or data are bad.
    """
    setting = make_setting(case, seed, folders, presets)
    return dict(KINDS[case.kind].measure(setting))


def measure_apart(case: Case, seed: int, folders: Sequence[Path], presets: Path) -> Measurement:
    """Take the figures of one seed in a new process.

    Raises:
        MeasurementError: when the process fails; with its own words if it refuses its input.
    """
    command = [sys.executable, "-m", "benchmarks.measure", case.name, "--seed", str(seed)]
    paths = ["--presets", str(presets), "--data", *map(str, folders)]
    # A bundle's packages are on the path of this process alone.
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(filter(None, [str(ROOT), *sys.path])),
    }
    start = time.perf_counter()
    done = subprocess.run(
        [*command, *paths], env=environment, capture_output=True, text=True, check=False
    )
    wall_seconds = time.perf_counter() - start
    if done.returncode == 2:
        raise MeasurementError(done.stderr.splitlines()[-1].removeprefix(f"{NAME}: "))
    print(done.stderr, file=sys.stderr, end="")
    if done.returncode != 0:
        raise MeasurementError(f"seed {seed} must end with exit code 0 (got {done.returncode})")
    return Measurement(
        seed=seed,
        figures=json.loads(done.stdout.splitlines()[-1]),
        wall_seconds=wall_seconds,
        git_commit=git_commit(ROOT),
    )


def main() -> int:
    """Print the figures of one seed of one case as JSON."""
    parser = argparse.ArgumentParser(prog=NAME, description=main.__doc__)
    parser.add_argument("case", choices=[case.name for case in CASES])
    parser.add_argument("--seed", type=int, required=True)
    parser.add_argument("--data", type=Path, nargs="+", required=True)
    parser.add_argument("--presets", type=Path, default=PRESETS)
    chosen = parser.parse_args()
    (case,) = [case for case in CASES if case.name == chosen.case]
    print(json.dumps(measure(case, chosen.seed, chosen.data, chosen.presets), allow_nan=False))
    return 0


if __name__ == "__main__":
    run_command(NAME, main)

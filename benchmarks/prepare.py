"""Bring the processed images that cases need, where they are not there yet."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.cases import CASES, Case, select_cases
from benchmarks.command import run_command
from benchmarks.settings import PRESETS, ROOT
from diptych.errors import UserError
from diptych.images.arrays import DESCRIPTION_FILE, load_description
from diptych.presets import DEFAULT, load_preset

PIPELINE_DATA = ROOT / "data" / "processed"
OWN_DATA = ROOT / "benchmarks" / "data"


class PreparationError(UserError):
    """A stage that makes the images has failed."""


def data_folders(own: Path = OWN_DATA, pipeline: Path = PIPELINE_DATA) -> list[Path]:
    """Return the processed data sets that are there: the pipeline's, then the benchmarks' own."""
    candidates = [pipeline, *sorted(own.glob("*/processed"))]
    return [folder for folder in candidates if (folder / DESCRIPTION_FILE).is_file()]


def prepare(names: Sequence[str], folders: Sequence[Path], own: Path, presets: Path) -> None:
    """Download and preprocess the data sets that are missing; the pipeline's stay as they are.

    Args:
        names: Of data sets.
        folders: The processed data sets that are there.
        own: Gets a folder for each that is missing.
        presets: The folder of presets, whose default names sources and split.

    Raises:
        PreparationError: when a stage fails.
    """
    there = {load_description(folder).name for folder in folders}
    for name in sorted(set(names) - there):
        content = load_preset(presets, DEFAULT)
        content["dataset"]["name"] = name
        _make(own / name, content)


def needed_datasets(cases: Sequence[Case], presets: Path) -> set[str]:
    """Return the names of the data sets that cases need.

    Args:
        cases: What is to be measured.
        presets: The folder of presets.
    """
    # Novelty is measured on the images of every other data set.
    users = CASES if any(case.kind == "novelty" for case in cases) else cases
    return {str(load_preset(presets, case.preset)["dataset"]["name"]) for case in users}


def main(arguments: Sequence[str] | None = None) -> int:
    """Bring the images of the cases that match patterns, as those of `python -m benchmarks --only`.

    Args:
        arguments: The patterns, each text split at its spaces; this process's if None. All cases if
            there are none.
    """
    texts = sys.argv[1:] if arguments is None else arguments
    cases = select_cases(CASES, [pattern for text in texts for pattern in text.split()])
    prepare(sorted(needed_datasets(cases, PRESETS)), data_folders(), OWN_DATA, PRESETS)
    return 0


def _make(folder: Path, content: Mapping[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    params = folder / "params.yaml"
    params.write_text(json.dumps(content, indent=2), encoding="utf-8")  # JSON is YAML
    for command in _stage_commands(folder, params):
        environment = {**os.environ, "DIPTYCH_TRACKING": "off"}
        done = subprocess.run(command, cwd=ROOT, env=environment, check=False)
        if done.returncode != 0:
            raise PreparationError(
                f"{folder}: {command[1]} must end with exit code 0 (got {done.returncode})"
            )


def _stage_commands(folder: Path, params: Path) -> Iterator[list[str]]:
    raw, processed = str(folder / "raw"), str(folder / "processed")
    read = ["--params", str(params), "--raw", raw]
    yield [sys.executable, "stages/download.py", *read]
    yield [sys.executable, "stages/preprocess.py", *read, "--processed", processed]


if __name__ == "__main__":
    run_command("benchmarks.prepare", main)

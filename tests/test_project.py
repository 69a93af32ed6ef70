"""dvc.yaml, params.yaml, MLproject, the lock and the Makefile say the same."""

import re
import shlex
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from diptych.params import read_yaml
from diptych.reports.results import BEGIN, END, results_table

ROOT = Path(__file__).parents[1]
STAGES: dict[str, dict[str, Any]] = read_yaml(ROOT / "dvc.yaml")["stages"]
PARAMS = read_yaml(ROOT / "params.yaml")
ENTRY_POINTS: dict[str, dict[str, Any]] = read_yaml(ROOT / "MLproject")["entry_points"]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
each_stage = pytest.mark.parametrize("stage", STAGES)


def paths_with_options(stage: str, *keys: str) -> dict[str, dict[str, Any]]:
    """The paths under some keys of a stage, each with its options, as DVC writes both forms."""
    entries = [entry for key in keys for entry in STAGES[stage].get(key, [])]
    return {
        path: options
        for entry in entries
        for path, options in (entry if isinstance(entry, dict) else {entry: {}}).items()
    }


def written_by(stage: str) -> dict[str, dict[str, Any]]:
    return paths_with_options(stage, "outs", "metrics", "plots")


def paths_in_command(stage: str) -> set[str]:
    return {word for word in shlex.split(STAGES[stage]["cmd"])[1:] if not word.startswith("--")}


def holds(folder: str, path: str) -> bool:
    return Path(path).is_relative_to(folder)


def text_files() -> Iterator[tuple[str, str]]:
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    for name in filter(None, listed.stdout.split("\0")):
        try:
            yield name, (ROOT / name).read_text(encoding="utf-8")
        except (UnicodeDecodeError, FileNotFoundError):
            continue


def is_ignored_by_git(path: str) -> bool:
    return (
        subprocess.run(["git", "check-ignore", "-q", path], cwd=ROOT, check=False).returncode == 0
    )


def test_stages_are_the_files_and_the_entry_points() -> None:
    files = {path.stem for path in (ROOT / "stages").glob("*.py")}
    assert set(STAGES) == files
    assert set(STAGES) | {"main"} == set(ENTRY_POINTS)


@each_stage
def test_mlproject_runs_what_dvc_runs(stage: str) -> None:
    entry = ENTRY_POINTS[stage]
    defaults = {name: parameter["default"] for name, parameter in entry["parameters"].items()}
    command = entry["command"].removeprefix("PYTHONPATH=src ")
    assert command.format(**defaults) == STAGES[stage]["cmd"]
    assert set(re.findall(r"{(\w+)}", command)) == set(defaults)


def test_main_entry_point_is_dvc_repro() -> None:
    assert ENTRY_POINTS["main"]["command"].removeprefix("PYTHONPATH=src ") == "dvc repro"


@each_stage
def test_params_of_a_stage_exist(stage: str) -> None:
    for key in STAGES[stage]["params"]:
        value: Any = PARAMS
        for part in key.split("."):
            assert part in value, f"{key} is not in params.yaml"
            value = value[part]


def test_every_section_of_params_is_some_stages_or_decides_no_output() -> None:
    used = {key.split(".")[0] for stage in STAGES.values() for key in stage["params"]}
    assert set(PARAMS) == used | {"checkpoints", "promotion"}


@each_stage
def test_paths_in_a_command_are_deps_or_outs(stage: str) -> None:
    known = {*STAGES[stage]["deps"], *written_by(stage)}
    strangers = {
        path
        for path in paths_in_command(stage) - {"params.yaml"}
        if not any(holds(path, one) for one in known)
    }
    assert strangers == set()


@each_stage
def test_deps_and_outs_are_in_the_command(stage: str) -> None:
    data_deps = {dep for dep in STAGES[stage]["deps"] if not dep.startswith("src/")}
    unheard_of = {
        path
        for path in data_deps | set(written_by(stage))
        if not any(holds(named, path) for named in paths_in_command(stage))
    }
    assert unheard_of == set()


@each_stage
def test_no_parameter_is_pasted_into_a_shell(stage: str) -> None:
    assert "${" not in STAGES[stage]["cmd"]


@each_stage
def test_git_holds_what_dvc_does_not_and_nothing_else(stage: str) -> None:
    for path, options in written_by(stage).items():
        assert is_ignored_by_git(path) == options.get("cache", True), path


def test_an_experiment_leaves_the_rest_of_params_as_it_is(tmp_path: Path) -> None:
    """`dvc exp run -S` writes the file anew, in its own form: list items stand in their key's
    column, and comments beside them and blank lines after them are lost.
    """
    from dvc.utils.hydra import apply_overrides

    copy = tmp_path / "params.yaml"
    shutil.copy(ROOT / "params.yaml", copy)
    apply_overrides(copy, [f"preprocess.seed={PARAMS['preprocess']['seed']}"])
    assert copy.read_text(encoding="utf-8") == (ROOT / "params.yaml").read_text(encoding="utf-8")


def test_no_registry_is_named() -> None:
    hosts = [
        ".".join(parts)
        for parts in [
            ("pypi", "org"),
            ("python" + "hosted", "org"),
            ("download", "pytorch", "org"),
            ("npmjs", "org"),
            ("deb", "debian", "org"),
            ("anaconda", "org"),
        ]
    ]
    named = [f"{name}: {host}" for name, text in text_files() for host in hosts if host in text]
    assert named == []


def locked() -> dict[str, str]:
    """Version of each pinned package, by its canonical name."""
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    return dict(re.findall(r"^([a-z0-9-]+)==([^ ;]+)", lock, flags=re.MULTILINE))


def test_the_lock_holds_what_pyproject_asks_for() -> None:
    wanted = [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["dev"]]
    versions = locked()
    for requirement in map(Requirement, wanted):
        version = versions.get(canonicalize_name(requirement.name))
        assert version is not None, f"{requirement} is not locked: run `make lock`"
        assert requirement.specifier.contains(version), f"{requirement} is locked at {version}"


def test_the_lock_pins_by_hash_and_records_no_address() -> None:
    lock = (ROOT / "requirements.lock").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert len(entries) >= len(locked()) > 100
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in lock


def test_readme_shows_the_figures_of_metrics() -> None:
    """What the last run made and what README says; `make repro results` brings them together."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    block = readme.split(f"{BEGIN}\n")[1].split(f"\n{END}")[0]
    machine = block.splitlines()[-1]
    assert block == results_table(ROOT / "metrics", machine)
    assert "torch" in machine


def test_readme_sets_parameters_that_exist() -> None:
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    settings = re.findall(r"-S (\w+)\.(\w+)=\S", readme)
    assert len(settings) > 10
    assert [".".join(one) for one in settings if one[1] not in PARAMS.get(one[0], {})] == []


def test_help_shows_every_target() -> None:
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (phony,) = re.findall(r"^\.PHONY: (.*)$", makefile, flags=re.MULTILINE)
    make = shutil.which("make")
    assert make is not None
    shown = subprocess.run([make, "help"], cwd=ROOT, check=True, capture_output=True, text=True)
    assert re.findall(r"^  make ([a-z-]+)", shown.stdout, flags=re.MULTILINE) == phony.split()

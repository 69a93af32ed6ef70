"""The bundle, where nothing is installed but torch, numpy, pydantic and what these need."""

import importlib.metadata
import json
import os
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from benchmarks.bundle import write_bundle
from benchmarks.machine import git_commit

ROOT = Path(__file__).parents[2]
INSTALLED = ("torch", "numpy", "pydantic")
BUNDLED = ("benchmarks", "diptych", "jaxtyping", "ruamel", "wadler_lindig")

# Python imports a module of this name first of all, in every process that finds it on its path.
FEW_PACKAGES = """\
import sys
from importlib.machinery import PathFinder

BLOCKED, FORBIDDEN = {blocked!r}, {forbidden!r}


class FewPackages(PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        if path is None and name in BLOCKED:
            path = [one for one in sys.path if one and not one.startswith(FORBIDDEN)]
        return PathFinder.find_spec(name, path, target)


sys.meta_path[sys.meta_path.index(PathFinder)] = FewPackages
"""


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("bundle") / "bench.pyz"
    write_bundle(path)
    return path


@pytest.fixture
def bare_machine(tmp_path: Path) -> dict[str, str]:
    """The environment of processes that import nothing else of what is installed here."""
    (tmp_path / "sitecustomize.py").write_text(
        FEW_PACKAGES.format(
            blocked=set(not_on_a_bare_machine()), forbidden=(str(ROOT), sys.prefix)
        ),
        encoding="utf-8",
    )
    return {**os.environ, "PYTHONPATH": str(tmp_path)}


def not_on_a_bare_machine() -> Iterator[str]:
    there = with_requirements(INSTALLED)
    for module, names in importlib.metadata.packages_distributions().items():
        if not any(canonicalize_name(name) in there for name in names):
            yield module
    yield from BUNDLED


def with_requirements(names: tuple[str, ...]) -> set[str]:
    """Canonical names of packages and of all that they require, as far as it is installed."""
    found: set[str] = set()
    open_names = [canonicalize_name(name) for name in names]
    while open_names:
        name = open_names.pop()
        if name in found:
            continue
        try:
            texts = importlib.metadata.requires(name) or []
        except importlib.metadata.PackageNotFoundError:
            continue
        found.add(name)
        wanted = map(Requirement, texts)
        open_names += [
            canonicalize_name(one.name)
            for one in wanted
            if one.marker is None or one.marker.evaluate({"extra": ""})
        ]
    return found


@pytest.mark.parametrize("module", ["mlflow", "typer", "pandas", "tqdm", "jaxtyping"])
def test_a_bare_machine_lacks_the_rest(bare_machine, tmp_path, module):
    done = subprocess.run(
        [sys.executable, "-c", f"import {module}"],
        cwd=tmp_path,
        env=bare_machine,
        capture_output=True,
        text=True,
    )
    assert f"No module named '{module}'" in done.stderr


def test_a_bundle_measures_on_a_bare_machine(bundle, bare_machine, tmp_path, presets, processed):
    command = [sys.executable, str(bundle), "--only", "cnn/default", "overheads/*", "--seeds", "1"]
    done = subprocess.run(
        [*command, "--data", str(processed), "--presets", str(presets)],
        cwd=tmp_path,
        env=bare_machine,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert "| default | " in done.stdout
    assert "overheads/startup: not measured: needs dvc and mlflow" in done.stderr
    (path,) = (tmp_path / "results").glob("*.json")
    (name, case), *others = json.loads(path.read_text(encoding="utf-8"))["cases"].items()
    assert (name, others) == ("cnn/default", [])
    assert case["measurements"][0]["git_commit"] == git_commit(ROOT)


def test_a_bundle_holds_all_presets_and_no_results(bundle):
    names = set(zipfile.ZipFile(bundle).namelist())
    presets = {f"presets/{path.name}" for path in (ROOT / "presets").glob("*.yaml")}
    assert presets | {"params.yaml", "COMMIT"} <= names
    assert not {
        name for name in names if name.startswith(("benchmarks/results/", "src/diptych/tr"))
    }

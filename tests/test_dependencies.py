"""Who may import whom, and what a stage depends on: read from the source, nothing is imported."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from diptych.params import read_yaml

ROOT = Path(__file__).parents[1]
CORE = {"cnn", "vae", "images", "optimization"}
EDGE = {"tracking", "reports", "checkpoints", "stage", "cli"}
HEAVY = {"mlflow", "dvc", "safetensors", "pandas", "matplotlib"}


@dataclass(frozen=True)
class Import:
    """One imported name. A unit is a folder or a module of the library, or `stages`."""

    place: str
    unit: str
    module: str
    runs_at_import: bool

    @property
    def target(self) -> str:
        """The top-level package, or `diptych.<unit>`."""
        parts = self.module.split(".")
        return ".".join(parts[:2]) if parts[0] == "diptych" else parts[0]


@dataclass(frozen=True)
class Ban:
    """No unit among the importers may import any of the targets."""

    importers: frozenset[str]
    targets: frozenset[str]

    def forbids(self, found: Import) -> bool:
        return found.unit in self.importers and found.target in self.targets


def bans(units: set[str]) -> list[Ban]:
    """The direction of imports."""
    rules = [
        (CORE, HEAVY | {f"diptych.{unit}" for unit in EDGE}),
        ({"cnn"}, {"diptych.vae"}),
        ({"vae"}, {"diptych.cnn"}),
        (units - {"tracking"}, {"mlflow"}),
        (units - {"params"}, {"yaml", "ruamel"}),
        (units - {"stages"}, {"stages"}),
    ]
    return [Ban(frozenset(importers), frozenset(targets)) for importers, targets in rules]


def imports_in(root: Path, path: Path) -> Iterator[Import]:
    parts = path.relative_to(root).with_suffix("").parts
    names = parts[1:] if parts[0] == "src" else parts
    unit = names[1] if names[0] == "diptych" else names[0]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    at_import = set(_nodes_run_at_import(tree))
    for node in ast.walk(tree):
        for module in _imported(node, package=names[:-1]):
            place = f"{path.relative_to(root)}:{getattr(node, 'lineno', 0)}"
            yield Import(place, unit, module, node in at_import)


def _nodes_run_at_import(node: ast.AST) -> Iterator[ast.AST]:
    yield node
    for child in ast.iter_child_nodes(node):
        is_called_later = isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
        if not is_called_later and not _is_for_type_checkers(child):
            yield from _nodes_run_at_import(child)


def _is_for_type_checkers(node: ast.AST) -> bool:
    return isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"


def _imported(node: ast.AST, package: tuple[str, ...]) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        above = package[: len(package) + 1 - node.level] if node.level else ()
        return [".".join([*above, *filter(None, [node.module]), a.name]) for a in node.names]
    return []


def violations(root: Path) -> list[str]:
    files = sorted([*root.glob("src/diptych/**/*.py"), *root.glob("stages/*.py")])
    found = [one for path in files for one in imports_in(root, path)]
    rules = bans({one.unit for one in found})
    wrong = [
        f"{one.place}: {one.unit} imports {one.module}"
        for one in found
        if any(rule.forbids(one) for rule in rules)
    ]
    eager = [
        f"{one.place}: mlflow is imported at module level"
        for one in found
        if one.target == "mlflow" and one.runs_at_import
    ]
    return wrong + eager


def library_deps(root: Path, stage: str) -> set[str]:
    """The stage's file and all of the library that it imports, transitively, save by tracking."""
    script = root / "stages" / f"{stage}.py"
    deps, open_files = {f"stages/{stage}.py"}, [script]
    while open_files:
        for one in imports_in(root, open_files.pop()):
            if one.target.split(".")[0] != "diptych" or one.target == "diptych.tracking":
                continue
            place = _place_of(root, one.target)
            dep = place.relative_to(root).as_posix()
            if dep not in deps:
                deps.add(dep)
                open_files += sorted(place.rglob("*.py")) if place.is_dir() else [place]
    return deps


def _place_of(root: Path, target: str) -> Path:
    package = root / "src" / "diptych"
    name = target.removeprefix("diptych").removeprefix(".")
    if name and (package / name).is_dir():
        return package / name
    module = package / f"{name}.py"
    return module if name and module.is_file() else package / "__init__.py"


def declared_deps(root: Path, stage: str) -> set[str]:
    deps = read_yaml(root / "dvc.yaml")["stages"][stage]["deps"]
    return {dep for dep in deps if dep.startswith(("src/", "stages/"))}


def write(root: Path, files: dict[str, str]) -> None:
    for name, content in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content, encoding="utf-8")


def test_imports_point_in_one_direction() -> None:
    assert violations(ROOT) == []


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("src/diptych/cnn/model.py", "from diptych.vae.model import Vae"),
        ("src/diptych/vae/model.py", "import diptych.cnn"),
        ("src/diptych/vae/train.py", "from diptych import tracking"),
        ("src/diptych/vae/train.py", "from ..tracking import runs"),
        ("src/diptych/images/idx.py", "from diptych.reports.grids import grid"),
        ("src/diptych/optimization/progress.py", "from diptych.checkpoints import save_model"),
        ("src/diptych/cnn/train.py", "from safetensors.torch import save"),
        ("src/diptych/reports/curves.py", "def f():\n    import mlflow"),
        ("stages/train_cnn.py", "def f():\n    import mlflow.pytorch"),
        ("src/diptych/tracking/runs.py", "import mlflow"),
        ("src/diptych/tracking/runs.py", "class A:\n    from mlflow import MlflowClient"),
        ("src/diptych/files.py", "from ruamel.yaml import YAML"),
        ("src/diptych/cli.py", "from stages.download import main"),
    ],
)
def test_a_forbidden_import_is_reported(tmp_path: Path, file: str, line: str) -> None:
    write(tmp_path, {file: f"{line}\n"})
    (report,) = violations(tmp_path)
    assert report.startswith(f"{file}:{1 + line.count(chr(10))}: ")


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("src/diptych/cnn/train.py", "from diptych.optimization.progress import EpochReport"),
        ("src/diptych/cnn/train.py", "from .params import CnnParams"),
        ("src/diptych/tracking/runs.py", "def f():\n    import mlflow"),
        ("src/diptych/tracking/runs.py", "if TYPE_CHECKING:\n    import mlflow"),
        ("src/diptych/params.py", "from ruamel.yaml import YAML"),
        ("stages/train_cnn.py", "from diptych.tracking import runs"),
    ],
)
def test_a_rightful_import_is_not_reported(tmp_path: Path, file: str, line: str) -> None:
    write(tmp_path, {file: f"{line}\n"})
    assert violations(tmp_path) == []


@pytest.mark.parametrize("stage", read_yaml(ROOT / "dvc.yaml")["stages"])
def test_deps_of_a_stage_are_what_it_imports(stage: str) -> None:
    assert declared_deps(ROOT, stage) == library_deps(ROOT, stage)


def test_deps_are_transitive_by_whole_folders_and_leave_tracking_out(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "stages/train.py": "from diptych import cnn\nfrom diptych.tracking import runs\n",
            "src/diptych/__init__.py": "",
            "src/diptych/cnn/__init__.py": "",
            "src/diptych/cnn/train.py": "def f():\n    from diptych.files import write_json\n",
            "src/diptych/files.py": "from diptych import __doc__\n",
            "src/diptych/tracking/runs.py": "import diptych.fingerprints\n",
            "src/diptych/fingerprints.py": "",
        },
    )
    assert library_deps(tmp_path, "train") == {
        "stages/train.py",
        "src/diptych/cnn",
        "src/diptych/files.py",
        "src/diptych/__init__.py",
    }

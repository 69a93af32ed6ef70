"""B3: every command says in one line which file or name is wrong."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import product
from pathlib import Path

import pytest

from diptych.cli import app
from diptych.tracking.store import initialise_database
from tests.faults.commands import (
    end_of_diptych,
    end_of_stage,
    paths_of,
    sample,
    without_rights,
)
from tests.faults.tiers import trials
from tests.stages.conftest import ROOT, STAGES, outputs_of, run_stage, write_images, write_params

TRAININGS = ("train_cnn", "train_vae")


def remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def swap(path: Path) -> None:
    """Put a folder for a file, or a file for a folder or nothing."""
    is_file = path.is_file() or (path.suffix != "" and not path.exists())
    remove(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    if is_file:
        path.mkdir()
    else:
        path.write_text("no folder")


def empty(path: Path) -> None:
    is_folder = path.is_dir()
    remove(path)
    if is_folder:
        path.mkdir()
    else:
        path.write_text("")


def forbid(path: Path) -> None:
    path.chmod(0)


def point_to_itself(path: Path) -> None:
    remove(path)
    path.symlink_to(path.name)


def forbid_the_folder(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.parent.chmod(0o555)


def put_a_file_for_its_folder(path: Path) -> None:
    remove(path.parent)
    path.parent.write_text("no folder")


INPUT_DAMAGES = (remove, swap, empty, forbid, point_to_itself)
OUTPUT_DAMAGES = (swap, forbid_the_folder, put_a_file_for_its_folder)


@dataclass(frozen=True, slots=True)
class Case:
    stage: str
    option: str
    damage: Callable[[Path], None]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small project behind its trainings, with a raw folder and no source. Not to change."""
    folder = tmp_path_factory.mktemp("trained")
    write_params(folder, {"dataset": {"sources": ["/nonexistent/source"]}})
    write_images(folder, (1, 12, 12))
    (folder / "data" / "raw").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DIPTYCH_TRACKING", "off")
        for stage in TRAININGS:
            run_stage(folder, stage)
    return folder


@pytest.fixture
def copied(trained: Path, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Make a fresh copy at the same place."""
    place = tmp_path / "project"

    def clear() -> None:
        if place.exists():
            for path in (place, *(one for one in place.rglob("*") if one.is_dir())):
                path.chmod(0o755)
            shutil.rmtree(place)

    def copy() -> Path:
        clear()
        return shutil.copytree(trained, place)

    yield copy
    clear()


def input_cases() -> list[Case]:
    options = [
        (stage, option)
        for stage in STAGES
        for option, path in paths_of(stage).items()
        if path not in outputs_of(stage)
    ]
    return [
        Case(stage, option, damage) for (stage, option), damage in product(options, INPUT_DAMAGES)
    ]


def output_cases() -> list[Case]:
    # What the first two need are the published files.
    options = [
        (stage, option)
        for stage in list(STAGES)[2:]
        for option, path in paths_of(stage).items()
        if path in outputs_of(stage)
    ]
    cases = [
        Case(stage, option, damage) for (stage, option), damage in product(options, OUTPUT_DAMAGES)
    ]
    # A model that stands for the folder of both is an input's damage.
    return [
        case
        for case in cases
        if not (
            case.damage is put_a_file_for_its_folder
            and paths_of(case.stage)[case.option].parent in (Path(), Path("models"))
        )
    ]


def test_each_stage_names_the_input_that_is_wrong(promise, copied):
    cases, num_survived = sample(input_cases(), trials(quick=30, full=1000)), 0
    for case in cases:
        folder = copied()
        path = paths_of(case.stage)[case.option]
        case.damage(folder / path)
        with without_rights():
            ended = end_of_stage(folder, case.stage)
        # No raw file is trusted, no source is there: these two are refused for that as well.
        named = () if case.option == "--raw" else (str(path),)
        if ended.is_refusal(f"{case.stage}: ", *named):
            num_survived += 1
        else:
            print(case, ended)
    promise("B3", "stages, inputs", len(cases), num_survived)


def test_each_stage_names_the_output_that_cannot_be_written(promise, copied):
    cases, num_survived = sample(output_cases(), trials(quick=8, full=1000)), 0
    for case in cases:
        folder = copied()
        path = paths_of(case.stage)[case.option]
        case.damage(folder / path)
        with without_rights():
            ended = end_of_stage(folder, case.stage)
        if ended.last_line_is_refusal(f"{case.stage}: ", path.parts[0]):
            num_survived += 1
        else:
            print(case, ended)
    promise("B3", "stages, outputs", len(cases), num_survived)


UNKNOWN = (
    ("nonsense",),
    ("--nonsense",),
    ("results",),
    ("results", "--readme", "none.md", "--metrics", "none"),
    ("results", "--readme", "README.md", "--metrics", "params.yaml"),
    ("preset",),
    ("preset", "nonsense"),
    ("preset", "../params"),
    ("preset", "tiny", "--params", "none.yaml"),
    ("preset", "tiny", "--params", "presets"),
    ("preset", "tiny", "--presets", "none"),
    ("preset", "tiny", "--presets", "params.yaml"),
    ("presets", "--params", "none.yaml"),
    ("presets", "--presets", "none"),
    ("promote",),
    ("promote", "nonsense"),
    ("promote", "cnn", "--params", "none.yaml"),
    ("promote", "cnn", "--params", "presets"),
    ("promote", "cnn", "--expect-champion", "best"),
    ("rollback", "nonsense"),
    ("rollback", "cnn", "--params", "none.yaml"),
    ("status", "--params", "none.yaml"),
    ("history", "nonsense"),
    ("history", "cnn", "--params", "none.yaml"),
    ("lineage",),
    ("lineage", ""),
    ("lineage", "a/b/c@@"),
    ("serve", "nonsense"),
    ("serve", "--params", "none.yaml"),
    ("serve", "--port", "0"),
    ("ui", "--port", "99999"),
    ("ui", "--port", "http"),
    ("seeds",),
    ("seeds", "--num", "0"),
    ("seeds", "--num", "two"),
    ("repro",),  # in a folder that is no project of DVC
    ("verify", "nonsense"),
    ("sync", "nonsense"),
    ("reap", "nonsense"),
    ("doctor", "nonsense"),
)
"""Command lines of which a file, a number or a name is wrong."""

NEED_A_STORE = (
    ("promote", "cnn"),
    ("promote", "cnn", "--run", "nonsense"),
    ("rollback", "cnn"),
    ("lineage", "diptych-cnn@champion"),
    ("lineage", "diptych-cnn@nobody"),
    ("lineage", "diptych-cnn/7"),
    ("lineage", "nonsense"),
    ("serve", "cnn"),
)
"""Names that neither a store without models has, nor one that is not there."""


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project that has not run yet."""
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "DVC_ROOT", "DVC_STAGE"):
        monkeypatch.delenv(name, raising=False)
    for name in ("params.yaml", "README.md", "dvc.yaml"):
        shutil.copy(ROOT / name, tmp_path)
    shutil.copytree(ROOT / "presets", tmp_path / "presets")
    return tmp_path


def num_refusals(home: Path, command_lines: tuple[tuple[str, ...], ...], *named: str) -> int:
    """Count the command lines that end in one line, which names all this, with exit code 2."""
    num_survived = 0
    for words in command_lines:
        ended = end_of_diptych(home, *words)
        if ended.is_refusal("diptych: ", *named):
            num_survived += 1
        else:
            print(words, ended)
    return num_survived


def test_the_diptych_command_says_what_is_wrong(promise, home):
    promise("B3", "`diptych`", len(UNKNOWN), num_refusals(home, UNKNOWN))


def test_every_subcommand_refuses_an_option_that_it_has_not(promise, home):
    names = [
        command.name or getattr(command.callback, "__name__", "").replace("_", "-")
        for command in app.registered_commands
    ]
    lines = tuple((name, "--nonsense") for name in names)
    promise("B3", "unknown options", len(lines), num_refusals(home, lines))


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_names_that_are_not_registered_are_one_line(promise, home):
    before = sorted(home.iterdir())
    num_survived = num_refusals(home, NEED_A_STORE)
    assert sorted(home.iterdir()) == before, "a question makes no store"
    initialise_database(home / "mlflow.db", home / "mlartifacts")
    num_survived += num_refusals(home, NEED_A_STORE)
    promise("B3", "unknown aliases, versions, runs", 2 * len(NEED_A_STORE), num_survived)


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_a_damaged_database_is_one_line(promise, home):
    every = (("reap",), ("status",), ("history", "cnn"), *NEED_A_STORE)
    lines = every[: trials(quick=3, full=len(every), soak=len(every))]
    database = home / "mlflow.db"
    initialise_database(database, home / "mlartifacts")
    whole = database.read_bytes()
    damages = (b"no database" * 1000, whole[: len(whole) // 2], whole[:5000])
    num_survived = 0
    for content in damages:
        database.write_bytes(content)
        num_survived += num_refusals(home, lines, "mlflow.db: ")
    promise("B3", "a damaged mlflow.db", len(damages) * len(lines), num_survived)


NO_YAML = (b"\xff\xfe\0", b"stages: [", b"- 1\n", b"")
NO_PIPELINES = (*NO_YAML, b"stages: [1]\n", b"stages: {a: 1}\n", b"stages: {a: {deps: [b]}}\n")


def test_a_damaged_pipeline_is_one_line(promise, home):
    (home / ".dvc").mkdir()
    (home / ".dvc" / "config").write_text("[core]\n    no_scm = true\n")
    shutil.copy(ROOT / "dvc.lock", home)
    lines = (("verify",), ("seeds", "--num", "1"))
    num_survived = 0
    for content in NO_PIPELINES:
        (home / "dvc.yaml").write_bytes(content)
        num_survived += num_refusals(home, lines, "dvc.yaml: ")
    shutil.copy(ROOT / "dvc.yaml", home)
    for content in NO_YAML:
        (home / "dvc.lock").write_bytes(content)
        num_survived += num_refusals(home, lines[:1], "dvc.lock: ")
    num = len(NO_PIPELINES) * len(lines) + len(NO_YAML)
    promise("B3", "a damaged dvc.yaml or dvc.lock", num, num_survived)


def test_a_params_file_that_is_not_there_is_one_line(promise, home):
    words = ("sync", "reap", "ui", "serve", "doctor", "status", "history", "promote", "rollback")
    of_models = ("history", "promote", "rollback")
    lines = tuple(
        (word, *(["cnn"] if word in of_models else []), "--params", "none.yaml") for word in words
    )
    promise("B3", "no params.yaml", len(lines), num_refusals(home, lines, "none.yaml"))


def test_a_folder_instead_of_a_database_is_one_line(promise, home):
    (home / "mlflow.db").mkdir()
    lines = (("reap",), ("status",), ("history", "cnn"), *NEED_A_STORE)
    promise("B3", "a folder mlflow.db", len(lines), num_refusals(home, lines, "mlflow.db: "))


def test_a_folder_without_permission_is_one_line(promise, home):
    (home / "params.yaml").chmod(0)
    (home / "presets").chmod(0)
    with without_rights():
        lines = (("presets",), ("preset", "tiny"), ("promote", "cnn"), ("serve",))
        num_survived = num_refusals(home, lines)
        (home / "params.yaml").chmod(0o644)
        num_survived += num_refusals(home, lines[:2])
    (home / "presets").chmod(0o755)
    promise("B3", "`diptych` without permission", len(lines) + 2, num_survived)

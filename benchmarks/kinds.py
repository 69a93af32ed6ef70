"""How each kind of case is measured, and what its figures depend on."""

import ast
import hashlib
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch

from benchmarks import latency, overheads, roofline, trainings
from benchmarks.cases import Case
from benchmarks.machine import pinned_versions, versions_of
from benchmarks.results import Conditions
from benchmarks.settings import ROOT, Setting, UnavailableError, description_of
from diptych.images.arrays import load_description
from diptych.optimization.compute import set_up_compute

Measure = Callable[[Setting], Mapping[str, float]]


@dataclass(frozen=True, slots=True)
class Kind:
    """What cases of one kind have in common.

    Attributes:
        measure: Takes the figures of one seed.
        sections: Of params.yaml, that the figures depend on.
        code: Files and folders under the project's root that they depend on.
        packages: That must be installed, and whose versions they depend on.
    """

    measure: Measure
    sections: tuple[str, ...]
    code: tuple[str, ...]
    packages: tuple[str, ...] = ("numpy", "torch")


def _measure_peers(setting: Setting) -> Mapping[str, float]:
    _require_peers()
    from benchmarks.peers import run_peers

    return run_peers(setting)


def _measure_novelty(setting: Setting) -> Mapping[str, float]:
    # Imports what evaluates pairs, which no bundle's machine need have.
    from benchmarks.novelty import measure_novelty

    return measure_novelty(setting)


def _measure_checkpoints(family: str) -> Measure:
    def measure(setting: Setting) -> Mapping[str, float]:
        # Imports what writes checkpoints, which no bundle's machine need have.
        from benchmarks import checkpointing

        figures: Mapping[str, float] = getattr(checkpointing, f"measure_{family}")(setting)
        return figures

    return measure


# Not what downloads and splits images: the data's digest tells all that it does.
_SHARED = ("src/diptych/images/batches.py", "src/diptych/optimization")
_CNN = ("src/diptych/cnn", *_SHARED)
_VAE = ("src/diptych/vae", *_SHARED)
_PAIR = (*_CNN, "src/diptych/vae", "src/diptych/pair", "src/diptych/novelty.py")
_SERVING = tuple(f"src/diptych/tracking/{name}.py" for name in ("packing", "served", "serving"))
_CHECKPOINTING = (
    *(f"src/diptych/{name}.py" for name in ("checkpoints", "files", "resuming")),
    "benchmarks/checkpointing.py",
)
_CHECKPOINTING_PACKAGES = ("numpy", "psutil", "safetensors", "torch")
_CLOCK = "benchmarks/trainings.py"
_PEERS = ("keras", "tensorflow-cpu")
_PEERS_LOCK = ROOT / "requirements-peers.lock"  # what `make bench-peers` installs, and no more
_FULL = ("dvc", "mlflow", "numpy", "torch")

KINDS: Mapping[str, Kind] = {
    "cnn": Kind(trainings.measure_cnn, ("compute", "train_cnn"), (*_CNN, _CLOCK)),
    "vae": Kind(trainings.measure_vae, ("compute", "train_vae"), (*_VAE, _CLOCK)),
    "roofline_cnn": Kind(
        roofline.measure_cnn,
        ("compute", "train_cnn"),
        (*_CNN, "benchmarks/roofline.py", _CLOCK),
    ),
    "roofline_vae": Kind(
        roofline.measure_vae,
        ("compute", "train_vae"),
        (*_VAE, "benchmarks/roofline.py", _CLOCK),
    ),
    "latency": Kind(
        latency.measure_latency,
        ("compute", "train_cnn"),
        (*_CNN, "benchmarks/latency.py", _CLOCK),
    ),
    "pair_latency": Kind(
        latency.measure_pair_latency,
        ("compute", "pair", "train_cnn", "train_vae"),
        (*_PAIR, *_SERVING, "benchmarks/latency.py", _CLOCK),
        ("mlflow", "numpy", "torch"),
    ),
    "startup": Kind(
        overheads.measure_startup, (), ("src", "stages", "benchmarks/overheads.py"), _FULL
    ),
    "pipeline": Kind(
        overheads.measure_pipeline, (), ("src", "stages", "benchmarks/overheads.py"), _FULL
    ),
    "novelty": Kind(
        _measure_novelty,
        ("compute", "pair", "train_vae"),
        (
            *_VAE,
            "src/diptych/novelty.py",
            "src/diptych/evaluation/pair.py",
            "benchmarks/novelty.py",
            _CLOCK,
        ),
        ("numpy", "pandas", "torch"),
    ),
    "cnn_checkpoints": Kind(
        _measure_checkpoints("cnn"),
        ("checkpoints", "compute", "train_cnn"),
        (*_CNN, *_CHECKPOINTING, _CLOCK),
        _CHECKPOINTING_PACKAGES,
    ),
    "vae_checkpoints": Kind(
        _measure_checkpoints("vae"),
        ("checkpoints", "compute", "train_vae"),
        (*_VAE, *_CHECKPOINTING, _CLOCK),
        _CHECKPOINTING_PACKAGES,
    ),
    "peers": Kind(
        _measure_peers,
        ("compute", "train_cnn"),
        (*_CNN, "benchmarks/peers", _CLOCK),
    ),
}


def conditions_of(case: Case, setting: Setting) -> Conditions:
    """Return what must stay the same for seeds of a case to belong together.

    Raises:
        UnavailableError: when a package that the case needs is not installed.
        UserError: when the parameters do not fit the machine.
    """
    kind = KINDS[case.kind]
    missing = [package for package in kind.packages if find_spec(package) is None]
    if missing:
        raise UnavailableError(f"needs {' and '.join(missing)}")
    compute = set_up_compute(setting.compute())
    peers = _peer_versions() if case.kind == "peers" else {}
    return Conditions(
        fingerprint=_fingerprint(case, setting),
        num_threads=torch.get_num_threads(),
        precision=str(compute.dtype).removeprefix("torch."),
        versions=versions_of(kind.packages) | peers,
    )


def _peer_versions() -> dict[str, str]:
    _require_peers()
    return pinned_versions(_PEERS_LOCK, _PEERS)


def _require_peers() -> None:
    if find_spec("benchmarks.peers") is None:
        raise UnavailableError("needs benchmarks/peers, which no bundle holds")


def params_of(case: Case, content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the sections of params.yaml, whose content is given, that a case depends on."""
    return {section: content[section] for section in KINDS[case.kind].sections}


def code_digests(root: Path, places: tuple[str, ...]) -> dict[str, str]:
    """Return a sha256 for each Python file, of what it says apart from comments and docstrings.

    Args:
        root: The project's.
        places: Files and folders under it; a folder counts with all that is below.
    """
    return {
        path.relative_to(root).as_posix(): hashlib.sha256(_meaning(path).encode()).hexdigest()
        for place in places
        for path in _python_files(root / place)
    }


def _fingerprint(case: Case, setting: Setting) -> str:
    inputs: dict[str, Any] = {
        "kind": case.kind,
        "params": params_of(case, setting.content),
        "num_importance_samples": setting.num_importance_samples,
        "dataset": description_of(setting).digest,
        "code": code_digests(ROOT, KINDS[case.kind].code),
    }
    if case.kind == "novelty":
        inputs["others"] = [load_description(folder).digest for folder in setting.others]
    return hashlib.sha256(json.dumps(inputs, sort_keys=True).encode()).hexdigest()


def _python_files(place: Path) -> Iterator[Path]:
    yield from [place] if place.is_file() else sorted(place.rglob("*.py"))


def _meaning(path: Path) -> str:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree):
        body = getattr(node, "body", None)
        if isinstance(body, list):
            node.body = [one for one in body if not _is_text(one)]  # type: ignore[attr-defined]
    return ast.dump(tree)


def _is_text(statement: ast.stmt) -> bool:
    return (
        isinstance(statement, ast.Expr)
        and isinstance(statement.value, ast.Constant)
        and isinstance(statement.value.value, str)
    )

"""What is measured, and the figures to reach."""

import fnmatch
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from benchmarks.results import Limit, Processor

Kind = Literal[
    "cnn",
    "vae",
    "roofline_cnn",
    "roofline_vae",
    "latency",
    "pair_latency",
    "startup",
    "pipeline",
    "peers",
    "novelty",
    "cnn_checkpoints",
    "vae_checkpoints",
]


@dataclass(frozen=True, slots=True)
class Case:
    """One row of the tables: figures of one preset, over several seeds.

    Attributes:
        name: Its key in result files: a family, a slash, and what is special.
        kind: How it is measured.
        preset: Name of the parameters in presets/.
        num_seeds: By the protocol 10 trainings, 5 where one takes over 3 minutes, 3 where it takes
            over 15; of other cases the number of repetitions.
        cpu_seconds: One seed takes on 2 cores, about: for the time budget, until it is known.
        gpu_seconds: The same on a GPU.
        cpu_limits: To be reached on 2 CPU cores.
        gpu_limits: To be reached on one GPU.
        num_importance_samples: Per image, of an autoencoder's likelihood; 0 for other cases.
    """

    name: str
    kind: Kind
    preset: str
    num_seeds: int
    cpu_seconds: float
    gpu_seconds: float
    cpu_limits: tuple[Limit, ...] = ()
    gpu_limits: tuple[Limit, ...] = ()
    num_importance_samples: int = 0

    @property
    def family(self) -> str:
        """The part of the name before the slash."""
        return self.name.partition("/")[0]

    def limits(self, processor: Processor) -> tuple[Limit, ...]:
        """Return what is to be reached on a kind of machine."""
        return self.cpu_limits if processor == "cpu" else self.gpu_limits

    def expected_seconds(self, processor: Processor) -> float:
        """Return how long one seed takes, about, on a kind of machine."""
        return self.cpu_seconds if processor == "cpu" else self.gpu_seconds


def at_least(figure: str, value: float) -> Limit:
    """Return a lower limit of a figure's mean."""
    return Limit(figure=figure, statistic="mean", relation=">=", value=value)


def at_most(figure: str, value: float) -> Limit:
    """Return an upper limit of a figure's mean."""
    return Limit(figure=figure, statistic="mean", relation="<=", value=value)


def median_at_most(figure: str, value: float) -> Limit:
    """Return an upper limit of a figure's median."""
    return Limit(figure=figure, statistic="median", relation="<=", value=value)


_MINUTE = 60.0

_CLASSIFIERS = (
    Case(
        "cnn/default",
        "cnn",
        "default",
        num_seeds=10,
        cpu_seconds=35.0,
        gpu_seconds=12.0,
        cpu_limits=(at_least("accuracy", 0.9955), at_most("training_seconds", 25.0)),
        gpu_limits=(at_least("accuracy", 0.9955), at_most("training_seconds", 2.0)),
    ),
    Case(
        "cnn/fast",
        "cnn",
        "fast",
        num_seeds=10,
        cpu_seconds=15.0,
        gpu_seconds=10.0,
        cpu_limits=(at_least("accuracy", 0.9904), at_most("training_seconds", 5.0)),
        gpu_limits=(at_least("accuracy", 0.9904), at_most("training_seconds", 0.25)),
    ),
    Case(
        "cnn/tiny",
        "cnn",
        "tiny",
        num_seeds=10,
        cpu_seconds=2 * _MINUTE,
        gpu_seconds=15.0,
        cpu_limits=(at_least("accuracy", 0.9940), at_most("num_parameters", 7000.0)),
    ),
    Case("cnn/article", "cnn", "article", num_seeds=10, cpu_seconds=_MINUTE, gpu_seconds=40.0),
    Case(
        "cnn/quality",
        "cnn",
        "quality",
        num_seeds=3,
        cpu_seconds=20 * _MINUTE,
        gpu_seconds=70.0,
        cpu_limits=(
            at_least("accuracy", 0.9975),
            at_most("training_seconds", 20 * _MINUTE),
            at_most("nll_nats", 0.016),
            at_most("ece", 0.003),
        ),
        gpu_limits=(
            at_least("accuracy", 0.9980),
            at_most("training_seconds", 60.0),
            at_most("nll_nats", 0.016),
            at_most("ece", 0.003),
        ),
    ),
    Case(
        "cnn/fashion_quality",
        "cnn",
        "fashion_quality",
        num_seeds=3,
        cpu_seconds=25 * _MINUTE,
        gpu_seconds=100.0,
        cpu_limits=(
            at_least("accuracy", 0.945),
            at_most("num_parameters", 999_999.0),
            at_most("training_seconds", 25 * _MINUTE),
        ),
        gpu_limits=(at_least("accuracy", 0.954),),
    ),
)

_AUTOENCODERS = (
    Case(
        "vae/article",
        "vae",
        "article",
        num_seeds=10,
        cpu_seconds=_MINUTE,
        gpu_seconds=40.0,
        cpu_limits=(at_most("negative_elbo_nats", 150.0), at_most("training_seconds", 20.0)),
        num_importance_samples=1000,
    ),
    Case(
        "vae/default",
        "vae",
        "default",
        num_seeds=10,
        cpu_seconds=5 * _MINUTE,
        gpu_seconds=30.0,
        cpu_limits=(
            at_most("nll_nats", 89.0),
            at_most("training_seconds", 90.0),
            at_most("likelihood_seconds", 3 * _MINUTE),
        ),
        gpu_limits=(at_most("nll_nats", 87.0), at_most("training_seconds", 20.0)),
        num_importance_samples=1000,
    ),
    Case(
        "vae/quality",
        "vae",
        "quality",
        num_seeds=3,
        cpu_seconds=50 * _MINUTE,
        gpu_seconds=35 * _MINUTE,
        cpu_limits=(at_most("nll_nats", 83.5), at_most("training_seconds", 30 * _MINUTE)),
        gpu_limits=(at_most("nll_nats", 79.5), at_most("training_seconds", 30 * _MINUTE)),
        num_importance_samples=5000,
    ),
)

# Tracking may cost a stage 0.3 s or 3 % of its default training's time, whichever is larger: the
# trainings take 20 s and 60 s or more, as means over seeds, on the machines measured.
_TRACKING_SECONDS = {
    "download": 0.3,
    "preprocess": 0.3,
    "train_cnn": 0.03 * 20,
    "train_vae": 0.03 * 60,
    "evaluate": 0.3,
    "generate_samples": 0.3,
}

_ROOFLINES: tuple[tuple[str, Kind], ...] = (("cnn", "roofline_cnn"), ("vae", "roofline_vae"))
_PROFILES = (
    Case(
        "latency/cnn_default", "latency", "default", num_seeds=3, cpu_seconds=15.0, gpu_seconds=15.0
    ),
    Case(
        "latency/pair_default",
        "pair_latency",
        "default",
        num_seeds=3,
        cpu_seconds=1.5 * _MINUTE,
        gpu_seconds=1.5 * _MINUTE,
    ),
    *(
        Case(
            f"roofline/{family}_{preset}",
            kind,
            preset,
            num_seeds=3,
            cpu_seconds=seconds,
            gpu_seconds=30.0,
        )
        for preset, seconds in (("default", 30.0), ("quality", 90.0))
        for family, kind in _ROOFLINES
    ),
)

_OVERHEADS = (
    Case(
        "overheads/startup", "startup", "default", num_seeds=5, cpu_seconds=40.0, gpu_seconds=40.0
    ),
    Case(
        "overheads/pipeline",
        "pipeline",
        "default",
        num_seeds=5,
        cpu_seconds=2.5 * _MINUTE,
        gpu_seconds=2 * _MINUTE,
        cpu_limits=(
            *(
                median_at_most(f"{stage}_tracking_seconds", seconds)
                for stage, seconds in _TRACKING_SECONDS.items()
            ),
            median_at_most("idle_repro_beyond_dvc_seconds", 1.5),
        ),
    ),
)

_CHECKPOINTS: tuple[tuple[str, Kind, int, float], ...] = (
    ("cnn", "cnn_checkpoints", 3, 40.0),
    ("vae", "vae_checkpoints", 1, 4 * _MINUTE),
)
_INTERRUPTIONS = tuple(
    Case(
        f"checkpoints/{family}_default",
        kind,
        "default",
        num_seeds=num_seeds,
        cpu_seconds=seconds,
        gpu_seconds=30.0,
        cpu_limits=(at_most("share_of_training", 0.02),),
    )
    for family, kind, num_seeds, seconds in _CHECKPOINTS
)

_NOVELTY = (
    Case(
        "novelty/vae_default",
        "novelty",
        "default",
        num_seeds=3,
        cpu_seconds=5 * _MINUTE,
        gpu_seconds=30.0,
        cpu_limits=(
            at_least("fashion_mnist_auroc", 0.99),
            at_most("abstention_share", 0.015),
        ),
    ),
)

_PEERS = (
    Case(
        "peers/article",
        "peers",
        "brisk",
        num_seeds=5,
        cpu_seconds=5 * _MINUTE,
        gpu_seconds=3 * _MINUTE,
        cpu_limits=(at_least("diptych_accuracy", 0.9919), at_least("keras_over_diptych", 8.0)),
    ),
)

CASES = (
    *_CLASSIFIERS,
    *_AUTOENCODERS,
    *_NOVELTY,
    *_PEERS,
    *_OVERHEADS,
    *_INTERRUPTIONS,
    *_PROFILES,
)


def select_cases(cases: Sequence[Case], patterns: Sequence[str]) -> list[Case]:
    """Return the cases whose names match any of the shell-style patterns; all if there are none."""
    return [
        case
        for case in cases
        if not patterns or any(fnmatch.fnmatchcase(case.name, one) for one in patterns)
    ]

"""What a run tells the tracker, as plain data: it can be written down and replayed."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

INCOMPLETE_TAG = "diptych.incomplete"
"""Tag of a run that has told something that is not recorded; says why."""

Status = Literal["FINISHED", "FAILED", "KILLED"]
"""How a run ended; MLflow's words."""


@dataclass(frozen=True, slots=True)
class ParentRun:
    """The run of a whole pipeline execution, under which its stages hang.

    Attributes:
        run_id: A run that exists already and has an owner of its own, or None.
        execution: What every stage of one execution has in common; finds the run again.
        name: The run's name if it has to be created.
        params: Every parameter of the pipeline, under dotted keys.
        tags: Tags of the run if it has to be created.
    """

    run_id: str | None
    execution: str
    name: str
    params: Mapping[str, str]
    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class RunStarted:
    """A stage began; `parent` is None when it stands alone. The first event of a run."""

    name: str
    tags: Mapping[str, str]
    parent: ParentRun | None
    time_ms: int


@dataclass(frozen=True, slots=True)
class ParamsLogged:
    """Parameters of this stage, under dotted keys."""

    params: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class MetricsLogged:
    """Scalars that belong to one step, or to none."""

    metrics: Mapping[str, float]
    step: int | None
    time_ms: int


@dataclass(frozen=True, slots=True)
class SummaryLogged:
    """Headline figures, for this run and its parent."""

    metrics: Mapping[str, float]
    time_ms: int


@dataclass(frozen=True, slots=True)
class TagsSet:
    """Tags of this run."""

    tags: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ImageLogged:
    """A picture, as the bytes of a PNG file; a headline one is for this run's parent too."""

    key: str
    png: bytes
    step: int
    time_ms: int
    is_headline: bool = False


@dataclass(frozen=True, slots=True)
class FigureLogged:
    """The bytes of a PNG file, for a relative path among the run's artifacts."""

    path: str
    png: bytes


@dataclass(frozen=True, slots=True)
class ArtifactLogged:
    """A file or folder at an absolute path, for a folder of the run's artifacts."""

    path: str
    folder: str | None


@dataclass(frozen=True, slots=True)
class TableLogged:
    """A Parquet file at an absolute path, to be shown as a table."""

    path: str
    name: str


@dataclass(frozen=True, slots=True)
class ModelLogged:
    """A model's folder at an absolute path."""

    folder: str
    name: str


@dataclass(frozen=True, slots=True)
class DatasetLogged:
    """A data set that this run reads, for it and its parent.

    Attributes:
        name: The data set's.
        sha256: Identifies its images, labels and splits.
        source: The folder, as the stage was given it.
        num_images: Of each split.
        image_shape: Channels, height and width.
        context: What the run does with it.
    """

    name: str
    sha256: str
    source: str
    num_images: Mapping[str, int]
    image_shape: Sequence[int]
    context: str


@dataclass(frozen=True, slots=True)
class RunReused:
    """Another run made what this one stands for: it shows the same params, figures and models.

    Attributes:
        run_id: The other run, of the same store.
        is_headline: Whether its figures are the parent's too.
    """

    run_id: str
    is_headline: bool


@dataclass(frozen=True, slots=True)
class RunEnded:
    """The stage ended. The last event of a run."""

    status: Status
    time_ms: int


Event = (
    RunStarted
    | ParamsLogged
    | MetricsLogged
    | SummaryLogged
    | TagsSet
    | ImageLogged
    | FigureLogged
    | ArtifactLogged
    | TableLogged
    | ModelLogged
    | DatasetLogged
    | RunReused
    | RunEnded
)

EVENT_TYPES: tuple[type[Event], ...] = get_args(Event)
"""Every type of event."""

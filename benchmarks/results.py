"""A machine's result file: every figure of every seed, and what it was measured with."""

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError

from diptych.errors import UserError
from diptych.files import write_json

Processor = Literal["cpu", "gpu"]


class ResultFileError(UserError):
    """A result file is missing, unreadable or not what it should be."""


class Record(BaseModel):
    """Base of what a result file holds: frozen, strict, no unknown keys, finite numbers."""

    model_config = ConfigDict(frozen=True, strict=True, extra="forbid", allow_inf_nan=False)


class Limit(Record):
    """What a figure has to reach over its seeds."""

    figure: str
    """Name of the figure."""

    statistic: Literal["mean", "median"]
    """Over the seeds. Times that others on the machine disturb are judged by their median."""

    relation: Literal["<=", ">="]
    """Of the statistic to the value."""

    value: float
    """In the figure's unit."""

    def is_met_by(self, summary: "Summary") -> bool:
        """Tell whether the figure's summary reaches it."""
        reached = summary.mean if self.statistic == "mean" else summary.median
        return reached >= self.value if self.relation == ">=" else reached <= self.value


class Verdict(Record):
    """A limit, and whether it is met by the seeds measured."""

    limit: Limit
    met: bool


class Conditions(Record):
    """What must stay the same for seeds to belong together."""

    fingerprint: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
    """The sha256 of the code, the parameters and the data set's digest."""

    num_threads: Annotated[int, Field(ge=1)]
    """CPU threads."""

    precision: str
    """Of matrix products and convolutions: float32 or bfloat16."""

    versions: dict[str, str]
    """Of Python and of the packages that compute."""


class Measurement(Record):
    """One seed, measured in a process of its own."""

    seed: Annotated[int, Field(ge=0)]
    """Seed of a training; number of a repetition of what has no seed."""

    figures: dict[str, int | float]
    """By names that carry unit and reduction."""

    wall_seconds: Annotated[float, Field(ge=0)]
    """Of the whole process, imports included: what a time budget is spent on."""

    git_commit: str
    """Of the code, with `-dirty` when it had changes that were not committed."""


class Summary(Record):
    """A figure over all seeds measured."""

    num_seeds: Annotated[int, Field(ge=1)]
    mean: float
    standard_deviation: float | None
    """Of the seeds, with the n - 1 divisor; None for a single one."""
    median: float
    minimum: float
    maximum: float


class CaseResult(Record):
    """One case on one machine."""

    preset: str
    """Name of the parameters."""

    params: dict[str, JsonValue]
    """The sections used, as they were; the seed is each measurement's."""

    dataset: str
    """Name of the images."""

    num_seeds_planned: Annotated[int, Field(ge=1)]
    """By the protocol."""

    conditions: Conditions
    measurements: Annotated[tuple[Measurement, ...], Field(min_length=1)]
    """In the order of their seeds."""

    summary: dict[str, Summary]
    """By the figures' names."""

    verdicts: tuple[Verdict, ...]
    """One per limit of this kind of machine; none when nothing is to be reached."""

    @property
    def is_met(self) -> bool | None:
        """Whether all limits are met; None when there are none."""
        return all(verdict.met for verdict in self.verdicts) if self.verdicts else None


class MachineResults(Record):
    """The content of `results/<hardware>.json`."""

    hardware: str
    """The processor as people name it, a CPU with its fastest precision and its cores."""

    processor: Processor
    """What computed."""

    system: str
    """Operating system and instruction set."""

    cases: dict[str, CaseResult]
    """By name: a family, a slash, and what is special."""

    def with_case(self, name: str, case: CaseResult) -> "MachineResults":
        """Return these results with one case added or replaced."""
        return self.model_copy(update={"cases": {**self.cases, name: case}})


def summarize(measurements: Sequence[Measurement]) -> dict[str, Summary]:
    """Return each figure's summary over at least one measurement; all have the same figures."""
    columns = {
        name: [measurement.figures[name] for measurement in measurements]
        for name in measurements[0].figures
    }
    return {
        name: Summary(
            num_seeds=len(values),
            mean=statistics.fmean(values),
            standard_deviation=statistics.stdev(values) if len(values) > 1 else None,
            median=statistics.median(values),
            minimum=min(values),
            maximum=max(values),
        )
        for name, values in columns.items()
    }


def judge(summary: Mapping[str, Summary], limits: Sequence[Limit]) -> tuple[Verdict, ...]:
    """Compare figures with limits; one on a figure that an older file lacks gets no verdict."""
    return tuple(
        Verdict(limit=limit, met=limit.is_met_by(summary[limit.figure]))
        for limit in limits
        if limit.figure in summary
    )


def load_results(path: Path) -> MachineResults:
    """Read a result file.

    Raises:
        ResultFileError: when it is missing, unreadable or not such a file.
    """
    try:
        return MachineResults.model_validate_json(path.read_bytes())
    except OSError as error:
        raise ResultFileError(f"{path}: cannot be read ({error.strerror})") from None
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        key = ".".join(map(str, first["loc"]))
        raise ResultFileError(
            f"{path}: must be a benchmark's result file ({key}: {first['msg']})"
        ) from None


def save_results(path: Path, results: MachineResults) -> None:
    """Write a result file so that a kill leaves the old content or the new one."""
    write_json(path, results.model_dump(mode="json"))

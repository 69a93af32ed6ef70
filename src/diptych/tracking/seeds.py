"""The pipeline with several seeds: a run for all of them, with means and standard deviations."""

import json
import os
import secrets
import signal
import statistics
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from diptych.errors import UserError
from diptych.params import dotted, read_yaml
from diptych.presets import preset_tags
from diptych.tracking.client import StoreError, failures_in_one_line
from diptych.tracking.events import RunEnded, RunStarted, Status
from diptych.tracking.liveness import PROCESS_TAG, process_tag
from diptych.tracking.outputs import HEADLINE_STAGES
from diptych.tracking.pipeline import PIPELINE_FILE, read_stages
from diptych.tracking.provenance import machine_tags, source_tags
from diptych.tracking.recorder import MlflowRecorder, prepare_mlflow
from diptych.tracking.runs import GROUP_TAG, GROUP_VARIABLE, is_switched_on, status_after
from diptych.tracking.store import Store, find_root, find_store
from diptych.tracking.tracker import EventTracker, as_text, now_ms

SEED_KEYS = ("train_cnn.seed", "train_vae.seed")

_STDERR = 2
_ENDING_SECONDS = 60.0


class SeedsError(UserError):
    """The pipeline did not run to its end with one of the seeds."""


@dataclass(frozen=True, slots=True)
class Spread:
    """One figure over seeds.

    Attributes:
        mean: Over the seeds.
        standard_deviation: Of the sample; None for a single seed.
        num_seeds: How many.
    """

    mean: float
    standard_deviation: float | None
    num_seeds: int


def run_seeds(params_path: Path, seeds: Sequence[int]) -> dict[str, Spread]:
    """Run the pipeline once with each seed, each as a DVC experiment in a folder of its own.

    The workspace stays as it is; stages that do not depend on the seed run at most once. A run
    above those of the experiments gets each headline figure's spread, also if it ends early: then
    over the seeds that are done.

    Args:
        params_path: The project's parameter file.
        seeds: Of both trainings.

    Returns:
        The spread of each headline figure, under its dotted key.

    Raises:
        SeedsError: when an experiment fails or leaves no figures; DVC has told why on stderr.
        StoreError: when the store does not take the run, before any work is done.
        ParamsError: when params or pipeline cannot be read.
    """
    root = find_root(params_path, os.environ)
    metrics = [
        stage.options["metrics"]
        for stage in read_stages(root / PIPELINE_FILE)
        if stage.name in HEADLINE_STAGES
    ]
    group = secrets.token_hex(4)
    done: list[dict[str, float]] = []
    with _group_run(root, params_path, group, seeds, done) as environment:
        for seed in seeds:
            name = f"seeds-{group}-{seed}"
            _run_experiment(root, name, seed, environment)
            done.append(_figures_of(root, name, metrics))
    return spreads(done)


def spreads(figures: Sequence[Mapping[str, float]]) -> dict[str, Spread]:
    """Return the spread of every figure that all of several runs have; none without runs.

    Args:
        figures: Of each run, under the same keys.
    """
    if not figures:
        return {}
    common = [key for key in figures[0] if all(key in one for one in figures)]
    values = {key: [one[key] for one in figures] for key in common}
    return {
        key: Spread(
            statistics.fmean(found),
            statistics.stdev(found) if len(found) > 1 else None,
            len(found),
        )
        for key, found in values.items()
    }


def spread_rows(found: Mapping[str, Spread]) -> list[tuple[str, str, str, str]]:
    """Return the figures that depend on the seed, for a table: key, mean, s.d. and number."""
    return [
        (key, f"{spread.mean:.5g}", _shown(spread.standard_deviation), str(spread.num_seeds))
        for key, spread in found.items()
        if spread.standard_deviation != 0
    ]


@contextmanager
def _group_run(
    root: Path,
    params_path: Path,
    group: str,
    seeds: Sequence[int],
    done: Sequence[Mapping[str, float]],
) -> Iterator[Mapping[str, str]]:
    """Record a run that ends as the block does; give the variables of the processes under it.

    Args:
        root: The project's main folder.
        params_path: The parameter file.
        group: A name that no other such run has.
        seeds: All of them.
        done: Filled by the block: the figures of each seed that is done.
    """
    if not is_switched_on():
        yield {}
        return
    store = find_store(root, os.environ)
    with failures_in_one_line(store):
        prepare_mlflow(store)
        recorder = _start(store, root, read_yaml(params_path), group, seeds)
    status: Status = "FAILED"
    try:
        yield {GROUP_VARIABLE: recorder.run_id}
        status = "FINISHED"
    except BaseException as error:
        status = status_after(error)
        raise
    finally:
        try:
            with failures_in_one_line(store):
                EventTracker(recorder.record).log_metrics(_as_metrics(spreads(done)), step=None)
                recorder.record(RunEnded(status, now_ms()))
        except StoreError as error:
            print(f"warning: {error}; the figures are not recorded", file=sys.stderr)


def _start(
    store: Store, root: Path, content: Mapping[str, object], group: str, seeds: Sequence[int]
) -> MlflowRecorder:
    params = dotted(content)
    tags = source_tags(root, os.environ) | preset_tags(params, root / "presets") | machine_tags()
    tags["mlflow.source.name"] = "diptych seeds"
    tags[PROCESS_TAG] = process_tag(psutil.Process())
    recorder = MlflowRecorder(store, f"seeds-{group}")
    name = f"seeds {min(seeds)} to {max(seeds)}"
    recorder.record(RunStarted(name, as_text(tags), None, now_ms()))
    tracker = EventTracker(recorder.record)
    tracker.set_tags({GROUP_TAG: recorder.run_id})
    common = {key: value for key, value in params.items() if key not in SEED_KEYS}
    tracker.log_params({**common, "seeds": list(seeds)})
    return recorder


def _as_metrics(found: Mapping[str, Spread]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for key, spread in found.items():
        metrics[f"{key}.mean"] = spread.mean
        if spread.standard_deviation is not None:
            metrics[f"{key}.sd"] = spread.standard_deviation
        metrics["num_seeds"] = spread.num_seeds
    return metrics


def _run_experiment(root: Path, name: str, seed: int, environment: Mapping[str, str]) -> None:
    settings = [word for key in SEED_KEYS for word in ("--set-param", f"{key}={seed}")]
    command = [sys.executable, "-m", "dvc", "exp", "run", "--temp", "--name", name, *settings]
    # dvc.yaml says `python`: it must be this one.
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    # In a group of their own Ctrl-C does not reach them twice: DVC leaves it to its stages.
    process = subprocess.Popen(
        command,
        cwd=root,
        env={**os.environ, **environment, "PATH": path},
        stdin=subprocess.DEVNULL,
        stdout=_STDERR,
        process_group=0,
    )
    try:
        exit_code = process.wait()
    except BaseException:
        _interrupt(process)
        raise
    if exit_code != 0:
        raise SeedsError(f"seed {seed}: `dvc exp run` must succeed (got exit code {exit_code})")


def _interrupt(process: "subprocess.Popen[bytes]") -> None:
    """End DVC and its stage as Ctrl-C does; if they take too long or at a second one, at once."""
    with suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGINT)
        try:
            process.wait(_ENDING_SECONDS)
        except (subprocess.TimeoutExpired, KeyboardInterrupt):
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def _figures_of(root: Path, name: str, metrics: Sequence[str]) -> dict[str, float]:
    """Return the numbers in an experiment's files, which outlive it in git."""
    from diptych.tracking.figures import numeric_figures  # imports torch

    found: dict[str, float] = {}
    ref = _git(root, "for-each-ref", "--format=%(refname)", f"refs/exps/*/*/{name}").strip()
    for path in metrics:
        text = _git(root, "show", f"{ref}:./{path}") if ref else ""
        if not text:
            raise SeedsError(f"experiment {name}: must have the file {path} (got none)")
        found |= numeric_figures(json.loads(text))
    return found


def _git(folder: Path, *arguments: str) -> str:
    with suppress(OSError, subprocess.SubprocessError):
        command = ["git", "-C", str(folder), *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        ).stdout
    return ""


def _shown(standard_deviation: float | None) -> str:
    return "" if standard_deviation is None else f"{standard_deviation:.2g}"

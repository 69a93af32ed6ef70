"""Which version is the champion: promoted by the gate, rolled back by hand, written down always.

What takes long, reading and judging models, happens without the lock. Under the lock the aliases
must still be those that were judged, or all is judged again. A decision is first written into the
log, with the aliases as they are to be, and then carried out; whoever comes next under the lock
completes what was interrupted.
"""

import os
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from diptych.params import load_params
from diptych.promotion.decision import Decision
from diptych.promotion.gate import decide
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family, ModelRecord
from diptych.tracking.audit import Action, AuditEntry, Standing, champions, shortened, standing_of
from diptych.tracking.client import connect, failures_in_one_line, store_of
from diptych.tracking.mlflow_tracker import JOURNALS_FOLDER
from diptych.tracking.model_records import (
    Evaluation,
    Evaluator,
    check_folder,
    download_model,
    read_record,
)
from diptych.tracking.moves import Check, carry_out, settle, shown, version_text
from diptych.tracking.origins import Origin, find_origin
from diptych.tracking.process import await_recorders
from diptych.tracking.promotion_lock import (
    PATIENCE_SECONDS,
    LockError,
    promotion_lock,
    user_and_host,
)
from diptych.tracking.registry import (
    CHAMPION,
    PREVIOUS,
    Registry,
    RegistryError,
    RegistryState,
    model_name,
)
from diptych.tracking.store import find_root
from diptych.tracking.versions import register_candidate, registered_origin

# In each of them somebody else has moved the alias.
_MAX_ROUNDS = 50
_RECORDING_SECONDS = 60.0
_RESTLESS = "{}: must keep its champion for a moment (got moved all the time)"


@dataclass(frozen=True, slots=True)
class Desk:
    """What a promotion works with.

    Attributes:
        client: An MlflowClient.
        experiment: Where the pipeline records.
        policy: Section `promotion` of params.yaml.
        evaluate: Evaluates a champion whose results are not stored.
        notice: Told in one line of what is not a result.
        patience_seconds: The longest wait for the lock.
    """

    client: Any
    experiment: str
    policy: PromotionParams
    evaluate: Evaluator
    notice: Callable[[str], None]
    patience_seconds: float = PATIENCE_SECONDS

    def registry(self, family: Family) -> Registry:
        """Return the registered model of a family."""
        return Registry(self.client, model_name(self.policy.prefix, family))

    def lock(self, registry: Registry) -> AbstractContextManager[Check]:
        """Return the lock under which a registered model may be changed."""
        return promotion_lock(self.client, registry.name, self.notice, self.patience_seconds)


@contextmanager
def open_desk(params: Path, processed: Path, notice: Callable[[str], None]) -> Iterator[Desk]:
    """Open the store of a project.

    Args:
        params: Its parameter file.
        processed: Its data set, for a champion that has to be evaluated anew.
        notice: Told in one line of what is not a result.

    Raises:
        ParamsError: when the section `promotion` is not as it must be.
        StoreError: when there is no store, or it fails while the block runs.
    """

    def evaluate(family: Family, folder: Path) -> Evaluation:
        # Importing it takes seconds, and it is hardly ever needed.
        from diptych.tracking.reevaluation import evaluate_anew

        return evaluate_anew(family, folder, processed, params)

    policy = load_params(params, "promotion", PromotionParams)
    store = store_of(params)
    # A run that has just ended is what many want to promote.
    await_recorders(find_root(params, os.environ) / JOURNALS_FOLDER, _RECORDING_SECONDS)
    client = connect(store)
    with failures_in_one_line(store):
        yield Desk(
            client=client,
            experiment=store.experiment,
            policy=policy,
            evaluate=evaluate,
            notice=notice,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """How to promote.

    Attributes:
        run_id: Of a pipeline execution or of a stage; None for the newest finished execution.
        is_dry_run: Decide, and write nothing.
        allow_dirty: Accept code that was not committed.
        expected_champion: The version that must be the champion, 0 for none; None for any.
    """

    run_id: str | None = None
    is_dry_run: bool = False
    allow_dirty: bool = False
    expected_champion: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a promotion.

    Attributes:
        name: The registered model.
        candidate: The model that was judged, with its version unless in a dry run.
        champion: The version that it was compared with; None for none.
        decision: The gate's.
    """

    name: str
    candidate: ModelRecord
    champion: int | None
    decision: Decision = field(repr=False)


def promote(desk: Desk, family: Family, request: Request) -> Outcome:
    """Let the gate decide on a model and, if it says so, make it the champion.

    Raises:
        UserError: when there is nothing to decide on, the champion is not the expected one, or
            the lock cannot be had.
    """
    registry = desk.registry(family)
    origin = find_origin(desk.client, desk.experiment, family, request.run_id)
    candidate = read_record(desk.client, family, origin, None, evaluate=None)
    for _ in range(_MAX_ROUNDS):
        state = registry.read() if request.is_dry_run else _settled(desk, registry)
        before = state.standing
        _check_expected(registry, before, request.expected_champion)
        champion = _champion_record(desk, registry, family, before.champion)
        decision = decide(candidate, champion, desk.policy, allow_dirty=request.allow_dirty)
        outcome = Outcome(registry.name, candidate, before.champion, decision)
        if request.is_dry_run:
            return outcome
        with desk.lock(registry) as check:
            state = settle(registry, check, desk.notice)
            if state.standing == before:
                return _conclude(registry, state, origin, outcome, check)
    raise LockError(_RESTLESS.format(registry.name))


def roll_back(desk: Desk, family: Family) -> AuditEntry:
    """Make the previous champion the champion again, whatever its figures.

    Raises:
        UserError: when there is none, it is damaged, or the lock cannot be had.
    """
    registry = desk.registry(family)
    for _ in range(_MAX_ROUNDS):
        before = _settled(desk, registry).standing
        target = _checked_previous(desk, registry, family, before)
        with desk.lock(registry) as check:
            state = settle(registry, check, desk.notice)
            if state.standing != before:
                continue
            entry = _new_entry(
                state,
                action="rolled back",
                version=int(target.version),
                after=Standing(int(target.version), _champion_before(state)),
                run_id=target.run_id,
                why=(f"rolled back from version {before.champion}",),
                figures=_figures_of(state, int(target.version)),
            )
            return carry_out(registry, entry, check)
    raise LockError(_RESTLESS.format(registry.name))


@dataclass(frozen=True, slots=True)
class Status:
    """Where a registered model stands.

    Attributes:
        name: The registered model.
        state: Its aliases, newest version and log.
        figures: Those of the champion when it was judged.
        disagreement: How aliases and log disagree; None when they agree.
    """

    name: str
    state: RegistryState
    figures: Mapping[str, float | str]
    disagreement: str | None


def read_status(desk: Desk, family: Family) -> Status:
    """Tell where a family stands; what was interrupted is completed first.

    Raises:
        UserError: when the log cannot be read, or the lock cannot be had.
    """
    registry = desk.registry(family)
    state = _settled(desk, registry)
    logged, found = standing_of(state.log), state.standing
    agrees = logged == found
    return Status(
        name=registry.name,
        state=state,
        figures={} if found.champion is None else _figures_of(state, found.champion),
        disagreement=None
        if agrees
        else f"aliases must be {shown(logged)} as in the log (got {shown(found)})",
    )


def read_history(desk: Desk, family: Family) -> tuple[AuditEntry, ...]:
    """Return the log of a family's registered model, oldest entry first.

    Raises:
        UserError: when it cannot be read.
    """
    return desk.registry(family).read().log


def _settled(desk: Desk, registry: Registry) -> RegistryState:
    """Return the state, after completing what an earlier process was killed in."""
    state = registry.read()
    if not state.interrupted:
        return state
    with desk.lock(registry) as check:
        return settle(registry, check, desk.notice)


def _check_expected(registry: Registry, standing: Standing, expected: int | None) -> None:
    if expected is not None and expected != (standing.champion or 0):
        raise RegistryError(
            f"{registry.name}@{CHAMPION}: must be {version_text(expected or None)} "
            f"(got {version_text(standing.champion)})"
        )


def _champion_record(
    desk: Desk, registry: Registry, family: Family, version: int | None
) -> ModelRecord | None:
    if version is None:
        return None
    origin = registered_origin(registry, version)
    return read_record(desk.client, family, origin, version, desk.evaluate)


def _conclude(
    registry: Registry,
    state: RegistryState,
    origin: Origin,
    outcome: Outcome,
    check: Check,
) -> Outcome:
    """Register the candidate and do what the gate has decided."""
    candidate, decision = outcome.candidate, outcome.decision
    version = register_candidate(registry, origin, candidate, decision, check)
    before = state.standing
    entry = _new_entry(
        state,
        action="promoted" if decision.is_promoted else "refused",
        version=version,
        after=Standing(version, before.champion) if decision.is_promoted else before,
        run_id=candidate.run_id,
        why=tuple(shortened(_reasons(decision))),
        figures=_headline(candidate),
    )
    carry_out(registry, entry, check)
    return replace(outcome, candidate=replace(candidate, version=version))


def _new_entry(
    state: RegistryState,
    action: Action,
    version: int,
    after: Standing,
    run_id: str,
    why: tuple[str, ...],
    figures: Mapping[str, float | str],
) -> AuditEntry:
    return AuditEntry(
        number=max((entry.number for entry in state.log), default=0) + 1,
        state="intended",
        action=action,
        version=version,
        before=state.standing,
        after=after,
        who=user_and_host(),
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        run_id=run_id,
        why=why,
        figures=figures,
    )


def _checked_previous(desk: Desk, registry: Registry, family: Family, standing: Standing) -> Any:
    """Return the version to roll back to, after a look at its model's bytes."""
    if standing.champion is None or standing.previous is None:
        raise RegistryError(
            f"{registry.name}: must have a version @{PREVIOUS} to roll back to (got none)"
        )
    version = registry.version(standing.previous)
    model = registered_origin(registry, standing.previous).model
    where = f"{registry.name}: version {version.version}"
    for status in (str(version.status), str(model.status)):
        if status != "READY":
            raise RegistryError(f"{where}: must be READY (got {status})")
    with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
        folder = download_model(desk.client, model, Path(temporary, "model"))
        check_folder(where, version.tags, folder, family)
    return version


def _champion_before(state: RegistryState) -> int | None:
    """Return the champion before the previous one; None when the log knows of none."""
    *earlier, previous, champion = [None, None, *champions(state.log)]
    if Standing(champion, previous) != state.standing:
        return None  # moved by hand
    return earlier[-1] if earlier else None


def _figures_of(state: RegistryState, version: int) -> Mapping[str, float | str]:
    """Return the figures with which a version was promoted."""
    found = [one for one in state.log if one.version == version and one.action == "promoted"]
    return found[-1].figures if found else {}


def _headline(record: ModelRecord) -> dict[str, float | str]:
    """Return the figures that are about a model; one evaluation has those of all three."""
    wanted = (f"{record.family}.", "num_parameters")
    members = ("cnn.accuracy", "vae.nll_nats") if record.family == "pair" else ()
    return {
        key: value for key, value in record.figures.items() if key.startswith((*wanted, *members))
    }


def _reasons(decision: Decision) -> list[str]:
    chosen = [
        one
        for one in decision.checks
        if one.status == ("passed" if decision.is_promoted else "failed")
    ]
    return [f"{one.name}: {one.expected} (got {one.found})" for one in chosen]

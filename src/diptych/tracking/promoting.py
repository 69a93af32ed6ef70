"""Which version is the champion: promoted by the gate, rolled back by hand, written down always.

What takes long, reading and judging models, happens without the lock. Under the lock the aliases
must still be those that were judged, or all is judged again. A decision is first written into the
log, with the aliases as they are to be, and then carried out; the next promotion or rollback
completes what was interrupted.
"""

import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.promotion.decision import Decision
from diptych.promotion.gate import decide
from diptych.promotion.record import Family, ModelRecord
from diptych.tracking.audit import (
    Action,
    AuditEntry,
    Standing,
    champions,
    cut_reasons,
    standing_of,
)
from diptych.tracking.model_records import (
    Evaluation,
    Evaluator,
    check_folder,
    download_model,
    read_champion,
    read_record,
)
from diptych.tracking.moves import (
    RaiseIfLost,
    Settled,
    carry_out,
    settle,
    shown,
    version_text,
)
from diptych.tracking.origins import Origin, PipelineRun, find_origin
from diptych.tracking.promotion_lock import LockError, acting_user
from diptych.tracking.registrar import Registrar
from diptych.tracking.registry import (
    CHAMPION,
    PREVIOUS,
    Registry,
    RegistryError,
    RegistryState,
)
from diptych.tracking.versions import register_candidate, registered_origin

if TYPE_CHECKING:
    from mlflow.entities.model_registry import ModelVersion

# In each of them somebody else has moved the alias.
_MAX_ROUNDS = 50
_RESTLESS = "{}: must keep its champion for a moment (got moved all the time)"


@dataclass(frozen=True, slots=True)
class Request:
    """How to promote.

    Attributes:
        run_id: Of a pipeline execution or of a stage; None for the newest complete execution.
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
        champion: The version that was the champion; None for none.
        compared_with: The champion, or without one the newest that is left of the log's; None for
            none.
        decision: The gate's.
        pipeline_run: The execution that the candidate is of.
    """

    name: str
    candidate: ModelRecord
    champion: int | None
    compared_with: int | None
    decision: Decision = field(repr=False)
    pipeline_run: PipelineRun


def promote(registrar: Registrar, family: Family, request: Request, evaluate: Evaluator) -> Outcome:
    """Let the gate decide on a model and, if it says so, make it the champion.

    Args:
        registrar: Of the store.
        family: Which of the models.
        request: How.
        evaluate: Evaluates the champion if its stored results will not do.

    Raises:
        UserError: when there is nothing to decide on, the champion is not the expected one, the
            server does not let this user do it, or the lock cannot be had.
    """
    registry = registrar.registry(family)
    origin, pipeline_run = find_origin(
        registrar.client, registrar.experiment, family, request.run_id
    )
    candidate = read_record(registrar.client, family, origin)
    for _ in range(_MAX_ROUNDS):
        state = registry.read() if request.is_dry_run else _settled(registrar, registry).state
        before = state.standing
        _check_expected(registry, before, request.expected_champion)
        beside = _compared_with(registry, state, candidate)
        champion = _champion_record(registrar, registry, candidate, beside, evaluate)
        decision = decide(candidate, champion, registrar.policy, allow_dirty=request.allow_dirty)
        outcome = Outcome(registry.name, candidate, before.champion, beside, decision, pipeline_run)
        if request.is_dry_run:
            return outcome
        with registrar.lock(registry) as raise_if_lost:
            state = settle(registry, raise_if_lost, registrar.notice).state
            if state.standing == before and (beside is None or registry.has(beside)):
                return _conclude(registrar, registry, state, origin, outcome, raise_if_lost)
    raise LockError(_RESTLESS.format(registry.name))


def roll_back(
    registrar: Registrar, family: Family, expected_champion: int | None = None
) -> AuditEntry:
    """Make the previous champion the champion again, whatever its figures.

    Of several at once, and of one that was interrupted and is asked for again, the models go back
    by one champion only.

    Args:
        registrar: Of the store.
        family: Which of the models.
        expected_champion: The version that must be the champion, 0 for none; None for any.

    Returns:
        The rollback, as done.

    Raises:
        UserError: when there is nothing to go back to, it is damaged, the champion is not the
            expected one or has moved meanwhile, the server does not let this user do it, or the
            lock cannot be had.
    """
    registry = registrar.registry(family)
    began = registry.read()
    unfinished = began.interrupted
    if unfinished is not None and unfinished.action != "rolled back":
        unfinished = None
    # The aliases of an unfinished one may be half moved.
    before = began.standing if unfinished is None else unfinished.before
    _check_expected(registry, before, expected_champion)
    settled = _settled(registrar, registry)
    done = settled.completed
    if unfinished is not None and done is not None and done.number == unfinished.number:
        return done
    _check_unmoved(registry, before, settled.state.standing)
    return _go_back(registrar, registry, family, settled.state)


@dataclass(frozen=True, slots=True)
class Status:
    """Where a registered model stands.

    Attributes:
        name: The registered model.
        state: Its aliases, newest version and log.
        figures: Those of the champion when it was judged.
        disagreement: How aliases and log disagree, or what is not finished; None when they agree.
    """

    name: str
    state: RegistryState
    figures: Mapping[str, float | str]
    disagreement: str | None


def read_status(registrar: Registrar, family: Family) -> Status:
    """Tell where a family stands; changes nothing, also of what was interrupted.

    Raises:
        UserError: when the log cannot be read.
    """
    registry = registrar.registry(family)
    state = registry.read()
    champion = state.standing.champion
    return Status(
        name=registry.name,
        state=state,
        figures={} if champion is None else _figures_of(state, champion),
        disagreement=_disagreement(registry, family, state),
    )


def read_history(registrar: Registrar, family: Family) -> tuple[AuditEntry, ...]:
    """Return the log of a family's registered model, oldest entry first.

    Raises:
        UserError: when it cannot be read.
    """
    return registrar.registry(family).read().log


def _go_back(
    registrar: Registrar, registry: Registry, family: Family, state: RegistryState
) -> AuditEntry:
    """Roll back from where a registered model stands, unless somebody moves it meanwhile."""
    before, after = state.standing, _after_rollback(registry, state)
    target = _checked_target(registrar, registry, family, after)
    with registrar.lock(registry) as raise_if_lost:
        state = settle(registry, raise_if_lost, registrar.notice).state
        _check_unmoved(registry, before, state.standing)
        entry = _new_entry(
            state,
            action="rolled back",
            version=int(target.version),
            after=after,
            run_id=target.run_id or "",
            reasons=(_rollback_reason(registry, state),),
            figures=_figures_of(state, int(target.version)),
        )
        return carry_out(registry, entry, raise_if_lost)


def _settled(registrar: Registrar, registry: Registry) -> Settled:
    """Complete what an earlier process was killed in; the lock is taken if there is such."""
    state = registry.read()
    if not state.interrupted:
        return Settled(state)
    with registrar.lock(registry) as raise_if_lost:
        return settle(registry, raise_if_lost, registrar.notice)


def _disagreement(registry: Registry, family: Family, state: RegistryState) -> str | None:
    if (entry := state.interrupted) is not None:
        return (
            f"audit entry {entry.number} is not finished ({entry.action}: version "
            f"{entry.version}); the next promotion or rollback completes it"
        )
    logged, found = standing_of(state.log), state.standing
    if logged == found:
        return None
    told = f"aliases must be {shown(logged)} as in the log (got {shown(found)})"
    if found.champion is not None or logged.champion is None or registry.has(logged.champion):
        return told
    left = _after_rollback(registry, state).champion
    advice = f": `diptych rollback {family}` goes back to {version_text(left)}" if left else ""
    return f"{told}; version {logged.champion} was deleted{advice}"


def _check_unmoved(registry: Registry, before: Standing, found: Standing) -> None:
    if found != before:
        raise RegistryError(
            f"{registry.name}: aliases must be as when the rollback began, {shown(before)} "
            f"(got {shown(found)}); nothing was rolled back"
        )


def _check_expected(registry: Registry, standing: Standing, expected: int | None) -> None:
    if expected is not None and expected != (standing.champion or 0):
        raise RegistryError(
            f"{registry.name}@{CHAMPION}: must be {version_text(expected or None)} "
            f"(got {version_text(standing.champion)})"
        )


def _champion_record(
    registrar: Registrar,
    registry: Registry,
    candidate: ModelRecord,
    version: int | None,
    evaluate: Evaluator,
) -> ModelRecord | None:
    if version is None:
        return None
    try:
        origin = registered_origin(registry, version)
    except RegistryError as error:
        raise RegistryError(
            f"{error}; `diptych rollback {candidate.family}` goes back to the champion before; "
            "where that is refused, delete the version"
        ) from None

    def evaluate_and_tell(
        family: Family, folder: Path, protocol: Mapping[str, float]
    ) -> Evaluation:
        registrar.notice(
            f"{registry.name}: version {version}: is evaluated anew, as its stored results cannot "
            "be compared with the candidate's"
        )
        return evaluate(family, folder, protocol)

    return read_champion(registrar.client, origin, candidate, registrar.policy, evaluate_and_tell)


def _conclude(
    registrar: Registrar,
    registry: Registry,
    state: RegistryState,
    origin: Origin,
    outcome: Outcome,
    raise_if_lost: RaiseIfLost,
) -> Outcome:
    """Register the candidate and do what the gate has decided."""
    candidate, decision = outcome.candidate, outcome.decision
    version = register_candidate(
        registry, origin, candidate, decision, raise_if_lost, registrar.notice
    )
    # One that was set by hand, where the log knows no other.
    previous = outcome.compared_with or state.standing.previous
    entry = _new_entry(
        state,
        action="promoted" if decision.is_promoted else "refused",
        version=version,
        after=Standing(version, previous) if decision.is_promoted else state.standing,
        run_id=candidate.run_id,
        reasons=_reasons(decision),
        figures=_headline(candidate),
    )
    carry_out(registry, entry, raise_if_lost)
    return replace(outcome, candidate=replace(candidate, version=version))


def _new_entry(
    state: RegistryState,
    action: Action,
    version: int,
    after: Standing,
    run_id: str,
    reasons: Sequence[str],
    figures: Mapping[str, float | str],
) -> AuditEntry:
    return AuditEntry(
        number=max((entry.number for entry in state.log), default=0) + 1,
        state="intended",
        action=action,
        version=version,
        before=state.standing,
        after=after,
        who=acting_user(),
        when=datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
        run_id=run_id,
        why=cut_reasons(reasons),
        figures=figures,
    )


def _checked_target(
    registrar: Registrar, registry: Registry, family: Family, after: Standing
) -> "ModelVersion":
    """Return the version to roll back to, after a look at its model's bytes."""
    if after.champion is None:
        raise RegistryError(
            f"{registry.name}: must have a version @{PREVIOUS} to roll back to (got none)"
        )
    version = registry.version(after.champion)
    model = registered_origin(registry, after.champion).model
    where = f"{registry.name}: version {version.version}"
    for status in (str(version.status), str(model.status)):
        if status != "READY":
            raise RegistryError(f"{where}: must be READY (got {status})")
    with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
        folder = download_model(registrar.client, model, Path(temporary, "model"))
        check_folder(where, version.tags, folder, family)
    return version


def _after_rollback(registry: Registry, state: RegistryState) -> Standing:
    """Return what a rollback makes of the aliases; None where there is nothing to go back to.

    Versions that were deleted by hand, whose aliases MLflow has deleted with them, are passed over.
    """
    found, logged = state.standing, standing_of(state.log)
    known = champions(state.log, found.champion)
    previous = found.previous
    # Beside a champion that was moved by hand, the log's alias is that of another one.
    is_stale = found.champion != logged.champion and previous == logged.previous
    if is_stale or previous in (None, found.champion):
        previous = registry.newest_existing(known[:-1], but=known[-1] if known else None)
    if previous is None:
        return Standing(None, None)
    # Of a version that the log knows no champion before, nothing is known.
    before = champions(state.log, previous)[:-1] if previous in known else []
    return Standing(previous, registry.newest_existing(before, but=previous))


def _compared_with(registry: Registry, state: RegistryState, candidate: ModelRecord) -> int | None:
    """Return the champion, or without one the newest other version that was; None for none."""
    if state.standing.champion is not None:
        return state.standing.champion
    own = registry.find(candidate)
    known = champions(state.log)
    return registry.newest_existing(known, but=int(own.version) if own else None)


def _rollback_reason(registry: Registry, state: RegistryState) -> str:
    left, known = state.standing.champion, champions(state.log)
    if left is None and known and not registry.has(known[-1]):
        return f"rolled back from version {known[-1]}, which was deleted"
    return f"rolled back from {version_text(left)}"


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

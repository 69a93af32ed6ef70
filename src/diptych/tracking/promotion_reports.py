"""Promotions as values that a terminal or a program can be shown."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from diptych.promotion.decision import as_json as decision_json
from diptych.tracking.audit import AuditEntry
from diptych.tracking.audit import as_json as entry_json
from diptych.tracking.moves import version_text
from diptych.tracking.promoting import Outcome, Status


def verdict_lines(outcome: Outcome) -> tuple[str, str]:
    """Return whose execution was judged; what was decided, beside which champion."""
    run = outcome.pipeline_run
    decided = "promoted" if outcome.decision.is_promoted else "refused"
    number = outcome.candidate.version
    what = (
        f"{outcome.name} {version_text(number)}" if number else f"{outcome.name}, dry run: would be"
    )
    beside = f"champion until now: {version_text(outcome.champion)}"
    if outcome.compared_with != outcome.champion:
        beside += f"; compared with {version_text(outcome.compared_with)}"
    return (
        f"judged: run {run.run_id} of {run.user or 'nobody known'}, "
        f"commit {run.commit or 'not recorded'}",
        f"{what} {decided} ({beside})",
    )


def outcome_json(outcome: Outcome) -> dict[str, Any]:
    """Return a promotion as JSON values: the gate's, with the model that it is about."""
    candidate = outcome.candidate
    return {
        "model": outcome.name,
        "version": candidate.version,
        "champion_before": outcome.champion,
        "compared_with": outcome.compared_with,
        "run_id": candidate.run_id,
        "pipeline_run": asdict(outcome.pipeline_run),
        "weights_sha256": candidate.weights_sha256,
        "description_sha256": candidate.description_sha256,
        **decision_json(outcome.decision),
    }


def status_json(status: Status) -> dict[str, Any]:
    """Return where a registered model stands as JSON values."""
    standing = status.state.standing
    return {
        "model": status.name,
        "champion": standing.champion,
        "previous": standing.previous,
        "latest": status.state.latest,
        "figures": dict(status.figures),
        "disagreement": status.disagreement,
    }


def status_row(status: Status) -> tuple[str, ...]:
    """Return model, champion, previous, latest version, headline figures, and what is wrong."""
    standing = status.state.standing
    versions = (standing.champion, standing.previous, status.state.latest)
    figures = [
        f"{key} {value:.6g}" if isinstance(value, float) else f"{key} {value}"
        for key, value in status.figures.items()
        if key in _HEADLINES
    ]
    return (
        status.name,
        *("–" if one is None else str(one) for one in versions),
        ", ".join(figures),
        status.disagreement or "agrees",
    )


def history_rows(log: Sequence[AuditEntry]) -> list[tuple[str, ...]]:
    """Return number, time, user, action, version, champions before and after, and reasons."""
    return [
        (
            str(entry.number),
            entry.when,
            entry.who,
            entry.action if entry.state == "done" else f"{entry.action} ({entry.state})",
            str(entry.version),
            f"{entry.before.champion or '–'} → {entry.after.champion or '–'}",
            "; ".join(entry.why) if entry.action != "promoted" else "",
        )
        for entry in log
    ]


def history_json(log: Sequence[AuditEntry]) -> list[dict[str, Any]]:
    """Return a log as JSON values."""
    return [entry_json(entry) for entry in log]


_HEADLINES = (
    "cnn.accuracy",
    "cnn.nll_nats",
    "vae.nll_nats",
    "pair.abstention_share",
    "num_parameters",
)

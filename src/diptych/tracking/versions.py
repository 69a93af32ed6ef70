"""Versions of a registered model: made from logged models, with what they say of themselves."""

import tempfile
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from diptych.promotion.card import model_card
from diptych.promotion.decision import Decision
from diptych.promotion.record import Family, ModelRecord
from diptych.tracking.client import StoreError, is_refusal
from diptych.tracking.moves import RaiseIfLost
from diptych.tracking.origins import Origin, get_run
from diptych.tracking.registry import Registry, was_promoted
from diptych.tracking.tags import COMMIT_TAG, DIRTY_TAG, FINGERPRINT_TAG, PRESET_TAG

if TYPE_CHECKING:
    from mlflow import MlflowClient

CARD_FILE = "model_card.md"

_PICTURES: Mapping[Family, Mapping[str, str]] = {
    "cnn": {"Confusion matrix": "confusion_matrix", "Reliability": "reliability"},
    "vae": {"Reconstructions": "reconstructions"},
    "pair": {"Novelty": "novelty", "Reliability": "reliability"},
}
_EVALUATION_TAG = "evaluation_run"


def registered_origin(registry: Registry, number: int) -> Origin:
    """Return where a version comes from; of its runs, which may be gone, only what is needed.

    Raises:
        RegistryError: when the version or its logged model does not exist.
    """
    version = registry.version(number)
    evaluation = version.tags.get(_EVALUATION_TAG)
    return Origin(
        run_id=version.run_id or "",
        model=registry.logged_model(version),
        evaluation_run_id=evaluation if _is_there(registry.client, evaluation) else None,
        is_dirty=None,
        tags={},
    )


def register_candidate(
    registry: Registry,
    origin: Origin,
    candidate: ModelRecord,
    decision: Decision,
    raise_if_lost: RaiseIfLost,
    notice: Callable[[str], None],
) -> int:
    """Return a candidate's version, registered if it was not, with a card of this decision.

    Args:
        registry: Where; its lock is held.
        origin: Where the candidate comes from.
        candidate: The model.
        decision: The gate's.
        raise_if_lost: Raises if the lock was lost.
        notice: Told in one line of a run that this user may not add the card to.
    """
    known = registry.find(candidate)
    if known is not None and was_promoted(known):
        return int(known.version)
    pictures = _pictures(candidate.family, origin)

    def card_of(version: int | None) -> str:
        record = replace(candidate, version=version)
        return model_card(record, decision, _lineage(origin), pictures)

    raise_if_lost()
    if known is not None:
        version = int(known.version)
    else:
        tags = _version_tags(origin, candidate)
        version = registry.register(candidate, tags, card_of(None))
    _log_card(registry.client, candidate.run_id, card_of(version), notice)
    registry.describe(version, card_of(version))
    return version


def _is_there(client: "MlflowClient", run_id: str | None) -> bool:
    with suppress(StoreError):
        return run_id is not None and get_run(client, run_id) is not None
    return False


def _lineage(origin: Origin) -> dict[str, str]:
    """Return where a model comes from, as its card shows it."""
    found = {
        "run": origin.run_id,
        "evaluated by run": origin.evaluation_run_id,
        "commit": origin.tags.get(COMMIT_TAG),
        "code had changes": origin.tags.get(DIRTY_TAG),
        "preset": origin.tags.get(PRESET_TAG),
        "fingerprint": origin.tags.get(FINGERPRINT_TAG),
    }
    return {key: value for key, value in found.items() if value}


def _pictures(family: Family, origin: Origin) -> dict[str, str]:
    """Return addresses, by caption, that hold on the pages of the server which shows the card."""
    run_id = origin.evaluation_run_id
    return {
        caption: f"get-artifact?run_uuid={run_id}&path=evaluation/{name}.png"
        for caption, name in _PICTURES[family].items()
        if run_id
    }


def _version_tags(origin: Origin, record: ModelRecord) -> dict[str, str]:
    tags = {
        "weights_sha256": record.weights_sha256,
        "description_sha256": record.description_sha256,
        "dataset_sha256": record.dataset_sha256,
        "test_sha256": record.test_sha256,
        "run": record.run_id,
        "commit": origin.tags.get(COMMIT_TAG),
        _EVALUATION_TAG: origin.evaluation_run_id,
    }
    return {key: value for key, value in tags.items() if value}


def _log_card(
    client: "MlflowClient", run_id: str, card: str, notice: Callable[[str], None]
) -> None:
    from mlflow.exceptions import MlflowException
    from requests import HTTPError

    with tempfile.TemporaryDirectory(prefix="diptych-") as temporary:
        path = Path(temporary, CARD_FILE)
        path.write_text(card, encoding="utf-8")
        try:
            client.log_artifact(run_id, str(path))
        except (MlflowException, HTTPError) as error:
            if not is_refusal(error):
                raise
            # Who may change models need not be allowed to change the experiment's runs.
            notice(
                f"run {run_id}: its experiment must be granted to you with EDIT to keep "
                f"{CARD_FILE} (got a refusal); the version's description has the card"
            )

"""One registered model: its versions, its aliases, and its log."""

import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from diptych.errors import UserError
from diptych.promotion.card import cut_card
from diptych.promotion.record import Family, ModelRecord
from diptych.tracking.audit import MAX_TEXT, AuditEntry, Standing, entry_text, read_entry
from diptych.tracking.client import is_missing, is_refusal

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities import LoggedModel
    from mlflow.entities.model_registry import ModelVersion

CHAMPION = "champion"
PREVIOUS = "previous"
VERDICT_TAG = "diptych.verdict"
REASONS_TAG = "diptych.verdict_reasons"

_SOURCE = "models:/"
_VERSIONS_TAG = "mlflow.modelVersions"
# Digits enough that the tags' alphabetical order, which the UI shows, is the log's.
_AUDIT_KEY = "audit.{:06d}"
_AUDIT_PATTERN = re.compile(r"audit\.(\d+)")


class RegistryError(UserError):
    """A registered model is not in the state that a command needs."""


class DeniedError(RegistryError):
    """The server does not let this user change a registered model."""


def model_name(prefix: str, family: Family) -> str:
    """Return the name under which a family's models are registered."""
    return f"{prefix}-{family}"


def was_promoted(version: "ModelVersion") -> bool:
    """Tell whether a version was champion once; it keeps saying so whatever came later."""
    return bool(version.tags.get(VERDICT_TAG) == "promoted")


@dataclass(frozen=True, slots=True)
class RegistryState:
    """A registered model at one moment.

    Attributes:
        standing: Its aliases.
        latest: The newest version; None if there is none.
        log: Its entries, oldest first.
    """

    standing: Standing
    latest: int | None
    log: tuple[AuditEntry, ...]

    @property
    def interrupted(self) -> AuditEntry | None:
        """The entry that was intended and is not done; None if there is none."""
        return next((entry for entry in self.log if entry.state == "intended"), None)


class Registry:
    """A registered model in a store; it need not exist before its first version."""

    def __init__(self, client: "MlflowClient", name: str) -> None:
        """Look at a registered model.

        Args:
            client: Of the store.
            name: The registered model's.
        """
        self.client = client
        self.name = name

    def read(self) -> RegistryState:
        """Read aliases and log, together.

        Raises:
            AuditError: when an entry of the log cannot be read.
        """
        from mlflow.exceptions import MlflowException

        try:
            model = self.client.get_registered_model(self.name)
        except MlflowException as error:
            if is_missing(error):
                return RegistryState(Standing(None, None), None, ())
            raise
        aliases = {alias: int(version) for alias, version in model.aliases.items()}
        versions = [int(one.version) for one in model.latest_versions]
        return RegistryState(
            standing=Standing(aliases.get(CHAMPION), aliases.get(PREVIOUS)),
            latest=max(versions, default=None),
            log=_log_of(model.tags),
        )

    def version(self, number: int) -> "ModelVersion":
        """Return a version.

        Raises:
            RegistryError: when it does not exist.
        """
        from mlflow.exceptions import MlflowException

        try:
            return self.client.get_model_version(self.name, str(number))
        except MlflowException as error:
            if is_missing(error):
                raise RegistryError(f"{self.name}: version {number}: does not exist") from None
            raise

    def has(self, number: int) -> bool:
        """Tell whether a version exists; anybody may have deleted it by hand."""
        try:
            self.version(number)
        except RegistryError:
            return False
        return True

    def newest_existing(self, versions: Sequence[int], but: int | None = None) -> int | None:
        """Return the last of some versions that is there, except one; None if there is none."""
        return next((one for one in reversed(versions) if one != but and self.has(one)), None)

    def logged_model(self, version: "ModelVersion") -> "LoggedModel":
        """Return the logged model that a version was registered from.

        Raises:
            RegistryError: when it does not exist, or the version has another source.
        """
        from mlflow.exceptions import MlflowException

        where = f"{self.name}: version {version.version}"
        source = version.source or ""
        if not source.startswith(_SOURCE):
            raise RegistryError(f"{where}: must be a logged model (got {source or 'none'})")
        try:
            return self.client.get_logged_model(source.removeprefix(_SOURCE))
        except MlflowException as error:
            if is_missing(error):
                raise RegistryError(f"{where}: must have its logged model (got deleted)") from None
            raise

    def find(self, record: ModelRecord) -> "ModelVersion | None":
        """Return the version that a logged model is registered as; None if it is not."""
        found = self.client.search_model_versions(
            f"name = '{self.name}' AND run_id = '{record.run_id}'"
        )
        source = f"{_SOURCE}{record.model_id}"
        return next((version for version in found if version.source == source), None)

    def register(self, record: ModelRecord, tags: Mapping[str, str], card: str) -> int:
        """Register a logged model that is not yet; return its version.

        Args:
            record: The model.
            tags: Of the version.
            card: Its description, in Markdown; cut to what a store takes.

        Raises:
            DeniedError: when the server does not let this user add a version.
        """
        self._create()
        with self._granted("EDIT"), _global_store(self.client.tracking_uri):
            made = self.client.create_model_version(
                self.name,
                f"{_SOURCE}{record.model_id}",
                run_id=record.run_id,
                tags=dict(tags),
                description=cut_card(card, MAX_TEXT),
                await_creation_for=0,
                model_id=record.model_id,
            )
        self._link(record.model_id, int(made.version))
        return int(made.version)

    def describe(self, version: int, card: str) -> None:
        """Give a version another description, in Markdown; cut to what a store takes.

        Raises:
            DeniedError: when the server does not let this user do it.
        """
        with self._granted("EDIT"):
            self.client.update_model_version(self.name, str(version), cut_card(card, MAX_TEXT))

    def set_alias(self, alias: str, version: int | None) -> None:
        """Let an alias name a version, or take it away; None for one that is not there is nothing.

        Raises:
            DeniedError: when the server does not let this user do it.
        """
        if version is not None:
            with self._granted("EDIT"):
                self.client.set_registered_model_alias(self.name, alias, str(version))
        elif alias in self.client.get_registered_model(self.name).aliases:
            with self._granted("MANAGE"):
                self.client.delete_registered_model_alias(self.name, alias)

    def write(self, entry: AuditEntry) -> None:
        """Write an entry of the log, or write it anew.

        Raises:
            DeniedError: when the server does not let this user do it.
        """
        key = _AUDIT_KEY.format(entry.number)
        with self._granted("EDIT"):
            self.client.set_registered_model_tag(self.name, key, entry_text(entry))

    def tag_verdict(self, version: int, verdict: str, reasons: str) -> None:
        """Say on a version what the gate said, unless it was promoted before.

        Raises:
            DeniedError: when the server does not let this user do it.
        """
        if was_promoted(self.version(version)):
            return
        self._tag_verdict(version, verdict, reasons)

    def take_verdict_back(self, version: int) -> None:
        """Let a version, if it is there, say that it has not become the champion after all.

        Raises:
            DeniedError: when the server does not let this user do it.
        """
        if self.has(version):
            self._tag_verdict(version, "not promoted", "passed, but it was not carried out")

    def _tag_verdict(self, version: int, verdict: str, reasons: str) -> None:
        for key, value in ((REASONS_TAG, reasons), (VERDICT_TAG, verdict)):
            with self._granted("EDIT"):
                self.client.set_model_version_tag(self.name, str(version), key, value)

    @contextmanager
    def _granted(self, permission: str) -> Iterator[None]:
        """Say which of MLflow's permissions it takes if the server refuses what the block does."""
        from mlflow.exceptions import MlflowException

        try:
            yield
        except MlflowException as error:
            if not is_refusal(error):
                raise
            raise DeniedError(
                f"{self.name}: must be granted to you with {permission} (got a refusal)"
            ) from None

    def _link(self, model_id: str, version: int) -> None:
        """Let a logged model name its version; of MLflow's stores only servers do so themselves."""
        tags = self.client.get_logged_model(model_id).tags
        links = _links_in(tags.get(_VERSIONS_TAG, "[]"))
        own = {"name": self.name, "version": version}
        if own not in links:
            value = json.dumps([*links, own])
            self.client.set_logged_model_tags(model_id, {_VERSIONS_TAG: value})

    def _create(self) -> None:
        from mlflow.exceptions import MlflowException

        try:
            self.client.create_registered_model(self.name)
        except MlflowException as error:
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise


def _links_in(text: str) -> list[Any]:
    """Return a list that is stored as JSON; nothing of what somebody has put in its place."""
    with suppress(ValueError):
        links = json.loads(text)
        return links if isinstance(links, list) else []
    return []


def _log_of(tags: Mapping[str, str]) -> tuple[AuditEntry, ...]:
    numbered = [
        (int(match[1]), text)
        for key, text in tags.items()
        if (match := _AUDIT_PATTERN.fullmatch(key))
    ]
    return tuple(read_entry(number, text) for number, text in sorted(numbered))


@contextmanager
def _global_store(uri: str) -> Iterator[None]:
    """Let MLflow's process-wide store be this one: an SQL registry looks logged models up there."""
    from mlflow.tracking._tracking_service.utils import _use_tracking_uri

    variable = "MLFLOW_TRACKING_URI"
    before = os.environ.get(variable)
    try:
        with _use_tracking_uri(uri):
            yield
    finally:
        os.environ.pop(variable, None)
        if before is not None:
            os.environ[variable] = before

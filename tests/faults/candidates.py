"""Candidates for a promotion that have something wrong with them, one thing each."""

import json
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, get_args

import pandas as pd

from diptych.model_files import sealed
from diptych.promotion.record import Family
from diptych.tracking.model_records import FIGURES_FILE, PER_IMAGE_FILE
from tests.tracking.promotions import Execution

FAMILIES: tuple[Family, ...] = get_args(Family)
HEADLINES = ("cnn.accuracy", "vae.nll_nats", "pair.novelty_auroc.noise")
WEIGHTS = "weights.safetensors"
OTHER_SHA256 = "f" * 64


@dataclass(frozen=True, slots=True)
class Candidate:
    """An execution that is good enough to be promoted, until something is done to it."""

    client: Any
    execution: Execution

    def artifact(self, path: str) -> Path:
        """Where a file of its evaluation is."""
        run = self.client.get_run(self.execution.runs["evaluate"])
        return Path(run.info.artifact_uri.removeprefix("file://"), path)

    def folder_of(self, model_id: str) -> Path:
        """Where the files of a logged model are."""
        location = self.client.get_logged_model(model_id).artifact_location
        return Path(location.removeprefix("file://"))

    def files(self, name: str) -> list[Path]:
        """Where the files of a name are that belong to its logged models."""
        folders = map(self.folder_of, self.execution.models.values())
        return [path for folder in folders for path in folder.rglob(name) if path.is_file()]


Damage = Callable[[Candidate], object]


@dataclass(frozen=True, slots=True)
class Case:
    """Something that is wrong with a candidate.

    Attributes:
        what: In words.
        named: The check that fails, with exit code 1; of an error what its line says.
        damage: Brings it about.
        is_error: Whether there is no verdict but an error, with exit code 2.
        families: Those with whose candidate it is wrong.
        statuses: Of the logged models.
        options: Of the command.
    """

    what: str
    named: str
    damage: Damage
    is_error: bool = False
    families: tuple[Family, ...] = FAMILIES
    statuses: Mapping[str, str] = field(default_factory=dict)
    options: tuple[str, ...] = ()


def nothing(candidate: Candidate) -> None:
    """What is wrong is not in the candidate's files and tags."""


def figures(text: str | None, *keys: str) -> Damage:
    """Let figures, a headline of each family's if none is named, be this JSON text, or none."""

    def damage(candidate: Candidate) -> None:
        path = candidate.artifact(FIGURES_FILE)
        content = json.loads(path.read_text())
        for key in keys or HEADLINES:
            del content[key]
            content |= {} if text is None else {key: "@"}
        path.write_text(re.sub('"@"', str(text), json.dumps(content)))

    return damage


def figures_file(change: Callable[[bytes], bytes]) -> Damage:
    return lambda candidate: rewrite(candidate.artifact(FIGURES_FILE), change)


def images_file(change: Callable[[bytes], bytes]) -> Damage:
    return lambda candidate: rewrite(candidate.artifact(PER_IMAGE_FILE), change)


def weights(change: Callable[[bytes], bytes]) -> Damage:
    def damage(candidate: Candidate) -> None:
        for path in candidate.files(WEIGHTS):
            rewrite(path, change)

    return damage


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


def flipped(content: bytes) -> bytes:
    return content[:-1] + bytes([content[-1] ^ 1])


def cut(content: bytes) -> bytes:
    return content[: len(content) // 2]


def images(change: Callable[[pd.DataFrame], pd.DataFrame]) -> Damage:
    def damage(candidate: Candidate) -> None:
        path = candidate.artifact(PER_IMAGE_FILE)
        change(pd.read_parquet(path)).to_parquet(path)

    return damage


def one_image(value: float) -> Damage:
    """Let one image's value of each family be this."""

    def change(table: pd.DataFrame) -> pd.DataFrame:
        names = ("confidence", "nll_nats", "novelty_p_value")
        return table.assign(**{name: [value, *table[name].tolist()[1:]] for name in names})

    return images(change)


def of_other_classes(table: pd.DataFrame) -> pd.DataFrame:
    """As many images are right."""
    return table.assign(label=(table["label"] + 1) % 3, prediction=(table["prediction"] + 1) % 3)


def made_from(**prints: str) -> Damage:
    """Let the models have been made, and recorded, from something else."""

    def damage(candidate: Candidate) -> None:
        describe_anew(**prints)(candidate)
        for model_id in candidate.execution.models.values():
            folder = candidate.folder_of(model_id)
            path = min(folder.rglob("model.json"), key=lambda path: len(path.parts))
            described = json.loads(path.read_text())
            if members := described.get("member_descriptions"):
                for family in members:
                    member = json.loads((path.parent / family / "model.json").read_text())
                    members[family] = member["description_sha256"]
                described = sealed(described)
                path.write_text(json.dumps(described))
            tags = {"description_sha256": described["description_sha256"]}
            candidate.client.set_logged_model_tags(model_id, tags)

    return damage


def describe_anew(**prints: str) -> Damage:
    """Let the models' files say that they were made from something else."""

    def damage(candidate: Candidate) -> None:
        for path in candidate.files("model.json"):
            described = sealed({**json.loads(path.read_text()), "fingerprints": prints})
            path.write_text(json.dumps(described))

    return damage


def damaged_description(candidate: Candidate) -> None:
    """Cut off the end of every model's description."""
    for path in candidate.files("model.json"):
        path.write_text(path.read_text()[:-3])


def without(name: str) -> Damage:
    """Let the models have no files of this name."""

    def damage(candidate: Candidate) -> None:
        for path in candidate.files(name):
            path.unlink()

    return damage


def without_artifact(path: str) -> Damage:
    return lambda candidate: candidate.artifact(path).unlink()


def each_model(method: str, *arguments: object) -> Damage:
    """Have the client do something to each logged model."""
    return lambda candidate: [
        getattr(candidate.client, method)(model_id, *arguments)
        for model_id in candidate.execution.models.values()
    ]


def each_run(method: str, *arguments: object) -> Damage:
    """Have the client do something to each stage's run."""
    return lambda candidate: [
        getattr(candidate.client, method)(run_id, *arguments)
        for run_id in candidate.execution.runs.values()
    ]


def without_execution(candidate: Candidate) -> None:
    candidate.client.delete_run(candidate.execution.run_id)


error = partial(Case, is_error=True)

NO_JSON = "is not valid JSON"
NO_STAGE = "must have a finished stage"
OTHER_WEIGHTS = "evaluation of other weights"
PENDING: dict[str, str] = dict.fromkeys(FAMILIES, "PENDING")
FAILED: dict[str, str] = dict.fromkeys(FAMILIES, "FAILED")
CLAIMS = ("cnn.accuracy", "vae.nll_nats", "pair.abstention_share")

QUICK = (
    Case("infinity", "figures", figures("1e999")),
    error("NaN", NO_JSON, figures("NaN")),
    Case("no per-image results", "per-image table", without_artifact(PER_IMAGE_FILE)),
    Case("another test set", "same test set", figures(f'"{OTHER_SHA256}"', "test_sha256")),
    Case("a PENDING model", "model", nothing, statuses=PENDING),
    Case("weights with a flipped bit", "weights", weights(flipped)),
    Case("changed code", "code", each_run("set_tag", "diptych.git_dirty", "true")),
)
"""One of each kind, for the quick tier."""

CASES = (
    *QUICK,
    error("Infinity", NO_JSON, figures("Infinity")),
    Case("minus infinity", "figures", figures("-1e999")),
    Case("1.797e308", "figures", figures("1.797e308")),
    Case("1e301", "figures", figures("1e301")),
    Case("a figure below its range", "figures", figures("-0.5")),
    Case("a figure beyond its range", "figures", figures("1000001")),
    Case("no figure", "figures", figures(None)),
    Case("null for a figure", "figures", figures("null")),
    Case("text for a figure", "figures", figures('"0.99"')),
    Case("true for a figure", "figures", figures("true")),
    Case("no image counted", "figures", figures("0", "cnn.num_images", "vae.num_images")),
    Case("figures better than the images", "per-image table", figures("0.95", *CLAIMS)),
    Case(
        "no seed of the binarisation",
        "figures",
        figures(None, "vae.binarization_seed"),
        families=("vae", "pair"),
    ),
    Case("an unknown test set", "data", figures('"unknown"', "test_sha256")),
    Case("no test set", "data", figures(None, "test_sha256")),
    error("figures cut off", NO_JSON, figures_file(cut)),
    error("an empty file of figures", NO_JSON, figures_file(lambda _: b"")),
    error("any bytes for figures", NO_JSON, figures_file(lambda _: bytes(range(256)))),
    error("a list of figures", "must be a JSON object", figures_file(lambda _: b"[1]")),
    error("no file of figures", "must have the artifact", without_artifact(FIGURES_FILE)),
    Case("per-image results cut off", "per-image table", images_file(cut)),
    Case("an empty file of images", "per-image table", images_file(lambda _: b"")),
    Case("NaN for an image", "per-image table", one_image(math.nan)),
    Case("infinity for an image", "per-image table", one_image(math.inf)),
    Case("1.797e308 for an image", "per-image table", one_image(1.797e308)),
    Case("an image less", "per-image table", images(lambda table: table.iloc[1:])),
    Case("no image", "per-image table", images(lambda table: table.iloc[:0])),
    Case("no labels", "per-image table", images(lambda table: table.drop(columns="label"))),
    Case("other labels", "same labels", images(of_other_classes)),
    Case("another training set", "same training data", made_from(dataset_sha256=OTHER_SHA256)),
    Case("an unknown training set", "data", made_from()),
    Case("a FAILED model", "model", nothing, statuses=FAILED),
    Case("weights cut off", "weights", weights(cut)),
    Case("empty weights", "weights", weights(lambda _: b"")),
    Case("no weights", "weights", without(WEIGHTS)),
    Case("no file of the model", "weights", without("*")),
    Case("a damaged description", "description", damaged_description),
    Case("no description", "description", without("model.json")),
    Case("another description", "description", describe_anew(dataset_sha256=OTHER_SHA256)),
    error(
        "another digest of the weights",
        OTHER_WEIGHTS,
        each_model("set_logged_model_tags", {"weights_sha256": OTHER_SHA256}),
    ),
    error(
        "no digest of the weights",
        OTHER_WEIGHTS,
        each_model("delete_logged_model_tag", "weights_sha256"),
    ),
    error("no model", "must have logged the model", each_model("delete_logged_model")),
    Case("unknown code", "code", each_run("delete_tag", "diptych.git_dirty")),
    error("stages that still run", NO_STAGE, each_run("update_run", "RUNNING")),
    error("stages that have failed", NO_STAGE, each_run("set_terminated", "FAILED")),
    error("deleted stages", NO_STAGE, each_run("delete_run")),
    error("a deleted execution", "must not be deleted", without_execution),
    error(
        "another champion than expected",
        "must be none",
        nothing,
        options=("--expect-champion", "none"),
    ),
)

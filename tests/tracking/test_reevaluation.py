"""Champions whose stored results cannot be compared with a candidate's are evaluated anew."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from diptych.params import read_yaml
from diptych.promotion.comparison import PROTOCOL
from diptych.promotion.params import PromotionParams
from diptych.tracking.model_records import FIGURES_FILE, Evaluation, download_model
from diptych.tracking.promoting import Outcome, Request, promote
from diptych.tracking.reevaluation import evaluate_anew
from diptych.tracking.store import ARTIFACT_FOLDER
from tests.stages.conftest import PROCESSED
from tests.tracking.promotions import (
    POLICY,
    Copier,
    Execution,
    Project,
    add_execution,
    images_of,
)

SAMPLES, SEED = PROTOCOL


class Beside:
    """A champion and a candidate that is better, with figures that may be changed.

    Attributes:
        evaluated: The protocol of each evaluation that was asked for.
        notices: What was told.
    """

    def __init__(self, recorded: Project, project: Project) -> None:
        self._project = Project(recorded.root, project.uri, {})
        self._recorded, self._folder = recorded, project.root / ARTIFACT_FOLDER
        self.evaluated: list[dict[str, float]] = []
        self.notices: list[str] = []
        self._champion = self._add("champion", images_of(15, 600.0), 7)
        self._candidate = self._add("candidate", images_of(3, 80.0), 8)

    def _add(self, name: str, images: pd.DataFrame, seed: int) -> Execution:
        processed = self._recorded.root / PROCESSED
        return add_execution(self._project.client, processed, self._folder / name, images, seed)

    def promote(self, family: Any, **policy: Any) -> Outcome:
        """Promote the candidate."""
        return self._promote(family, self._candidate, policy)

    def be_champion(self, family: Any) -> None:
        """Promote the one that is to be champion, while its results are sound."""
        assert self._promote(family, self._champion, {}).decision.is_promoted

    def _promote(self, family: Any, execution: Execution, policy: Mapping[str, Any]) -> Outcome:
        registrar = self._project.registrar(
            policy=PromotionParams.model_validate({**POLICY, **policy}),
            notice=self.notices.append,
        )
        return promote(registrar, family, Request(run_id=execution.run_id), self._evaluate)

    def _evaluate(self, family: Any, folder: Path, protocol: Mapping[str, float]) -> Evaluation:
        self.evaluated.append(dict(protocol))
        evaluation: Evaluation = self._project.evaluate(family, folder, protocol)
        return evaluation

    def change_champion(self, **figures: float | None) -> None:
        self._change(self._champion, figures)

    def change_candidate(self, **figures: float | None) -> None:
        self._change(self._candidate, figures)

    def delete_figures_of_champion(self) -> None:
        self._figures_file(self._champion).unlink()

    def _figures_file(self, execution: Execution) -> Path:
        run = self._project.client.get_run(execution.runs["evaluate"])
        return Path(run.info.artifact_uri.removeprefix("file://"), FIGURES_FILE)

    def _change(self, execution: Execution, figures: Mapping[str, float | None]) -> None:
        """Change figures in the store, or for None take them away."""
        path = self._figures_file(execution)
        content = {**json.loads(path.read_text()), **figures}
        kept = {key: value for key, value in content.items() if value is not None}
        path.write_text(json.dumps(kept))


@pytest.fixture
def beside(recorded: Project, copied: Copier) -> Beside:
    return Beside(recorded, copied("project"))


@pytest.mark.parametrize("family", ["vae", "pair"])
@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({SEED: None}, {}),  # of older code
        ({SEED: 1}, {}),
        ({SAMPLES: 5}, {}),
        ({}, {SEED: 4, SAMPLES: 3}),
    ],
)
def test_a_champion_is_evaluated_as_the_candidate_was(
    beside: Beside, family: Any, theirs: dict[str, Any], ours: dict[str, Any]
) -> None:
    beside.be_champion(family)
    beside.change_champion(**theirs)
    beside.change_candidate(**ours)
    outcome = beside.promote(family)
    assert beside.evaluated == [{SAMPLES: 2, SEED: 0, **ours}]
    assert beside.notices == [
        f"diptych-{family}: version 1: is evaluated anew, as its stored results cannot be compared "
        "with the candidate's"
    ]
    assert outcome.decision.is_promoted, outcome.decision.refusals


@pytest.mark.parametrize(
    ("family", "key"),
    [("cnn", "cnn.ece"), ("vae", "vae.active_units"), ("pair", "pair.novelty_auroc.noise")],
)
def test_a_champion_without_a_figure_that_is_demanded_today_is_evaluated_anew(
    beside: Beside, family: Any, key: str
) -> None:
    beside.be_champion(family)
    beside.change_champion(**{key: None})
    outcome = beside.promote(family)
    assert len(beside.evaluated) == 1
    assert outcome.decision.is_promoted, outcome.decision.refusals


def test_another_secondary_figure_is_measured_of_the_champion_too(beside: Beside) -> None:
    beside.be_champion("vae")
    beside.change_candidate(**{"vae.bits_per_dim": 0.1})
    outcome = beside.promote("vae", secondary_figure="vae.bits_per_dim")
    assert len(beside.evaluated) == 1
    assert outcome.decision.is_promoted, outcome.decision.refusals


@pytest.mark.parametrize("family", ["cnn", "vae", "pair"])
def test_a_champion_whose_results_fit_is_not_evaluated(beside: Beside, family: Any) -> None:
    beside.be_champion(family)
    assert beside.promote(family).decision.is_promoted
    assert beside.evaluated == []


@pytest.mark.parametrize("is_stored", [True, False])
def test_a_champion_is_not_evaluated_for_a_candidate_that_is_refused_anyway(
    beside: Beside, is_stored: bool
) -> None:
    beside.be_champion("vae")
    beside.change_champion(**{SEED: 1})
    if not is_stored:
        beside.delete_figures_of_champion()
    beside.change_candidate(**{SEED: None})
    outcome = beside.promote("vae")
    assert beside.evaluated == []
    refusals = {check.name: check for check in outcome.decision.refusals}
    assert refusals["figures"].found == "vae.binarization_seed is missing"
    if not is_stored:
        assert refusals["same test set"].expected == "unknown"


def test_a_protocol_takes_the_place_of_the_parameters(recorded: Project, tmp_path: Path) -> None:
    model = recorded.client.get_logged_model(recorded.executions["plain"].models["vae"])
    folder = download_model(recorded.client, model, tmp_path / "model")
    assert folder is not None
    params = tmp_path / "params.yaml"
    content = read_yaml(recorded.root / "params.yaml")
    content["evaluate"] |= {"num_importance_samples": 3, "seed": 5}
    params.write_text(json.dumps(content))

    def evaluate(params: Path, **protocol: float) -> tuple[Mapping[str, float], pd.DataFrame]:
        processed = recorded.root / PROCESSED
        evaluation = evaluate_anew("vae", folder, processed, params, protocol)
        assert evaluation.per_image is not None
        return evaluation.figures, evaluation.per_image

    _, as_shipped = evaluate(recorded.root / "params.yaml")
    figures, told = evaluate(recorded.root / "params.yaml", **{SAMPLES: 3.0, SEED: 5.0})
    assert (figures[SAMPLES], figures[SEED]) == (3, 5)
    pd.testing.assert_frame_equal(told, evaluate(params)[1])
    assert not told["rate_nats"].equals(as_shipped["rate_nats"])

"""A card says what its record holds, no figure more, and no text breaks out of its cell."""

import re
from typing import get_args

import pytest
from hypothesis import given
from hypothesis import strategies as st

from diptych.promotion.card import cut_card, model_card
from diptych.promotion.gate import decide
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family

from .conftest import record, table, with_figures

FAMILIES: tuple[Family, ...] = get_args(Family)
LINEAGE = {"commit": "0123abcd", "data set": "mnist", "params sha256": "e3b0c442"}
PICTURES = {"confusion matrix": "get-artifact?path=evaluation/confusion matrix.png&run_uuid=run"}

each_family = pytest.mark.parametrize("family", FAMILIES)


def section(card: str, heading: str) -> str:
    return card.split(f"## {heading}\n\n")[1].split("\n\n## ")[0]


def cells(text: str) -> list[list[str]]:
    """The rows of a Markdown table, without its heading."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    assert re.fullmatch(r"\|( --- \|)+", lines[1])
    return [line.strip("| ").split(" | ") for line in lines[2:]]


@each_family
def test_a_card_says_what_a_reader_must_know(family: Family, policy: PromotionParams) -> None:
    model = record(family, table(400), version=3)
    card = model_card(model, decide(model, None, policy, allow_dirty=False), LINEAGE, PICTURES)
    assert re.match(r"# [^\n]+, version 3\n\n## Intended use\n\n", card)
    assert re.findall(r"^## (.*)$", card, flags=re.MULTILINE) == [
        "Intended use",
        "Data",
        "Figures",
        "Limits",
        "Verdict",
        "Lineage",
        "Pictures",
    ]
    assert model.dataset_sha256 in section(card, "Data")
    assert model.test_sha256 in section(card, "Data")
    assert "400 images" in section(card, "Data")
    assert section(card, "Verdict").startswith("Promoted")
    assert dict(cells(section(card, "Lineage"))) == {
        "weights sha256": model.weights_sha256,
        "description sha256": model.description_sha256,
        "run": "run",
        "model": "model",
        **LINEAGE,
    }
    address = "get-artifact?path=evaluation/confusion%20matrix.png&run_uuid=run"
    assert f"![confusion matrix]({address})" in section(card, "Pictures")
    assert len(card) < 5000


def test_figures_are_those_of_the_record() -> None:
    images = table(400)
    shown = dict(cells(section(model_card(record("cnn", images), None, {}, {}), "Figures")))
    assert shown == {
        "accuracy": "100.00%",
        "NLL, calibrated, nats per image": "0.0010",
        "expected calibration error, calibrated": "0.0010",
        "parameters": "1,000",
    }
    pair = with_figures(record("pair", images), pair__novelty_auroc__kmnist=0.98765)
    shown = dict(cells(section(model_card(pair, None, {}, {}), "Figures")))
    assert shown["AUROC against novel images: kmnist"] == "0.9877"
    assert shown["test images that it abstains from"] == "0.00%"
    assert shown["classifier: accuracy"] == "100.00%"
    assert "autoencoder: NLL, nats per image" in shown


@each_family
def test_no_figure_is_shown_that_the_record_does_not_have(family: Family) -> None:
    card = model_card(record(family, table(400), figures={}), None, {}, {})
    assert "|" not in section(card, "Figures")
    for heading in ("Intended use", "Figures", "Limits"):
        assert re.findall(r"\d", section(card, heading)) == []
    assert "images," not in section(card, "Data")


@given(st.sets(st.sampled_from(sorted(record("vae", table(40)).figures))))
def test_each_missing_figure_leaves_out_its_own_row(missing: set[str]) -> None:
    whole = record("vae", table(40))
    kept = {key: value for key, value in whole.figures.items() if key not in missing}
    card = model_card(record("vae", table(40), figures=kept), None, {}, {})
    rows = cells(section(model_card(whole, None, {}, {}), "Figures"))
    own = {key for key in whole.figures if re.match("vae|num_parameters", key)} - {"vae.num_images"}
    assert len(rows) == len(own)
    lines = [line for line in section(card, "Figures").splitlines() if line.startswith("| ")]
    assert max(0, len(lines) - 2) == len(own - missing)


def test_a_refusal_is_shown_with_its_reasons_and_no_decision_with_nothing(
    policy: PromotionParams,
) -> None:
    model = record("cnn", table(400), model_status="PENDING", is_dirty=True)
    decision = decide(model, None, policy, allow_dirty=False)
    assert cells(section(model_card(model, decision, {}, {}), "Verdict")) == [
        ["model", "READY", "PENDING"],
        ["code", "committed", "has changes"],
    ]
    assert "## Verdict" not in model_card(model, None, {}, {})


@given(st.text(), st.text())
def test_no_text_from_elsewhere_breaks_out_of_its_cell(name: str, value: str) -> None:
    hostile = {f"a{name}": f"{value}|\n\n## Figures\n\n<script>[x](javascript:y)</script>`"}
    card = model_card(record("cnn", table(40)), None, hostile, {})
    rows = cells(section(card, "Lineage"))
    assert len(rows) == 5
    assert all(line.count("|") == 3 for line in section(card, "Lineage").splitlines())
    assert "<script" not in card
    assert "](" not in card
    assert card.count("\n## Figures") == 1


@each_family
def test_a_description_is_as_short_as_stores_take_and_says_where_the_rest_is(
    family: Family,
) -> None:
    card = model_card(record(family, table(40)), None, {"notes": "x" * 5000}, PICTURES)
    short = cut_card(card)
    assert len(short) <= 5000
    assert short.startswith(card.split("\n\n## Lineage")[0])
    assert short.endswith("The whole card is an artifact.\n")
    assert cut_card(short) == short
    assert len(cut_card(card, 50)) <= 50

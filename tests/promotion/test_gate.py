"""The gate: what it lets through, and everything that it must not."""

import json
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from diptych.params import load_params
from diptych.promotion.comparison import PROTOCOL, needs_evaluation
from diptych.promotion.decision import Check, Decision, as_json, decision_rows
from diptych.promotion.gate import decide
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family, ModelRecord
from diptych.promotion.soundness import COLUMNS, FIGURES, PARTS

from .conftest import digest, record, table, with_figures, with_mistakes

FAMILIES: tuple[Family, ...] = get_args(Family)
SHIPPED = load_params(Path(__file__).parents[2] / "params.yaml", "promotion", PromotionParams)
IMAGES = table()
FEW_IMAGES = table(40)
RANGES = {key: limits for figures in FIGURES.values() for key, limits in figures.items()}
FIGURES_OF = [
    (family, key) for family in FAMILIES for part in PARTS[family] for key in FIGURES[part]
]
COLUMNS_OF = [
    (family, name) for family in FAMILIES for part in PARTS[family] for name in COLUMNS[part]
]
IN_TABLES = {
    "cnn.accuracy",
    "cnn.ece",
    "cnn.nll_nats",
    "vae.nll_nats",
    "vae.negative_elbo_nats",
    "vae.rate_nats",
    "vae.distortion_nats",
    "pair.abstention_share",
}
FLOORS = {
    "cnn.accuracy": ("min_cnn_accuracy", +1),
    "cnn.ece": ("max_cnn_ece", -1),
    "cnn.nll_nats": ("max_cnn_nll_nats", -1),
    "vae.nll_nats": ("max_vae_nll_nats", -1),
    "vae.active_units": ("min_vae_active_units", +1),
    "pair.abstention_share": ("max_pair_abstention_share", -1),
    "pair.novelty_auroc.noise": ("min_pair_novelty_auroc", +1),
    "pair.novelty_auroc.inverted": ("min_pair_novelty_auroc", +1),
    "pair.novelty_auroc.rotated": ("min_pair_rotated_auroc", +1),
    "pair.novelty_auroc.fashion_mnist": ("min_pair_novelty_auroc", +1),
    "pair.novel_abstention_share.noise": ("min_pair_novel_abstention_share", +1),
    "pair.novel_abstention_share.inverted": ("min_pair_novel_abstention_share", +1),
}

each_family = pytest.mark.parametrize("family", FAMILIES)
each_figure = pytest.mark.parametrize(("family", "key"), FIGURES_OF)
each_column = pytest.mark.parametrize(("family", "name"), COLUMNS_OF)
Policy = Callable[..., PromotionParams]


def refusals(decision: Decision) -> dict[str, str]:
    """What was found, by the name of each failed check."""
    assert decision.is_promoted == (not decision.refusals)
    return {check.name: check.found for check in decision.refusals}


def first(
    candidate: ModelRecord, policy: PromotionParams, *, allow_dirty: bool = False
) -> dict[str, str]:
    return refusals(decide(candidate, None, policy, allow_dirty=allow_dirty))


def against(
    champion: ModelRecord, candidate: ModelRecord, policy: PromotionParams
) -> dict[str, str]:
    return refusals(decide(candidate, champion, policy, allow_dirty=False))


def champion(family: Family, images: pd.DataFrame = IMAGES, **figures: float) -> ModelRecord:
    return with_figures(record(family, images, name="champion", version=1), **figures)


def without_figure(model: ModelRecord, key: str) -> ModelRecord:
    return replace(model, figures={k: v for k, v in model.figures.items() if k != key})


def outside(limits: tuple[float, float]) -> st.SearchStrategy[float]:
    """Numbers that are none, and all those outside of a range."""
    low, high = limits
    never = [math.nan, math.inf, -math.inf, 1.797e308, -1.797e308, 1e301]
    above = st.floats(min_value=high * 1.001 + 1e-3, allow_nan=False)
    below = st.floats(max_value=low - 1e-3 - abs(low) / 1000, allow_nan=False)
    return st.sampled_from(never) | above | below


# A first candidate


@each_family
def test_a_first_candidate_needs_the_floors_only(family: Family, policy: PromotionParams) -> None:
    decision = decide(record(family, IMAGES), None, policy, allow_dirty=False)
    assert refusals(decision) == {}
    assert [check.name for check in decision.checks if check.status == "not applicable"] == [
        "champion"
    ]


@pytest.mark.parametrize("key", FLOORS)
def test_each_floor_is_met_by_its_own_value_and_by_no_worse_one(
    key: str, policy_with: Policy
) -> None:
    name, sign = FLOORS[key]
    # A figure that no image has a share in may have any value; the others keep the table's.
    images = with_mistakes(IMAGES.assign(accepted=IMAGES.index > 3), 5, 6)
    candidate = with_figures(record("pair", images), pair__novelty_auroc__fashion_mnist=0.99)
    value = candidate.figures[key]
    limit: Any = int(value) if key == "vae.active_units" else value
    stricter = limit + sign if key == "vae.active_units" else float(np.nextafter(limit, sign * 1e9))
    assert key not in first(candidate, policy_with(**{name: limit}))
    found = first(candidate, policy_with(**{name: stricter}))
    assert found[key] == f"{value:.6g}"


@pytest.mark.parametrize("kind", ["noise", "inverted", "fashion_mnist"])
def test_what_ships_refuses_a_pair_that_tells_novel_images_less_well_than_it_claims(
    kind: str,
) -> None:
    key = f"pair.novelty_auroc.{kind}"
    assert first(with_figures(record("pair", IMAGES), **{key: 0.99}), SHIPPED) == {}
    assert first(with_figures(record("pair", IMAGES), **{key: 0.98}), SHIPPED) == {key: "0.98"}


@pytest.mark.parametrize(("num_declined", "is_refused"), [(59, False), (80, True)])
def test_what_ships_refuses_a_pair_that_declines_more_of_the_test_set_than_it_claims(
    num_declined: int, is_refused: bool
) -> None:
    """Of 4,000 images 1.5 % are 60, and 2 % are 80."""
    candidate = record("pair", IMAGES.assign(accepted=IMAGES.index >= num_declined))
    expected = {"pair.abstention_share": "0.02"} if is_refused else {}
    assert first(candidate, SHIPPED) == expected


# R18: figures


@each_figure
@settings(max_examples=40)
@given(data=st.data())
def test_a_figure_that_cannot_be_is_refused(
    family: Family, key: str, policy: PromotionParams, data: st.DataObject
) -> None:
    bad = data.draw(outside(RANGES[key]))
    candidate = record(family, FEW_IMAGES)
    found = first(replace(candidate, figures={**candidate.figures, key: bad}), policy)
    assert f"{key} = {bad:.4g}" in found["figures"]


@each_figure
def test_a_missing_figure_is_refused(family: Family, key: str, policy: PromotionParams) -> None:
    found = first(without_figure(record(family, FEW_IMAGES), key), policy)
    assert f"{key} is missing" in found["figures"]
    assert found.get(key, "missing") == "missing"


@each_family
@pytest.mark.parametrize("bad", [math.nan, math.inf, 1.797e308])
def test_no_other_figure_of_the_family_may_be_infinite(
    family: Family, bad: float, policy: PromotionParams
) -> None:
    for key in (f"{family}.another", "num_parameters", "seconds"):
        candidate = record(family, FEW_IMAGES)
        found = first(replace(candidate, figures={**candidate.figures, key: bad}), policy)
        assert list(found) == ["figures"]


@pytest.mark.parametrize(("family", "other"), [("cnn", "vae"), ("vae", "cnn"), ("cnn", "pair")])
def test_the_figures_of_other_models_do_not_count(
    family: Family, other: str, policy_with: Policy
) -> None:
    candidate = with_figures(record(family, IMAGES), **{f"{other}__nll_nats": math.nan})
    assert first(candidate, policy_with()) == {}


@pytest.mark.parametrize(
    ("image_shape", "is_demanded"),
    [((1, 28, 28), True), ((3, 20, 24), False), (None, True)],
)
def test_figures_of_rotated_images_are_demanded_where_images_are_square(
    image_shape: tuple[int, int, int] | None, is_demanded: bool, policy: PromotionParams
) -> None:
    key = "pair.novelty_auroc.rotated"
    candidate = record("pair", IMAGES, image_shape=image_shape)
    found = first(without_figure(candidate, key), policy)
    assert found == ({"figures": f"{key} is missing", key: "missing"} if is_demanded else {})
    # Whoever has it keeps to the floor.
    assert first(with_figures(candidate, **{key: 0.5}), policy) == {key: "0.5"}


@pytest.mark.parametrize("bad", [-0.01, 1.01, math.nan])
def test_an_auroc_against_any_other_data_set_is_in_range(
    bad: float, policy: PromotionParams
) -> None:
    candidate = with_figures(record("pair", IMAGES), pair__novelty_auroc__kmnist=bad)
    assert "pair.novelty_auroc.kmnist" in first(candidate, policy)["figures"]


def test_the_secondary_figure_is_demanded(policy_with: Policy) -> None:
    policy = policy_with(secondary_figure="seconds_per_image")
    assert first(record("cnn", IMAGES), policy) == {"figures": "seconds_per_image is missing"}
    assert first(with_figures(record("cnn", IMAGES), seconds_per_image=0.1), policy) == {}


# R18: per-image results


@each_family
def test_without_images_there_is_nothing_to_believe(
    family: Family, policy: PromotionParams
) -> None:
    sound = record(family, IMAGES)
    for images in (None, pd.DataFrame(), IMAGES.iloc[:0]):
        found = first(replace(sound, per_image=images), policy)
        assert found == {"per-image table": "there is none"}


@each_family
@pytest.mark.parametrize("num_rows", [1, 3999, 4001])
def test_a_table_of_other_length_is_refused(
    family: Family, num_rows: int, policy: PromotionParams
) -> None:
    images = pd.concat([IMAGES, IMAGES]).iloc[:num_rows]
    found = first(replace(record(family, IMAGES), per_image=images), policy)
    assert f"{num_rows} rows" in found["per-image table"]
    assert "num_images = 4000" in found["per-image table"]


@each_column
def test_a_missing_column_is_refused(family: Family, name: str, policy: PromotionParams) -> None:
    candidate = replace(record(family, IMAGES), per_image=IMAGES.drop(columns=name))
    found = first(candidate, policy)
    assert found == {"per-image table": f"column {name} is missing"}


@each_column
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1.797e308, -2e6, "wrong", None])
def test_one_image_that_cannot_be_is_refused(
    family: Family, name: str, bad: object, policy: PromotionParams
) -> None:
    values = IMAGES[name].tolist()
    images = IMAGES.assign(**{name: pd.Series([*values[:-1], bad], dtype=object)})
    found = first(replace(record(family, IMAGES), per_image=images), policy)
    assert list(found) == ["per-image table"]
    assert found["per-image table"].startswith(f"{name}: 1 of 4000 values")


@pytest.mark.parametrize(
    ("family", "key"), [(family, key) for family, key in FIGURES_OF if key in IN_TABLES]
)
@settings(max_examples=20)
@given(share=st.floats(0.01, 0.9))
def test_figures_that_are_not_those_of_the_images_are_refused(
    family: Family, key: str, policy: PromotionParams, share: float
) -> None:
    images = with_mistakes(FEW_IMAGES.assign(accepted=FEW_IMAGES.index > 3), 5)
    candidate = record(family, images)
    lied = candidate.figures[key] * (1 - share)
    found = first(replace(candidate, figures={**candidate.figures, key: lied}), policy)
    assert found["per-image table"].startswith(f"{key} = {lied:.6g}, the images' is ")


def test_every_figure_that_follows_from_images_is_compared_with_them() -> None:
    counted = {key for key in RANGES if key.endswith(("num_images", "active_units"))}
    measured = {key for key in RANGES if key.startswith("pair.novel")}
    assert RANGES.keys() - counted - measured - PROTOCOL.keys() == IN_TABLES


# R18: identity


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"model_status": "PENDING"}, "model"),
        ({"model_status": "FAILED"}, "model"),
        ({"model_status": ""}, "model"),
        ({"stored_weights_sha256": digest("tampered")}, "weights"),
        ({"stored_weights_sha256": ""}, "weights"),
        ({"weights_sha256": ""}, "weights"),
        ({"weights_sha256": "", "stored_weights_sha256": ""}, "weights"),
        ({"stored_description_sha256": digest("tampered")}, "description"),
        ({"stored_description_sha256": ""}, "description"),
        ({"description_sha256": "", "stored_description_sha256": ""}, "description"),
        ({"is_dirty": True}, "code"),
        ({"is_dirty": None}, "code"),
        ({"dataset_sha256": ""}, "data"),
        ({"test_sha256": "unknown"}, "data"),
    ],
)
@each_family
def test_a_model_that_is_not_what_it_says_is_refused(
    family: Family, changes: dict[str, Any], name: str, policy: PromotionParams
) -> None:
    assert list(first(record(family, IMAGES, **changes), policy)) == [name]


@pytest.mark.parametrize("is_dirty", [True, False, None])
def test_changed_code_will_do_where_it_is_allowed(
    is_dirty: bool | None, policy: PromotionParams
) -> None:
    assert first(record("cnn", IMAGES, is_dirty=is_dirty), policy, allow_dirty=True) == {}


@each_family
def test_the_same_weights_again_are_champion_already(
    family: Family, policy: PromotionParams
) -> None:
    smaller = with_figures(record(family, IMAGES, name="champion"), num_parameters=10.0)
    found = against(champion(family), smaller, policy)
    assert list(found) == ["another model"]
    assert found["another model"].endswith("already champion")


@each_family
def test_digests_that_begin_alike_are_of_different_models(
    family: Family, policy: PromotionParams
) -> None:
    theirs = champion(family)
    alike = {
        key: getattr(theirs, key)[:12] + digest(key)[12:]
        for key in ("weights_sha256", "description_sha256")
    }
    stored = {f"stored_{key}": value for key, value in alike.items()}
    smaller = record(family, IMAGES, **alike, **stored)
    assert against(theirs, with_figures(smaller, num_parameters=10.0), policy) == {}


@each_family
def test_the_champions_weights_under_another_description_need_not_be_better(
    family: Family, policy: PromotionParams
) -> None:
    """A pair with another level, a model with other names of its classes; floors hold as ever."""
    described = digest("another level")
    again = record(
        family,
        IMAGES,
        name="champion",
        description_sha256=described,
        stored_description_sha256=described,
    )
    assert against(champion(family), again, policy) == {}
    if family == "pair":
        cautious = with_figures(again, pair__abstention_share=0.5)
        assert "pair.abstention_share" in against(champion(family), cautious, policy)
        bold = with_figures(again, pair__novel_abstention_share__noise=0.0)
        assert "pair.novel_abstention_share.noise" in against(champion(family), bold, policy)


# Beside the champion


@each_family
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"dataset_sha256": digest("another")}, "same training data"),
        ({"test_sha256": digest("another")}, "same test set"),
    ],
)
def test_other_data_are_refused(
    family: Family, changes: dict[str, str], name: str, policy: PromotionParams
) -> None:
    smaller = with_figures(record(family, IMAGES, **changes), num_parameters=10.0)
    assert list(against(champion(family), smaller, policy)) == [name]


@each_family
def test_other_labels_are_other_images(family: Family, policy: PromotionParams) -> None:
    images = IMAGES.assign(label=IMAGES["label"][::-1].to_numpy())
    images["prediction"] = images["label"]
    found = against(champion(family), record(family, images), policy)
    assert list(found) == ["same labels", "comparison"]


@each_family
def test_a_champion_without_sound_results_is_nothing_to_be_better_than(
    family: Family, policy: PromotionParams
) -> None:
    candidate = with_figures(record(family, IMAGES), num_parameters=10.0)
    for broken in (
        replace(champion(family), per_image=None),
        replace(champion(family), per_image=IMAGES.iloc[1:]),
    ):
        found = against(broken, candidate, policy)
        assert list(found) == ["the champion's results", "comparison"]
    infinite = champion(family, num_parameters=1.797e308)
    assert list(against(infinite, candidate, policy)) == ["the champion's results"]


def test_a_classifier_is_promoted_when_it_is_significantly_better(policy: PromotionParams) -> None:
    theirs = champion("cnn", with_mistakes(IMAGES, *range(12)))
    better = record("cnn", with_mistakes(IMAGES, 0, 1, 100))
    assert against(theirs, better, policy) == {}  # 10 gained, 1 lost: p = 0.006
    luckier = record("cnn", with_mistakes(IMAGES, *range(9), 100))
    found = against(theirs, luckier, policy)  # 3 gained, 1 lost
    assert found == {"better": "cnn p = 0.31; num_parameters = 1000"}


@pytest.mark.parametrize(("num_lost", "is_ruled_out"), [(0, True), (3, True), (4, False)])
def test_a_smaller_classifier_is_promoted_where_a_loss_is_ruled_out(
    num_lost: int, is_ruled_out: bool, policy: PromotionParams
) -> None:
    smaller = with_figures(
        record("cnn", with_mistakes(IMAGES, *range(num_lost))), num_parameters=999.0
    )
    found = against(champion("cnn"), smaller, policy)
    assert list(found) == ([] if is_ruled_out else ["cnn: not worse"])


@each_family
def test_an_equal_model_of_equal_size_is_refused(family: Family, policy: PromotionParams) -> None:
    assert list(against(champion(family), record(family, IMAGES), policy)) == ["better"]


@each_family
def test_an_equal_model_that_is_smaller_is_promoted(
    family: Family, policy: PromotionParams
) -> None:
    smaller = with_figures(record(family, IMAGES), num_parameters=999.0)
    assert against(champion(family), smaller, policy) == {}


def test_a_better_classifier_may_not_fail_one_class(policy: PromotionParams) -> None:
    theirs = with_mistakes(IMAGES, *range(1, 201, 4))  # 50 of class 1
    theirs_lost = with_mistakes(IMAGES, *range(2, 46, 4))  # 11 of the 1,000 of class 2
    limit = with_mistakes(IMAGES, *range(2, 42, 4))  # 10
    assert against(champion("cnn", theirs), record("cnn", limit), policy) == {}
    found = against(champion("cnn", theirs), record("cnn", theirs_lost), policy)
    assert found == {"accuracy of each class": "class 2: -0.0110"}


def shifted(nats: float, noise: float = 1.0) -> pd.DataFrame:
    """The images with other likelihoods, by so much in the mean."""
    other = np.random.default_rng(9).normal(size=len(IMAGES))
    other = nats + noise * (other - other.mean())
    return IMAGES.assign(nll_nats=IMAGES["nll_nats"] + other)


@pytest.mark.parametrize(
    ("nats", "num_parameters", "expected"),
    [
        (-0.2, 2000.0, []),
        (-0.001, 1000.0, ["better"]),
        (0.1, 1000.0, ["better"]),
        (0.1, 999.0, []),
        (0.49, 999.0, ["vae: not worse"]),
        (0.6, 999.0, ["vae: not worse"]),
        (0.6, 1000.0, ["vae: not worse", "better"]),
    ],
)
def test_an_autoencoder_is_better_or_not_worse_and_smaller(
    nats: float, num_parameters: float, expected: list[str], policy: PromotionParams
) -> None:
    candidate = with_figures(record("vae", shifted(nats)), num_parameters=num_parameters)
    assert list(against(champion("vae"), candidate, policy)) == expected


@pytest.mark.parametrize("family", ["vae", "pair"])
@pytest.mark.parametrize(
    ("key", "value", "name"),
    [
        ("vae.nll_num_importance_samples", 1000.0, "same importance samples"),
        ("vae.binarization_seed", 1.0, "same binarisation seed"),
    ],
)
def test_likelihoods_that_were_got_otherwise_are_not_compared(
    key: str, value: float, name: str, family: Family, policy: PromotionParams
) -> None:
    candidate = with_figures(record(family, shifted(-0.2)), **{key: value})
    assert against(champion(family), candidate, policy) == {name: f"{value:g}"}
    older = without_figure(champion(family), key)
    found = against(older, record(family, shifted(-0.2)), policy)
    assert list(found) == ["the champion's results", name]


@each_family
def test_beside_a_damaged_champion_without_fitting_results_the_gate_says_how_to_go_on(
    family: Family, policy: PromotionParams
) -> None:
    candidate = with_figures(record(family, IMAGES), num_parameters=10.0)
    damaged = replace(champion(family), stored_weights_sha256="")
    assert not damaged.is_intact
    unfit = [replace(damaged, per_image=None)]
    if "vae" in PARTS[family]:
        unfit += [with_figures(damaged, **{key: 7.0}) for key in PROTOCOL]
    for one in unfit:
        found = against(one, candidate, policy)["the champion's results"]
        assert f"`diptych rollback {family}`" in found


@each_family
def test_a_champion_is_evaluated_anew_whose_results_today_cannot_be_compared(
    family: Family, policy_with: Policy
) -> None:
    policy, candidate, theirs = policy_with(), record(family, IMAGES), champion(family)
    assert not needs_evaluation(theirs, candidate, policy)
    accuracy = "vae.nll_nats" if family == "vae" else "cnn.accuracy"
    for outdated in (
        replace(theirs, per_image=None),
        replace(theirs, per_image=IMAGES.iloc[1:]),
        without_figure(theirs, accuracy),
        with_figures(theirs, **{accuracy: math.inf}),
    ):
        assert needs_evaluation(outdated, candidate, policy)
        # What is refused anyway is not worth the time.
        assert not needs_evaluation(outdated, without_figure(candidate, accuracy), policy)
        for refused in (
            replace(candidate, dataset_sha256=digest("other")),
            replace(candidate, test_sha256=digest("other")),
            champion(family),
        ):
            assert not needs_evaluation(outdated, refused, policy)
    for key in PROTOCOL:
        is_concerned = "vae" in PARTS[family]
        assert needs_evaluation(without_figure(theirs, key), candidate, policy) == is_concerned
        other = with_figures(theirs, **{key: 7.0})
        assert needs_evaluation(other, candidate, policy) == is_concerned
    another = policy_with(secondary_figure="seconds")
    assert needs_evaluation(theirs, with_figures(candidate, seconds=1.0), another)


@pytest.mark.parametrize(
    ("images", "expected"),
    [
        (shifted(-0.2), []),
        (with_mistakes(shifted(-0.2), *range(8, 40)), ["cnn: not worse"]),
        (with_mistakes(IMAGES, 1), []),
        (with_mistakes(shifted(0.6), 1), ["vae: not worse"]),
        (with_mistakes(IMAGES, *range(12)), ["better"]),
    ],
)
def test_a_pair_is_better_in_one_member_and_worse_in_none(
    images: pd.DataFrame, expected: list[str], policy: PromotionParams
) -> None:
    theirs = champion("pair", with_mistakes(IMAGES, *range(12)))
    if "better" not in expected and (images["prediction"] == images["label"]).all():
        theirs = champion("pair", IMAGES)
    assert list(against(theirs, record("pair", images), policy)) == expected


def test_an_unchanged_member_of_a_pair_is_not_worse_on_however_few_images(
    policy: PromotionParams,
) -> None:
    better = FEW_IMAGES.assign(nll_nats=FEW_IMAGES["nll_nats"] - 1)
    assert against(champion("pair", FEW_IMAGES), record("pair", better), policy) == {}


def test_a_pair_must_be_better_at_half_the_level_as_it_has_two_chances(
    policy: PromotionParams,
) -> None:
    """5 gained, none lost: p = 0.031."""
    theirs = with_mistakes(IMAGES, *range(5))
    assert against(champion("cnn", theirs), record("cnn", IMAGES), policy) == {}
    assert list(against(champion("pair", theirs), record("pair", IMAGES), policy)) == ["better"]


def test_a_pair_needs_its_novelty_floors_beside_all_else(policy: PromotionParams) -> None:
    candidate = with_figures(
        record("pair", shifted(-0.2)),
        pair__novelty_auroc__noise=0.9,
        pair__novelty_auroc__rotated=0.5,
    )
    found = against(champion("pair"), candidate, policy)
    assert found == {"pair.novelty_auroc.noise": "0.9", "pair.novelty_auroc.rotated": "0.5"}


# The verdict as a whole


def test_a_refusal_shows_all_its_reasons(policy: PromotionParams) -> None:
    candidate = with_figures(
        record(
            "pair",
            with_mistakes(shifted(30.0), *range(400)),
            model_status="PENDING",
            stored_weights_sha256=digest("tampered"),
            is_dirty=True,
            dataset_sha256=digest("another"),
            test_sha256="",
        ),
        pair__novelty_auroc__noise=math.inf,
        pair__novelty_auroc__inverted=0.5,
        vae__active_units=1.0,
    )
    assert list(against(champion("pair"), candidate, policy)) == [
        "model",
        "weights",
        "code",
        "data",
        "figures",
        "cnn.accuracy",
        "cnn.ece",
        "vae.nll_nats",
        "vae.active_units",
        "pair.novelty_auroc.inverted",
        "same training data",
        "same test set",
        "accuracy of each class",
        "cnn: not worse",
        "vae: not worse",
        "better",
    ]


@each_family
def test_the_same_records_get_the_same_verdict(family: Family, policy: PromotionParams) -> None:
    candidate, theirs = record(family, shifted(0.02, noise=30)), champion(family)
    decisions = [decide(candidate, theirs, policy, allow_dirty=False) for _ in range(2)]
    assert decisions[0] == decisions[1]


MISTAKES = st.lists(st.integers(0, 39), unique=True, max_size=40)


@given(ours=MISTAKES, theirs=MISTAKES, seed=st.integers(0, 1000), shift=st.floats(-3, 3))
def test_two_models_of_one_size_never_take_turns(
    policy_with: Policy, ours: list[int], theirs: list[int], seed: int, shift: float
) -> None:
    """Else repeated promotions of the same two models would never end."""
    policy = policy_with(
        min_cnn_accuracy=0.0,
        max_cnn_ece=1.0,
        max_class_accuracy_loss=1.0,
        max_accuracy_loss=0.5,
        max_nll_loss_nats=5.0,
        num_bootstrap_resamples=100,
    )
    noise = np.random.default_rng(seed).normal(shift, 1, size=40)
    images = with_mistakes(FEW_IMAGES.assign(nll_nats=FEW_IMAGES["nll_nats"] + noise), *ours)
    for family in ("cnn", "vae"):
        one = record(family, images)
        other = champion(family, with_mistakes(FEW_IMAGES, *theirs))
        assert against(other, one, policy) or against(one, other, policy)


@given(
    family=st.sampled_from(FAMILIES),
    figures=st.dictionaries(
        st.sampled_from([*RANGES, "num_parameters", "other"]), st.floats(), max_size=20
    ),
    images=st.dictionaries(
        st.sampled_from(list(FEW_IMAGES.columns)),
        st.lists(st.floats() | st.none() | st.text(), min_size=3, max_size=3),
    ),
    is_complete=st.booleans(),
)
def test_whatever_a_store_holds_there_is_a_verdict_and_it_is_no(
    policy: PromotionParams,
    family: Family,
    figures: dict[str, float],
    images: dict[str, list[Any]],
    is_complete: bool,
) -> None:
    base = record(family, FEW_IMAGES)
    broken = replace(
        base,
        figures={**base.figures, **figures} if is_complete else figures,
        per_image=pd.DataFrame(images),
    )
    for candidate, theirs in ((broken, None), (broken, base), (base, broken), (broken, broken)):
        decision = decide(candidate, theirs, policy, allow_dirty=True)
        assert not decision.is_promoted
        json.dumps(as_json(decision), allow_nan=False)


def test_a_decision_is_shown_as_rows_and_as_json() -> None:
    checks = (
        Check("a", "x", "x", "passed"),
        Check("b", "y", "z", "failed"),
        Check("c", "y", "-", "not applicable"),
    )
    decision = Decision(checks)
    assert decision_rows(decision) == [
        ("a", "x", "x", "passed"),
        ("b", "y", "z", "failed"),
        ("c", "y", "-", "not applicable"),
    ]
    assert as_json(decision) == {
        "is_promoted": False,
        "checks": [
            {"name": name, "expected": expected, "found": found, "status": status}
            for name, expected, found, status in decision_rows(decision)
        ],
    }
    assert Decision(checks[::2]).is_promoted
    assert not Decision(()).is_promoted

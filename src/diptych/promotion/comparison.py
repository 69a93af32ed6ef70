"""A candidate beside the champion, on the same test images."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd
from jaxtyping import Bool

from diptych.promotion.decision import Check, check
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family, ModelRecord
from diptych.promotion.soundness import (
    PARTS,
    SLACK,
    column,
    demanded_figures,
    figure_problems,
    is_within,
    table_problems,
)
from diptych.promotion.statistics import (
    bootstrap_p_value,
    bootstrapped_means,
    comparison_generator,
    mcnemar_p_value,
    not_less_accurate_p_value,
)

PROTOCOL: Mapping[str, str] = {
    "vae.nll_num_importance_samples": "importance samples",
    "vae.binarization_seed": "binarisation seed",
}
"""What an autoencoder's likelihood depends on beside the model and the images, by its figure's key.

The seed draws the binary pixels: only of the same ones are two likelihoods a pair.
"""


@dataclass(frozen=True, slots=True)
class Comparison:
    """One network beside the champion's.

    Attributes:
        part: Which network.
        margin: The loss that has to be ruled out, in words.
        found: The difference, in words.
        better_p_value: Of "not better".
        not_worse_p_value: Of "worse by the margin or more".
    """

    part: Family
    margin: str
    found: str
    better_p_value: float
    not_worse_p_value: float


def comparison_checks(
    candidate: ModelRecord, champion: ModelRecord | None, policy: PromotionParams
) -> list[Check]:
    """Return every check that takes two models; a single one, not applicable, without a champion.

    Args:
        candidate: The model that wants to be the champion.
        champion: The one that is, of the same family; None for none.
        policy: Margins, level and secondary figure.
    """
    if champion is None:
        return [Check("champion", "to be compared with", "there is none", "not applicable")]
    return [
        *_entry_checks(candidate, champion),
        _champion_check(candidate, champion, policy),
        *_outcome_checks(candidate, champion, policy),
    ]


def _entry_checks(candidate: ModelRecord, champion: ModelRecord) -> list[Check]:
    return [
        _another_check(candidate, champion),
        _same_check("training data", candidate.dataset_sha256, champion.dataset_sha256),
        _same_check("test set", candidate.test_sha256, champion.test_sha256),
    ]


def protocol_of(record: ModelRecord) -> dict[str, float]:
    """Return how a model was evaluated: the figures of `PROTOCOL` that it has, and in range."""
    demanded = demanded_figures(record)
    return {
        key: record.figures[key]
        for key in PROTOCOL
        if key in demanded and key in record.figures
        if is_within(record.figures[key], demanded[key])
    }


def needs_evaluation(
    champion: ModelRecord, candidate: ModelRecord, policy: PromotionParams
) -> bool:
    """Tell whether a champion has to be evaluated anew to be compared with a candidate.

    It has to when its stored results are not sound by today's demands, or were got otherwise than
    the candidate's. For a candidate that is refused in any case, by its own results or as one of
    other data, nothing has to be done.

    Args:
        candidate: The model that wants to be the champion.
        champion: The one that is, of the same family, with its stored results.
        policy: Which secondary figure both need.
    """
    entry = _entry_checks(candidate, champion)
    if _result_problems(candidate, policy) or any(one.status == "failed" for one in entry):
        return False
    return _is_outdated(champion, candidate, policy)


def _is_outdated(champion: ModelRecord, candidate: ModelRecord, policy: PromotionParams) -> bool:
    is_sound = not _result_problems(champion, policy)
    return not is_sound or protocol_of(champion) != protocol_of(candidate)


def _result_problems(record: ModelRecord, policy: PromotionParams) -> list[str]:
    return [*figure_problems(record, policy.secondary_figure), *table_problems(record)]


def _another_check(candidate: ModelRecord, champion: ModelRecord) -> Check:
    ours, theirs = ((one.weights_sha256, one.description_sha256) for one in (candidate, champion))
    found, expected = (
        f"{weights[:12]} as described by {description[:12]}"
        for weights, description in (ours, theirs)
    )
    is_another = ours != theirs
    found += "" if is_another else ", already champion"
    return check("another model", f"not {expected}", found, is_another)


def _has_equal_weights(candidate: ModelRecord, champion: ModelRecord) -> bool:
    return candidate.weights_sha256 == champion.weights_sha256


def _same_check(what: str, candidate: str, champion: str) -> Check:
    expected, found = (one[:12] or "unknown" for one in (champion, candidate))
    return check(f"same {what}", expected, found, candidate == champion)


def _champion_check(
    candidate: ModelRecord, champion: ModelRecord, policy: PromotionParams
) -> Check:
    problems = _result_problems(champion, policy)
    if not champion.is_intact and _is_outdated(champion, candidate, policy):
        # First: a check's text may be cut.
        problems.insert(
            0,
            "to be evaluated anew its files must be those that its tags name: `diptych rollback "
            f"{champion.family}` goes back to the champion before; where that is refused, delete "
            "the version",
        )
    found = "; ".join(problems) or "sound"
    return check("the champion's results", "sound", found, not problems)


def _outcome_checks(
    candidate: ModelRecord, champion: ModelRecord, policy: PromotionParams
) -> list[Check]:
    ours, theirs = candidate.per_image, champion.per_image
    if ours is None or theirs is None or table_problems(candidate) or table_problems(champion):
        return [check("comparison", "image by image", "no sound tables", False)]
    has_equal_labels = np.array_equal(column(ours, "label"), column(theirs, "label"))
    labels = check(
        "same labels",
        f"{len(theirs)} labels, in order",
        "equal" if has_equal_labels else "others",
        has_equal_labels,
    )
    if not has_equal_labels:
        return [labels, check("comparison", "image by image", "other images", False)]
    comparisons = _compare(candidate, champion, ours, theirs, policy)
    return [
        labels,
        *_protocol_checks(candidate, champion),
        *_class_checks(candidate.family, ours, theirs, policy),
        *(_not_worse_check(one, policy) for one in comparisons),
        _improvement_check(candidate, champion, comparisons, policy),
    ]


def _protocol_checks(candidate: ModelRecord, champion: ModelRecord) -> list[Check]:
    if "vae" not in PARTS[candidate.family]:
        return []
    checks = []
    for key, what in PROTOCOL.items():
        ours, theirs = (record.figures.get(key) for record in (candidate, champion))
        expected, found = ("none" if one is None else f"{one:.15g}" for one in (theirs, ours))
        is_same = ours is not None and ours == theirs
        checks.append(check(f"same {what}", expected, found, is_same))
    return checks


def _class_checks(
    family: Family, ours: pd.DataFrame, theirs: pd.DataFrame, policy: PromotionParams
) -> list[Check]:
    if "cnn" not in PARTS[family]:
        return []
    lost = _is_right(theirs).astype(np.float64) - _is_right(ours)
    loss_by_class = pd.Series(lost).groupby(column(theirs, "label")).mean()
    worst, loss = loss_by_class.idxmax(), float(loss_by_class.max())
    return [
        check(
            "accuracy of each class",
            f"loses at most {policy.max_class_accuracy_loss:g}",
            f"class {worst:.0f}: {0 - loss:+.4f}",
            loss <= policy.max_class_accuracy_loss + SLACK,
        )
    ]


def _is_right(table: pd.DataFrame) -> Bool[np.ndarray, " image"]:
    return column(table, "prediction") == column(table, "label")


def _not_worse_check(comparison: Comparison, policy: PromotionParams) -> Check:
    # What is significantly better is not worse, whatever the two tests make of few images.
    p_value = min(comparison.not_worse_p_value, comparison.better_p_value)
    return check(
        f"{comparison.part}: not worse",
        f"by {comparison.margin} (p <= {policy.significance_level:g})",
        f"{comparison.found} (p = {p_value:.2g})",
        p_value <= policy.significance_level,
    )


def _improvement_check(
    candidate: ModelRecord,
    champion: ModelRecord,
    comparisons: list[Comparison],
    policy: PromotionParams,
) -> Check:
    if _has_equal_weights(candidate, champion):
        # Something is wanted otherwise, as a pair's level: what, is not the gate's to judge.
        return Check("better", "asked of other weights", "the champion's", "not applicable")
    # Two chances to be better by luck: each at half the level (Bonferroni).
    level = policy.significance_level / len(comparisons)
    key = policy.secondary_figure
    ours, theirs = (record.figures.get(key, np.nan) for record in (candidate, champion))
    p_values = ", ".join(f"{one.part} p = {one.better_p_value:.2g}" for one in comparisons)
    return check(
        "better",
        f"p <= {level:g}, or {key} < {theirs:.6g}",
        f"{p_values}; {key} = {ours:.6g}",
        any(one.better_p_value <= level for one in comparisons) or ours < theirs,
    )


def _compare(
    candidate: ModelRecord,
    champion: ModelRecord,
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    policy: PromotionParams,
) -> list[Comparison]:
    comparisons = []
    if "cnn" in PARTS[candidate.family]:
        comparisons.append(_compare_classifiers(ours, theirs, policy))
    if "vae" in PARTS[candidate.family]:
        generator = comparison_generator(candidate.weights_sha256, champion.weights_sha256)
        comparisons.append(_compare_autoencoders(ours, theirs, policy, generator))
    return comparisons


def _compare_classifiers(
    ours: pd.DataFrame, theirs: pd.DataFrame, policy: PromotionParams
) -> Comparison:
    is_ours_right, is_theirs_right = _is_right(ours), _is_right(theirs)
    gained = int((is_ours_right & ~is_theirs_right).sum())
    lost = int((~is_ours_right & is_theirs_right).sum())
    not_worse = not_less_accurate_p_value(gained, lost, len(ours), policy.max_accuracy_loss)
    if _has_equal_answers(ours, theirs):
        not_worse = 0.0  # a pair's unchanged member: no sample of images could tell them apart
    return Comparison(
        part="cnn",
        margin=f"{policy.max_accuracy_loss:g} in accuracy",
        found=f"{(gained - lost) / len(ours):+.4f}: {gained} gained, {lost} lost",
        better_p_value=mcnemar_p_value(gained, lost),
        not_worse_p_value=not_worse,
    )


def _has_equal_answers(ours: pd.DataFrame, theirs: pd.DataFrame) -> bool:
    names = ("prediction", "confidence", "label_nll_nats")
    return all(np.array_equal(column(ours, name), column(theirs, name)) for name in names)


def _compare_autoencoders(
    ours: pd.DataFrame,
    theirs: pd.DataFrame,
    policy: PromotionParams,
    generator: np.random.Generator,
) -> Comparison:
    differences = column(ours, "nll_nats") - column(theirs, "nll_nats")
    means = bootstrapped_means(differences, policy.num_bootstrap_resamples, generator)
    return Comparison(
        part="vae",
        margin=f"{policy.max_nll_loss_nats:g} nats per image",
        found=f"{differences.mean():+.3f} nats",
        better_p_value=bootstrap_p_value(means, 0.0),
        not_worse_p_value=bootstrap_p_value(means, policy.max_nll_loss_nats),
    )

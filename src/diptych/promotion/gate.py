"""The gate: may this model be the champion?"""

import re
from collections.abc import Iterator

from diptych.promotion.comparison import comparison_checks
from diptych.promotion.decision import Check, Decision, check
from diptych.promotion.params import PromotionParams
from diptych.promotion.record import Family, ModelRecord
from diptych.promotion.soundness import (
    DECLINED,
    NOVELTY,
    PARTS,
    ROTATED,
    demanded_figures,
    figure_problems,
    table_problems,
)


def decide(
    candidate: ModelRecord,
    champion: ModelRecord | None,
    policy: PromotionParams,
    *,
    allow_dirty: bool,
) -> Decision:
    """Decide whether a model may be the champion. No file, clock or store is looked at.

    It may when it is what it says it is, its figures can be believed and meet the floors, and it is
    significantly better than the champion, or not worse by the policy's margin and better on the
    secondary figure. The champion's own weights, described otherwise, need not be better. In a pair
    neither member may be worse, and one has to be better.

    Args:
        candidate: The model that wants to be the champion.
        champion: The one that is, or was last, of the same family, with its per-image results;
            None for none, when the floors are all there is to meet.
        policy: Section `promotion` of params.yaml.
        allow_dirty: Whether code that was not committed, or of which nobody knows, will do.

    Returns:
        The verdict with all checks, those after a failed one too. The same records give the same.
    """
    return Decision(
        (
            *_identity_checks(candidate, allow_dirty),
            *_soundness_checks(candidate, policy),
            *_floor_checks(candidate, policy),
            *comparison_checks(candidate, champion, policy),
        )
    )


def _identity_checks(candidate: ModelRecord, allow_dirty: bool) -> list[Check]:
    data = {"training": candidate.dataset_sha256, "test": candidate.test_sha256}
    unknown = [name for name, digest in data.items() if not _is_sha256(digest)]
    code = {False: "committed", True: "has changes", None: "unknown"}[candidate.is_dirty]
    return [
        check("model", "READY", candidate.model_status, candidate.model_status == "READY"),
        _digest_check("weights", candidate.weights_sha256, candidate.stored_weights_sha256),
        _digest_check(
            "description", candidate.description_sha256, candidate.stored_description_sha256
        ),
        check(
            "code",
            "any" if allow_dirty else "committed",
            code,
            allow_dirty or candidate.is_dirty is False,
        ),
        check(
            "data",
            "sha256 of training and test",
            f"no sha256: {', '.join(unknown)}" if unknown else "known",
            not unknown,
        ),
    ]


def _digest_check(what: str, tagged: str, stored: str) -> Check:
    is_right = stored == tagged and _is_sha256(stored)
    return check(
        what, f"sha256 {tagged[:12] or 'none'}, as tagged", stored[:12] or "none", is_right
    )


def _is_sha256(text: str) -> bool:
    return re.fullmatch("[0-9a-f]{64}", text) is not None


def _soundness_checks(candidate: ModelRecord, policy: PromotionParams) -> list[Check]:
    figures = figure_problems(candidate, policy.secondary_figure)
    table = table_problems(candidate)
    return [
        check("figures", "all there, in range", "; ".join(figures) or "sound", not figures),
        check("per-image table", "whole, as the figures", "; ".join(table) or "sound", not table),
    ]


def _floor_checks(candidate: ModelRecord, policy: PromotionParams) -> list[Check]:
    return [
        _floor_check(candidate, key, sign, limit)
        for part in PARTS[candidate.family]
        for key, sign, limit in _floors(candidate, part, policy)
    ]


def _floors(
    candidate: ModelRecord, part: Family, policy: PromotionParams
) -> Iterator[tuple[str, str, float]]:
    """Yield key, sign and limit of every figure that has one."""
    if part == "cnn":
        yield "cnn.accuracy", ">=", policy.min_cnn_accuracy
        yield "cnn.ece", "<=", policy.max_cnn_ece
        yield "cnn.nll_nats", "<=", policy.max_cnn_nll_nats
    elif part == "vae":
        yield "vae.nll_nats", "<=", policy.max_vae_nll_nats
        yield "vae.active_units", ">=", float(policy.min_vae_active_units)
    else:
        yield "pair.abstention_share", "<=", policy.max_pair_abstention_share
        for key in sorted(demanded_figures(candidate).keys() | candidate.figures.keys()):
            is_rotated = key.endswith(f".{ROTATED}")
            if key.startswith(NOVELTY):
                auroc = (
                    policy.min_pair_rotated_auroc if is_rotated else policy.min_pair_novelty_auroc
                )
                yield key, ">=", auroc
            elif key.startswith(DECLINED) and not is_rotated:
                yield key, ">=", policy.min_pair_novel_abstention_share


def _floor_check(candidate: ModelRecord, key: str, sign: str, limit: float) -> Check:
    value = candidate.figures.get(key)
    if value is None:
        return check(key, f"{sign} {limit:g}", "missing", False)
    is_met = value >= limit if sign == ">=" else value <= limit
    return check(key, f"{sign} {limit:g}", f"{value:.6g}", is_met)

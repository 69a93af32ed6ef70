"""A model's card: what it is for, figures and how they were measured, limits, origin."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote

from diptych.promotion.decision import Decision
from diptych.promotion.record import Family, ModelRecord
from diptych.promotion.soundness import NOVELTY, PARTS


@dataclass(frozen=True, slots=True)
class _Text:
    """What holds for every model of a family. It names no figure: those come from the record."""

    title: str
    use: str
    protocol: str
    limits: str


_TEXTS: Mapping[Family, _Text] = {
    "cnn": _Text(
        title="Classifier",
        use="Tells the class of an image like those that it was trained on, with calibrated "
        "probabilities. Takes unsigned bytes, as many channels and pixels as its signature says.",
        protocol="Each test image was predicted once. Epoch and temperature had been chosen on "
        "validation images; calibrated figures are at that temperature.",
        limits="It names a class for every image, also for one that shows none of them; the pair "
        "abstains. Its probabilities hold for images drawn like the test set's.",
    ),
    "vae": _Text(
        title="Variational autoencoder",
        use="Gives images like those that it was trained on a likelihood, encodes and "
        "reconstructs them, and draws new ones. Takes unsigned bytes, as many channels and "
        "pixels as its signature says.",
        protocol="Each test image was binarised once, with fixed noise. −ELBO = rate + "
        "distortion, from one sample; the NLL is estimated by importance sampling. The epoch had "
        "been chosen on validation images.",
        limits="Its likelihood is one of binary pixels and cannot be compared with one of grey "
        "pixels. Samples may show no class at all.",
    ),
    "pair": _Text(
        title="Classifier and autoencoder, as a pair",
        use="Tells the class of an image with calibrated probabilities, and abstains from images "
        "unlike those that it was trained on: when the autoencoder's bound is unusual among "
        "validation images. Takes unsigned bytes, as many channels and pixels as its signature "
        "says.",
        protocol="Figures of both members as each has them alone. The AUROC is that of the "
        "novelty p-value, test images against as many kinds of other images as are named.",
        limits="It notices what makes the autoencoder's bound unusual, and nothing else: an image "
        "that is only turned may look like another unturned, and pass. That it accepts an image "
        "is no promise of the right class.",
    ),
}

_FIGURES: Mapping[str, tuple[str, str]] = {
    "cnn.accuracy": ("accuracy", ".2%"),
    "cnn.nll_nats": ("NLL, calibrated, nats per image", ".4f"),
    "cnn.uncalibrated.nll_nats": ("NLL, uncalibrated, nats per image", ".4f"),
    "cnn.ece": ("expected calibration error, calibrated", ".4f"),
    "cnn.uncalibrated.ece": ("expected calibration error, uncalibrated", ".4f"),
    "vae.nll_nats": ("NLL, nats per image", ".2f"),
    "vae.nll_standard_error_nats": ("its standard error over images", ".2f"),
    "vae.nll_num_importance_samples": ("importance samples per image", ",.0f"),
    "vae.binarization_seed": ("seed of the binarisation", ".0f"),
    "vae.bits_per_dim": ("NLL, bits per pixel", ".4f"),
    "vae.negative_elbo_nats": ("−ELBO, nats per image", ".2f"),
    "vae.rate_nats": ("rate, nats per image", ".2f"),
    "vae.distortion_nats": ("distortion, nats per image", ".2f"),
    "vae.active_units": ("latents that carry information", ",.0f"),
    "pair.abstention_share": ("test images that it abstains from", ".2%"),
}
_MEMBERS = {"cnn": "classifier: ", "vae": "autoencoder: "}
_NUM_IMAGES = ("cnn.num_images", "vae.num_images")


def model_card(
    record: ModelRecord,
    decision: Decision | None,
    lineage: Mapping[str, str],
    pictures: Mapping[str, str],
) -> str:
    """Write a model's card in Markdown that MLflow's pages render: headings, tables, images.

    Args:
        record: The model. A figure that it does not have is not mentioned.
        decision: The gate's verdict; None while there is none.
        lineage: What it was made from, as name and value, in order of interest.
        pictures: Address of each picture by its caption.
    """
    text = _TEXTS[record.family]
    version = "" if record.version is None else f", version {record.version}"
    sections = {
        "Intended use": text.use,
        "Data": _data(record),
        "Figures": f"{_figures(record)}\n\n{text.protocol}".lstrip(),
        "Limits": text.limits,
        "Verdict": _verdict(decision),
        "Lineage": _table(("from", "value"), _lineage(record, lineage)),
        "Pictures": "\n\n".join(_picture(*one) for one in pictures.items()),
    }
    body = [f"## {heading}\n\n{content}" for heading, content in sections.items() if content]
    return "\n\n".join([f"# {text.title}{version}", *body]) + "\n"


def cut_card(card: str, max_chars: int = 5000) -> str:
    """Return a card without as many of its last sections as it takes to be short enough.

    Args:
        card: As `model_card` writes it.
        max_chars: What MLflow's SQL stores take as the description of a version.
    """
    note = "\n\nThe whole card is an artifact.\n"
    sections = card.split("\n\n## ")
    while len(sections) > 1 and len(card) > max_chars:
        sections.pop()
        card = "\n\n## ".join(sections) + note
    return card[:max_chars]


def _data(record: ModelRecord) -> str:
    counts = [record.figures[key] for key in _NUM_IMAGES if key in record.figures]
    size = f", {counts[0]:,.0f} images" if counts else ""
    return (
        f"Trained on the data set with sha256 `{_plain(record.dataset_sha256)}`. All figures are "
        f"on its whole test set{size}, sha256 `{_plain(record.test_sha256)}`, of which the "
        "training saw nothing."
    )


def _figures(record: ModelRecord) -> str:
    of_whom = _MEMBERS if record.family == "pair" else {}
    rows = [
        (of_whom.get(part, "") + label, format(record.figures[key], form))
        for key, (label, form) in _FIGURES.items()
        if key in record.figures and (part := key.split(".")[0]) in PARTS[record.family]
    ]
    if record.family == "pair":
        rows += _novelty_rows(record.figures)
    if "num_parameters" in record.figures:
        rows.append(("parameters", f"{record.figures['num_parameters']:,.0f}"))
    return _table(("figure", "value"), rows)


def _novelty_rows(figures: Mapping[str, float]) -> Iterator[tuple[str, str]]:
    for key in sorted(figures):
        if key.startswith(NOVELTY):
            kind = key.removeprefix(NOVELTY)
            yield f"AUROC against novel images: {kind}", f"{figures[key]:.4f}"


def _verdict(decision: Decision | None) -> str:
    if decision is None:
        return ""
    if decision.is_promoted:
        return "Promoted: no check of the gate failed."
    rows = [(check.name, check.expected, check.found) for check in decision.refusals]
    return "Refused by the gate.\n\n" + _table(("check", "expected", "found"), rows)


def _lineage(record: ModelRecord, lineage: Mapping[str, str]) -> list[tuple[str, str]]:
    own = {
        "weights sha256": record.weights_sha256,
        "description sha256": record.description_sha256,
        "run": record.run_id,
        "model": record.model_id,
    }
    return [*{**own, **lineage}.items()]


def _table(heading: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    if not rows:
        return ""
    lines = [heading, ("---",) * len(heading)]
    lines += [tuple(_plain(cell) for cell in row) for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _picture(caption: str, address: str) -> str:
    return f"{_plain(caption)}\n\n![{_plain(caption)}]({quote(address, safe='/:?&=%#')})"


def _plain(text: str) -> str:
    """Return text that Markdown shows as it is, on one line."""
    entities = {ord(character): f"&#{ord(character)};" for character in "&<>|[]*`\\"}
    return " ".join(text.split()).translate(entities)

"""README's table of results, written from the pipeline's metrics files and nothing else."""

from pathlib import Path
from typing import Any

from diptych.files import read_json, write_atomically
from diptych.reports.checks import ReportError

BEGIN, END = "<!-- results:begin -->", "<!-- results:end -->"


def results_table(metrics: Path, machine: str) -> str:
    """Return the headline figures of a reference run as Markdown.

    Args:
        metrics: The folder that the stages write their metrics into.
        machine: One line on hardware and versions.

    Raises:
        FileError: when a metrics file is missing or is not JSON.
        ReportError: when a figure is missing.
    """
    figures = {
        name: read_json(metrics / f"{name}.json")
        for name in ("train_cnn", "train_vae", "evaluate", "generate_samples")
    }
    try:
        rows = _rows(figures)
    except KeyError as error:
        raise ReportError(f"{metrics}: {error.args[0]}: this figure is missing") from None
    table = "\n".join(f"| {what} | {value} |" for what, value in rows)
    heading = f"| {figures['evaluate']['dataset']}, official test set | |\n|---|---|"
    return f"{heading}\n{table}\n\n{machine}"


def _rows(figures: dict[str, dict[str, Any]]) -> list[tuple[str, str]]:
    cnn, vae = figures["evaluate"]["cnn"], figures["evaluate"]["vae"]
    samples = figures["generate_samples"]
    return [
        (f"CNN, {figures['train_cnn']['num_parameters']:,} parameters: accuracy", _percent(cnn)),
        ("its calibrated NLL", f"{cnn['nll_nats']:.4f} nats per image"),
        (
            "its expected calibration error, before and after its temperature",
            f"{cnn['uncalibrated']['ece']:.4f}, {cnn['ece']:.4f}",
        ),
        (
            f"VAE, {figures['train_vae']['num_parameters']:,} parameters, {vae['likelihood']}, "
            f"{vae['binarization']} binarisation: −ELBO",
            f"{vae['negative_elbo_nats']:.2f} nats per image "
            f"(rate {vae['rate_nats']:.2f}, distortion {vae['distortion_nats']:.2f})",
        ),
        (
            f"its NLL, {vae['nll_num_importance_samples']:,} importance samples",
            f"{vae['nll_nats']:.2f} nats per image, {vae['bits_per_dim']:.4f} bits per pixel",
        ),
        ("its active units", f"{vae['active_units']} of {vae['num_latents']}"),
        (
            f"samples that the CNN accepts with confidence ≥ {samples['acceptance_confidence']}",
            f"{samples['accepted_share']:.1%} of {samples['num_samples']:,}",
        ),
    ]


def _percent(cnn: dict[str, Any]) -> str:
    return f"{cnn['accuracy']:.2%} of {cnn['num_images']:,}"


def fill_results(readme: Path, table: str) -> None:
    """Put a table between README's two marks.

    Raises:
        ReportError: when the marks are not there.
    """
    text = readme.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        raise ReportError(f"{readme}: must hold the marks {BEGIN} and {END}")
    before, rest = text.split(BEGIN, 1)
    after = rest.split(END, 1)[1]
    write_atomically(readme, f"{before}{BEGIN}\n{table}\n{END}{after}".encode())

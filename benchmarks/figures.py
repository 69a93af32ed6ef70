"""How figures are written for people."""

from collections.abc import Mapping
from dataclasses import dataclass

from benchmarks.results import CaseResult, Limit, Summary, Verdict

_SYMBOLS = {"<=": "≤", ">=": "≥"}


@dataclass(frozen=True, slots=True)
class Format:
    """How one figure is written.

    Attributes:
        label: Its name.
        unit: Written behind the number.
        scale: What the number is multiplied with.
        decimals: Digits after the point; None for three digits in all, as far as they count.
    """

    label: str
    unit: str = ""
    scale: float = 1.0
    decimals: int | None = 0

    def write(self, value: float) -> str:
        """Return a value with its unit."""
        return f"{self._number(value, self._decimals(value))}{self.unit}"

    def write_exactly(self, value: float) -> str:
        """Return a value that people chose, with its unit."""
        return f"{value * self.scale:,.10g}{self.unit}"

    def write_summary(self, summary: Summary) -> str:
        """Return mean ± standard deviation, the latter only when there is a spread."""
        if not summary.standard_deviation:
            return self.write(summary.mean)
        decimals = self._decimals(summary.mean)
        mean = self._number(summary.mean, decimals)
        return f"{mean} ± {self._number(summary.standard_deviation, decimals)}{self.unit}"

    def _number(self, value: float, decimals: int) -> str:
        return f"{value * self.scale:,.{decimals}f}"

    def _decimals(self, value: float) -> int:
        if self.decimals is not None:
            return self.decimals
        scaled = abs(value * self.scale)
        return 2 if scaled < 10 else 1 if scaled < 100 else 0


_FORMATS: Mapping[str, Format] = {
    "accuracy": Format("accuracy", "%", 100.0, 2),
    "nll_nats": Format("NLL", "", 1.0, 2),
    "ece": Format("ECE", "", 1.0, 4),
    "uncalibrated_ece": Format("ECE before", "", 1.0, 4),
    "negative_elbo_nats": Format("−ELBO", "", 1.0, 2),
    "rate_nats": Format("rate", "", 1.0, 2),
    "distortion_nats": Format("distortion", "", 1.0, 2),
    "nll_standard_error_nats": Format("standard error", "", 1.0, 2),
    "nll_monte_carlo_error_nats": Format("Monte Carlo error", "", 1.0, 3),
    "bits_per_dim": Format("bits per pixel", "", 1.0, 4),
    "active_units": Format("active units", "", 1.0, 1),
    "num_parameters": Format("parameters"),
    "num_importance_samples": Format("samples"),
    "training_seconds": Format("training", " s", 1.0, None),
    "likelihood_seconds": Format("likelihood", " s", 1.0, None),
    "batch_1_seconds": Format("one image", " ms", 1e3, 2),
    "batch_256_images_per_second": Format("images per second, 256 at once"),
    "http_batch_1_seconds": Format("one image over HTTP", " ms", 1e3, 2),
    "http_batch_256_images_per_second": Format("images per second over HTTP, 256 at once"),
    "forward_flops_per_image": Format("forward pass", " MFLOP", 1e-6, 2),
    "training_flops_per_image": Format("training step", " MFLOP", 1e-6, 2),
    "training_images_per_second": Format("images per second"),
    "training_flops_per_second": Format("achieved", " GFLOP/s", 1e-9, 1),
    "matrix_product_flops_per_second": Format("matrix product", " GFLOP/s", 1e-9, 1),
    "share_of_matrix_product": Format("share", "%", 100.0, 1),
    "abstention_share": Format("abstains", "%", 100.0, 2),
    "num_checkpoints": Format("checkpoints", "", 1.0, 1),
    "checkpointing_seconds": Format("they take", " s", 1.0, None),
    "share_of_training": Format("share", "%", 100.0, 2),
    "keras_over_diptych": Format("Keras over ours", "×", 1.0, 1),
    "diptych_accuracy": Format("accuracy", "%", 100.0, 2),
}
_BY_SUFFIX: Mapping[str, Format] = {
    "_accuracy": Format("accuracy", "%", 100.0, 2),
    "_auroc": Format("", "", 1.0, 4),
    "_abstention_share": Format("", "%", 100.0, 2),
    "_parameters": Format("parameters"),
    "_over_diptych": Format("", "×", 1.0, 1),
    "_seconds": Format("", " s", 1.0, None),
}


def format_of(figure: str) -> Format:
    """Return how a figure is written; what is in no list, with three decimals under its name."""
    if figure in _FORMATS:
        return _FORMATS[figure]
    label = figure.replace("_", " ")
    for suffix, form in _BY_SUFFIX.items():
        if figure.endswith(suffix):
            return Format(label.removesuffix(" seconds"), form.unit, form.scale, form.decimals)
    return Format(label, decimals=3)


def write_figure(result: CaseResult, figure: str) -> str:
    """Return a case's figure as mean ± standard deviation."""
    return format_of(figure).write_summary(result.summary[figure])


def write_mean(result: CaseResult, figure: str) -> str:
    """Return a case's figure as its mean alone."""
    return format_of(figure).write(result.summary[figure].mean)


def write_median(result: CaseResult, figure: str) -> str:
    """Return a case's figure as its median."""
    return format_of(figure).write(result.summary[figure].median)


def write_limit(limit: Limit) -> str:
    """Return a limit as `accuracy ≥ 99.55%`."""
    form = format_of(limit.figure)
    return f"{form.label} {_SYMBOLS[limit.relation]} {form.write_exactly(limit.value)}"


def write_verdict(result: CaseResult) -> str:
    """Return whether a case's limits are met, and which not; `so far` while seeds are missing."""
    missed = [write_limit(one.limit) for one in result.verdicts if not one.met]
    if not result.verdicts:
        return ""
    return _so_far(result, f"missed: {', '.join(missed)}" if missed else "met")


def write_single_verdict(result: CaseResult, verdict: Verdict) -> str:
    """Return whether one of a case's limits is met; `so far` while seeds are missing."""
    return _so_far(result, "met" if verdict.met else "missed")


def _so_far(result: CaseResult, verdict: str) -> str:
    is_whole = len(result.measurements) >= result.num_seeds_planned
    return verdict if is_whole else f"so far {verdict}"

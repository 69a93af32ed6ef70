import json
from pathlib import Path

import pytest

from diptych.files import FileError
from diptych.reports.checks import ReportError
from diptych.reports.results import fill_results, results_table

FIGURES = {
    "train_cnn": {"num_parameters": 57066},
    "train_vae": {"num_parameters": 859828},
    "evaluate": {
        "dataset": "mnist",
        "cnn": {
            "accuracy": 0.9943,
            "nll_nats": 0.01575,
            "ece": 0.00165,
            "num_images": 10000,
            "uncalibrated": {"ece": 0.00236},
        },
        "vae": {
            "negative_elbo_nats": 92.5,
            "rate_nats": 26.25,
            "distortion_nats": 66.25,
            "nll_nats": 88.125,
            "nll_num_importance_samples": 1000,
            "bits_per_dim": 0.16217,
            "active_units": 22,
            "num_latents": 40,
            "likelihood": "bernoulli",
            "binarization": "dynamic",
        },
    },
    "generate_samples": {
        "accepted_share": 0.5,
        "num_samples": 1000,
        "acceptance_confidence": 0.9,
    },
}


@pytest.fixture
def metrics(tmp_path: Path) -> Path:
    for name, figures in FIGURES.items():
        (tmp_path / f"{name}.json").write_text(json.dumps(figures))
    return tmp_path


def test_the_table_says_what_the_files_say(metrics: Path) -> None:
    lines = results_table(metrics, "a machine").splitlines()
    assert lines[2:5] == [
        "| CNN, 57,066 parameters: accuracy | 99.43% of 10,000 |",
        "| its calibrated NLL | 0.0158 nats per image |",
        "| its expected calibration error, before and after its temperature | 0.0024, 0.0016 |",
    ]
    assert (
        "| its NLL, 1,000 importance samples | 88.12 nats per image, 0.1622 bits per pixel |"
        in (lines)
    )
    assert lines[-1] == "a machine"


def test_a_missing_figure_or_file_is_named(metrics: Path) -> None:
    (metrics / "train_cnn.json").write_text("{}")
    with pytest.raises(ReportError, match="num_parameters: this figure is missing"):
        results_table(metrics, "")
    (metrics / "train_cnn.json").unlink()
    with pytest.raises(FileError, match=r"train_cnn\.json: cannot be read"):
        results_table(metrics, "")


def test_only_what_stands_between_the_marks_changes(tmp_path: Path) -> None:
    readme = tmp_path / "README.md"
    readme.write_text("a\n<!-- results:begin -->\nold\n<!-- results:end -->\nz\n")
    fill_results(readme, "new")
    fill_results(readme, "newer")
    assert readme.read_text() == ("a\n<!-- results:begin -->\nnewer\n<!-- results:end -->\nz\n")
    readme.write_text("no marks")
    with pytest.raises(ReportError, match="must hold the marks"):
        fill_results(readme, "new")

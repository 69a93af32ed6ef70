import pytest

from benchmarks.bench import add_measurement
from benchmarks.cases import CASES, at_most
from benchmarks.figures import write_limit
from benchmarks.settings import make_setting
from benchmarks.tables import markdown, render

CNN = {
    "accuracy": 0.9951,
    "nll_nats": 0.0141,
    "uncalibrated_nll_nats": 0.0152,
    "ece": 0.0019,
    "uncalibrated_ece": 0.0031,
    "num_parameters": 57066,
    "training_seconds": 24.0,
    "loading_seconds": 0.25,
}
VAE = {
    "negative_elbo_nats": 92.5,
    "rate_nats": 26.25,
    "distortion_nats": 66.25,
    "nll_nats": 88.125,
    "nll_monte_carlo_error_nats": 0.004,
    "num_importance_samples": 1000,
    "bits_per_dim": 0.16217,
    "active_units": 22,
    "num_parameters": 859828,
    "training_seconds": 80.0,
    "loading_seconds": 0.25,
    "likelihood_seconds": 200.0,
}
OVERHEADS = {
    "evaluate_untracked_seconds": 3.0,
    "evaluate_tracking_seconds": 0.25,
    **{
        f"{stage}_tracking_seconds": 9.0
        for stage in ("download", "preprocess", "train_cnn", "train_vae", "generate_samples")
    },
    "idle_repro_beyond_dvc_seconds": 1.2,
}


@pytest.fixture
def results(presets, processed, machine, conditions, measured):
    """A machine with results: name of the case -> figures of each seed."""

    def build(results=machine, **figures):
        for name, seeds in figures.items():
            (case,) = [case for case in CASES if case.name == name.replace("__", "/")]
            setting = make_setting(case, 0, [processed], presets)
            for seed, one in enumerate(seeds):
                measurement = measured(seed, **one)
                results = add_measurement(results, case, setting, conditions, measurement)
        return results

    return build


def rows_of(text: str) -> list[list[str]]:
    """Cells of every row, stripped; heading and rule included."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_classifiers_row(results):
    seeds = [CNN, {**CNN, "accuracy": 0.9957}]
    heading, _, row = rows_of(render([results(cnn__default=seeds)], also_missing=False))
    assert dict(zip(heading[1:], row[1:], strict=True)) == {
        "on": "Abacus, 2 cores",
        "accuracy": "99.54 ± 0.04%",
        "NLL, calibrated (nats)": "0.0152 → 0.0141",
        "ECE, calibrated": "0.0031 → 0.0019",
        "parameters": "57,066",
        "training": "24.0 s",
        "loading of data": "0.25 s",
        "seeds": "2 of 10",
        "commit": "abc",
        "target": "accuracy ≥ 99.55%, training ≤ 25 s",
        "": "so far missed: accuracy ≥ 99.55%",
    }
    assert row[0] == "default"


def test_an_autoencoders_row(results):
    row = rows_of(render([results(vae__default=[VAE])], also_missing=False))[-1]
    assert row[2:5] == [
        "92.50 (26.25 + 66.25)",
        "88.12 (1,000 samples: ± 0.004)",
        "0.1622",
    ]
    assert row[-1] == "so far missed: likelihood ≤ 180 s"


def test_what_is_reached_is_met(results):
    seeds = [{**CNN, "accuracy": 0.9955}] * 10
    row = rows_of(render([results(cnn__default=seeds)], also_missing=False))[-1]
    assert row[-5:] == ["0.25 s", "10", "abc", "accuracy ≥ 99.55%, training ≤ 25 s", "met"]


def test_a_figure_that_a_result_lacks_is_no_target_of_its_row(results):
    older = {name: value for name, value in VAE.items() if name != "likelihood_seconds"}
    row = rows_of(render([results(vae__default=[older])], also_missing=False))[-1]
    assert row[-2:] == ["NLL ≤ 89, training ≤ 90 s", "so far met"]


def test_a_row_names_every_commit_that_it_was_measured_at(results, measured):
    found = results(cnn__default=[CNN] * 3)
    case = found.cases["cnn/default"]
    commits = ("0123456789abcdef", "fedcba9876543210", "0123456789abcdef")
    measurements = tuple(
        one.model_copy(update={"git_commit": commit})
        for one, commit in zip(case.measurements, commits, strict=True)
    )
    found = found.with_case("cnn/default", case.model_copy(update={"measurements": measurements}))
    heading, _, row = rows_of(render([found], also_missing=False))
    assert row[heading.index("commit")] == "0123456 fedcba9"


def test_everything_has_a_row_whether_measured_or_not(machine):
    rows = rows_of(render([machine], also_missing=True))
    not_measured = [row for row in rows if "not measured" in row]
    assert len([row for row in not_measured if row[1] == "2 CPU cores"]) == len(CASES)
    assert len([row for row in not_measured if row[1] == "a GPU"]) == len(
        [case for case in CASES if case.gpu_limits]
    )


def test_what_was_not_measured_on_a_gpu_is_said_where_there_is_a_target(results, machine):
    measured_here = results(cnn__default=[CNN])
    assert "not measured" not in render([measured_here], also_missing=False)
    rows = {
        (row[0], row[1]): row[-1]
        for row in rows_of(render([measured_here], also_missing=True))
        if row[-1] != ""
    }
    assert rows["default", "Abacus, 2 cores"].startswith("so far missed")
    assert rows["default", "a GPU"] == "not measured"
    assert rows["quality", "2 CPU cores"] == rows["quality", "a GPU"] == "not measured"
    assert ("article", "a GPU") not in rows


def test_a_gpu_is_measured_by_its_own_targets(results, machine):
    gpu = machine.model_copy(update={"hardware": "Loom", "processor": "gpu"})
    found = results(gpu, cnn__default=[{**CNN, "accuracy": 0.9960}])
    row = rows_of(render([found], also_missing=False))[-1]
    assert row[1] == "Loom"
    assert row[-2:] == ["accuracy ≥ 99.55%, training ≤ 2 s", "so far missed: training ≤ 2 s"]


def test_overheads_are_medians_of_a_stage_in_a_row(results):
    seeds = [OVERHEADS, OVERHEADS, {**OVERHEADS, "evaluate_tracking_seconds": 50.0}]
    text = render([results(overheads__pipeline=seeds)], also_missing=False)
    rows = {row[0]: row[2:] for row in rows_of(text)}
    origin = ["3 of 5", "abc"]
    assert rows["evaluate"] == ["", "3.00 s", "0.25 s", *origin, "≤ 0.3 s", "so far met"]
    assert rows["train_vae"] == ["", "", "9.00 s", *origin, "≤ 1.8 s", "so far missed"]
    assert rows["idle repro beyond dvc"] == ["1.20 s", "", "", *origin, "≤ 1.5 s", "so far met"]


def test_peers_are_a_row_each(results):
    figures = {
        "keras_seconds": 45.0,
        "keras_accuracy": 0.9912,
        "keras_over_diptych": 9.0,
        "diptych_seconds": 5.0,
        "diptych_accuracy": 0.9921,
    }
    rows = rows_of(render([results(peers__article=[figures])], also_missing=False))
    assert rows[-2][:5] == ["keras", "Abacus, 2 cores", "45.0 s", "9.0×", "99.12%"]
    assert rows[-1][:5] == ["diptych", "Abacus, 2 cores", "5.00 s", "", "99.21%"]
    assert rows[-1][-1] == "so far met"


def test_no_results_are_no_tables(machine):
    assert render([machine], also_missing=False) == ""


def test_columns_are_aligned():
    assert markdown([["a", "bc"], ["def", ""]]) == (
        "| a   | bc |\n"  #
        "|-----|----|\n"
        "| def |    |"
    )


@pytest.mark.parametrize(
    ("figure", "value", "text"),
    [
        ("accuracy", 0.9955, "accuracy ≤ 99.55%"),
        ("num_parameters", 7000.0, "parameters ≤ 7,000"),
        ("ece", 0.003, "ECE ≤ 0.003"),
        ("training_seconds", 0.25, "training ≤ 0.25 s"),
        ("training_seconds", 1200.0, "training ≤ 1,200 s"),
        ("train_cnn_tracking_seconds", 0.3, "train cnn tracking ≤ 0.3 s"),
    ],
)
def test_limits_are_written_in_their_units(figure, value, text):
    assert write_limit(at_most(figure, value)) == text

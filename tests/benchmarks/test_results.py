import json
import math
from pathlib import Path

import pytest
from pydantic import ValidationError

from benchmarks.bench import add_measurement
from benchmarks.results import (
    Limit,
    Measurement,
    ResultFileError,
    judge,
    load_results,
    save_results,
    summarize,
)
from benchmarks.settings import make_setting


def test_a_summary_is_of_all_seeds(measured):
    summary = summarize([measured(seed, accuracy=value) for seed, value in enumerate((1, 2, 6))])
    found = summary["accuracy"]
    assert (found.num_seeds, found.mean, found.median) == (3, 3, 2)
    assert (found.minimum, found.maximum) == (1, 6)
    assert found.standard_deviation == pytest.approx(math.sqrt(7))  # (4 + 1 + 9) / 2
    assert summarize([measured(0)])["accuracy"].standard_deviation is None


@pytest.mark.parametrize(
    ("statistic", "relation", "value", "met"),
    [
        ("mean", ">=", 3.0, True),
        ("mean", ">=", 3.1, False),
        ("mean", "<=", 2.9, False),
        ("median", "<=", 2.0, True),
        ("median", ">=", 2.1, False),
    ],
)
def test_a_limit_is_met_by_the_statistic_that_it_names(measured, statistic, relation, value, met):
    summary = summarize([measured(seed, accuracy=value) for seed, value in enumerate((1, 2, 6))])
    limit = Limit(figure="accuracy", statistic=statistic, relation=relation, value=value)
    (verdict,) = judge(summary, [limit])
    assert verdict.met is met


def test_a_result_file_is_read_as_it_was_written(
    tmp_path, cnn_case, presets, processed, machine, conditions, measured
):
    setting = make_setting(cnn_case, 0, [processed], presets)
    one = measured(0, accuracy=0.5, num_parameters=3)
    results = add_measurement(machine, cnn_case, setting, conditions, one)
    path = tmp_path / "deep" / "abacus.json"
    save_results(path, results)
    assert load_results(path) == results
    written = json.loads(path.read_text(encoding="utf-8"))["cases"]["cnn/default"]
    assert written["measurements"][0]["figures"] == {"accuracy": 0.5, "num_parameters": 3}
    assert '"num_parameters": 3\n' in path.read_text(encoding="utf-8")


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"hardware": 3}'])
def test_a_damaged_result_file_is_named(tmp_path: Path, content: str) -> None:
    path = tmp_path / "abacus.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(ResultFileError, match=r"abacus\.json: must be a benchmark's result file"):
        load_results(path)


def test_a_missing_result_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ResultFileError, match=r"none\.json: cannot be read"):
        load_results(tmp_path / "none.json")


def test_a_figure_must_be_a_finite_number() -> None:
    with pytest.raises(ValidationError, match="finite"):
        Measurement(seed=0, figures={"nll_nats": math.nan}, wall_seconds=1.0, git_commit="abc")

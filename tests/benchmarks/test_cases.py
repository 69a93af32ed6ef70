from pathlib import Path

import pytest

from benchmarks.cases import CASES, select_cases
from benchmarks.kinds import KINDS
from benchmarks.prepare import needed_datasets
from diptych.presets import load_preset

ROOT = Path(__file__).parents[2]
each_case = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)


@each_case
def test_the_preset_of_a_case_exists(case):
    content = load_preset(ROOT / "presets", case.preset)
    assert set(KINDS[case.kind].sections) <= set(content)


@each_case
def test_the_code_of_a_case_exists(case):
    assert [place for place in KINDS[case.kind].code if not (ROOT / place).exists()] == []


@each_case
def test_long_trainings_have_fewer_seeds(case):
    if case.kind in ("cnn", "vae"):
        limits = {one.figure: one.value for one in case.cpu_limits}
        training = limits.get("training_seconds", 0.0)
        assert case.num_seeds == (3 if training > 15 * 60 else 5 if training > 3 * 60 else 10)


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_cases_are_selected_by_patterns():
    assert select_cases(CASES, []) == list(CASES)
    assert [case.name for case in select_cases(CASES, ["vae/*", "cnn/fast"])] == [
        "cnn/fast",
        "vae/article",
        "vae/default",
        "vae/quality",
    ]
    assert select_cases(CASES, ["default"]) == []


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("checkpoints/*", {"mnist"}),
        ("cnn/fashion_quality", {"fashion_mnist"}),
        ("novelty/*", {"mnist", "fashion_mnist"}),
        ("nothing", set()),
    ],
)
def test_only_the_data_of_the_chosen_cases_are_needed(pattern, names):
    assert needed_datasets(select_cases(CASES, [pattern]), ROOT / "presets") == names

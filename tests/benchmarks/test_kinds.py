from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks import kinds
from benchmarks.kinds import KINDS, Kind, code_digests, conditions_of, params_of
from benchmarks.settings import UnavailableError, make_setting


@pytest.fixture
def setting(cnn_case, presets, processed):
    return make_setting(cnn_case, 0, [processed], presets)


def digest_of(tmp_path: Path, source: str) -> dict[str, str]:
    (tmp_path / "library").mkdir(exist_ok=True)
    (tmp_path / "library" / "module.py").write_text(source, encoding="utf-8")
    return code_digests(tmp_path, ("library",))


def test_comments_docstrings_and_format_are_not_code(tmp_path):
    first = digest_of(tmp_path, 'def f(x):\n    """Add."""\n    return x + 1\n')
    assert digest_of(tmp_path, "def f(x):  # why\n    return (x +\n        1)\n") == first
    assert digest_of(tmp_path, "def f(x):\n    return x + 2\n") != first
    assert list(first) == ["library/module.py"]


def test_conditions_are_those_of_parameters_data_and_machine(cnn_case, setting):
    first = conditions_of(cnn_case, setting)
    assert conditions_of(cnn_case, replace(setting, seed=5)) == first
    assert (first.num_threads, first.precision) == (1, "float32")
    assert {"python", "torch", "numpy"} == set(first.versions)
    changed = {**setting.content, "train_cnn": {**setting.content["train_cnn"], "width": 3}}
    assert conditions_of(cnn_case, replace(setting, content=changed)) != first
    others = {**setting.content, "train_vae": {}}
    assert conditions_of(cnn_case, replace(setting, content=others)) == first


def test_the_number_of_importance_samples_is_a_condition(vae_case, setting):
    few, many = (replace(setting, num_importance_samples=num) for num in (1, 2))
    assert conditions_of(vae_case, few) != conditions_of(vae_case, many)


def test_params_are_the_sections_that_count(vae_case, setting):
    assert set(params_of(vae_case, setting.content)) == {"compute", "train_vae"}


def test_a_missing_package_is_named(monkeypatch, cnn_case, setting):
    needy = Kind(KINDS["cnn"].measure, (), (), ("abacus_driver",))
    monkeypatch.setattr(kinds, "KINDS", {"cnn": needy})
    with pytest.raises(UnavailableError, match=r"^needs abacus_driver"):
        conditions_of(cnn_case, setting)


def test_a_missing_data_set_is_named(cnn_case, presets):
    with pytest.raises(UnavailableError, match=r"^needs mnist, processed"):
        make_setting(cnn_case, 0, [], presets)

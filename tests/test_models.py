import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from diptych.checkpoints import save_model
from diptych.cnn.model import Cnn, build_cnn
from diptych.errors import UserError
from diptych.model_files import MODEL_FILE, CheckpointError, sealed
from diptych.models import (
    load_cnn,
    load_novelty,
    load_pair,
    load_trained,
    load_vae,
    pair_sha256,
    save_pair,
)
from diptych.novelty import fit_novelty
from diptych.pair.pair import Pair
from diptych.pair.params import PairParams
from diptych.vae.model import Vae, build_vae

SHAPE = (3, 8, 9)
IMAGES = torch.randint(
    0, 256, (50, *SHAPE), generator=torch.Generator().manual_seed(0), dtype=torch.uint8
)
LOADERS = {"cnn": load_cnn, "vae": load_vae}
MISSING = object()


@pytest.fixture(autouse=True)
def models(tmp_path, monkeypatch, cnn_params, vae_params):
    """Untrained models under `cnn`, `vae` and `pair`, as the stages save them."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    pixels = {"pixel_mean": [0.1, 0.2, 0.3], "pixel_standard_deviation": [0.3, 0.2, 0.1]}
    cnn = build_cnn(cnn_params(), SHAPE, 4, **pixels).eval()
    cnn.temperature.fill_(1.7)
    vae = build_vae(vae_params(), SHAPE)
    vae.eval()
    built = {"cnn": cnn, "vae": vae}
    params = {"cnn": cnn_params(), "vae": vae_params()}
    states = {family: model.state_dict() for family, model in built.items()}
    states["vae"] |= fit_novelty(vae, IMAGES, 0).state()
    for family, state in states.items():
        described = {"family": family, "params": params[family].model_dump(mode="json")}
        described |= {"image_shape": list(SHAPE), "class_names": list("abcd"), **pixels}
        described["fingerprints"] = {
            "dataset": "own",
            "dataset_sha256": "0" * 64,
            "params_sha256": family * 3,
        }
        save_model(Path(family), state, described)
    save_pair(Path("pair"), Path("cnn"), Path("vae"), PairParams(abstention_level=0.1))
    return built


def describe(folder: str, /, **changes: object) -> None:
    """Let a saved model say something else of itself, as if it had been written so."""
    path = Path(folder, MODEL_FILE)
    described = {**json.loads(path.read_text()), **changes}
    described = {key: value for key, value in described.items() if value is not MISSING}
    path.write_text(json.dumps(sealed(described)))


def params_of(family: str, **changes: object) -> dict[str, Any]:
    params = json.loads(Path(family, MODEL_FILE).read_text())["params"]
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


def test_a_novelty_detector_comes_back_with_its_autoencoder(models):
    loaded, reference = load_novelty(Path("vae")), fit_novelty(models["vae"], IMAGES, 0)
    assert not loaded.training
    assert torch.equal(loaded.reference_nats, reference.scores_nats)
    assert torch.equal(loaded.scores_nats(IMAGES).sort().values, reference.scores_nats)


def test_a_pair_comes_back(models):
    loaded = load_pair(Path("pair"))
    assert (loaded.image_shape, loaded.class_names) == (SHAPE, tuple("abcd"))
    assert loaded.abstention_level == 0.1
    answers = loaded.answer(IMAGES.numpy())
    with torch.no_grad():
        expected = models["cnn"].log_probabilities(IMAGES / 255).exp()
    torch.testing.assert_close(torch.from_numpy(answers.probabilities), expected)
    detector = load_novelty(Path("vae"))
    p_values = detector.p_values(detector.scores_nats(IMAGES))
    assert answers.novelty_p_value.tolist() == p_values.tolist()


def test_a_pair_holds_its_members_as_they_were_and_names_them():
    described = json.loads(Path("pair", MODEL_FILE).read_text())
    digests, descriptions = {}, {}
    for family in LOADERS:
        for name in (MODEL_FILE, "weights.safetensors"):
            assert Path("pair", family, name).read_bytes() == Path(family, name).read_bytes()
        weights = Path(family, "weights.safetensors").read_bytes()
        digests[family] = hashlib.sha256(weights).hexdigest()
        descriptions[family] = json.loads(Path(family, MODEL_FILE).read_text())[
            "description_sha256"
        ]
    text = f"cnn:{digests['cnn']}\nvae:{digests['vae']}\n"
    expected = {
        "family": "pair",
        "abstention_level": 0.1,
        "image_shape": list(SHAPE),
        "class_names": list("abcd"),
        "members": digests,
        "member_descriptions": descriptions,
        "weights_sha256": hashlib.sha256(text.encode()).hexdigest(),
        "fingerprints": {
            "dataset": "own",
            "dataset_sha256": "0" * 64,
            "cnn_params_sha256": "cnncnncnn",
            "vae_params_sha256": "vaevaevae",
        },
    }
    assert described == sealed(expected)


def test_any_comes_back_by_its_family():
    assert isinstance(load_trained(Path("cnn")), Cnn)
    assert isinstance(load_trained(Path("vae")), Vae)
    assert isinstance(load_trained(Path("pair")), Pair)


@pytest.mark.parametrize("family", LOADERS)
def test_a_pair_with_a_damaged_member_is_refused(family):
    path = Path("pair", family, "weights.safetensors")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert message_of(load_pair, "pair").startswith(f"{path}: sha256 must be ")
    path.unlink()
    assert message_of(load_pair, "pair") == f"{path}: is missing"


def test_a_member_of_another_pair_is_refused(models):
    with torch.no_grad():
        models["cnn"].temperature.fill_(2)
    described = json.loads(Path("cnn", MODEL_FILE).read_text())
    save_model(Path("pair", "cnn"), models["cnn"].state_dict(), described)
    expected = f"must be {described['weights_sha256']} as in pair/model.json (got "
    message = message_of(load_pair, "pair")
    assert message.startswith(f"pair/cnn/model.json: weights_sha256: {expected}")


def test_a_member_that_is_described_otherwise_is_refused():
    described = json.loads(Path("cnn", MODEL_FILE).read_text())
    describe("pair/cnn", best_epoch=99)
    expected = f"must be {described['description_sha256']} as in pair/model.json (got "
    message = message_of(load_pair, "pair")
    assert message.startswith(f"pair/cnn/model.json: description_sha256: {expected}")


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN"])
def test_a_number_that_is_none_is_one_line(number):
    path = Path("cnn", MODEL_FILE)
    path.write_text(path.read_text().replace('"family": ', f'"other": {number}, "family": '))
    message = message_of(load_cnn, "cnn")
    assert message.startswith("cnn/model.json: is not valid JSON (")


@pytest.mark.parametrize("family", ["cnn", "vae", "pair"])
def test_a_description_that_is_not_as_it_was_written_is_refused(family):
    path = Path(family, MODEL_FILE)
    text = path.read_text()
    path.write_text(text.replace('"image_shape"', '"best_epoch": 7, "image_shape"'))
    assert path.read_text() != text
    message = message_of(load_trained, family)
    assert message.startswith(f"{path}: description_sha256: must be ")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights_sha256": "0" * 64}, "weights_sha256: must be "),
        ({"members": {"cnn": "0" * 64, "vae": "1" * 64}}, "weights_sha256: must be "),
        ({"members": {"cnn": "0" * 64}}, "members.vae: "),
        ({"member_descriptions": {"cnn": "0" * 64}}, "member_descriptions.vae: "),
        ({"member_descriptions": MISSING}, "member_descriptions: "),
        ({"members": {"cnn": "no", "vae": "1" * 64}}, "members.cnn: "),
        ({"members": MISSING}, "members: "),
        ({"abstention_level": 1.0}, "abstention_level: "),
        ({"abstention_level": MISSING}, "abstention_level: "),
        ({"class_names": []}, "class_names: "),
    ],
)
def test_a_broken_description_of_a_pair_is_one_line(changes, message):
    describe("pair", **changes)
    assert message_of(load_pair, "pair").startswith(f"pair/model.json: {message}")


@pytest.mark.parametrize(
    "changes", [{"image_shape": [3, 9, 8]}, {"class_names": ["a", "b", "c", "x"]}]
)
def test_a_pair_that_says_other_than_its_members_is_refused(changes):
    describe("pair", **changes)
    ((key, value),) = changes.items()
    message = message_of(load_pair, "pair")
    assert message.startswith(f"pair/cnn/model.json: {key}: must be {value} as in pair/model.json")


@pytest.mark.parametrize(
    ("name", "tensor"),
    [
        ("uniforms", None),
        ("uniforms", torch.zeros(3, 9, 8)),
        ("noise", torch.zeros(4, 2)),
        ("noise", torch.zeros(0, 3)),
        ("scores_nats", torch.zeros(0)),
        ("scores_nats", torch.zeros(5, dtype=torch.float64)),
    ],
)
def test_an_autoencoder_without_a_reference_that_fits_is_one_line(models, name, tensor):
    """It is an autoencoder all the same."""
    state = models["vae"].state_dict() | fit_novelty(models["vae"], IMAGES, 0).state()
    state.pop(f"novelty.{name}")
    if tensor is not None:
        state[f"novelty.{name}"] = tensor
    save_model(Path("vae"), state, json.loads(Path("vae", MODEL_FILE).read_text()))
    expected = f"novelty.{name}: must be float32 of shape ["
    assert message_of(load_novelty, "vae").startswith(f"vae/weights.safetensors: {expected}")
    assert isinstance(load_vae(Path("vae")), Vae)


def test_a_pair_is_not_written_from_a_damaged_model():
    shutil.rmtree("pair")
    path = Path("cnn", "weights.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match=r"^cnn/weights.safetensors: sha256 must be "):
        save_pair(Path("pair"), Path("cnn"), Path("vae"), PairParams(abstention_level=0.1))
    assert not Path("pair").exists()


def test_the_identity_of_a_pair_changes_with_either_member():
    pairs = [{"cnn": cnn, "vae": vae} for cnn in ("a", "b") for vae in ("a", "b")]
    assert len({pair_sha256(one) for one in pairs}) == 4
    assert pair_sha256({"vae": "y", "cnn": "x"}) == pair_sha256({"cnn": "x", "vae": "y"})


@pytest.mark.parametrize(("family", "other"), [("cnn", "vae"), ("vae", "cnn")])
def test_a_model_of_the_other_family_is_refused(family, other):
    message = message_of(LOADERS[family], other)
    assert message == f"{other}/model.json: family: must be '{family}' (got '{other}')"


@pytest.mark.parametrize("family", [MISSING, "gan", 5])
def test_an_unknown_family_is_refused(family):
    describe("cnn", family=family)
    got = None if family is MISSING else family
    message = message_of(load_trained, "cnn")
    assert message == f"cnn/model.json: family: must be 'cnn', 'vae' or 'pair' (got {got!r})"
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

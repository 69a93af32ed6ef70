"""Presets: what ships is the default, each lies over it, and the file it is applied to survives."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from diptych.cnn.model import build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.params import ParamsError, check_section, dotted, read_yaml
from diptych.presets import (
    CUSTOM,
    DEFAULT,
    Change,
    PresetError,
    apply_preset,
    load_preset,
    matching_preset,
    preset_purposes,
    preset_tags,
    section_types,
)

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "presets"
SHIPPED = ROOT / "params.yaml"
PURPOSES = preset_purposes(FOLDER)
OTHERS = [name for name in PURPOSES if name != DEFAULT]

each_preset = pytest.mark.parametrize("name", PURPOSES)
each_other = pytest.mark.parametrize("name", OTHERS)


def values_of(name: str) -> dict[str, Any]:
    return dotted(read_yaml(FOLDER / f"{name}.yaml"))


def comments_of(path: Path) -> list[tuple[str, str]]:
    """Every comment, after its key where it stands beside one."""
    lines = path.read_text(encoding="utf-8").splitlines()
    matches = [re.fullmatch(r"\s*(?:([\w-]+):.*?)?\s*(#.*)", line) for line in lines]
    return [(match[1], match[2]) for match in matches if match]


@pytest.fixture
def params(tmp_path: Path) -> Path:
    """A copy of the parameter file that ships."""
    return Path(shutil.copy(SHIPPED, tmp_path / "params.yaml"))


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A copy of the presets that ship, beside `params`."""
    return Path(shutil.copytree(FOLDER, tmp_path / "presets"))


def test_what_ships_is_the_default() -> None:
    """After `diptych preset` this fails on purpose: the default is what is committed."""
    content = read_yaml(SHIPPED)
    assert matching_preset(content, FOLDER) == DEFAULT
    assert load_preset(FOLDER, DEFAULT) == content


def test_the_default_holds_what_the_others_change_and_nothing_else() -> None:
    changed = {key for name in OTHERS for key in values_of(name)}
    assert set(values_of(DEFAULT)) == changed


def test_sections_stand_in_the_order_of_params() -> None:
    order = list(dotted(read_yaml(SHIPPED)))
    for name in PURPOSES:
        keys = list(values_of(name))
        assert keys == sorted(keys, key=order.index), name


@each_other
def test_a_preset_names_only_what_it_changes(name: str) -> None:
    default = values_of(DEFAULT)
    assert [key for key, value in values_of(name).items() if value == default[key]] == []


@each_preset
def test_a_preset_says_in_one_short_line_what_it_is_for(name: str) -> None:
    assert re.fullmatch(r"[A-Z].{20,85}\.", PURPOSES[name])


def test_the_default_comes_first_and_no_preset_is_called_custom() -> None:
    assert list(PURPOSES) == [DEFAULT, *sorted(OTHERS)]
    assert set(PURPOSES) == {path.stem for path in FOLDER.iterdir()}
    assert CUSTOM not in PURPOSES


@each_preset
def test_loaded_params_are_what_ships_with_the_presets_values(name: str) -> None:
    loaded = dotted(load_preset(FOLDER, name))
    assert loaded == dotted(read_yaml(SHIPPED)) | values_of(name)


def test_every_section_of_params_has_its_type() -> None:
    assert list(section_types()) == list(read_yaml(SHIPPED))


@each_preset
def test_an_applied_preset_is_what_loading_gives_and_what_matches(name: str, params: Path) -> None:
    apply_preset(params, FOLDER, name)
    assert read_yaml(params) == load_preset(FOLDER, name)
    assert matching_preset(read_yaml(params), FOLDER) == name


@each_preset
def test_order_and_comments_stay(name: str, params: Path) -> None:
    apply_preset(params, FOLDER, name)
    assert list(dotted(read_yaml(params))) == list(dotted(read_yaml(SHIPPED)))
    assert comments_of(params) == comments_of(SHIPPED)
    assert len(comments_of(params)) > len(section_types())


@each_preset
def test_the_way_back_leaves_only_the_space_before_comments(name: str, params: Path) -> None:
    apply_preset(params, FOLDER, name)
    apply_preset(params, FOLDER, DEFAULT)
    spaces = re.compile(r" +#")
    assert spaces.sub(" #", params.read_text()) == spaces.sub(" #", SHIPPED.read_text())


@each_preset
def test_an_experiment_leaves_an_applied_preset_as_it_is(name: str, params: Path) -> None:
    from dvc.utils.hydra import apply_overrides

    apply_preset(params, FOLDER, name)
    before = params.read_text()
    apply_overrides(params, [f"preprocess.seed={read_yaml(params)['preprocess']['seed']}"])
    assert params.read_text() == before


def test_the_next_preset_takes_back_the_last_one(params: Path) -> None:
    for name in [*OTHERS, *reversed(OTHERS)]:
        apply_preset(params, FOLDER, name)
        assert read_yaml(params) == load_preset(FOLDER, name)


def test_changes_are_told_once(params: Path) -> None:
    before, default = params.read_bytes(), dotted(read_yaml(SHIPPED))
    assert apply_preset(params, FOLDER, DEFAULT) == []
    assert params.read_bytes() == before
    tiny = values_of("tiny")
    assert apply_preset(params, FOLDER, "tiny") == [
        Change(key, default[key], tiny[key]) for key in default if key in tiny
    ]
    assert apply_preset(params, FOLDER, "tiny") == []


def test_what_no_preset_changes_stays_the_users(params: Path) -> None:
    content = read_yaml(params)
    content["dataset"]["sources"] = ["/my/images"]
    content["train_cnn"]["seed"] = 7
    params.write_text(json.dumps(content))
    apply_preset(params, FOLDER, "tiny")
    found = read_yaml(params)
    assert found["dataset"]["sources"] == ["/my/images"]
    assert found["train_cnn"]["seed"] == 7
    assert matching_preset(found, FOLDER) == "tiny"


def test_params_that_differ_in_one_of_its_keys_are_no_preset() -> None:
    quality = dotted(load_preset(FOLDER, "quality"))
    for key in values_of(DEFAULT):
        assert matching_preset(quality | {key: "another"}, FOLDER) == CUSTOM
    assert matching_preset({}, FOLDER) == CUSTOM


def test_the_tag_is_the_matching_preset_of_nested_and_of_dotted_params(tmp_path: Path) -> None:
    content = load_preset(FOLDER, "quality")
    assert preset_tags(content, FOLDER) == {"diptych.preset": "quality"}
    assert preset_tags(dotted(content), FOLDER) == {"diptych.preset": "quality"}
    assert preset_tags({"train_cnn.width": 1}, FOLDER) == {"diptych.preset": CUSTOM}
    assert preset_tags(content, tmp_path / "none") == {}


def test_an_unknown_name_is_told_the_names(params: Path) -> None:
    names = re.escape(", ".join(PURPOSES))
    for name in ("fastest", "../params", ""):
        with pytest.raises(PresetError, match=rf"must be one of {names} \(got '{name}'\)$"):
            apply_preset(params, FOLDER, name)
    with pytest.raises(PresetError, match=r"none: must hold presets, default.yaml among them$"):
        apply_preset(params, params.parent / "none", DEFAULT)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("train_cnn: {widht: 1}", "presets/tiny.yaml: train_cnn.widht: must be in "),
        ("train_cnn: 5", "presets/tiny.yaml: train_cnn: must be in "),
        ("- 5", "presets/tiny.yaml: must hold sections "),
        ("train_cnn: {width: 1, width: 2}", "presets/tiny.yaml: line 1: is not valid YAML "),
        (
            "train_cnn: {width: 0}",
            "params.yaml with TMP/presets/tiny.yaml: train_cnn.width: must be >= 1 (got 0)",
        ),
        (
            "train_vae: {num_epochs: 1.5}",
            "presets/tiny.yaml: train_vae.num_epochs: must be a whole number (got 1.5)",
        ),
    ],
)
def test_a_bad_preset_is_one_line_and_nothing_is_lost(
    text: str, line: str, params: Path, folder: Path
) -> None:
    (folder / "tiny.yaml").write_text(text)
    before = params.read_bytes()
    with pytest.raises((PresetError, ParamsError)) as caught:
        apply_preset(params, folder, "tiny")
    message = str(caught.value)
    assert line.replace("TMP", str(params.parent)) in message
    assert len(message.splitlines()) == 1
    assert params.read_bytes() == before
    assert {path.name for path in params.parent.iterdir()} == {"params.yaml", "presets"}


def test_a_bad_parameter_file_is_one_line_and_stays(params: Path) -> None:
    content = read_yaml(params)
    del content["train_cnn"]["width"]
    for wrong, line in [
        (content, rf"^{params}: train_cnn.width: this key is missing \({FOLDER}/default.yaml has"),
        (read_yaml(params) | {"compute": {}}, r"compute.device: this key is missing; and 2 more$"),
    ]:
        params.write_text(json.dumps(wrong))
        before = params.read_bytes()
        with pytest.raises((PresetError, ParamsError), match=line):
            apply_preset(params, FOLDER, "tiny")
        assert params.read_bytes() == before


@pytest.mark.parametrize(("name", "most"), [("tiny", 7_000), ("fashion_quality", 999_999)])
def test_classifiers_are_as_small_as_their_presets_say(name: str, most: int) -> None:
    content = load_preset(FOLDER, name)
    training = check_section(name, content, "train_cnn", CnnTrainingParams)
    model = build_cnn(training, (1, 28, 28), 10, (0.1307,), (0.3081,))
    assert sum(parameter.numel() for parameter in model.parameters()) <= most

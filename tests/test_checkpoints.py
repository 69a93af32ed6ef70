import hashlib
import json
import pickle
import struct
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from diptych.checkpoints import fill_model, load_model, load_state, save_model, save_state
from diptych.errors import UserError
from diptych.model_files import MODEL_FILE, WEIGHTS_FILE, CheckpointError, fingerprint, sealed

FOLDER = Path("model")
DESCRIPTION = {"family": "cnn", "class_names": ["é", "b"], "pixel_mean": [0.1307]}


@pytest.fixture(autouse=True)
def _working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def a_state(seed: int = 0) -> dict[str, Tensor]:
    random = torch.Generator().manual_seed(seed)
    return {
        "kernel": torch.randn(3, 2, 5, 5, generator=random).to(memory_format=torch.channels_last),
        "bias": torch.randn(3, generator=random),
        "temperature": torch.tensor(1.5),
        "half": torch.ones(2, dtype=torch.bfloat16),
        "count": torch.tensor([2**40]),
    }


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def message_of_loading() -> str:
    with pytest.raises(UserError) as caught:
        load_model(FOLDER)
    assert len(str(caught.value).splitlines()) == 1
    return str(caught.value)


def test_a_model_comes_back_as_it_was():
    written = save_model(FOLDER, a_state(), DESCRIPTION)
    state, description = load_model(FOLDER)
    assert description == written
    digest = hashlib.sha256((FOLDER / WEIGHTS_FILE).read_bytes()).hexdigest()
    assert description == sealed({**DESCRIPTION, "weights_sha256": digest})
    assert state.keys() == a_state().keys()
    for name, tensor in a_state().items():
        assert state[name].dtype == tensor.dtype
        assert torch.equal(state[name], tensor), name


def test_equal_models_are_equal_bytes():
    save_model(Path("first"), a_state(), DESCRIPTION)
    state = dict(reversed(a_state().items()))
    save_model(Path("second"), state, dict(reversed(DESCRIPTION.items())))
    assert contents(Path("first")) == contents(Path("second"))
    save_model(Path("third"), a_state(seed=1), DESCRIPTION)
    assert contents(Path("first"))[WEIGHTS_FILE] != contents(Path("third"))[WEIGHTS_FILE]


def test_the_saved_model_is_not_shared_with_the_one_in_memory():
    state = a_state()
    save_model(FOLDER, state, DESCRIPTION)
    state["bias"].zero_()
    assert torch.equal(load_model(FOLDER)[0]["bias"], a_state()["bias"])


def test_a_description_that_json_cannot_say_leaves_the_old_model():
    save_model(FOLDER, a_state(), DESCRIPTION)
    before = contents(FOLDER)
    with pytest.raises(ValueError, match="not JSON compliant"):
        save_model(FOLDER, a_state(seed=1), {"pixel_mean": [float("nan")]})
    assert contents(FOLDER) == before


@pytest.mark.parametrize("position", [0, 9, 200, -1])
def test_a_flipped_bit_is_refused_before_anything_is_parsed(position):
    save_model(FOLDER, a_state(), DESCRIPTION)
    path = FOLDER / WEIGHTS_FILE
    damaged = bytearray(path.read_bytes())
    damaged[position] ^= 1
    path.write_bytes(damaged)
    expected = load_json()["weights_sha256"]
    found = hashlib.sha256(damaged).hexdigest()
    line = f"model/weights.safetensors: sha256 must be {expected} (got {found})"
    assert message_of_loading() == line


def load_json() -> dict[str, Any]:
    return json.loads((FOLDER / MODEL_FILE).read_text())


@pytest.mark.parametrize(
    ("name", "message"),
    [
        (WEIGHTS_FILE, "model/weights.safetensors: is missing"),
        (MODEL_FILE, "model/model.json: cannot be read (No such file or directory)"),
    ],
)
def test_a_missing_file_is_named(name, message):
    save_model(FOLDER, a_state(), DESCRIPTION)
    (FOLDER / name).unlink()
    assert message_of_loading() == message


def test_a_missing_folder_is_named():
    message = "model/model.json: cannot be read (No such file or directory)"
    assert message_of_loading() == message


@pytest.mark.parametrize(
    ("description", "message"),
    [
        (DESCRIPTION, "model/model.json: description_sha256: is missing"),
        (sealed(DESCRIPTION), "model/weights.safetensors: sha256 must be None (got "),
    ],
)
def test_a_description_without_a_digest_is_not_trusted(description, message):
    save_model(FOLDER, a_state(), DESCRIPTION)
    (FOLDER / MODEL_FILE).write_text(json.dumps(description))
    assert message_of_loading().startswith(message)


def test_every_changed_character_of_a_description_is_noticed():
    save_model(FOLDER, a_state(), DESCRIPTION)
    path = FOLDER / MODEL_FILE
    whole = path.read_text()
    for position, character in enumerate(whole):
        if not character.isspace():
            path.write_text(f"{whole[:position]}~{whole[position + 1 :]}")
            assert message_of_loading()


class Trap:
    """Unpickling it leaves a trace."""

    def __reduce__(self):
        return (open, ("trace", "w"))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{}",
        struct.pack("<Q", 2**62) + b"{}",
        struct.pack("<Q", 2) + b"{]",
        pickle.dumps(Trap()),
    ],
)
def test_content_that_is_no_safetensors_is_refused_and_never_executed(content):
    save_model(FOLDER, a_state(), DESCRIPTION)
    (FOLDER / WEIGHTS_FILE).write_bytes(content)
    digest = hashlib.sha256(content).hexdigest()
    description = sealed({**DESCRIPTION, "weights_sha256": digest})
    (FOLDER / MODEL_FILE).write_text(json.dumps(description))
    message = "model/weights.safetensors: is not valid safetensors ("
    assert message_of_loading().startswith(message)
    assert not Path("trace").exists()


def test_weights_fill_the_model_that_they_are_of():
    source, target = nn.Linear(3, 2), nn.Linear(3, 2)
    fill_model(target, source.state_dict(), FOLDER)
    assert torch.equal(source.weight, target.weight)


@pytest.mark.parametrize(
    "state", [{}, nn.Linear(3, 4).state_dict(), nn.Conv2d(1, 1, 1).state_dict()]
)
def test_weights_of_another_model_are_one_line(state):
    message = r"^model/weights.safetensors: does not fit the model \(.*\)$"
    with pytest.raises(CheckpointError, match=message) as caught:
        fill_model(nn.Linear(3, 2), state, FOLDER)
    assert len(str(caught.value).splitlines()) == 1


def test_a_fingerprint_is_of_the_values():
    first = fingerprint({"a": 1, "b": {"c": 0.1, "d": "x"}})
    assert first == fingerprint({"b": {"d": "x", "c": 0.1}, "a": 1})
    others = [{"a": 2, "b": {"c": 0.1, "d": "x"}}, {"a": 1, "b": {"c": 0.1, "e": "x"}}, {}]
    assert first not in map(fingerprint, others)


STATE_FILE = Path("training", "000001.safetensors")


def a_training() -> dict[str, Any]:
    weights = a_state()
    return {
        "model": weights,
        "best": {"epoch": 3, "figure": 0.1, "weights": weights},
        "history": {"1": {"metrics": {"loss": 1 / 3}, "images": {}}},
        "nothing": {},
        "unknown": None,
        "model.bias": "no tensor",
    }


def assert_equal_state(first: Any, second: Any) -> None:
    if isinstance(first, dict):
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert_equal_state(value, second[key])
    elif isinstance(first, Tensor):
        assert first.dtype == second.dtype
        assert torch.equal(first, second)
    else:
        assert first == second
        assert type(first) is type(second)


def test_the_state_of_a_training_comes_back_as_it_was():
    save_state(STATE_FILE, a_training())
    assert_equal_state(a_training(), load_state(STATE_FILE))


def test_a_state_in_which_any_bit_has_flipped_is_refused():
    save_state(STATE_FILE, a_training())
    digest = STATE_FILE.with_suffix(".sha256")
    for path, num_places in ((STATE_FILE, 97), (digest, 64)):
        content = path.read_bytes()
        for place in range(0, len(content), -(-len(content) // num_places)):
            flipped = bytearray(content)
            flipped[place] ^= 1 << place % 8
            path.write_bytes(flipped)
            with pytest.raises(CheckpointError, match="sha256 must be"):
                load_state(STATE_FILE)
        path.write_bytes(content)
    load_state(STATE_FILE)


@pytest.mark.parametrize("num_bytes", [0, 8, 100])
def test_a_state_that_was_cut_or_lost_is_refused(num_bytes):
    save_state(STATE_FILE, a_training())
    STATE_FILE.write_bytes(STATE_FILE.read_bytes()[:num_bytes])
    with pytest.raises(CheckpointError, match="sha256 must be"):
        load_state(STATE_FILE)
    STATE_FILE.with_suffix(".sha256").unlink()
    with pytest.raises(CheckpointError, match=r"000001\.sha256: cannot be read"):
        load_state(STATE_FILE)
    STATE_FILE.unlink()
    with pytest.raises(CheckpointError, match=r"000001\.safetensors: cannot be read"):
        load_state(STATE_FILE)

"""X1, R9: damaged or malicious model files are refused, and nothing in them is executed."""

import hashlib
import io
import json
import os
import pickle
import random
import shutil
import struct
import subprocess
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import safetensors.torch
import torch

from diptych.checkpoints import load_state, save_model, save_state
from diptych.cnn.model import build_cnn
from diptych.errors import UserError
from diptych.images.wheels import load_arrays
from diptych.model_files import MODEL_FILE, WEIGHTS_FILE, sealed
from diptych.models import load_trained
from diptych.novelty import fit_novelty
from diptych.params import read_yaml
from diptych.tracking.served import load_served
from diptych.vae.model import build_vae
from tests.faults.tiers import trials
from tests.stages.conftest import ROOT

SHAPE = (1, 8, 8)
TRACE = Path("executed")
FAMILIES = ("cnn", "vae")


class Trap:
    """Unpickling it leaves a trace."""

    def __reduce__(self):
        return (open, (str(TRACE), "w"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Untrained models as the stages save them, under `cnn` and `vae`. Not to change."""
    from diptych.cnn.params import CnnTrainingParams
    from diptych.vae.params import VaeTrainingParams
    from tests.conftest import CNN, VAE

    folder = tmp_path_factory.mktemp("saved")
    torch.manual_seed(0)
    cnn_params = CnnTrainingParams.model_validate(CNN)
    vae_params = VaeTrainingParams.model_validate(VAE)
    cnn = build_cnn(cnn_params, SHAPE, 3, [0.5], [0.3])
    vae = build_vae(vae_params, SHAPE).eval()
    images = torch.randint(0, 256, (40, *SHAPE), dtype=torch.uint8)
    reference = fit_novelty(vae, images, 0)
    described = {"image_shape": list(SHAPE), "class_names": list("abc")}
    described |= {"pixel_mean": [0.5], "pixel_standard_deviation": [0.3]}
    for family, params, state in (
        ("cnn", cnn_params, cnn.state_dict()),
        ("vae", vae_params, vae.state_dict() | reference.state()),
    ):
        own = {"family": family, "params": params.model_dump(mode="json")}
        save_model(folder / family, state, described | own)
    return folder


@pytest.fixture
def models(saved, tmp_path, monkeypatch):
    """A copy, in the working directory."""
    monkeypatch.chdir(tmp_path)
    shutil.copytree(saved, tmp_path, dirs_exist_ok=True)
    return tmp_path


def is_refused(load: Callable[..., object], *arguments: object) -> bool:
    """Whether it raises the kind of error that a command prints in one line."""
    try:
        load(*arguments)
    except UserError as error:
        return len(str(error).splitlines()) == 1 and len(str(error)) < 1000
    return False


def stock_is_refused(content: bytes) -> bool:
    try:
        safetensors.torch.load(content)
    except Exception:
        return True
    return False


def test_a_flipped_bit_in_weights_is_refused_before_parsing(promise, models):
    num, refused, stock = trials(quick=80, full=400), 0, 0
    for number in range(num):
        family = FAMILIES[number % 2]
        path = Path(family, WEIGHTS_FILE)
        content = path.read_bytes()
        place = (number // 2) * 2 * 8 * len(content) // num + number % 8
        damaged = bytearray(content)
        damaged[place // 8] ^= 1 << place % 8
        path.write_bytes(damaged)
        refused += is_refused(load_trained, Path(family))
        stock += stock_is_refused(bytes(damaged))
        path.write_bytes(content)
        load_trained(Path(family))
    promise("R9", "flips in weights", num, refused, stock_tried=num, stock_survived=stock)


def test_weights_cut_anywhere_are_refused(promise, models):
    num, refused = trials(quick=20, full=400), 0
    source = random.Random(0)
    for number in range(num):
        family = FAMILIES[number % 2]
        path = Path(family, WEIGHTS_FILE)
        content = path.read_bytes()
        path.write_bytes(content[: source.randrange(len(content))])
        refused += is_refused(load_trained, Path(family))
        path.write_bytes(content)
    promise("R9", "cuts in weights", num, refused)


def test_flipped_bits_in_descriptions_are_refused(promise, models):
    """Or change nothing that is read, as from 1e-05 to 1E-05."""
    num, refused = trials(quick=20, full=400), 0
    source = random.Random(0)
    for number in range(num):
        family = FAMILIES[number % 2]
        path = Path(family, MODEL_FILE)
        content = path.read_bytes()
        damaged = bytearray(content)
        damaged[source.randrange(len(damaged))] ^= 1 << source.randrange(8)
        path.write_bytes(damaged)
        is_harmless = is_equal_json(content, bytes(damaged))
        refused += is_harmless or is_refused(load_trained, Path(family))
        path.write_bytes(content)
        load_trained(Path(family))
    promise("R9", "flips in descriptions", num, refused)


def is_equal_json(first: bytes, second: bytes) -> bool:
    try:
        return bool(json.loads(first) == json.loads(second))
    except ValueError:
        return False


def describe(folder: Path, **changes: Any) -> None:
    """Let a model say something else of itself, as if it had been written so."""
    path = folder / MODEL_FILE
    path.write_text(json.dumps(sealed(json.loads(path.read_text()) | changes)))


def replace_weights(folder: Path, content: bytes) -> None:
    """Put other bytes in the weights' place, with a description that has their digest."""
    (folder / WEIGHTS_FILE).write_bytes(content)
    describe(folder, weights_sha256=hashlib.sha256(content).hexdigest())


def saved_by_torch(**how: Any) -> bytes:
    buffer = io.BytesIO()
    torch.save({"weight": Trap()}, buffer, **how)
    return buffer.getvalue()


def exported() -> bytes:
    """An archive of torch.export's form whose constants are a pickle."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("model/archive_format", "pt2")
        archive.writestr("model/archive_version", "0")
        archive.writestr("model/byteorder", "little")
        archive.writestr("model/data/constants/model.pt", saved_by_torch())
        archive.writestr("model/data/weights/model.pt", saved_by_torch())
        archive.writestr("model/models/model.json", "{}")
    return buffer.getvalue()


def header(content: bytes | dict[str, Any], body: bytes = b"") -> bytes:
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return struct.pack("<Q", len(text)) + text + body


def tensor(dtype: str, shape: list[int], num_bytes: int) -> dict[str, Any]:
    return {"weight": {"dtype": dtype, "shape": shape, "data_offsets": [0, num_bytes]}}


WEIGHTS: dict[str, Callable[[], bytes]] = {
    "a pickle": lambda: pickle.dumps(Trap()),
    "torch.save": saved_by_torch,
    "torch.save, old": lambda: saved_by_torch(_use_new_zipfile_serialization=False),
    "torch.export": exported,
    "a header of 4 EiB": lambda: struct.pack("<Q", 2**62) + b"{}",
    "a header of a pickle": lambda: header(pickle.dumps(Trap())),
    "a header of depth 100,000": lambda: header(b'{"a":' * 100_000),
    "tensors of objects": lambda: header(tensor("O", [1], 8), bytes(8)),
    "a dtype torch has not": lambda: header(tensor("F4", [16], 8), bytes(8)),
    "tensors beyond the end": lambda: header(tensor("F32", [2], 800), bytes(8)),
    "tensors of 2**64 values": lambda: header(tensor("F32", [2**62, 4], 8), bytes(8)),
    "code in the metadata": lambda: header(
        tensor("F32", [2], 8) | {"__metadata__": {"code": f"open('{TRACE}', 'w')"}}, bytes(8)
    ),
}


def test_malicious_weights_are_refused_and_execute_nothing(promise, models):
    survived = 0
    for name, make in WEIGHTS.items():
        for family in FAMILIES:
            replace_weights(Path(family), make())
        refused = [is_refused(load_trained, Path(family)) for family in FAMILIES]
        if all(refused) and not TRACE.exists():
            survived += 1
        else:
            print(name, refused, TRACE.exists())
    stock = ["torch.save", "torch.save, old"]  # as mlflow.pytorch loads such files
    num_executed = sum(is_executed_by_torch(WEIGHTS[name]()) for name in stock)
    promise(
        "X1",
        "weights",
        len(WEIGHTS),
        survived,
        stock_tried=len(stock),
        stock_survived=len(stock) - num_executed,
    )


def is_executed_by_torch(content: bytes) -> bool:
    loaded = torch.load(io.BytesIO(content), weights_only=False)
    loaded["weight"].close()
    executed = TRACE.exists()
    TRACE.unlink(missing_ok=True)
    return executed


CODE = f"open({str(TRACE)!r}, 'w').close()\n"
DESCRIPTIONS: dict[str, dict[str, Any]] = {
    "code for a name": {"family": f"__import__('os').system('touch {TRACE}')"},
    "a pickled family": {"family": {"py/reduce": [{"py/type": "os.system"}, f"touch {TRACE}"]}},
    "code for a parameter": {"params": {"architecture": CODE}},
    "code for a shape": {"image_shape": [CODE, CODE, CODE]},
    "a shape without end": {"image_shape": [10**30, 10**30, 10**30]},
    "code for a digest": {"weights_sha256": CODE},
    "no digest": {"weights_sha256": None},
    "another loader": {"family": "cnn.evil", "loader_module": "evil", "code": "code"},
}


def test_malicious_descriptions_are_refused_and_execute_nothing(promise, models):
    survived = 0
    for name, changes in DESCRIPTIONS.items():
        shutil.copytree("cnn", "other")
        describe(Path("other"), **changes)
        refused = is_refused(load_trained, Path("other"))
        if refused and not TRACE.exists():
            survived += 1
        else:
            print(name, refused)
        shutil.rmtree("other")
    promise("X1", "descriptions", len(DESCRIPTIONS), survived)


def test_code_beside_a_model_is_not_executed(promise, models, monkeypatch):
    names = ["__init__.py", "sitecustomize.py", "model.py", "code/__init__.py", "code/model.py"]
    names += ["diptych/__init__.py", "torch.py", "safetensors.py", "conftest.py", "setup.py"]
    for name in names:
        path = Path("cnn", name)
        path.parent.mkdir(exist_ok=True)
        path.write_text(CODE)
    settings = {"flavors": {"python_function": {"loader_module": "model", "code": "code"}}}
    Path("cnn", "MLmodel").write_text(json.dumps(settings))
    load_trained(Path("cnn"))
    load_served(Path("cnn"))
    monkeypatch.chdir("cnn")
    load_trained(Path())
    load_served(Path())
    script = ROOT / "stages" / "evaluate.py"  # a new process, which imports everything there
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True)
    assert done.returncode == 0, done.stderr
    executed = list(models.rglob(str(TRACE)))
    promise("X1", "code beside a model", len(names), len(names) * (not executed))


def test_what_is_no_file_is_refused_and_never_waited_for(promise, models):
    path = Path("cnn", WEIGHTS_FILE)
    makers: tuple[Callable[[], object], ...] = (
        lambda: os.mkfifo(path),
        lambda: path.symlink_to("/dev/zero"),
        lambda: path.symlink_to(path.name),
        path.mkdir,
    )
    refused = 0
    for make in makers:
        path.unlink()
        make()
        refused += is_refused(load_trained, Path("cnn"))
        shutil.rmtree("cnn")
        shutil.copytree("vae", "cnn")
    promise("X1", "what is no file", len(makers), refused)


def test_other_files_of_data_execute_nothing(promise, models):
    """Arrays out of a package, parameters, and the state of a training."""
    state = Path("000001.safetensors")
    save_state(state, {"step": 1})

    def load_replaced(content: bytes) -> None:
        state.write_bytes(content)
        state.with_suffix(".sha256").write_text(hashlib.sha256(content).hexdigest())
        load_state(state)

    def load_yaml(value: str) -> None:
        Path("params.yaml").write_text(f"a: {value}\n")
        read_yaml(Path("params.yaml"))

    arrays = [np.zeros(2), Trap()]
    loads: list[Callable[[], object]] = [
        *(
            lambda protocol=protocol: load_arrays(io.BytesIO(pickle.dumps(arrays, protocol)), "one")
            for protocol in range(6)
        ),
        *(lambda make=make: load_replaced(make()) for make in WEIGHTS.values()),
        lambda: load_replaced(safetensors.torch.save({"/": torch.zeros(3)})),
        lambda: load_replaced(safetensors.torch.save({"a": torch.zeros(3)})),
        lambda: load_yaml(f"!!python/object/apply:builtins.open [{TRACE}, w]"),
        lambda: load_yaml(f"!!python/object/new:os.system [touch {TRACE}]"),
        lambda: load_yaml("!!python/module:os"),
    ]
    refused = sum(map(is_refused, loads))
    promise("X1", "other files", len(loads), refused * (not TRACE.exists()))

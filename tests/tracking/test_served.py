import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from diptych.checkpoints import save_model
from diptych.cnn.model import build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.model_files import CheckpointError
from diptych.tracking.runs import stage_run
from diptych.tracking.served import load_served


@pytest.fixture
def folder(tmp_path: Path, cnn_params: Callable[..., CnnTrainingParams]) -> Path:
    params = cnn_params(width=2, view_shift_pixels=1.0)
    description = {
        "family": "cnn",
        "params": params.model_dump(mode="json"),
        "image_shape": [1, 4, 6],
        "class_names": ["a", "b", "c", "d", "e"],
        "pixel_mean": [0.5],
        "pixel_standard_deviation": [0.3],
    }
    torch.manual_seed(0)
    model = build_cnn(params, (1, 4, 6), 5, [0.5], [0.3])
    save_model(tmp_path / "tiny", model.state_dict(), description)
    return tmp_path / "tiny"


def images(number: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (number, 1, 4, 6), dtype=np.uint8)


def test_an_answer_does_not_depend_on_the_batch(folder: Path) -> None:
    model = load_served(folder)
    together = model.predict(images(300))
    assert together.shape == (300, 5)
    assert together.dtype == np.float32
    np.testing.assert_allclose(together.sum(axis=1), 1, rtol=1e-6)
    np.testing.assert_allclose(model.predict(images(300)[7:8]), together[7:8], rtol=1e-6)


def test_an_unknown_family_is_refused(folder: Path) -> None:
    path = folder / "model.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"family": "odd"}))
    with pytest.raises(CheckpointError, match=r"must be 'cnn', 'vae' or 'pair' \(got 'odd'\)$"):
        load_served(folder)


@pytest.mark.usefixtures("recorder_threads")
@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_a_logged_model_answers_as_the_original(
    folder: Path, project: Path, wait_until_recorded: Callable[[Path], None]
) -> None:
    with stage_run("train_tiny", project / "params.yaml", []) as tracker:
        tracker.log_model(folder, "tiny")
    wait_until_recorded(project)
    import mlflow

    uri = f"sqlite:///{project / 'mlflow.db'}"
    client = mlflow.MlflowClient(tracking_uri=uri)
    experiment = client.get_experiment_by_name("diptych")
    assert experiment is not None
    (logged,) = client.search_logged_models([experiment.experiment_id])
    files = Path(logged.artifact_location.removeprefix("file://"))
    assert (files / "data/tiny/weights.safetensors").is_file()
    assert not list(files.rglob("*.pkl"))
    assert (
        logged.tags["weights_sha256"]
        == json.loads((files / "data/tiny/model.json").read_text())["weights_sha256"]
    )
    served = mlflow.pyfunc.load_model(str(files))
    np.testing.assert_array_equal(served.predict(images(3)), load_served(folder).predict(images(3)))

"""The models that `make repro` has made answer over HTTP, to the images that it has fetched."""

import os

import numpy as np
import pytest

from diptych.files import read_json
from diptych.model_files import MODEL_FILE
from diptych.models import load_pair
from diptych.tracking.loopback import address_of
from diptych.tracking.packing import pack_model
from diptych.tracking.served import ServedPair
from diptych.tracking.serving import model_server

from .conftest import ROOT, free_port
from .projects import ask

PAIR = ROOT / "models" / "pair"
IMAGES = ROOT / "data" / "processed" / "test" / "images.npy"
NUM_IMAGES = 300  # more than the pair looks at together


@pytest.mark.skipif("DIPTYCH_REAL_IMAGES" not in os.environ, reason="see .ci/run")
@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_real_images_get_the_answers_of_the_model_on_disk(tmp_path):
    usual = np.load(IMAGES)[:NUM_IMAGES]
    images = np.concatenate([usual, 255 - usual[:20]])
    packed = tmp_path / "packed"
    pack_model(packed, PAIR, read_json(PAIR / MODEL_FILE)["image_shape"], {})
    port = free_port()
    with (tmp_path / "log").open("wb") as log, model_server(packed, port, 1, log):
        answers = ask(f"{address_of(port)}/invocations", images)
    offline = ServedPair(load_pair(PAIR)).predict(images)
    assert answers == offline.to_dict(orient="records")
    decisions = [one["decision"] for one in answers]
    # At a level of 1 % as many as 30 of 300 come once in 1e20 times.
    assert decisions[:NUM_IMAGES].count("accept") > 0.9 * NUM_IMAGES
    assert decisions[NUM_IMAGES:] == ["abstain"] * 20

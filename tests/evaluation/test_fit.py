"""A model and a data set that do not belong together, or do not say whether they do."""

import json

import numpy as np
import pytest

from diptych.evaluation.fit import check_fit
from diptych.images.arrays import ImageSet, Split, load_description, save_dataset
from diptych.model_files import CheckpointError


@pytest.fixture
def dataset(tmp_path):
    images = ImageSet(np.zeros((2, 1, 2, 3), np.uint8), np.array([0, 1]))
    sets: dict[Split, ImageSet] = {"train": images, "validation": images, "test": images}
    save_dataset(tmp_path / "data", "blanks", ("a", "b"), sets)
    return load_description(tmp_path / "data")


@pytest.fixture
def described(tmp_path, dataset):
    """Writes a fitting description of a family; changes are of its keys, None leaves one out."""

    def write(family, **changes):
        description = {
            "family": family,
            "image_shape": [1, 2, 3],
            "fingerprints": {"dataset": "blanks", "dataset_sha256": dataset.digest},
        }
        if family != "vae":  # which has no classes
            description["class_names"] = ["a", "b"]
        description |= changes
        kept = {key: value for key, value in description.items() if value is not None}
        (tmp_path / "model.json").write_text(json.dumps(kept))
        return tmp_path

    return write


@pytest.mark.parametrize("family", ["cnn", "vae", "pair"])
def test_a_model_of_the_data_set_fits(family, described, dataset):
    check_fit(described(family), dataset)


@pytest.mark.parametrize(
    ("family", "key"),
    [
        *((family, "image_shape") for family in ("cnn", "vae", "pair")),
        *((family, "fingerprints") for family in ("cnn", "vae", "pair")),
        *((family, "class_names") for family in ("cnn", "pair")),
    ],
)
@pytest.mark.parametrize("value", [None, "another"])
def test_one_that_does_not_say_so_or_says_otherwise_does_not(
    family, key, value, described, dataset
):
    folder = described(family, **{key: value})
    with pytest.raises(CheckpointError) as caught:
        check_fit(folder, dataset)
    line = str(caught.value)
    assert line.startswith(f"{folder}/model.json: {key}: must be ")
    assert line.endswith(f" as in blanks (got {value or 'none'})")
    assert len(line.splitlines()) == 1


def test_a_fingerprint_of_the_data_alone_is_missing(described, dataset):
    folder = described("cnn", fingerprints={"dataset": "blanks"})
    with pytest.raises(CheckpointError, match=r"fingerprints: must be .*\(got .*None"):
        check_fit(folder, dataset)

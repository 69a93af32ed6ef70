"""Whether a trained model and a data set belong together."""

from pathlib import Path

from diptych.files import read_json
from diptych.images.arrays import DatasetDescription
from diptych.model_files import MODEL_FILE, CheckpointError


def check_fit(folder: Path, dataset: DatasetDescription) -> None:
    """Check that a model was trained on a data set.

    Args:
        folder: The model's, as `save_model` wrote it.
        dataset: What the model is to be used on.

    Raises:
        CheckpointError: when the images' shape, the classes or the data differ, or the model's
            description does not say which they are.
        FileError: when the model's description cannot be read.
    """
    path = folder / MODEL_FILE
    description = read_json(path)
    wanted = {
        "image_shape": list(dataset.image_shape),
        "class_names": list(dataset.class_names),
        "fingerprints": {"dataset_sha256": dataset.digest},
    }
    if description.get("family") == "vae":  # it has no classes
        del wanted["class_names"]
    for key, value in wanted.items():
        found = description.get(key, "none")
        if isinstance(value, dict) and isinstance(found, dict):
            found = {name: found.get(name) for name in value}
        if found != value:
            expectation = f"must be {value} as in {dataset.name}"
            raise CheckpointError(f"{path}: {key}: {expectation} (got {found})")

"""Split the official training file and write memory-mappable arrays with their description."""

from diptych.files import folder_written_whole
from diptych.images.arrays import ImageSet, Split, save_dataset
from diptych.images.datasets import DATASETS
from diptych.images.params import DatasetParams, PreprocessParams
from diptych.images.raw import read_raw
from diptych.images.splits import stratified_split
from diptych.params import load_params
from diptych.stage import PathOption, run_stage
from diptych.tracking.runs import stage_run


def main(params: PathOption, raw: PathOption, processed: PathOption) -> None:
    """Write PROCESSED from the files in RAW, as PARAMS says."""
    dataset = DATASETS[load_params(params, "dataset", DatasetParams).name]
    preprocess = load_params(params, "preprocess", PreprocessParams)
    training, test = read_raw(raw, dataset, "train"), read_raw(raw, dataset, "test")
    train_positions, validation_positions = stratified_split(
        training.labels, len(dataset.class_names), preprocess.num_validation, preprocess.seed
    )
    sets: dict[Split, ImageSet] = {
        "train": training.take(train_positions),
        "validation": training.take(validation_positions),
        "test": test,
    }
    with stage_run("preprocess", params, ["dataset.name", "preprocess"]) as tracker:
        with folder_written_whole(processed) as folder:
            description = save_dataset(folder, dataset.name, dataset.class_names, sets)
        tracker.set_tags({"diptych.dataset_sha256": description.digest})


if __name__ == "__main__":
    run_stage(main)

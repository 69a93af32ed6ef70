"""Split the official training file and write memory-mappable arrays with their description."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from diptych.files import folder_written_whole
from diptych.images.arrays import ImageSet, Split, save_dataset, save_novel
from diptych.images.datasets import DATASETS, NovelName
from diptych.images.params import DatasetParams, PreprocessParams
from diptych.images.raw import NOVEL_FOLDER, read_raw
from diptych.images.splits import stratified_split
from diptych.params import load_params
from diptych.stage import PathOption, run_stage
from diptych.tracking.outputs import log_outputs
from diptych.tracking.runs import stage_run


def main(params: PathOption, raw: PathOption, processed: PathOption) -> None:
    """Write PROCESSED from the files in RAW, as PARAMS says."""
    chosen = load_params(params, "dataset", DatasetParams)
    dataset = DATASETS[chosen.name]
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
    novel = _read_novel(raw / NOVEL_FOLDER, chosen.novel)
    with stage_run(
        "preprocess", params, ["dataset.name", "dataset.novel", "preprocess"]
    ) as tracker:
        with folder_written_whole(processed) as folder:
            save_dataset(folder, dataset.name, dataset.class_names, sets)
            save_novel(folder, novel)
        log_outputs(tracker, "preprocess", {"processed": processed})


def _read_novel(
    folder: Path, name: NovelName
) -> dict[str, UInt8[np.ndarray, "num channels height width"]]:
    if name == "none":
        return {}
    return {name: read_raw(folder, DATASETS[name], "test").images}


if __name__ == "__main__":
    run_stage(main)

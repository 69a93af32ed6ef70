"""Fetch the data set's IDX files from the first source that has the right bytes."""

import shutil
from functools import partial
from pathlib import Path

from diptych.images.datasets import DATASETS, DatasetName, Part
from diptych.images.params import DatasetParams
from diptych.images.raw import NOVEL_FOLDER, fetch_raw
from diptych.images.sources import parse_source
from diptych.images.transport import Transport
from diptych.params import load_params
from diptych.stage import PathOption, run_stage
from diptych.tracking.runs import stage_run


def main(params: PathOption, raw: PathOption) -> None:
    """Fill RAW with the data set that PARAMS names, and the test files of the novel one, if any."""
    chosen = load_params(params, "dataset", DatasetParams)
    transport = Transport()

    def fetch(name: DatasetName, folder: Path, parts: tuple[Part, ...]) -> None:
        dataset = DATASETS[name]
        sources = [
            source
            for text in chosen.sources
            for source in parse_source(text, dataset.mirrors, transport)
        ]
        fetch_raw(dataset, sources, folder, partial(print, end="", flush=True), parts)

    with stage_run("download", params, ["dataset"]):
        fetch(chosen.name, raw, ("train", "test"))
        if chosen.novel == "none":
            shutil.rmtree(raw / NOVEL_FOLDER, ignore_errors=True)
        else:
            fetch(chosen.novel, raw / NOVEL_FOLDER, ("test",))


if __name__ == "__main__":
    run_stage(main)

"""Fetch the data set's four IDX files from the first source that has the right bytes."""

from functools import partial

from diptych.images.datasets import DATASETS
from diptych.images.params import DatasetParams
from diptych.images.raw import fetch_raw
from diptych.images.sources import parse_source
from diptych.images.transport import Transport
from diptych.params import load_params
from diptych.stage import PathOption, run_stage
from diptych.tracking.runs import stage_run


def main(params: PathOption, raw: PathOption) -> None:
    """Fill RAW with the data set that PARAMS names."""
    chosen = load_params(params, "dataset", DatasetParams)
    dataset = DATASETS[chosen.name]
    transport = Transport()
    sources = [
        source
        for text in chosen.sources
        for source in parse_source(text, dataset.mirrors, transport)
    ]
    with stage_run("download", params, ["dataset"]):
        fetch_raw(dataset, sources, raw, report=partial(print, end="", flush=True))


if __name__ == "__main__":
    run_stage(main)

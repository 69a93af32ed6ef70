"""Train the classifier; keep the epoch that is best on validation."""

import torch

from diptych.checkpoints import fingerprint, save_model
from diptych.cnn.model import build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.cnn.train import train_cnn
from diptych.display import EpochDisplay
from diptych.files import write_csv, write_json
from diptych.images.arrays import load_description, load_image_set
from diptych.images.batches import to_device
from diptych.optimization.compute import ComputeParams, set_up_compute
from diptych.optimization.progress import EpochReport
from diptych.params import load_params
from diptych.stage import PathOption, run_stage
from diptych.tracking.figures import log_curves, log_epoch, numbers
from diptych.tracking.runs import stage_run


def main(
    params: PathOption,
    processed: PathOption,
    model: PathOption,
    metrics: PathOption,
    curves: PathOption,
) -> None:
    """Train on PROCESSED as PARAMS says; write MODEL, METRICS and, per epoch, CURVES."""
    training = load_params(params, "train_cnn", CnnTrainingParams)
    compute = set_up_compute(load_params(params, "compute", ComputeParams))
    dataset = load_description(processed)
    train = to_device(load_image_set(processed, "train", dataset), compute.device)
    validation = to_device(load_image_set(processed, "validation", dataset), compute.device)
    torch.manual_seed(training.seed)  # of the initial weights
    untrained = build_cnn(
        training,
        dataset.image_shape,
        len(dataset.class_names),
        dataset.pixel_mean,
        dataset.pixel_standard_deviation,
    )

    with stage_run("train_cnn", params, ["compute", "train_cnn"]) as tracker:
        display = EpochDisplay("train_cnn", training.num_epochs)

        def on_epoch(report: EpochReport) -> None:
            display.show(report)
            log_epoch(tracker, report)

        trained = train_cnn(untrained, train, validation, training, compute, on_epoch)

        trained_params = training.model_dump(mode="json")
        description = {
            "family": "cnn",
            "architecture": training.architecture,
            "params": trained_params,
            "image_shape": list(dataset.image_shape),
            "class_names": list(dataset.class_names),
            "pixel_mean": list(dataset.pixel_mean),
            "pixel_standard_deviation": list(dataset.pixel_standard_deviation),
            "fingerprints": {
                "dataset": dataset.name,
                "dataset_sha256": dataset.digest,
                "params_sha256": fingerprint(trained_params),
            },
            "best_epoch": trained.best_epoch,
        }
        save_model(model, trained.model.state_dict(), description)
        write_csv(curves, display.rows)
        write_json(metrics, trained.figures())
        tracker.log_metrics(numbers(trained.figures()), step=training.num_epochs)
        log_curves(tracker, display.rows, "train_cnn", trained.best_epoch)
        tracker.log_model(model, "cnn")


if __name__ == "__main__":
    run_stage(main)

"""Train the classifier; keep the epoch that is best on validation."""

import torch

from diptych.checkpoints import save_model
from diptych.cnn.model import build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.cnn.train import train_cnn
from diptych.display import EpochDisplay
from diptych.files import write_csv, write_json
from diptych.images.arrays import load_description, load_image_set
from diptych.images.batches import to_device
from diptych.model_files import fingerprint
from diptych.optimization.compute import ComputeParams, set_up_compute
from diptych.optimization.params import CheckpointParams
from diptych.optimization.progress import EpochReport
from diptych.params import load_params
from diptych.resuming import resumable_training, training_fingerprint
from diptych.stage import PathOption, run_stage
from diptych.tracking.figures import log_epoch
from diptych.tracking.outputs import log_outputs
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
    checkpointing = load_params(params, "checkpoints", CheckpointParams)
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

    trained_params = training.model_dump(mode="json")
    code = ("cnn", "images", "optimization")
    identity = training_fingerprint(trained_params, dataset.digest, compute, *code)
    with (
        resumable_training(model, identity, checkpointing.interval_seconds) as checkpoints,
        stage_run("train_cnn", params, ["compute", "train_cnn"]) as tracker,
    ):
        tracker.log_dataset(dataset, processed, "training")
        display = EpochDisplay("train_cnn", training.num_epochs)

        def on_epoch(report: EpochReport) -> None:
            display.show(report)
            log_epoch(tracker, report)

        with checkpoints.stoppable():
            trained = train_cnn(
                untrained, train, validation, training, compute, on_epoch, checkpoints
            )

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
        outs = {"model": model, "metrics": metrics, "curves": curves}
        log_outputs(tracker, "train_cnn", outs)


if __name__ == "__main__":
    run_stage(main)

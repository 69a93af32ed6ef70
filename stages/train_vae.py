"""Train the autoencoder; keep the epoch whose bound is best on validation."""

import torch

from diptych.checkpoints import save_model
from diptych.display import EpochDisplay
from diptych.files import write_csv, write_json
from diptych.images.arrays import load_description, load_image_set
from diptych.images.batches import to_device
from diptych.model_files import fingerprint
from diptych.novelty import fit_novelty
from diptych.optimization.compute import ComputeParams, set_up_compute
from diptych.optimization.params import CheckpointParams
from diptych.optimization.progress import EpochReport
from diptych.params import load_params
from diptych.resuming import resumable_training, training_fingerprint
from diptych.stage import PathOption, run_stage
from diptych.tracking.figures import log_epoch
from diptych.tracking.outputs import log_outputs
from diptych.tracking.runs import stage_run
from diptych.vae.model import build_vae
from diptych.vae.params import VaeTrainingParams
from diptych.vae.train import train_vae


def main(
    params: PathOption,
    processed: PathOption,
    model: PathOption,
    metrics: PathOption,
    curves: PathOption,
) -> None:
    """Train on PROCESSED as PARAMS says; write MODEL, METRICS and, per epoch, CURVES."""
    training = load_params(params, "train_vae", VaeTrainingParams)
    compute = set_up_compute(load_params(params, "compute", ComputeParams))
    checkpointing = load_params(params, "checkpoints", CheckpointParams)
    dataset = load_description(processed)
    train = to_device(load_image_set(processed, "train", dataset), compute.device)
    validation = to_device(load_image_set(processed, "validation", dataset), compute.device)
    torch.manual_seed(training.seed)  # of the initial weights
    untrained = build_vae(training, dataset.image_shape)

    trained_params = training.model_dump(mode="json")
    code = ("vae", "images", "optimization")
    identity = training_fingerprint(trained_params, dataset.digest, compute, *code)
    with (
        resumable_training(model, identity, checkpointing.interval_seconds) as checkpoints,
        stage_run("train_vae", params, ["compute", "train_vae"]) as tracker,
    ):
        tracker.log_dataset(dataset, processed, "training")
        display = EpochDisplay("train_vae", training.num_epochs)

        def on_epoch(report: EpochReport) -> None:
            display.show(report)
            log_epoch(tracker, report)

        with checkpoints.stoppable():
            trained = train_vae(
                untrained, train, validation, training, compute, on_epoch, checkpoints
            )

        description = {
            "family": "vae",
            "architecture": training.architecture,
            "params": trained_params,
            "image_shape": list(dataset.image_shape),
            "fingerprints": {
                "dataset": dataset.name,
                "dataset_sha256": dataset.digest,
                "params_sha256": fingerprint(trained_params),
            },
            "best_epoch": trained.best_epoch,
        }
        novelty = fit_novelty(trained.model, validation.images, training.seed)
        save_model(model, trained.model.state_dict() | novelty.state(), description)
        write_csv(curves, display.rows)
        write_json(metrics, trained.figures())
        outs = {"model": model, "metrics": metrics, "curves": curves}
        log_outputs(tracker, "train_vae", outs)


if __name__ == "__main__":
    run_stage(main)

"""Evaluate both models on the test set: figures, a row per image, pictures."""

import numpy as np
import pandas as pd

from diptych.evaluation.autoencoder import evaluate_autoencoder
from diptych.evaluation.classifier import evaluate_classifier
from diptych.evaluation.fit import check_fit
from diptych.evaluation.params import EvaluateParams
from diptych.evaluation.pictures import save_evaluation_pictures
from diptych.files import folder_written_whole, write_json, write_parquet
from diptych.images.arrays import load_description, load_image_set
from diptych.images.batches import to_device
from diptych.models import load_cnn, load_vae
from diptych.optimization.compute import ComputeParams, set_up_compute
from diptych.params import load_params
from diptych.reports.grids import tile_images
from diptych.stage import PathOption, run_stage
from diptych.tracking.figures import numbers
from diptych.tracking.runs import stage_run


def main(
    params: PathOption,
    processed: PathOption,
    cnn: PathOption,
    vae: PathOption,
    metrics: PathOption,
    evaluation: PathOption,
) -> None:
    """Look once at PROCESSED's test set with CNN and VAE; write METRICS and EVALUATION."""
    chosen = load_params(params, "evaluate", EvaluateParams)
    compute = set_up_compute(load_params(params, "compute", ComputeParams))
    dataset = load_description(processed)
    test = load_image_set(processed, "test", dataset)
    images = to_device(test, compute.device)
    check_fit(cnn, dataset)
    check_fit(vae, dataset)
    cnn_model, vae_model = load_cnn(cnn).to(compute.device), load_vae(vae).to(compute.device)

    with stage_run("evaluate", params, ["compute", "evaluate"]) as tracker:
        classifier = evaluate_classifier(cnn_model, images, compute)
        autoencoder = evaluate_autoencoder(vae_model, images, chosen, compute)
        figures = {
            "dataset": dataset.name,
            "cnn": classifier.figures,
            "vae": autoencoder.figures,
        }
        per_image = pd.concat([classifier.per_image, autoencoder.per_image], axis="columns")

        with folder_written_whole(evaluation) as folder:
            write_parquet(folder / "per_image.parquet", per_image)
            save_evaluation_pictures(
                folder,
                test,
                dataset.class_names,
                classifier,
                autoencoder,
                chosen.num_mistakes,
            )
        write_json(metrics, figures)

        tracker.log_summary(numbers(figures))
        tracker.log_table(evaluation / "per_image.parquet", "per_image")
        for picture in sorted(evaluation.glob("*.png")):
            tracker.log_artifact(picture, "evaluation")
        pairs = np.stack([autoencoder.shown.inputs, autoencoder.shown.reconstructions])
        tracker.log_image("test_reconstructions", tile_images(pairs), step=0)


if __name__ == "__main__":
    run_stage(main)

"""Sample the autoencoder: pictures, and figures on what the classifier makes of them."""

from diptych.evaluation.fit import check_fit
from diptych.evaluation.generation import generate, judge_samples
from diptych.evaluation.params import GenerateSamplesParams
from diptych.evaluation.pictures import sample_grids, save_sample_pictures
from diptych.files import folder_written_whole, write_json
from diptych.images.arrays import load_description, load_image_set
from diptych.images.batches import to_device
from diptych.models import load_cnn, load_vae
from diptych.optimization.compute import ComputeParams, set_up_compute
from diptych.params import load_params
from diptych.reports.grids import GRIDS_FOLDER, save_grids
from diptych.stage import PathOption, run_stage
from diptych.tracking.outputs import log_outputs
from diptych.tracking.runs import stage_run


def main(
    params: PathOption,
    processed: PathOption,
    cnn: PathOption,
    vae: PathOption,
    metrics: PathOption,
    samples: PathOption,
) -> None:
    """Generate with VAE, judge with CNN and PROCESSED; write METRICS and SAMPLES."""
    chosen = load_params(params, "generate_samples", GenerateSamplesParams)
    compute = set_up_compute(load_params(params, "compute", ComputeParams))
    dataset = load_description(processed)
    train = to_device(load_image_set(processed, "train", dataset), compute.device)
    test = to_device(load_image_set(processed, "test", dataset), compute.device)
    check_fit(cnn, dataset)
    check_fit(vae, dataset)
    cnn_model, vae_model = load_cnn(cnn).to(compute.device), load_vae(vae).to(compute.device)

    with stage_run("generate_samples", params, ["compute", "generate_samples"]) as tracker:
        tracker.log_dataset(dataset, processed, "sampling")
        generated = generate(vae_model, train, test, len(dataset.class_names), chosen, compute)
        figures = judge_samples(
            generated.prior,
            train.images,
            cnn_model,
            dataset.class_names,
            chosen.acceptance_confidence,
            compute,
        )

        with folder_written_whole(samples) as folder:
            save_sample_pictures(folder, generated, dataset.class_names, chosen.num_shown)
            save_grids(folder / GRIDS_FOLDER, sample_grids(generated, chosen.num_shown))
        write_json(metrics, figures)
        log_outputs(tracker, "generate_samples", {"metrics": metrics, "samples": samples})


if __name__ == "__main__":
    run_stage(main)

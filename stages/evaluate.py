"""Evaluate both models and the pair of them on the test set: figures, a row per image, pictures."""

import pandas as pd

from diptych.evaluation.autoencoder import evaluate_autoencoder
from diptych.evaluation.classifier import evaluate_classifier
from diptych.evaluation.fit import check_fit
from diptych.evaluation.pair import evaluate_pair, novel_images
from diptych.evaluation.params import EvaluateParams
from diptych.evaluation.pictures import save_evaluation_pictures
from diptych.files import folder_written_whole, write_json, write_parquet
from diptych.images.arrays import load_description, load_image_set, load_novel
from diptych.images.batches import to_device
from diptych.models import load_cnn, load_novelty, save_pair
from diptych.optimization.compute import ComputeParams, set_up_compute
from diptych.pair.params import PairParams
from diptych.params import load_params
from diptych.reports.grids import GRIDS_FOLDER, arrange_images, save_grids
from diptych.reports.reconstructions import pair_images
from diptych.stage import PathOption, run_stage
from diptych.tracking.outputs import log_outputs
from diptych.tracking.runs import stage_run

_NUM_COLUMNS = 7  # pairs are twice as high as wide: about a square, as MLflow shows them


def main(
    params: PathOption,
    processed: PathOption,
    cnn: PathOption,
    vae: PathOption,
    metrics: PathOption,
    evaluation: PathOption,
    pair: PathOption,
) -> None:
    """Look once at PROCESSED's test set with CNN and VAE; write METRICS, EVALUATION and PAIR."""
    chosen = load_params(params, "evaluate", EvaluateParams)
    paired = load_params(params, "pair", PairParams)
    compute = set_up_compute(load_params(params, "compute", ComputeParams))
    dataset = load_description(processed)
    test = load_image_set(processed, "test", dataset)
    images = to_device(test, compute.device)
    others = load_novel(processed, dataset)
    check_fit(cnn, dataset)
    check_fit(vae, dataset)
    cnn_model, novelty = load_cnn(cnn).to(compute.device), load_novelty(vae).to(compute.device)

    with stage_run("evaluate", params, ["compute", "evaluate", "pair"]) as tracker:
        tracker.log_dataset(dataset, processed, "evaluation")
        tracker.set_tags({"diptych.test_sha256": dataset.test.digest})
        classifier = evaluate_classifier(cnn_model, images, compute)
        autoencoder = evaluate_autoencoder(novelty.vae, images, chosen, compute)
        novel = novel_images(images.images, others, chosen.seed)
        both = evaluate_pair(novelty, images.images, novel, paired.abstention_level)
        figures = {
            "dataset": dataset.name,
            "test_sha256": dataset.test.digest,
            "cnn": classifier.figures,
            "vae": autoencoder.figures,
            "pair": both.figures,
        }
        shown = autoencoder.shown
        pairs = pair_images(shown.inputs, shown.reconstructions)
        tables = [classifier.per_image, autoencoder.per_image, both.per_image]

        with folder_written_whole(evaluation) as folder:
            write_parquet(folder / "per_image.parquet", pd.concat(tables, axis="columns"))
            save_evaluation_pictures(
                folder,
                test,
                dataset.class_names,
                classifier,
                autoencoder,
                both,
                chosen.num_mistakes,
            )
            grid = arrange_images(pairs, _NUM_COLUMNS)
            save_grids(folder / GRIDS_FOLDER, {"test_reconstructions": grid})
        save_pair(pair, cnn, vae, paired)
        write_json(metrics, figures)

        outs = {"metrics": metrics, "evaluation": evaluation, "pair": pair}
        log_outputs(tracker, "evaluate", outs)


if __name__ == "__main__":
    run_stage(main)

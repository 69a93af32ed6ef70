"""A champion whose stored results will not do, evaluated anew as the stage evaluate would."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd

from diptych.evaluation.autoencoder import evaluate_autoencoder
from diptych.evaluation.classifier import evaluate_classifier
from diptych.evaluation.fit import check_fit
from diptych.evaluation.pair import PairEvaluation, evaluate_pair, novel_images
from diptych.evaluation.params import EvaluateParams
from diptych.images.arrays import DatasetDescription, load_description, load_image_set, load_novel
from diptych.images.batches import ResidentSet, to_device
from diptych.models import MEMBERS, load_cnn, load_novelty, load_pair, load_vae
from diptych.optimization.compute import ComputeParams, set_up_compute
from diptych.params import load_params
from diptych.promotion.record import Family
from diptych.tracking.figures import numeric_figures
from diptych.tracking.model_records import Evaluation

# The parameter that each figure of a protocol tells the value of.
_PARAMS = {
    "vae.nll_num_importance_samples": "num_importance_samples",
    "vae.binarization_seed": "seed",
}


def evaluate_anew(
    family: Family, folder: Path, processed: Path, params: Path, protocol: Mapping[str, float]
) -> Evaluation:
    """Look at a test set with a model whose files have been checked.

    Args:
        family: The model's.
        folder: Its canonical folder.
        processed: The data set, as the stage preprocess wrote it; must be the model's.
        params: The parameter file: how to evaluate, where the protocol does not say.
        protocol: Figures of another model's evaluation that this one must have too, as
            `diptych.promotion.comparison.protocol_of` gives them; each in its parameter's range.

    Raises:
        UserError: when model, data set or parameters are missing, damaged, or do not fit.
    """
    chosen = load_params(params, "evaluate", EvaluateParams)
    chosen = chosen.model_copy(
        update={_PARAMS[key]: round(value) for key, value in protocol.items()}
    )
    compute = set_up_compute(load_params(params, "compute", ComputeParams))
    dataset = load_description(processed)
    check_fit(folder, dataset)
    images = to_device(load_image_set(processed, "test", dataset), compute.device)
    folders = {one: folder / one for one in MEMBERS} if family == "pair" else {family: folder}
    parts: dict[str, Any] = {}
    if "cnn" in folders:
        classifier = load_cnn(folders["cnn"]).to(compute.device)
        parts["cnn"] = evaluate_classifier(classifier, images, compute)
    if "vae" in folders:
        autoencoder = load_vae(folders["vae"]).to(compute.device)
        parts["vae"] = evaluate_autoencoder(autoencoder, images, chosen, compute)
    if family == "pair":
        parts["pair"] = _evaluate_pair(folder, images, processed, dataset, chosen.seed)
    tables = [one.per_image.drop(columns="label", errors="ignore") for one in parts.values()]
    labels = pd.DataFrame({"label": images.labels.cpu().numpy()})
    return Evaluation(
        figures=numeric_figures({name: one.figures for name, one in parts.items()}),
        per_image=pd.concat([labels, *tables], axis="columns"),
        test_sha256=dataset.test.digest,
    )


def _evaluate_pair(
    folder: Path, images: ResidentSet, processed: Path, dataset: DatasetDescription, seed: int
) -> PairEvaluation:
    novel = novel_images(images.images, load_novel(processed, dataset), seed)
    detector = load_novelty(folder / "vae").to(images.images.device)
    return evaluate_pair(detector, images.images, novel, load_pair(folder).abstention_level)

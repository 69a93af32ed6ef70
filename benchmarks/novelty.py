"""How well the autoencoder's bound tells images that are unlike the training data."""

from benchmarks.settings import Setting, UnavailableError
from benchmarks.trainings import ignore_epoch, import_all_of_torch, load_data, new_vae, timed
from diptych.evaluation.pair import evaluate_pair, novel_images
from diptych.images.arrays import load_description, load_image_set
from diptych.novelty import NoveltyDetector, fit_novelty
from diptych.optimization.compute import set_up_compute
from diptych.vae.train import train_vae


def measure_novelty(setting: Setting) -> dict[str, float]:
    """Train an autoencoder; take the p-values of the test set, and of images unlike it, once.

    Raises:
        UnavailableError: when no other data set of images of the same shape is at hand.
    """
    if not setting.others:
        raise UnavailableError("needs another data set, processed, among the folders of --data")
    compute = set_up_compute(setting.compute())
    import_all_of_torch()
    data = load_data(setting.processed, compute)
    params = setting.vae()
    untrained = new_vae(params, data.description)
    trained, training_seconds = timed(
        lambda: train_vae(untrained, data.train, data.validation, params, compute, ignore_epoch),
        compute,
    )
    model = trained.model.eval()
    detector = NoveltyDetector(model, fit_novelty(model, data.validation.images, params.seed))
    others = {
        load_description(folder).name: load_image_set(
            folder, "test", load_description(folder)
        ).images
        for folder in setting.others
    }
    images = data.test.images
    novel = novel_images(images, others, setting.seed)
    evaluated, scoring_seconds = timed(
        lambda: evaluate_pair(detector, images, novel, setting.abstention_level()), compute
    )
    figures = evaluated.figures
    return {
        "abstention_share": figures["abstention_share"],
        **{f"{name}_auroc": auroc for name, auroc in figures["novelty_auroc"].items()},
        **{
            f"{name}_abstention_share": share
            for name, share in figures["novel_abstention_share"].items()
        },
        "training_seconds": training_seconds,
        "scoring_seconds": scoring_seconds,
    }

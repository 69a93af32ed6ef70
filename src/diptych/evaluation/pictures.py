"""The pictures of evaluation and generation, from tensors to files."""

from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from diptych.evaluation.autoencoder import AutoencoderEvaluation
from diptych.evaluation.classifier import ClassifierEvaluation
from diptych.evaluation.generation import GeneratedImages
from diptych.evaluation.pair import PairEvaluation
from diptych.images.arrays import ImageSet
from diptych.images.batches import to_pixels
from diptych.reports.calibration import reliability_figure
from diptych.reports.confusion import confusion_matrix_figure
from diptych.reports.grids import arrange_images
from diptych.reports.latents import latents_figure
from diptych.reports.mistakes import mistakes_figure
from diptych.reports.novelty import novelty_figure
from diptych.reports.reconstructions import reconstructions_figure
from diptych.reports.samples import (
    class_samples_figure,
    interpolations_figure,
    manifold_figure,
    prior_figure,
)
from diptych.reports.style import save_figure
from diptych.vae.sampling import normal_quantiles


def save_evaluation_pictures(
    folder: Path,
    test: ImageSet,
    class_names: tuple[str, ...],
    classifier: ClassifierEvaluation,
    autoencoder: AutoencoderEvaluation,
    pair: PairEvaluation,
    num_mistakes: int,
) -> None:
    """Write six PNGs into a folder.

    Args:
        folder: Where.
        test: The evaluated set.
        class_names: One per class.
        classifier: Its evaluation.
        autoencoder: Its evaluation.
        pair: Their evaluation together.
        num_mistakes: At most this many are shown.
    """
    predictions = classifier.per_image["prediction"].to_numpy()
    shown = autoencoder.shown
    figures = {
        "confusion_matrix": confusion_matrix_figure(test.labels, predictions, class_names),
        "reliability": reliability_figure(
            test.labels, classifier.uncalibrated_probabilities, classifier.probabilities
        ),
        "mistakes": mistakes_figure(
            test.images, test.labels, classifier.probabilities, class_names, num_mistakes
        ),
        "reconstructions": reconstructions_figure(
            shown.inputs, shown.reconstructions, shown.distortions_nats
        ),
        "latent_means": latents_figure(autoencoder.latent_means, test.labels, class_names),
        "novelty": novelty_figure(pair.usual_nats, pair.novel_nats, pair.accepted_range_nats),
    }
    for name, figure in figures.items():
        save_figure(folder / f"{name}.png", figure)


def sample_grids(
    generated: GeneratedImages, num_shown: int
) -> dict[str, UInt8[np.ndarray, "row column channel height width"]]:
    """Return plain grids under stable names, to be seen beside those of other runs."""
    return {
        "prior_samples": arrange_images(to_pixels(generated.prior[:num_shown]), num_columns=10),
        "manifold": to_pixels(generated.manifold),
        "interpolations": to_pixels(generated.interpolations),
        "class_walks": to_pixels(generated.class_walks),
    }


def save_sample_pictures(
    folder: Path, generated: GeneratedImages, class_names: tuple[str, ...], num_shown: int
) -> None:
    """Write four PNGs into a folder.

    Args:
        folder: Where.
        generated: What is shown.
        class_names: One per class.
        num_shown: Samples from the prior that are shown.
    """
    grids = sample_grids(generated, num_shown)
    axis_values = normal_quantiles(len(generated.manifold)).double().numpy()
    axes_note = "in standard deviations; right: {0} 1, up: {0} 2".format(
        "latent" if generated.num_latents == 2 else "principal direction"
    )
    figures = {
        "prior_samples": prior_figure(to_pixels(generated.prior[:num_shown])),
        "manifold": manifold_figure(
            grids["manifold"], axis_values[::-1].copy(), axis_values, axes_note
        ),
        "interpolations": interpolations_figure(
            generated.starts, grids["interpolations"], generated.ends
        ),
        "class_walks": class_samples_figure(grids["class_walks"], class_names),
    }
    for name, figure in figures.items():
        save_figure(folder / f"{name}.png", figure)

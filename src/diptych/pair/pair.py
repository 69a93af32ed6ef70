"""One model of the two: it classifies what the autoencoder finds usual, and abstains otherwise."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float32, Float64, Int64, UInt8

from diptych.cnn.model import Cnn
from diptych.errors import UserError
from diptych.images.batches import to_unit_interval
from diptych.novelty import NoveltyDetector

_BATCH_SIZE = 250


class PairError(UserError):
    """What the pair was asked about are no images of its kind."""


@dataclass(frozen=True, slots=True)
class PairAnswers:
    """Answers of the pair, one per image.

    Attributes:
        classes: The most probable one.
        probabilities: Calibrated, of every class.
        novelty_p_value: Small for an image unlike those of validation.
        accepted: Whether the class is to be relied on; False is to abstain.
    """

    classes: Int64[np.ndarray, " num"]
    probabilities: Float32[np.ndarray, "num classes"]
    novelty_p_value: Float64[np.ndarray, " num"]
    accepted: Bool[np.ndarray, " num"]


class Pair:
    """A classifier and a novelty detector, on the CPU, in float32.

    Args:
        classifier: In evaluation mode.
        novelty: For images of the same shape.
        class_names: One per class.
        abstention_level: Images with a p-value at most this are not accepted, in [0, 1).
    """

    def __init__(
        self,
        classifier: Cnn,
        novelty: NoveltyDetector,
        class_names: tuple[str, ...],
        abstention_level: float,
    ) -> None:
        self.class_names = class_names
        self.abstention_level = abstention_level
        self._classifier = classifier
        self._novelty = novelty

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """Channels, height and width of an image."""
        channels, height, width = self._novelty.uniforms.shape
        return channels, height, width

    def answer(self, images: UInt8[np.ndarray, "num channels height width"]) -> PairAnswers:
        """Classify images, none included; an image's answer does not depend on the others.

        Raises:
            PairError: when the images have another type or shape than those of the training.
        """
        self._check(images)
        starts = range(0, max(1, len(images)), _BATCH_SIZE)
        parts = [self._answer(images[start : start + _BATCH_SIZE]) for start in starts]
        probabilities, p_values = (np.concatenate(part) for part in zip(*parts, strict=True))
        return PairAnswers(
            classes=probabilities.argmax(axis=1),
            probabilities=probabilities,
            novelty_p_value=p_values,
            accepted=p_values > self.abstention_level,
        )

    @torch.no_grad()
    def _answer(self, images: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        batch = torch.tensor(images)
        log_probabilities = self._classifier.log_probabilities(to_unit_interval(batch))
        p_values = self._novelty.p_values(self._novelty.scores_nats(batch))
        return log_probabilities.exp().numpy(), p_values.numpy()

    def _check(self, images: np.ndarray) -> None:
        if images.dtype != np.uint8 or images.shape[1:] != self.image_shape:
            raise PairError(
                f"images: must be uint8 of shape [num, {', '.join(map(str, self.image_shape))}] "
                f"(got {images.dtype} of shape {list(images.shape)})"
            )

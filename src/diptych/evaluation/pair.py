"""The pair on the test set, and on images that it should find novel."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import torch
from jaxtyping import Float32, Float64, UInt8
from torch import Tensor

from diptych.novelty import NoveltyDetector
from diptych.optimization.seeding import generator


@dataclass(frozen=True, slots=True)
class PairEvaluation:
    """What the pair does on a whole test set and on novel ones.

    Attributes:
        figures: For the metrics file.
        per_image: One row per test image, in the set's order.
        usual_nats: Negative ELBO per image of the validation and of the test set.
        novel_nats: The same of each novel set, by its name.
        accepted_range_nats: The least and the greatest score that is accepted.
    """

    figures: dict[str, Any]
    per_image: pd.DataFrame
    usual_nats: dict[str, Float32[np.ndarray, " _"]]
    novel_nats: dict[str, Float32[np.ndarray, " _"]]
    accepted_range_nats: tuple[float, float]


def novel_images(
    test: UInt8[Tensor, "num channels height width"],
    others: Mapping[str, UInt8[np.ndarray, "_ channels height width"]],
    seed: int,
) -> dict[str, UInt8[Tensor, "_ channels height width"]]:
    """Return images that are unlike a test set's, on its device.

    Args:
        test: Its images.
        others: Sets that are at hand, by name.
        seed: Of the noise, which is made on the CPU: the same on every device.

    Returns:
        As many images of uniform noise; the test images inverted; where they are square, the same
        rotated by 90 degrees; and the others.
    """
    source = generator(seed, "novel noise")
    noise = torch.randint(0, 256, test.shape, generator=source, dtype=torch.uint8)
    made = {"noise": noise.to(test.device), "inverted": 255 - test}
    if test.shape[2] == test.shape[3]:
        made["rotated"] = test.rot90(dims=(2, 3))
    return made | {
        name: torch.from_numpy(np.array(images)).to(test.device) for name, images in others.items()
    }


def evaluate_pair(
    novelty: NoveltyDetector,
    test: UInt8[Tensor, "num channels height width"],
    novel: Mapping[str, UInt8[Tensor, "_ channels height width"]],
    abstention_level: float,
) -> PairEvaluation:
    """Take the novelty p-values of a test set and of images that should be found novel.

    Args:
        novelty: On the device.
        test: Images on the device.
        novel: Sets of images on the device, by name.
        abstention_level: Images with a p-value at most this are not accepted.

    Returns:
        Figures: the share of each set that is not accepted, and for each novel set the area under
        the ROC curve of telling it from the test set by the p-value.
    """
    test_nats = novelty.scores_nats(test)
    novel_nats = {name: novelty.scores_nats(images) for name, images in novel.items()}
    usual = novelty.p_values(test_nats).numpy()
    unusual = {name: novelty.p_values(nats).numpy() for name, nats in novel_nats.items()}
    return PairEvaluation(
        figures={
            "abstention_level": abstention_level,
            "abstention_share": _share_declined(usual, abstention_level),
            "novelty_auroc": {name: novelty_auroc(usual, one) for name, one in unusual.items()},
            "novel_abstention_share": {
                name: _share_declined(one, abstention_level) for name, one in unusual.items()
            },
            "num_images": len(test),
            "num_reference_images": len(novelty.reference_nats),
        },
        per_image=pd.DataFrame({"novelty_p_value": usual, "accepted": usual > abstention_level}),
        usual_nats={
            "validation": novelty.reference_nats.cpu().numpy(),
            "test": test_nats.cpu().numpy(),
        },
        novel_nats={name: nats.cpu().numpy() for name, nats in novel_nats.items()},
        accepted_range_nats=novelty.accepted_range_nats(abstention_level),
    )


def _share_declined(p_values: np.ndarray, abstention_level: float) -> float:
    return float((p_values <= abstention_level).mean())


def novelty_auroc(
    usual_p_values: Float64[np.ndarray, " usual"], novel_p_values: Float64[np.ndarray, " novel"]
) -> float:
    """Return the probability that a novel image has the smaller p-value; ties count one half."""
    from sklearn.metrics import roc_auc_score

    p_values = np.concatenate([usual_p_values, novel_p_values])
    is_novel = np.repeat([False, True], [len(usual_p_values), len(novel_p_values)])
    return float(roc_auc_score(is_novel, -p_values))

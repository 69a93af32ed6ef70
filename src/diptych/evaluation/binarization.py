"""Binary images that models are compared on."""

from jaxtyping import Float, UInt8
from torch import Tensor

from diptych.vae.evaluate import binarized_once


def binarization_of(
    images: UInt8[Tensor, "num channels height width"], seed: int
) -> Float[Tensor, "num channels height width"]:
    """Return one binarisation of a set, on its device: the same for the same seed everywhere.

    It is drawn on the CPU, since devices draw different numbers from one seed: likelihoods are a
    pair only of the same pixels, wherever each was computed.
    """
    return binarized_once(images.cpu(), seed).to(images.device)

"""What the autoencoder's training is told."""

from typing import Literal

from diptych.optimization.params import OptimizationParams, Width


class VaeTrainingParams(OptimizationParams):
    """Section `train_vae` of params.yaml."""

    architecture: Literal["convolutional", "article"]
    """`convolutional`: this project's; `article`: dense layers of 128 and 784 units."""

    num_latents: Width
    """Dimensions of the latent space; the article has 2."""

    width: Width
    """Channels of the largest feature maps of `convolutional`; smaller maps have twice as many."""

    num_hidden: Width
    """Units of the dense layers of `convolutional`."""

    likelihood: Literal["bernoulli"]
    """p(x|z): `bernoulli` over binarised pixels, independent given z."""

    binarization: Literal["dynamic", "static"]
    """`dynamic`: a pixel of value v is 1 with probability v, drawn anew each time it is seen;
    `static`: drawn once. Figures of the two are not comparable."""

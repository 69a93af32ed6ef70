"""What the autoencoder's training is told."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

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

    neighbourhood_radius_pixels: Annotated[int, Field(ge=0, le=100)]
    """0: pixels are independent given z; else each also sees, of those before it in raster order,
    the ones within so many rows and columns (`convolutional` only)."""

    num_neighbourhood_features: Width
    """Features per pixel in which z and neighbours meet; not used where the radius is 0."""

    likelihood: Literal["bernoulli"]
    """p(x|z): `bernoulli` over binarised pixels."""

    binarization: Literal["dynamic", "static"]
    """`dynamic`: a pixel of value v is 1 with probability v, drawn anew each time it is seen;
    `static`: drawn once, from the seed, and not the file that its literature shares (Larochelle and
    Murray, 2011). Figures of the two are not comparable."""

    @model_validator(mode="after")
    def _has_maps_for_neighbours(self) -> "VaeTrainingParams":
        if self.architecture == "article" and self.neighbourhood_radius_pixels > 0:
            raise ValueError("neighbourhood_radius_pixels must be 0 with architecture 'article'")
        return self

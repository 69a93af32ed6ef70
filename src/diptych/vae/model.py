"""The autoencoders. Both take images of any channels and size."""

import math

from jaxtyping import Float
from torch import Tensor, nn

from diptych.vae.elbo import ElboTerms, Gaussian, log_prior_over_posterior
from diptych.vae.likelihood import bernoulli_log_likelihood
from diptych.vae.params import VaeTrainingParams


class Vae(nn.Module):
    """p(z) = N(0, 1), p(x|z) = Bernoulli(decoder(z)), q(z|x) = N(encoder(x)).

    Images are zeros and ones, [batch, channels, height, width].

    Args:
        encoder: From images to means and log-variances, [batch, 2 * num_latents].
        decoder: From latents to pixel logits.
        params: What it is trained to be.
        edge_parameters: Names of the first and last layers' weights.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        params: VaeTrainingParams,
        edge_parameters: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.num_latents = params.num_latents
        self.likelihood = params.likelihood
        self.binarization = params.binarization
        self.edge_parameters = edge_parameters

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Gaussian:
        """Return q(z|x)."""
        mean, log_variance = self.encoder(images).float().chunk(2, dim=1)
        return Gaussian(mean, log_variance)

    def decode(
        self, latents: Float[Tensor, "batch latents"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return pixel logits: log p(pixel = 1 | z) - log p(pixel = 0 | z)."""
        logits: Tensor = self.decoder(latents)
        return logits

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        noise: Float[Tensor, "batch latents"],
    ) -> ElboTerms:
        """Return the bound's terms at one sample per image, made of standard normal noise."""
        posterior = self.encode(images)
        logits = self.decode(posterior.at(noise))
        return ElboTerms(-bernoulli_log_likelihood(logits, images), posterior.rate())

    def log_weights(
        self,
        images: Float[Tensor, "batch channels height width"],
        posterior: Gaussian,
        noise: Float[Tensor, "samples batch latents"],
    ) -> Float[Tensor, "samples batch"]:
        """Return log p(x, z) - log q(z|x) in nats at samples made of standard normal noise."""
        latents = posterior.at(noise)
        logits = self.decode(latents.flatten(0, 1)).unflatten(0, noise.shape[:2])
        return bernoulli_log_likelihood(logits, images) + log_prior_over_posterior(posterior, noise)

    def reconstruct(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return p(pixel = 1 | z) at the mean of q(z|x)."""
        return self.decode(self.encode(images).mean).float().sigmoid()


def build_vae(params: VaeTrainingParams, image_shape: tuple[int, int, int]) -> Vae:
    """Build an untrained autoencoder; initial weights come from torch's global generator.

    Args:
        params: Which architecture.
        image_shape: Channels, height and width.
    """
    if params.architecture == "article":
        return _article_vae(params, image_shape)
    return _convolutional_vae(params, image_shape)


def _article_vae(params: VaeTrainingParams, image_shape: tuple[int, int, int]) -> Vae:
    """Dense 128 to the latents, dense 784 and 784 back.

    Mended: the decoder applies its last layer, the loss is the bound with its rate, and the noise
    has the latents' shape.
    """
    num_pixels = math.prod(image_shape)
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(num_pixels, 128), nn.ReLU(), nn.Linear(128, 2 * params.num_latents)
    )
    decoder = nn.Sequential(
        nn.Linear(params.num_latents, 784),
        nn.ReLU(),
        nn.Linear(784, num_pixels),
        nn.Unflatten(1, image_shape),
    )
    return Vae(encoder, decoder, params, ("encoder.1.weight", "decoder.2.weight"))


def _convolutional_vae(params: VaeTrainingParams, image_shape: tuple[int, int, int]) -> Vae:
    channels, height, width = image_shape
    narrow, wide, num_hidden = params.width, 2 * params.width, params.num_hidden
    map_shape = (wide, math.ceil(height / 4), math.ceil(width / 4))
    num_features = math.prod(map_shape)
    encoder = nn.Sequential(
        Centered(),
        nn.Conv2d(channels, narrow, 5, stride=2, padding=2),
        nn.SiLU(),
        nn.Conv2d(narrow, wide, 3, stride=2, padding=1),
        nn.SiLU(),
        nn.Flatten(),
        nn.Linear(num_features, num_hidden),
        nn.SiLU(),
        nn.Linear(num_hidden, 2 * params.num_latents),
    )
    decoder = nn.Sequential(
        nn.Linear(params.num_latents, num_hidden),
        nn.SiLU(),
        nn.Linear(num_hidden, num_features),
        nn.SiLU(),
        nn.Unflatten(1, map_shape),
        nn.Conv2d(wide, 4 * narrow, 3, padding=1),
        nn.PixelShuffle(2),
        nn.SiLU(),
        nn.Conv2d(narrow, 4 * channels, 3, padding=1),
        nn.PixelShuffle(2),
        Cropped(height, width),
    )
    return Vae(encoder, decoder, params, ("encoder.1.weight", "decoder.8.weight"))


class Centered(nn.Module):
    """Maps pixels from [0, 1] to [-1, 1]."""

    def forward(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return 2 x - 1."""
        return 2 * images - 1


class Cropped(nn.Module):
    """Cuts feature maps, whose sides are multiples of 4, to the images' size.

    Args:
        height: Of the images.
        width: Of the images.
    """

    def __init__(self, height: int, width: int) -> None:
        super().__init__()
        self.height = height
        self.width = width

    def forward(
        self, maps: Float[Tensor, "batch channels map_height map_width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the upper left part."""
        return maps[..., : self.height, : self.width]

"""The autoencoders. Both take images of any channels and size."""

import math

import torch
from jaxtyping import Float
from torch import Tensor, nn

from diptych.vae.elbo import ElboTerms, Gaussian, log_prior_over_posterior
from diptych.vae.likelihood import bernoulli_log_likelihood
from diptych.vae.neighbourhood import Neighbourhood
from diptych.vae.params import VaeTrainingParams


class Vae(nn.Module):
    """p(z) = N(0, 1), q(z|x) = N(encoder(x)), p(x|z) = Bernoulli, given z alone or neighbours too.

    Images are zeros and ones, [batch, channels, height, width].

    Args:
        encoder: From images to means and log-variances, [batch, 2 * num_latents].
        decoder: From latents to pixel logits, or to the maps that the neighbourhood takes.
        params: What it is trained to be.
        edge_parameters: Names of the first and last layers' weights.
        neighbourhood: What a pixel sees beside z; None: pixels are independent given z.
    """

    def __init__(
        self,
        encoder: nn.Module,
        decoder: nn.Module,
        params: VaeTrainingParams,
        edge_parameters: tuple[str, ...],
        neighbourhood: Neighbourhood | None = None,
    ) -> None:
        super().__init__()
        self.encoder = encoder
        self.decoder = decoder
        self.neighbourhood = neighbourhood
        self.num_latents = params.num_latents
        self.likelihood = params.likelihood
        self.binarization = params.binarization
        self.edge_parameters = edge_parameters

    def encode(self, images: Float[Tensor, "batch channels height width"]) -> Gaussian:
        """Return q(z|x)."""
        mean, log_variance = self.encoder(images).float().chunk(2, dim=1)
        return Gaussian(mean, log_variance)

    def log_likelihood(
        self,
        latents: Float[Tensor, "samples batch latents"],
        images: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "samples batch"]:
        """Return log p(x|z) in nats."""
        maps = self.decoder(latents.flatten(0, 1)).unflatten(0, latents.shape[:2])
        logits = maps if self.neighbourhood is None else self.neighbourhood(maps, images)
        return bernoulli_log_likelihood(logits, images)

    def forward(
        self,
        images: Float[Tensor, "batch channels height width"],
        noise: Float[Tensor, "batch latents"],
    ) -> ElboTerms:
        """Return the bound's terms at one sample per image, made of standard normal noise."""
        posterior = self.encode(images)
        log_likelihood = self.log_likelihood(posterior.at(noise)[None], images)[0]
        return ElboTerms(distortion=-log_likelihood, rate=posterior.rate())

    def log_weights(
        self,
        images: Float[Tensor, "batch channels height width"],
        posterior: Gaussian,
        noise: Float[Tensor, "samples batch latents"],
    ) -> Float[Tensor, "samples batch"]:
        """Return log p(x, z) - log q(z|x) in nats at samples made of standard normal noise."""
        log_likelihood = self.log_likelihood(posterior.at(noise), images)
        return log_likelihood + log_prior_over_posterior(posterior, noise)

    def probabilities(
        self, latents: Float[Tensor, "batch latents"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return p(pixel = 1 | z), float32.

        With a neighbourhood: given the probabilities of the pixels before, in place of their
        values. That is a picture of z, and no exact marginal.
        """
        maps: Tensor = self.decoder(latents).float()
        if self.neighbourhood is None:
            return maps.sigmoid()
        return self.neighbourhood.draw(maps, lambda probability, *_: probability)

    def sample(
        self,
        latents: Float[Tensor, "batch latents"],
        uniforms: Float[Tensor, "batch channels height width"],
    ) -> Float[Tensor, "batch channels height width"]:
        """Draw images of zeros and ones from p(x|z): a pixel is 1 where its uniform is below p."""
        maps: Tensor = self.decoder(latents).float()
        if self.neighbourhood is None:
            return (uniforms < maps.sigmoid()).float()
        return self.neighbourhood.draw(
            maps,
            lambda probability, row, column: (uniforms[..., row, column] < probability).float(),
        )

    def reconstruct(
        self, images: Float[Tensor, "batch channels height width"]
    ) -> Float[Tensor, "batch channels height width"]:
        """Return the pixels' probabilities at the mean of q(z|x)."""
        return self.probabilities(self.encode(images).mean)


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
    has the latents' shape. The decoder's first layer starts wider than torch's does.
    """
    num_pixels = math.prod(image_shape)
    encoder = nn.Sequential(
        nn.Flatten(), nn.Linear(num_pixels, 128), nn.ReLU(), nn.Linear(128, 2 * params.num_latents)
    )
    decoder = nn.Sequential(
        _spread(nn.Linear(params.num_latents, 784)),
        nn.ReLU(),
        nn.Linear(784, num_pixels),
        nn.Unflatten(1, image_shape),
    )
    return Vae(encoder, decoder, params, ("encoder.1.weight", "decoder.2.weight"))


@torch.no_grad()
def _spread(layer: nn.Linear) -> nn.Linear:
    """Let a layer of few latents bend steeply, all over the prior's mass, from the first step on.

    A unit bends where |z| >= |bias| / |weights|: mostly within one standard deviation as torch
    draws them, here twice as far out. A short training moves the kinks little.
    """
    layer.weight.mul_(4)
    layer.bias.mul_(8)
    return layer


def _convolutional_vae(params: VaeTrainingParams, image_shape: tuple[int, int, int]) -> Vae:
    channels, height, width = image_shape
    narrow, wide, num_hidden = params.width, 2 * params.width, params.num_hidden
    map_shape = (wide, math.ceil(height / 4), math.ceil(width / 4))
    num_features = math.prod(map_shape)
    radius = params.neighbourhood_radius_pixels
    num_maps = channels if radius == 0 else params.num_neighbourhood_features
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
        SubpixelConvolution(wide, narrow),
        nn.SiLU(),
        SubpixelConvolution(narrow, num_maps),
        Cropped(height, width),
    )
    if radius == 0:
        return Vae(encoder, decoder, params, ("encoder.1.weight", "decoder.7.weight"))
    edges = ("encoder.1.weight", "neighbourhood.kernel.weight", "neighbourhood.head.3.weight")
    return Vae(encoder, decoder, params, edges, Neighbourhood(channels, num_maps, radius))


class SubpixelConvolution(nn.Conv2d):
    """A 3 x 3 convolution that gives 2 x 2 pixels for each: its channels are those of four pixels.

    Source: Shi et al. (2016), "Real-time single image and video super-resolution using an efficient
    sub-pixel convolutional neural network". Unlike in torch.nn.PixelShuffle a pixel's channels stay
    together: where channels are the last dimension in memory, pixels move as a whole.

    Args:
        num_in: Channels.
        num_out: Channels.
    """

    def __init__(self, num_in: int, num_out: int) -> None:
        super().__init__(num_in, 4 * num_out, kernel_size=3, padding=1)

    def forward(
        self, maps: Float[Tensor, "batch num_in height width"]
    ) -> Float[Tensor, "batch num_out 2*height 2*width"]:
        """Return maps of twice the height and width."""
        pixels = super().forward(maps).permute(0, 2, 3, 1).unflatten(3, (2, 2, -1))
        rows = pixels.transpose(2, 3)  # [batch, height, 2, width, 2, num_out]
        return rows.flatten(3, 4).flatten(1, 2).permute(0, 3, 1, 2)


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

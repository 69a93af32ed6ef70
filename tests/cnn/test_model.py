import pytest
import torch
from torch import Tensor, nn

from diptych.cnn.model import Cnn, GlobalMaxPool, build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.errors import UserError

ARCHITECTURES = ["compact", "deep", "article"]


def build(
    params: CnnTrainingParams,
    image_shape: tuple[int, int, int],
    num_classes: int = 10,
    mean: float = 0.1,
    deviation: float = 0.3,
) -> Cnn:
    torch.manual_seed(0)
    channels = image_shape[0]
    return build_cnn(params, image_shape, num_classes, [mean] * channels, [deviation] * channels)


def random_images(*shape: int) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(1))


def test_the_articles_network_has_the_articles_size(cnn_params):
    model = build(cnn_params(architecture="article"), (1, 28, 28))
    assert sum(p.numel() for p in model.parameters()) == 93_322


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 20, 33), (2, 18, 18), (1, 40, 19)])
@pytest.mark.parametrize("num_classes", [2, 7])
def test_images_of_any_shape_give_logits(cnn_params, architecture, shape, num_classes):
    model = build(cnn_params(architecture=architecture), shape, num_classes).eval()
    logits = model.single_view_logits(random_images(5, *shape))
    assert logits.shape == (5, num_classes)
    assert logits.isfinite().all()
    assert not torch.equal(logits[0], logits[1])


@pytest.mark.parametrize("num_blocks", [1, 2, 3])
def test_compact_grows_by_its_params(cnn_params, num_blocks):
    model = build(cnn_params(width=3, num_blocks=num_blocks), (1, 4, 4))
    kernels = [tuple(p.shape) for p in model.parameters() if p.ndim == 4]
    half, quarter = [(3, 1, 5, 5), (3, 3, 3, 3)], [(6, 3, 3, 3), *[(6, 6, 3, 3)] * (num_blocks - 1)]
    assert kernels == half + quarter


@pytest.mark.parametrize(("width", "num_first"), [(1, 1), (15, 15), (20, 16), (32, 16), (40, 20)])
def test_compacts_first_layer_has_half_the_width_but_fills_a_vector(cnn_params, width, num_first):
    model = build(cnn_params(width=width, num_blocks=1), (1, 4, 4))
    first, second, _ = [p.shape for p in model.parameters() if p.ndim == 4]
    assert first == (num_first, 1, 5, 5)
    assert second == (width, num_first, 3, 3)


@pytest.mark.parametrize("num_blocks", [1, 2])
def test_deep_looks_at_images_in_full_at_half_and_at_a_quarter(cnn_params, num_blocks):
    model = build(cnn_params(architecture="deep", width=3, num_blocks=num_blocks), (1, 8, 12))
    sizes: list[tuple[int, ...]] = []
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(lambda _m, _i, maps: sizes.append(tuple(maps.shape[1:])))
    model(random_images(2, 1, 8, 12))
    expected = [(3, 8, 12), (6, 4, 6), (12, 2, 3)]
    assert sizes == [size for size in expected for _ in range(num_blocks)]


@pytest.mark.parametrize(
    ("architecture", "shape", "message"),
    [
        ("compact", (1, 3, 28), r"'compact' takes images of at least 4 x 4 \(got 3 x 28\)$"),
        ("compact", (1, 28, 3), r"at least 4 x 4 \(got 28 x 3\)$"),
        ("deep", (1, 4, 3), r"'deep' takes images of at least 4 x 4 \(got 4 x 3\)$"),
        ("article", (1, 17, 28), r"'article' takes images of at least 18 x 18 \(got 17 x 28\)$"),
        ("article", (3, 28, 17), r"at least 18 x 18 \(got 28 x 17\)$"),
    ],
)
def test_images_that_are_too_small_are_refused(cnn_params, architecture, shape, message):
    with pytest.raises(UserError, match=f"^train_cnn.architecture: .*{message}"):
        build(cnn_params(architecture=architecture), shape)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_the_edges_are_the_models_own_matrices(cnn_params, architecture):
    model = build(cnn_params(architecture=architecture), (1, 20, 20))
    parameters = dict(model.named_parameters())
    assert all(parameters[name].ndim >= 2 for name in model.edge_parameters)


def test_standardised_images_need_no_standardising(cnn_params):
    params, shape = cnn_params(), (3, 8, 9)
    images = random_images(4, *shape)
    raw = build(params, shape, mean=0.4, deviation=0.2).eval()
    standardised = build(params, shape, mean=0.0, deviation=1.0).eval()
    torch.testing.assert_close(raw(images), standardised((images - 0.4) / 0.2))


def test_a_channel_without_variation_gives_finite_logits(cnn_params):
    model = build(cnn_params(), (1, 8, 8), mean=0.0, deviation=0.0).eval()
    assert model(torch.zeros(2, 1, 8, 8)).isfinite().all()


def test_probabilities_are_those_of_the_logits_over_the_temperature():
    model = Cnn([nn.Sequential(nn.Flatten(), nn.Linear(4, 3))], [0.0], [1.0]).eval()
    images = random_images(5, 1, 2, 2)
    (logits,) = model(images)
    torch.testing.assert_close(model.log_probabilities(images), logits.log_softmax(dim=1))
    model.temperature.fill_(2.5)
    probabilities = model.log_probabilities(images).exp()
    torch.testing.assert_close(probabilities, (logits / 2.5).softmax(dim=1))
    torch.testing.assert_close(probabilities.sum(dim=1), torch.ones(5))


def test_the_global_pool_takes_the_largest_of_each_channel():
    features = random_images(2, 3, 4, 5)
    assert torch.equal(GlobalMaxPool()(features), features.amax(dim=(2, 3)))


@torch.no_grad()
def test_a_prediction_is_the_mean_over_the_image_and_its_views(cnn_params):
    model = build(cnn_params(view_shift_pixels=2.0), (1, 9, 11)).eval()
    images = torch.zeros(3, 1, 9, 11)
    images[..., 2:-2, 2:-2] = random_images(3, 1, 5, 7)  # nothing is shifted out
    shifts = [(0, 0), (2, 2), (-2, 2), (2, -2), (-2, -2)]
    expected = sum(model.single_view_logits(images.roll(shift, dims=(2, 3))) for shift in shifts)
    torch.testing.assert_close(model.predict_logits(images), expected / 5)
    plain = build(cnn_params(), (1, 9, 11)).eval()
    assert torch.equal(plain.predict_logits(images), plain.single_view_logits(images))


@torch.no_grad()
def test_members_differ_and_are_averaged(cnn_params):
    model = build(cnn_params(num_members=3), (1, 9, 11)).eval()
    alone = build(cnn_params(num_members=1), (1, 9, 11)).eval()
    images = random_images(4, 1, 9, 11)
    logits = model(images)
    assert logits.shape == (3, 4, 10)
    assert torch.equal(logits[0], alone(images)[0])
    assert not torch.equal(logits[0], logits[1])
    torch.testing.assert_close(model.predict_logits(images), logits.mean(dim=0))

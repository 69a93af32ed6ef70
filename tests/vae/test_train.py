from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from diptych.errors import UserError
from diptych.images.batches import ResidentSet
from diptych.optimization.compute import Compute
from diptych.optimization.progress import DivergedError, EpochReport
from diptych.optimization.resume import Checkpoints
from diptych.vae.evaluate import binarized_once, evaluate_elbo
from diptych.vae.model import Vae, build_vae
from diptych.vae.params import VaeTrainingParams
from diptych.vae.train import TrainedVae, train_vae


@pytest.fixture
def faint(grey):
    """A set of random grey images, darker than half."""
    return lambda num, seed=0: ResidentSet(
        grey(num, 1, 6, 6, seed=seed) // 2, torch.zeros(num, dtype=torch.int64)
    )


def untrained(params: VaeTrainingParams, image_shape: tuple[int, int, int] = (1, 6, 6)) -> Vae:
    torch.manual_seed(params.seed)
    return build_vae(params, image_shape)


def weights(model: Vae) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "learning_rate": 0.01},
        {"optimizer": "adamw"},
        {"optimizer": "adamw", "architecture": "article"},
    ],
)
def test_one_batch_is_learnt_by_heart(vae_params, cpu, striped, changes):
    """Of three images in black and white -ELBO approaches log 3 = 1.1 from 64 log 2 = 44 nats."""
    images = (striped(3).images // 255) * 255
    batch = ResidentSet(images.repeat(4, 1, 1, 1), torch.zeros(12, dtype=torch.int64))
    sizes = {"num_epochs": 100, "batch_size": 12, "width": 4, "num_hidden": 32}
    rates = {"learning_rate": 0.02, "muon_learning_rate": 0.05}
    params = vae_params(**{**sizes, **rates, **changes})
    trained = train_vae(untrained(params, (1, 8, 8)), batch, batch, params, cpu, lambda _: None)
    assert 1.0 < trained.negative_elbo_nats < 5.0
    assert trained.negative_elbo_nats == pytest.approx(
        trained.rate_nats + trained.distortion_nats, abs=1e-4
    )


@pytest.mark.parametrize("binarization", ["dynamic", "static"])
@pytest.mark.parametrize(
    ("dtype", "num_threads"), [(torch.float32, 1), (torch.bfloat16, 2)], ids=str
)
def test_one_seed_gives_one_training_and_another_another(
    vae_params, faint, binarization, dtype, num_threads
):
    compute = Compute(torch.device("cpu"), dtype)
    torch.set_num_threads(num_threads)

    def train(seed: int) -> tuple[dict[str, Tensor], list[Mapping[str, float]]]:
        params = vae_params(seed=seed, binarization=binarization)
        reports: list[EpochReport] = []
        model = untrained(params)
        train_vae(model, faint(12), faint(5, seed=1), params, compute, reports.append)
        return weights(model), [report.metrics for report in reports]

    torch.manual_seed(5)
    first, first_metrics = train(seed=0)
    torch.manual_seed(6)
    again, again_metrics = train(seed=0)
    assert_same(first, again)
    assert first_metrics == again_metrics
    other, _ = train(seed=1)
    assert not torch.equal(first["encoder.1.weight"], other["encoder.1.weight"])


@pytest.mark.parametrize(("binarization", "is_redrawn"), [("static", False), ("dynamic", True)])
def test_pixels_are_drawn_once_or_each_time_they_are_seen(
    vae_params, cpu, faint, binarization, is_redrawn
):
    params = vae_params(binarization=binarization)
    model, seen = untrained(params), []
    model.register_forward_pre_hook(lambda module, inputs: seen.append((module.training, inputs)))
    train_vae(model, faint(12), faint(5, seed=1), params, cpu, lambda _: None)
    batches = [inputs[0] for is_training, inputs in seen if is_training]
    assert [len(batch) for batch in batches] == [4] * 6
    first, second = torch.cat(batches[:3]), torch.cat(batches[3:])
    assert set(first.unique().tolist()) == {0.0, 1.0}
    as_sets = [{tuple(image.flatten().tolist()) for image in epoch} for epoch in (first, second)]
    assert (as_sets[0] != as_sets[1]) == is_redrawn
    noises = torch.cat([inputs[1] for is_training, inputs in seen if is_training])
    assert len(noises[:, 0].unique()) == 24, "the noise of z is always new"


def test_every_epoch_is_reported_with_reconstructions(vae_params, cpu, faint):
    params, validation = vae_params(num_epochs=3), faint(14, seed=1)
    reports: list[EpochReport] = []
    train_vae(untrained(params), faint(12), validation, params, cpu, reports.append)
    assert [(report.epoch, report.num_epochs) for report in reports] == [(1, 3), (2, 3), (3, 3)]
    names = [
        "train_negative_elbo_nats",
        "validation_negative_elbo_nats",
        "validation_rate_nats",
        "validation_distortion_nats",
        "learning_rate",
    ]
    for report in reports:
        assert list(report.metrics) == names
        assert list(report.images) == ["reconstructions"]
        grid = report.images["reconstructions"]
        assert (grid.shape, grid.dtype) == ((2, 12, 1, 6, 6), torch.uint8)
        shown = binarized_once(validation.images, params.seed)[:12]
        assert torch.equal(grid[0], (255 * shown).to(torch.uint8))
    assert not torch.equal(reports[0].images["reconstructions"], grid)


def test_the_best_epoch_is_kept(vae_params, cpu, faint):
    """After the first epoch every pixel is taken for white, which one more cannot mend."""
    params, validation = vae_params(learning_rate=1e-3), faint(5, seed=1)
    model = untrained(params)
    after_first: dict[str, Tensor] = {}
    reports: list[EpochReport] = []

    def spoil(report: EpochReport) -> None:
        reports.append(report)
        if report.epoch == 1:
            after_first.update(weights(model))
            dict(model.named_parameters())["decoder.7.bias"].data.fill_(1e3)

    trained = train_vae(model, faint(12), validation, params, cpu, spoil)
    assert reports[1].metrics["validation_negative_elbo_nats"] > 1000
    assert trained.best_epoch == 1
    assert trained.model is model
    assert not model.training
    assert_same(after_first, weights(model))
    assert trained.negative_elbo_nats == reports[0].metrics["validation_negative_elbo_nats"]
    binary = binarized_once(validation.images, params.seed)
    terms = evaluate_elbo(model, binary, params.seed, cpu)
    assert trained.rate_nats == terms.rate.mean().item()
    assert trained.distortion_nats == terms.distortion.mean().item()


def test_a_loss_that_is_nan_ends_the_training_before_it_spoils_the_weights(vae_params, cpu, faint):
    params = vae_params(num_epochs=3)
    model = untrained(params)
    good: dict[str, Tensor] = {}

    def poison(report: EpochReport) -> None:
        dict(model.named_parameters())["decoder.7.bias"].data.fill_(torch.nan)
        good.update(weights(model))

    message = r"^train_vae epoch 2: the loss must be finite \(got nan\); lower learning_rate$"
    with pytest.raises(DivergedError, match=message):
        train_vae(model, faint(12), faint(5), params, cpu, poison)
    poisoned = good.pop("decoder.7.bias")
    after = weights(model)
    assert poisoned.isnan().all()
    assert after.pop("decoder.7.bias").isnan().all()
    assert_same(good, after)


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_huge_learning_rate_is_the_users_error(vae_params, cpu, faint, optimizer):
    params = vae_params(
        optimizer=optimizer, num_epochs=5, learning_rate=1e38, muon_learning_rate=1e38
    )
    with pytest.raises(UserError, match=r"^train_vae epoch \d: the loss must be finite"):
        train_vae(untrained(params), faint(12), faint(5), params, cpu, lambda _: None)


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon"},
        {"optimizer": "adamw", "binarization": "static"},
        {"neighbourhood_radius_pixels": 1},
    ],
)
def test_a_training_that_was_stopped_after_any_step_ends_as_if_it_had_not_been(
    vae_params, cpu, faint, stopped_after, changes
):
    """Weights, figures and reports, bit for bit."""
    params, num_steps = vae_params(num_epochs=2, **changes), 3 + 3

    def train(checkpoints: Checkpoints | None) -> tuple[TrainedVae, list[EpochReport]]:
        reports: list[EpochReport] = []
        data = faint(12), faint(5, seed=1)
        model = untrained(params)
        return train_vae(model, *data, params, cpu, reports.append, checkpoints), reports

    whole, whole_reports = train(None)
    for step in range(1, num_steps + 1):
        checkpoints = stopped_after(step)
        with pytest.raises(checkpoints.Interrupted):
            train(checkpoints)
        resumed, reports = train(checkpoints.going_on())
        assert_same(weights(whole.model), weights(resumed.model))
        assert resumed.figures() == whole.figures()
        assert [report.metrics for report in reports] == [r.metrics for r in whole_reports], step
        for report, expected in zip(reports, whole_reports, strict=True):
            assert_same(report.images, expected.images)
    train(stopped_after(num_steps + 1))

from collections.abc import Mapping

import pytest
import torch
from torch import Tensor

from diptych.cnn.model import Cnn, build_cnn
from diptych.cnn.params import CnnTrainingParams
from diptych.cnn.train import TrainedCnn, predict_logits, train_cnn
from diptych.errors import UserError
from diptych.images.batches import ResidentSet, to_unit_interval
from diptych.optimization.compute import Compute
from diptych.optimization.progress import DivergedError, EpochReport
from diptych.optimization.resume import Checkpoints


def untrained(params: CnnTrainingParams, image_set: ResidentSet) -> Cnn:
    torch.manual_seed(params.seed)
    _, channels, height, width = image_set.images.shape
    return build_cnn(params, (channels, height, width), 3, [0.2] * channels, [0.3] * channels)


def weights(model: Cnn) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def assert_same(first: Mapping[str, Tensor], second: Mapping[str, Tensor]) -> None:
    assert first.keys() == second.keys()
    for name, tensor in first.items():
        assert torch.equal(tensor, second[name]), name


@pytest.mark.parametrize(
    "changes",
    [
        {"optimizer": "muon", "learning_rate": 0.05},
        {"optimizer": "adamw", "learning_rate": 0.05},
        {"optimizer": "adamw", "architecture": "article", "learning_rate": 0.003},
    ],
)
def test_one_batch_is_learnt_by_heart(cnn_params, cpu, striped, changes):
    params = cnn_params(num_epochs=30, batch_size=12, **changes)
    batch = striped(12, height=18, width=18)
    reports: list[EpochReport] = []
    model = untrained(params, batch)
    trained = train_cnn(model, batch, batch, params, cpu, reports.append)
    assert reports[-1].metrics["train_loss_nats"] < 0.1 * reports[0].metrics["train_loss_nats"]
    assert trained.uncalibrated.accuracy == 1
    assert trained.calibrated.nll_nats < 0.1


@pytest.mark.parametrize(
    ("dtype", "num_threads"), [(torch.float32, 1), (torch.bfloat16, 2)], ids=str
)
def test_one_seed_gives_one_training_and_another_another(cnn_params, striped, dtype, num_threads):
    compute = Compute(torch.device("cpu"), dtype)
    torch.set_num_threads(num_threads)

    def train(seed: int) -> tuple[dict[str, Tensor], list[Mapping[str, float]]]:
        params = cnn_params(seed=seed, max_shift_pixels=1.0, max_rotation_degrees=5.0)
        reports: list[EpochReport] = []
        model = untrained(params, striped(12))
        train_cnn(model, striped(12), striped(6, seed=1), params, compute, reports.append)
        return weights(model), [report.metrics for report in reports]

    torch.manual_seed(5)
    first, first_metrics = train(seed=0)
    torch.manual_seed(6)
    again, again_metrics = train(seed=0)
    assert_same(first, again)
    assert first_metrics == again_metrics
    other, _ = train(seed=1)
    assert not torch.equal(first["members.0.1.weight"], other["members.0.1.weight"])


def test_augmentation_order_and_smoothing_reach_the_training(cnn_params, cpu, striped):
    """From the same initial weights, each of them changes the result."""

    def train(**changes: float) -> Tensor:
        params = cnn_params(num_epochs=1, **changes)
        model = untrained(params.model_copy(update={"seed": 0}), striped(12))
        train_cnn(model, striped(12), striped(6), params, cpu, lambda _: None)
        return weights(model)["members.0.1.weight"]

    plain = train()
    for changes in ({"max_shift_pixels": 1.0}, {"seed": 1}, {"label_smoothing": 0.1}):
        assert not torch.equal(plain, train(**changes)), changes


def test_every_epoch_is_reported(cnn_params, cpu, striped):
    params = cnn_params(num_epochs=3)
    reports: list[EpochReport] = []
    train_cnn(untrained(params, striped(12)), striped(12), striped(6), params, cpu, reports.append)
    assert [(report.epoch, report.num_epochs) for report in reports] == [(1, 3), (2, 3), (3, 3)]
    for report in reports:
        names = [
            "train_loss_nats",
            "validation_nll_nats",
            "validation_calibrated_nll_nats",
            "validation_accuracy",
            "learning_rate",
        ]
        assert list(report.metrics) == names
    rates = [report.metrics["learning_rate"] for report in reports]
    assert rates == sorted(rates, reverse=True)


def test_pruned_epochs_see_fewer_images_on_the_whole_schedule(cnn_params, cpu, striped):
    params = cnn_params(num_epochs=4, batch_size=4, pruned_fraction=2 / 3)
    model = untrained(params, striped(24))
    seen: list[int] = []

    def count(module: Cnn, _inputs: tuple[Tensor, ...], logits: Tensor) -> None:
        if module.training:
            seen.append(logits.shape[1])

    model.register_forward_hook(count)
    reports: list[EpochReport] = []
    train_cnn(model, striped(24), striped(6), params, cpu, reports.append)
    assert seen == [4] * (6 + 2 + 2 + 2)
    rates = [report.metrics["learning_rate"] for report in reports]
    middle_of_last_step = (1 - 11.5 / 12) / 0.75  # the warm-up takes a quarter of 12 steps
    assert rates[-1] == pytest.approx(params.learning_rate * middle_of_last_step)


def test_the_best_epoch_is_kept_and_calibrated(cnn_params, cpu, striped):
    """After the first epoch everything is taken for class 0, which one more epoch cannot mend."""
    params = cnn_params(num_epochs=2, learning_rate=1e-3)
    validation = striped(9, seed=1)
    model = untrained(params, validation)
    after_first: dict[str, Tensor] = {}
    reports: list[EpochReport] = []

    def spoil(report: EpochReport) -> None:
        reports.append(report)
        if report.epoch == 1:
            after_first.update(weights(model))
            dict(model.named_parameters())["members.0.1.bias"].data[0] = 1e4

    trained = train_cnn(model, striped(12), validation, params, cpu, spoil)
    assert reports[1].metrics["validation_nll_nats"] > 1000
    assert trained.best_epoch == 1
    assert trained.model is model
    assert not model.training
    temperature = after_first.pop("temperature")
    kept = weights(model)
    assert kept.pop("temperature") != temperature
    assert_same(after_first, kept)
    best = reports[0].metrics
    assert trained.uncalibrated.accuracy == best["validation_accuracy"]
    assert trained.uncalibrated.nll_nats == pytest.approx(best["validation_nll_nats"])
    assert trained.calibrated.nll_nats <= trained.uncalibrated.nll_nats
    assert trained.calibrated.accuracy == trained.uncalibrated.accuracy


def test_a_loss_that_is_nan_ends_the_training_before_it_spoils_the_weights(
    cnn_params, cpu, striped
):
    params = cnn_params(num_epochs=3)
    model = untrained(params, striped(12))
    good: dict[str, Tensor] = {}

    def poison(report: EpochReport) -> None:
        good.update({name: p.detach().clone() for name, p in model.named_parameters()})
        model.pixel_mean.fill_(torch.nan)

    message = r"^train_cnn epoch 2: the loss must be finite \(got nan\); lower learning_rate$"
    with pytest.raises(DivergedError, match=message):
        train_cnn(model, striped(12), striped(6), params, cpu, poison)
    assert_same(good, dict(model.named_parameters()))


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_huge_learning_rate_is_the_users_error(cnn_params, cpu, striped, optimizer):
    params = cnn_params(
        optimizer=optimizer, num_epochs=5, learning_rate=1e38, muon_learning_rate=1e38
    )
    model = untrained(params, striped(12))
    with pytest.raises(UserError, match=r"^train_cnn epoch \d: the loss must be finite"):
        train_cnn(model, striped(12), striped(6), params, cpu, lambda _: None)


def test_prediction_sees_every_image_once_in_order(cnn_params, cpu):
    """1003 images take more than one batch; each gives what it gives alone."""
    random = torch.Generator().manual_seed(0)
    images = torch.randint(0, 256, (1003, 1, 4, 4), generator=random, dtype=torch.uint8)
    labels = torch.zeros(1003, dtype=torch.int64)
    model = untrained(cnn_params(), ResidentSet(images, labels)).train()
    logits = predict_logits(model, ResidentSet(images, labels), cpu)
    assert not model.training
    assert logits.shape == (1003, 3)
    for position in (0, 999, 1000, 1002):
        (alone,) = model(to_unit_interval(images[position : position + 1]))
        torch.testing.assert_close(logits[position : position + 1], alone)
    again = predict_logits(model, ResidentSet(images, labels + 1), cpu)
    assert torch.equal(logits, again), "labels have no say"


@pytest.mark.parametrize("optimizer", ["muon", "adamw"])
def test_a_training_that_was_stopped_after_any_step_ends_as_if_it_had_not_been(
    cnn_params, cpu, striped, stopped_after, optimizer
):
    """Weights, figures and reports, bit for bit; three of four epochs leave images out."""
    params = cnn_params(
        num_epochs=4, optimizer=optimizer, pruned_fraction=0.5, max_shift_pixels=1.0
    )
    num_steps = 3 + 2 + 2 + 2

    def train(checkpoints: Checkpoints | None) -> tuple[TrainedCnn, list[EpochReport]]:
        reports: list[EpochReport] = []
        model = untrained(params, striped(12))
        data = striped(12), striped(6, seed=1)
        return train_cnn(model, *data, params, cpu, reports.append, checkpoints), reports

    whole, whole_reports = train(None)
    for step in range(1, num_steps + 1):
        checkpoints = stopped_after(step)
        with pytest.raises(checkpoints.Interrupted):
            train(checkpoints)
        resumed, reports = train(checkpoints.going_on())
        assert_same(weights(whole.model), weights(resumed.model))
        assert resumed.figures() == whole.figures()
        assert reports == whole_reports, step
    train(stopped_after(num_steps + 1))

from dataclasses import replace

import pytest
import torch

from benchmarks import checkpointing, latency, roofline
from benchmarks.latency import measure_latency, measure_pair_latency
from benchmarks.novelty import measure_novelty
from benchmarks.settings import UnavailableError, make_setting
from diptych.images.arrays import SPLITS, ImageSet, load_description, load_image_set, save_dataset
from diptych.optimization.compute import Compute


@pytest.fixture
def setting(cnn_case, presets, processed):
    """The article's autoencoder, trained without the products that Muon makes."""
    setting = make_setting(cnn_case, 0, [processed], presets)
    changes = {"architecture": "article", "num_latents": 2, "optimizer": "adamw"}
    content = {**setting.content, "train_vae": {**setting.content["train_vae"], **changes}}
    return replace(setting, content=content)


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr(roofline, "_MIN_SECONDS", 0.02)
    monkeypatch.setattr(roofline, "_SIDES", {"cpu": 256})


def test_operations_are_those_of_the_layers(setting):
    """Dense layers of 144 to 128, 128 to 4, 2 to 784 and 784 to 144, a product and a sum each."""
    layers = [144 * 128, 128 * 4, 2 * 784, 784 * 144]
    figures = roofline.measure_vae(setting)
    assert figures["forward_flops_per_image"] == 2 * sum(layers)
    # Backwards each layer is passed twice, but no gradient of the images is taken.
    assert figures["training_flops_per_image"] == 2 * (3 * sum(layers) - layers[0])


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_a_classifiers_forward_pass_is_that_of_one_view(setting, shift):
    """Convolutions to 6 x 6, 6 x 6 and 3 x 3 pixels, and a dense layer of 4 to 3."""
    layers = [36 * 25 * 1 * 2, 36 * 9 * 2 * 2, 9 * 9 * 2 * 4, 4 * 3]
    section = {**setting.content["train_cnn"], "view_shift_pixels": shift}
    content = {**setting.content, "train_cnn": section}
    figures = roofline.measure_cnn(replace(setting, content=content))
    assert figures["forward_flops_per_image"] == 2 * sum(layers)


@pytest.mark.parametrize("measure", [roofline.measure_cnn, roofline.measure_vae])
def test_the_share_is_of_what_a_matrix_product_reaches(setting, measure):
    figures = measure(setting)
    achieved = figures["training_images_per_second"] * figures["training_flops_per_image"]
    assert figures["training_flops_per_second"] == pytest.approx(achieved)
    assert figures["share_of_matrix_product"] == pytest.approx(
        achieved / figures["matrix_product_flops_per_second"]
    )


def test_novelty_is_measured_on_another_data_set(setting, cnn_case, presets, processed, tmp_path):
    with pytest.raises(UnavailableError, match="needs another data set"):
        measure_novelty(setting)
    # The same images turned dark to bright are another set, and as easy to tell as inverted ones.
    description = load_description(processed)
    sets = {split: load_image_set(processed, split, description) for split in SPLITS}
    bright = {split: ImageSet(255 - one.images, one.labels) for split, one in sets.items()}
    save_dataset(tmp_path / "bright", "bright", tuple(description.class_names), bright)
    found = make_setting(cnn_case, 0, [processed, tmp_path / "bright"], presets)
    assert found.others == (tmp_path / "bright",)
    figures = measure_novelty(replace(setting, others=found.others))
    assert figures["bright_auroc"] == figures["inverted_auroc"]
    assert 0 <= figures["abstention_share"] <= 1
    assert figures["noise_auroc"] > 0.5


@pytest.mark.parametrize("measure", [checkpointing.measure_cnn, checkpointing.measure_vae])
def test_what_checkpoints_take_is_part_of_the_training(setting, measure, capfd):
    content = {**setting.content, "checkpoints": {"interval_seconds": 1e-6}}
    figures = measure(replace(setting, content=content))
    assert figures["num_checkpoints"] > 1
    assert 0 < figures["checkpointing_seconds"] < figures["training_seconds"]
    seldom = measure(
        replace(setting, content={**content, "checkpoints": {"interval_seconds": 1e6}})
    )
    assert seldom["num_checkpoints"] == 0
    assert seldom["share_of_training"] < figures["share_of_training"]
    assert capfd.readouterr().err == ""


def test_a_matrix_product_is_possible_on_a_cpu():
    compute = Compute(torch.device("cpu"), torch.float32)
    assert 1e8 < roofline.matrix_product_flops_per_second(compute) < 1e14


def test_many_images_at_once_are_quicker_than_one_by_one(setting):
    figures = measure_latency(setting)
    assert figures["batch_256_images_per_second"] > 1 / figures["batch_1_seconds"]


@pytest.mark.filterwarnings("ignore")  # mlflow's own
def test_a_pair_is_timed_here_and_behind_a_server(setting, monkeypatch):
    monkeypatch.setattr(latency, "_NUM_CALLS", 3)
    figures = measure_pair_latency(setting)
    for way in ("", "http_"):
        per_second = figures[f"{way}batch_256_images_per_second"]
        assert per_second > 1 / figures[f"{way}batch_1_seconds"] > 0

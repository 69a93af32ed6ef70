"""The programs of others: what they are told, what they print, and what becomes of it."""

import re
import sys
from pathlib import Path

import numpy as np
import pytest

from benchmarks.peers import rounds, run_peers
from benchmarks.peers.program import Images, Outcome, load_images, run_program
from benchmarks.peers.rounds import ARTICLE_PYTHON, PeerError, run_peer
from benchmarks.settings import PRESETS, ROOT, Setting, UnavailableError
from diptych.images.arrays import ImageSet, Split, save_dataset
from diptych.presets import load_preset

PYTHON = Path(sys.executable)
NUM_IMAGES: dict[Split, int] = {"train": 224, "validation": 32, "test": 40}
NUM_PARAMETERS = 93_322  # of the article's network
Capture = pytest.CaptureFixture[str]


@pytest.fixture(autouse=True)
def _one_thread_in_other_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "1")


@pytest.fixture(scope="module")
def processed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Digits' size, ten classes, the class told by the position of a bright row."""
    random = np.random.default_rng(0)

    def image_set(num_images: int) -> ImageSet:
        images = random.integers(0, 60, (num_images, 1, 28, 28), np.uint8)
        labels = np.arange(num_images) % 10
        images[np.arange(num_images), :, 2 * labels + 4] = 255
        return ImageSet(images, labels)

    folder = tmp_path_factory.mktemp("processed")
    names = tuple("abcdefghij")
    save_dataset(folder, "stripes", names, {one: image_set(n) for one, n in NUM_IMAGES.items()})
    return folder


@pytest.fixture
def setting(processed: Path) -> Setting:
    content = load_preset(PRESETS, "tiny")
    content["train_cnn"] |= {"num_epochs": 1, "batch_size": 32}
    content["compute"] = {"device": "cpu", "precision": "float32", "num_threads": 1}
    return Setting(content, processed, seed=3, num_importance_samples=0)


def stand_in(folder: Path, text: str) -> Path:
    """An interpreter of another environment whose every program does this."""
    path = folder / "python"
    path.write_text(f"#!/bin/sh\n{text}\n")
    path.chmod(0o755)
    return path


def test_peers_train_on_all_of_the_training_file_and_look_at_the_test_set(processed: Path) -> None:
    images = load_images(processed)
    assert images.train_images.shape == (256, 28, 28)
    assert images.test_images.shape == (40, 28, 28)
    assert images.train_images.dtype == images.test_images.dtype == np.uint8
    brightest = images.train_images[:, :, 0].argmax(axis=1)
    assert np.array_equal((brightest - 4) // 2, images.train_labels)


@pytest.mark.skipif(not ARTICLE_PYTHON.exists(), reason="no .venv-peers")
def test_the_articles_program_trains_its_network(processed: Path) -> None:
    printed = run_peer("keras_article", ARTICLE_PYTHON, processed, seed=0, num_epochs=3)
    assert printed.num_parameters == NUM_PARAMETERS
    assert len(printed.accuracies) == 3
    assert printed.accuracies[-1] == 1  # the classes are plain to see
    assert printed.seconds > 0
    assert set(printed.versions) == {"keras", "tensorflow"}


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        ([], "the following arguments are required: --processed"),
        (["--processed", "none"], "No such file or directory: 'none/train/images.npy'"),
        (["--processed", "none", "--epochs", "0"], "argument --epochs: must be >= 1 (got 0)"),
        (["--processed", "none", "--epoch", "1"], "unrecognized arguments: --epoch 1"),
    ],
)
def test_bad_arguments_end_a_program_with_one_line(
    arguments: list[str], line: str, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> None:
    def train(images: Images, num_epochs: int, seed: int) -> Outcome:
        raise AssertionError("nothing is trained")

    monkeypatch.setattr(sys, "argv", ["program", *arguments])
    with pytest.raises(SystemExit, match=r"^2$"):
        run_program(train)
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.splitlines()[-1].startswith("program: error: ")
    assert line in printed.err.splitlines()[-1]


def test_the_articles_program_says_what_it_misses(processed: Path) -> None:
    with pytest.raises(PeerError, match=r"^keras_article: .*got 2: .*No module named 'keras'\)$"):
        run_peer("keras_article", PYTHON, processed, seed=0)


@pytest.mark.parametrize("text", ["echo no json", "true", "echo '{\"seconds\": 1.0}'"])
def test_another_output_than_agreed_is_refused(tmp_path: Path, processed: Path, text: str) -> None:
    with pytest.raises(PeerError, match=r"^keras_article: must print one line of JSON \(got "):
        run_peer("keras_article", stand_in(tmp_path, text), processed, seed=0)


def test_a_round_tells_seconds_accuracies_and_ratios(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = '{"seconds": 44.5, "accuracies": [0.9, 0.99], "num_parameters": 1, "versions": {}}'
    monkeypatch.setattr(
        rounds,
        "ARTICLE_PYTHON",
        stand_in(tmp_path, f"echo \"$@\" > {tmp_path}/told; echo '{line}'"),
    )
    figures = run_peers(setting)
    assert figures["keras_seconds"] == 44.5
    assert figures["keras_accuracy"] == 0.99
    for peer in ("keras", "stock"):
        ratio = figures[f"{peer}_seconds"] / figures["diptych_seconds"]
        assert figures[f"{peer}_over_diptych"] == ratio > 0
    assert figures["stock_accuracy"] == 1  # the classes are plain to see
    assert figures["stock_num_parameters"] == NUM_PARAMETERS
    assert 0 <= figures["diptych_accuracy"] <= 1
    told = (tmp_path / "told").read_text().split()
    assert told[:2] == ["-m", "benchmarks.peers.keras_article"]
    assert told[2:] == [
        *("--processed", str(setting.processed)),
        *("--seed", "3"),
        *("--epochs", "5"),
    ]


def test_without_the_articles_environment_nothing_is_measured(
    setting: Setting, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rounds, "ARTICLE_PYTHON", tmp_path / "none")
    with pytest.raises(UnavailableError, match=r"none \(run `make bench-peers`\)$"):
        run_peers(setting)


def test_the_articles_environment_is_pinned_by_hash_and_stays_apart() -> None:
    asked = (ROOT / "benchmarks" / "peers" / "requirements.in").read_text(encoding="utf-8")
    lock = (ROOT / "requirements-peers.lock").read_text(encoding="utf-8")
    entries = re.split(r"^(?=[a-z0-9])", lock, flags=re.MULTILINE)[1:]
    assert len(entries) > 20
    assert [entry for entry in entries if "--hash=sha256:" not in entry] == []
    assert "://" not in lock
    (wanted,) = re.findall(r"^[a-z].*$", asked, flags=re.MULTILINE)
    assert f"\n{wanted} " in lock
    assert "tensorflow" not in (ROOT / "requirements.lock").read_text(encoding="utf-8")

import hashlib
import io
import json
import re

import numpy as np
import pytest

from diptych.images.arrays import (
    SPLITS,
    ImageSet,
    Split,
    load_description,
    load_image_set,
    load_novel,
    pixel_statistics,
    save_dataset,
    save_novel,
)
from diptych.images.integrity import DataError


def random_set(num: int, seed: int) -> ImageSet:
    random = np.random.default_rng(seed)
    images = random.integers(0, 256, (num, 2, 5, 3), np.uint8)
    return ImageSet(images, random.integers(0, 3, num))


SETS: dict[Split, ImageSet] = {
    "train": random_set(7, 1),
    "validation": random_set(3, 2),
    "test": random_set(4, 3),
}
CLASS_NAMES = ("a", "b", "c")


@pytest.fixture
def saved(tmp_path):
    save_dataset(tmp_path, "own", CLASS_NAMES, SETS)
    return tmp_path


def test_what_was_saved_is_loaded_mapped_and_read_only(saved):
    description = load_description(saved)
    for split in SPLITS:
        loaded = load_image_set(saved, split, description)
        assert np.array_equal(loaded.images, SETS[split].images)
        assert np.array_equal(loaded.labels, SETS[split].labels)
        assert isinstance(loaded.images.base, np.memmap)
        assert not loaded.images.flags.writeable


def test_the_description_describes(saved):
    description = load_description(saved)
    assert description == save_dataset(saved, "own", CLASS_NAMES, SETS)
    assert (description.name, description.class_names) == ("own", CLASS_NAMES)
    assert description.image_shape == (2, 5, 3)
    assert [description.split(split).num_images for split in SPLITS] == [7, 3, 4]


def test_equal_sets_give_equal_bytes_that_name_no_place(tmp_path):
    for folder in ("a", "b"):
        save_dataset(tmp_path / folder, "own", CLASS_NAMES, SETS)
    first = {path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*.*")}
    assert len(first) == 7
    for path in first:
        content = (tmp_path / "a" / path).read_bytes()
        assert content == (tmp_path / "b" / path).read_bytes()
        assert str(tmp_path).encode() not in content


def test_statistics_are_those_of_the_training_pixels_per_channel(saved):
    description = load_description(saved)
    pixels = SETS["train"].images / 255
    assert np.allclose(description.pixel_mean, pixels.mean((0, 2, 3)), rtol=1e-13)
    assert np.allclose(description.pixel_standard_deviation, pixels.std((0, 2, 3)), rtol=1e-13)


@pytest.mark.parametrize(("pixel", "mean"), [(0, 0.0), (51, 0.2), (255, 1.0)])
def test_a_flat_image_has_its_grey_as_mean_and_no_deviation(pixel, mean):
    assert pixel_statistics(np.full((3, 1, 2, 2), pixel, np.uint8)) == ((mean,), (0.0,))


def test_black_and_white_in_equal_parts_deviate_by_a_half():
    assert pixel_statistics(np.array([[[[0, 255]]]], np.uint8)) == ((0.5,), (0.5,))


def test_the_digest_changes_with_any_array_and_with_nothing_else(tmp_path):
    digest = save_dataset(tmp_path, "own", CLASS_NAMES, SETS).digest
    assert re.fullmatch("[0-9a-f]{64}", digest)
    assert save_dataset(tmp_path, "other", ("x", "y", "z"), SETS).digest == digest
    for split in SPLITS:
        changed = {**SETS, split: random_set(len(SETS[split]), 9)}
        assert save_dataset(tmp_path, "own", CLASS_NAMES, changed).digest != digest


@pytest.mark.parametrize("file", ["images.npy", "labels.npy"])
@pytest.mark.parametrize("position", [0, 8, -1])
def test_a_flipped_bit_is_refused_before_parsing(saved, file, position):
    path = saved / "test" / file
    content = bytearray(path.read_bytes())
    content[position] ^= 1
    path.write_bytes(content)
    with pytest.raises(DataError, match=rf"^{path}: sha256 must be [0-9a-f]{{64}} \(got [0-9a-f]"):
        load_image_set(saved, "test", load_description(saved))


def test_a_splits_digest_changes_with_its_arrays_and_with_nothing_else(tmp_path):
    description = save_dataset(tmp_path, "own", CLASS_NAMES, SETS)
    assert re.fullmatch("[0-9a-f]{64}", description.test.digest)
    others = {**SETS, "train": random_set(7, 9)}
    assert save_dataset(tmp_path, "own", CLASS_NAMES, others).test == description.test
    for changed in (
        ImageSet(SETS["test"].images[::-1], SETS["test"].labels),
        ImageSet(SETS["test"].images, (SETS["test"].labels + 1) % 3),
    ):
        other = save_dataset(tmp_path, "own", CLASS_NAMES, {**SETS, "test": changed})
        assert other.test.digest != description.test.digest


def test_novel_sets_come_back_and_leave_the_description_as_it_is(saved):
    before = (saved / "dataset.json").read_bytes()
    description = load_description(saved)
    images = random_set(5, 4).images
    for sets in ({}, {"other": images}, {"other": images, "one_more": images[:1]}):
        save_novel(saved, sets)
        loaded = load_novel(saved, description)
        assert list(loaded) == sorted(sets)
        for name, one in sets.items():
            assert np.array_equal(loaded[name], one)
    assert (saved / "dataset.json").read_bytes() == before


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read"),
        (b"{}", r"must describe sets of novel images \(sets: "),
        (b'{"sets": {"../x": {}}}', r"must describe sets of novel images \(sets"),
    ],
)
def test_novel_sets_without_a_valid_description_are_refused(saved, content, message):
    save_novel(saved, {})
    path = saved / "novel" / "novel.json"
    path.unlink() if content is None else path.write_bytes(content)
    with pytest.raises(DataError, match=f"^{path}: {message}[^\n]*$"):
        load_novel(saved, load_description(saved))


def test_novel_images_are_verified_and_of_the_data_sets_shape(saved):
    path = saved / "novel" / "other" / "images.npy"
    save_novel(saved, {"other": random_set(5, 4).images[..., :2]})
    with pytest.raises(DataError, match=rf"^{path}: must be uint8 of shape \[5, 2, 5, 3\] "):
        load_novel(saved, load_description(saved))
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(DataError, match=rf"^{path}: sha256 must be "):
        load_novel(saved, load_description(saved))


def replace_array(folder, file: str, content: bytes, num_images: int = 4) -> None:
    """Put bytes in place of one of the test split's arrays, with their own digest described."""
    (folder / "test" / file).write_bytes(content)
    path = folder / "dataset.json"
    description = json.loads(path.read_text())
    key = f"{file.removesuffix('.npy')}_sha256"
    description["test"] |= {key: hashlib.sha256(content).hexdigest(), "num_images": num_images}
    path.write_text(json.dumps(description))


def npy(array: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array)
    return buffer.getvalue()


@pytest.mark.parametrize(
    ("file", "content", "message"),
    [
        ("images.npy", b"", "must be an array in numpy's format"),
        ("images.npy", b"garbage", "must be an array in numpy's format"),
        ("images.npy", npy(SETS["test"].images)[:-1], "must be an array in numpy's format"),
        ("labels.npy", npy(np.array([print] * 4)), "must be an array in numpy's format"),
        (
            "images.npy",
            npy(np.zeros((3, 5), np.float32)),
            r"must be uint8 of shape \[4, 2, 5, 3\] \(got float32 of shape \[3, 5\]\)",
        ),
        (
            "images.npy",
            npy(SETS["test"].images[:3]),
            r"must be uint8 of shape \[4, 2, 5, 3\] \(got uint8 of shape \[3, 2, 5, 3\]\)",
        ),
        ("labels.npy", npy(np.zeros(4)), r"must be int64 of shape \[4\] \(got float64 of shape"),
        ("labels.npy", npy(np.array([0, 1, 2, 3])), r"labels must be from 0 to 2 \(got 0 to 3\)"),
        ("labels.npy", npy(np.array([0, 1, 2, -1])), r"must be from 0 to 2 \(got -1 to 2\)"),
    ],
)
def test_an_array_that_does_not_fit_its_description_is_one_line(saved, file, content, message):
    replace_array(saved, file, content)
    with pytest.raises(DataError, match=f"^{saved}/test/{file}: [^\n]*{message}[^\n]*$"):
        load_image_set(saved, "test", load_description(saved))


def test_a_missing_array_is_named(saved):
    (saved / "train" / "labels.npy").unlink()
    with pytest.raises(DataError, match=f"{saved}/train/labels.npy: cannot be read"):
        load_image_set(saved, "train", load_description(saved))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": 3}, "name: Input should be a valid string"),
        ({"image_shape": [1, 28]}, "image_shape.2: Field required"),
        ({"extra": 1}, "extra: Extra inputs are not permitted"),
        ({"train": {}}, "train.num_images: Field required"),
        ({"pixel_mean": ["0.5"]}, "pixel_mean.0: Input should be a valid number"),
    ],
)
def test_a_changed_description_is_refused(saved, change, message):
    path = saved / "dataset.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(DataError, match=rf"^{path}: must describe a data set \({message}"):
        load_description(saved)


@pytest.mark.parametrize("content", [b"", b"[]", b"{", b"\xff", b"{}"])
def test_a_description_that_is_none_is_one_line(saved, content):
    (saved / "dataset.json").write_bytes(content)
    with pytest.raises(DataError, match=r"dataset.json: must describe a data set [^\n]*$"):
        load_description(saved)


def test_a_missing_description_is_named(tmp_path):
    with pytest.raises(DataError, match=r"dataset.json: cannot be read \(No such file"):
        load_description(tmp_path)


def test_taking_keeps_images_and_labels_together():
    taken = SETS["train"].take(np.array([4, 1]))
    assert len(taken) == 2
    assert np.array_equal(taken.images, SETS["train"].images[[4, 1]])
    assert np.array_equal(taken.labels, SETS["train"].labels[[4, 1]])

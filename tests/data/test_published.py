"""Corrupted sets on the disk: what is read from them, and everything that is refused."""

import json
import shutil
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import encode

from pushpull_conv.data import ImageSet, ImageStream, open_images, open_published
from pushpull_conv.data.spec import class_list
from pushpull_conv.errors import InputError
from steps import refuses

IMAGENET, PART = class_list("imagenet"), class_list("imagenet-100")
CELLS = [("fog", severity) for severity in (1, 2, 3, 4, 5)]


def image_set(count: int = 7, side: int = 32, classes=("a", "b", "c")) -> ImageSet:
    images = torch.zeros(count, 3, side, side, dtype=torch.uint8)
    labels = torch.arange(count) * 5 % len(classes)
    return ImageSet(images, labels, tuple(classes), torch.arange(count), "small", "test")


# Arrays, as CIFAR-10-C


@pytest.fixture
def arrays(tmp_path) -> Path:
    """Fog for seven images at five severities, and their labels, as the published set holds them."""
    random = np.random.default_rng(0)
    np.save(tmp_path / "fog.npy", random.integers(0, 256, (35, 32, 32, 3), dtype=np.uint8))
    np.save(tmp_path / "labels.npy", np.tile(image_set().labels.numpy(), 5).astype(np.uint8))
    return tmp_path


def test_greyscale_and_colour_are_not_mixed(arrays):
    grey = image_set().greyscale()
    with pytest.raises(InputError, match=r"the clean images are in greyscale, the corrupted ones of .* in colour"):
        open_published(arrays, grey, "arrays", CELLS)
    (arrays / "manifest.json").write_text(json.dumps({"data": grey.name}))
    open_published(arrays, grey, "arrays", CELLS)
    with pytest.raises(InputError, match=r"the corrupted images are in greyscale, the clean ones of .* in colour"):
        open_published(arrays, image_set(), "arrays", CELLS)


@pytest.mark.parametrize("batch_size", [1, 3, 7, 50])
def test_arrays_give_the_severities_one_after_the_other(arrays, batch_size):
    published = open_published(arrays, image_set(), "arrays", CELLS)
    pixels = torch.from_numpy(np.load(arrays / "fog.npy")).permute(0, 3, 1, 2)
    for severity in range(1, 6):
        batches = list(published.batches("fog", severity, batch_size))
        assert torch.equal(torch.cat([batch.images for batch in batches]), pixels[7 * severity - 7 : 7 * severity])
        assert torch.equal(torch.cat([batch.labels for batch in batches]), image_set().labels)
        assert torch.cat([batch.index for batch in batches]).tolist() == list(range(7))


def test_arrays_are_read_in_pieces(tmp_path):
    source = image_set(400, side=64)
    np.save(tmp_path / "labels.npy", np.tile(source.labels.numpy(), 5))
    np.save(tmp_path / "fog.npy", np.zeros((2000, 64, 64, 3), np.uint8))
    tracemalloc.start()
    published = open_published(tmp_path, source, "arrays", CELLS)
    for batch in published.batches("fog", 5, 10):
        assert len(batch.images) == 10
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6 < (tmp_path / "fog.npy").stat().st_size / 5


def test_the_identity_of_arrays_tells_their_contents(arrays):
    def identity():
        return open_published(arrays, image_set(), "arrays", CELLS).identity

    first = identity()
    (arrays / ".fog.npy.partial").write_bytes(b"left over by a write that was killed")
    assert identity() == first
    pixels = np.load(arrays / "fog.npy")
    pixels[3, 4, 5, 1] ^= 1
    np.save(arrays / "fog.npy", pixels)
    assert identity() != first


def refuse(message: str, folder: Path, source, layout: str, cells=CELLS) -> None:
    refuses(open_published, message, folder, source, layout, cells)


def saved(path: Path, change) -> None:
    np.save(path, change(np.load(path)))


@pytest.mark.parametrize(
    ("file", "change", "message"),
    [
        ("fog.npy", lambda a: a[:28], "holds 28 images; 5 severities of the 7 images of small/test are 35"),
        ("fog.npy", lambda a: a[:34], "holds 34 images"),
        ("fog.npy", lambda a: a.astype(np.float32), "fog.npy' holds float32"),
        ("fog.npy", lambda a: a[:, :31], r"holds uint8 \[35, 31, 32, 3\]; small needs uint8 \[35, 32, 32, 3\]"),
        ("fog.npy", lambda a: a.transpose(0, 3, 1, 2), r"\[35, 3, 32, 32\]"),
        ("labels.npy", lambda a: a[::-1], "gives image 1 the label .* shuffled or of other images"),
        ("labels.npy", lambda a: np.roll(a, 1), "labels differ: they are shuffled"),
        (
            "labels.npy",
            lambda a: np.where(np.arange(35) == 33, a + 1, a),
            "gives image 33 the label .* 1 labels differ",
        ),
        ("labels.npy", lambda a: a[:7], r"labels.npy' holds uint8 \[7\]; .* need integers \[35\]"),
        ("labels.npy", lambda a: a.astype(float), "labels.npy' holds float64"),
    ],
)
def test_arrays_that_do_not_fit_are_named(arrays, file, change, message):
    saved(arrays / file, change)
    refuse(message, arrays, image_set(), "arrays")


@pytest.mark.parametrize("file", ["fog.npy", "labels.npy"])
@pytest.mark.parametrize("kept", [0, 5, 100, -1])
def test_truncated_arrays_are_named(arrays, file, kept):
    (arrays / file).write_bytes((arrays / file).read_bytes()[:kept])
    refuse(f"{file}' is truncated or not an array", arrays, image_set(), "arrays")


def test_an_archive_of_arrays_is_no_array(arrays):
    pixels = np.load(arrays / "fog.npy")
    with (arrays / "fog.npy").open("wb") as file:
        np.savez(file, pixels)
    refuse("fog.npy' is truncated or not an array", arrays, image_set(), "arrays")


def test_an_array_that_asks_to_unpickle_is_refused(arrays):
    np.save(arrays / "fog.npy", np.array([{"run": "me"}], dtype=object), allow_pickle=True)
    refuse("fog.npy' is truncated or not an array", arrays, image_set(), "arrays")


def test_missing_arrays_are_named(arrays, tmp_path):
    refuse("corruption snow is missing: there is no '.*snow.npy'", arrays, image_set(), "arrays", [("snow", 1)])
    (arrays / "labels.npy").unlink()
    refuse("labels.npy' is missing", arrays, image_set(), "arrays")
    refuse("published set '.*nowhere' is missing", tmp_path / "nowhere", image_set(), "arrays")


# Folders, as Tiny-ImageNet-C and ImageNet-C


@pytest.fixture
def folders(tmp_path) -> Path:
    """Fog for seven images, three of a, two of b, two of c: files of one grey level that says severity and place."""
    for severity in range(1, 6):
        for name, count in (("a", 3), ("b", 2), ("c", 2)):
            for place in range(count):
                path = tmp_path / "fog" / str(severity) / name / f"x{place}.JPEG"
                path.parent.mkdir(parents=True, exist_ok=True)
                level = 40 * severity + 10 * place + "abc".index(name)
                path.write_bytes(encode(np.full((64, 64, 3), level, np.uint8), "PNG"))
    return tmp_path


def test_folders_give_every_image_with_the_label_of_its_folder(folders):
    published = open_published(folders, image_set(side=64), "folders", CELLS)
    (batch,) = published.batches("fog", 4, 100)
    assert batch.labels.tolist() == [0, 0, 0, 1, 1, 2, 2]
    assert batch.images[:, 0, 0, 0].tolist() == [160, 170, 180, 161, 171, 162, 172]
    assert [len(part.images) for part in published.batches("fog", 4, 3)] == [3, 3, 1]


def test_the_identity_of_folders_tells_their_files(folders):
    def identity():
        return open_published(folders, image_set(side=64), "folders", CELLS).identity

    first = identity()
    assert identity() == first
    (folders / "fog" / "2" / "b" / "x0.JPEG").write_bytes(encode(np.zeros((64, 64, 3), np.uint8), "BMP"))
    assert identity() != first


def test_a_part_of_imagenet_is_read_from_the_whole_set(tmp_path):
    others = [name for name in IMAGENET if name not in PART][:3]
    for split in ("val", "c/fog/1"):
        for name in (*PART, *others):
            folder = tmp_path / split / name
            folder.mkdir(parents=True)
            (folder / "x.png").write_bytes(encode(np.full((224, 224, 3), IMAGENET.index(name) % 256, np.uint8)))
    source = open_images("imagenet-100", "test", root=tmp_path)
    published = open_published(tmp_path / "c", source, "folders", [("fog", 1)])
    assert isinstance(source, ImageStream)
    (clean,), (foggy,) = source.batches(100), published.batches("fog", 1, 100)
    assert torch.equal(clean.labels, foggy.labels)
    assert torch.equal(clean.images, foggy.images)


def test_what_is_missing_from_folders_is_named(folders):
    source = image_set(side=64)
    refuse("corruption snow is missing", folders, source, "folders", [("snow", 1)])
    shutil.move(folders / "fog" / "3", folders / "3")
    refuse("severity 3 is missing: there is no '.*fog/3'", folders, source, "folders")
    shutil.move(folders / "3", folders / "fog" / "3")
    (folders / "fog" / "5" / "b" / "x1.JPEG").unlink()
    refuse("fog/5/b' has 1 images, where small/test has 2", folders, source, "folders")
    shutil.rmtree(folders / "fog" / "5" / "b")
    refuse("fog/5/b' has 0 images, where small/test has 2", folders, source, "folders")
    (folders / "fog" / "5" / "b").mkdir()
    refuse("fog/5/b' has no images", folders, source, "folders")


def test_an_image_too_many_and_an_unknown_class_are_named(folders):
    shutil.copy(folders / "fog" / "1" / "a" / "x0.JPEG", folders / "fog" / "1" / "a" / "x7.JPEG")
    refuse("fog/1/a' has 4 images, where small/test has 3", folders, image_set(side=64), "folders")
    (folders / "fog" / "1" / "a" / "x7.JPEG").unlink()
    (folders / "fog" / "2" / "whale").mkdir()
    refuse("class folder '.*fog/2/whale' is not of small; remove it", folders, image_set(side=64), "folders")


@pytest.mark.parametrize(
    ("damage", "message"),
    [(b"", "is truncated or not an image"), (b"text", "is truncated"), (None, "has 32 x 32 pixels, not 64 x 64")],
)
def test_an_image_that_cannot_be_used_is_named(folders, damage, message):
    path = folders / "fog" / "4" / "c" / "x1.JPEG"
    path.write_bytes(encode(np.zeros((32, 32, 3), np.uint8)) if damage is None else damage)
    published = open_published(folders, image_set(side=64), "folders", CELLS)
    with pytest.raises(InputError, match=f"image '.*fog/4/c/x1.JPEG' {message}"):
        list(published.batches("fog", 4, 100))

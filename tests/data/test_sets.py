import functools
import hashlib
import os
import pickle
import re
import tarfile
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import sklearn.datasets
import torch
from image_files import CLASSES, encode, write_parquet
from PIL import Image

from pushpull_conv.data import DATA_SETS, IN_MEMORY, ImageSet, cifar_batches, load_images, open_images, require_outside
from pushpull_conv.errors import InputError
from steps import refuses


def write_folders(root: Path, pixels, labels, split="test") -> list[Path]:
    files = []
    for place, label in enumerate(labels):
        file = root / split / CLASSES[label] / f"{place:04}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(pixels[place]))
        files.append(file)
    return files


def write_batch(path: Path, pixels, labels, protocol=4, keys=(b"data", b"labels")) -> None:
    flat = np.ascontiguousarray(pixels.transpose(0, 3, 1, 2)).reshape(len(pixels), -1)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(dict(zip(keys, (flat, labels), strict=True)), protocol))


def assert_same(images: ImageSet, pixels, labels) -> None:
    assert torch.equal(images.images, torch.from_numpy(pixels).permute(0, 3, 1, 2))
    assert images.labels.tolist() == labels
    assert images.index.tolist() == list(range(len(labels)))
    assert images.classes == CLASSES
    assert (images.name, images.split) == ("cifar10", "test")


# What the three layouts hold comes out the same


@pytest.mark.parametrize("column", ["img", "image"])
@pytest.mark.parametrize("form", ["PNG", "BMP"])
def test_parquet_gives_the_pixels_written(tmp_path, pixels, labels, column, form):
    for shard in range(2):
        half = slice(10 * shard, 10 * shard + 10)
        path = tmp_path / f"test-{shard:05}-of-00002.parquet"
        write_parquet(path, [encode(p, form) for p in pixels[half]], labels[half], column=column)
    assert_same(load_images("cifar10", "test", root=tmp_path), pixels, labels)


def test_parquet_without_class_names_has_those_of_cifar10(tmp_path, pixels, labels):
    write_parquet(tmp_path / "test-0.parquet", [encode(p) for p in pixels], labels, classes=None)
    assert load_images("cifar10", "test", root=tmp_path).classes == CLASSES


def test_class_folders_give_the_pixels_written(tmp_path, pixels, labels):
    write_folders(tmp_path, pixels, labels)
    (tmp_path / "test" / ".DS_Store").touch()
    (tmp_path / "test" / "cat" / "notes.txt").write_text("not an image")
    assert_same(load_images("cifar10", "test", root=str(tmp_path)), pixels, labels)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("keys", [(b"data", b"labels"), ("data", "labels")])
def test_original_batches_give_the_pixels_written(tmp_path, pixels, labels, protocol, keys):
    write_batch(tmp_path / "cifar-10-batches-py" / "test_batch", pixels, labels, protocol, keys)
    assert_same(load_images("cifar10", "test", root=tmp_path), pixels, labels)


def test_a_batch_as_python_2_wrote_it(tmp_path):
    """The stream of the original files, written opcode by opcode: byte strings as keys and as the array's content."""

    def text(content: bytes) -> bytes:
        return b"T" + len(content).to_bytes(4, "little") + content

    pixels = np.arange(2 * 3072).astype(np.uint8)
    kind = b"cnumpy\ndtype\n" + text(b"u1") + b"K\x00K\x01\x87R(K\x03" + text(b"|") + b"NNNJ" + b"\xff" * 4
    kind += b"J" + b"\xff" * 4 + b"K\x00tb"
    array = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85" + text(b"b") + b"\x87R"
    array += b"(K\x01K\x02M\x00\x0c\x86" + kind + b"\x89" + text(pixels.tobytes()) + b"tb"
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    batch.parent.mkdir()
    batch.write_bytes(b"\x80\x02}(" + text(b"data") + array + text(b"labels") + b"](K\x03K\x04eu.")
    test = load_images("cifar10", "test", root=tmp_path)
    assert test.images.flatten().tolist() == pixels.tolist()
    assert test.labels.tolist() == [3, 4]


def test_training_batches_follow_one_another(tmp_path, pixels, labels):
    for number in range(1, 6):
        part = slice(4 * number - 4, 4 * number)
        write_batch(tmp_path / "cifar-10-batches-py" / f"data_batch_{number}", pixels[part], labels[part])
    assert load_images("cifar10", "train", root=tmp_path).labels.tolist() == labels


def test_every_layout_has_the_same_fingerprint(tmp_path, pixels, labels):
    write_parquet(tmp_path / "a" / "test-0.parquet", [encode(p) for p in pixels], labels)
    write_folders(tmp_path / "b", pixels, labels)
    write_batch(tmp_path / "c" / "cifar-10-batches-py" / "test_batch", pixels, labels)
    assert len({load_images("cifar10", "test", root=tmp_path / part).fingerprint for part in "abc"}) == 1


# The digits


def test_digits_are_split_by_class_into_one_fifth_and_the_rest():
    train, test = load_images("digits", "train"), load_images("digits", "test")
    assert sorted(torch.cat([train.index, test.index]).tolist()) == list(range(1797))
    share = test.labels.bincount() / (train.labels.bincount() + test.labels.bincount())
    assert ((share > 0.18) & (share <= 0.2)).all()


def test_digits_are_the_grey_pictures_of_scikit_learn_enlarged():
    test = load_images("digits", "test")
    source = sklearn.datasets.load_digits()
    assert test.images.shape == (355, 3, 32, 32)
    assert torch.equal(test.images[:, 0], test.images[:, 2])
    assert test.labels.tolist() == source.target[test.index].tolist()
    # The mean of each 4 x 4 block is the pixel it came from, up to what bilinear enlargement takes from its neighbours.
    blocks = torch.nn.functional.avg_pool2d(test.images[:, 0].double(), 4)
    expected = torch.from_numpy(source.images[test.index]) * 255 / 16
    assert (blocks - expected).abs().mean() < 25
    assert torch.corrcoef(torch.stack([blocks.flatten(), expected.flatten()]))[0, 1] > 0.95


def test_digits_never_change():
    fingerprint = load_images("digits", "test").fingerprint
    assert fingerprint.startswith("11d7003a4106f144"), "results recorded with the earlier digits no longer compare"


# Bad input


refuse = functools.partial(refuses, load_images)


def test_an_unknown_name_is_answered_with_the_nearest():
    assert IN_MEMORY == ("cifar10", "digits")
    assert DATA_SETS[2:] == ("tiny-imagenet", "imagenet", "imagenet-100", "imagenet-200", "folder")
    refuse("unknown data set 'cifar'; did you mean 'cifar10'", "cifar", "test")
    refuse("unknown split 'testing'; did you mean 'test'", "digits", "testing")


def test_a_missing_folder(tmp_path):
    refuse("nowhere' is missing", "cifar10", "test", root=tmp_path / "nowhere")


def test_an_empty_folder(tmp_path):
    refuse("has no test images of cifar10; expected test-", "cifar10", "test", root=tmp_path)


def test_digits_take_no_folder(tmp_path):
    refuse("digits come with scikit-learn", "digits", "test", root=tmp_path)


@pytest.mark.parametrize("classes", [CLASSES[:9], (*CLASSES, "whale")])
def test_parquet_with_another_number_of_classes(tmp_path, pixels, classes):
    write_parquet(tmp_path / "test-0.parquet", [encode(pixels[0])], [0], classes=classes)
    refuse(f"test-0.parquet' has {len(classes)} classes .*; cifar10 has 10", "cifar10", "test", root=tmp_path)


def test_folders_with_another_number_of_classes(tmp_path, pixels, labels):
    write_folders(tmp_path, pixels[:18], labels[:18])
    refuse("has 9 classes .*; cifar10 has 10", "cifar10", "test", root=tmp_path)


def test_folders_with_other_classes(tmp_path, pixels, labels):
    write_folders(tmp_path, pixels, labels)
    (tmp_path / "test" / "cat").rename(tmp_path / "test" / "whale")
    refuse("whale.*; cifar10 has 10: airplane", "cifar10", "test", root=tmp_path)


def test_a_class_folder_without_images(tmp_path, pixels, labels):
    for file in write_folders(tmp_path, pixels, labels)[:2]:
        file.unlink()
    refuse("airplane' has no images", "cifar10", "test", root=tmp_path)


def test_images_without_class_folders(tmp_path):
    (tmp_path / "test").mkdir()
    Image.new("RGB", (32, 32)).save(tmp_path / "test" / "photo.png")
    with pytest.raises(InputError, match="test' has no class folders; put its images into one folder for each class"):
        open_images("folder", "test", root=tmp_path)


@pytest.mark.parametrize("out", [".", "val", "val/bee/out", "train/../train", "link"])
def test_a_folder_among_the_images_is_no_output(tmp_path, out):
    (tmp_path / "link").symlink_to(tmp_path / "val")
    if out == ".":
        require_outside(tmp_path / "results", tmp_path)
        require_outside(tmp_path, tmp_path / "val")
        require_outside(tmp_path / "val", None)
    else:
        with pytest.raises(InputError, match=r"lies among the images of .*; choose a folder outside of it"):
            require_outside(tmp_path / out, tmp_path)


@pytest.mark.parametrize("label", [-1, 10])
def test_a_label_out_of_range(tmp_path, pixels, label):
    write_parquet(tmp_path / "test-0.parquet", [encode(p) for p in pixels[:2]], [3, label])
    refuse(f"label {label} of image 1 of cifar10/test is outside 0 to 9", "cifar10", "test", root=tmp_path)


@pytest.mark.parametrize("label", [2**63 + 1, -(2**63), None, "cat"])
def test_a_parquet_row_without_a_label_that_int64_holds(tmp_path, pixels, label):
    """The least int64 stands for other classes, whose images are left out."""
    write_parquet(tmp_path / "test-0.parquet", [encode(pixels[0])], np.array([label]))  # the first is uint64
    refuse("row 0 of '.*test-0.parquet' has no integer label; replace the file", "cifar10", "test", root=tmp_path)


@pytest.mark.parametrize("kept", [0, 3, 100, 0.5, -1])
def test_a_truncated_parquet_file_is_named(tmp_path, pixels, labels, kept):
    file = tmp_path / "test-0.parquet"
    write_parquet(file, [encode(p) for p in pixels], labels)
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * kept) if isinstance(kept, float) else kept])
    refuse(re.escape(f"Parquet file '{file}' is truncated"), "cifar10", "test", root=tmp_path)


@pytest.mark.parametrize("name", ["test-00000-of-00002", "test-00000-of-00002-1359597a978bc4fa"])
def test_a_missing_shard(tmp_path, pixels, labels, name):
    write_parquet(tmp_path / f"{name}.parquet", [encode(p) for p in pixels], labels)
    refuse("is one of 2 shards but 1 are there", "cifar10", "test", root=tmp_path)


def test_parquet_with_other_columns(tmp_path, pixels):
    write_parquet(tmp_path / "test-0.parquet", [encode(pixels[0])], [0], column="picture")
    refuse("has the columns picture, label; expected 'label' and one of img, image", "cifar10", "test", root=tmp_path)


def test_a_parquet_row_without_bytes(tmp_path, pixels):
    write_parquet(tmp_path / "test-0.parquet", [encode(pixels[0]), None], [0, 1])
    refuse("row 1 of .* has no image bytes", "cifar10", "test", root=tmp_path)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        (b"{", "the class names in Parquet file .* cannot be read"),
        (b'{"info": {"features": {"label": {"names": {"0": "airplane"}}}}}', None),
    ],
)
def test_class_names_in_parquet_that_are_none(tmp_path, pixels, said, message):
    file = tmp_path / "test-0.parquet"
    write_parquet(file, [encode(pixels[0])], [3])
    pq.write_table(pq.read_table(file).replace_schema_metadata({b"huggingface": said}), file)
    if message:
        refuse(message, "cifar10", "test", root=tmp_path)
    else:
        assert load_images("cifar10", "test", root=tmp_path).labels.tolist() == [3]


def test_parquet_without_rows(tmp_path, pixels):
    write_parquet(tmp_path / "test-0.parquet", [encode(pixels[0])], [0])
    pq.write_table(pq.read_table(tmp_path / "test-0.parquet")[:0], tmp_path / "test-0.parquet")
    refuse("cifar10/test has no images", "cifar10", "test", root=tmp_path)


@pytest.mark.parametrize("damage", [b"", b"not an image", 60, 500])
def test_a_damaged_image_in_parquet_is_named(tmp_path, pixels, labels, damage):
    encoded = [encode(p) for p in pixels]
    encoded[7] = encoded[7][:damage] if isinstance(damage, int) else damage
    write_parquet(tmp_path / "test-0.parquet", encoded, labels)
    refuse("image in row 7 of .*test-0.parquet' is truncated or not an image", "cifar10", "test", root=tmp_path)


def test_a_truncated_image_file_is_named(tmp_path, pixels, labels):
    file = write_folders(tmp_path, pixels, labels)[7]
    file.write_bytes(file.read_bytes()[:300])
    refuse(re.escape(f"image '{file}' is truncated"), "cifar10", "test", root=tmp_path)


def test_an_image_of_another_size_is_named(tmp_path, pixels, labels):
    file = write_folders(tmp_path, pixels, labels)[3]
    Image.new("RGB", (33, 32)).save(file)
    refuse(re.escape(f"image '{file}' has 33 x 32 pixels, not 32 x 32"), "cifar10", "test", root=tmp_path)


# Pickles


class Attack:
    def __reduce__(self):
        return os.system, ("touch executed",)


def test_a_malicious_batch_is_refused_and_not_run(tmp_path, monkeypatch, pixels, labels):
    monkeypatch.chdir(tmp_path)
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    batch.parent.mkdir()
    batch.write_bytes(pickle.dumps({b"data": Attack(), b"labels": labels}))
    refuse("asks to run (posix|nt).system: refused", "cifar10", "test", root=tmp_path)
    assert not (tmp_path / "executed").exists()


@pytest.mark.parametrize("kept", [0, 1, 50, 3000, -1])
def test_a_truncated_batch_is_named(tmp_path, pixels, labels, kept):
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    write_batch(batch, pixels, labels)
    batch.write_bytes(batch.read_bytes()[:kept])
    refuse("test_batch' is truncated or not a CIFAR-10 batch", "cifar10", "test", root=tmp_path)


@pytest.mark.parametrize("content", [[], {b"data": np.zeros((2, 3072), "u1")}, {b"data": "text", b"labels": [1]}])
def test_a_batch_of_another_layout(tmp_path, content):
    batch = tmp_path / "cifar-10-batches-py" / "test_batch"
    batch.parent.mkdir()
    batch.write_bytes(pickle.dumps(content))
    refuse("test_batch' is truncated or not a CIFAR-10 batch", "cifar10", "test", root=tmp_path)


def test_a_missing_batch(tmp_path, pixels, labels):
    write_batch(tmp_path / "cifar-10-batches-py" / "data_batch_1", pixels, labels)
    refuse("data_batch_2' is missing", "cifar10", "train", root=tmp_path)


# The download


@pytest.fixture
def archive(tmp_path, monkeypatch, pixels, labels) -> Path:
    """The archive that the download finds, behind a file: address, and an empty cache."""
    for name in ("data_batch_1", "data_batch_2", "data_batch_3", "data_batch_4", "data_batch_5", "test_batch"):
        write_batch(tmp_path / "origin" / "cifar-10-batches-py" / name, pixels, labels)
    path = tmp_path / "origin.tar.gz"
    with tarfile.open(path, "w:gz") as tar:
        tar.add(tmp_path / "origin" / "cifar-10-batches-py", "cifar-10-batches-py")
    monkeypatch.setattr(cifar_batches, "URL", path.as_uri())
    monkeypatch.setattr(cifar_batches, "MD5", hashlib.md5(path.read_bytes()).hexdigest())
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return path


def test_without_a_folder_the_original_is_downloaded_once(archive, pixels, labels):
    assert_same(load_images("cifar10", "test"), pixels, labels)
    archive.unlink()
    assert_same(load_images("cifar10", "test"), pixels, labels)


def test_of_processes_that_download_at_the_same_time_none_fails(archive, pixels, labels, monkeypatch, tmp_path):
    real = cifar_batches._download

    def overtaken(path):
        monkeypatch.setattr(cifar_batches, "_download", real)
        load_images("cifar10", "test")
        real(path)

    monkeypatch.setattr(cifar_batches, "_download", overtaken)
    assert_same(load_images("cifar10", "test"), pixels, labels)
    assert [path.name for path in (tmp_path / "cache" / "pushpull-conv").iterdir()] == ["cifar-10-batches-py"]


def test_a_damaged_download_leaves_nothing(archive, tmp_path):
    archive.write_bytes(archive.read_bytes()[:-10])
    refuse("the download from .* is damaged", "cifar10", "test")
    assert list((tmp_path / "cache" / "pushpull-conv").iterdir()) == []


def test_no_network(archive, tmp_path):
    archive.unlink()
    refuse("CIFAR-10 cannot be downloaded from .*connect to a network, or give a data folder", "cifar10", "test")
    assert list((tmp_path / "cache" / "pushpull-conv").iterdir()) == []


# The real thing


@pytest.mark.data
@pytest.mark.skipif("PUSHPULL_DATA" not in os.environ, reason="PUSHPULL_DATA does not name the folder of the data sets")
def test_the_real_cifar10_is_complete():
    test = load_images("cifar10", "test", root=Path(os.environ["PUSHPULL_DATA"], "cifar10"))
    assert test.images.shape == (10000, 3, 32, 32)
    assert test.labels.bincount().tolist() == [1000] * 10
    # The well-known channel means of the test images
    means = test.images.double().mean((0, 2, 3)) / 255
    assert torch.allclose(means, torch.tensor([0.4942, 0.4851, 0.4504], dtype=torch.float64), atol=1e-4)

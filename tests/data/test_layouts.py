"""The layouts of sets that are made for training: Tiny-ImageNet's own, tar shards, trees of two splits."""

import functools
import gzip
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import encode
from test_pictures import Pictures
from torch.utils.data import DataLoader

from pushpull_conv.data import identity_of, open_images, same_images, tar
from pushpull_conv.data.spec import class_list
from pushpull_conv.errors import InputError
from steps import refuses

TINY, IMAGENET, PART = (class_list(name) for name in ("imagenet-200", "imagenet", "imagenet-100"))


refuse = functools.partial(refuses, open_images)


# Tiny-ImageNet as it is published


def level(split: str, label: int, place: int) -> int:
    return (7 * label + 31 * place + (100 if split == "val" else 0)) % 256


def tiny_image(split: str, label: int, place: int) -> bytes:
    return encode(np.full((64, 64, 3), level(split, label, place), np.uint8))


@pytest.fixture
def tiny(tmp_path) -> Path:
    """Two training and one validation image of each class; the validation images are named in another order."""
    root = tmp_path / "tiny-imagenet-200"
    for label, name in enumerate(TINY):
        (root / "train" / name / "images").mkdir(parents=True)
        (root / "train" / name / f"{name}_boxes.txt").write_text(f"{name}_0.JPEG\t0\t0\t63\t63\n")
        for place in range(2):
            (root / "train" / name / "images" / f"{name}_{place}.JPEG").write_bytes(tiny_image("train", label, place))
    (root / "val" / "images").mkdir(parents=True)
    lines = []
    for place, label in enumerate(np.random.default_rng(0).permutation(200).tolist()):
        (root / "val" / "images" / f"val_{place}.JPEG").write_bytes(tiny_image("val", label, place))
        lines.append(f"val_{place}.JPEG\t{TINY[label]}\t0\t32\t44\t62\n")
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "test" / "images").mkdir(parents=True)
    (root / "wnids.txt").write_text("\n".join(reversed(TINY)))
    return root


def test_the_published_tiny_imagenet_is_read(tiny):
    train = open_images("tiny-imagenet", "train", root=tiny)
    assert (train.classes, train.labels.tolist()) == (TINY, [label for label in range(200) for _ in range(2)])
    (batch,) = train.batches(400)
    assert batch.images[:, 0, 5, 5].tolist() == [
        level("train", label, place) for label in range(200) for place in (0, 1)
    ]
    test = open_images("tiny-imagenet", "test", root=tiny)
    (batch,) = test.batches(200)
    place_of = np.argsort(np.random.default_rng(0).permutation(200))
    assert batch.labels.tolist() == list(range(200))
    assert batch.images[:, 1, 9, 9].tolist() == [level("val", label, int(place_of[label])) for label in range(200)]


def test_tiny_imagenet_sorted_into_class_folders_is_the_same(tiny, tmp_path):
    for line in (tiny / "val" / "val_annotations.txt").read_text().splitlines():
        file, name = line.split("\t")[:2]
        (tmp_path / "sorted" / "val" / name).mkdir(parents=True)
        shutil.copy(tiny / "val" / "images" / file, tmp_path / "sorted" / "val" / name)
    original, moved = (open_images("tiny-imagenet", "test", root=root) for root in (tiny, tmp_path / "sorted"))
    assert original.fingerprint == moved.fingerprint


def test_what_tiny_imagenet_lacks_is_named(tiny):
    annotations, text = tiny / "val" / "val_annotations.txt", (tiny / "val" / "val_annotations.txt").read_text()
    annotations.write_text(text.replace("val_7.JPEG", "val_700.JPEG"))
    refuse(r"val_700.JPEG' is missing, of 1; copy", "tiny-imagenet", "test", root=tiny)
    annotations.write_text("".join(text.splitlines(keepends=True)[1:]))
    refuse(
        r"val_annotations.txt' does not say the class of val_0.JPEG, of 1 images", "tiny-imagenet", "test", root=tiny
    )
    annotations.write_text(text + "no tab\n")
    refuse(r"line 201 of '.*val_annotations.txt' is not a file's name, a tab", "tiny-imagenet", "test", root=tiny)
    annotations.write_text(text.replace(TINY[3], "n00000000"))
    refuse(r"val_annotations.txt' has 200 classes", "tiny-imagenet", "test", root=tiny)
    annotations.write_text(text)
    shutil.rmtree(tiny / "val" / "images")
    refuse(r"folder '.*images' is missing", "tiny-imagenet", "test", root=tiny)
    shutil.rmtree(tiny / "train" / TINY[9] / "images")
    refuse(rf"class folder '.*{TINY[9]}' has no images", "tiny-imagenet", "train", root=tiny)


# Class folders of two splits


def test_splits_of_other_classes_are_refused(tmp_path):
    for place in ("train/ant", "train/bee", "val/ant", "val/cat", "val/bee"):
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "0.png").write_bytes(encode(np.zeros((8, 8, 3), np.uint8)))
    for split in ("train", "test"):
        refuse("class 'cat', of 1, is in one of '.*train' and '.*val' only", "folder", split, root=tmp_path)
    shutil.rmtree(tmp_path / "val" / "cat")
    assert open_images("folder", "test", root=tmp_path).classes == ("ant", "bee")


# Tar shards


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache" / "pushpull-conv" / "tar"


def write_tar(path: Path, members: dict[str, bytes], form: int = tarfile.PAX_FORMAT) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as shard:
        for name, content in members.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))


def grey(value: int, form: str = "PNG") -> bytes:
    return encode(np.full((40, 50, 3), value, np.uint8), form)


@pytest.fixture
def shards(tmp_path) -> Path:
    """Three shards of 2, 1 and 3 images of two classes, labelled in all the ways that are known."""
    root = tmp_path / "shards"
    first = {"a/001.png": grey(10), "a/001.cls": b"1", "a/002.cls": b"0\n", "a/002.JPEG": grey(20, "JPEG")}
    second = {"b.json": json.dumps({"label": 1, "filename": "b.png"}).encode(), "b.txt": b"a bee", "b.png": grey(30)}
    third = {f"{'long/' * 60}{key}.{kind}": content for key, kind, content in [
        ("c", "png", grey(40)), ("c", "cls", b" 0 "), ("c", "seg.png", grey(0)), ("d", "WEBP", grey(50)),
        ("d", "json", b'{"cls": 1}'), ("e", "png", grey(60)), ("e", "cls", b"1"), ("", "hidden", b""),
    ]}  # fmt: skip
    for place, members in enumerate((first, second, third)):
        write_tar(root / f"train-{place:04}.tar", members, tarfile.PAX_FORMAT if place % 2 else tarfile.GNU_FORMAT)
    (root / "classes.txt").write_text("ant\nbee\n")
    return root


def test_tar_shards_are_read_in_any_order_and_by_several_processes(shards):
    source = open_images("folder", "train", root=shards)
    assert (len(source), source.classes, source.blocks) == (6, ("ant", "bee"), None)
    assert source.labels.tolist() == [1, 0, 1, 0, 1, 1]
    (batch,) = source.batches(10)
    assert batch.images[:, 0, 0, 0].tolist() == [10, 20, 30, 40, 50, 60]
    assert batch.index.tolist() == list(range(6))
    assert [source.picture(place).getpixel((3, 3))[1] for place in (5, 0, 3)] == [60, 10, 40]
    assert source.picture(2).size == (50, 40)
    loader = DataLoader(Pictures(source), num_workers=1, multiprocessing_context="spawn", batch_size=None)
    assert [int(image[0, 0, 0]) for image in loader] == [10, 20, 30, 40, 50, 60]
    part = source.subset(torch.tensor([4, 1]))
    assert (part.index.tolist(), part.labels.tolist()) == ([4, 1], [1, 0])
    assert [part.picture(place).getpixel((3, 3))[1] for place in (0, 1)] == [50, 20]


@pytest.mark.parametrize("pattern", ["train-{}.tar", "mine-train-{}.tar", "train/{}.tar"])
def test_shards_may_be_named_in_several_ways(shards, tmp_path, pattern):
    expected = open_images("folder", "train", root=shards).fingerprint
    for place in range(3):
        path = tmp_path / "other" / pattern.format(place)
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(shards / f"train-{place:04}.tar", path)
    shutil.copy(shards / "classes.txt", tmp_path / "other")
    assert open_images("folder", "train", root=tmp_path / "other").fingerprint == expected


def test_the_cheap_identity_of_shards_tells_others_of_the_same_names(shards, tmp_path):
    def identity():
        return identity_of(open_images("folder", "train", root=shards))

    first = identity()
    shards = shards.rename(tmp_path / "moved")
    assert identity() == first
    write_tar(shards / "train-0001.tar", {"b.cls": b"1", "b.png": grey(30, "BMP")})
    assert identity().partition(", files ")[0] == first.partition(", files ")[0]
    assert not same_images(identity(), first)


def test_the_layouts_hold_the_same_images(shards, tmp_path):
    """Class folders of the same files in the same order have the same fingerprint."""
    source = open_images("folder", "train", root=shards)
    order = torch.argsort(source.labels, stable=True).tolist()
    for number, place in enumerate(order):
        image = source.encoded[place]
        file = tmp_path / "tree" / "train" / source.classes[source.labels[place]] / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(image.read())
    tree, sorted_source = open_images("folder", "train", root=tmp_path / "tree"), source.subset(torch.tensor(order))
    assert torch.equal(next(tree.batches(6)).images, next(sorted_source.batches(6)).images)
    assert torch.equal(tree.labels, sorted_source.labels)


def test_shards_are_looked_through_once_until_they_change(shards, cache, monkeypatch):
    looked = []
    real = tar._look_through
    monkeypatch.setattr(tar, "_look_through", lambda shard: looked.append(shard.name) or real(shard))
    first = open_images("folder", "train", root=shards).fingerprint
    assert len(looked) == len(list(cache.glob("*.npz"))) == 3
    assert open_images("folder", "train", root=shards).fingerprint == first
    assert len(looked) == 3
    write_tar(shards / "train-0001.tar", {"f.png": grey(99), "f.cls": b"0"})
    changed = open_images("folder", "train", root=shards)
    assert (looked[3:], changed.labels.tolist()) == (["train-0001.tar"], [1, 0, 0, 0, 1, 1])
    for file in cache.iterdir():
        file.write_bytes(b"damaged")
    assert open_images("folder", "train", root=shards).fingerprint == changed.fingerprint
    shutil.rmtree(cache.parent)
    cache.parent.write_text("no folder can be made here")
    assert open_images("folder", "train", root=shards).fingerprint == changed.fingerprint


def test_a_part_of_imagenet_is_found_in_shards_of_the_whole(tmp_path):
    wanted = [IMAGENET.index(PART[3]), IMAGENET.index(PART[0])]
    other = next(label for label, name in enumerate(IMAGENET) if name not in PART)
    members = {}
    for key, label in (("x", wanted[0]), ("y", other), ("z", wanted[1])):
        members |= {f"{key}.png": grey(label % 256), f"{key}.cls": str(label).encode()}
    write_tar(tmp_path / "imagenet1k-validation-00.tar", members)
    refuse("classes.txt' is missing, so nothing says whether", "imagenet-100", "test", root=tmp_path)
    assert open_images("imagenet", "test", root=tmp_path).labels.tolist() == [wanted[0], other, wanted[1]]
    (tmp_path / "classes.txt").write_text("\n".join(IMAGENET))
    source = open_images("imagenet-100", "test", root=tmp_path)
    assert (source.labels.tolist(), source.index.tolist()) == ([3, 0], [0, 2])
    assert [source.picture(place).getpixel((0, 0))[0] for place in (0, 1)] == [label % 256 for label in wanted]


def test_shards_that_cannot_be_used_are_named(shards, tmp_path):
    def refused(message: str) -> None:
        refuse(message, "folder", "train", root=shards)

    path = shards / "train-0001.tar"
    whole = path.read_bytes()
    path.unlink()
    refused(r"the shard after '.*train-0000.tar' is missing, and 1 in all")
    for damaged in (whole[:700], b"text" * 300, gzip.compress(whole)):
        path.write_bytes(damaged)
        refused(r"train-0001.tar' is truncated, compressed or not a tar file")
    write_tar(path, {"a.png": grey(1), "a.cls": b"ant"})
    refused(r"image 'a.png' in '.*train-0001.tar' has no integer label in a .cls or .json")
    write_tar(path, {"a.png": grey(1), "a.jpg": grey(1), "a.cls": b"0"})
    refused(r"train-0001.tar' has two images 'a'")
    write_tar(path, {"a.png": grey(1), "a.cls": b"2"})
    refused(r"the shards have the label 2, but '.*classes.txt' names 2 classes, from 0")
    path.write_bytes(whole)
    (shards / "classes.txt").unlink()
    refused(r"classes.txt' cannot be read; write the name of each class")
    (shards / "train-0003.tar.gz").write_bytes(gzip.compress(whole))
    refused(r"train-0003.tar.gz' is compressed, so no image can be read alone")


def test_a_shard_that_is_missing_among_counted_ones_is_told(shards):
    for place in (0, 2):
        (shards / f"train-{place:04}.tar").rename(shards / f"train-{place:05}-of-00003.tar")
    (shards / "train-0001.tar").unlink()
    refuse("train-00000-of-00003.tar' is one of 3 shards but 2 are there; copy all", "folder", "train", root=shards)


def test_the_first_shards_are_missed(shards):
    for place in (0, 1):
        (shards / f"train-{place:04}.tar").unlink()
    refuse("the shards before '.*train-0002.tar' are missing", "folder", "train", root=shards)


def test_a_shard_that_is_cut_off_between_two_files_is_refused(shards):
    path = shards / "train-0000.tar"
    with tarfile.open(path) as shard:
        *_, last = shard
    whole = path.read_bytes()
    end = last.offset_data + -(-last.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    assert not any(whole[end:])
    damaged_header = whole[: last.offset] + b"damage" + whole[last.offset + 6 :]
    for cut in (whole[: last.offset], whole[:end], whole[: end + 100], damaged_header):
        path.write_bytes(cut)
        refuse("train-0000.tar' is truncated, compressed or not a tar file", "folder", "train", root=shards)
    path.write_bytes(whole[: end + tarfile.BLOCKSIZE])  # all is there
    assert len(open_images("folder", "train", root=shards)) == 6


def test_shards_of_every_writer_end_as_they_must(tmp_path):
    """Python's `tarfile`, also as a stream, which is how WebDataset writes, and the system's tar."""
    (tmp_path / "classes.txt").write_text("ant")
    for name, content in (("a.png", grey(7)), ("a.cls", b"0")):
        (tmp_path / name).write_bytes(content)
    for number, mode in enumerate(("w", "w|")):
        with (tmp_path / f"train-{number}.tar").open("wb") as file, tarfile.open(fileobj=file, mode=mode) as shard:
            shard.add(tmp_path / "a.png", "a.png")
            shard.add(tmp_path / "a.cls", "a.cls")
    if program := shutil.which("tar"):
        subprocess.run([program, "-cf", "train-2.tar", "a.png", "a.cls"], cwd=tmp_path, check=True)
    assert len(open_images("folder", "train", root=tmp_path)) == (3 if program else 2)


@pytest.mark.parametrize("name", ["b.png", "b.cls"])
@pytest.mark.parametrize("kind", [tarfile.LNKTYPE, tarfile.SYMTYPE])
def test_an_image_or_label_that_is_a_link_is_refused(tmp_path, name, kind):
    (tmp_path / "classes.txt").write_text("ant")
    write_tar(tmp_path / "train-0.tar", {"a.png": grey(7), "a.cls": b"0"})
    with tarfile.open(tmp_path / "train-0.tar", "a") as shard:
        for linked in ("b.txt", name):
            entry = tarfile.TarInfo(linked)
            entry.type, entry.linkname = kind, "a.png"
            shard.addfile(entry)
    message = f"'{name}' in '.*train-0.tar' is a link to 'a.png', .*tar --dereference --hard-dereference"
    refuse(message, "folder", "train", root=tmp_path)


@pytest.mark.parametrize("label", ["99999999999999999999", str(2**63), str(-(2**63))])
@pytest.mark.parametrize("kind", ["cls", "json"])
def test_a_label_in_a_shard_that_int64_does_not_hold_is_none(tmp_path, label, kind):
    """The least int64 stands for other classes, whose images are left out."""
    text = label if kind == "cls" else f'{{"label": {label}}}'
    write_tar(tmp_path / "val-0.tar", {"a.png": grey(1), f"a.{kind}": text.encode()})
    refuse("image 'a.png' in '.*val-0.tar' has no integer label in a .cls or .json", "imagenet", "test", root=tmp_path)


def test_a_byte_order_mark_is_no_part_of_the_first_class(shards):
    (shards / "classes.txt").write_text("ant\r\nbee\r\n", encoding="utf-8-sig")
    assert open_images("folder", "train", root=shards).classes == ("ant", "bee")


def test_class_folders_are_read_where_the_shards_they_came_from_lie_beside(tmp_path):
    """ImageNet's training images are published as one tar file for each class."""
    for name in ("n01440764", "n15075141"):
        write_tar(tmp_path / "train" / f"{name}.tar", {"a.JPEG": grey(1, "JPEG")})
        (tmp_path / "train" / name).mkdir()
        (tmp_path / "train" / name / "a.png").write_bytes(grey(2))
    source = open_images("folder", "train", root=tmp_path)
    assert (len(source), source.classes) == (2, ("n01440764", "n15075141"))
    assert source.picture(0).getpixel((0, 0))[0] == 2


def test_numbers_far_apart_are_told_without_counting_up(tmp_path):
    for number in (1440764, 15075141):
        write_tar(tmp_path / "train" / f"n{number:08}.tar", {"a.png": grey(1), "a.cls": b"0"})
    refuse("n01440764.tar' is missing, and 13634376 in all", "folder", "train", root=tmp_path)


def test_a_member_whose_name_is_not_utf8_is_read_and_named(shards, tmp_path):
    with tarfile.open(shards / "train-0001.tar", "w", format=tarfile.GNU_FORMAT, encoding="latin-1") as shard:
        for name, content in {"café.png": grey(30)[:60], "café.cls": b"1"}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            shard.addfile(entry, io.BytesIO(content))
    source = open_images("folder", "train", root=shards)
    with pytest.raises(InputError, match=r"image 'caf\\xe9.png' in '.*train-0001.tar' is truncated or not an image"):
        source.picture(2)


@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_cache_is_made_anew(shards, cache, kept):
    open_images("folder", "train", root=shards)
    for file in cache.glob("*.npz"):
        file.write_bytes(file.read_bytes()[:kept])
    assert len(open_images("folder", "train", root=shards)) == 6


def test_two_classes_of_one_name_are_refused(tmp_path):
    """They would become one: what is labelled 0 and 2 here."""
    write_tar(tmp_path / "test-0.tar", {"a.png": grey(1), "a.cls": b"0", "b.png": grey(2), "b.cls": b"2"})
    for name, classes, repeated in (
        ("folder", ("crane", "dog", "crane"), "crane"),
        ("imagenet-100", (*IMAGENET, PART[5]), PART[5]),
    ):
        (tmp_path / "classes.txt").write_text("\n".join(classes))
        refuse(f"classes.txt' has two classes called '{repeated}'; give each", name, "test", root=tmp_path)


def test_a_checksum_or_index_beside_a_shard_is_no_shard(shards):
    for name in ("train-0000.tar.md5", "train-0000.tar.idx"):
        (shards / name).write_text("")
    assert len(open_images("folder", "train", root=shards)) == 6


def test_a_damaged_image_in_a_shard_is_named(shards):
    write_tar(shards / "train-0001.tar", {"b.png": grey(1)[:60], "b.cls": b"1"})
    source = open_images("folder", "train", root=shards)
    with pytest.raises(InputError, match=r"image 'b.png' in '.*train-0001.tar' is truncated or not an image"):
        source.picture(2)
    (shards / "train-0001.tar").unlink()
    with pytest.raises(InputError, match=r"image 'b.png' in '.*train-0001.tar' cannot be read"):
        source.picture(2)


def test_shards_that_are_not_of_the_data_set_are_refused(shards):
    refuse(r"classes.txt' has 2 classes \(ant, bee\); imagenet has 1000", "imagenet", "train", root=shards)

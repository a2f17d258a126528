"""Looking over data sets: what is counted, and that everything that is wrong is named and exits with 1."""

import errno
import json
import os
import re
import tarfile
from pathlib import Path

import numpy as np
import pytest
from image_files import CLASSES, encode, write_parquet
from PIL import Image

from pushpull_conv.benchmark import write_set
from pushpull_conv.data import load_images, open_images
from pushpull_conv.data.check import check_data
from pushpull_conv.data.spec import class_list
from pushpull_conv.errors import InputError
from steps import refuses

PART = class_list("imagenet-100")


def write_tree(root: Path, counts: dict[str, int], size=(40, 30)) -> None:
    for name, count in counts.items():
        (root / name).mkdir(parents=True)
        for place in range(count):
            Image.new("RGB", size, (place, 0, 0)).save(root / name / f"{place}.png")


@pytest.fixture
def tree(tmp_path) -> Path:
    write_tree(tmp_path / "train", {"ant": 3, "bee": 12})
    write_tree(tmp_path / "val", {"ant": 2, "bee": 1})
    return tmp_path


def test_what_is_there_is_counted(tree):
    Image.new("L", (10, 9)).save(tree / "train" / "ant" / "grey.png")
    Image.new("CMYK", (300, 200)).save(tree / "train" / "bee" / "ink.jpg")
    calls = []
    found = check_data("folder", tree, on_images=lambda *call: calls.append(call))
    assert found.problems == ()
    train, test = found.splits
    assert (train.split, train.counts, train.images, train.damaged) == ("train", {"ant": 4, "bee": 13}, 17, 0)
    assert (train.smallest, train.largest) == ((10, 9), (300, 200))
    assert train.modes == {"RGB": 15, "L": 1, "CMYK": 1}
    assert (test.split, test.counts, test.modes) == ("test", {"ant": 2, "bee": 1}, {"RGB": 3})
    assert [call for call in calls if call[1] == call[2]] == [("train", 17, 17), ("test", 3, 3)]


def test_everything_that_is_wrong_is_named(tree):
    (tree / "train" / "ant" / "0.png").write_bytes(b"text")
    whole = (tree / "train" / "bee" / "7.png").read_bytes()
    (tree / "train" / "bee" / "7.png").write_bytes(whole[: len(whole) // 2])
    (tree / "val" / "ant" / "1.png").write_bytes(b"")
    (tree / "train" / "bee" / "4.png.part").write_bytes(whole)
    (tree / "train" / "bee" / "deeper").mkdir()
    (tree / "train" / "bee" / ".hidden").write_text("is nobody's business")
    (tree / "val" / "loose.png").write_bytes(whole)
    write_tree(tree / "val", {"cat": 1})
    (tree / "train" / "dog").mkdir()
    found = check_data("folder", tree)
    expected = [
        r"train' lacks 1 class of folder: cat; copy them",
        r"class folder '.*train/bee' has 2 entries that are no images: 4.png.part, deeper",
        r"class folder '.*train/dog' has no images",
        r"image '.*train/ant/0.png' is truncated or not an image",
        r"image '.*train/bee/7.png' is truncated or not an image",
        r"2 classes have no train images: cat, dog",
        r"val' lacks 1 class of folder: dog; copy them",
        r"'.*val' has 1 images in no class folder: loose.png",
        r"image '.*val/ant/1.png' is truncated or not an image",
        r"1 class has no test images: dog",
    ]
    assert len(found.problems) == len(expected)
    for pattern, problem in zip(expected, found.problems, strict=True):
        assert re.search(pattern, problem), problem
        assert "\n" not in problem
    train, test = found.splits
    assert (train.counts, train.damaged) == ({"ant": 2, "bee": 11, "cat": 0, "dog": 0}, 2)
    assert (test.counts, test.damaged) == ({"ant": 1, "bee": 1, "cat": 1, "dog": 0}, 1)


def test_a_class_folder_of_someone_else_does_not_hide_what_else_is_wrong(tree, monkeypatch):
    closed, scandir = tree / "train" / "ant", os.scandir

    def guarded(folder):
        if Path(folder) == closed:
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), os.fspath(folder))
        return scandir(folder)

    monkeypatch.setattr(os, "scandir", guarded)
    (tree / "train" / "bee" / "3.png").write_bytes(b"no picture")
    found = check_data("folder", tree)
    assert found.splits[0].counts == {"ant": 0, "bee": 11}
    entry, image, *missing = found.problems
    assert entry == f"class folder '{closed}' may not be entered (Permission denied); ask its owner for access"
    assert "3.png" in image
    assert missing == ["1 class has no train images: ant"]


def test_a_file_in_the_place_of_a_class_folders_images_is_named(tree):
    write_tree(tree / "train", {"cat": 0})
    (tree / "train" / "cat" / "images").write_bytes(b"a folder, once")
    problems = check_data("folder", tree).problems
    place = tree / "train" / "cat"
    assert problems[:2] == (
        f"class folder '{place}' has no images; copy it again",
        f"class folder '{place}' has 1 entries that are no images: images",
    )


def test_class_folders_of_a_part_of_imagenet(tmp_path):
    other = next(name for name in class_list("imagenet") if name not in PART)
    write_tree(tmp_path / "train", {**dict.fromkeys(PART, 1), other: 1})
    assert check_data("imagenet-100", tmp_path).problems == ()
    (tmp_path / "train" / PART[5]).rename(tmp_path / "train" / "n00000000")
    found = check_data("imagenet-100", tmp_path)
    assert [re.sub(".*/", "", problem) for problem in found.problems] == [
        "train' has 1 class that imagenet-100 has not: n00000000; remove them",
        f"train' lacks 1 class of imagenet-100: {PART[5]}; copy them",
        f"1 class has no train images: {PART[5]}",
    ]
    assert found.splits[0].images == 99


def test_many_missing_classes_are_one_problem(tmp_path):
    write_tree(tmp_path / "val", {**dict.fromkeys(PART[:3], 1), "ant": 1, "bee": 1})
    extra, missing, empty = check_data("imagenet-100", tmp_path).problems
    assert extra == f"'{tmp_path / 'val'}' has 2 classes that imagenet-100 has not: ant, bee; remove them"
    assert missing == f"'{tmp_path / 'val'}' lacks 97 classes of imagenet-100: {', '.join(PART[3:15])}, ...; copy them"
    assert "97 classes have no test images" in empty


def test_the_published_tiny_imagenet_has_other_files_by_right(tmp_path):
    names = class_list("imagenet-200")
    write_tree(tmp_path / "train", {f"{name}/images": 1 for name in names}, size=(64, 64))
    for name in names:
        (tmp_path / "train" / name / f"{name}_boxes.txt").write_text("")
    assert check_data("tiny-imagenet", tmp_path).problems == ()
    Image.new("RGB", (64, 63)).save(tmp_path / "train" / names[0] / "images" / "0.png")
    (tmp_path / "train" / names[1] / "images" / "list.csv").write_text("")
    found = check_data("tiny-imagenet", tmp_path).problems
    assert len(found) == 3
    assert re.search(f"'.*{names[1]}' has 1 entries that are no images: list.csv", found[0])
    assert re.search(f"'.*{names[0]}/images/0.png' has 64 x 63 pixels, not 64 x 64", found[1])
    assert found[2] == f"1 class has no train images: {names[0]}"


def test_rows_of_parquet_files(tmp_path):
    images = [encode(np.full((32, 32, 3), place, np.uint8)) for place in range(20)]
    labels = [place % 10 for place in range(20)]
    write_parquet(tmp_path / "train-0.parquet", images, labels)
    write_parquet(tmp_path / "test-0.parquet", [*images[:17], images[17][:50], None, images[19]], labels)
    found = check_data("cifar10", tmp_path)
    assert [split.damaged for split in found.splits] == [0, 2]
    assert found.splits[0].counts == dict.fromkeys(CLASSES, 2)
    assert len(found.problems) == 2
    assert re.search(r"in row 17 of '.*test-0.parquet' is truncated or not an image", found.problems[0])
    assert re.search(r"row 18 of '.*test-0.parquet' has no image bytes", found.problems[1])
    (tmp_path / "test-0.parquet").write_bytes((tmp_path / "test-0.parquet").read_bytes()[:-9])
    found = check_data("cifar10", tmp_path)
    assert [split.split for split in found.splits] == ["train"]
    assert re.search(r"test-0.parquet' is truncated or damaged", found.problems[0])


def test_a_row_group_that_is_damaged_ends_the_split(tmp_path):
    path = tmp_path / "test-0.parquet"
    write_parquet(
        path, [encode(np.random.default_rng(0).integers(0, 256, (32, 32, 3), np.uint8))] * 10, list(range(10))
    )
    content = bytearray(path.read_bytes())
    content[4:40] = bytes(36)  # the header of the first page of images
    path.write_bytes(content)
    found = check_data("cifar10", tmp_path)
    assert re.search(r"is truncated or damaged; .*; 10 images of test were not looked at", found.problems[0])


def test_a_folder_that_may_be_meant_for_a_missing_split_is_named(tree):
    (tree / "val").rename(tree / "valid")
    assert check_data("folder", tree).problems == ()
    (tree / "valid").rename(tree / "dev")
    (problem,) = check_data("folder", tree).problems
    assert problem.endswith("has no test images, but dev; test images are read from val or valid or validation or test")


def test_one_class_is_most_likely_a_level_too_few(tmp_path):
    write_tree(tmp_path / "train", {"photos": 2})
    write_tree(tmp_path / "val", {"photos": 1})
    found = check_data("folder", tmp_path)
    said = f"'{tmp_path}' has one class only, 'photos'; give each class a folder of its own beside it"
    assert found.problems == (said,)


def test_what_cannot_be_checked_is_refused(tmp_path):
    (tmp_path / "README").touch()
    for message, name, root in (
        ("unknown data set 'imagenette'", "imagenette", tmp_path),
        ("digits come with scikit-learn", "digits", tmp_path),
        ("nowhere' is missing; give the folder of imagenet", "imagenet", tmp_path / "nowhere"),
        ("README' is a file, and no folder; give the folder of the images", "folder", tmp_path / "README"),
        ("has no images of imagenet in a layout that is known", "imagenet", tmp_path),
    ):
        with pytest.raises(InputError, match=message):
            check_data(name, root)


def test_where_images_are_looked_for_is_told_and_what_to_do_with_those_that_lie_elsewhere(tree):
    layouts = "expected train/<class>/\\* or train-\\*.tar, val/<class>/\\* or val-\\*.tar, valid/"
    refuses(check_data, f"{layouts}.*; give the folder that holds it, '{tree}'$", "folder", tree / "train")
    (tree / "train").rename(tree / "photos")
    put = r"\*.tar; if its folders are classes, put them into val/ \(and train/\)$"
    refuses(check_data, f"{layouts}.*{put}", "folder", tree / "photos")
    refuses(open_images, f"has no test images of folder; .*{put}", "folder", "test", root=tree / "photos")
    cifar = r"in a layout that is known; expected train-\*.parquet, .* test/<class>/\*.png or cifar-10-batches-py; "
    refuses(check_data, f"{cifar}if its folders are classes, put them into test/", "cifar10", tree / "photos")
    (tree / "val").rename(tree / "photos" / "deeper")
    refuses(check_data, rf"{layouts}.* test-\*.tar$", "folder", tree)


# The command


def test_the_command_prints_a_table_and_exits_with_1_where_something_is_wrong(pushpull, tree):
    code, out, err = pushpull("data", "check", tree, "--data-set", "folder")
    assert (code, err) == (0, "")
    assert re.search(r"images +│ +15 │ +3 │", out)
    assert re.search(r"bee +│ +12 │ +1 │", out)
    assert out.endswith("nothing is wrong\n")
    (tree / "val" / "bee" / "0.png").write_bytes(b"text")
    code, out, err = pushpull("data", "check", tree, "--data-set", "folder")
    assert (code, err) == (1, "")
    assert re.search(r"wrong: image '.*val/bee/0.png' is truncated or not an image; replace it\n", out)
    assert out.endswith("problems: 2\n")


def test_the_command_compares_a_corrupted_set_with_its_manifest(pushpull, tmp_path):
    write_set(load_images("digits", "test")[:9], tmp_path / "set", corruptions=["fog", "contrast"])
    code, out, _ = pushpull("data", "check", tmp_path / "set")
    assert (code, "3 parts, 3 as written" in out) == (0, True)
    pixels = bytearray((tmp_path / "set" / "fog.npy").read_bytes())
    pixels[500] ^= 1
    (tmp_path / "set" / "fog.npy").write_bytes(pixels)
    code, out, _ = pushpull("data", "check", tmp_path / "set")
    assert code == 1
    assert re.search(r"wrong: '.*fog.npy' was changed or damaged since it was written", out)


@pytest.mark.parametrize("content", [{"files": 1}, {"sha256": [1]}, [1], {"sha256": {}, "bytes": 3}])
def test_a_manifest_of_another_program_makes_no_corrupted_set(pushpull, tree, content):
    (tree / "manifest.json").write_text(json.dumps(content))
    code, out, _ = pushpull("data", "check", tree, "--data-set", "folder")
    assert (code, "bee" in out) == (0, True)
    code, _, err = pushpull("data", "check", tree)
    assert (code, "name its data set (--data-set)" in err) == (2, True)


def test_the_command_says_what_it_needs(pushpull, tree, tmp_path):
    code, _, err = pushpull("data", "check", tree)
    assert (code, "name its data set (--data-set)" in err) == (2, True)
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "manifest.json").write_text(json.dumps({"sha256": {}}))
    code, _, err = pushpull("data", "check", tmp_path / "set", "--data-set", "folder")
    assert (code, "leave out --data-set" in err) == (2, True)
    (tmp_path / "set" / "manifest.json").rename(tmp_path / "set" / "manifest.partial.json")
    code, _, err = pushpull("data", "check", tmp_path / "set")
    assert (code, "is not finished; repeat the pushpull corrupt" in err) == (2, True)
    code, out, _ = pushpull("data", "check", "--help")
    assert (code, "Example: pushpull data check" in out) == (0, True)


def test_brackets_in_the_name_of_a_class_are_no_markup(pushpull, tmp_path):
    write_tree(tmp_path / "val", {"[bold]cat": 2, "[red]dog": 1})
    code, out, _ = pushpull("data", "check", tmp_path, "--data-set", "folder")
    assert code == 0
    assert "2 ([bold]cat)" in out
    assert [line.split("│")[1].split()[0] for line in out.splitlines()[-4:-2]] == ["[bold]cat", "[red]dog"]


def test_tar_shards_are_checked(tree, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tree / "cache"))
    shards = tree / "shards"
    shards.mkdir()
    (shards / "classes.txt").write_text("ant\nbee\n")
    (tree / "0.cls").write_text("0")
    (tree / "train" / "ant" / "1.png").write_bytes(b"text")
    with tarfile.open(shards / "train-0.tar", "w") as shard:
        for place in (0, 1):
            shard.add(tree / "train" / "ant" / f"{place}.png", f"{place}.png")
            shard.add(tree / "0.cls", f"{place}.cls")
    found = check_data("folder", shards)
    assert (found.splits[0].counts, found.splits[0].damaged) == ({"ant": 1, "bee": 0}, 1)
    assert re.search(r"image '1.png' in '.*train-0.tar' is truncated or not an image", found.problems[0])
    (shards / "train-1.tar.gz").write_text("")
    assert re.search("is compressed", check_data("folder", shards).problems[0])

"""Sets written to the disk: read back they count as the generated images do, and a part never passes for the whole."""

import dataclasses
import hashlib
import io
import json
import re
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from pushpull_conv.benchmark import Results, check_comparable, evaluate, write_set, writing
from pushpull_conv.benchmark.suites import suite_of
from pushpull_conv.corruptions import SEVERITIES, recompress
from pushpull_conv.data import ImageSet, load_images, open_images
from pushpull_conv.data.manifest import damaged_parts
from pushpull_conv.errors import InputError
from steps import Killed, files

NAMES = ["gaussian_noise", "fog"]


class Linear(nn.Module):
    """A classifier of three or ten classes with integer logits, which small changes of the pixels move."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.register_buffer("weight", torch.randint(-99, 100, (classes, 64), generator=generator).double())

    def forward(self, images):
        fine = images.double().mean(1)[:, ::4, ::4]  # single pixels
        return fine[:, :8, :8].flatten(1) @ (self.weight - self.weight.mean(1, keepdim=True)).T


@pytest.fixture(scope="module")
def digits() -> ImageSet:
    """Digits from the middle of the set, so that place and index differ."""
    return load_images("digits", "test")[100:140]


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """Nine photographs in class folders, opened as a data set of 224 x 224 pixels."""
    random, root = np.random.default_rng(0), tmp_path_factory.mktemp("photographs")
    for place in range(9):
        waves = random.normal(size=(8, 10, 3)).repeat(40, axis=0).repeat(40, axis=1)
        pixels = (128 + 50 * waves + random.normal(size=waves.shape) * 9).clip(0, 255).astype(np.uint8)
        path = root / "val" / "abc"[place % 3] / f"{place}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path)
    return open_images("folder", "test", root=root)


@pytest.fixture(scope="module", params=["digits", "photographs"])
def whole(request, tmp_path_factory):
    """A kind of images, these images, and their whole set in a folder."""
    source, folder = request.getfixturevalue(request.param), tmp_path_factory.mktemp("whole")
    write_set(source, folder, corruptions=NAMES)
    return request.param, source, folder


# Written and generated images count the same


def agree(source, folder, classes, **options) -> tuple[Results, Results]:
    write_set(source, folder, seed=5, corruptions=NAMES, **options)
    options["corruptions"] = NAMES
    generated = evaluate(Linear(classes), source, seed=5, **options)
    published = evaluate(Linear(classes), source, published=folder, batch_size=7, **options)
    assert generated.cells == published.cells
    assert generated.clean == published.clean
    assert len({cell.top1 for cell in generated.cells.values()}) > 2
    return generated, published


def test_arrays_count_as_the_generated_images(digits, tmp_path):
    generated, published = agree(digits, tmp_path, 10)
    assert generated.header.origin == "generated"
    assert published.header.origin.startswith("published ")
    assert (published.header.seed, published.header.frost) == (None, generated.header.frost)
    labels = np.load(tmp_path / "labels.npy")
    assert (labels.dtype, labels.tolist()) == (np.uint8, digits.labels.tolist() * 5)
    assert np.load(tmp_path / "fog.npy").shape == (200, 32, 32, 3)


def test_photographs_count_as_the_generated_images(photographs, tmp_path):
    generated, published = agree(photographs, tmp_path / "set", 3)
    assert (generated.header.suite, generated.header.jpeg_quality) == ("imagenet-c", 85)
    written = sorted(path.relative_to(tmp_path / "set").as_posix() for path in (tmp_path / "set").glob("fog/3/*/*"))
    assert written == [f"fog/3/{name}/{3 * k + place:08}.JPEG" for k, name in enumerate("abc") for place in range(3)]
    with Image.open(tmp_path / "set" / written[0]) as image:
        assert (image.format, image.size) == ("JPEG", (224, 224))
    other = evaluate(Linear(3), photographs, seed=5, corruptions=NAMES, jpeg=False)
    assert other.header.jpeg_quality is None
    assert other.cells != generated.cells
    for pair in ([generated, published], [generated, other]):
        with pytest.raises(
            InputError, match=r"cannot be compared, .*(origin 'generated' and 'published|jpeg_quality 85)"
        ):
            check_comparable(pair)


def test_images_of_tiny_imagenet_go_through_jpeg(tmp_path):
    random = torch.Generator().manual_seed(0)
    small = torch.randint(0, 256, (12, 3, 16, 16), generator=random, dtype=torch.uint8)
    images = small.repeat_interleave(4, 2).repeat_interleave(4, 3)
    source = ImageSet(images, torch.arange(12) % 3, ("a", "b", "c"), torch.arange(12), "small", "test")
    agree(source, tmp_path, 3, suite="tiny-imagenet-c")


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (224, 224), (50, 37), (225, 223)])
def test_our_jpeg_is_pillows_to_the_bit(size):
    """Noise and smooth images, decoded from Pillow's files, are what `recompress` gives."""
    random = torch.Generator().manual_seed(1)
    noise = torch.randint(0, 256, (6, 3, *size), generator=random, dtype=torch.uint8)
    smooth = nn.functional.interpolate(noise[:, :, :5, :5].float(), size, mode="bilinear").to(torch.uint8)
    for images in (noise, smooth):
        decoded = []
        for image in images.permute(0, 2, 3, 1).numpy():
            buffer = io.BytesIO()
            Image.fromarray(image).save(buffer, "JPEG", quality=85, subsampling="4:2:0", optimize=True)
            decoded.append(np.asarray(Image.open(buffer)))
        assert torch.equal(recompress(images, 85), torch.from_numpy(np.stack(decoded)).permute(0, 3, 1, 2))


def test_no_images_stay_no_images():
    assert recompress(torch.empty(0, 3, 32, 32, dtype=torch.uint8), 85).shape == (0, 3, 32, 32)


@pytest.mark.slow
def test_worker_processes_write_the_same(digits, photographs, tmp_path):
    for name, source in (("digits", digits), ("photographs", photographs)):
        for workers in (1, 2):
            write_set(source, tmp_path / f"{name}{workers}", corruptions=["fog", "frost"], workers=workers)
        one, two = (files(tmp_path / f"{name}{workers}") for workers in (1, 2))
        sums = [json.loads(part.pop("manifest.json"))["sha256"] for part in (one, two)]
        assert one == two
        assert sums[0] == sums[1]


# The manifest


def test_the_manifest_says_from_what_the_set_was_made(photographs, tmp_path):
    content = json.loads(write_set(photographs, tmp_path / "set", seed=3, corruptions=["fog"]).read_text())
    assert (content["data"], content["images"], content["fingerprint"]) == ("folder", 9, photographs.fingerprint)
    assert (content["suite"], content["seed"], content["jpeg_quality"]) == ("imagenet-c", 3, 85)
    assert content["frost"].startswith("procedural")
    assert {"torch", "pillow", "numpy", "pushpull_conv"} <= set(content["provenance"])
    assert list(content["sha256"]) == [f"fog/{severity}" for severity in SEVERITIES]
    for part, checksum in content["sha256"].items():
        paths = sorted((tmp_path / "set" / part).glob("*/*"))
        lines = [f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.parent.name}/{path.name}\n" for path in paths]
        assert checksum == hashlib.sha256("".join(lines).encode()).hexdigest()


def test_the_checksums_of_arrays_are_those_of_the_files(digits, tmp_path):
    content = json.loads(write_set(digits, tmp_path, corruptions=["fog"]).read_text())
    assert set(content["sha256"]) == {"fog.npy", "labels.npy"}
    for name, checksum in content["sha256"].items():
        assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == checksum


@pytest.mark.parametrize("name", ["fog.npy", "labels.npy", "snow.npy"])
def test_a_changed_array_is_refused_where_the_set_is_read(digits, tmp_path, name):
    write_set(digits, tmp_path, corruptions=["fog", "snow"])
    pixels = np.load(tmp_path / name)
    pixels[-1] ^= 1
    np.save(tmp_path / name, pixels)
    with pytest.raises(InputError, match=rf"{name}' (was changed or damaged since|gives image)"):
        evaluate(Linear(10), digits, published=tmp_path, corruptions=["fog"])
    assert {part: bool(what) for part, what in damaged_parts(tmp_path)} == {
        part: part == name for part in ("fog.npy", "labels.npy", "snow.npy")
    }


@pytest.mark.parametrize("grown", [True, False])
def test_a_changed_file_is_refused_by_its_size_and_found_by_its_checksum(photographs, tmp_path, grown):
    folder = tmp_path / "set"
    write_set(photographs, folder, corruptions=["fog"])
    file = next((folder / "fog" / "3").glob("a/*"))
    content = file.read_bytes()
    file.write_bytes(content + b"\0" if grown else content[:-3] + b"\0" + content[-2:])
    call = {"published": folder, "corruptions": ["fog"], "severities": [1]}
    if grown:
        with pytest.raises(InputError, match="fog/3' was changed or damaged since it was written"):
            evaluate(Linear(3), photographs, **call)
    else:
        evaluate(Linear(3), photographs, **call)
    assert [part for part, what in damaged_parts(folder) if "fog/3' was changed" in what] == ["fog/3"]
    assert sum(bool(what) for _, what in damaged_parts(folder)) == 1


@pytest.mark.parametrize("kind", ["digits", "photographs"])
def test_a_part_that_was_deleted_is_named_and_written_again(digits, photographs, tmp_path, kind):
    source = digits if kind == "digits" else photographs
    write_set(source, tmp_path / "set", corruptions=["fog"])
    whole = files(tmp_path / "set")
    part = tmp_path / "set" / ("fog.npy" if kind == "digits" else "fog/3")
    part.unlink() if part.is_file() else shutil.rmtree(part)
    assert [what for _, what in damaged_parts(tmp_path / "set") if what] == [
        f"'{part}' is missing; repeat the pushpull corrupt that wrote it"
    ]
    write_set(source, tmp_path / "set", corruptions=["fog"])
    assert files(tmp_path / "set") == whole
    assert not any(what for _, what in damaged_parts(tmp_path / "set"))


def test_a_part_that_lacks_images_is_written_again(photographs, tmp_path):
    write_set(photographs, tmp_path / "set", corruptions=["fog"])
    whole = files(tmp_path / "set")
    next((tmp_path / "set" / "fog" / "3").glob("*/*")).unlink()
    write_set(photographs, tmp_path / "set", corruptions=["fog"])
    assert files(tmp_path / "set") == whole


def test_the_manifest_has_the_size_of_each_part_and_may_lack_it(photographs, tmp_path):
    folder = tmp_path / "set"
    path = write_set(photographs, folder, corruptions=["fog"])
    content = json.loads(path.read_text())
    sizes = {f"fog/{s}": sum(f.stat().st_size for f in folder.glob(f"fog/{s}/*/*")) for s in SEVERITIES}
    assert content["bytes"] == sizes
    del content["bytes"]
    path.write_text(json.dumps(content))
    evaluate(Linear(3), photographs, published=folder, corruptions=["fog"], severities=[1])
    write_set(photographs, folder, corruptions=["fog"])
    path.write_text("[1")
    with pytest.raises(InputError, match=r"manifest.json' is truncated or not a set's manifest"):
        evaluate(Linear(3), photographs, published=folder, corruptions=["fog"], severities=[1])


@pytest.mark.parametrize("kind", ["digits", "photographs"])
def test_a_set_that_was_written_from_other_images_is_refused(request, tmp_path, kind):
    """Of as many images of each class, so that nothing but the manifest tells."""
    source = request.getfixturevalue(kind)
    first, second, *_ = (source.labels == source.labels[0]).nonzero().flatten().tolist()
    places = torch.arange(len(source))
    places[[first, second]] = places[[second, first]]
    write_set(source, tmp_path, corruptions=["fog"])
    chosen = {"published": tmp_path, "corruptions": ["fog"], "severities": [1]}
    model = Linear(source.num_classes)
    evaluate(model, source, **chosen)
    with pytest.raises(InputError, match=r"was written from other images than \S+/train: .* has the split test"):
        evaluate(model, dataclasses.replace(source, split="train"), **chosen)
    with pytest.raises(InputError, match=r"was written from other images than .* has the fingerprint .* give the"):
        evaluate(model, source.subset(places), **chosen)


@pytest.mark.parametrize("name", ["a/b", ".hidden", "..", "", "a\0b"])
def test_a_class_that_cannot_be_a_folder_is_refused_before_anything_is_written(tmp_path, name):
    images, places = torch.zeros(2, 3, 64, 64, dtype=torch.uint8), torch.arange(2)
    named = ImageSet(images, places, (name, "dog"), places, "mine", "test")
    with pytest.raises(InputError, match=re.escape(f"class {name!r} of ") + ".* cannot be the name of a folder"):
        write_set(named, tmp_path / "set", corruptions=["fog"])
    assert not (tmp_path / "set").exists()


def test_the_folder_of_a_set_may_begin_with_the_home_folder(digits, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write_set(digits, tmp_path / "set", corruptions=["fog"])
    chosen = {"corruptions": ["fog"], "severities": [1]}
    found = evaluate(Linear(10), digits, published="~/set", **chosen)
    assert found.cells == evaluate(Linear(10), digits, published=tmp_path / "set", **chosen).cells


def test_a_set_without_a_manifest_has_no_parts_to_compare(tmp_path):
    (tmp_path / "fog.npy").write_bytes(b"downloaded")
    assert list(damaged_parts(tmp_path)) == []


def test_a_second_call_is_kept_out_of_the_folder_until_the_first_is_through(digits, tmp_path):
    def again(event):
        with pytest.raises(InputError, match="set' is being written by another call; wait"):
            write_set(digits, tmp_path / "set", corruptions=["snow"])
        seen.append(event.name)

    seen = []
    write_set(digits, tmp_path / "set", corruptions=["fog"], on_part=again)
    assert seen == ["labels.npy", "fog.npy"]
    write_set(digits, tmp_path / "set", corruptions=["snow"])
    assert sorted(files(tmp_path / "set")) == ["fog.npy", "labels.npy", "manifest.json", "snow.npy"]


def test_a_manifest_of_something_else_is_left_alone(digits, tmp_path):
    (tmp_path / "manifest.json").write_text("[1]")
    with pytest.raises(InputError, match=r"manifest.json' is not of a corrupted set; choose another folder"):
        write_set(digits, tmp_path, corruptions=["fog"])
    assert files(tmp_path) == {"manifest.json": b"[1]"}


# A write that is stopped


def mortal(lives: int):
    """`corrupt` that dies on its ``lives + 1``-th call."""
    calls = []

    def corrupt(*args, **kwargs):
        calls.append(1)
        if len(calls) > lives:
            raise Killed
        from pushpull_conv.corruptions import corrupt

        return corrupt(*args, **kwargs)

    return corrupt


@pytest.mark.parametrize("lives", [0, 1, 4, 6, 9])
def test_a_stopped_write_is_not_read_and_goes_on(whole, tmp_path, monkeypatch, lives):
    kind, source, folder = whole
    total, finished = (3, 1 + lives // 5) if kind == "digits" else (10, lives)  # the labels, and whole parts
    with monkeypatch.context() as patch:
        patch.setattr("pushpull_conv.benchmark.evaluation.corrupt", mortal(lives))
        with pytest.raises(Killed):
            write_set(source, tmp_path / "set", corruptions=NAMES)
    assert len(json.loads((tmp_path / "set" / "manifest.partial.json").read_text())["sha256"]) == finished
    with pytest.raises(InputError, match=r"set '.*' is not finished; repeat the pushpull corrupt"):
        evaluate(Linear(10 if kind == "digits" else 3), source, published=tmp_path / "set", corruptions=NAMES[:1])
    events = []
    write_set(source, tmp_path / "set", corruptions=NAMES, on_part=events.append)
    assert [(event.done, event.total) for event in events] == [(done, total) for done in range(1, total + 1)]
    assert len({event.name for event in events}) == total
    at_once, resumed = files(folder), files(tmp_path / "set")
    whole_sums, sums = (json.loads(part.pop("manifest.json"))["sha256"] for part in (at_once, resumed))
    assert resumed == at_once
    assert sums == whole_sums


def test_a_finished_set_is_left_alone_and_can_be_extended(digits, tmp_path, monkeypatch):
    write_set(digits, tmp_path, corruptions=["fog"])
    before = files(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr("pushpull_conv.benchmark.evaluation.corrupt", mortal(0))
        write_set(digits, tmp_path, corruptions=["fog"])
        assert files(tmp_path) == before
        with pytest.raises(Killed):
            write_set(digits, tmp_path, corruptions=["fog", "snow"])
    with pytest.raises(InputError, match="is not finished"):
        evaluate(Linear(10), digits, published=tmp_path, corruptions=["fog"])
    write_set(digits, tmp_path, corruptions=["snow"])
    assert sorted(files(tmp_path)) == ["fog.npy", "labels.npy", "manifest.json", "snow.npy"]
    assert files(tmp_path)["fog.npy"] == before["fog.npy"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "holds a set with seed 0, not 1; choose another folder"),
        ({"source": slice(0, 20)}, "holds a set with images 40, not 20"),
        ({"corruptions": ["fogg"]}, "unknown corruption 'fogg'"),
        ({"suite": "imagenet-c"}, "suite 'imagenet-c' is for images of 224 x 224 pixels.*suites for these: cifar10-c"),
        ({"workers": 0}, "workers must be 1 or more, not 0"),
        ({"workers": 1.5}, r"workers must be an integer of 1 or more, not 1\.5"),
        ({"frost": "nowhere"}, "nowhere"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(digits, tmp_path, changes, message):
    write_set(digits, tmp_path, corruptions=["fog"])
    before = files(tmp_path)
    changes = dict(changes)
    source = digits[changes.pop("source", slice(None))]
    with pytest.raises(InputError, match=message):
        write_set(source, tmp_path, **{"corruptions": ["snow"]} | changes)
    assert files(tmp_path) == before


def test_a_folder_that_holds_something_else_is_refused(digits, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(InputError, match=r"holds thesis.txt, not a corrupted set; choose an empty folder"):
        write_set(digits, tmp_path, corruptions=["fog"])
    assert sorted(files(tmp_path)) == ["thesis.txt"]


# Headers from before

LATER_FIELDS = ("origin", "jpeg_quality", "autocast")


def test_results_without_the_later_fields_are_of_generated_images(digits, tmp_path):
    results = evaluate(Linear(10), digits, corruptions=["fog"], store=tmp_path)
    path = tmp_path / "results.json"
    content = json.loads(path.read_text())
    for name in LATER_FIELDS:
        del content["header"][name]
    path.write_text(json.dumps(content))
    assert Results.load(path) == results
    check_comparable([Results.load(path), results])
    del content["header"]["seed"]
    path.write_text(json.dumps(content))
    with pytest.raises(InputError, match="a header must have the fields"):
        Results.load(path)


def test_cells_without_the_later_fields_are_gone_on_with(digits, tmp_path):
    first = evaluate(Linear(10), digits, corruptions=["fog"], store=tmp_path)
    path = tmp_path / "cells" / "header.json"
    old = {name: value for name, value in json.loads(path.read_text()).items() if name not in LATER_FIELDS}
    path.write_text(json.dumps(old))
    assert evaluate(Linear(10), digits, corruptions=["fog"], store=tmp_path) == first


def test_generated_and_published_cells_do_not_share_a_store(digits, tmp_path):
    write_set(digits, tmp_path / "set", corruptions=["fog"])
    evaluate(Linear(10), digits, corruptions=["fog"], store=tmp_path / "store")
    with pytest.raises(InputError, match="holds cells with seed 0, not None"):
        evaluate(Linear(10), digits, corruptions=["fog"], store=tmp_path / "store", published=tmp_path / "set")


# Suites


def test_a_suite_that_does_not_fit_says_which_do(digits, photographs):
    with pytest.raises(
        InputError, match=r"suite 'tiny-imagenet-c' is for images of 64 x 64 pixels, those of digits have 32"
    ):
        evaluate(Linear(10), digits, suite="tiny-imagenet-c")
    with pytest.raises(InputError, match=r"suite 'cifar10-c' is for images of 32 x 32.*suites for these: imagenet-c"):
        evaluate(Linear(3), photographs, suite="cifar10-c")
    with pytest.raises(InputError, match="suite 'cifar10-c' has no JPEG step to leave out"):
        evaluate(Linear(10), digits, jpeg=False)
    odd = dataclasses.replace(digits, images=digits.images[:, :, :31], name="odd")
    with pytest.raises(InputError, match=r"suites for these: none; resize them to 32 x 32 \(cifar10-c\), 64 x"):
        evaluate(Linear(10), odd)


@pytest.mark.parametrize(("side", "name"), [(32, "cifar10-c"), (64, "tiny-imagenet-c"), (224, "imagenet-c")])
def test_images_of_ones_own_get_the_suite_for_their_size(digits, side, name):
    images = torch.zeros(len(digits), 3, side, side, dtype=torch.uint8)
    assert suite_of(dataclasses.replace(digits, images=images, name="mine"), None).name == name


def test_pixels_are_written_once_per_part(digits, tmp_path, monkeypatch):
    """Arrays hold what `corrupt` gives, without a JPEG step in between."""
    from pushpull_conv.corruptions import corrupt

    write_set(digits, tmp_path, seed=9, corruptions=["fog"])
    monkeypatch.setattr(writing, "_BATCH", 7)
    write_set(digits, tmp_path / "cut", seed=9, corruptions=["fog"])
    expected = corrupt(digits.images, "fog", 4, index=digits.index, seed=9, profile="cifar")
    for folder in (tmp_path, tmp_path / "cut"):
        block = np.load(folder / "fog.npy")[120:160]
        assert np.array_equal(block, expected.permute(0, 2, 3, 1).numpy())

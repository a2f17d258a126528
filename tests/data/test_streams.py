"""Images that are decoded while they are used: what comes out, in which order, and what is refused."""

import functools
import io
import os
import re
import shutil
import threading
from pathlib import Path

import numpy as np
import pytest
import torch
from image_files import encode, write_parquet
from PIL import Image
from torchvision import transforms

from pushpull_conv.data import ImageStream, identity_of, open_images, pixels, same_images, stream
from pushpull_conv.data.pixels import decode
from pushpull_conv.data.spec import DataSpec, class_list
from pushpull_conv.errors import InputError, InputWarning
from steps import refuses

PHOTO = DataSpec("photos", ("a",), size=224, resize=256)
IMAGENET, PART = class_list("imagenet"), class_list("imagenet-100")


def picture(width: int, height: int, mode: str = "RGB", seed: int = 0) -> Image.Image:
    """Colour noise of 16 x 16 squares, so that resizing matters."""
    bands = len(Image.new(mode, (1, 1)).getbands())
    small = np.random.default_rng(seed).integers(0, 256, (height // 16 + 1, width // 16 + 1, bands), dtype=np.uint8)
    whole = small.repeat(16, axis=0).repeat(16, axis=1)[:height, :width]
    return Image.fromarray(whole[..., 0] if bands == 1 else whole, mode if mode != "P" else None)


def content(image: Image.Image, form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form)
    return buffer.getvalue()


def write_tree(root: Path, classes, each: int = 1) -> None:
    """The same small picture for every class; sizes differ by class only where a test writes its own."""
    file = encode(np.full((32, 32, 3), 90, np.uint8))
    for name in classes:
        (root / name).mkdir(parents=True)
        for place in range(each):
            (root / name / f"{place}.png").write_bytes(file)


# How photographs are prepared


@pytest.mark.parametrize("size", [(500, 375), (375, 500), (256, 256), (257, 640), (100, 80), (333, 1000), (256, 341)])
def test_photographs_are_prepared_as_torchvision_does(size):
    image = picture(*size)
    expected = transforms.Compose([transforms.Resize(256), transforms.CenterCrop(224)])(image)
    assert np.array_equal(decode(content(image), "photo", PHOTO), np.asarray(expected))


def test_grey_images_have_three_equal_channels():
    grey = np.asarray(picture(40, 40, "L"))
    decoded = decode(content(picture(40, 40, "L")), "x", DataSpec("d", ("a",), 40))
    assert np.array_equal(decoded, np.stack([grey] * 3, axis=2))


def test_palettes_are_looked_up():
    colours = np.random.default_rng(0).integers(0, 256, (256, 3), dtype=np.uint8)
    places = np.asarray(picture(40, 40, "L"))
    image = Image.fromarray(places)
    image.putpalette(colours.tobytes())
    assert image.mode == "P"
    assert np.array_equal(decode(content(image), "x", DataSpec("d", ("a",), 40)), colours[places])


def test_cmyk_is_the_product_of_ink_and_black_and_transparency_is_dropped():
    ink = picture(40, 40, "CMYK")
    levels = 255 - np.asarray(ink).astype(float)
    decoded = decode(content(ink, "TIFF"), "x", DataSpec("d", ("a",), 40))
    assert np.abs(decoded - levels[..., :3] * levels[..., 3:] / 255).max() <= 1
    glass = picture(40, 40, "RGBA")
    assert np.array_equal(decode(content(glass), "x", DataSpec("d", ("a",), 40)), np.asarray(glass)[..., :3])


# Streams


@pytest.fixture
def tree(tmp_path) -> Path:
    """Three classes of 4, 5 and 6 photographs, each of one grey level that says which it is."""
    level = 0
    for name, count in (("ant", 4), ("bee", 5), ("cat", 6)):
        (tmp_path / "val" / name).mkdir(parents=True)
        for place in range(count):
            Image.new("RGB", (300, 260), (level,) * 3).save(tmp_path / "val" / name / f"{place}.png")
            level += 10
    return tmp_path


@pytest.mark.parametrize("batch_size", [1, 4, 8, 9, 15, 100])
@pytest.mark.parametrize("threads", [1, 3])
def test_every_image_comes_once_in_order(tree, batch_size, threads, monkeypatch):
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    source = open_images("folder", "test", root=tree)
    assert isinstance(source, ImageStream)
    assert (len(source), source.classes, source.num_classes, source.size) == (15, ("ant", "bee", "cat"), 3, (224, 224))
    batches = list(source.batches(batch_size))
    assert [len(batch.images) for batch in batches[:-1]] == [batch_size] * (len(batches) - 1)
    images = torch.cat([batch.images for batch in batches])
    assert (images.dtype, images.shape) == (torch.uint8, (15, 3, 224, 224))
    assert torch.equal(images, (10 * torch.arange(15, dtype=torch.uint8))[:, None, None, None].expand_as(images))
    assert torch.cat([batch.labels for batch in batches]).tolist() == [0] * 4 + [1] * 5 + [2] * 6
    assert torch.cat([batch.index for batch in batches]).tolist() == list(range(15))


def test_no_more_is_decoded_than_about_a_batch_ahead(tmp_path, monkeypatch):
    write_tree(tmp_path / "val", ["a", "b"], each=200)
    decoded = []
    monkeypatch.setattr(stream, "decode", lambda *given: decoded.append(1) or pixels.decode(*given))
    batches = open_images("folder", "test", root=tmp_path).batches(16)
    next(batches)
    most = 16 + 16 + 8 * (torch.get_num_threads() + 1)
    assert len(decoded) <= most
    next(batches)
    assert len(decoded) <= most + 16
    before = threading.active_count()
    batches.close()
    assert threading.active_count() < before


def test_the_fingerprint_tells_contents_labels_and_order(tree):
    def fingerprint():
        return open_images("folder", "test", root=tree).fingerprint

    first = fingerprint()
    assert fingerprint() == first
    (tree / "val" / "ant" / "0.png").rename(tree / "val" / "ant" / "9.png")
    moved = fingerprint()
    (tree / "val" / "ant" / "9.png").rename(tree / "val" / "bee" / "9.png")
    relabelled = fingerprint()
    Image.new("RGB", (300, 260), (1, 2, 3)).save(tree / "val" / "cat" / "0.png")
    assert len({first, moved, relabelled, fingerprint()}) == 4


def test_what_is_no_image_in_class_folders_is_told_unless_it_is_text(tree):
    folder = tree / "val" / "ant"
    for name in ("a.HEIC", "b.heic", "c.svg", "README.md", "labels.csv", "LICENSE", ".DS_Store"):
        (folder / name).touch()
    (folder / "more").mkdir()
    told = rf"^class folders of '{tree / 'val'}' hold 4 entries that are not read \(\.heic, \.svg, folders\); pushpull "
    with pytest.warns(InputWarning, match=told + f"data check '{tree}' --data-set folder lists them$"):
        assert len(open_images("folder", "test", root=tree)) == 15


@pytest.mark.parametrize("suffix", ["tif", "TIFF", "gif", "ppm", "pgm", "bmp", "webp", "PNG", "jpg", "jpeg"])
def test_images_of_every_kind_are_read(tmp_path, suffix, recwarn):
    (tmp_path / "val" / "ant").mkdir(parents=True)
    Image.new("L" if suffix == "pgm" else "RGB", (40, 30), 7).save(tmp_path / "val" / "ant" / f"a.{suffix}")
    (batch,) = open_images("folder", "test", root=tmp_path).batches(2)
    expected = torch.tensor([7, 7, 7] if suffix == "pgm" else [7, 0, 0])
    assert (batch.images[0].amax((1, 2)) - expected).abs().max() <= 2
    assert not recwarn


def noise_tree(root, seed, side=40):
    """Two classes of six pictures of noise."""
    random = np.random.default_rng(seed)
    for label in ("ant", "bee"):
        (root / "train" / label).mkdir(parents=True)
        for place in range(6):
            file = root / "train" / label / f"{place}.png"
            Image.fromarray(random.integers(0, 200 + seed, (side, side + seed, 3), dtype=np.uint8)).save(file)
    return root


def identity(root):
    return identity_of(open_images("folder", "train", root=root))


def test_the_cheap_identity_tells_other_files_of_the_same_names_from_those_that_were_moved(tmp_path):
    first = identity(noise_tree(tmp_path / "photos", 0))
    shutil.copytree(tmp_path / "photos", tmp_path / "elsewhere" / "photos")
    assert identity(tmp_path / "elsewhere" / "photos") == first
    for name, seed, side in (("others", 3, 40), ("resized", 0, 60)):
        assert not same_images(first, identity(noise_tree(tmp_path / name, seed, side))), name
    (tmp_path / "photos" / "train" / "bee" / "2.png").rename(tmp_path / "photos" / "train" / "bee" / "02.png")
    assert not same_images(first, identity(tmp_path / "photos"))


@pytest.mark.parametrize("damage", [lambda file: file.write_bytes(b"half"), lambda file: file.symlink_to("nowhere")])
def test_images_of_which_one_was_damaged_are_still_the_same(tmp_path, damage):
    """A recipe may let a training go on without it, and whoever restores it has the same images, too."""
    first = identity(noise_tree(tmp_path, 0))
    file = tmp_path / "train" / "bee" / "2.png"
    file.unlink()
    damage(file)
    assert same_images(first, identity(tmp_path))


def test_the_cheap_identity_asks_for_few_sizes(tmp_path, monkeypatch):
    (tmp_path / "train" / "ant").mkdir(parents=True)
    for place in range(1200):
        (tmp_path / "train" / "ant" / f"{place}.png").touch()
    images, asked = open_images("folder", "train", root=tmp_path), []
    stat = Path.stat
    monkeypatch.setattr(Path, "stat", lambda path: asked.append(path) or stat(path))
    assert re.fullmatch(r"1200 images of 1 classes, labels \w{12}, names \w{12}, sizes 0{32}", identity_of(images))
    assert len(set(asked)) == 1000


def test_the_layouts_of_one_order_are_the_same_images(tree, tmp_path):
    """Class folders and Parquet of the same files in the same order: the same identity, the same pixels."""
    files = sorted((tree / "val").glob("*/*"))
    (tree / "val").rename(tmp_path / "test")
    encoded = [path.read_bytes() for path in sorted((tmp_path / "test").glob("*/*"))]
    spec = DataSpec("folder", ("ant", "bee", "cat"), size=224, resize=256)
    write_parquet(tmp_path / "p.parquet", encoded, [0] * 4 + [1] * 5 + [2] * 6, classes=spec.classes)
    from pushpull_conv.data.parquet import list_parquet

    rows = ImageStream(list_parquet([tmp_path / "p.parquet"], spec), spec, "test")
    folders = open_images("folder", "test", root=tmp_path)
    assert len(files) == len(rows) == 15
    assert rows.fingerprint == folders.fingerprint
    assert torch.equal(rows.load().images, torch.cat([batch.images for batch in folders.batches(15)]))


# Parts of ImageNet


def test_a_part_of_imagenet_is_found_in_the_whole(tmp_path):
    others = [name for name in IMAGENET if name not in PART][:5]
    write_tree(tmp_path / "val", [*PART, *others], each=2)
    source = open_images("imagenet-100", "test", root=tmp_path)
    whole = sorted([*PART, *others])
    assert source.classes == PART
    assert len(source) == 200
    assert source.labels.tolist() == [label for label in range(100) for _ in range(2)]
    index = torch.cat([batch.index for batch in source.batches(200)]).tolist()
    assert index == [2 * whole.index(name) + place for name in PART for place in range(2)]


@pytest.mark.parametrize("words", [False, True])
def test_a_part_of_imagenet_is_found_in_parquet_of_the_whole(tmp_path, words):
    """Also where the file names the classes by words, as the hub's ImageNet does."""
    wanted = [IMAGENET.index(PART[3]), IMAGENET.index(PART[0])]
    left_out = next(label for label, name in enumerate(IMAGENET) if name not in PART)
    names = ["tench, Tinca tinca", *map(str, range(998)), "toilet tissue, toilet paper, bathroom tissue"]
    images = [encode(np.full((32, 32, 3), level, np.uint8)) for level in (10, 20, 30)]
    path = tmp_path / "validation-00000-of-00001.parquet"
    labels = [wanted[0], left_out, wanted[1]]
    write_parquet(path, images, labels, classes=names if words else IMAGENET, column="image")
    source = open_images("imagenet-100", "test", root=tmp_path)
    (batch,) = source.batches(10)
    assert batch.labels.tolist() == [3, 0]
    assert batch.index.tolist() == [0, 2]
    assert batch.images[:, 0, 0, 0].tolist() == [10, 30]


@pytest.mark.parametrize("name", ["imagenet-100", "imagenet-200"])
def test_parquet_without_class_names_does_not_say_whether_it_is_of_a_part_of_imagenet(tmp_path, name):
    path = tmp_path / "validation-0.parquet"
    write_parquet(path, [encode(np.zeros((32, 32, 3), np.uint8))], [7], classes=None)
    message = f"validation-0.parquet' names no classes, so nothing says whether the labels are those of {name} or of a"
    refuse(message, name, "test", root=tmp_path)
    assert open_images("imagenet", "test", root=tmp_path).labels.tolist() == [7]


def test_validation_images_are_preferred_to_test_images_without_labels(tmp_path):
    image = encode(np.zeros((64, 64, 3), np.uint8))
    names = class_list("imagenet-200")
    write_parquet(tmp_path / "test-0.parquet", [image], [-1], classes=names)
    write_parquet(tmp_path / "validation-0.parquet", [image] * 2, [5, 6], classes=names)
    assert open_images("tiny-imagenet", "test", root=tmp_path).labels.tolist() == [5, 6]
    (tmp_path / "validation-0.parquet").unlink()
    refuse("label -1 of image 0 of tiny-imagenet/test is outside 0 to 199", "tiny-imagenet", "test", root=tmp_path)


def test_the_lists_are_parts_of_imagenet_in_its_order():
    for name, count in (("imagenet", 1000), ("imagenet-100", 100), ("imagenet-200", 200)):
        names = class_list(name)
        assert len(set(names)) == len(names) == count
        assert list(names) == sorted(names)
        assert set(names) <= set(IMAGENET)


# Bad input


refuse = functools.partial(refuses, open_images)


def test_what_cannot_be_opened_is_named(tmp_path):
    refuse("unknown data set 'imagenet-50'; did you mean 'imagenet-200'", "imagenet-50", "test", root=tmp_path)
    refuse("unknown split 'val'", "imagenet", "val", root=tmp_path)
    refuse("imagenet is not downloaded; give the folder", "imagenet", "test")
    refuse("nowhere' is missing", "imagenet", "test", root=tmp_path / "nowhere")
    refuse("has no test images of imagenet; expected val/<class>", "imagenet", "test", root=tmp_path)
    refuse("has no train images of folder; expected train/<class>", "folder", "train", root=tmp_path)
    refuse("nowhere' is missing", "folder", "test", root=tmp_path / "nowhere")


def test_classes_that_do_not_fit_are_named(tmp_path):
    write_tree(tmp_path / "a" / "val", PART[:99])
    refuse(f"lacks the classes {PART[99]} of imagenet-100", "imagenet-100", "test", root=tmp_path / "a")
    refuse("has 99 classes .*; imagenet has 1000", "imagenet", "test", root=tmp_path / "a")
    write_tree(tmp_path / "b" / "val", [*PART, "n99999999"])
    refuse("has the classes n99999999, which are not of imagenet-100", "imagenet-100", "test", root=tmp_path / "b")


def test_a_class_whose_name_is_not_utf8_is_named(tree):
    """No result could be stored or printed."""
    os.mkdir(os.fsencode(tree / "val") + b"/caf\xe9")  # noqa: PTH102  # a Path takes no bytes
    refuse(r"class folder b'caf\\xe9' in '.*val' is not named in UTF-8; rename it", "folder", "test", root=tree)


@pytest.mark.parametrize("damage", ["cut", "text", "gone"])
def test_an_image_that_cannot_be_read_is_named_when_it_is_reached(tree, damage):
    source = open_images("folder", "test", root=tree)
    path = tree / "val" / "bee" / "3.png"
    whole = path.read_bytes()
    path.unlink() if damage == "gone" else path.write_bytes(b"text" if damage == "text" else whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"image '.*bee/3.png' (is truncated or not an image|cannot be read)"):
        list(source.batches(4))


def test_tiny_images_of_another_size_are_refused(tmp_path):
    write_parquet(tmp_path / "validation-0.parquet", [encode(np.zeros((32, 32, 3), np.uint8))], [0], classes=None)
    source = open_images("tiny-imagenet", "test", root=tmp_path)
    with pytest.raises(InputError, match="has 32 x 32 pixels, not 64 x 64"):
        next(source.batches(1))


# The real thing

real = pytest.mark.skipif("PUSHPULL_DATA" not in os.environ, reason="PUSHPULL_DATA does not name the data sets")


@pytest.mark.data
@real
def test_the_real_tiny_imagenet_is_complete():
    source = open_images("tiny-imagenet", "test", root=Path(os.environ["PUSHPULL_DATA"], "tiny-imagenet"))
    assert source.labels.bincount().tolist() == [50] * 200
    assert next(source.batches(100)).images.shape == (100, 3, 64, 64)


@pytest.mark.data
@real
def test_real_photographs_are_cut_to_their_centre():
    source = open_images("imagenet", "test", root=Path(os.environ["PUSHPULL_DATA"], "imagenet-photos"))
    (batch,) = source.batches(200)
    assert batch.images.shape == (100, 3, 224, 224)
    assert batch.labels.tolist() == sorted(set(batch.labels.tolist()))

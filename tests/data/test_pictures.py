"""Single pictures by their place: what training loads, from every kind of source and in other processes."""

import io
import pickle
import re
import struct
import warnings

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from image_files import encode, write_parquet
from PIL import ExifTags, Image, ImageOps, features
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from pushpull_conv.benchmark.suites import suite_of
from pushpull_conv.data import (
    ImageSet,
    ImageStream,
    PictureBatches,
    Preparation,
    identity_of,
    load_images,
    open_images,
    parquet,
    same_images,
)
from pushpull_conv.data.parquet import list_parquet
from pushpull_conv.data.photos import read_photo
from pushpull_conv.data.pixels import decode, decode_picture, scaled_part, scaled_size
from pushpull_conv.data.spec import DataSpec
from pushpull_conv.errors import InputError

SIDE = 8
SPEC = DataSpec("small", ("a", "b", "c"), size=SIDE)


@pytest.fixture
def pictures() -> np.ndarray:
    return np.random.default_rng(1).integers(0, 256, (47, SIDE, SIDE, 3), dtype=np.uint8)


def write_shards(root, pictures, rows: int = 5, shard: int = 20) -> None:
    """Parquet files of 20 images in row groups of 5."""
    labels = [place % 3 for place in range(len(pictures))]
    for start in range(0, len(pictures), shard):
        path = root / f"train-{start:03}.parquet"
        chosen = slice(start, start + shard)
        write_parquet(path, [encode(pixels) for pixels in pictures[chosen]], labels[chosen], classes=SPEC.classes)
        pq.write_table(pq.read_table(path), path, row_group_size=rows)


@pytest.fixture
def rows(tmp_path, pictures) -> ImageStream:
    write_shards(tmp_path, pictures)
    return ImageStream(list_parquet(sorted(tmp_path.glob("*.parquet")), SPEC), SPEC, "train")


def test_rows_are_given_in_any_order_and_by_several_processes(rows, pictures):
    random = np.random.default_rng(0).permutation(len(pictures)).tolist()
    for place in random:
        assert np.array_equal(np.asarray(rows.picture(place)), pictures[place])
    for start in ("fork", "spawn"):  # a forked process has inherited what this one has read
        loader = DataLoader(
            Pictures(rows), num_workers=2, multiprocessing_context=start, batch_size=None, sampler=random
        )
        assert [np.array_equal(image, pictures[place]) for place, image in zip(random, loader, strict=True)] == [
            True
        ] * 47


class Pictures(torch.utils.data.Dataset):
    def __init__(self, source):
        self.source = source

    def __getitem__(self, place):
        return np.array(self.source.picture(place))

    def __len__(self):
        return len(self.source)


def test_the_cheap_identity_of_rows_tells_other_shards(tmp_path, pictures):
    identities = []
    for name, shown in (("one", pictures), ("moved", pictures), ("other", pictures // 2)):
        (tmp_path / name).mkdir()
        write_shards(tmp_path / name, shown)
        files = sorted((tmp_path / name).glob("*.parquet"))
        identities.append(identity_of(ImageStream(list_parquet(files, SPEC), SPEC, "train")))
    assert same_images(*identities[:2])
    assert not same_images(*identities[1:])


def test_blocks_are_the_row_groups(rows):
    sizes = [5] * 9 + [2]
    assert [len(block) for block in rows.blocks] == sizes
    assert [place for block in rows.blocks for place in block] == list(range(47))
    part = rows.subset(torch.tensor([0, 1, 4, 5, 21, 46]))
    assert list(part.blocks) == [range(0, 3), range(3, 4), range(4, 5), range(5, 6)]


def test_row_groups_that_were_read_are_kept_and_not_sent_to_others(rows, monkeypatch):
    read = []
    real = parquet._contents
    monkeypatch.setattr(parquet, "_contents", lambda *group: read.append(group) or real(*group))
    monkeypatch.setattr(parquet, "blocks_in_window", lambda blocks: 2)
    for place in (0, 5, 1, 6, 0):
        rows.picture(place)
    assert len(read) == 2
    for place in (10, 0, 5):  # the third group takes the place of the one that was used longest ago
        rows.picture(place)
    assert len(read) == 4
    assert len(pickle.dumps(rows)) < 8000
    read.clear()
    for _ in rows.batches(9):
        pass
    assert len(read) == 10 - 2


def test_of_a_row_group_only_what_is_wanted_is_kept(rows, pictures):
    """A tenth of the rows is of ten times as many groups: kept whole, they would take ten times the memory."""
    places = torch.tensor([21, 3, 20, 1, 46])
    part = rows.subset(places)
    for place in (4, 0, 2, 1, 3):
        assert np.array_equal(np.asarray(part.picture(place)), pictures[places[place]])
    assert [len(kept) for kept in part.encoded._kept.values()] == [1, 2, 2]


@pytest.mark.parametrize(
    ("form", "shown"), [(pa.binary(), "binary"), (pa.struct({"path": pa.string()}), "struct<path: string>")]
)
def test_images_in_a_column_of_another_type_are_refused_at_once(tmp_path, form, shown):
    image = b"" if form == pa.binary() else {"path": "x"}
    path = tmp_path / "train-0.parquet"
    pq.write_table(pa.table({"image": pa.array([image], form), "label": [0]}), path)
    message = f"'image' in Parquet file '{path}' is {shown}; expected a struct with binary 'bytes'"
    with pytest.raises(InputError, match=re.escape(message)):
        list_parquet([path], SPEC)


def test_rows_of_a_part_keep_their_index(rows, pictures):
    places = torch.tensor([46, 3, 20, 21])
    part = rows.subset(places)
    assert part.index.tolist() == places.tolist()
    assert part.labels.tolist() == [place % 3 for place in places]
    (batch,) = part.batches(10)
    assert np.array_equal(batch.images.permute(0, 2, 3, 1), pictures[places])
    assert torch.equal(batch.index, places)
    again = part.subset(torch.tensor([2]))
    assert again.index.tolist() == [20]
    assert np.array_equal(np.asarray(again.picture(0)), pictures[20])


def test_large_rows_are_read_too(tmp_path):
    """Binary columns may be of 64 bits, and uncompressed or not."""
    content = encode(np.full((SIDE, SIDE, 3), 7, np.uint8))
    images = pa.array([{"bytes": content, "path": "x"}], pa.struct({"bytes": pa.large_binary(), "path": pa.string()}))
    pq.write_table(pa.table({"image": images, "label": [0]}), tmp_path / "train-0.parquet", compression="zstd")
    source = ImageStream(list_parquet([tmp_path / "train-0.parquet"], SPEC), SPEC, "train")
    assert np.asarray(source.picture(0)).max() == 7


@pytest.fixture
def tree(tmp_path):
    for name, count in (("ant", 3), ("bee", 4)):
        (tmp_path / "train" / name).mkdir(parents=True)
        for place in range(count):
            level = 10 * place + (100 if name == "bee" else 0)
            Image.new("RGB", (300, 260), (level,) * 3).save(tmp_path / "train" / name / f"{place}.png")
    return open_images("folder", "train", root=tmp_path)


def test_pictures_of_files_are_as_stored(tree):
    assert tree.blocks is None
    assert [tree.picture(place).getpixel((5, 5))[0] for place in range(7)] == [0, 10, 20, 100, 110, 120, 130]
    assert (tree.picture(3).size, tree.picture(3).mode, tree.resize) == ((300, 260), "RGB", 256)
    part = tree.subset(torch.tensor([6, 0]))
    assert [part.picture(place).getpixel((5, 5))[0] for place in (0, 1)] == [130, 0]
    assert (part.index.tolist(), part.labels.tolist(), part.classes) == ([6, 0], [1, 0], ("ant", "bee"))
    assert part.fingerprint != tree.fingerprint
    loader = DataLoader(Pictures(tree), num_workers=1, multiprocessing_context="spawn", batch_size=None)
    assert [int(image[0, 0, 0]) for image in loader] == [0, 10, 20, 100, 110, 120, 130]


def test_a_picture_that_cannot_be_read_is_named(tree, tmp_path):
    (tmp_path / "train" / "bee" / "2.png").write_bytes(b"no image")
    (tmp_path / "train" / "ant" / "1.png").unlink()
    with pytest.raises(InputError, match=r"bee/2.png' is truncated or not an image"):
        tree.picture(5)
    with pytest.raises(InputError, match=r"ant/1.png' cannot be read \(No such file"):
        tree.picture(1)


# Large JPEG files


def jpeg(width: int, height: int) -> bytes:
    """Smooth random colours, as a large photograph has them."""
    small = np.random.default_rng(0).integers(0, 256, (12, 16, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC).save(buffer, "JPEG", quality=92)
    return buffer.getvalue()


@pytest.mark.parametrize(("size", "part"), [((500, 375), 1), ((900, 580), 1), ((900, 590), 2), ((3000, 2400), 8)])
def test_large_photographs_are_decoded_at_a_part_of_their_size(size, part):
    spec = DataSpec("photos", ("a",), size=224, resize=256)
    content = jpeg(*size)
    whole, reduced = (decode_picture(content, "x", spec, reduced=reduced) for reduced in (False, True))
    assert whole.size == size
    assert reduced.size == tuple(-(-side // part) for side in size)
    assert part == 1 or min(reduced.size) >= 1.15 * 256
    thumbnails = [np.asarray(image.resize((256, 256), Image.Resampling.BILINEAR), float) for image in (whole, reduced)]
    assert np.abs(thumbnails[0] - thumbnails[1]).mean() < 1


# Parts of scaled pictures


@given(st.integers(8, 90), st.integers(8, 90), st.integers(8, 40), st.data())
@settings(max_examples=60)
def test_a_part_that_is_scaled_alone_is_that_of_the_whole(width, height, shorter, data):
    noise = np.random.default_rng(width * height).integers(0, 256, (height, width, 3), dtype=np.uint8)
    picture = Image.fromarray(noise)
    whole = v2.functional.resize(picture, shorter, v2.InterpolationMode.BILINEAR)
    size = scaled_size(picture, shorter)
    assert size == whole.size
    left, right = sorted(data.draw(st.lists(st.integers(0, size[0]), min_size=2, max_size=2, unique=True)))
    upper, lower = sorted(data.draw(st.lists(st.integers(0, size[1]), min_size=2, max_size=2, unique=True)))
    box = (left, upper, right, lower)
    part = np.asarray(scaled_part(picture, size, box)).astype(int)
    # Noise, where half a pixel would move a value far; each of the two passes rounds, by chance to another level.
    assert np.abs(part - np.asarray(whole.crop(box))).max() <= 2


@pytest.mark.parametrize("size", [(60000, 2), (2, 200)])
def test_of_a_line_of_pixels_no_more_is_scaled_than_is_cut(size, monkeypatch):
    """As a whole the first would be of 7,680,000 x 256 pixels."""
    spec, resize, scaled = DataSpec("lines", ("a",), size=224, resize=256), Image.Image.resize, []
    pixels = np.random.default_rng(2).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)

    def counting(image, to, *rest, **options):
        scaled.append(to)
        return resize(image, to, *rest, **options)

    monkeypatch.setattr(Image.Image, "resize", counting)
    cut = decode(encode(pixels), "line", spec).astype(int)
    assert scaled == [(224, 224)]
    around = Image.fromarray(pixels).crop(_middle(size))
    whole = np.asarray(v2.CenterCrop(224)(v2.Resize(256)(around))).astype(int)
    assert np.abs(cut - whole).max() <= 1


def _middle(size: tuple[int, int]) -> tuple[int, int, int, int]:
    """The middle 10 pixels of a line."""
    left, top = (max(0, length // 2 - 5) for length in size)
    return left, top, size[0] - left, size[1] - top


def test_a_photograph_for_training_is_that_of_torchvision(tmp_path):
    """Scaled and cut at the centre, and mirrored half of the time."""
    smooth = np.random.default_rng(2).integers(0, 256, (9, 12, 3), dtype=np.uint8)
    for place in range(8):
        path = tmp_path / "train" / "a" / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.roll(smooth, place, 1)).resize((500, 375), Image.Resampling.BICUBIC).save(path)
    source = open_images("folder", "train", root=tmp_path)
    batches = PictureBatches(source, batch_size=8, seed=0, preparation=Preparation(flip=True), workers=0)
    steps = v2.Compose([v2.Resize(256), v2.CenterCrop(224), v2.PILToTensor()])
    ((images, _, index),) = list(batches)
    assert images.is_contiguous()
    mirrored = 0
    for image, place in zip(images.int(), index.tolist(), strict=True):
        expected = steps(source.picture(place)).int()
        same, flipped = ((image - side).abs().max().item() <= 1 for side in (expected, expected.flip(-1)))
        assert same != flipped
        mirrored += flipped
    assert 0 < mirrored < 8


# Greyscale


def luminance(pixels: np.ndarray) -> np.ndarray:
    """ITU-R 601 in floating point."""
    return (pixels.astype(float) @ [0.299, 0.587, 0.114])[..., None].repeat(3, -1)


def test_greyscale_is_pillows_luminance_in_memory_and_in_streams(rows, pictures):
    grey = rows.greyscale()
    memory = rows.load().greyscale()
    expected = np.stack([np.asarray(Image.fromarray(pixels).convert("L").convert("RGB")) for pixels in pictures])
    assert np.array_equal(memory.images.permute(0, 2, 3, 1), expected)
    assert torch.equal(grey.load().images, memory.images)
    assert np.array_equal(np.asarray(grey.picture(3)), expected[3])
    assert np.abs(expected - luminance(pictures)).max() <= 0.51
    assert grey.name == memory.name == "small-greyscale"
    assert len({grey.fingerprint, rows.fingerprint, memory.fingerprint, rows.load().fingerprint}) == 4
    assert grey.greyscale().name == grey.name
    assert torch.equal(memory.greyscale().images, memory.images)


def test_a_data_set_is_opened_in_greyscale_and_keeps_its_suite(tmp_path):
    write_parquet(
        tmp_path / "validation-0.parquet", [encode(np.full((64, 64, 3), (200, 0, 0), np.uint8))], [0], classes=None
    )
    source = open_images("tiny-imagenet", "test", root=tmp_path, greyscale=True)
    assert next(source.batches(1)).images.unique().tolist() == [60]
    assert suite_of(source, None).name == "tiny-imagenet-c"
    digits = open_images("digits", "test", greyscale=True)
    assert isinstance(digits, ImageSet)
    assert digits.name == "digits-greyscale"
    assert torch.equal(digits.images, load_images("digits", "test").images)  # they are grey already


@pytest.mark.parametrize(("mode", "kind", "ending"), [("I;16", np.uint16, "PNG"), ("F", np.float32, "TIFF")])
def test_more_than_8_bits_are_refused_and_not_cut_off(tmp_path, mode, kind, ending):
    path = tmp_path / f"deep.{ending.lower()}"
    Image.fromarray(np.full((8, 8), 40_000, dtype=kind)).save(path)
    message = rf"deep\..* has more than 8 bits a channel \(Pillow's mode {mode}\); convert it to 8 bits"
    with pytest.raises(InputError, match=message):
        decode_picture(path.read_bytes(), path.name, SPEC)
    with pytest.raises(InputError, match=message):
        read_photo(path)


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow reads no AVIF")
def test_a_transparent_palette_is_looked_up_without_a_warning(tmp_path):
    palette = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 80, 3), dtype=np.uint8)).quantize(256)
    palette.save(tmp_path / "a.png", transparency=bytes(range(256)))
    wanted = np.asarray(palette.convert("RGB"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        picture = decode_picture((tmp_path / "a.png").read_bytes(), "a.png", DataSpec("folder", ("a",), 60, resize=60))
        photo = read_photo(tmp_path / "a.png")
    assert np.array_equal(np.asarray(picture), wanted)
    assert np.array_equal(photo.permute(1, 2, 0).numpy(), wanted)


def test_a_damaged_avif_is_named(tmp_path):
    """Pillow raises RuntimeError, and not OSError as for other files."""
    whole = encode(np.full((SIDE, SIDE, 3), 90, np.uint8), "AVIF")
    begin = whole.index(b"mdat") + 4
    content = whole[:begin] + bytes(len(whole) - begin)
    (tmp_path / "photo.avif").write_bytes(content)
    with pytest.raises(InputError, match="image photo is truncated or not an image; replace it") as caught:
        decode_picture(content, "photo", SPEC)
    assert isinstance(caught.value.__cause__, RuntimeError)
    with pytest.raises(InputError, match=r"picture '.*photo.avif' is truncated or no picture"):
        read_photo(tmp_path / "photo.avif")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_photo_is_upright_also_where_another_tag_is_odd(tmp_path, orientation):
    """Pillow itself does not turn a picture whose width, say, is told as a text."""
    smooth = Image.fromarray(np.random.default_rng(3).integers(0, 256, (3, 4, 3), dtype=np.uint8)).resize((40, 24))
    exif = Image.Exif()
    exif[ExifTags.Base.Orientation] = orientation
    smooth.save(tmp_path / "photo.png", exif=exif)
    with Image.open(tmp_path / "photo.png") as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture))
    width = struct.pack("<HHI4s", ExifTags.Base.ImageWidth, 2, 3, b"40")
    tags = struct.pack("<H", 2) + width + struct.pack("<HHIHH", ExifTags.Base.Orientation, 3, 1, orientation, 0)
    smooth.save(tmp_path / "photo.png", exif=b"Exif\0\0II*\0" + struct.pack("<I", 8) + tags + bytes(4))
    assert np.array_equal(read_photo(tmp_path / "photo.png").permute(1, 2, 0), expected)

"""The textures of frost: the drawings, the photographs, a folder of the user's own."""

import importlib.util
import struct
import warnings
import zlib

import numpy as np
import pytest
import torch
from PIL import Image

from pushpull_conv.corruptions import FrostTextures, corrupt, load_frost
from pushpull_conv.corruptions.frost import _atlas, resize
from pushpull_conv.errors import InputError


@pytest.fixture
def folder(tmp_path):
    state = np.random.default_rng(0)
    for name, mode in (("b.png", "RGBA"), ("a.jpg", "RGB"), ("c.bmp", "L")):
        pixels = state.integers(0, 256, (60, 80, len(mode)), dtype=np.uint8).squeeze()
        Image.fromarray(pixels, mode).save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not a picture")
    return tmp_path


def test_the_drawings_are_always_the_same():
    drawings = load_frost()
    assert drawings.identity == "procedural-1"
    assert drawings is load_frost("procedural")
    means = [round(drawing.double().mean().item(), 1) for drawing in drawings.photographs]
    assert means == pytest.approx(
        [131.0, 206.2, 206.2, 151.9, 123.1], abs=0.2
    )  # if this changes on purpose, so must the identity


def test_the_drawings_are_as_bright_and_as_uneven_as_the_photographs():
    photographs = load_photographs()
    for drawing, photograph in zip(load_frost().photographs, photographs, strict=True):
        ours, theirs = drawing.double(), photograph.double()
        torch.testing.assert_close(ours.mean((1, 2)), theirs.mean((1, 2)), atol=3, rtol=0)
        assert abs(ours.std() - theirs.std()) < 5


def load_photographs():
    pytest.importorskip("imagecorruptions", reason="the photographs come with the extra 'reference'")
    return load_frost("reference").photographs


def test_a_folder_of_pictures_in_any_format(folder):
    textures = load_frost(folder)
    assert [tuple(photograph.shape) for photograph in textures.photographs] == [(3, 60, 80)] * 3
    assert textures.identity.startswith("folder:")
    assert load_frost(str(folder)).identity == textures.identity
    with Image.open(folder / "b.png") as picture:
        alpha_dropped = np.array(picture)[..., :3]
    assert np.array_equal(textures.photographs[1].permute(1, 2, 0).numpy(), alpha_dropped)


def test_a_folder_may_begin_with_the_home_folder(folder, monkeypatch):
    monkeypatch.setenv("HOME", str(folder.parent))
    assert load_frost(f"~/{folder.name}").identity == load_frost(folder).identity


def test_the_identity_is_that_of_the_pixels(folder):
    before = load_frost(folder).identity
    with Image.open(folder / "c.bmp") as picture:
        picture.save(folder / "renamed.png")
    (folder / "c.bmp").unlink()
    assert load_frost(folder).identity == before
    Image.new("RGB", (64, 64)).save(folder / "renamed.png")
    assert load_frost(folder).identity != before


@pytest.mark.parametrize("case", ["missing", "empty", "unreadable"])
def test_a_bad_folder_is_named(tmp_path, folder, case):
    place = {"missing": folder / "nowhere", "empty": tmp_path / "empty", "unreadable": folder}[case]
    (tmp_path / "empty").mkdir()
    (folder / "broken.png").write_bytes((folder / "b.png").read_bytes()[:500])
    named = "broken.png" if case == "unreadable" else place.name
    with pytest.raises(InputError, match=named) as caught:
        load_frost(place)
    assert "\n" not in str(caught.value)


def test_more_than_8_bits_are_refused_as_pillow_would_make_them_white(tmp_path):
    Image.fromarray(np.full((60, 80), 40_000, dtype=np.uint16)).save(tmp_path / "deep.png")
    with pytest.raises(InputError, match=r"frost picture '.*deep.png' has more than 8 bits a channel .*I;16.* convert"):
        load_frost(tmp_path)


def test_a_header_of_a_size_that_pillow_refuses_is_said_in_one_line(tmp_path):
    Image.new("L", (60, 80)).save(tmp_path / "huge.png")
    content = (tmp_path / "huge.png").read_bytes()
    header = b"IHDR" + struct.pack(">II", 20_000, 20_000) + content[24:29]
    huge = content[:12] + header + struct.pack(">I", zlib.crc32(header)) + content[33:]
    (tmp_path / "huge.png").write_bytes(huge)
    with pytest.raises(InputError, match=r"frost picture '.*huge.png' cannot be read \(.*\); replace or remove it"):
        load_frost(tmp_path)


def test_a_transparent_palette_is_looked_up_without_a_warning(tmp_path):
    state = np.random.default_rng(0)
    picture, colours = Image.fromarray(state.integers(0, 256, (60, 80), dtype=np.uint8)), state.integers(0, 256, 768)
    places = np.array(picture)
    picture = picture.convert("P")
    picture.putpalette(colours.tolist())
    picture.save(tmp_path / "a.png", transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        (texture,) = load_frost(tmp_path).photographs
    assert np.array_equal(texture.permute(1, 2, 0).numpy(), colours.reshape(256, 3)[places])


def test_without_the_extra_the_error_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"pip install 'pushpull-conv\[reference\]'"):
        load_frost("reference")


def test_frost_uses_the_textures_it_is_given():
    images = torch.zeros(300, 3, 32, 32, dtype=torch.uint8)
    levels = [torch.full((3, 200, 210), level, dtype=torch.uint8) for level in (100, 200)]
    textures = FrostTextures(tuple(levels), "levels")
    ours = corrupt(images, "frost", 5, index=torch.arange(300), profile="cifar", frost=textures)
    found, counts = ours[:, 0, 0, 0].unique(return_counts=True)
    assert found.tolist() == [45, 90]
    assert counts.min() > 100


def test_crops_lie_inside_the_photograph_and_never_at_its_end():
    ramp = (torch.arange(60)[:, None] * 4 + torch.arange(60)).clamp(max=255).to(torch.uint8).expand(3, -1, -1)
    textures = FrostTextures((ramp,), "ramp")
    chance = torch.tensor([[0.0, 0.0, 0.0], [0.99, 0.9999999, 0.9999999]], dtype=torch.float64)
    crops = textures.crops(chance, 32, 34, 1.0)
    assert torch.equal(crops[0], ramp[:, :32, :34])
    assert torch.equal(crops[1], ramp[:, 27:59, 25:59])


def test_images_of_many_sizes_do_not_each_keep_scaled_photographs():
    _atlas.cache_clear()
    for width in range(33, 73):
        corrupt(torch.zeros(1, 3, 32, width, dtype=torch.uint8), "frost", 1, index=torch.tensor([0]))
    assert _atlas.cache_info().currsize == 1
    for width in range(600, 610):  # the drawings have 480 columns
        corrupt(torch.zeros(1, 3, 32, width, dtype=torch.uint8), "frost", 1, index=torch.tensor([0]))
    assert _atlas.cache_info().currsize == _atlas.cache_info().maxsize


def test_a_fifth_of_the_size_is_every_fifth_pixel():
    photograph = torch.randint(256, (3, 60, 85), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert torch.equal(resize(photograph, 0.2), photograph[:, 2::5, 2::5])


def test_resizing_is_opencvs():
    cv2 = pytest.importorskip("cv2", reason="OpenCV comes with the extra 'reference'")
    photograph = torch.randint(256, (3, 61, 87), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    expected = cv2.resize(photograph.permute(1, 2, 0).numpy(), None, fx=0.3, fy=0.3)
    ours = resize(photograph, 0.3).permute(1, 2, 0).numpy()
    assert np.abs(ours.astype(int) - expected.astype(int)).max() <= 1

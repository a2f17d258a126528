"""The door: the same image for the same key, any size, clear refusals."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pushpull_conv.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, GROUPS, PROFILES, SEVERITIES, corrupt, recompress
from pushpull_conv.corruptions.engine import KERNELS
from pushpull_conv.errors import InputError

NAMES = CORRUPTIONS + EXTRA_CORRUPTIONS
DETERMINISTIC = {
    "defocus_blur",
    "zoom_blur",
    "brightness",
    "contrast",
    "pixelate",
    "jpeg_compression",
    "gaussian_blur",
    "saturate",
}


def pictures(count, height=32, width=32, seed=0):
    """Smooth random pictures with saturated areas: uint8 ``[count, 3, height, width]``."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 5, 5, generator=generator) * 300 - 20
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return smooth.clamp(0, 255).to(torch.uint8)


def make(images, name, severity=3, index=None, **options):
    index = torch.arange(len(images)) if index is None else index
    return corrupt(images, name, severity, index=index, **{"profile": "cifar", **options})


def test_the_names_are_those_of_the_benchmark():
    assert len(CORRUPTIONS) == 15
    assert CORRUPTIONS[0] == "gaussian_noise"
    assert CORRUPTIONS[-1] == "jpeg_compression"
    assert EXTRA_CORRUPTIONS == ("speckle_noise", "gaussian_blur", "spatter", "saturate")
    assert sorted(KERNELS) == sorted(NAMES) == sorted(name for group in GROUPS.values() for name in group)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_the_same_in_every_batch_and_order(name):
    images = pictures(256)
    whole = make(images, name)
    order = torch.randperm(256, generator=torch.Generator().manual_seed(1))
    assert torch.equal(make(images[order], name, index=order), whole[order])
    for size in (7, 1):
        picked = order[: 3 * size].split(size)
        assert all(torch.equal(make(images[part], name, index=part), whole[part]) for part in picked)


@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_the_same_for_every_number_of_threads(name):
    images = pictures(64)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        alone = make(images, name)
        torch.set_num_threads(3)
        assert torch.equal(make(images, name), alone)
    finally:
        torch.set_num_threads(threads)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_an_image_is_the_same_for_every_default_dtype(name, dtype):
    images = pictures(4)
    expected = make(images, name)
    torch.set_default_dtype(dtype)
    try:
        assert torch.equal(make(images, name), expected)
    finally:
        torch.set_default_dtype(torch.float32)


@pytest.mark.gpu
@pytest.mark.parametrize("name", NAMES)
def test_an_image_is_the_same_on_the_gpu_but_for_rounding(name):
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    images = pictures(64)
    for severity in SEVERITIES:
        difference = make(images.cuda(), name, severity).cpu().int() - make(images, name, severity).int()
        assert difference.abs().max() <= 1
        assert (difference != 0).double().mean() < 1e-3


@pytest.mark.parametrize("name", NAMES)
def test_only_random_corruptions_depend_on_the_key(name):
    images = pictures(1).repeat(2, 1, 1, 1)
    first, second = make(images, name)
    other_seed = make(images, name, seed=1)[0]
    assert torch.equal(first, second) == torch.equal(first, other_seed) == (name in DETERMINISTIC)


@pytest.mark.parametrize("profile", PROFILES)
@pytest.mark.parametrize("name", NAMES)
def test_any_size_at_any_severity(name, profile):
    images = pictures(2, 37, 50)
    before = images.clone()
    distances = []
    for severity in SEVERITIES:
        ours = make(images, name, severity, profile=profile)
        assert ours.shape == images.shape
        assert ours.dtype == torch.uint8
        distances.append((ours.float() - images.float()).abs().mean().item())
    assert torch.equal(images, before)
    assert min(distances) > 0
    if name not in ("frost", "saturate", "elastic_transform", "spatter"):  # where two pictures do not tell
        assert distances[-1] > distances[0]


@pytest.mark.parametrize("name", NAMES)
def test_larger_than_the_frost_and_than_a_chunk(name):
    assert make(pictures(1, 400, 210), name, 5, profile="imagenet").shape == (1, 3, 400, 210)


@given(st.sampled_from(NAMES), st.sampled_from(SEVERITIES), st.integers(0, 255))
@settings(max_examples=60, deadline=None)
def test_flat_images_stay_in_range(name, severity, level):
    flat = torch.full((1, 3, 32, 32), level, dtype=torch.uint8)
    ours = make(flat, name, severity).int()
    if name in ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur", "gaussian_blur", "elastic_transform"):
        assert (ours - level).abs().max() <= 1
    if name in ("pixelate", "contrast", "jpeg_compression"):
        assert (ours - level).abs().max() <= 3


@pytest.mark.parametrize("severity", SEVERITIES)
def test_contrast_does_not_depend_on_the_order_in_memory(severity):
    """Of flat images every value is a tie, which a mean that is summed in floating point breaks by its order."""
    flat = torch.arange(256, dtype=torch.uint8)[:, None, None, None].expand(256, 3, 32, 32)
    images = torch.cat([flat, pictures(50)])
    ours = make(images, "contrast", severity)
    assert torch.equal(make(images.contiguous(memory_format=torch.channels_last), "contrast", severity), ours)
    assert torch.equal(ours[:256], flat)


def test_transposed_memory_is_read_by_shape():
    images = pictures(3, 32, 40)
    assert torch.equal(make(images.to(memory_format=torch.channels_last), "fog"), make(images, "fog"))


def test_an_empty_batch_is_fine():
    assert make(pictures(1)[:0], "fog").shape == (0, 3, 32, 32)


IMAGES = torch.zeros(2, 3, 32, 32, dtype=torch.uint8)
INDEX = torch.arange(2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"name": "gausian_noise"}, "did you mean 'gaussian_noise'"),
        ({"profile": "imagnet"}, "did you mean 'imagenet'"),
        ({"severity": 0}, "severity is 0; allowed are the integers 1"),
        ({"severity": 6}, "severity is 6"),
        ({"severity": True}, "severity is True"),
        ({"severity": 2.0}, r"severity is 2\.0"),
        ({"severity": "3"}, "severity is '3'"),
        ({"seed": 1.5}, r"seed is 1\.5"),
        ({"seed": True}, "seed is True"),
        ({"seed": -1}, "seed is -1; allowed: 0 to"),
        ({"seed": 2**64}, "seed is 18446744073709551616; allowed: 0 to"),
        ({"images": IMAGES.float()}, r"images has dtype torch\.float32; give torch\.uint8"),
        ({"images": IMAGES.numpy()}, "images is a ndarray"),
        ({"images": IMAGES[0]}, r"images has shape \[3, 32, 32\]"),
        ({"images": IMAGES[:, :1]}, r"images has shape \[2, 1, 32, 32\]"),
        ({"images": IMAGES[..., :31]}, "images are 32 x 31 pixels; both sides must be at least 32"),
        ({"index": INDEX.int()}, r"index is torch\.int32; give an int64 tensor"),
        ({"index": [0, 1]}, "index is list"),
        ({"index": INDEX[:1]}, r"index has shape \[1\].*shape \[2\]"),
        ({"index": INDEX[:, None]}, r"index has shape \[2, 1\]"),
        ({"frost": "reference"}, r"frost is a str; give FrostTextures"),
    ],
)
def test_a_wrong_argument_is_named_in_one_line(change, message):
    arguments = {"images": IMAGES, "name": "frost", "severity": 1, "index": INDEX, "profile": "cifar", **change}
    with pytest.raises(InputError, match=message) as caught:
        corrupt(arguments.pop("images"), arguments.pop("name"), arguments.pop("severity"), **arguments)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("images", "quality", "message"),
    [
        (IMAGES.float(), 85, r"images has dtype torch\.float32"),
        (IMAGES[:, :1], 85, r"images has shape \[2, 1, 32, 32\]"),
        (IMAGES, 0, "quality is 0; allowed are the integers from 1 to 100"),
        (IMAGES, 101, "quality is 101"),
        (IMAGES, 84.5, r"quality is 84\.5"),
        (IMAGES, 85.0, r"quality is 85\.0"),
        (IMAGES, True, "quality is True"),
    ],
)
def test_jpeg_of_something_else_is_refused(images, quality, message):
    with pytest.raises(InputError, match=message):
        recompress(images, quality)


@pytest.mark.parametrize("side", [32, 64])
def test_numpys_integers_are_qualities(side):
    images = torch.randint(0, 256, (2, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    assert recompress(images, np.int64(85)).equal(recompress(images, 85))

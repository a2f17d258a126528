"""The door: corrupt a batch of images."""

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor

from pushpull_conv.corruptions import blur, digital, noise, spatter, weather
from pushpull_conv.corruptions.frost import FrostTextures, load_frost
from pushpull_conv.corruptions.jpeg import jpeg, jpeg_part
from pushpull_conv.corruptions.kernel import Draws, Kernel
from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.corruptions.spec import NAMES, PROFILES, parameters, require_severity
from pushpull_conv.errors import InputError, is_integer, require_name, require_seed

KERNELS: Mapping[str, Kernel] = {
    **noise.KERNELS,
    **blur.KERNELS,
    **weather.KERNELS,
    **digital.KERNELS,
    **spatter.KERNELS,
}
_SMALLEST_SIDE = 32


def corrupt(
    images: Tensor,
    name: str,
    severity: int,
    *,
    index: Tensor,
    seed: int = 0,
    profile: str = "imagenet",
    frost: FrostTextures | None = None,
) -> Tensor:
    """Apply one common corruption to a batch of images.

    An image comes out the same for the same (``seed``, place in ``index``), whatever else is in the batch and whatever
    was drawn before; torch's and numpy's global generators are neither read nor moved. The constants belong to the
    profile and do not change with the size of the images: see ``pushpull_conv.corruptions.spec``.

    The published generators know square images of one side each. Other sizes follow rules that agree with them there:
    zooms and pixelation treat each axis by its own length; the elastic transform measures by the shorter side; fog is
    cut from a map whose side is the next power of two; a photograph of frost is enlarged if it would not cover the
    image; everything else is in pixels.

    Args:
        images: uint8 ``[B, 3, H, W]`` on any device, red, green and blue; both sides at least 32. Grey images are three
            equal channels, and coloured noise or tints colour them.
        name: One of `CORRUPTIONS` or `EXTRA_CORRUPTIONS`.
        severity: 1 to 5.
        index: int64 ``[B]``, the place of each image in its data set.
        seed: 0 to 2^64 - 1; another seed gives another independent benchmark.
        profile: One of `PROFILES`, the constants for images of about 32, 64 and 224 pixels.
        frost: Textures for ``"frost"`` from `load_frost`; the built-in drawings if None.

    Returns:
        uint8 ``[B, 3, H, W]`` on the device of ``images``.

    Raises:
        InputError: An argument has another type, shape or value than the ones above.

    Source:
        Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
        2019, arXiv 1903.12261.

    Example:
        >>> images = torch.full((2, 3, 32, 32), 128, dtype=torch.uint8)
        >>> foggy = corrupt(images, "fog", 3, index=torch.tensor([0, 1]), profile="cifar")
        >>> foggy.shape, foggy.dtype, torch.equal(foggy[0], foggy[1])
        (torch.Size([2, 3, 32, 32]), torch.uint8, False)
    """
    require_name("corruption", name, NAMES)
    require_name("profile", profile, PROFILES)
    _check_images(images)
    _check_index(index, len(images))
    severity = require_severity(severity)
    seed = require_seed(seed)
    if not isinstance(frost, FrostTextures | None):
        raise InputError(f"frost is a {type(frost).__name__}; give FrostTextures, as load_frost makes them")
    constants: Any = parameters(name, profile, severity)
    if name == "frost":
        constants = (*constants, load_frost() if frost is None else frost)
    kernel = KERNELS[name]
    number = NAMES.index(name)
    result = torch.empty_like(images)
    for part, places, output in _parts(kernel.part(images), images, index, result):
        draws: Draws = ()
        if kernel.sample:
            random = Random.keyed(places.to(images.device), seed, number, severity)
            draws = kernel.sample(random, part, constants)
        output.copy_(kernel.apply(part, constants, draws))
    return result


def recompress(images: Tensor, quality: int) -> Tensor:
    """Store images as baseline JPEG with chroma at half the size, and decode them, without the files in between.

    The pixels are those of libjpeg and libjpeg-turbo, to the bit.

    Args:
        images: uint8 ``[B, 3, H, W]`` on any device; both sides at least 32.
        quality: 1 to 100, as libjpeg counts.

    Returns:
        uint8 ``[B, 3, H, W]`` on the device of ``images``.

    Raises:
        InputError: An argument has another type, shape or value than the ones above.

    Example:
        >>> recompress(torch.full((1, 3, 32, 32), 100, dtype=torch.uint8), 85).unique()
        tensor([100], dtype=torch.uint8)
    """
    _check_images(images)
    if not is_integer(quality) or quality not in range(1, 101):
        raise InputError(f"quality is {quality!r}; allowed are the integers from 1 to 100")
    result = torch.empty_like(images)
    for part, output in _parts(jpeg_part(images), images, result):
        output.copy_(jpeg(part, int(quality)))
    return result


def _parts(size: int, *batches: Tensor) -> Iterable[tuple[Tensor, ...]]:
    """Split batches alike; those without images have no parts."""
    return zip(*(batch.split(size) for batch in batches), strict=True) if len(batches[0]) else ()


def _check_images(images: Tensor) -> None:
    if not isinstance(images, Tensor):
        raise InputError(f"images is a {type(images).__name__}; give a uint8 tensor [B, 3, H, W]")
    shape = list(images.shape)
    if images.dtype != torch.uint8:
        raise InputError(f"images has dtype {images.dtype}; give torch.uint8 grey levels from 0 to 255")
    if images.dim() != 4 or shape[1] != 3:
        raise InputError(f"images has shape {shape}; give [B, 3, H, W] with red, green and blue in the second place")
    if min(shape[2:]) < _SMALLEST_SIDE:
        raise InputError(f"images are {shape[2]} x {shape[3]} pixels; both sides must be at least {_SMALLEST_SIDE}")


def _check_index(index: Tensor, count: int) -> None:
    if not isinstance(index, Tensor) or index.dtype != torch.int64:
        given = index.dtype if isinstance(index, Tensor) else type(index).__name__
        raise InputError(f"index is {given}; give an int64 tensor with the place of each image in its data set")
    if index.shape != (count,):
        raise InputError(f"index has shape {list(index.shape)}; give one place per image, shape [{count}]")

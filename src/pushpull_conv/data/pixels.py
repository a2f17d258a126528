"""Decoding of encoded image files to pixels."""

import io
import math

import numpy as np
from PIL import Image

from pushpull_conv.data.spec import DataSpec
from pushpull_conv.errors import InputError
from pushpull_conv.pictures import DAMAGE, require_8_bits, to_rgb

_SPARE = 1.15
"""How many times the wanted length a side must have left where a JPEG file is decoded at a part of its size."""
_ELONGATED = 64
"""Pictures of this aspect ratio are not scaled as a whole: that of a line of pixels would fill the memory."""


def decode(content: bytes, name: str, spec: DataSpec) -> np.ndarray:
    """Decode a PNG, WebP, JPEG ... file to uint8 ``[size, size, 3]``, RGB.

    Images that are to be scaled are scaled by Pillow's bilinear filter, which averages where it shrinks, and cut as
    torchvision's ``Resize`` and ``CenterCrop`` cut them. Arguments and errors are those of `decode_picture`.
    """
    picture = decode_picture(content, name, spec)
    return np.asarray(picture if spec.resize is None else _resize_and_crop(picture, spec.resize, spec.size))


def decode_picture(content: bytes, name: str, spec: DataSpec, *, reduced: bool = False) -> Image.Image:
    """Decode a PNG, WebP, JPEG ... file as a picture: RGB, neither scaled nor cut.

    Grey images become three equal channels; palettes are looked up; CMYK is converted as Pillow does without a colour
    profile; transparency is dropped; an orientation tag is not obeyed, as the common loaders of ImageNet do not. Where
    the data set is ``greyscale`` the picture is its luminance (ITU-R 601, as Pillow's "L"), three times.

    Args:
        content: The content of the file.
        name: What the image is called in an error message.
        spec: Its data set.
        reduced: Decode a large JPEG file at 1/2, 1/4 or 1/8 of its size where its shorter side stays at least 1.15
            times as long as the data set scales it to. That saves most of the time of a large photograph. Two of them
            differed by 0.5 and 0.6 of 255 levels on average after scaling to 256 pixels: near enough to train on, but
            not the pixels of the benchmark.

    Raises:
        InputError: The file is truncated, is no image, is grey of more than 8 bits, or has another size where none is
            scaled. Of colours of 16 bits Pillow keeps the upper 8.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if spec.resize is None and image.size != (spec.size, spec.size):
                sides = f"{image.width} x {image.height} pixels, not {spec.size} x {spec.size}"
                raise InputError(f"image {name} has {sides}")
            if spec.resize is not None and reduced:
                image.draft(None, (math.ceil(_SPARE * spec.resize),) * 2)  # other files than JPEG: nothing happens
            image.load()
            require_8_bits(image, f"image {name}")
            picture = to_rgb(image)
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"image {name} is truncated or not an image; replace it") from error
    return picture.convert("L").convert("RGB") if spec.greyscale else picture


def scaled_size(image: Image.Image, shorter: int) -> tuple[int, int]:
    """Width and height of an image whose shorter side is scaled to ``shorter`` pixels."""
    width, height = (int(shorter * length / min(image.size)) for length in image.size)
    return width, height


def scaled_part(image: Image.Image, size: tuple[int, int], box: tuple[int, int, int, int]) -> Image.Image:
    """Scale an image to ``size`` by the bilinear filter and cut ``box`` out of it: left, upper, right and lower border.

    What is not in the box is not scaled, which halves the time of a crop of 224 x 224 out of 341 x 256 pixels. The
    filter's rounding moves some values by 1 of 255 levels from those of an image that is scaled as a whole.
    """
    across, down = image.width / size[0], image.height / size[1]
    left, upper, right, lower = box
    part = (left * across, upper * down, min(right * across, image.width), min(lower * down, image.height))
    return image.resize((right - left, lower - upper), Image.Resampling.BILINEAR, box=part)


def _resize_and_crop(image: Image.Image, shorter: int, side: int) -> Image.Image:
    """Scale the shorter side to ``shorter`` pixels and cut the central ``side`` x ``side``."""
    width, height = size = scaled_size(image, shorter)
    left, top = round((width - side) / 2), round((height - side) / 2)
    box = (left, top, left + side, top + side)
    if max(size) >= _ELONGATED * shorter:
        return scaled_part(image, size, box)
    return image.resize(size, Image.Resampling.BILINEAR).crop(box)

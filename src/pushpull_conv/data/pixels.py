"""Decoding of encoded image files to pixels."""

import io

import numpy as np
from PIL import Image

from pushpull_conv.data.spec import DataSpec
from pushpull_conv.errors import InputError


def decode(content: bytes, name: str, spec: DataSpec) -> np.ndarray:
    """Decode a PNG, WebP, JPEG ... file to uint8 ``[size, size, 3]``, RGB.

    Grey images become three equal channels; palettes are looked up; CMYK is converted as Pillow does without a colour
    profile; transparency is dropped; an orientation tag is not obeyed, as the common loaders of ImageNet do not.
    Images that are to be scaled are scaled by Pillow's bilinear filter, which averages where it shrinks, and cut as
    torchvision's ``Resize`` and ``CenterCrop`` cut them.

    Args:
        content: The content of the file.
        name: What the image is called in an error message.
        spec: Its data set, which fixes the size.

    Raises:
        InputError: The file is truncated, is no image or has another size where none is scaled.
    """
    try:
        with Image.open(io.BytesIO(content)) as image:
            if spec.resize is not None:
                return np.asarray(_resize_and_crop(image.convert("RGB"), spec.resize, spec.size))
            if image.size != (spec.size, spec.size):
                sides = f"{image.width} x {image.height} pixels, not {spec.size} x {spec.size}"
                raise InputError(f"image {name} has {sides}")
            return np.asarray(image.convert("RGB"))
    except InputError:
        raise
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:  # damage surfaces as any of them
        raise InputError(f"image {name} is truncated or not an image; replace it") from error


def scaled(image: Image.Image, shorter: int) -> Image.Image:
    """Scale the shorter side to ``shorter`` pixels, by the bilinear filter."""
    short = min(image.size)
    width, height = (int(shorter * length / short) for length in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _resize_and_crop(image: Image.Image, shorter: int, side: int) -> Image.Image:
    """Scale the shorter side to ``shorter`` pixels and cut the central ``side`` x ``side``."""
    image = scaled(image, shorter)
    left, top = round((image.width - side) / 2), round((image.height - side) / 2)
    return image.crop((left, top, left + side, top + side))

"""Single pictures, for a look at what corruptions, augmentations and units do to them."""

from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from pushpull_conv.errors import InputError
from pushpull_conv.pictures import DAMAGE, require_8_bits, to_rgb

_TURNS = dict(
    enumerate(
        (
            Image.Transpose.FLIP_LEFT_RIGHT,
            Image.Transpose.ROTATE_180,
            Image.Transpose.FLIP_TOP_BOTTOM,
            Image.Transpose.TRANSPOSE,
            Image.Transpose.ROTATE_270,
            Image.Transpose.TRANSVERSE,
            Image.Transpose.ROTATE_90,
        ),
        start=2,
    )
)
"""What makes a picture upright, by its orientation tag; `ImageOps.exif_transpose` fails where other tags are odd."""


def read_photo(path: Path, side: int | None = None, longest: int | None = None) -> Tensor:
    """Read a picture as RGB.

    Args:
        path: A file that Pillow can read; its orientation tag is obeyed.
        side: Scale and crop the picture around its centre to ``side`` x ``side`` pixels; None: as it is.
        longest: Scale it down until no side has more pixels; None: as it is.

    Returns:
        uint8 ``[3, H, W]``.

    Raises:
        InputError: The file is missing, truncated, no picture, or grey of more than 8 bits.
    """
    try:
        with Image.open(path) as picture:
            turn = _TURNS.get(picture.getexif().get(ExifTags.Base.Orientation, 1))
            upright = picture.copy() if turn is None else picture.transpose(turn)
    except FileNotFoundError as error:
        raise InputError(f"picture '{path}' does not exist; check the path") from error
    except DAMAGE as error:
        raise InputError(f"picture '{path}' is truncated or no picture; give a file such as a JPEG or PNG") from error
    require_8_bits(upright, f"picture '{path}'")
    photo = to_rgb(upright)
    if side is not None:
        photo = ImageOps.fit(photo, (side, side), Image.Resampling.BILINEAR)
    if longest is not None:
        photo.thumbnail((longest, longest), Image.Resampling.BILINEAR)
    return torch.from_numpy(np.array(photo)).permute(2, 0, 1).contiguous()

"""Baseline JPEG there and back: in tensor arithmetic on any device, or by Pillow where that is faster, bit for bit.

Entropy coding loses nothing, so compression is: colour conversion, chroma at half the size, an integer cosine
transform, quantisation, and the same way back. All of it follows libjpeg's integer arithmetic (the "slow" transform,
4:2:0 chroma, "fancy" upsampling) to the bit. The tables and the colour transform are those of ITU-T T.81 Annex K and
T.871 (JFIF).
"""

import io
import math
from functools import lru_cache

import torch
from PIL import Image, features
from torch import Tensor
from torch.nn.functional import pad

from pushpull_conv.corruptions.kernel import usual_part
from pushpull_conv.corruptions.pillow import map_pictures

_LUMA = (
    (16, 11, 10, 16, 24, 40, 51, 61),
    (12, 12, 14, 19, 26, 58, 60, 55),
    (14, 13, 16, 24, 40, 57, 69, 56),
    (14, 17, 22, 29, 51, 87, 80, 62),
    (18, 22, 37, 56, 68, 109, 103, 77),
    (24, 35, 55, 64, 81, 104, 113, 92),
    (49, 64, 78, 87, 103, 121, 120, 101),
    (72, 92, 95, 98, 112, 100, 103, 99),
)
_CHROMA = (
    (17, 18, 24, 47, 99, 99, 99, 99),
    (18, 21, 26, 66, 99, 99, 99, 99),
    (24, 26, 56, 99, 99, 99, 99, 99),
    (47, 66, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
    (99, 99, 99, 99, 99, 99, 99, 99),
)
# The left half of sqrt(8) times the cosine basis, in units of 2^-13 as the sums of libjpeg's rounded constants;
# the right half is its mirror image, negated in odd rows.
_COSINES = (
    (8192, 8192, 8192, 8192),
    (11363, 9633, 6437, 2260),
    (10703, 4433, -4433, -10703),
    (9633, -2259, -11362, -6436),
    (8192, -8192, -8192, 8192),
    (6437, -11362, 2261, 9633),
    (4433, -10704, 10704, -4433),
    (2260, -6436, 9633, -11363),
)

# Pillow's other library, IJG's libjpeg 9, scales chroma differently.
_HAS_TURBO = bool(features.check_feature("libjpeg_turbo"))
_LARGE = 48 * 48  # pixels from which Pillow is faster


@lru_cache(maxsize=32)
def _quantisation(base: tuple[tuple[int, ...], ...], quality: int, device: torch.device) -> Tensor:
    """The quantisation table of a quality: float64 ``[8, 8]``."""
    scale = 5000 // quality if quality < 50 else 200 - 2 * quality
    table = (torch.tensor(base) * scale + 50) // 100
    return table.clamp_(1, 255).to(torch.float64).to(device)


@lru_cache(maxsize=8)
def _cosines(device: torch.device) -> Tensor:
    half = torch.tensor(_COSINES, dtype=torch.float64)
    sign = torch.tensor([1, -1]).repeat(4)[:, None]
    return torch.cat([half, sign * half.flip(1)], dim=1).to(device)


def _transform(blocks: Tensor, basis: Tensor, shift: int) -> Tensor:
    """Multiply the rows of blocks by ``basis`` and round off ``shift`` bits; integers below 2^53, exact in float64."""
    return (blocks @ basis).add_(2 ** (shift - 1)).mul_(2.0**-shift).floor_()


def _round_trip(plane: Tensor, table: Tensor) -> Tensor:
    """Transform, quantise and restore 8 x 8 blocks of a plane: int32 ``[B, C, H, W]``, H and W multiples of 8."""
    count, channels, height, width = plane.shape
    inverse = _cosines(plane.device)
    basis = inverse.mT
    blocks = (plane - 128).view(count, channels, height // 8, 8, width // 8, 8).transpose(3, 4).to(torch.float64)
    # Along rows, then along columns, to eight times the coefficients; the blocks stay transposed until they return.
    scaled = _transform(_transform(blocks, basis, 11).mT, basis, 15)
    table = table.mT
    levels = ((scaled.abs() + 4 * table) / (8 * table)).floor_().copysign_(scaled)
    restored = _transform(_transform(levels * table, inverse, 11).mT, inverse, 18)
    return restored.add_(128).clamp_(0, 255).to(torch.int32).transpose(3, 4).reshape(plane.shape)


def _halve(chroma: Tensor) -> Tensor:
    """Average 2 x 2 values, rounding down and up in alternate columns: int32 ``[B, C, H, W]`` with even sides."""
    rows = chroma[:, :, 0::2] + chroma[:, :, 1::2]
    total = rows[..., 0::2] + rows[..., 1::2]
    bias = 1 + torch.arange(total.shape[-1], dtype=torch.int32, device=total.device) % 2
    return (total + bias) >> 2


def _double(chroma: Tensor) -> Tensor:
    """Enlarge a plane twice, with three parts of the near and one part of the far neighbour per axis."""
    above = torch.cat([chroma[:, :, :1], chroma[:, :, :-1]], dim=2)
    below = torch.cat([chroma[:, :, 1:], chroma[:, :, -1:]], dim=2)
    rows = torch.stack([3 * chroma + above, 3 * chroma + below], dim=3).flatten(2, 3)
    left = torch.cat([rows[..., :1], rows[..., :-1]], dim=3)
    right = torch.cat([rows[..., 1:], rows[..., -1:]], dim=3)
    return torch.stack([(3 * rows + left + 8) >> 4, (3 * rows + right + 7) >> 4], dim=4).flatten(3, 4)


def _extend(plane: Tensor, rows: int, columns: int) -> Tensor:
    """Repeat the last row and column until the sides are multiples of ``rows`` and ``columns``."""
    height, width = plane.shape[-2:]
    down, right = -height % rows, -width % columns
    return (
        pad(plane.to(torch.float32), (0, right, 0, down), mode="replicate").to(plane.dtype) if down or right else plane
    )


def jpeg(images: Tensor, quality: int) -> Tensor:
    """Compress and restore images as baseline JPEG with 4:2:0 chroma.

    Args:
        images: uint8 ``[B, 3, H, W]``.
        quality: 1 to 100, as libjpeg counts.

    Returns:
        uint8 ``[B, 3, H, W]``.

    Example:
        >>> jpeg(torch.full((1, 3, 16, 16), 100, dtype=torch.uint8), 50).unique()
        tensor([100], dtype=torch.uint8)
    """
    return _by_pillow(images, quality) if _uses_pillow(images) else by_arithmetic(images, quality)


def jpeg_part(images: Tensor) -> int:
    """How many images `jpeg` is best given at a time: all where Pillow takes them one by one."""
    return len(images) if _uses_pillow(images) else usual_part(images)


def _uses_pillow(images: Tensor) -> bool:
    return images.is_cpu and _HAS_TURBO and images[:1, :1].numel() >= _LARGE


def _by_pillow(images: Tensor, quality: int) -> Tensor:
    def store(picture: Image.Image) -> Image.Image:
        file = io.BytesIO()
        picture.save(file, "JPEG", quality=quality, subsampling="4:2:0")
        return Image.open(file)

    return map_pictures(images, store)


def by_arithmetic(images: Tensor, quality: int) -> Tensor:
    """Compute `jpeg` on the device of the images."""
    height, width = images.shape[2:]
    red, green, blue = images.to(torch.int32).unbind(1)
    luma = (19595 * red + 38470 * green + 7471 * blue + 32768) >> 16
    offset = (128 << 16) + 32767
    blueness = (-11059 * red - 21709 * green + 32768 * blue + offset) >> 16
    redness = (32768 * red - 27439 * green - 5329 * blue + offset) >> 16
    luma = _round_trip(_extend(luma[:, None], 8, 8), _quantisation(_LUMA, quality, images.device))
    small = _halve(_extend(torch.stack([blueness, redness], dim=1), 2, 16))
    small = _round_trip(_extend(small, 8, 8), _quantisation(_CHROMA, quality, images.device))
    chroma = _double(small[:, :, : math.ceil(height / 2), : math.ceil(width / 2)]) - 128
    luma = luma[:, 0, :height, :width]
    blueness, redness = chroma[:, :, :height, :width].unbind(1)
    red = luma + ((91881 * redness + 32768) >> 16)
    green = luma + ((-22554 * blueness - 46802 * redness + 32768) >> 16)
    blue = luma + ((116130 * blueness + 32768) >> 16)
    return torch.stack([red, green, blue], dim=1).clamp_(0, 255).to(torch.uint8)

"""Contrast, elastic transform, pixelate and JPEG compression."""

import math

import torch
from torch import Tensor

from pushpull_conv.corruptions import operators
from pushpull_conv.corruptions.jpeg import jpeg, jpeg_part
from pushpull_conv.corruptions.kernel import Draws, Kernel, to_uint8
from pushpull_conv.corruptions.pixelate import pixelate, pixelate_part
from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.corruptions.spec import Parameters


def apply_contrast(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Pull every channel towards its mean, which is summed in integers: in any order, and on any device, the same."""
    (kept,) = parameters
    source = images.to(torch.float64).div_(255)
    mean = images.sum((2, 3), keepdim=True, dtype=torch.int64).to(torch.float64).div_(255 * math.prod(images.shape[2:]))
    return to_uint8((source - mean).mul_(kept).add_(mean).mul_(255))


def sample_elastic_transform(random: Random, images: Tensor, parameters: Parameters) -> Draws:
    """Uniform numbers for the affine jitter, ``[B, 3, 2]``, and the displacements, ``[B, 2, H, W]``: float64."""
    return random.uniform(0, 3, 2), random.uniform(1, 2, *images.shape[2:])


def _jitter(unit: Tensor, reach: float, height: int, width: int) -> tuple[Tensor, Tensor, Tensor]:
    """The inverse of the affine map that moves three anchor points at random.

    Args:
        unit: Uniform numbers in [0, 1), ``[B, 3, 2]``: three points, (x, y) each.
        reach: Each coordinate moves by at most this many pixels.
        height: Rows of the image.
        width: Columns of the image.

    Returns:
        What a step in x, what a step in y and what the origin become: float64 ``[B, 2]`` as (x, y) each.
    """
    centre = torch.tensor([width // 2, height // 2], dtype=torch.float32, device=unit.device)
    arm = min(height, width) // 3
    corners = centre + arm * torch.tensor([[1, 1], [1, -1], [-1, -1]], dtype=torch.float32, device=unit.device)
    moved = corners + (2 * reach * unit - reach).to(torch.float32)
    first, second, third = moved.to(torch.float64).unbind(1)
    along_y, along_x = (first - second) / (2 * arm), (second - third) / (2 * arm)
    origin = second - along_x * corners[1, 0] - along_y * corners[1, 1]
    (a, c), (b, d), (e, f) = along_x.unbind(1), along_y.unbind(1), origin.unbind(1)
    scale = 1 / (a * d - b * c)
    inverse_x, inverse_y = torch.stack([d, -c], 1) * scale[:, None], torch.stack([-b, a], 1) * scale[:, None]
    return inverse_x, inverse_y, -(inverse_x * e[:, None] + inverse_y * f[:, None])


def _affine_positions(unit: Tensor, reach: float, height: int, width: int) -> Tensor:
    """Where every pixel comes from, to 1/32 pixel as OpenCV 4 computes it: float64 ``[B, 2, H, W]`` as (x, y)."""
    inverse_x, inverse_y, origin = _jitter(unit, reach, height, width)
    rows = torch.arange(height, dtype=torch.float64, device=unit.device)
    columns = torch.arange(width, dtype=torch.float64, device=unit.device)
    down = (1024 * (inverse_y[..., None] * rows + origin[..., None])).round_()
    across = (1024 * inverse_x[..., None] * columns).round_()
    return (down[..., None] + across[:, :, None]).add_(16).div_(32).floor_().div_(32)


def bilinear(images: Tensor, x: Tensor, y: Tensor, border: operators.Border) -> Tensor:
    """Read images between their pixels.

    Args:
        images: float64 ``[B, C, H, W]``.
        x: Column of every output pixel, float64 ``[B, H, W]``.
        y: Row of every output pixel, float64 ``[B, H, W]``.
        border: What lies outside.

    Returns:
        float64 ``[B, C, H, W]``.
    """
    channels, height, width = images.shape[1:]
    pixels = images.flatten(2)
    left, top = x.floor(), y.floor()
    across, down = (x - left).flatten(1)[:, None], (y - top).flatten(1)[:, None]
    columns = [border(left + step, width) for step in (0, 1)]
    rows = [border(top + step, height).mul_(width) for step in (0, 1)]

    def read(row: Tensor, column: Tensor) -> Tensor:
        places = (row + column).to(torch.int64).flatten(1)
        return pixels.gather(2, places[:, None].expand(-1, channels, -1))

    upper, lower = (read(row, columns[0]).lerp_(read(row, columns[1]), across) for row in rows)
    return upper.lerp_(lower, down).view(images.shape)


def apply_elastic_transform(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Shear the image a little, then shift every pixel by a smooth random field."""
    amplitude, smoothness, jitter, length = parameters
    corners, field = draws
    height, width = images.shape[2:]
    unit = length * min(height, width)
    source = images.to(torch.float64)
    x, y = _affine_positions(corners, jitter * unit, height, width).unbind(1)
    source = bilinear(source, x, y, operators.reflect)
    if amplitude:
        vertical, horizontal = (
            operators.gaussian(size, smoothness * unit, operators.mirror, 3, images.device) for size in (height, width)
        )
        shift = operators.separable(2 * field - 1, vertical, horizontal).mul_(amplitude * unit)
        x = shift[:, 0] + torch.arange(width, device=images.device)
        y = shift[:, 1] + torch.arange(height, device=images.device)[:, None]
        source = bilinear(source, x, y, operators.mirror)
    return to_uint8(source)


def apply_pixelate(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Shrink and enlarge."""
    (kept,) = parameters
    return pixelate(images, kept)


def apply_jpeg_compression(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Compress and restore."""
    (quality,) = parameters
    return jpeg(images, int(quality))


KERNELS = {
    "contrast": Kernel(None, apply_contrast),
    "elastic_transform": Kernel(sample_elastic_transform, apply_elastic_transform),
    "pixelate": Kernel(None, apply_pixelate, pixelate_part),
    "jpeg_compression": Kernel(None, apply_jpeg_compression, jpeg_part),
}

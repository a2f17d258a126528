"""Defocus, glass, motion, zoom and Gaussian blur."""

import math
from collections import Counter
from functools import lru_cache
from itertools import count

import torch
from torch import Tensor
from torch.nn.functional import pad

from pushpull_conv.corruptions import operators
from pushpull_conv.corruptions.kernel import Draws, Kernel, larger_part, to_uint8
from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.corruptions.spec import Parameters


def _gaussian_blur(images: Tensor, sigma: float) -> Tensor:
    height, width = images.shape[-2:]
    vertical = operators.exact_gaussian(height, sigma, images.device)
    horizontal = operators.exact_gaussian(width, sigma, images.device)
    return to_uint8(operators.separable(images.to(torch.float64), vertical, horizontal))


def apply_gaussian_blur(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Blur with a Gaussian."""
    (sigma,) = parameters
    return _gaussian_blur(images, sigma)


@lru_cache(maxsize=32)
def _disk(radius: float, sigma: float) -> Tensor:
    """An anti-aliased disk: float32 ``[n, n]``, in the precision of the reference, whose rounding it shares.

    The smoothing mirrors at the border of the kernel's own array, so a disk that touches it gains about 1 % of light;
    the benchmark was made so.
    """
    half = 8 if radius <= 8 else int(radius)
    offsets = torch.arange(-half, half + 1)
    disk = (offsets[:, None] ** 2 + offsets**2 <= radius**2).to(torch.float32)
    weights = operators.gaussian_weights(sigma, 1 if radius <= 8 else 2)
    smooth = operators.correlation(2 * half + 1, weights, operators.reflect).to(torch.float32)
    kernel = smooth @ (disk / disk.sum() @ smooth.T)
    used = kernel.amax(0) > 1e-12
    return kernel[used][:, used]


@lru_cache(maxsize=8)
def _disk_spectrum(radius: float, sigma: float, rows: int, columns: int, device: torch.device) -> Tensor:
    """The Fourier transform of a disk on ``rows`` x ``columns`` pixels: complex128 ``[rows, columns // 2 + 1]``."""
    return torch.fft.rfft2(_disk(radius, sigma).to(torch.float64), (rows, columns)).to(device)


def _quick(length: int) -> int:
    """The next even length without a prime factor above 5: such transforms are quick."""
    return next(even for even in count(length + length % 2, 2) if 30 ** even.bit_length() % even == 0)


def apply_defocus_blur(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Blur with a disk, by Fourier transforms: at the radii of large images several times faster than sums."""
    radius, sigma = parameters
    height, width = images.shape[-2:]
    reach = len(_disk(radius, sigma)) // 2
    sizes = _quick(height + 2 * reach), _quick(width + 2 * reach)
    padded = pad(images.to(torch.float64), (reach,) * 4, mode="reflect")
    spectrum = torch.fft.rfft2(padded, sizes).mul_(_disk_spectrum(radius, sigma, *sizes, images.device))
    blurred = torch.fft.irfft2(spectrum, sizes)
    return to_uint8(blurred[..., 2 * reach : 2 * reach + height, 2 * reach : 2 * reach + width])


def sample_glass_blur(random: Random, images: Tensor, parameters: Parameters) -> Draws:
    """Displacements of every pixel that moves, in scan order: int64 ``[B, passes, rows, columns, 2]`` as (dx, dy)."""
    _, reach, passes = parameters
    height, width = images.shape[-2:]
    reach = int(reach)
    return (random.integers(0, -reach, reach, int(passes), height - 2 * reach, width - 2 * reach, 2),)


def _copy_sources(offsets: Tensor, height: int, width: int, reach: int) -> Tensor:
    """Where the content of every pixel comes from after one pass of copies: int64 ``[B, H * W]``.

    A pass walks from the last row and column up and copies a neighbour onto each pixel. A neighbour that comes later in
    the image was itself rewritten before, so its content comes from further on: the chain is followed by pointer
    doubling.
    """
    size = height * width
    places = torch.arange(size, device=offsets.device)
    dx, dy = offsets.flip(1, 2).unbind(-1)
    neighbours = places.view(height, width).repeat(len(offsets), 1, 1)
    neighbours[:, reach + 1 : height - reach + 1, reach + 1 : width - reach + 1] += dy * width + dx
    neighbours = neighbours.flatten(1)
    # Below `size` a source means what the pixel held before the pass, from there on what it holds after it.
    before = places.expand(len(offsets), -1)
    sources = neighbours + size * (neighbours > places)
    while (sources >= size).any():
        sources = torch.cat([before, sources], dim=1).gather(1, sources)
    return sources


def apply_glass_blur(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Blur, copy neighbours onto each other, and blur again."""
    sigma, reach, passes = parameters
    (offsets,) = draws
    height, width = images.shape[-2:]
    blurred = _gaussian_blur(images, sigma).flatten(2)
    for number in range(int(passes)):
        sources = _copy_sources(offsets[:, number], height, width, int(reach))
        blurred = blurred.gather(2, sources[:, None].expand(-1, 3, -1))
    return _gaussian_blur(blurred.view(images.shape), sigma)


def sample_motion_blur(random: Random, images: Tensor, parameters: Parameters) -> Draws:
    """The direction of each image in degrees, up to 45 from the horizontal: float64 ``[B]``."""
    return (random.uniform(0).mul_(90).sub_(45),)


def trail(images: Tensor, radius: float, sigma: float, degrees: Tensor) -> Tensor:
    """Smear each image one way along its own direction, as ImageMagick's motion blur does.

    Args:
        images: Whole grey levels, float32 ``[B, C, H, W]``.
        radius: Half the number of taps.
        sigma: Standard deviation of the weights along the trail.
        degrees: Direction per image, from the columns to the rows, ``[B]``.

    Returns:
        uint8 ``[B, C, H, W]``.
    """
    count, channels, height, width = images.shape
    taps = 2 * math.ceil(radius) + 1
    steps = torch.arange(taps, dtype=torch.float64, device=images.device)
    weights = torch.exp(-0.5 * (steps / sigma) ** 2)
    weights /= weights.sum()
    angle = torch.deg2rad(degrees)[:, None]
    columns = (steps * torch.cos(angle) - 0.5).ceil_().to(torch.int64)
    rows = (steps * torch.sin(angle) - 0.5).ceil_().to(torch.int64)
    # In the padded image a tap reads at one offset from every pixel, whatever the border.
    margin = taps - 1
    stride = width + 2 * margin
    padded = pad(images, (margin,) * 4, mode="replicate").flatten(2)
    offsets = (rows + margin) * stride + columns + margin
    places = torch.arange(height, device=images.device)[:, None] * stride + torch.arange(width, device=images.device)
    total = torch.zeros(count, channels, height * width, dtype=torch.float32, device=images.device)
    for tap, weight in enumerate(weights.tolist()):
        sources = places.flatten() + offsets[:, tap, None]
        total.add_(padded.gather(2, sources[:, None].expand(-1, channels, -1)), alpha=257 * weight)
    return _to_8_bits(total.round_().to(torch.int32)).view(images.shape)


def _to_8_bits(values: Tensor) -> Tensor:
    """Round 16-bit integers to 8 bits."""
    biased = values + 128
    return (biased - (biased >> 8) >> 8).to(torch.uint8)


def apply_motion_blur(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Smear each image along its direction."""
    radius, sigma = parameters
    (degrees,) = draws
    return trail(images.to(torch.float32), radius, sigma, degrees)


def apply_zoom_blur(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Average an image with its zooms."""
    source = images.to(torch.float64)
    height, width = images.shape[-2:]
    shapes = Counter(
        (operators.zoom_geometry(height, factor), operators.zoom_geometry(width, factor)) for factor in parameters
    )
    total = source.clone()
    for (rows, columns), times in shapes.items():
        total.add_(operators.zoom(source, rows, columns), alpha=times)
    return to_uint8(total.div_(len(parameters) + 1))


KERNELS = {
    "defocus_blur": Kernel(None, apply_defocus_blur),
    "glass_blur": Kernel(sample_glass_blur, apply_glass_blur),
    "motion_blur": Kernel(sample_motion_blur, apply_motion_blur, larger_part),
    "zoom_blur": Kernel(None, apply_zoom_blur),
    "gaussian_blur": Kernel(None, apply_gaussian_blur),
}

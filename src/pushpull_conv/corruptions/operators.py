"""Linear maps of an image that treat rows and columns apart, as one small matrix per axis.

Blurs, zooms and resizes with any border rule are such maps: ``rows @ image @ columns.T``. The matrices depend on sizes
and constants alone and are cached.
"""

import math
from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor


def replicate(positions: Tensor, size: int) -> Tensor:
    """Map positions outside [0, size) to the edge: a a | a b c | c c."""
    return positions.clamp(0, size - 1)


def reflect(positions: Tensor, size: int) -> Tensor:
    """Mirror positions about the edge sample, which is not repeated: c b | a b c | b a."""
    folded = positions.remainder(2 * size - 2)
    return torch.minimum(folded, 2 * size - 2 - folded)


def mirror(positions: Tensor, size: int) -> Tensor:
    """Mirror positions about the edge of the image, so that the edge sample is repeated: b a | a b c | c b."""
    folded = positions.remainder(2 * size)
    return torch.minimum(folded, 2 * size - 1 - folded)


Border = Callable[[Tensor, int], Tensor]


def correlation(size: int, weights: Tensor, border: Border) -> Tensor:
    """The matrix that correlates a line of ``size`` samples with centred ``weights``: float64 ``[size, size]``."""
    radius = len(weights) // 2
    sources = border(torch.arange(size)[:, None] + torch.arange(-radius, radius + 1), size)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, sources, weights.to(torch.float64).expand(size, -1))


def gaussian_weights(sigma: float, radius: int) -> Tensor:
    """A sampled Gaussian of sum one: float64 ``[2 radius + 1]``."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


@lru_cache(maxsize=64)
def gaussian(size: int, sigma: float, border: Border, truncate: float, device: torch.device) -> Tensor:
    """The matrix of a Gaussian blur cut off at ``truncate`` sigmas: float64 ``[size, size]``."""
    radius = math.floor(truncate * sigma + 0.5)
    weights = gaussian_weights(sigma, radius) if radius else torch.ones(1)
    return correlation(size, weights, border).to(device)


_GRAIN = 2.0**-22


@lru_cache(maxsize=64)
def exact_gaussian(size: int, sigma: float, device: torch.device) -> Tensor:
    """`gaussian` with replicated border, for 8-bit samples, in weights that are multiples of 2^-22 and sum to one.

    Rows and columns then make sums of 52-bit integers, which float64 holds exactly: the truncation that follows gives
    the same grey level whatever order the products are summed in, hence on every device and for every split of a batch.
    """
    matrix = (gaussian(size, sigma, replicate, 4, torch.device("cpu")) / _GRAIN).round_()
    matrix.diagonal().add_(1 / _GRAIN - matrix.sum(1))
    return (matrix * _GRAIN).to(device)


def zoom_geometry(size: int, factor: float) -> tuple[int, int]:
    """How many samples in the middle of a line a zoom keeps, and to how many it stretches them."""
    kept = math.ceil(size / factor)
    return kept, round(kept * factor)


@lru_cache(maxsize=128)
def zoom(size: int, kept: int, stretched: int, device: torch.device) -> Tensor:
    """The matrix that stretches the middle ``kept`` samples of a line and cuts out the middle ``size`` of the result.

    Linear interpolation with aligned corners: float64 ``[size, size]``.
    """
    output = torch.arange(size, dtype=torch.float64) + (stretched - size) // 2
    position = output * ((kept - 1) / (stretched - 1))
    low = position.floor().clamp(max=kept - 2)
    fraction = position - low
    columns = low.to(torch.int64)[:, None] + (size - kept) // 2 + torch.arange(2)
    weights = torch.stack([1 - fraction, fraction], dim=1)
    return torch.zeros(size, size, dtype=torch.float64).scatter_(1, columns, weights).to(device)


def separable(images: Tensor, rows: Tensor, columns: Tensor) -> Tensor:
    """Apply one matrix along the rows and one along the columns of ``[..., H, W]``."""
    return rows @ (images @ columns.T)

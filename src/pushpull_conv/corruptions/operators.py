"""Linear maps of images: blurs as one small matrix per axis, with any border rule, and zooms.

The matrices depend on sizes and constants alone and are cached.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor
from torch.nn.functional import interpolate


def replicate(positions: Tensor, size: int) -> Tensor:
    """Map whole positions outside [0, size) to the edge: a a | a b c | c c."""
    return positions.clamp(0, size - 1)


def reflect(positions: Tensor, size: int) -> Tensor:
    """Mirror whole positions about the edge sample, which is not repeated: c b | a b c | b a."""
    return _fold(positions, size - 1.0)


def mirror(positions: Tensor, size: int) -> Tensor:
    """Mirror whole positions about the edge of the image, so that the edge sample is repeated: b a | a b c | c b."""
    return _fold(positions + 0.5, size).sub_(0.5)


def _fold(positions: Tensor, length: float) -> Tensor:
    """Reflect a line of numbers at 0 and at ``length``, over and over."""
    turns = (positions / (2 * length)).round_()
    return positions.sub(turns, alpha=2 * length).abs_()


Border = Callable[[Tensor, int], Tensor]
_TILE = 16


@dataclass(frozen=True, eq=False)
class LineMap:
    """A linear map of lines of samples, applied to the rows or the columns of images.

    Attributes:
        tiles: ``(first, last, matrix)`` for every `_TILE` consecutive results, ``matrix @ samples[first:last]``. A blur
            looks at few neighbours, so the tiles leave out most of the zeros of one large matrix.
    """

    tiles: tuple[tuple[int, int, Tensor], ...]

    @classmethod
    def of(cls, matrix: Tensor, device: torch.device) -> "LineMap":
        """Cut up a matrix ``[results, samples]``."""
        tiles = []
        for part in matrix.split(_TILE):
            (used,) = part.any(0).nonzero(as_tuple=True)
            first, last = int(used[0]), int(used[-1]) + 1
            tiles.append((first, last, part[:, first:last].to(device)))
        return cls(tuple(tiles))

    def along_columns(self, images: Tensor) -> Tensor:
        """Map every column of ``[..., H, W]``."""
        return torch.cat([matrix @ images[..., first:last, :] for first, last, matrix in self.tiles], dim=-2)

    def along_rows(self, images: Tensor) -> Tensor:
        """Map every row of ``[..., H, W]``."""
        return torch.cat([images[..., first:last] @ matrix.T for first, last, matrix in self.tiles], dim=-1)


def separable(images: Tensor, vertical: LineMap, horizontal: LineMap) -> Tensor:
    """Map the columns and the rows of ``[..., H, W]``."""
    return vertical.along_columns(horizontal.along_rows(images))


def correlation(size: int, weights: Tensor, border: Border) -> Tensor:
    """The matrix that correlates a line of ``size`` samples with centred ``weights``: float64 ``[size, size]``."""
    radius = len(weights) // 2
    positions = torch.arange(size, dtype=torch.float64)[:, None] + torch.arange(-radius, radius + 1)
    matrix = torch.zeros(size, size, dtype=torch.float64)
    return matrix.scatter_add_(1, border(positions, size).to(torch.int64), weights.to(torch.float64).expand(size, -1))


def gaussian_weights(sigma: float, radius: int) -> Tensor:
    """A sampled Gaussian of sum one: float64 ``[2 radius + 1]``."""
    offsets = torch.arange(-radius, radius + 1, dtype=torch.float64)
    weights = torch.exp(-0.5 * (offsets / sigma) ** 2)
    return weights / weights.sum()


def _gaussian_matrix(size: int, sigma: float, border: Border, truncate: float) -> Tensor:
    radius = math.floor(truncate * sigma + 0.5)
    return correlation(size, gaussian_weights(sigma, radius) if radius else torch.ones(1), border)


@lru_cache(maxsize=64)
def gaussian(size: int, sigma: float, border: Border, truncate: float, device: torch.device) -> LineMap:
    """A Gaussian blur cut off at ``truncate`` sigmas."""
    return LineMap.of(_gaussian_matrix(size, sigma, border, truncate), device)


_GRAIN = 2.0**-22


@lru_cache(maxsize=64)
def exact_gaussian(size: int, sigma: float, device: torch.device) -> LineMap:
    """A Gaussian blur with replicated border for 8-bit samples, in weights that are multiples of 2^-22 and sum to one.

    Rows and columns then make sums of 52-bit integers, which float64 holds exactly: the truncation that follows gives
    the same grey level whatever order the products are summed in, hence on every device and for every split of a batch.
    """
    matrix = (_gaussian_matrix(size, sigma, replicate, 4) / _GRAIN).round_()
    matrix.diagonal().add_(1 / _GRAIN - matrix.sum(1))
    return LineMap.of(matrix * _GRAIN, device)


def zoom_geometry(size: int, factor: float) -> tuple[int, int]:
    """How many samples in the middle of a line a zoom keeps, and to how many it stretches them."""
    kept = math.ceil(size / factor)
    return kept, round(kept * factor)


def zoom(images: Tensor, rows: tuple[int, int], columns: tuple[int, int]) -> Tensor:
    """Stretch the middle of images and cut out the middle of the result, with aligned corners.

    Args:
        images: float64 ``[B, C, H, W]``.
        rows: The `zoom_geometry` of the height.
        columns: The `zoom_geometry` of the width.

    Returns:
        float64 ``[B, C, H, W]``.
    """
    height, width = images.shape[2:]
    middle = _middle(images, rows[0], columns[0])
    stretched = interpolate(middle, (rows[1], columns[1]), mode="bilinear", align_corners=True)
    return _middle(stretched, height, width)


def _middle(images: Tensor, height: int, width: int) -> Tensor:
    top, left = (images.shape[2] - height) // 2, (images.shape[3] - width) // 2
    return images[:, :, top : top + height, left : left + width]

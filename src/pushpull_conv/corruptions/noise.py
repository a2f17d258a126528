"""Gaussian, shot, impulse and speckle noise: every channel of every pixel on its own."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from pushpull_conv.corruptions.kernel import Draws, Kernel, to_uint8
from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.corruptions.spec import Parameters


def sample_normal(random: Random, images: Tensor, parameters: Parameters) -> Draws:
    """One standard normal per value: float64 ``[B, 3, H, W]``."""
    return (random.normal(0, *images.shape[1:]),)


def apply_gaussian_noise(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Add normal noise of one standard deviation."""
    (deviation,) = parameters
    (normal,) = draws
    return to_uint8((normal * (255 * deviation)).add_(images))


def apply_speckle_noise(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Add normal noise in proportion to the value."""
    (deviation,) = parameters
    (normal,) = draws
    return to_uint8((normal * deviation).add_(1).mul_(images))


@lru_cache(maxsize=16)
def _poisson_table(white: float, device: torch.device) -> tuple[Tensor, Tensor]:
    """Cumulative Poisson probabilities of all 256 grey levels, each over the counts that ever occur.

    Returns:
        first: int32 ``[256]``, the least count in the table of each level.
        table: float64 ``[256, width]``, the probability of at most ``first + k`` photons; width is a power of two.
    """
    rate = torch.arange(256, dtype=torch.float64) * (white / 255)
    reach = 8 * math.sqrt(white) + 16  # beyond it the probability is below the 2^-32 grain of the uniform numbers
    first = (rate - reach).floor().clamp(min=0)
    width = 2 ** math.ceil(math.log2(2 * reach))
    # Summed from the first count there is, so that no probability is left out of the cumulative sums.
    counts = torch.arange(int(first.max()) + width, dtype=torch.float64)
    log_probability = torch.xlogy(counts, rate[:, None]) - rate[:, None] - torch.lgamma(counts + 1)
    cumulative = log_probability.exp().cumsum(1)
    columns = first.to(torch.int64)[:, None] + torch.arange(width)
    return first.to(device, torch.int32), cumulative.gather(1, columns).to(device)


def sample_shot_noise(random: Random, images: Tensor, parameters: Parameters) -> Draws:
    """Photon counts of mean ``white * value / 255``, by inversion of their distribution: float64 ``[B, 3, H, W]``."""
    (white,) = parameters
    first, table = _poisson_table(white, images.device)
    width = table.shape[1]
    level = images.to(torch.int32).flatten()
    unit = random.uniform(0, *images.shape[1:]).flatten()
    start = level * width
    place = start - 1
    step = width // 2
    while step:  # a binary search, the same number of steps for every value
        beyond = table.view(-1).index_select(0, place + step) <= unit
        place.add_(beyond, alpha=step)
        step //= 2
    counts = place - start + 1 + first.index_select(0, level)
    return (counts.view(images.shape).to(torch.float64),)


def apply_shot_noise(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Replace each value by its photon count over the count that means white."""
    (white,) = parameters
    (counts,) = draws
    return to_uint8((counts / white).mul_(255))


def sample_impulse_noise(random: Random, images: Tensor, parameters: Parameters) -> Draws:
    """Two uniform numbers per value, which decide whether and with what it is replaced: float64 ``[B, 3, H, W]``."""
    unit = random.uniform(0, 2, *images.shape[1:])
    return unit[:, 0], unit[:, 1]


def apply_impulse_noise(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Replace a fraction of the values by black or white with equal chances."""
    (fraction,) = parameters
    chance, side = draws
    replaced, salt = chance < fraction, side < 0.5
    return images.masked_fill(replaced & salt, 255).masked_fill_(replaced & ~salt, 0)


KERNELS = {
    "gaussian_noise": Kernel(sample_normal, apply_gaussian_noise),
    "shot_noise": Kernel(sample_shot_noise, apply_shot_noise),
    "impulse_noise": Kernel(sample_impulse_noise, apply_impulse_noise),
    "speckle_noise": Kernel(sample_normal, apply_speckle_noise),
}

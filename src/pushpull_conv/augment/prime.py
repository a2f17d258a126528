"""PRIME: random filters, smooth warps and smooth colour maps, in chains that are mixed with the image.

Every transform is drawn from a distribution of maximum entropy, so that it is as general as its smoothness allows:

- spectral, a small random filter: ``delta + sigma N``, N standard normal, sigma uniform;
- spatial, a random warp: displacements ``sqrt(T) sum_ij N_ij / r sin(pi i x) sin(pi j y)``, r^2 = i^2 + j^2 <= cut^2;
- colour, a random map of each channel's levels: ``v + sqrt(T) sum_k N_k sin(pi k v)`` over a range of frequencies k.

Source: Modas, Rade, Ortiz-Jimenez, Moosavi-Dezfooli and Frossard, "PRIME: A Few Primitives Can Boost Robustness to
Common Corruptions", ECCV 2022, arXiv 2112.13547; the warp and its range of temperatures T from Petrini, Favero, Geiger
and Wyart, "Relative stability toward diffeomorphisms indicates performance in deep nets", NeurIPS 2021, arXiv
2105.02468. Written from the papers; the numbers are those of the authors' published configurations.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import torch
import torch.nn.functional as F
from torch import Tensor

from pushpull_conv.augment.spec import CIFAR_SIDE
from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.errors import InputError, require_seed

CHAINS, LONGEST_CHAIN = 3, 3
FILTER_SIZE, LARGEST_FILTER_SIGMA = 3, 4.0
LOWEST_WARP_CUT = 2
_PURPOSE = 2112_13547  # keeps these random numbers apart from those of the corruptions
_CHUNK = {"cpu": 2**17, "cuda": 2**22}  # pixels worked on at a time


@dataclass(frozen=True)
class PrimeSettings:
    """What the authors' configurations change with the data set.

    Attributes:
        warp_cut: Highest frequency of a warp, in half periods per image side.
        color_cut: Highest frequency of a colour map, in half periods over the range of levels.
        color_temperature: Largest variance of a coefficient of a colour map, for levels in [0, 1].
        color_band: How many neighbouring frequencies a colour map has at most, from a random one up; None: all
            frequencies from 1 to its cut.
    """

    warp_cut: int
    color_cut: int
    color_temperature: float
    color_band: int | None


CIFAR = PrimeSettings(warp_cut=100, color_cut=100, color_temperature=0.01, color_band=None)
"""The authors' settings for CIFAR-10 and CIFAR-100 (32 pixels)."""
IMAGENET = PrimeSettings(warp_cut=500, color_cut=500, color_temperature=0.05, color_band=20)
"""The authors' settings for ImageNet and ImageNet-100 (224 pixels)."""


def settings_for(size: int) -> PrimeSettings:
    """Return the settings for pictures of ``size`` x ``size`` pixels: `CIFAR` up to 32, `IMAGENET` above.

    Example:
        >>> settings_for(32) is CIFAR, settings_for(64) is IMAGENET
        (True, True)
    """
    return CIFAR if size <= CIFAR_SIDE else IMAGENET


def prime(images: Tensor, *, index: Tensor, epoch: int, seed: int, settings: PrimeSettings = CIFAR) -> Tensor:
    """Augment each image of a batch with its own random transforms.

    Each image goes through three chains of one to three transforms; every transform is a filter, a warp or a colour
    map with equal chance. The chains are averaged with weights from a flat Dirichlet distribution, and the average with
    the image itself by a uniform weight.

    An image comes out the same for the same (``seed``, ``epoch``, place in ``index``), whatever else is in the batch;
    torch's global generator is neither read nor moved.

    Args:
        images: uint8 ``[B, 3, S, S]`` on any device.
        index: int64 ``[B]``, the place of each image in its data set.
        epoch: 0 or more; each epoch draws new transforms.
        seed: 0 to 2^64 - 1.
        settings: `CIFAR` or `IMAGENET`, or others of the kind.

    Returns:
        uint8 ``[B, 3, S, S]`` on the device of ``images``.

    Raises:
        InputError: An argument has another type, shape or value than the ones above.

    Source:
        Modas et al., ECCV 2022, arXiv 2112.13547.

    Example:
        >>> images = torch.arange(3 * 32 * 32).remainder(251).to(torch.uint8).view(1, 3, 32, 32)
        >>> once, again, later = (prime(images, index=torch.tensor([5]), epoch=e, seed=1) for e in (0, 0, 1))
        >>> once.shape, once.dtype, torch.equal(once, again), torch.equal(once, later)
        (torch.Size([1, 3, 32, 32]), torch.uint8, True, False)
    """
    _check(images, index, epoch, seed)
    index = index.to(images.device)
    size = max(1, _CHUNK["cpu" if images.device.type == "cpu" else "cuda"] // max(1, images.shape[-1] ** 2))
    result = torch.empty_like(images)
    if len(images) == 0:
        return result
    with torch.autocast(images.device.type, enabled=False):  # a training in half precision augments as any other
        for part, places, output in zip(images.split(size), index.split(size), result.split(size), strict=True):
            output.copy_(_augment(part, places, epoch, seed, settings))
    return result


def _augment(images: Tensor, index: Tensor, epoch: int, seed: int, settings: PrimeSettings) -> Tensor:
    random, sources = draw_sources(index, epoch=epoch, seed=seed)
    levels = images.to(torch.float32).div_(255)
    chained = _chained(levels, draw_chains(random), sources, settings)
    own, weights = draw_weights(random)
    mixed = torch.einsum("bn,bnchw->bchw", weights.mul_(1 - own).to(torch.float32), chained)
    return mixed.addcmul_(levels, own.to(torch.float32)[..., None, None]).mul_(255).round_().to(torch.uint8)


def draw_sources(index: Tensor, *, epoch: int, seed: int) -> tuple[Random, list[Random]]:
    """Return the source of what belongs to an image, and for every step one for each chain of each image."""
    key = (_PURPOSE, seed, epoch)
    steps = [[Random.keyed(index, *key, step, chain).keys for chain in range(CHAINS)] for step in range(LONGEST_CHAIN)]
    return Random.keyed(index, *key), [Random(torch.stack(chains, dim=1).flatten()) for chains in steps]


def draw_weights(random: Random) -> tuple[Tensor, Tensor]:
    """Draw the weight of the image, uniform, and of the chains among themselves, from a flat Dirichlet distribution.

    Returns:
        float64 ``[B, 1]`` and ``[B, CHAINS]``, the latter of sum one.
    """
    exponential = torch.log1p(-random.uniform(1, CHAINS)).neg_()
    return random.uniform(0, 1), exponential / exponential.sum(1, keepdim=True)


def draw_chains(random: Random) -> Tensor:
    """Draw which transforms each chain is made of: one to three of them, each of the three kinds with equal chance.

    Returns:
        int64 ``[B, CHAINS, LONGEST_CHAIN]``: 0 a filter, 1 a warp, 2 a colour map, -1 nothing, after a chain's end.
    """
    lengths = random.integers(2, 1, LONGEST_CHAIN + 1, CHAINS, 1)
    kinds = random.integers(3, 0, 3, CHAINS, LONGEST_CHAIN)
    return kinds.where(lengths > torch.arange(LONGEST_CHAIN, device=kinds.device), -1)


def _chained(levels: Tensor, kinds: Tensor, sources: Sequence[Random], settings: PrimeSettings) -> Tensor:
    """Send each image through its chains, each step with the random numbers of its own source.

    Args:
        levels: float32 ``[B, 3, S, S]`` in [0, 1].
        kinds: From `draw_chains`.
        sources: For every step, the keys of all chains of all images, ``[B * CHAINS]``.
        settings: What the transforms are drawn with.

    Returns:
        float32 ``[B, CHAINS, 3, S, S]`` in [0, 1].
    """
    images = levels.repeat_interleave(CHAINS, dim=0)
    for kind, source in zip(kinds.flatten(0, 1).unbind(1), sources, strict=True):
        for number, transform in enumerate((_filtered, _warped, _recolored)):
            (rows,) = torch.nonzero(kind == number, as_tuple=True)
            if len(rows):
                images[rows] = transform(images[rows], Random(source.keys[rows]), settings)
    return images.unflatten(0, (-1, CHAINS))


def _filtered(images: Tensor, random: Random, settings: PrimeSettings) -> Tensor:
    return filter_images(images, draw_filters(random))


def _warped(images: Tensor, random: Random, settings: PrimeSettings) -> Tensor:
    return warp_images(images, draw_warps(random, images.shape[-1], settings))


def _recolored(images: Tensor, random: Random, settings: PrimeSettings) -> Tensor:
    return recolor_images(images, draw_colors(random, settings))


def draw_filters(random: Random) -> Tensor:
    """Draw a unit impulse plus normal noise for each image, sigma uniform up to `LARGEST_FILTER_SIGMA`.

    Returns:
        float32 ``[B, FILTER_SIZE, FILTER_SIZE]``.
    """
    filters = random.normal(1, FILTER_SIZE, FILTER_SIZE) * random.uniform(0, 1, 1).mul_(LARGEST_FILTER_SIGMA)
    filters[:, FILTER_SIZE // 2, FILTER_SIZE // 2] += 1
    return filters.to(torch.float32)


def filter_images(images: Tensor, filters: Tensor) -> Tensor:
    """Correlate all channels of each image with its filter, beyond a border of zeros, and clip to [0, 1].

    Args:
        images: float32 ``[B, 3, H, W]`` in [0, 1].
        filters: float32 ``[B, K, K]``, K odd.

    Returns:
        float32 ``[B, 3, H, W]`` in [0, 1].
    """
    weight = filters.repeat_interleave(images.shape[1], dim=0)[:, None]
    together = images.reshape(1, -1, *images.shape[2:])
    filtered = F.conv2d(together, weight, padding=filters.shape[-1] // 2, groups=len(weight))
    return filtered.view(images.shape).clamp_(0, 1)


def draw_colors(random: Random, settings: PrimeSettings) -> Tensor:
    """Draw the coefficients of a colour map for each channel of each image.

    Cut (uniform from 1 to the settings' cut) and temperature (uniform from 0) belong to the image, the normal numbers
    to the channel.

    Returns:
        float32 ``[B, 3, K]``, the coefficients of ``sin(pi k v)`` for k = 1 to K = ``settings.color_cut``.
    """
    highest = settings.color_cut
    band = settings.color_band or highest
    cut = random.integers(0, 1, highest + 1, 1)
    first = torch.ones_like(cut) if settings.color_band is None else random.integers(1, 1, cut + 1, 1)
    frequency = first + torch.arange(band, device=cut.device)
    deviation = random.uniform(2, 1).mul_(settings.color_temperature).sqrt_()
    numbers = random.normal(3, 3, band) * (deviation * (frequency <= cut))[:, None]
    coefficients = numbers.new_zeros(len(numbers), 3, highest + band)
    coefficients.scatter_(2, (frequency - 1)[:, None].expand_as(numbers), numbers)
    return coefficients[..., :highest].to(torch.float32)


def _nodes(frequencies: int) -> int:
    """How many intervals a colour map is tabulated on: whole 8-bit levels are nodes, so these come out exactly."""
    return 255 * 2 ** math.ceil(math.log2(8 * frequencies / 255)) if frequencies > 31 else 255


@lru_cache(maxsize=8)
def _color_modes(frequencies: int, device: torch.device) -> Tensor:
    """``sin(pi k v)`` at the nodes of the tables: float32 ``[K, nodes + 1]``."""
    levels = torch.linspace(0, 1, _nodes(frequencies) + 1, dtype=torch.float64)
    modes = torch.sin(math.pi * torch.arange(1, frequencies + 1, dtype=torch.float64)[:, None] * levels)
    return modes.to(device, torch.float32)


def recolor_images(images: Tensor, coefficients: Tensor) -> Tensor:
    """Add each channel's sine series to its levels, and clip to [0, 1].

    The series is tabulated by a matrix product and read by linear interpolation, whose error is at most
    (pi / 8)^2 / 8 = 2 % of the amplitude of the highest frequency; whole 8-bit levels are read without any.

    Args:
        images: float32 ``[B, 3, H, W]`` in [0, 1].
        coefficients: float32 ``[B, 3, K]``.

    Returns:
        float32 ``[B, 3, H, W]`` in [0, 1].
    """
    modes = _color_modes(coefficients.shape[-1], images.device)
    # One product for each image: rounding must not hang on the size of the batch.
    table = torch.bmm(coefficients, modes.expand(len(images), -1, -1))
    position = images.flatten(2) * (table.shape[-1] - 1)
    node = position.to(torch.int64).clamp_(max=table.shape[-1] - 2)
    series = table.gather(2, node).lerp_(table.gather(2, node + 1), position - node)
    return series.view(images.shape).add_(images).clamp_(0, 1)


def draw_warps(random: Random, side: int, settings: PrimeSettings) -> Tensor:
    """Draw a smooth field of displacements for each image.

    The cut is drawn from a range whose upper end is itself uniform; cut and temperature lie in their ranges as the
    arcsine distribution, Beta(1/2, 1/2), says.

    Returns:
        float32 ``[B, 2, side, side]``, how far along the columns (first) and the rows each pixel reads, in pixels.
    """
    highest = random.integers(0, LOWEST_WARP_CUT + 1, settings.warp_cut + 1, 1)
    place, heat = torch.sin(random.uniform(1, 2, 1) * (math.pi / 2)).square_().unbind(1)
    cut = (LOWEST_WARP_CUT + place * (highest + 1 - LOWEST_WARP_CUT)).floor_().clamp_(max=highest)
    low, high = temperature_range(side, cut)
    scale = (low + heat * (high - low)).sqrt_().mul_(side)
    return _fields(random, cut.flatten(), side, settings.warp_cut).mul_(scale.to(torch.float32)[..., None, None])


def temperature_range(side: int, cut: Tensor) -> tuple[Tensor, Tensor]:
    """The temperatures at which a warp moves pixels by about half a pixel, and at which it would begin to fold over.

    Source: Petrini et al., NeurIPS 2021, arXiv 2105.02468; a typical displacement is
    ``side sqrt(pi T log(cut)) / 2`` pixels. Where the second is the lower one, the range is the first alone.
    """
    low = 1 / (math.pi * side**2 * cut.log())
    return low, torch.maximum(low, 4 / (math.pi**3 * cut**2 * cut.log()))


@dataclass(frozen=True, eq=False)
class _Modes:
    """The sine modes that can be told apart on a line of pixels, and the energies of fields made of them.

    Pixels lie at ``a / (side - 1)``: on them frequency k is, up to its sign, the same as ``2 m (side - 1) +- k``. A sum
    over all frequencies is therefore distributed like one over the lowest ``side - 2``, each with the variance of all
    that fall together.

    Attributes:
        values: ``sin(pi k x)`` of the modes on the pixels, float32 ``[modes, side]``.
        aliases: The frequencies that fall together on each mode, lowest first, float32 ``[n, modes]``.
    """

    values: Tensor
    aliases: Tensor

    def deviations(self, cut: Tensor) -> Tensor:
        """Standard deviation of every mode's coefficient under each cut ``[B]``: float32 ``[B, modes, modes]``."""
        reach = (cut + 0.5).square_().to(torch.float32)[:, None, None]
        total = torch.zeros((), device=cut.device, dtype=torch.float32)  # in a float64 training, too
        for down in self.aliases:
            for across in self.aliases:
                energy = down[:, None].square() + across.square()
                total = total + torch.where(energy < reach, 1 / energy, 0)
        return total.sqrt_()


@lru_cache(maxsize=32)
def _modes(side: int, count: int, highest: int, device: torch.device) -> _Modes:
    pixels = torch.linspace(0, 1, side, dtype=torch.float64)
    lowest = torch.arange(1, count + 1, dtype=torch.float64)
    period = 2 * (side - 1)
    turns = range(highest // period + 2)
    aliases = [period * turn + sign * lowest for turn in turns for sign in (-1, 1)]
    within = [frequencies for frequencies in aliases if (frequencies > 0).all() and frequencies.min() <= highest]
    values = torch.sin(math.pi * lowest[:, None] * pixels)
    return _Modes(values.to(device, torch.float32), torch.stack(within).to(device, torch.float32))


def _bands(side: int) -> list[int]:
    """Numbers of modes to sum over, so that a field of low cut costs little: 16, 32, ..., and all."""
    highest = side - 2
    return [2**power for power in range(4, highest.bit_length()) if 2**power < highest] + [highest]


def _fields(random: Random, cut: Tensor, side: int, highest_cut: int) -> Tensor:
    """Two random fields of unit temperature for each image, in sides of it: float32 ``[B, 2, side, side]``."""
    fields = torch.empty(len(cut), 2, side, side, device=cut.device, dtype=torch.float32)
    bands = _bands(side)
    ends = torch.tensor(bands[:-1], device=cut.device, dtype=cut.dtype)
    band_of = torch.bucketize(cut, ends)
    for number, count in enumerate(bands):
        (rows,) = torch.nonzero(band_of == number, as_tuple=True)
        if len(rows):
            modes = _modes(side, count, highest_cut if count == bands[-1] else count, cut.device)
            numbers = Random(random.keys[rows]).normal(2, 2, count, count).to(torch.float32)
            coefficients = numbers.mul_(modes.deviations(cut[rows])[:, None]).flatten(0, 1)
            values = modes.values.expand(len(coefficients), -1, -1)
            fields[rows] = torch.bmm(torch.bmm(values.mT, coefficients), values).view(-1, 2, side, side)
    return fields


def warp_images(images: Tensor, displacements: Tensor) -> Tensor:
    """Read each image at displaced places, by bilinear interpolation; beyond the border its nearest pixel.

    Args:
        images: float32 ``[B, C, S, S]``.
        displacements: float32 ``[B, 2, S, S]`` in pixels, along the columns first.

    Returns:
        float32 ``[B, C, S, S]``.
    """
    side = images.shape[-1]
    pixels = torch.arange(side, device=images.device, dtype=torch.float32)
    columns, rows = displacements[:, 0] + pixels, displacements[:, 1] + pixels[:, None]
    places = torch.stack([columns, rows], dim=-1).mul_(2 / (side - 1)).sub_(1)
    return F.grid_sample(images, places, mode="bilinear", padding_mode="border", align_corners=True)


def _check(images: Tensor, index: Tensor, epoch: int, seed: int) -> None:
    if not isinstance(images, Tensor) or images.dtype != torch.uint8 or images.dim() != 4:
        given = f"{images.dtype} {list(images.shape)}" if isinstance(images, Tensor) else type(images).__name__
        raise InputError(f"images is {given}; give uint8 [B, 3, S, S]")
    if images.shape[1] != 3 or images.shape[2] != images.shape[3] or images.shape[3] < 8:
        raise InputError(f"images has shape {list(images.shape)}; give square [B, 3, S, S] of 8 pixels or more a side")
    if not isinstance(index, Tensor) or index.dtype != torch.int64 or index.shape != (len(images),):
        given = f"{index.dtype} {list(index.shape)}" if isinstance(index, Tensor) else type(index).__name__
        raise InputError(f"index is {given}; give int64 [{len(images)}], the place of each image in its data set")
    if type(epoch) is not int or epoch < 0:
        raise InputError(f"epoch is {epoch!r}; give an integer, 0 or more")
    require_seed(seed)

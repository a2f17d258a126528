"""Spatter: drops of water or mud on the lens."""

import torch
from torch import Tensor
from torch.nn.functional import pad

from pushpull_conv.corruptions import operators
from pushpull_conv.corruptions.kernel import Draws, Kernel, larger_part, to_uint8
from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.corruptions.spec import Parameters

_WATER = (175.0, 238.0, 238.0)
_MUD = (63.0, 42.0, 20.0)


def sample_spatter(random: Random, images: Tensor, parameters: Parameters) -> Draws:
    """A standard normal per pixel: float64 ``[B, H, W]``."""
    return (random.normal(0, *images.shape[2:]),)


def apply_spatter(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Splash the image where smoothed noise is high: with water at the lower severities, with mud at the higher."""
    mean, deviation, sigma, threshold, strength, mud = parameters
    (normal,) = draws
    liquid = _blur(normal, sigma).mul_(deviation).add_(mean)
    splash, colour = (_mud, _MUD) if mud else (_water, _WATER)
    cover = splash(liquid, threshold, strength)[:, None]
    source = images.to(torch.float64)
    paint = cover * torch.tensor(colour, dtype=torch.float64, device=images.device)[:, None, None]
    return to_uint8(source.mul_(1 - cover).add_(paint) if mud else source.add_(paint))


def _blur(planes: Tensor, sigma: float) -> Tensor:
    vertical, horizontal = (
        operators.gaussian(size, sigma, operators.replicate, 4, planes.device) for size in planes.shape[1:]
    )
    return operators.separable(planes, vertical, horizontal)


def _mud(liquid: Tensor, threshold: float, sigma: float) -> Tensor:
    """How much mud covers each pixel: float64 ``[B, H, W]``, 0 or from 0.8 to 1."""
    cover = _blur((liquid > threshold).to(torch.float64), sigma)
    return cover.mul_(cover >= 0.8)


def _water(liquid: Tensor, threshold: float, strength: float) -> Tensor:
    """How much light the water adds to each pixel: float64 ``[B, H, W]``."""
    # The reference casts to 8 bits without clipping, and the brightest drops wrap around.
    depth = (liquid * (liquid >= threshold)).mul_(255).to(torch.int32).bitwise_and_(255)
    relief = _emboss(_equalise(_mean3(_distance(_edges(depth))).to(torch.uint8)))
    cover = depth * relief
    return cover.div_(cover.amax((1, 2), keepdim=True).clamp(min=1)).mul_(strength)


def _neighbours(planes: Tensor, mode: str) -> list[list[Tensor]]:
    """The 3 x 3 shifted views of planes ``[B, H, W]``, the border filled by ``mode``."""
    height, width = planes.shape[1:]
    wide = pad(planes[:, None], (1, 1, 1, 1), mode=mode)[:, 0]
    return [[wide[:, row : row + height, column : column + width] for column in range(3)] for row in range(3)]


def _edges(levels: Tensor) -> Tensor:
    """Canny's edges with thresholds 50 and 150, as OpenCV finds them in 8-bit planes: bool ``[B, H, W]``."""
    (a, b, c), (d, _, e), (f, g, h) = _neighbours(levels.to(torch.float64), "replicate")
    across = (c + 2 * e + h) - (a + 2 * d + f)
    down = (f + 2 * g + h) - (a + 2 * b + c)
    strength = across.abs() + down.abs()
    flat, steep = across.abs() * 13573, across.abs() * (13573 + 65536)  # the tangents of 22.5 and 67.5 degrees
    rise = down.abs() * 32768
    horizontal, vertical = rise < flat, rise > steep
    (a, b, c), (d, _, e), (f, g, h) = _neighbours(strength, "constant")
    falling = torch.signbit(across) == torch.signbit(down)
    peak = torch.where(
        horizontal,
        (strength > d) & (strength >= e),
        torch.where(
            vertical,
            (strength > b) & (strength >= g),
            torch.where(falling, (strength > a) & (strength > h), (strength > c) & (strength > f)),
        ),
    )
    candidates = peak & (strength > 50)
    return _grow(candidates & (strength > 150), candidates)


def _grow(seeds: Tensor, allowed: Tensor) -> Tensor:
    """Spread seeds over the 8-connected allowed pixels: bool ``[B, H, W]``."""
    while True:
        wide = pad(seeds, (1, 1, 1, 1))
        rows = wide[:, :-2] | wide[:, 1:-1] | wide[:, 2:]
        grown = (rows[..., :-2] | rows[..., 1:-1] | rows[..., 2:]) & allowed
        if torch.equal(grown, seeds):
            return grown
        seeds = grown


# Steps of the chamfer metric: rows, columns and cost in units of 2^-16.
_MOVES = (
    ((0, 1), 65536),
    ((1, 0), 65536),
    ((1, 1), 91750),
    ((1, -1), 91750),
    ((1, 2), 143976),
    ((2, 1), 143976),
    ((1, -2), 143976),
    ((2, -1), 143976),
)
_REACH = 20
_FAR = 2.0**24


def _distance(edges: Tensor) -> Tensor:
    """Distance of every pixel to the nearest edge by the 5 x 5 chamfer metric, at most 20: float64 ``[B, H, W]``.

    A shortest way takes at most two kinds of moves and may take them in any order, so it is enough to allow one kind
    after the other, each many times: 1, 2, 4, ... moves at once. Costs are whole and exact in float32.
    """
    distance = torch.full(edges.shape, _FAR, dtype=torch.float32, device=edges.device).masked_fill_(edges, 0)
    for (down, right), cost in _MOVES:
        for sign in (1, -1):
            moves, left = 1, _REACH * 65536 // cost
            while left:
                _relax_(distance, sign * moves * down, sign * moves * right, moves * cost)
                left -= moves
                moves = min(2 * moves, left)
    return distance.clamp_(max=_REACH * 65536).to(torch.float64).mul_(2.0**-16)


def _relax_(distance: Tensor, down: int, right: int, cost: int) -> None:
    """Shorten distances by a move that many rows down and columns to the right."""
    height, width = distance.shape[1:]
    source = distance[:, max(-down, 0) : height - max(down, 0), max(-right, 0) : width - max(right, 0)]
    target = distance[:, max(down, 0) : height + min(down, 0), max(right, 0) : width + min(right, 0)]
    torch.minimum(target, source + cost, out=target)


def _mean3(planes: Tensor) -> Tensor:
    """Mean over 3 x 3 pixels, mirrored at the border: float64 ``[B, H, W]``."""
    above, here, below = _neighbours(planes.to(torch.float64), "reflect")
    return sum((*above, *here, *below), torch.zeros_like(here[1])).mul_(1 / 9)


def _equalise(levels: Tensor) -> Tensor:
    """Histogram equalisation of 8-bit planes: float64 ``[B, H, W]``."""
    count, height, width = levels.shape
    flat = levels.flatten(1).to(torch.int64)
    histogram = torch.zeros(count, 256, dtype=torch.int64, device=levels.device).scatter_add_(
        1, flat, torch.ones_like(flat)
    )
    total = height * width
    least = flat.amin(1, keepdim=True)
    at_least = histogram.gather(1, least)
    span = total - at_least
    # Float32 like OpenCV's table, whose rounding it shares.
    scale = 255 / span.clamp(min=1).to(torch.float32)
    table = ((histogram.cumsum(1) - at_least).clamp_(min=0) * scale).round_()
    equal = table.gather(1, flat)
    return torch.where(span == 0, flat.to(torch.float32), equal).view(levels.shape).to(torch.float64)


def _emboss(levels: Tensor) -> Tensor:
    """Light the relief from one corner and smooth it, in whole grey levels: float64 ``[B, H, W]``."""
    (a, b, _), (d, e, f), (_, h, i) = _neighbours(levels, "reflect")
    lit = (-2 * a - b - d + e + f + h + 2 * i).clamp_(0, 255)
    return _mean3(lit).round_()


KERNELS = {"spatter": Kernel(sample_spatter, apply_spatter, larger_part)}

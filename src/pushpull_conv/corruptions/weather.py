"""Snow, frost, fog, brightness and saturate."""

import math

import torch
from torch import Tensor

from pushpull_conv.corruptions import operators
from pushpull_conv.corruptions.blur import trail
from pushpull_conv.corruptions.frost import FrostTextures
from pushpull_conv.corruptions.kernel import Draws, Kernel, larger_part, to_uint8
from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.corruptions.spec import Parameters


def sample_snow(random: Random, images: Tensor, parameters: Parameters) -> Draws:
    """A standard normal per pixel, float64 ``[B, H, W]``, and the falling direction in degrees, float64 ``[B]``."""
    return random.normal(0, *images.shape[2:]), random.uniform(1).mul_(90).sub_(135)


def _flakes(normal: Tensor, mean: float, deviation: float, zoom: float, threshold: float) -> Tensor:
    """The brightest spots of enlarged noise, in whole grey levels: float64 ``[B, H, W]``."""
    layer = mean + deviation * normal
    if zoom != 1:
        rows, columns = (operators.zoom_geometry(size, zoom) for size in normal.shape[1:])
        layer = operators.zoom(layer[:, None], rows, columns)[:, 0]
    return layer.mul(layer >= threshold).clamp_(0, 1).mul_(255).floor_()


def apply_snow(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Whiten the image and let streaks of snow fall, the same ones from both sides."""
    mean, deviation, zoom, threshold, radius, sigma, mix = parameters
    normal, degrees = draws
    flakes = _flakes(normal, mean, deviation, zoom, threshold)
    streaks = trail(flakes[:, None].to(torch.float32), radius, sigma, degrees).to(torch.float64)
    source = images.to(torch.float64)
    red, green, blue = source.split(1, dim=1)
    grey = (0.299 * red).add_(green, alpha=0.587).add_(blue, alpha=0.114)
    white = torch.maximum(source, grey.mul_(1.5).add_(127.5))
    return to_uint8((mix * source).add_(white, alpha=1 - mix).add_(streaks).add_(streaks.flip(2, 3)))


def sample_frost(random: Random, images: Tensor, parameters: tuple[float, float, float, FrostTextures]) -> Draws:
    """A crop of a frost photograph for every image: uint8 ``[B, 3, H, W]``."""
    _, _, scale, textures = parameters
    chance = random.uniform(0, 3)
    return (textures.crops(chance, images.shape[2], images.shape[3], scale),)


def apply_frost(images: Tensor, parameters: tuple[float, ...], draws: Draws) -> Tensor:
    """Lay the frost over the image."""
    image_weight, frost_weight, *_ = parameters
    (crops,) = draws
    return to_uint8((image_weight * images.to(torch.float64)).add_(crops.to(torch.float64).mul_(frost_weight)))


def _plasma_side(height: int, width: int) -> int:
    return 2 ** math.ceil(math.log2(max(height, width)))


def sample_fog(random: Random, images: Tensor, parameters: Parameters) -> Draws:
    """Uniform numbers for the octaves of a plasma, coarse to fine: float64 ``[B, 3, s, s]`` for s = 1, 2, 4, ..."""
    octaves = int(math.log2(_plasma_side(*images.shape[2:])))
    return tuple(random.uniform(octave, 3, 2**octave, 2**octave) for octave in range(octaves))


def _plasma(draws: Draws, decay: float) -> Tensor:
    """A cloud by the diamond-square method on a torus, scaled to [0, 1]: float64 ``[B, side, side]``."""
    corners = torch.zeros_like(draws[0][:, 0])
    amplitude = 100.0
    for unit in draws:
        centre_noise, row_noise, column_noise = (unit * (2 * amplitude**2) - amplitude**2).unbind(1)
        below, right = corners.roll(-1, 1), corners.roll(-1, 2)
        centres = (corners + below + right + below.roll(-1, 2)) / 4 + centre_noise
        on_rows = (centres + centres.roll(1, 1) + corners + right) / 4 + row_noise
        on_columns = (centres + centres.roll(1, 2) + corners + below) / 4 + column_noise
        even_rows = torch.stack([corners, on_rows], dim=-1).flatten(-2)
        odd_rows = torch.stack([on_columns, centres], dim=-1).flatten(-2)
        corners = torch.stack([even_rows, odd_rows], dim=-2).flatten(1, 2)
        amplitude /= decay
    low, high = corners.amin((1, 2), True), corners.amax((1, 2), True)
    return (corners - low) / (high - low)


def apply_fog(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Add a cloud and dim the sum so that the brightest value of the image stays."""
    strength, decay = parameters
    height, width = images.shape[2:]
    cloud = _plasma(draws, decay)[:, None, :height, :width]
    brightest = images.amax((1, 2, 3), keepdim=True).to(torch.float64).div_(255)
    foggy = images.to(torch.float64).div_(255).add_(strength * cloud)
    return to_uint8(foggy.mul_(brightest).div_(brightest + strength).mul_(255))


def to_hsv(images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue, saturation and value of the hexcone model, each float64 ``[B, H, W]`` in [0, 1]; the hue of grey is 0."""
    red, green, blue = images.to(torch.float64).div_(255).unbind(1)
    value = torch.maximum(torch.maximum(red, green), blue)
    span = value - torch.minimum(torch.minimum(red, green), blue)
    divisor = span + (span == 0)
    hue = (green - blue) / divisor
    hue = torch.where(green == value, 2 + (blue - red) / divisor, hue)
    hue = torch.where(blue == value, 4 + (red - green) / divisor, hue)
    hue = (hue / 6).remainder_(1).mul_(span != 0)
    return hue, span / (value + (value == 0)), value


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """Grey levels of the hexcone model: float64 ``[B, 3, H, W]`` in [0, 255]."""
    sixths = hue * 6
    sector = sixths.floor()
    fraction = sixths - sector
    least = value * (1 - saturation)
    falling = value * (1 - fraction * saturation)
    rising = value * (1 - (1 - fraction) * saturation)
    shades = torch.stack([value, falling, least, least, rising, value], dim=1)
    sector = sector.to(torch.int64)
    order = torch.stack([sector, sector + 4, sector + 2], dim=1).remainder_(6)
    return shades.gather(1, order) * 255


def apply_brightness(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Raise the value, keep hue and saturation."""
    (amount,) = parameters
    hue, saturation, value = to_hsv(images)
    return to_uint8(from_hsv(hue, saturation, (value + amount).clamp_(0, 1)))


def apply_saturate(images: Tensor, parameters: Parameters, draws: Draws) -> Tensor:
    """Change the saturation, keep hue and value; where an amount is added, grey turns reddish."""
    factor, amount = parameters
    hue, saturation, value = to_hsv(images)
    return to_uint8(from_hsv(hue, (saturation * factor + amount).clamp_(0, 1), value))


KERNELS = {
    "snow": Kernel(sample_snow, apply_snow, larger_part),
    "frost": Kernel(sample_frost, apply_frost, larger_part),
    "fog": Kernel(sample_fog, apply_fog, larger_part),
    "brightness": Kernel(None, apply_brightness),
    "saturate": Kernel(None, apply_saturate),
}

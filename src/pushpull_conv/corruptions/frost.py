"""The photographs that `frost` lays over an image, or what stands in for them.

The photographs of the published benchmark come without a licence, so this package has none of them. Results record the
identity of the textures that made them.
"""

import hashlib
import importlib.util
import itertools
import math
import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn.functional import interpolate

from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.errors import InputError
from pushpull_conv.pictures import DAMAGE, SUFFIXES, require_8_bits, to_rgb

_REFERENCE_FILES = 5  # the published generator has a sixth and never draws it


@dataclass(frozen=True, eq=False)
class FrostTextures:
    """Pictures of frost.

    Attributes:
        photographs: uint8 ``[3, h, w]`` each; every crop comes from one of them with equal chances.
        identity: What results record: which pictures these are.
    """

    photographs: tuple[Tensor, ...]
    identity: str

    def crops(self, chance: Tensor, height: int, width: int, scale: float) -> Tensor:
        """Cut one random crop per image.

        A photograph is first resized by ``scale``, or by more if it would not be larger than the crop.

        Args:
            chance: Uniform numbers in [0, 1) that choose the photograph, the row and the column, ``[B, 3]``.
            height: Rows of a crop.
            width: Columns of a crop.
            scale: Factor on the sides of the photographs.

        Returns:
            uint8 ``[B, 3, height, width]`` on the device of ``chance``.
        """
        scales = tuple(_fitting(photograph, height, width, scale) for photograph in self.photographs)
        return _atlas(self, scales, chance.device).crops(chance, height, width)


@dataclass(frozen=True, eq=False)
class _Atlas:
    """Pictures of different sizes in one buffer: pixels uint8 ``[3, total]``, the others int64 ``[number]``."""

    pixels: Tensor
    starts: Tensor
    heights: Tensor
    widths: Tensor

    @classmethod
    def of(cls, pictures: Sequence[Tensor], device: torch.device) -> "_Atlas":
        sizes = torch.tensor([0] + [picture[0].numel() for picture in pictures])
        return cls(
            torch.cat([picture.flatten(1) for picture in pictures], dim=1).to(device),
            sizes.cumsum(0)[:-1].to(device),
            torch.tensor([picture.shape[1] for picture in pictures], device=device),
            torch.tensor([picture.shape[2] for picture in pictures], device=device),
        )

    def crops(self, chance: Tensor, height: int, width: int) -> Tensor:
        number = (chance[:, 0] * len(self.starts)).long()
        stride = self.widths[number]
        # The last position in either direction is never used, as in the published generator.
        top = (chance[:, 1] * (self.heights[number] - height)).long()
        left = (chance[:, 2] * (stride - width)).long()
        rows = torch.arange(height, device=chance.device)[:, None]
        columns = torch.arange(width, device=chance.device)
        corner = self.starts[number] + top * stride + left
        places = corner[:, None, None] + rows * stride[:, None, None] + columns
        crops = self.pixels.index_select(1, places.flatten()).view(3, len(chance), height, width)
        return crops.transpose(0, 1)


@lru_cache(maxsize=8)
def _atlas(textures: FrostTextures, scales: tuple[float, ...], device: torch.device) -> _Atlas:
    photographs = [resize(*pair) for pair in zip(textures.photographs, scales, strict=True)]
    return _Atlas.of(photographs, device)


def _fitting(photograph: Tensor, height: int, width: int, scale: float) -> float:
    return max(scale, (height + 1) / photograph.shape[1], (width + 1) / photograph.shape[2])


def resize(photograph: Tensor, scale: float) -> Tensor:
    """Resize by linear interpolation in OpenCV's 8-bit fixed point, without smoothing: uint8 ``[3, h, w]``."""
    height, width = photograph.shape[1:]
    top, bottom, down, up = _taps(height, scale)
    left, right, across, back = _taps(width, scale)
    pixels = photograph.to(torch.int64)
    lines = pixels[:, :, left] * back + pixels[:, :, right] * across
    upper, lower = lines[:, top] >> 4, lines[:, bottom] >> 4
    return ((upper * up[:, None] >> 16) + (lower * down[:, None] >> 16) + 2 >> 2).to(torch.uint8)


def _taps(size: int, scale: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """The two samples that each new sample lies between, and the weights of the second and the first in 1/2048."""
    position = (torch.arange(round(size * scale), dtype=torch.float64) + 0.5) / scale - 0.5
    position = position.clamp(0, size - 1).to(torch.float32)
    low = position.floor()
    fraction = position - low
    low = low.to(torch.int64)
    high = (low + 1).clamp(max=size - 1)
    return low, high, (fraction * 2048).round().to(torch.int64), ((1 - fraction) * 2048).round().to(torch.int64)


def load_frost(source: str | os.PathLike[str] | FrostTextures = "procedural") -> FrostTextures:
    """Load the textures that the corruption ``frost`` lays over images.

    Args:
        source: ``"procedural"`` for the built-in drawings, ``"reference"`` for the photographs of the benchmark (which
            the extra ``reference`` brings), or a folder of pictures. Textures are returned as they are.

    Returns:
        The textures; ``identity`` tells them apart.

    Raises:
        InputError: ``source`` is no text or path; the extra is not installed; the folder is missing, has no pictures,
            one that cannot be read, or one of more than 8 bits a channel.

    Example:
        >>> load_frost().identity
        'procedural-1'
    """
    if isinstance(source, FrostTextures):
        return source
    if not isinstance(source, str | os.PathLike):
        raise InputError(f"frost is {source!r}; give 'procedural', 'reference' or a folder of pictures")
    if source == "procedural":
        return _procedural()
    if source == "reference":
        return _textures(_reference_pictures(), "reference")
    return _textures(_folder_pictures(Path(source).expanduser()), "folder")


def _reference_pictures() -> list[Path]:
    package = importlib.util.find_spec("imagecorruptions")  # found, not imported: importing it loads OpenCV and numba
    if package is None or not package.submodule_search_locations:
        raise InputError(
            "frost='reference' needs the photographs of the benchmark; run: pip install 'pushpull-conv[reference]'"
        )
    folder = Path(package.submodule_search_locations[0]) / "frost"
    return [path for number in range(1, _REFERENCE_FILES + 1) for path in folder.glob(f"frost{number}.*")]


def _folder_pictures(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise InputError(
            f"frost folder '{folder}' does not exist; name a folder of pictures, 'procedural' or 'reference'"
        )
    pictures = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not pictures:
        raise InputError(f"frost folder '{folder}' has no pictures; put {', '.join(sorted(SUFFIXES))} files there")
    return pictures


def _textures(pictures: Sequence[Path], kind: str) -> FrostTextures:
    photographs = tuple(_read(path) for path in pictures)
    digest = hashlib.sha256()
    for photograph in photographs:
        digest.update(repr(tuple(photograph.shape)).encode() + photograph.numpy().tobytes())
    return FrostTextures(photographs, f"{kind}:{digest.hexdigest()[:16]}")


def _read(path: Path) -> Tensor:
    try:
        with Image.open(path) as picture:
            picture.load()
            require_8_bits(picture, f"frost picture '{path}'")
            pixels = np.array(to_rgb(picture))
    except InputError:
        raise
    except DAMAGE as error:
        raise InputError(f"frost picture '{path}' cannot be read ({error}); replace or remove it") from error
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


# Mean colour and spread of each drawing, close to the photographs of the benchmark, two of which are the same.
_PALETTE = (
    ((78.0, 149.0, 166.0), 22.0),
    ((201.0, 205.0, 214.0), 22.0),
    ((199.0, 206.0, 215.0), 22.0),
    ((138.0, 153.0, 165.0), 31.0),
    ((112.0, 123.0, 135.0), 44.0),
)
_DRAWING = (320, 480)


@lru_cache(maxsize=1)
def _procedural() -> FrostTextures:
    """Draw feathers of ice over clouded glass. A change of any pixel needs a new number in the identity."""
    return FrostTextures(tuple(_draw(number, *style) for number, style in enumerate(_PALETTE)), "procedural-1")


def _draw(number: int, colour: tuple[float, float, float], spread: float) -> Tensor:
    random = Random.keyed(torch.tensor([number]), 0, 0, 0)
    parts = (
        1.0 * _clouds(random, 0),
        1.0 * _feathers(random, 1, pitch=72, barbs=7),
        0.7 * _feathers(random, 2, pitch=28, barbs=4),
        0.4 * random.normal(3, *_DRAWING)[0],
    )
    light = sum(parts, torch.zeros(_DRAWING, dtype=torch.float64))
    light = (light - light.mean()) / light.std()
    grey_levels = torch.tensor(colour, dtype=torch.float64)[:, None, None] + spread * light
    return grey_levels.clamp(0, 255).round().to(torch.uint8)


def _clouds(random: Random, stream: int) -> Tensor:
    """Smooth light and shade of unit spread, coarse octaves strongest: float64 ``[h, w]``."""
    height, width = _DRAWING
    octaves = []
    for octave in range(2, 6):
        cells = random.normal(16 * stream + octave, 1, 2**octave + 1, 2**octave + 1)
        octaves.append(interpolate(cells, (height, width), mode="bicubic", align_corners=True)[0, 0] / 2**octave)
    total = sum(octaves, torch.zeros(_DRAWING, dtype=torch.float64))
    return total / total.std()


def _feathers(random: Random, stream: int, *, pitch: int, barbs: float) -> Tensor:
    """Ice crystals of unit spread: a bright spine each, with barbs on both sides: float64 ``[h, w]``.

    One crystal grows somewhere in every cell of ``pitch`` pixels. A pixel belongs to the nearest crystal, where along
    the spine counts as nearer than across it.
    """
    height, width = _DRAWING
    row = torch.arange(height, dtype=torch.float64)[:, None]
    column = torch.arange(width, dtype=torch.float64)
    rows, columns = height // pitch + 3, width // pitch + 3
    jitter_row, jitter_column, turn, strength = random.uniform(16 * stream, 4, rows * columns)[0]
    crystals = torch.stack(
        [
            (torch.arange(rows).repeat_interleave(columns) - 1 + jitter_row) * pitch,
            (torch.arange(columns).repeat(rows) - 1 + jitter_column) * pitch,
            torch.cos(2 * math.pi * turn),
            torch.sin(2 * math.pi * turn),
        ]
    )
    home = (row // pitch * columns + column // pitch).long()

    def place(crystal: Tensor) -> tuple[Tensor, Tensor]:
        """How far along and how far beside the spine of a crystal each pixel lies."""
        top, left, cosine, sine = crystals.index_select(1, crystal.flatten()).view(4, height, width)
        down, right = row - top, column - left
        return right * cosine + down * sine, (down * cosine - right * sine).abs()

    crystal, nearest = home, torch.full(_DRAWING, math.inf, dtype=torch.float64)
    for step_down, step_right in itertools.product(range(3), repeat=2):
        candidate = home + step_down * columns + step_right
        along, across = place(candidate)
        distance = along.abs() + 2 * across
        crystal = torch.where(distance < nearest, candidate, crystal)
        nearest = torch.minimum(distance, nearest)
    along, across = place(crystal)
    comb = ((along + 1.5 * across) / barbs).remainder(1).mul(2).sub(1).abs()
    light = (0.4 + strength[crystal]) * torch.maximum(2 * torch.exp(-across), comb * torch.exp(-2 * across / pitch))
    return light / light.std()

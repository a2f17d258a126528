"""Figures made of pictures: the push and pull kernels of a stem, and the gallery of the corruptions."""

import math
from collections.abc import Collection, Mapping, Sequence
from itertools import islice
from typing import NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from pushpull_conv.corruptions.spec import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, spoken
from pushpull_conv.report.sample import Sample
from pushpull_conv.report.style import SERIES, Figure, canvas, in_style
from pushpull_conv.report.wording import signed

_TILE, _GAP = 42, 8  # pixels of a kernel's picture (a multiple of 3 and 7) and between two
_STEMS_SHOWN = 9  # more would be a figure longer than a page
_TINY = torch.finfo(torch.float32).tiny


@in_style
def gallery_figure(
    sample: Sample, names: Sequence[str] = CORRUPTIONS, framed: Collection[tuple[str, int]] = ()
) -> Figure:
    """Draw a photo under every corruption (rows) and severity (columns), beside the clean photo.

    Args:
        sample: The photo and its place, seed and profile.
        names: The corruptions to show.
        framed: Pairs of corruption and severity that get a frame: those in which the variants differ most.

    Returns:
        One figure with the rows in two halves, side by side.
    """
    height, width = sample.photo.shape[1:]
    gap = max(1, width // 16)
    rows = math.ceil((1 + len(names)) / 2)
    shelves = [["clean", *names][:rows], ["clean", *names][rows:]]
    figure = canvas(7.2, 0.45 + 0.53 * rows * height / width)
    for axes, shown in zip(figure.subplots(1, 2), shelves, strict=True):
        picture = blank(rows * (height + gap), len(SEVERITIES) * (width + gap))
        for row, name in enumerate(shown):
            for column, image in enumerate(sample.row(name)):
                paste(picture, image.permute(1, 2, 0).numpy(), row * (height + gap), column * (width + gap))
                if (name, column + 1) in framed:
                    corner = (column * (width + gap) - 0.5, row * (height + gap) - 0.5)  # of the first pixel
                    axes.add_patch(Rectangle(corner, width, height, fill=False, edgecolor=SERIES[1], linewidth=2))
        axes.imshow(picture, interpolation="none")
        axes.set_yticks([(height + gap) * row + height / 2 for row in range(len(shown))], list(map(spoken, shown)))
        axes.set_xticks([(width + gap) * i + width / 2 for i in range(len(SEVERITIES))], list(map(str, SEVERITIES)))
        axes.set_xlabel("Severity")
        bare(axes)
    extra = [spoken(name) for name in names if name in EXTRA_CORRUPTIONS]
    caption = (
        f"One photo of {width} x {height} pixels clean and under {len(names)} corruptions at severities "
        f"{SEVERITIES[0]} to {SEVERITIES[-1]} (image {sample.index}, seed {sample.seed}, severities of the "
        f"{sample.profile} profile)."
        + (f" Not in the benchmark: {', '.join(extra)}." if extra else "")
        + (" Framed: where the variants differ most." if framed else "")
    )
    dots = width / 0.45  # a picture is a little wider than that many inches: none of its pixels is lost
    return Figure("gallery", "The corruptions", figure, caption, dpi=max(200, dots))


@in_style
def kernels_figure(kernels: Mapping[str, tuple[Tensor, Tensor, Tensor]]) -> Figure:
    """Draw the push and pull kernels of each stem that has both, filters in order of falling alpha.

    Args:
        kernels: Per variant the stem's push kernels ``[O, C, kh, kw]``, its pull kernels ``[O, C, kh', kw']``, and its
            alpha ``[O]`` (or one value for all).

    Returns:
        One figure with a block for each of the first few variants. Kernels over three channels are shown in colour,
        others by their mean over the channels; each pair is scaled to its range.
    """
    stems = {
        label: _Stem(push.detach().float().cpu(), pull.detach().float().cpu(), alpha.detach().float().cpu())
        for label, (push, pull, alpha) in islice(kernels.items(), _STEMS_SHOWN)
    }
    heights = [stem.rows * stem.pitch / stem.width for stem in stems.values()]
    figure = canvas(7.2, sum(0.4 + 6.7 * height for height in heights))
    panels = figure.subplots(len(stems), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (label, stem) in zip(panels, stems.items(), strict=True):
        _draw_kernels(axes, stem)
        alpha = stem.strengths
        spread = f"{alpha.mean():.2f} ± {alpha.std(correction=0):.2f}, learned"
        axes.set_title(f"{label}: α = {spread if stem.learned else f'{alpha[0]:.2f}, fixed'}")
    left_out = len(kernels) - len(stems)
    caption = (
        "Kernels of the first layer, each push kernel above its pull kernel. Where α, the strength of the inhibition, "
        "is learned, it stands below each pair and the filters are in order of falling α. "
        "Each pair is scaled to its own range: compare shape and polarity between filters, not contrast."
        + (f" {left_out} further variants with such kernels are not shown." if left_out else "")
    )
    return Figure("kernels", "Push and pull kernels", figure, caption)


class _Stem(NamedTuple):
    """Push and pull kernels and alpha of a first layer, and their places in a picture, in pixels."""

    push: Tensor
    pull: Tensor
    alpha: Tensor

    @property
    def strengths(self) -> Tensor:
        return self.alpha.expand(len(self.push))

    @property
    def learned(self) -> bool:
        return bool(self.alpha.min() < self.alpha.max())

    @property
    def columns(self) -> int:
        return 16 if len(self.push) <= 32 else 32

    @property
    def rows(self) -> int:
        return math.ceil(len(self.push) / self.columns)

    @property
    def width(self) -> int:
        return self.columns * (_TILE + _GAP) - _GAP

    @property
    def pitch(self) -> int:
        """From one row of pairs to the next, with room for the numbers below them."""
        return 2 * _TILE + _GAP + (_TILE * self.columns // 24 if self.learned else _GAP)

    def tiles(self) -> list[np.ndarray]:
        """Return all push and all pull kernels as pictures, uint8 ``[O, _TILE, _TILE, 3]``, each pair on one scale."""
        both = torch.cat((self.push.flatten(1), self.pull.flatten(1)), 1)
        low, high = (values.view(-1, 1, 1, 1) for values in both.aminmax(dim=1))
        return [_tiles((kernel - low) / (high - low).clamp_min(_TINY)) for kernel in (self.push, self.pull)]


def _draw_kernels(axes: Axes, stem: _Stem) -> None:
    push, pull = stem.tiles()
    picture = blank(stem.rows * stem.pitch, stem.width)
    names: dict[float, str] = {}
    for place, i in enumerate(stem.strengths.argsort(descending=True, stable=True).tolist()):
        row, column = divmod(place, stem.columns)
        top, left = row * stem.pitch, column * (_TILE + _GAP)
        paste(picture, push[i], top, left)
        paste(picture, pull[i], top + _TILE + _GAP // 2, left)
        names |= {top + _TILE / 2: "push", top + 1.5 * _TILE + _GAP // 2: "pull"}
        if stem.learned:
            below = (left + _TILE / 2, top + 2 * _TILE + _GAP)
            shown = signed(float(stem.strengths[i])).removeprefix("+")
            axes.text(*below, shown, ha="center", va="top", fontsize=6.5 if stem.columns == 16 else 5)
    axes.imshow(picture, interpolation="none")
    axes.set_yticks(list(names), list(names.values()))
    axes.set_xticks([])
    bare(axes)


def _tiles(shade: Tensor) -> np.ndarray:
    """Return kernels with values in [0, 1] as pictures."""
    pixels = F.interpolate(in_colour(shade), size=(_TILE, _TILE), mode="nearest-exact").mul(255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).numpy()


def in_colour(shade: Tensor) -> Tensor:
    """Return kernels ``[..., C, H, W]`` with three channels: their own, or three times the mean of other than three.

    Example:
        >>> in_colour(torch.tensor([0.0, 0.5]).view(2, 1, 1)).flatten()
        tensor([0.2500, 0.2500, 0.2500])
    """
    return shade if shade.shape[-3] == 3 else shade.mean(-3, keepdim=True).repeat_interleave(3, -3)


def blank(height: int, width: int) -> np.ndarray:
    """Return a transparent picture, uint8 RGBA."""
    return np.zeros((height, width, 4), np.uint8)


def paste(picture: np.ndarray, tile: np.ndarray, top: int, left: int) -> None:
    """Put a tile, uint8 RGB, on a picture from `blank`, its upper left corner at a place in pixels."""
    height, width = tile.shape[:2]
    picture[top : top + height, left : left + width, :3] = tile
    picture[top : top + height, left : left + width, 3] = 255


def bare(axes: Axes) -> None:
    """Leave of the axes their labels only."""
    axes.grid(visible=False)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)

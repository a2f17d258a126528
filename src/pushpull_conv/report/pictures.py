"""Figures made of pictures: the push and pull kernels of a stem, and the gallery of the corruptions."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle
from torch import Tensor

from pushpull_conv.corruptions.spec import CORRUPTIONS, SEVERITIES
from pushpull_conv.functional import pull_kernel
from pushpull_conv.report.sample import Sample
from pushpull_conv.report.style import SERIES, Figure, canvas, in_style
from pushpull_conv.report.wording import spoken

_TILE, _GAP = 42, 8  # pixels of a kernel's picture (a multiple of 3 and 7) and between two


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
    caption = (
        f"One photo clean and under {len(names)} corruptions at severities {SEVERITIES[0]} to {SEVERITIES[-1]} "
        f"(image {sample.index}, seed {sample.seed}, severities of the {sample.profile} profile)."
        + (" Framed: where the variants differ most." if framed else "")
    )
    dots = width / 0.45  # a picture is a little wider than that many inches: none of its pixels is lost
    return Figure("gallery", "The corruptions", figure, caption, dpi=max(200, dots))


@in_style
def kernels_figure(kernels: Mapping[str, tuple[Tensor, Tensor]]) -> Figure:
    """Draw the push and pull kernels of each push-pull stem, filters in order of falling alpha.

    Args:
        kernels: Per variant the stem's weight ``[O, C, kh, kw]`` and its alpha ``[O]`` (or one value for all).

    Returns:
        One figure with a block for each variant. Kernels over three channels are shown in colour, others by their
        mean over the channels; each pair is scaled to the range of its push kernel, which is also that of its pull.
    """
    stems = {
        label: (weight.detach().float().cpu(), alpha.detach().float().cpu().expand(len(weight)))
        for label, (weight, alpha) in kernels.items()
    }
    heights = [_rows(weight) * _pitch(weight, alpha) / _width(weight) for weight, alpha in stems.values()]
    figure = canvas(7.2, sum(0.4 + 6.7 * height for height in heights))
    panels = figure.subplots(len(stems), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, (label, (weight, alpha)) in zip(panels, stems.items(), strict=True):
        _draw_kernels(axes, weight, alpha)
        spread = f"{alpha.mean():.2f} ± {alpha.std(correction=0):.2f}, learned"
        axes.set_title(f"{label}: α = {spread if _learned(alpha) else f'{alpha[0]:.2f}, fixed'}")
    caption = (
        "Kernels of the first layer, each push kernel above its pull kernel. Where α, the strength of the inhibition, "
        "is learned, it stands below each pair and the filters are in order of falling α. "
        "Each pair is scaled to its own range: compare shape and polarity between filters, not contrast."
    )
    return Figure("kernels", "Push and pull kernels", figure, caption)


def _draw_kernels(axes: Axes, weight: Tensor, alpha: Tensor) -> None:
    order = alpha.argsort(descending=True, stable=True)
    push, pull = (_tiles(kernel, weight)[order] for kernel in (weight, pull_kernel(weight)))
    picture = blank(_rows(weight) * _pitch(weight, alpha), _width(weight))
    names: dict[float, str] = {}
    for i, strength in enumerate(alpha[order].tolist()):
        row, column = divmod(i, _columns(weight))
        top, left = row * _pitch(weight, alpha), column * (_TILE + _GAP)
        paste(picture, push[i], top, left)
        paste(picture, pull[i], top + _TILE + _GAP // 2, left)
        names |= {top + _TILE / 2: "push", top + 1.5 * _TILE + _GAP // 2: "pull"}
        if _learned(alpha):
            below = (left + _TILE / 2, top + 2 * _TILE + _GAP)
            shown = f"{strength:.2f}".replace("-", "−")
            axes.text(*below, shown, ha="center", va="top", fontsize=6.5 if _columns(weight) == 16 else 5)
    axes.imshow(picture, interpolation="none")
    axes.set_yticks(list(names), list(names.values()))
    axes.set_xticks([])
    bare(axes)


def _learned(alpha: Tensor) -> bool:
    return bool(alpha.min() < alpha.max())


def _columns(weight: Tensor) -> int:
    return 16 if len(weight) <= 32 else 32


def _rows(weight: Tensor) -> int:
    return math.ceil(len(weight) / _columns(weight))


def _width(weight: Tensor) -> int:
    return _columns(weight) * (_TILE + _GAP) - _GAP


def _pitch(weight: Tensor, alpha: Tensor) -> int:
    """Return the pixels from one row of pairs to the next, with room for the numbers below them."""
    room = _TILE * _columns(weight) // 24 if _learned(alpha) else _GAP
    return 2 * _TILE + _GAP + room


def _tiles(kernel: Tensor, weight: Tensor) -> np.ndarray:
    """Return each filter as a picture, uint8 ``[O, _TILE, _TILE, 3]``, scaled to the range of its push weights."""
    low, high = weight.amin((1, 2, 3), keepdim=True), weight.amax((1, 2, 3), keepdim=True)
    shade = (kernel - low) / (high - low).clamp_min(torch.finfo(weight.dtype).tiny)
    if shade.shape[1] != 3:
        shade = shade.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    pixels = F.interpolate(shade, size=(_TILE, _TILE), mode="nearest-exact").mul(255).round().to(torch.uint8)
    return pixels.permute(0, 2, 3, 1).numpy()


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

"""The figure that explains a push-pull stem: its kernels, their spectra, what they answer to a photo, and alpha."""

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import SubFigure
from matplotlib.ticker import MaxNLocator
from torch import Tensor

from pushpull_conv.functional import pull_kernel
from pushpull_conv.layers import PushPullConv2d
from pushpull_conv.report.pictures import in_colour
from pushpull_conv.report.style import INK, MUTED, SERIES, Figure, canvas, in_style

_SPECTRUM_SIDE = 64  # the kernels are zero-padded to this many pixels before the transform
_DYNAMIC_RANGE = 40  # decibels of the spectra that are drawn
_COLUMNS = ("push kernel", "pull kernel", "push spectrum", "pull spectrum", "push", "pull", "difference")


@in_style
def explanation_figure(unit: PushPullConv2d, photo: Tensor, x: Tensor, filters: int = 4) -> Figure:
    """Draw a stem's filters, one a row, those that the photo inhibits most; above, the photo and all filters together.

    Args:
        unit: The stem.
        photo: What is shown, uint8 ``[3, H, W]``.
        x: The same as the unit gets it, normalised, ``[1, 3, H, W]``.
        filters: How many rows.

    Returns:
        One figure. Of all filters it shows the learned alphas, or where alpha is fixed the mean responses. Its
        ``values`` give alpha of each bar of the histogram.
    """
    push, pull = rectified_responses(unit, x)
    pull = unit.alpha.detach().view(-1, 1, 1) * pull
    shown = pull.std((1, 2), correction=0).argsort(descending=True, stable=True)[:filters].tolist()
    heights = [2.0, 1.22 * len(shown) + 0.5]
    figure = canvas(8.2, sum(heights))
    parts: Any = figure.subfigures(2, 1, height_ratios=heights)
    head, body = parts
    learned = unit.trainable_alpha
    photo_axes, *rest = head.subplots(1, 2 if learned else 4, width_ratios=[1, 2] if learned else None)
    photo_axes.imshow(photo.permute(1, 2, 0).numpy(), interpolation="none")
    photo_axes.set_title("Photo")
    _framed(photo_axes)
    values = _draw_alphas(rest[0], unit) if learned else _draw_means(rest, unit, push, pull)
    _draw_filters(body, unit, push, pull, shown)
    return Figure("explanation", "What the push-pull unit does", figure, _caption(shown, learned), values)


@torch.no_grad()
def rectified_responses(unit: PushPullConv2d, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the rectified push and the averaged, rectified pull responses to one image, ``[O, H', W']`` each.

    The unit's response is ``push - alpha * pull``, and its bias.
    """
    zeros, ones = torch.zeros_like(unit.alpha), torch.ones_like(unit.alpha)
    bias = {} if unit.bias is None else {"bias": torch.zeros_like(unit.bias)}
    push, difference = (torch.func.functional_call(unit, {"alpha": alpha, **bias}, (x,)) for alpha in (zeros, ones))
    return push[0], (push - difference)[0]


def spectrum(kernel: Tensor) -> np.ndarray:
    """Return the power spectrum of one kernel ``[C, kh, kw]``, summed over its channels, the constant in the middle.

    Example:
        >>> float(spectrum(torch.ones(1, 3, 3))[_SPECTRUM_SIDE // 2, _SPECTRUM_SIDE // 2])
        81.0
    """
    transform = np.fft.fft2(kernel.double().numpy(), s=(_SPECTRUM_SIDE, _SPECTRUM_SIDE))
    return np.fft.fftshift((np.abs(transform) ** 2).sum(0))


def _draw_filters(figure: SubFigure, unit: PushPullConv2d, push: Tensor, pull: Tensor, shown: list[int]) -> None:
    weight = unit.push_kernel().detach()
    pulling = pull_kernel(weight)
    panels = figure.subplots(len(shown), len(_COLUMNS), squeeze=False)
    for axes, name in zip(panels[0], _COLUMNS, strict=True):
        axes.set_title(name, fontweight="normal", loc="center")
    for row, i in zip(panels, shown, strict=True):
        row[0].set_ylabel(f"filter {i}\nα = {unit.alpha[i].item():.2f}")
        low, high = float(weight[i].min()), float(weight[i].max())
        for axes, kernel in zip(row[:2], (weight[i], pulling[i]), strict=True):
            axes.imshow(_colours(kernel, low, high), interpolation="none")
            _framed(axes)
        _draw_spectra(row[2:4], spectrum(weight[i]), spectrum(pulling[i]), label=i == shown[-1])
        _draw_responses(row[4:], push[i].numpy(), pull[i].numpy())


def _draw_spectra(panels: np.ndarray, push: np.ndarray, pull: np.ndarray, *, label: bool) -> None:
    """Draw both spectra in decibels below the stronger one's peak."""
    peak = max(push.max(), pull.max(), np.finfo(float).tiny)
    for axes, power in zip(panels, (push, pull), strict=True):
        decibels = 10 * np.log10(np.maximum(power / peak, 10 ** (-_DYNAMIC_RANGE / 10)))
        axes.imshow(decibels, cmap="magma", vmin=-_DYNAMIC_RANGE, vmax=0, extent=(-0.5, 0.5, -0.5, 0.5), origin="lower")
        axes.grid(visible=False)
        axes.set_xticks([-0.5, 0, 0.5], ["−½", "0", "½"] if label else [])
        axes.set_yticks([])
    if label:
        panels[0].set_xlabel("cycles/pixel")
        panels[1].set_xlabel("cycles/pixel")


def _draw_responses(panels: Sequence[Axes], push: np.ndarray, pull: np.ndarray) -> None:
    """Draw the three maps on the scale of the strongest response; blue is below zero."""
    responses = push, pull, push - pull
    reach = max(float(np.abs(responses).max()), float(np.finfo(np.float32).tiny))
    for axes, response in zip(panels, responses, strict=True):
        axes.imshow(response, cmap="RdBu_r", vmin=-reach, vmax=reach, interpolation="none")
        _framed(axes)


def _draw_alphas(axes: Axes, unit: PushPullConv2d) -> dict[str, list[str]]:
    alpha = unit.alpha.detach().double().numpy()
    low, high = min(0.0, float(alpha.min())), max(1.0, float(alpha.max()))
    width = (high - low) / 20
    counts, edges = np.histogram(alpha, bins=21, range=(low - width / 2, high + width / 2))  # 0 and 1 inside a bar
    axes.bar(edges[:-1], counts, np.diff(edges), align="edge", color=SERIES[0], edgecolor="white", linewidth=0.5)
    axes.axvline(alpha.mean(), color=INK, linewidth=1, linestyle="--")
    axes.set_title(f"α of {len(alpha)} filters: {alpha.mean():.2f} ± {alpha.std():.2f}, learned, from U(0, 1)")
    axes.set(xlabel="α, strength of the inhibition", ylabel="Filters")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    return {"alphas": [f"{low:.2f} to {high:.2f}" for low, high in pairwise(edges)]}


def _draw_means(panels: Sequence[Axes], unit: PushPullConv2d, push: Tensor, pull: Tensor) -> dict[str, list[str]]:
    """Draw the three maps as means over all filters."""
    _draw_responses(panels, push.mean(0).numpy(), pull.mean(0).numpy())
    for axes, name in zip(panels, _COLUMNS[4:], strict=True):
        axes.set_title(f"{name}, mean", fontweight="normal")
    low, high = (value.item() for value in unit.alpha.aminmax())
    told = f"{low:.2f} in all" if low == high else f"{low:.2f} to {high:.2f} in the"
    panels[0].set_xlabel(f"α = {told} {len(push)} filters, fixed", loc="left")
    return {}


def _colours(kernel: Tensor, low: float, high: float) -> np.ndarray:
    """Return a kernel on the scale of its push weights as a picture."""
    shade = (kernel - low) / max(high - low, torch.finfo(kernel.dtype).tiny)
    return in_colour(shade).permute(1, 2, 0).clamp(0, 1).numpy()


def _caption(shown: list[int], learned: bool) -> str:
    above = (
        "how α is distributed over all filters (dashed: its mean)" if learned else "the mean response of all filters"
    )
    return (
        f"Top: the photo, and {above}. Below: the {len(shown)} filters whose pull response to the photo varies most. "
        "Kernels are scaled to the range of the push kernel. Spectra are powers of the zero-padded Fourier transform "
        f"over {_DYNAMIC_RANGE} decibels, on the scale of the stronger of the pair, zero frequency in the middle. "
        "Responses: push is rectified; pull is averaged, rectified and multiplied by α; the difference is what the "
        "unit passes on before its bias. Red is above zero, blue below, on one scale for each filter."
    )


def _framed(axes: Axes) -> None:
    axes.grid(visible=False)
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set(visible=True, color=MUTED, linewidth=0.4)

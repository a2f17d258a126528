"""The push-pull convolution: the one place where its mathematics lives.

Bennabhaktula, Alegre, Strisciuglio, Azzopardi, "PushPull-Net: Inhibition-driven ResNet robust to image corruptions",
ICPR 2024, arXiv 2408.04077.
"""

import functools
from contextlib import AbstractContextManager, nullcontext
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from pushpull_conv.errors import InputError, is_finite, require_name
from pushpull_conv.kernels.operator import constant_when_compiled, inhibit

IntOrPair = int | tuple[int, ...]
PaddingMode = Literal["zeros", "reflect", "replicate", "circular"]


def push_pull_conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    alpha: float | Tensor = 1.0,
    *,
    avg_kernel_size: int = 3,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    padding_mode: PaddingMode = "zeros",
) -> Tensor:
    r"""Convolve, and subtract the averaged response of the complementary kernel: the push-pull unit.

    With :math:`m_o` the sum of the smallest and the largest weight of filter :math:`o`,

    .. math::
        push &= x * W \qquad pull = x * (m - W) \qquad pull' = \mathrm{avg\_pool}(pull) \\
        y_o &= \mathrm{relu}(push_o) - \alpha_o \, \mathrm{relu}(pull'_o) + b_o

    The second convolution is never run: pull is :math:`m_o S - push` with :math:`S` the sum of the input under the
    kernel, one channel per group whatever the number of filters. Below float32, :math:`S`, the pooling and the
    subtraction are computed in float32, so they neither overflow nor cancel where the convolution itself does not; an
    inhibition beyond what float16 holds saturates. ``docs/unit.md`` says which kernel runs where.

    Args:
        x: Input ``[N, C, H, W]`` or ``[C, H, W]``, floating point.
        weight: Push kernels ``[O, C / groups, kh, kw]``.
        bias: ``[O]``, added last, after the inhibition.
        alpha: Strength of the inhibition, a number or one per filter ``[O]``. At 0 the unit is ``relu(conv) + bias``.
        avg_kernel_size: Side of the window over which the pull response is averaged, odd; 0 or 1 for none. Positions
            outside the response map are left out of the mean.
        stride: As in `torch.nn.functional.conv2d`.
        padding: As in `torch.nn.functional.conv2d`: a number, a pair, ``"same"`` or ``"valid"``.
        dilation: As in `torch.nn.functional.conv2d`.
        groups: As in `torch.nn.functional.conv2d`.
        padding_mode: ``"zeros"``, ``"reflect"``, ``"replicate"`` or ``"circular"``, as in `torch.nn.Conv2d`.

    Returns:
        ``[N, O, H', W']`` (or ``[O, H', W']``) of the shape, dtype and memory format that the convolution alone gives.

    Raises:
        InputError: ``avg_kernel_size`` is even or negative, ``alpha`` is a number that is not finite or has another
            shape than ``[O]``, ``padding`` or ``padding_mode`` is unknown, or ``padding`` is "same" with a stride.

    Example:
        >>> x, weight = torch.rand(2, 3, 32, 32), torch.randn(8, 3, 3, 3)
        >>> push_pull_conv2d(x, weight, alpha=0.5, padding=1, stride=2).shape
        torch.Size([2, 8, 16, 16])
    """
    check_avg_kernel_size(avg_kernel_size)
    strength = _per_filter(alpha, weight)
    batch, padding = _pad(x.unsqueeze(0) if x.dim() == 3 else x, weight, stride, padding, dilation, padding_mode)
    push = F.conv2d(batch, weight, None, stride, padding, dilation, groups)
    dtype = torch.promote_types(push.dtype, torch.float32)
    with autocast_off(x):
        total = window_sum(batch, weight, stride, padding, dilation, groups, dtype)
        total = total if groups == 1 else total.repeat_interleave(weight.shape[0] // groups, dim=1)
        offset = _offset(weight).flatten().to(dtype)
        shift = None if bias is None else bias.to(dtype)
        response = inhibit(push, total, offset, strength.to(dtype), shift, avg_kernel_size)
    return response.squeeze(0) if x.dim() == 3 else response


def push_pull_conv2d_reference(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    alpha: float | Tensor = 1.0,
    *,
    avg_kernel_size: int = 3,
    stride: IntOrPair = 1,
    padding: IntOrPair | str = 0,
    dilation: IntOrPair = 1,
    groups: int = 1,
    padding_mode: PaddingMode = "zeros",
) -> Tensor:
    """Compute `push_pull_conv2d` as it is defined, with two convolutions and a pooling of every filter.

    Slow, and the yardstick of the fast form: same arguments, same result up to rounding.

    Example:
        >>> x, weight = torch.rand(2, 3, 8, 8), torch.randn(4, 3, 3, 3)
        >>> slow = push_pull_conv2d_reference(x, weight, alpha=0.5)
        >>> torch.allclose(slow, push_pull_conv2d(x, weight, alpha=0.5), atol=1e-4)
        True
    """
    check_avg_kernel_size(avg_kernel_size)
    strength = _per_filter(alpha, weight)
    x, padding = _pad(x, weight, stride, padding, dilation, padding_mode)
    push = F.conv2d(x, weight, None, stride, padding, dilation, groups)
    pull = F.conv2d(x, pull_kernel(weight), None, stride, padding, dilation, groups)
    if avg_kernel_size > 1:
        pull = F.avg_pool2d(pull, avg_kernel_size, 1, avg_kernel_size // 2, count_include_pad=False)
    response = push.relu() - strength.to(push.dtype).view(-1, 1, 1) * pull.relu()
    return response if bias is None else response + bias.to(push.dtype).unsqueeze(-1).unsqueeze(-1)


def pull_kernel(weight: Tensor) -> Tensor:
    """Return the complementary kernels: each filter's contrast pattern with the opposite polarity.

    The range of values of each filter stays the same: its smallest weight becomes its largest and the reverse.

    Args:
        weight: Push kernels ``[O, C / groups, kh, kw]``.

    Returns:
        Pull kernels of the same shape and dtype.

    Example:
        >>> pull_kernel(torch.tensor([[[[0.0, 1.0, 5.0]]]]))
        tensor([[[[5., 4., 0.]]]])
    """
    return _offset(weight) - weight


def check_avg_kernel_size(avg_kernel_size: int) -> None:
    """Raise `InputError` unless ``avg_kernel_size`` is 0 or an odd positive number."""
    if isinstance(avg_kernel_size, bool) or not isinstance(avg_kernel_size, int):
        raise InputError(
            f"avg_kernel_size is {avg_kernel_size!r}; allowed: 0 or an odd whole number, as an int; use 3 or 5"
        )
    if avg_kernel_size < 0 or (avg_kernel_size > 0 and avg_kernel_size % 2 == 0):
        use = "0 for no averaging" if avg_kernel_size < 0 else f"{avg_kernel_size - 1} or {avg_kernel_size + 1}"
        raise InputError(f"avg_kernel_size is {avg_kernel_size}; allowed: 0 or an odd positive number; use {use}")


def check_alpha(alpha: float) -> None:
    """Raise `InputError` unless ``alpha`` is a finite number."""
    if not is_finite(alpha):
        raise InputError(f"alpha is {alpha!r}; allowed: any finite number; 1.0 is the paper's choice")


def _per_filter(alpha: float | Tensor, weight: Tensor) -> Tensor:
    """Return ``alpha`` as a tensor ``[O]``."""
    filters = weight.shape[0]
    if not isinstance(alpha, Tensor):
        check_alpha(alpha)
        return weight.new_full((filters,), alpha, dtype=torch.promote_types(weight.dtype, torch.float32))
    try:
        return alpha.expand(filters)
    except RuntimeError as error:
        shape = list(alpha.shape)
        raise InputError(f"alpha has shape {shape}; allowed: a number or [{filters}], one per filter") from error


def _offset(weight: Tensor) -> Tensor:
    return weight.amin((1, 2, 3), keepdim=True) + weight.amax((1, 2, 3), keepdim=True)


def _pad(
    x: Tensor,
    weight: Tensor,
    stride: IntOrPair,
    padding: IntOrPair | str,
    dilation: IntOrPair,
    padding_mode: PaddingMode,
) -> tuple[Tensor, IntOrPair | str]:
    """Pad ``x`` if the convolution cannot do it itself; return it with the padding that is left to the convolution."""
    if isinstance(padding, str):
        require_name("padding", padding, ("same", "valid"))
        if padding == "same" and _pair(stride) != (1, 1):
            raise InputError(f"padding is 'same' and stride {stride}; allowed: stride 1 with it, or padding as numbers")
    if padding_mode == "zeros":
        return x, padding
    require_name("padding_mode", padding_mode, get_args(PaddingMode))
    return F.pad(x, borders_of(weight, padding, dilation), padding_mode), 0


def borders_of(weight: Tensor, padding: IntOrPair | str, dilation: IntOrPair) -> list[int]:
    """Return the padding of the left, right, upper and lower border."""
    if padding == "same":
        height, width = (d * (side - 1) for d, side in zip(_pair(dilation), weight.shape[2:], strict=True))
        return [width // 2, width - width // 2, height // 2, height - height // 2]
    height, width = _pair(0 if isinstance(padding, str) else padding)
    return [width, width, height, height]


def _pair(value: IntOrPair) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else (*value, *value)[:2]  # one number of two, as torch takes it


def window_sum(
    x: Tensor,
    weight: Tensor,
    stride: IntOrPair,
    padding: IntOrPair | str,
    dilation: IntOrPair,
    groups: int,
    dtype: torch.dtype,
) -> Tensor:
    """Sum each group of channels of ``x`` under the kernel at every output position: ``[N, groups, H', W']``.

    Additions of slices, not a convolution, which on a GPU would round its input to ten bits unless told otherwise.
    """
    height, width = weight.shape[2:]
    total = F.pad(x.unflatten(1, (groups, -1)).sum(2, dtype=dtype), borders_of(weight, padding, dilation))
    (down, right), (row_gap, column_gap) = _pair(stride), _pair(dilation)
    total = functools.reduce(torch.add, (total[:, :, tap] for tap in _taps(height, down, row_gap)))
    return functools.reduce(torch.add, (total[:, :, :, tap] for tap in _taps(width, right, column_gap)))


def _taps(side: int, step: int, gap: int) -> list[slice]:
    """Return, for each weight along one side of a kernel, the positions that it meets."""
    weights = range(side)  # before and after each weight there are so many others
    pairs = zip(weights, reversed(weights), strict=True)
    return [slice(before * gap, -after * gap or None, step) for before, after in pairs]


def autocast_off(x: Tensor) -> AbstractContextManager[object]:
    """Return a context in which autocast leaves what is computed on the device of ``x`` in its own precision."""
    kind = x.device.type
    return torch.autocast(kind, enabled=False) if _has_autocast(kind) else nullcontext()


@constant_when_compiled
def _has_autocast(kind: str) -> bool:
    return torch.amp.is_autocast_available(kind)

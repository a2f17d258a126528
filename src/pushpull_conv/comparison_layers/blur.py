"""Layers that blur with a fixed filter before they subsample, so that less is aliased."""

from math import comb
from numbers import Integral
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushpull_conv.comparison_layers.replacement import ReplacementConv2d, register_filter
from pushpull_conv.errors import InputError
from pushpull_conv.functional import borders_of

torch.fx.wrap("blur")  # one node of a symbolic trace, as a convolution is

BLUR_KERNEL_SIZES = (2, 3, 4, 5, 6, 7)


class BlurPool2d(nn.Module):
    r"""Blur each channel with a fixed binomial filter and keep every ``stride``-th pixel.

    .. math::
        y_{c,i,j} = \sum_{u,v} b_u b_v \, x_{c,\, s i + u,\, s j + v} \qquad b = \binom{k-1}{u} / 2^{k-1}

    with ``x`` reflected at its borders (the border pixel is not repeated), ``u`` and ``v`` counted from the filter's
    middle. Source: Zhang, "Making Convolutional Networks Shift-Invariant Again", ICML 2019, arXiv 1904.11486; its
    Rect-2, Tri-3 and Bin-5 are the sizes 2, 3 and 5.

    The output has ``ceil(H / stride)`` rows, as that of a strided convolution with padding (k - 1) / 2. The filter is
    a buffer, no parameter; a state dict without it loads, too.

    Args:
        kernel_size: Side of the filter, 2 to 7.
        stride: Distance of the pixels that are kept; 1 blurs only.

    Raises:
        InputError: ``kernel_size`` or ``stride`` is out of range, or the input is too small to be reflected.

    Example:
        >>> BlurPool2d()(torch.ones(1, 1, 4, 4))
        tensor([[[[1., 1.],
                  [1., 1.]]]])
    """

    filter: Tensor

    def __init__(self, kernel_size: int = 3, stride: int = 2) -> None:
        super().__init__()
        check_blur(kernel_size, stride)
        self.kernel_size, self.stride = kernel_size, stride
        register_filter(self, "filter", kernel_size, torch.empty(0))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Fill the filter; for a module that was made on the meta device."""
        fill_binomial(self.filter)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` or ``[C, H, W]`` to the same with ``ceil(H / stride)`` rows and so many columns."""
        return blur(x, self.filter, self.stride)

    def extra_repr(self) -> str:
        """Describe filter and stride."""
        return f"kernel_size={self.kernel_size}, stride={self.stride}"


class _BinomialConv2d(ReplacementConv2d):
    """A convolution with a fixed binomial filter of ``blur_kernel_size`` beside its weights."""

    filter: Tensor
    blur_kernel_size: int

    def _create_tensors(self, like: Tensor) -> None:
        register_filter(self, "filter", self.blur_kernel_size, like)

    def _reset_tensors(self) -> None:
        fill_binomial(self.filter)


class BlurPoolConv2d(_BinomialConv2d):
    """A convolution of the blurred and subsampled input: ``conv(BlurPool2d(x))``.

    What follows an activation that was subsampled before: Zhang (2019, arXiv 1904.11486) makes of ``conv(stride 2) ->
    relu -> conv`` the order ``conv(stride 1) -> relu -> blur -> subsample -> conv``, and this layer is the last
    three. Weights are those of the plain convolution, whose state dict loads.

    Args:
        *args: As in `torch.nn.Conv2d`.
        blur_kernel_size: Side of the binomial filter, 2 to 7.
        blur_stride: Distance of the pixels of the input that are kept.
        **kwargs: As in `torch.nn.Conv2d`.

    Raises:
        InputError: ``blur_kernel_size`` or ``blur_stride`` is out of range, or the input is too small to be reflected.

    Example:
        >>> BlurPoolConv2d(16, 32, 3, padding=1)(torch.rand(1, 16, 32, 32)).shape
        torch.Size([1, 32, 16, 16])
    """

    def __init__(self, *args: Any, blur_kernel_size: int = 3, blur_stride: int = 2, **kwargs: Any) -> None:
        check_blur(blur_kernel_size, blur_stride)
        self.blur_kernel_size, self.blur_stride = blur_kernel_size, blur_stride
        super().__init__(*args, **kwargs)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to the convolution of its blurred and subsampled pixels."""
        return super().forward(blur(input, self.filter, self.blur_stride))

    def extra_repr(self) -> str:
        """Describe the convolution and the blur before it."""
        return f"{super().extra_repr()}, blur_kernel_size={self.blur_kernel_size}, blur_stride={self.blur_stride}"


class BlurredConv2d(_BinomialConv2d):
    r"""A convolution whose response is blurred with a fixed binomial filter, and subsampled only then.

    .. math:: y = \mathrm{subsample}_s(b * (x * W)) + \mathrm{bias}

    The convolution runs at stride 1; ``stride`` is that of the blur, and at 1 the layer blurs only. Source:
    Vasconcelos, Larochelle, Dumoulin, Le Roux, Goroshin, "An Effective Anti-Aliasing Approach for Residual Networks",
    2020, arXiv 2011.10675, and "Impact of Aliasing on Generalization in Deep Convolutional Networks", ICCV 2021,
    arXiv 2108.03489: non-trainable blur where a network subsamples. Weights and output shape are those of the
    convolution, whose state dict loads.

    Args:
        *args: As in `torch.nn.Conv2d`; the stride must be the same along both axes.
        blur_kernel_size: Side of the binomial filter, 2 to 7. At the borders the response is reflected.
        **kwargs: As in `torch.nn.Conv2d`.

    Raises:
        InputError: ``blur_kernel_size`` or ``stride`` is out of range, or the response is too small to be reflected.

    Example:
        >>> BlurredConv2d(3, 64, 7, stride=2, padding=3)(torch.rand(1, 3, 64, 64)).shape
        torch.Size([1, 64, 32, 32])
    """

    def __init__(self, *args: Any, blur_kernel_size: int = 3, **kwargs: Any) -> None:
        check_blur(blur_kernel_size)
        self.blur_kernel_size = blur_kernel_size
        super().__init__(*args, **kwargs)
        require_square_stride(self.stride)

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to the blurred response, of the shape that the plain convolution gives."""
        stride = self.stride[0]
        if stride > 1 and self.kernel_size == (1, 1) and not any(borders_of(self.weight, self.padding, self.dilation)):
            # Both orders give the same where each pixel is convolved by itself; fewer are left after the blur.
            return F.conv2d(blur(input, self.filter, stride), self.weight, self.bias, groups=self.groups)
        response = F.conv2d(self._padded(input), self.weight, self.bias, 1, 0, self.dilation, self.groups)
        return blur(response, self.filter, stride)

    def extra_repr(self) -> str:
        """Describe the convolution and the blur after it."""
        return f"{super().extra_repr()}, blur_kernel_size={self.blur_kernel_size}"


def check_blur(kernel_size: int, stride: int = 1) -> None:
    """Raise `InputError` unless the filter's side and the stride are in range."""
    if not isinstance(kernel_size, Integral) or kernel_size not in BLUR_KERNEL_SIZES:
        raise InputError(f"blur kernel_size is {kernel_size!r}; allowed: 2 to 7; 3 and 5 are usual")
    if not isinstance(stride, Integral) or stride not in range(1, 17):
        raise InputError(f"blur stride is {stride!r}; allowed: 1 to 16; 2 is usual")


def require_square_stride(stride: tuple[int, ...]) -> None:
    """Raise `InputError` unless a layer subsamples alike along both axes, as the blur does."""
    if stride[0] != stride[1]:
        raise InputError(f"stride is {stride}; allowed: the same along both axes, such as 1 or 2")


def fill_binomial(filter: Tensor) -> None:
    """Set the outer product of the binomial coefficients with themselves, of sum 1."""
    side = filter.shape[-1]
    row = [comb(side - 1, place) / 2 ** (side - 1) for place in range(side)]
    filter.copy_(torch.tensor([[a * b for b in row] for a in row], dtype=torch.float64, device="cpu"))


def blur(x: Tensor, filter: Tensor, stride: int) -> Tensor:
    """Filter each channel with reflected borders and keep every ``stride``-th pixel."""
    side, channels = filter.shape[-1], int(x.shape[-3])  # PyTorch's older ONNX exporter wants a number
    before, after = (side - 1) // 2, side // 2
    if min(x.shape[-2:]) <= after:
        raise InputError(
            f"the map to blur is {x.shape[-2]} x {x.shape[-1]} pixels; a blur of {side} needs {after + 1} or more; "
            "use larger images or a smaller blur"
        )
    padded = F.pad(x, [before, after, before, after], "reflect")
    filters = filter.to(x.dtype).expand(channels, 1, side, side)
    if x.is_cpu and x.dtype == torch.bfloat16:  # oneDNN's gradient of a strided one is several times as slow
        return F.conv2d(padded, filters, None, groups=channels)[..., ::stride, ::stride]
    return F.conv2d(padded, filters, None, stride, groups=channels)

"""The push-pull unit over timm's own kinds of convolution, which pad by the image's size or standardise their weights.

timm itself is not imported: its classes are recognised by their module and name.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from pushpull_conv.layers import PushPullConv2d, is_plain_conv

torch.fx.wrap("pad_same")  # one node of a symbolic trace: it asks for the image's size

_KINDS = {
    "timm.layers.conv2d_same.Conv2dSame",
    "timm.layers.std_conv.ScaledStdConv2d",
    "timm.layers.std_conv.ScaledStdConv2dSame",
    "timm.layers.std_conv.StdConv2d",
    "timm.layers.std_conv.StdConv2dSame",
}

_Pair = tuple[int, ...]


def is_timm_conv(module: nn.Module) -> bool:
    """Tell whether ``module`` is one of the timm convolutions that `TimmPushPullConv2d` takes over."""
    return f"{type(module).__module__}.{type(module).__qualname__}" in _KINDS


class TimmPushPullConv2d(PushPullConv2d):
    """A `PushPullConv2d` that prepares its input and weights as the timm convolution in whose place it stands.

    - ``Conv2dSame`` and its relatives pad so that ``H' = ceil(H / stride)``, the odd pixel below and to the right, as
      TensorFlow does; the padding depends on the image's size.
    - ``StdConv2d`` standardises each filter to mean 0 and variance 1 (Qiao et al. 2019, arXiv 1903.10520).
    - ``ScaledStdConv2d`` multiplies that with ``gain / sqrt(fan-in)`` (Brock et al. 2021, arXiv 2101.08692); ``gain``
      is a parameter ``[O, 1, 1, 1]`` and keeps its name in the state dict.

    Made by `from_conv2d`, of which ``weight``, ``bias`` and ``gain`` are the very parameters of the convolution.

    Example:
        >>> from timm.layers import Conv2dSame
        >>> unit = TimmPushPullConv2d.from_conv2d(Conv2dSame(3, 8, 3, stride=2))
        >>> unit(torch.rand(1, 3, 17, 32)).shape
        torch.Size([1, 8, 9, 16])
    """

    gain: nn.Parameter | None
    pads_same: bool
    epsilon: float | None
    scale: float

    @staticmethod
    def accepts(module: nn.Module) -> bool:
        """Tell whether `from_conv2d` takes ``module``: also a plain convolution, which prepares nothing."""
        return is_plain_conv(module) or is_timm_conv(module)

    @classmethod
    def from_conv2d(cls, conv: nn.Conv2d, **settings: Any) -> "TimmPushPullConv2d":
        """Build the unit around the parameters of a timm convolution; the settings are those of `PushPullConv2d`."""
        unit = super().from_conv2d(conv, **settings)
        unit.pads_same = type(conv).__name__ == "Conv2dSame" or getattr(conv, "same_pad", False)
        unit.epsilon = getattr(conv, "eps", None)
        unit.scale = getattr(conv, "scale", 1.0)
        unit.register_parameter("gain", getattr(conv, "gain", None))
        return unit

    def forward(self, input: Tensor) -> Tensor:
        """Map ``[N, C, H, W]`` to the response that `push_pull_conv2d` defines over the prepared input and weights."""
        if self.pads_same:
            input = pad_same(input, self.kernel_size, self.stride, self.dilation)
        return super().forward(input)

    def push_kernel(self) -> Tensor:
        """Return the kernels of the convolution, standardised and scaled as timm does."""
        if self.epsilon is None:
            return self.weight
        variance, mean = torch.var_mean(self.weight, (1, 2, 3), correction=0, keepdim=True)
        weight = (self.weight - mean) * torch.rsqrt(variance + self.epsilon)
        return weight if self.gain is None else weight * (self.gain * self.scale)

    def extra_repr(self) -> str:
        """Describe the unit, and how input and weights are prepared."""
        pads = ", pads_same=True" if self.pads_same else ""
        standardises = "" if self.epsilon is None else f", epsilon={self.epsilon:g}"
        scales = "" if self.gain is None else f", scale={self.scale:g}"
        return f"{super().extra_repr()}{pads}{standardises}{scales}"


def pad_same(x: Tensor, kernel_size: _Pair, stride: _Pair, dilation: _Pair) -> Tensor:
    """Pad with zeros so that a convolution gives ``ceil(H / stride)`` rows and so many columns."""
    borders: list[int] = []
    for axis in (1, 0):  # F.pad takes the last dimension first
        size = x.shape[axis - 2]
        rows = (size + stride[axis] - 1) // stride[axis]  # of no negative number, which ONNX would round up
        missing = (rows - 1) * stride[axis] + dilation[axis] * (kernel_size[axis] - 1) + 1 - size
        total = missing.clamp(min=0) if isinstance(missing, Tensor) else max(missing, 0)  # torch.jit.trace: a tensor
        borders += [total // 2, total - total // 2]
    return F.pad(x, borders)

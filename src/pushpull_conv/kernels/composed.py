"""The inhibition composed of differentiable tensor operations: for every device, transformation and export."""

import torch
import torch.nn.functional as F
from torch import Tensor

FLOAT16_MAX = torch.finfo(torch.float16).max


def inhibit(
    push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, bias: Tensor | None, avg_kernel_size: int
) -> Tensor:
    """Return what `pushpull_conv.kernels.operator.inhibit` returns."""
    wide = push.to(total.dtype)
    pull = box_sum(offset.view(-1, 1, 1) * total - wide, avg_kernel_size, offset.shape[0])
    # The mean over a window lacks its positive divisor, which moves out of the relu into the strength.
    inhibition = alpha.view(-1, 1, 1) * window_share(wide, avg_kernel_size) * pull.relu()
    if push.dtype == torch.float16:
        inhibition = inhibition.clamp(-FLOAT16_MAX, FLOAT16_MAX)
    response = wide.relu() - inhibition
    if bias is not None:
        response = response + bias.view(-1, 1, 1)
    return response.to(push.dtype)


def window_share(push: Tensor, avg_kernel_size: int) -> Tensor:
    """Return one over the number of positions in the window around each position: ``[1, 1, H, W]``."""
    ones = torch.ones_like(push[:1, :1], memory_format=torch.contiguous_format)
    return ones / box_sum(ones, avg_kernel_size, 1)


def box_sum(x: Tensor, side: int, channels: int) -> Tensor:
    """Sum each of the ``channels`` over ``side`` x ``side`` windows centred on every position, with zeros outside.

    With sides of 0 and 1 a window is one position.

    A depthwise convolution: on a CPU many times faster than `avg_pool2d`, forward and backward. The number of channels
    is given, because PyTorch's older ONNX exporter cannot always tell it from ``x``.
    """
    if side <= 1:
        return x
    window = x.new_ones(1, 1, side, side).expand(channels, 1, side, side)
    return F.conv2d(x, window, padding=side // 2, groups=channels)

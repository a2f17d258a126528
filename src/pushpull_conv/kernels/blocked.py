"""The inhibition on a CPU, in blocks that stay in its cache: there, passes over memory cost more than arithmetic.

Both functions take what `pushpull_conv.kernels.operator` documents. A pull response is ``offset * total - push``; here
its negative is summed over windows, because one `torch.addcmul` makes it.
"""

from collections.abc import Iterator

import torch
from torch import Tensor

from pushpull_conv.kernels.composed import FLOAT16_MAX, box_sum, window_share

_BLOCK = 2**18  # values: a megabyte in float32


def forward(
    push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, bias: Tensor | None, avg_kernel_size: int
) -> Tensor:
    """Return the response, in the dtype and memory format of ``push``."""
    response = torch.empty_like(push)
    if not push.numel():
        return response
    windows = _Windows(push, avg_kernel_size, total.dtype)
    offset, strength = offset.view(-1, 1, 1), windows.like_block(alpha, window_share(total, avg_kernel_size))
    for images, filters in windows.blocks(push):
        block, out = push[images, filters], response[images, filters]
        torch.addcmul(block, offset[filters], total[images], value=-1, out=windows.input(block))
        inhibition = windows.sum(block).clamp_max_(0)  # still to be scaled, and negative
        if push.dtype == torch.float16:
            inhibited = block.relu() + inhibition.mul_(strength[filters]).clamp_(-FLOAT16_MAX, FLOAT16_MAX)
        else:
            inhibited = block.relu().to(total.dtype).addcmul_(inhibition, strength[filters])
        torch.add(inhibited, 0 if bias is None else bias[filters].view(-1, 1, 1), out=out)
    return response


def backward(
    grad: Tensor, push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, avg_kernel_size: int, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of ``push``, ``total``, ``offset`` and ``alpha``; those not in ``needs`` may be zeros."""
    _, need_total, need_offset, need_alpha = needs
    grad_push, grad_total = torch.empty_like(push), torch.zeros_like(total)
    grad_offset, grad_alpha = torch.zeros_like(offset), torch.zeros_like(alpha)
    if not push.numel():
        return grad_push, grad_total, grad_offset, grad_alpha
    share = window_share(total, avg_kernel_size)
    mean_total = share * (box_sum(total, avg_kernel_size) if avg_kernel_size > 1 else total)
    windows = _Windows(push, avg_kernel_size, total.dtype)
    per_filter, strength = offset.view(-1, 1, 1), alpha.view(-1, 1, 1)
    for images, filters in windows.blocks(push):
        block, upstream = push[images, filters], grad[images, filters].to(total.dtype)
        torch.addcmul(block, per_filter[filters], total[images], value=-1, out=windows.input(block))
        minus_pull = windows.sum(block)
        if push.dtype == torch.float16:
            upstream = upstream * ((minus_pull * (share * strength[filters])).abs() <= FLOAT16_MAX)
        inhibited = torch.ops.aten.hardtanh_backward(upstream, minus_pull, -torch.inf, 0)  # where pull is positive
        if need_offset:
            grad_offset[filters] -= torch.einsum("nohw,nhw->o", inhibited, mean_total[images, 0])
        if need_alpha:
            grad_alpha[filters] += torch.einsum("nohw,hw->o", minus_pull.mul_(inhibited), share[0, 0])
        torch.mul(inhibited, share, out=windows.input(block))
        averaged = windows.sum(block)
        if need_total:
            grad_total[images, 0] -= torch.einsum("nohw,o->nhw", averaged, (offset * alpha)[filters])
        passed = torch.ops.aten.threshold_backward(grad[images, filters], block, 0)
        grad_push[images, filters] = averaged.mul_(strength[filters]).add_(passed)
    return grad_push, grad_total, grad_offset * alpha, grad_alpha


class _Windows:
    """Sums over square windows, of blocks that are written into a buffer with a margin of zeros.

    The margin right of a row is also that left of the next, and the margin below a plane that above the next. So a
    neighbour is the same step away everywhere, and the sums are a few additions of the whole buffer to itself, shifted.
    """

    def __init__(self, maps: Tensor, side: int, dtype: torch.dtype) -> None:
        self.side = max(side, 1)
        self.channels_last = maps.is_contiguous(memory_format=torch.channels_last) and not maps.is_contiguous()
        images, channels, height, width = maps.shape
        if not self.channels_last:  # there, all channels of a position lie together
            channels = min(channels, max(1, _BLOCK // (height * width)))
        images = min(images, max(1, _BLOCK // (channels * height * width)))
        self.images, self.channels = images, channels
        self.rows, self.columns = height + self.side // 2, width + self.side // 2
        self.step = channels if self.channels_last else 1
        margin = self.side // 2 * (self.columns + 1) * self.step
        size = images * channels * self.rows * self.columns
        self.values = maps.new_zeros(size + 2 * margin, dtype=dtype)
        self.across = torch.empty_like(self.values)
        self.sums = self.values.new_empty(size)
        self.inside = self.values[margin : margin + size]

    def blocks(self, maps: Tensor) -> Iterator[tuple[slice, slice]]:
        """Yield the images and the channels of each block."""
        for channel in range(0, maps.shape[1], self.channels):
            for image in range(0, maps.shape[0], self.images):
                yield slice(image, image + self.images), slice(channel, channel + self.channels)

    def like_block(self, per_channel: Tensor, per_position: Tensor) -> Tensor:
        """Return the products ``[C, H, W]``, laid out as the blocks are."""
        if self.channels_last:
            return (per_position[0, 0].unsqueeze(-1) * per_channel).permute(2, 0, 1)
        return per_channel.view(-1, 1, 1) * per_position[0]

    def input(self, block: Tensor) -> Tensor:
        """Return where the values of ``block`` are to be written."""
        return self._view(self.inside, block)

    def sum(self, block: Tensor) -> Tensor:
        """Return the sums over the windows of what was written for ``block``."""
        if self.side == 1:
            return self.input(block)
        across = _shifted_sum(self.values, self.side, self.step, self.across)
        return self._view(_shifted_sum(across, self.side, self.step * self.columns, self.sums), block)

    def _view(self, flat: Tensor, block: Tensor) -> Tensor:
        if self.channels_last:
            whole = flat.view(self.images, self.rows, self.columns, self.channels).permute(0, 3, 1, 2)
        else:
            whole = flat.view(self.images, self.channels, self.rows, self.columns)
        images, channels, height, width = block.shape
        return whole[:images, :channels, :height, :width]


def _shifted_sum(values: Tensor, terms: int, step: int, out: Tensor) -> Tensor:
    """Write ``values[i] + values[i + step] + ...`` to ``out[i]`` wherever all terms exist."""
    count = min(len(out), len(values) - (terms - 1) * step)
    out = torch.add(values[:count], values[step : step + count], out=out[:count])
    for term in range(2, terms):
        out += values[term * step : term * step + count]
    return out

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
    push: Tensor,
    total: Tensor,
    offset: Tensor,
    alpha: Tensor,
    bias: Tensor | None,
    avg_kernel_size: int,
    response: Tensor,
) -> None:
    """Write the response, of the shape, dtype and memory format of ``push``, which it may overwrite."""
    if not push.numel():
        return
    windows = _Windows(push, avg_kernel_size, total.dtype)
    strength = windows.like_block(alpha, window_share(total, avg_kernel_size))
    for images, filters in windows.blocks(push):
        block, out = push[images, filters], response[images, filters]
        wide = block.to(total.dtype)  # steps that mix dtypes are slow; the block itself, where it is as wide
        minus_pull = windows.sums_of_minus_pull(wide, offset[filters], total[images])
        inhibition = minus_pull.clamp_max_(0)  # still to be scaled, and negative
        result = torch.clamp_min(wide, 0, out=out if wide is block else wide)  # excitation
        if push.dtype == torch.float16:
            inhibition *= strength[filters]
            result += inhibition.clamp_(-FLOAT16_MAX, FLOAT16_MAX)
        else:
            result.addcmul_(inhibition, strength[filters])
        if bias is not None:
            result += bias[filters].view(-1, 1, 1)
        if result is not out:
            out.copy_(result)


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
    mean_total, scale = share * box_sum(total, avg_kernel_size, 1), alpha.view(-1, 1, 1)
    windows = _Windows(push, avg_kernel_size, total.dtype)
    for images, filters in windows.blocks(push):
        block, out = push[images, filters], grad_push[images, filters]
        wide, upstream = block.to(total.dtype), grad[images, filters].to(total.dtype)
        passed = torch.ops.aten.threshold_backward(upstream, wide, 0)
        minus_pull = windows.sums_of_minus_pull(wide, offset[filters], total[images])
        if push.dtype == torch.float16:
            upstream = upstream * ((minus_pull * (share * scale[filters])).abs() <= FLOAT16_MAX)
        inhibited = torch.ops.aten.hardtanh_backward(upstream, minus_pull, -torch.inf, 0)  # where pull is positive
        if need_offset:
            grad_offset[filters] -= _sum_products(inhibited, mean_total[images])
        if need_alpha:
            grad_alpha[filters] += _sum_products(inhibited * minus_pull, share)
        torch.mul(inhibited, share, out=windows.input(block))
        averaged = windows.sum(block)
        if need_total:
            grad_total[images, 0] -= torch.einsum("nohw,o->nhw", averaged, (offset * alpha)[filters])
        if wide is block:
            torch.addcmul(passed, averaged, scale[filters], out=out)
        else:
            out.copy_(passed.addcmul_(averaged, scale[filters]))
    return grad_push, grad_total, grad_offset * alpha, grad_alpha


def _sum_products(maps: Tensor, factor: Tensor) -> Tensor:
    """Multiply ``[N, C, H, W]`` by ``[N or 1, 1, H, W]`` and sum all but the channels."""
    if maps.stride(1) == 1:  # channels-last: one product of a matrix and a vector
        return factor.expand_as(maps[:, :1]).flatten() @ maps.permute(0, 2, 3, 1).flatten(0, 2)
    return (maps.flatten(2) @ factor.flatten(2).mT).sum((0, 2))


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
        step = channels if self.channels_last else 1
        margin = self.side // 2 * (self.columns + 1) * step
        size = images * channels * self.rows * self.columns
        values = maps.new_zeros(size + 2 * margin, dtype=dtype)
        across, sums = values.new_empty(len(values) - (self.side - 1) * step), values.new_empty(size)
        self.inside = self._view(values[margin : margin + size])
        self.sums = self._view(sums) if self.side > 1 else self.inside
        self.additions = _shifted_additions(values, step, self.side, across)
        self.additions += _shifted_additions(across, step * self.columns, self.side, sums)

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

    def sums_of_minus_pull(self, push: Tensor, offset: Tensor, total: Tensor) -> Tensor:
        """Return the sums of ``push - offset * total`` over the windows, for one block of them."""
        torch.addcmul(push, offset.view(-1, 1, 1), total, value=-1, out=self.input(push))
        return self.sum(push)

    def input(self, block: Tensor) -> Tensor:
        """Return where the values of ``block`` are to be written."""
        return self._part(self.inside, block)

    def sum(self, block: Tensor) -> Tensor:
        """Return the sums over the windows of what was written for ``block``."""
        for first, second, out in self.additions:
            torch.add(first, second, out=out)
        return self._part(self.sums, block)

    def _view(self, flat: Tensor) -> Tensor:
        if self.channels_last:
            return flat.view(self.images, self.rows, self.columns, self.channels).permute(0, 3, 1, 2)
        return flat.view(self.images, self.channels, self.rows, self.columns)

    @staticmethod
    def _part(whole: Tensor, block: Tensor) -> Tensor:
        images, channels, height, width = block.shape
        return whole[:images, :channels, :height, :width]


def _shifted_additions(values: Tensor, step: int, side: int, out: Tensor) -> list[tuple[Tensor, Tensor, Tensor]]:
    """Return the additions ``(a, b, a + b)`` that sum ``side`` of the ``values``, ``step`` apart, into ``out``.

    Neighbours are added first and their sums shared, so that a window takes half as many additions as it has terms.
    """
    if side == 1:
        return []
    pairs = out if side == 3 else out.new_empty(len(out) + (side - 3) * step)
    terms = [pairs[shift * step :][: len(out)] for shift in range(0, side - 1, 2)]
    additions = [(values[: len(pairs)], values[step:][: len(pairs)], pairs)]
    total, *others = *terms, values[(side - 1) * step :]
    for term in others:
        additions.append((total, term, out))
        total = out
    return additions

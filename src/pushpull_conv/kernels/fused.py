"""The inhibition on a GPU, in Triton. Its speed has not been measured, nor has it run on a GPU: only interpreted.

The forward reads the push response from memory once (neighbours should come from the caches) and writes the response
once. Nothing is saved besides the push response. The backward finds again where the pull response is positive and lets
the gradient pass there (first kernel), then spreads it over the windows (second kernel). Arithmetic is in float32; sums
over positions are partial sums of one program each, added up afterwards in a fixed order, without atomics.

Tensors may have any strides. A program serves ``POSITIONS`` x ``CHANNELS`` values of one image: few positions of many
channels in channels-last, many positions of one channel otherwise, so that neighbouring threads read neighbours.
"""

from typing import Any

import torch
import torch.nn.functional as F
import triton
import triton.language as tl
from torch import Tensor

from pushpull_conv.kernels.composed import FLOAT16_MAX

_TILE = 2048  # values per program, a power of two
_MOST_CHANNELS = 64
_LIMIT = tl.constexpr(FLOAT16_MAX)


def forward(
    push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, bias: Tensor | None, avg_kernel_size: int
) -> Tensor:
    """Return the response, as `pushpull_conv.kernels.operator.inhibit` defines it; ``total`` has one channel."""
    response = torch.empty_like(push)
    shift = torch.zeros_like(offset) if bias is None else bias
    vectors = [vector.contiguous() for vector in (offset, alpha, shift)]
    _launch(_forward, [push, total, response], vectors, avg_kernel_size)
    return response


def backward(
    grad: Tensor, push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, avg_kernel_size: int, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return the gradients of ``push``, ``total``, ``offset`` and ``alpha``; those not in ``needs`` may be zeros."""
    offset, alpha = offset.contiguous(), alpha.contiguous()
    inhibited, grad_push = torch.empty_like(push), torch.empty_like(push)
    programs = push.shape[0] * _tiles(push)[0]
    partial_offset, partial_alpha = push.new_empty(2, programs, push.shape[1], dtype=torch.float32)
    _launch(
        _find_inhibited,
        [push, total, grad, inhibited],
        [offset, alpha, partial_offset, partial_alpha],
        avg_kernel_size,
    )
    _launch(_spread, [push, grad, inhibited, grad_push], [alpha], avg_kernel_size)
    grad_total = torch.zeros_like(total)
    if needs[1]:
        _launch(_sum_channels, [inhibited, grad_total], [offset * alpha], avg_kernel_size)
        if avg_kernel_size > 1:
            grad_total = F.avg_pool2d(grad_total, avg_kernel_size, 1, avg_kernel_size // 2, divisor_override=1)
    return grad_push, -grad_total, -alpha * partial_offset.sum(0), -partial_alpha.sum(0)


def _tiles(push: Tensor) -> tuple[int, int, int, int]:
    """Return the number of tiles over the positions and over the channels, and the sides of a tile."""
    filters, height, width = push.shape[1:]
    channels = min(_MOST_CHANNELS, triton.next_power_of_2(filters)) if push.stride(1) == 1 else 1
    positions = _TILE // channels
    return triton.cdiv(height * width, positions), triton.cdiv(filters, channels), positions, channels


def _launch(kernel: Any, maps: list[Tensor], vectors: list[Tensor], avg_kernel_size: int) -> None:
    """Run ``kernel`` over every tile of the first of ``maps``; each map is followed by its strides."""
    filters, height, width = maps[0].shape[1:]
    position_tiles, channel_tiles, positions, channels = _tiles(maps[0])
    programs = maps[0].shape[0] * position_tiles * channel_tiles
    if programs == 0:
        return
    with torch.cuda.device_of(maps[0]):
        kernel[(programs,)](
            *(argument for tensor in maps for argument in (tensor, *tensor.stride())),
            *vectors,
            filters,
            height,
            width,
            position_tiles,
            channel_tiles,
            REACH=avg_kernel_size // 2,
            POSITIONS=positions,
            CHANNELS=channels,
        )


@triton.jit
def _place(H, W, position_tiles, channel_tiles, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr):
    """Return which image, rows, columns and channels a program serves."""
    program = tl.program_id(0)
    tile = program // channel_tiles
    position = tile % position_tiles * POSITIONS + tl.arange(0, POSITIONS)
    channel = program % channel_tiles * CHANNELS + tl.arange(0, CHANNELS)
    row = tl.where(position < H * W, position // W, H)  # out of the map, as every access checks
    return (tile // position_tiles).to(tl.int64), row, position % W, channel


@triton.jit
def _offsets(image, row, column, channel, sn, sc, sh, sw):
    """Return where ``[POSITIONS, CHANNELS]`` values lie, in 64 bits: maps may hold more than 2**31 values."""
    place = row.to(tl.int64) * sh + column.to(tl.int64) * sw
    return image * sn + place[:, None] + (channel.to(tl.int64) * sc)[None, :]


@triton.jit
def _mask(row, column, channel, C, H, W):
    inside = (row >= 0) & (row < H) & (column >= 0) & (column < W)
    return inside[:, None] & (channel < C)[None, :]


@triton.jit
def _share(row, column, H, W, REACH: tl.constexpr):
    """Return one over the number of positions in the window around each position ``[POSITIONS, 1]``."""
    rows = tl.minimum(row + REACH, H - 1) - tl.maximum(row - REACH, 0) + 1
    columns = tl.minimum(column + REACH, W - 1) - tl.maximum(column - REACH, 0) + 1
    return (1.0 / tl.maximum(rows * columns, 1).to(tl.float32))[:, None]


@triton.jit
def _sum_windows(
    push, push_sn, push_sc, push_sh, push_sw, total, total_sn, total_sc, total_sh, total_sw,
    image, row, column, channel, C, H, W, REACH: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Return the sums of ``push`` ``[POSITIONS, CHANNELS]`` and of ``total`` ``[POSITIONS, 1]`` over the windows."""
    push_sum = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    total_sum = tl.zeros((POSITIONS, 1), tl.float32)
    first = tl.arange(0, 1)  # the one channel of total
    for i in range(2 * REACH + 1):
        for j in range(2 * REACH + 1):
            y = tl.where(row < H, row + i - REACH, H)
            x = column + j - REACH
            mask = _mask(y, x, channel, C, H, W)
            at = _offsets(image, y, x, channel, push_sn, push_sc, push_sh, push_sw)
            push_sum += tl.load(push + at, mask=mask, other=0.0).to(tl.float32)
            at = _offsets(image, y, x, first, total_sn, total_sc, total_sh, total_sw)
            total_sum += tl.load(total + at, mask=_mask(y, x, first, 1, H, W), other=0.0)
    return push_sum, total_sum


@triton.jit
def _forward(
    push, push_sn, push_sc, push_sh, push_sw, total, total_sn, total_sc, total_sh, total_sw,
    response, response_sn, response_sc, response_sh, response_sw, offset, alpha, bias,
    C, H, W, position_tiles, channel_tiles,
    REACH: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    image, row, column, channel = _place(H, W, position_tiles, channel_tiles, POSITIONS, CHANNELS)
    push_sum, total_sum = _sum_windows(
        push, push_sn, push_sc, push_sh, push_sw, total, total_sn, total_sc, total_sh, total_sw,
        image, row, column, channel, C, H, W, REACH, POSITIONS, CHANNELS,
    )  # fmt: skip
    filters = channel < C
    pull = tl.load(offset + channel, mask=filters, other=0.0)[None, :] * total_sum - push_sum
    strength = tl.load(alpha + channel, mask=filters, other=0.0)[None, :] * _share(row, column, H, W, REACH)
    inhibition = strength * tl.maximum(pull, 0.0, propagate_nan=tl.PropagateNan.ALL)
    if push.dtype.element_ty == tl.float16:
        inhibition = tl.where(inhibition > _LIMIT, _LIMIT, tl.where(inhibition < -_LIMIT, -_LIMIT, inhibition))
    mask = _mask(row, column, channel, C, H, W)
    at = _offsets(image, row, column, channel, push_sn, push_sc, push_sh, push_sw)
    excited = tl.load(push + at, mask=mask, other=0.0).to(tl.float32)
    excited = tl.maximum(excited, 0.0, propagate_nan=tl.PropagateNan.ALL)
    result = excited - inhibition + tl.load(bias + channel, mask=filters, other=0.0)[None, :]
    at = _offsets(image, row, column, channel, response_sn, response_sc, response_sh, response_sw)
    tl.store(response + at, result.to(response.dtype.element_ty), mask=mask)


@triton.jit
def _find_inhibited(
    push, push_sn, push_sc, push_sh, push_sw, total, total_sn, total_sc, total_sh, total_sw,
    grad, grad_sn, grad_sc, grad_sh, grad_sw, inhibited, inhibited_sn, inhibited_sc, inhibited_sh, inhibited_sw,
    offset, alpha, partial_offset, partial_alpha, C, H, W, position_tiles, channel_tiles,
    REACH: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write the gradient where the mean pull response is positive and zero elsewhere, and what it adds to two sums."""
    image, row, column, channel = _place(H, W, position_tiles, channel_tiles, POSITIONS, CHANNELS)
    push_sum, total_sum = _sum_windows(
        push, push_sn, push_sc, push_sh, push_sw, total, total_sn, total_sc, total_sh, total_sw,
        image, row, column, channel, C, H, W, REACH, POSITIONS, CHANNELS,
    )  # fmt: skip
    filters = channel < C
    share = _share(row, column, H, W, REACH)
    pull = tl.load(offset + channel, mask=filters, other=0.0)[None, :] * total_sum - push_sum
    active = pull > 0
    if push.dtype.element_ty == tl.float16:
        strength = tl.load(alpha + channel, mask=filters, other=0.0)[None, :] * share
        active = active & (tl.abs(strength * pull) <= _LIMIT)
    mask = _mask(row, column, channel, C, H, W)
    at = _offsets(image, row, column, channel, grad_sn, grad_sc, grad_sh, grad_sw)
    passed = tl.where(active, tl.load(grad + at, mask=mask, other=0.0), 0.0)
    at = _offsets(image, row, column, channel, inhibited_sn, inhibited_sc, inhibited_sh, inhibited_sw)
    tl.store(inhibited + at, passed.to(inhibited.dtype.element_ty), mask=mask)
    passed = passed.to(tl.float32) * share
    at = (tl.program_id(0) // channel_tiles).to(tl.int64) * C + channel
    tl.store(partial_offset + at, tl.sum(passed * total_sum, axis=0), mask=filters)
    tl.store(partial_alpha + at, tl.sum(tl.where(active, passed * pull, 0.0), axis=0), mask=filters)


@triton.jit
def _spread(
    push, push_sn, push_sc, push_sh, push_sw, grad, grad_sn, grad_sc, grad_sh, grad_sw,
    inhibited, inhibited_sn, inhibited_sc, inhibited_sh, inhibited_sw,
    grad_push, grad_push_sn, grad_push_sc, grad_push_sh, grad_push_sw,
    alpha, C, H, W, position_tiles, channel_tiles,
    REACH: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write the gradient of ``push``: what passes its relu, and what the means over the windows carry to it."""
    image, row, column, channel = _place(H, W, position_tiles, channel_tiles, POSITIONS, CHANNELS)
    carried = tl.zeros((POSITIONS, CHANNELS), tl.float32)
    for i in range(2 * REACH + 1):
        for j in range(2 * REACH + 1):
            y = tl.where(row < H, row + i - REACH, H)
            x = column + j - REACH
            at = _offsets(image, y, x, channel, inhibited_sn, inhibited_sc, inhibited_sh, inhibited_sw)
            values = tl.load(inhibited + at, mask=_mask(y, x, channel, C, H, W), other=0.0).to(tl.float32)
            carried += values * _share(y, x, H, W, REACH)
    mask = _mask(row, column, channel, C, H, W)
    at = _offsets(image, row, column, channel, push_sn, push_sc, push_sh, push_sw)
    excited = tl.load(push + at, mask=mask, other=0.0).to(tl.float32) > 0
    at = _offsets(image, row, column, channel, grad_sn, grad_sc, grad_sh, grad_sw)
    passed = tl.where(excited, tl.load(grad + at, mask=mask, other=0.0).to(tl.float32), 0.0)
    strength = tl.load(alpha + channel, mask=channel < C, other=0.0)[None, :]
    at = _offsets(image, row, column, channel, grad_push_sn, grad_push_sc, grad_push_sh, grad_push_sw)
    tl.store(grad_push + at, (passed + strength * carried).to(grad_push.dtype.element_ty), mask=mask)


@triton.jit
def _sum_channels(
    inhibited, inhibited_sn, inhibited_sc, inhibited_sh, inhibited_sw, sums, sums_sn, sums_sc, sums_sh, sums_sw,
    factor, C, H, W, position_tiles, channel_tiles,
    REACH: tl.constexpr, POSITIONS: tl.constexpr, CHANNELS: tl.constexpr,
):  # fmt: skip
    """Write the sum over channels of ``factor * inhibited``, over the number of positions in each window."""
    image, row, column, _ = _place(H, W, position_tiles, channel_tiles, POSITIONS, CHANNELS)
    if tl.program_id(0) % channel_tiles == 0:  # one program serves all channels
        summed = tl.zeros((POSITIONS, CHANNELS), tl.float32)
        for start in range(0, C, CHANNELS):
            some = start + tl.arange(0, CHANNELS)
            at = _offsets(image, row, column, some, inhibited_sn, inhibited_sc, inhibited_sh, inhibited_sw)
            values = tl.load(inhibited + at, mask=_mask(row, column, some, C, H, W), other=0.0).to(tl.float32)
            summed += values * tl.load(factor + some, mask=some < C, other=0.0)[None, :]
        first = tl.arange(0, 1)
        at = _offsets(image, row, column, first, sums_sn, sums_sc, sums_sh, sums_sw)
        result = tl.sum(summed, axis=1)[:, None] * _share(row, column, H, W, REACH)
        tl.store(sums + at, result, mask=_mask(row, column, first, 1, H, W))

"""What a corruption is made of: a step that draws and a step that applies."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pushpull_conv.corruptions.randomness import Random

Draws = tuple[Tensor, ...]


def usual_part(images: Tensor) -> int:
    """How many images fit a processor's cache, or keep a GPU busy in bounded memory."""
    return _part(images, cpu=2**15)


def larger_part(images: Tensor) -> int:
    """The same for a corruption of many small steps, whose calls cost as much as their arithmetic."""
    return _part(images, cpu=3 * 2**16)


def _part(images: Tensor, *, cpu: int) -> int:
    pixels = cpu if images.is_cpu else 2**22
    return max(1, pixels // (images.shape[2] * images.shape[3]))


class Kernel(NamedTuple):
    """The two steps of one corruption.

    ``sample(random, images, parameters) -> draws`` makes everything random and ``apply(images, parameters, draws)`` is
    a pure function, so that draws from elsewhere can be applied as well; ``sample`` is None where nothing is random.
    Images are uint8 ``[B, 3, H, W]``, parameters are an entry of the severity table. ``part(images)`` is how many of
    the images both steps are given at a time.
    """

    sample: Callable[[Random, Tensor, Any], Draws] | None
    apply: Callable[[Tensor, Any, Draws], Tensor]
    part: Callable[[Tensor], int] = usual_part


def to_uint8(values: Tensor) -> Tensor:
    """Clip grey levels to [0, 255], in place, and truncate them, as the benchmark stores every real-valued result."""
    return values.clamp_(0, 255).to(torch.uint8)

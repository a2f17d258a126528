"""What a corruption is made of: a step that draws and a step that applies."""

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from pushpull_conv.corruptions.randomness import Random

Draws = tuple[Tensor, ...]


def no_draws(random: Random, images: Tensor, parameters: Any) -> Draws:
    """Draw nothing: the sampling step of a deterministic corruption."""
    return ()


class Kernel(NamedTuple):
    """The two steps of one corruption.

    ``sample(random, images, parameters) -> draws`` makes everything random and ``apply(images, parameters, draws)`` is
    a pure function, so that draws from elsewhere can be applied as well. Images are uint8 ``[B, 3, H, W]``, parameters
    are an entry of the severity table. ``one_by_one(images)``: whether ``apply`` takes such images one by one, so that
    nothing is gained by giving it a batch in parts.
    """

    sample: Callable[[Random, Tensor, Any], Draws]
    apply: Callable[[Tensor, Any, Draws], Tensor]
    one_by_one: Callable[[Tensor], bool] = lambda images: False


def to_uint8(values: Tensor) -> Tensor:
    """Clip grey levels to [0, 255], in place, and truncate them, as the benchmark stores every real-valued result."""
    return values.clamp_(0, 255).to(torch.uint8)

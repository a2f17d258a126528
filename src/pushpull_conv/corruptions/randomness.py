"""Random numbers that are a pure function of what they are for.

Every number is a hash of (seed, image index, corruption, severity, stream, element), computed in wrapping 64-bit
integers that mean the same on every device. No generator has a state, so no batch size, order or number of workers can
change an image, and the global generators of torch and numpy are neither read nor moved.

The hash is SplitMix64 (Steele, Lea and Flood, "Fast splittable pseudorandom number generators", OOPSLA 2014): a Weyl
sequence followed by Stafford's 13th mixing function.
"""

import math
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor


def _signed(value: int) -> int:
    """The 64-bit two's complement of any integer."""
    return (value + 2**63) % 2**64 - 2**63


_WEYL = _signed(0x9E3779B97F4A7C15)
_MULTIPLIERS = _signed(0xBF58476D1CE4E5B9), _signed(0x94D049BB133111EB)


def _unsigned_shift(value: Tensor, places: int) -> Tensor:
    return (value >> places).bitwise_and_(2 ** (64 - places) - 1)


def _mix_(value: Tensor) -> Tensor:
    value.bitwise_xor_(_unsigned_shift(value, 30)).mul_(_MULTIPLIERS[0])
    value.bitwise_xor_(_unsigned_shift(value, 27)).mul_(_MULTIPLIERS[1])
    return value.bitwise_xor_(_unsigned_shift(value, 31))


@lru_cache(maxsize=64)
def _weyl_sequence(count: int, device: torch.device) -> Tensor:
    return torch.arange(1, count + 1, device=device) * _WEYL


@dataclass(frozen=True)
class Random:
    """One independent source of random numbers per image.

    Attributes:
        keys: int64 ``[B]``, one key per image.

    Numbers of different ``stream`` are independent of each other. Uniform numbers are multiples of 2^-32.
    """

    keys: Tensor

    @classmethod
    def keyed(cls, index: Tensor, *parts: int) -> "Random":
        """Derive the keys of the images at ``index`` (int64 ``[B]``) for one purpose, named by any number of integers.

        Example:
            >>> first, second = Random.keyed(torch.arange(2), 7, 1), Random.keyed(torch.arange(1, 2), 7, 1)
            >>> torch.equal(first.uniform(0, 3)[1], second.uniform(0, 3)[0])
            True
        """
        keys = torch.zeros_like(index)
        for part in parts:
            keys = _mix_(keys + _signed(part * _WEYL + _WEYL))
        return cls(_mix_(keys + index * _WEYL))

    def bits(self, stream: int, count: int) -> Tensor:
        """Uniform 32-bit integers: int32 ``[B, count]``."""
        stream_keys = _mix_(self.keys + _signed((stream + 1) * _MULTIPLIERS[1]))
        words = stream_keys[:, None] + _weyl_sequence((count + 1) // 2, self.keys.device)
        return _mix_(words).view(torch.int32)[:, :count]

    def uniform(self, stream: int, *shape: int) -> Tensor:
        """Uniform numbers in [0, 1): float64 ``[B, *shape]``."""
        unit = self.bits(stream, math.prod(shape)).to(torch.float64).mul_(2.0**-32).add_(0.5)
        return unit.view(-1, *shape)

    def normal(self, stream: int, *shape: int) -> Tensor:
        """Standard normal numbers by the method of Box and Muller: float64 ``[B, *shape]``."""
        count = math.prod(shape)
        half = (count + 1) // 2
        unit = self.uniform(stream, 2, half)
        radius = torch.log1p(unit[:, 0].neg()).mul_(-2).sqrt_()
        angle = unit[:, 1] * (2 * math.pi)
        numbers = torch.cat([torch.cos(angle).mul_(radius), torch.sin(angle).mul_(radius)], dim=1)
        return numbers[:, :count].reshape(-1, *shape)

    def integers(self, stream: int, low: int, high: int | Tensor, *shape: int) -> Tensor:
        """Uniform integers in {low, ..., high - 1}: int64 ``[B, *shape]``; a tensor ``high`` must broadcast to it."""
        return self.uniform(stream, *shape).mul_(high - low).floor_().add_(low).to(torch.int64)

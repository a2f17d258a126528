"""Lower precisions, which not every processor computes faster."""

import time

import torch
import torch.nn.functional as F

HALVES = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}
"""Of a recipe's precisions those under autocast, and in which type they compute."""
_NOTEWORTHY = 2.0
"""How many times as long as float32 a lower precision takes before it is worth a line."""
_REPEATS = 5


def precision_refusal(name: str, device: torch.device) -> str:
    """Say so if a recipe's precision cannot be trained in on this device, else return ``""``.

    Lightning would train in bfloat16 instead.

    Example:
        >>> precision_refusal("16-mixed", torch.device("cpu"))
        'training.precision is 16-mixed, which needs a GPU; on a processor use bf16-mixed or 32-true'
    """
    if name != "16-mixed" or device.type != "cpu":
        return ""
    return f"training.precision is {name}, which needs a GPU; on a processor use bf16-mixed or 32-true"


def slow_precision_note(name: str, half: torch.dtype | None, device: torch.device) -> str:
    """Say so if a lower precision takes much longer than float32 on this processor, else return ``""``.

    Processors without instructions for bfloat16 or float16 compute in them many times slower. Whether this one does is
    measured by a small convolution, forward and backward; on a GPU nothing is measured.

    Args:
        name: What the user calls the precision.
        half: The type in which it computes, None for float32 or more.
        device: Where it is to compute.

    Example:
        >>> slow_precision_note("32-true", None, torch.device("cpu"))
        ''
    """
    if device.type != "cpu" or half is None:
        return ""
    ratio = _seconds(half) / _seconds(None)
    if ratio < _NOTEWORTHY:
        return ""
    return f"{name} makes a convolution take {ratio:.0f} times as long as in float32 on this processor"


def _seconds(half: torch.dtype | None) -> float:
    """The shortest time of a convolution as in a ResNet for CIFAR, under autocast to ``half`` or in float32."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(32, 16, 32, 32, generator=generator).contiguous(memory_format=torch.channels_last)
    weight = torch.rand(16, 16, 3, 3, generator=generator).requires_grad_()
    times = []
    for _ in range(_REPEATS):
        started = time.perf_counter()
        with torch.autocast("cpu", half, enabled=half is not None):
            response = F.conv2d(images, weight, padding=1)
        response.sum().backward()
        times.append(time.perf_counter() - started)
    return min(times)

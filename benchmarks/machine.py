"""What the scripts beside this file run on, and measure with."""

import ctypes
import os
from collections.abc import Callable

import torch
from torch import Tensor

from pushpull_conv.provenance import provenance


def hardware() -> str:
    """The machine, in words."""
    known = provenance()
    gpu = f", {known['accelerator']}" if torch.cuda.is_available() else ""
    return f"{known['cpu']}{gpu}, torch {known['torch']}"


def pictures(count: int, side: int) -> Tensor:
    """Smooth random colours with texture: uint8 ``[count, 3, side, side]``."""
    generator = torch.Generator().manual_seed(0)
    coarse = torch.rand(count, 3, 6, 6, generator=generator) * 255
    smooth = torch.nn.functional.interpolate(coarse, (side, side), mode="bicubic")
    return (smooth + 12 * torch.randn(smooth.shape, generator=generator)).clamp(0, 255).to(torch.uint8)


def milliseconds(call: Callable[[], None], seconds: Callable[[], float]) -> float:
    """Time of a call by the clock ``seconds``, until the device has finished."""
    synchronise()
    start = seconds()
    call()
    synchronise()
    return (seconds() - start) * 1000


def synchronise() -> None:
    """Wait for the GPU, if there is one."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def keep_memory() -> None:
    """Let the C library keep the memory that is freed, where it is glibc.

    Otherwise it gives large tensors back to the system at times, and the next ones cost page faults: at the stem of a
    ResNet-50 more time than the convolution.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(library, "mallopt"):
        library.mallopt(-4, 0)  # M_MMAP_MAX
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD

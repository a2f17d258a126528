"""What the scripts beside this file run on."""

import ctypes
import os
import platform
from pathlib import Path

import torch


def hardware() -> str:
    """The machine, in words."""
    cpuinfo = Path("/proc/cpuinfo")
    names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line] if cpuinfo.exists() else []
    name = names[0].split(":")[1].strip() if names else platform.processor()
    gpu = f", {torch.cuda.get_device_name()}" if torch.cuda.is_available() else ""
    return f"{name}, {os.cpu_count()} cores{gpu}, torch {torch.__version__}"


def keep_memory() -> None:
    """Let the C library keep the memory that is freed, where it is glibc.

    Otherwise it gives large tensors back to the system at times, and the next ones cost page faults: at the stem of a
    ResNet-50 more time than the convolution.
    """
    library = ctypes.CDLL(None) if os.name == "posix" else None
    if hasattr(library, "mallopt"):
        library.mallopt(-4, 0)  # M_MMAP_MAX
        library.mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD

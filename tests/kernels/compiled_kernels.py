"""Compile every Triton kernel for an H100 and an A100, which needs neither. Run by ``test_fused.py``."""

import inspect

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from pushpull_conv.kernels import fused

MAPS = {"push", "total", "response", "grad", "inhibited", "grad_push", "sums"}
WIDE = {"total", "sums", "offset", "alpha", "bias", "factor", "partial_offset", "partial_alpha"}


def source(kernel, dtype, channels_last, reach):
    """The kernel with the argument types that ``fused._launch`` gives it."""
    constants = {"REACH": reach, "POSITIONS": 32 if channels_last else 2048, "CHANNELS": 64 if channels_last else 1}
    signature = {}
    for name in inspect.signature(kernel.fn).parameters:
        if name in constants:
            signature[name] = "constexpr"
        elif name in MAPS | WIDE:
            signature[name] = "*fp32" if name in WIDE else f"*{dtype}"
        elif name.endswith("_sc" if channels_last else "_sw"):
            signature[name], constants[name] = "constexpr", 1  # as Triton specialises a stride of one
        else:
            signature[name] = "i32"
    return ASTSource(kernel, signature, constants)


if __name__ == "__main__":
    for architecture in (80, 90):
        for kernel in (fused._forward, fused._find_inhibited, fused._spread, fused._sum_channels):
            for dtype, channels_last, reach in [("bf16", True, 1), ("fp16", False, 2), ("fp32", True, 0)]:
                compiled = triton.compile(
                    source(kernel, dtype, channels_last, reach), GPUTarget("cuda", architecture, 32)
                )
                assert "cubin" in compiled.asm
                print(kernel.__name__, architecture, dtype, "compiles")

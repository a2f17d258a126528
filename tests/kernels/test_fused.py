"""The Triton kernels: interpreted and compiled without a GPU, in processes of their own, and run where there is one."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from pushpull_conv.functional import push_pull_conv2d, push_pull_conv2d_reference
from pushpull_conv.kernels import operator

pytest.importorskip("triton", reason="Triton comes with PyTorch for GPUs")


def run(script, **environment):
    path = Path(__file__).with_name(script)
    return subprocess.run(
        [sys.executable, path], env=os.environ | environment, capture_output=True, text=True, check=False
    )


@pytest.mark.slow
def test_the_kernels_under_the_interpreter():
    result = run("interpreted_kernels.py", TRITON_INTERPRET="1")
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("agrees") == 12


@pytest.mark.slow
def test_the_kernels_compile_for_a_gpu_without_one(tmp_path):
    result = run("compiled_kernels.py", TRITON_CACHE_DIR=str(tmp_path))
    assert result.returncode == 0, result.stdout + result.stderr
    assert result.stdout.count("compiles") == 24


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compiled", [False, True])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("avg_kernel_size", [0, 3, 5, 9])
def test_the_kernels_on_a_gpu(avg_kernel_size, dtype, layout, compiled):
    torch.compiler.reset()
    torch.backends.cudnn.allow_tf32 = False
    torch.manual_seed(0)
    shapes = (3, 3, 33, 29), (70, 3, 7, 7), (70,), (70,)
    arguments = [torch.randn(shape, device="cuda").to(dtype) for shape in shapes]
    arguments[:2] = [tensor.to(memory_format=layout) for tensor in arguments[:2]]
    form = torch.compile(push_pull_conv2d, fullgraph=True) if compiled else push_pull_conv2d
    settings = {"avg_kernel_size": avg_kernel_size, "stride": 2, "padding": 3}
    given = [tensor.clone().requires_grad_() for tensor in arguments]
    exact = [tensor.double().cpu().requires_grad_() for tensor in arguments]
    assert operator._has_kernel(given[0], given[0][:, :1])
    actual, expected = form(*given, **settings), push_pull_conv2d_reference(*exact, **settings)
    assert actual.is_contiguous(memory_format=layout)
    upstream = torch.randn(expected.shape).to(dtype)
    actual.backward(upstream.cuda())
    expected.backward(upstream.double())
    pairs = [(actual, expected), *((a.grad, e.grad) for a, e in zip(given, exact, strict=True))]
    for ours, theirs in pairs:
        difference = (ours.double().cpu() - theirs).norm() / theirs.norm()
        assert difference < (1e-5 if dtype == torch.float32 else 16 * torch.finfo(dtype).eps)

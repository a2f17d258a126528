"""The inhibition as one operator of PyTorch, which picks the kernel of the device.

``y = relu(push) - alpha * relu(mean(pull)) + bias`` with ``pull = offset * total - push``. The operator saves ``push``
for its backward and recomputes the rest. Where no kernel serves, or the graph must stay portable or differentiable
further, the same is composed of tensor operations.
"""

import importlib.util
from typing import Any, TypeVar

import torch
from torch import Tensor
from torch.autograd import forward_ad

from pushpull_conv.kernels import blocked, composed

Function = TypeVar("Function")

_FUSED_DTYPES = (torch.float32, torch.bfloat16, torch.float16)
_HAS_TRITON = importlib.util.find_spec("triton") is not None
# PyTorch 2.6 does not tell an export from a compilation; there, both take the composed form.
_is_exporting = getattr(torch.compiler, "is_exporting", torch.compiler.is_compiling)
_ARGUMENTS = "Tensor push, Tensor total, Tensor offset, Tensor alpha"


def constant_when_compiled(function: Function) -> Function:
    """Let `torch.compile` take what a function returns as a constant, as `torch.compiler.assume_constant_result` does.

    PyTorch 2.6 cannot trace those that this is for. PyTorch's own decorator imports the compiler, which takes longer
    than all of this package.
    """
    function._dynamo_marked_constant = True  # type: ignore[attr-defined]
    return function


def inhibit(
    push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, bias: Tensor | None, avg_kernel_size: int
) -> Tensor:
    """Subtract the pull response from the push response, on a CPU without gradients in place.

    Args:
        push: Response of the convolution ``[N, O, H, W]``, float16, bfloat16, float32 or float64. Not to be used again.
        total: Sum of the input under the kernel, ``[N, 1, H, W]`` or ``[N, O, H, W]``; at least float32, like the rest.
        offset: Smallest plus largest weight of each filter ``[O]``.
        alpha: Strength of the inhibition ``[O]``.
        bias: ``[O]``, added last.
        avg_kernel_size: Side of the window of the mean; 0 or 1 for none.

    Returns:
        The response, of the shape, dtype and memory format of ``push``.
    """
    arguments = push, total, offset, alpha, bias, avg_kernel_size
    if not _is_transformed(push, total, offset, alpha, bias) and _has_kernel(push, total):
        if push.is_cpu and not _needs_gradient(push, total, offset, alpha, bias):
            torch.ops.pushpull_conv.inhibit_(*arguments)  # fresh memory costs about as much as the arithmetic
            return push
        return torch.ops.pushpull_conv.inhibit(*arguments)
    return composed.inhibit(*arguments)


def _has_kernel(push: Tensor, total: Tensor) -> bool:
    if total.shape[1] != 1:  # grouped convolutions are rare in a stem
        return False
    return push.is_cpu or (push.is_cuda and _HAS_TRITON and push.dtype in _FUSED_DTYPES)


def _is_transformed(*tensors: Tensor | None) -> bool:
    """Whether the graph leaves PyTorch, or is transformed in ways that the operator's own gradient does not cover."""
    if _is_exporting() or torch.jit.is_tracing() or _in_functorch():
        return True
    if torch.compiler.is_compiling():
        return False
    return any(forward_ad.unpack_dual(tensor).tangent is not None for tensor in tensors if tensor is not None)


@constant_when_compiled
def _in_functorch() -> bool:
    return torch._C._are_functorch_transforms_active()


def _needs_gradient(*tensors: Tensor | None) -> bool:
    return torch.is_grad_enabled() and any(tensor.requires_grad for tensor in tensors if tensor is not None)


@torch.library.custom_op(
    "pushpull_conv::inhibit_",
    mutates_args=("push",),
    device_types="cpu",
    schema=f"({_ARGUMENTS.replace('Tensor', 'Tensor(a!)', 1)}, Tensor? bias, int avg_kernel_size) -> ()",
)
def _inhibit_(
    push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, bias: Tensor | None, avg_kernel_size: int
) -> None:
    blocked.forward(push, total, offset, alpha, bias, avg_kernel_size, push)


@torch.library.custom_op(
    "pushpull_conv::inhibit",
    mutates_args=(),
    device_types="cpu",
    schema=f"({_ARGUMENTS}, Tensor? bias, int avg_kernel_size) -> Tensor",
)
def _inhibit(
    push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, bias: Tensor | None, avg_kernel_size: int
) -> Tensor:
    response = torch.empty_like(push)
    blocked.forward(push, total, offset, alpha, bias, avg_kernel_size, response)
    return response


@torch.library.custom_op(
    "pushpull_conv::inhibit_backward",
    mutates_args=(),
    device_types="cpu",
    schema=f"(Tensor grad, {_ARGUMENTS}, int avg_kernel_size, bool[] needs) -> (Tensor, Tensor, Tensor, Tensor)",
)
def _inhibit_backward(
    grad: Tensor, push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, avg_kernel_size: int, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return blocked.backward(grad, push, total, offset, alpha, avg_kernel_size, needs)


@_inhibit.register_kernel("cuda")
def _(push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, bias: Tensor | None, avg_kernel_size: int) -> Tensor:
    from pushpull_conv.kernels import fused

    return fused.forward(push, total, offset, alpha, bias, avg_kernel_size)


@_inhibit_backward.register_kernel("cuda")
def _(
    grad: Tensor, push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, avg_kernel_size: int, needs: list[bool]
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    from pushpull_conv.kernels import fused

    return fused.backward(grad, push, total, offset, alpha, avg_kernel_size, needs)


@_inhibit.register_fake
def _(push: Tensor, *_: object) -> Tensor:
    return torch.empty_like(push)


@_inhibit_backward.register_fake
def _(grad: Tensor, push: Tensor, total: Tensor, offset: Tensor, alpha: Tensor, *_: object) -> tuple[Tensor, ...]:
    return tuple(torch.empty_like(tensor) for tensor in (push, total, offset, alpha))


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, bias, ctx.avg_kernel_size = inputs
    ctx.save_for_backward(*tensors)
    ctx.bias_dtype = None if bias is None else bias.dtype


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    tensors = ctx.saved_tensors
    *needs, need_bias, _ = ctx.needs_input_grad
    if torch.is_grad_enabled() and any(needs):  # the gradient will itself be differentiated
        push, total, offset, alpha = tensors
        response = composed.inhibit(push, total, offset, alpha, None, ctx.avg_kernel_size)
        wanted = [tensor for tensor, need in zip(tensors, needs, strict=True) if need]
        found = iter(torch.autograd.grad(response, wanted, grad, create_graph=True))
        gradients = [next(found) if need else None for need in needs]
    else:
        every = torch.ops.pushpull_conv.inhibit_backward(grad, *tensors, ctx.avg_kernel_size, needs)
        gradients = [gradient if need else None for gradient, need in zip(every, needs, strict=True)]
    grad_bias = grad.sum((0, 2, 3), dtype=ctx.bias_dtype) if need_bias else None
    return *gradients, grad_bias, None


_inhibit.register_autograd(_differentiate, setup_context=_save)

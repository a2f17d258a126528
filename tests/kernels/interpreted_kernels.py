"""Compare the Triton kernels, interpreted on the CPU, with the composed form in float64. Run by ``test_fused.py``."""

import torch

from pushpull_conv.kernels import composed, fused

torch.set_num_threads(1)
HALF = (torch.bfloat16, torch.float16)


def agree(shape, dtype, side, *, scale=1.0, layout=torch.contiguous_format, biased=True, strided_gradient=False):
    """Values and all gradients of one case, to float32's or the half precision's own rounding."""
    torch.manual_seed(sum(shape) + side)
    batch, filters, height, width = shape
    push = (scale * torch.randn(shape)).to(dtype).contiguous(memory_format=layout)
    total = scale * torch.randn(batch, 1, height, width)
    offset, alpha, bias = torch.randn(filters), torch.rand(filters) - 0.2, torch.randn(filters)
    upstream = torch.randn(shape).to(dtype)
    if strided_gradient:
        upstream = upstream[:, :, :1, :1].expand(shape)
    bias = bias if biased else None
    exact = [tensor.double().requires_grad_() for tensor in (push, total, offset, alpha)]
    expected = composed.inhibit(*exact, None if bias is None else bias.double(), side)
    if dtype == torch.float16:
        expected = expected.clamp(-65504, 65504)
    expected.backward(upstream.double())
    response = fused.forward(push, total, offset, alpha, bias, side)
    gradients = fused.backward(upstream, push, total, offset, alpha, side, [True] * 4)
    assert response.dtype == push.dtype
    assert response.stride() == push.stride()
    tolerance = 1e-5 if dtype == torch.float32 else 2 * torch.finfo(dtype).eps
    for name, ours, theirs in [
        ("response", response, expected),
        *zip(("push", "total", "offset", "alpha"), gradients, (tensor.grad for tensor in exact), strict=True),
    ]:
        assert ours.isfinite().all(), name
        difference = (ours.double() - theirs).abs().max() if ours.numel() else torch.zeros(())
        assert difference <= tolerance * max(1, theirs.abs().max() if ours.numel() else 0), (name, shape, difference)
    print(shape, dtype, side, "agrees")


if __name__ == "__main__":
    last = torch.channels_last
    agree((2, 5, 7, 9), torch.float32, 3)
    agree((2, 5, 7, 9), torch.float32, 3, layout=last, biased=False)
    agree((1, 70, 6, 11), torch.float32, 5, layout=last)  # more channels than a tile
    agree((1, 2, 50, 53), torch.float32, 3)  # more positions than a tile
    agree((1, 3, 2, 3), torch.float32, 7)  # windows larger than the map
    agree((2, 4, 5, 5), torch.float32, 0, layout=last)
    agree((2, 4, 5, 5), torch.float32, 1, strided_gradient=True)
    agree((0, 4, 5, 5), torch.float32, 3)
    for half in HALF:
        agree((2, 6, 9, 8), half, 3, layout=last)
        agree((2, 6, 9, 8), half, 5, scale=6000.0 if half == torch.float16 else 1e30)

import itertools

import pytest
import torch

from pushpull_conv import PushPullConv2d
from pushpull_conv.functional import push_pull_conv2d
from pushpull_conv.kernels import blocked, composed
from pushpull_conv.kernels.operator import constant_when_compiled, inhibit


def arguments(shape=(3, 5, 6, 7), dtype=torch.float32, layout=torch.contiguous_format):
    torch.manual_seed(0)
    push = torch.randn(shape).to(dtype).contiguous(memory_format=layout)
    wide = torch.promote_types(dtype, torch.float32)
    vectors = [torch.randn(shape[1], dtype=wide) for _ in range(3)]
    return [push, torch.randn(shape[0], 1, *shape[2:], dtype=wide), *vectors]


@pytest.mark.parametrize("block", [1, 100, 500, 2**18])  # a plane holds 42 values, an image 210
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [0, 1, 3, 5, 7, 15])
def test_blocks_of_any_size_give_values_and_gradients_of_the_composed_form(block, layout, side, monkeypatch):
    monkeypatch.setattr(blocked, "_BLOCK", block)
    given = [tensor.requires_grad_() for tensor in arguments(dtype=torch.float64, layout=layout)]
    response, expected = inhibit(*given, side), composed.inhibit(*given, side)
    torch.testing.assert_close(response, expected)
    assert response.stride() == given[0].stride()
    upstream = torch.randn_like(expected)
    for ours, theirs in zip(*(torch.autograd.grad(y, given, upstream) for y in (response, expected)), strict=True):
        torch.testing.assert_close(ours, theirs)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("side", [0, 3])
def test_half_precision_computes_in_single(dtype, side):
    given = [tensor.requires_grad_() for tensor in arguments(dtype=dtype)]
    exact = [tensor.detach().double().requires_grad_() for tensor in given]
    response, expected = inhibit(*given, side), composed.inhibit(*exact, side)
    upstream = torch.randn_like(response)
    torch.testing.assert_close(response.double(), expected, atol=1e-6, rtol=torch.finfo(dtype).eps)
    gradients = torch.autograd.grad(response, given, upstream), torch.autograd.grad(expected, exact, upstream.double())
    for ours, theirs in zip(*gradients, strict=True):
        torch.testing.assert_close(ours.double(), theirs, atol=1e-4, rtol=torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("side", [0, 3, 5, 7])
def test_without_gradients_the_same_response_takes_the_place_of_push(dtype, layout, side):
    unit = PushPullConv2d(3, 8, 3, padding=1, avg_kernel_size=side, trainable_alpha=True, dtype=dtype)
    image = torch.randn(2, 3, 12, 9).to(dtype).contiguous(memory_format=layout)
    learning = unit(image)
    with torch.no_grad():
        assert unit(image).equal(learning)
    with torch.inference_mode():
        assert unit(image).equal(learning)
    given = arguments(dtype=dtype, layout=layout)
    assert inhibit(*given, side).data_ptr() == given[0].data_ptr()


def test_pytorch_accepts_the_operators():
    torch.library.opcheck(torch.ops.pushpull_conv.inhibit_.default, (*arguments((2, 3, 4, 5)), 3))
    given = [tensor.requires_grad_() for tensor in arguments((2, 3, 4, 5))]
    torch.library.opcheck(torch.ops.pushpull_conv.inhibit.default, (*given, 3))
    torch.library.opcheck(torch.ops.pushpull_conv.inhibit.default, (*given[:4], None, 5))


@pytest.mark.parametrize("settings", [{}, {"trainable_alpha": True}, {"avg_kernel_size": 5, "bias": False}])
def test_training_saves_one_map_beyond_the_convolution(settings):
    unit, sizes = PushPullConv2d(3, 64, 7, stride=2, padding=3, **settings), {}
    image = torch.randn(2, 3, 32, 32)

    def count(tensor):
        sizes[tensor.data_ptr()] = tensor.numel()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(count, lambda tensor: tensor):
        response = unit(image)
    others = sum(sizes.values()) - response.numel()
    assert others < image.numel() + unit.weight.numel() + response.numel() / 64 + 1000


@pytest.mark.parametrize("side", [0, 3])
def test_an_inhibition_beyond_half_precision_saturates(side):
    # Weights near 1 and one of 3: push is 27 * 1000 + ..., pull (4 - 1) * 27 * 1000 and more than 65504.
    x, weight = torch.full((1, 3, 8, 8), 1000.0).half(), torch.ones(2, 3, 3, 3)
    weight[:, 0, 0, 0] = 3
    weight[1] *= -1
    given = weight.half().requires_grad_()
    assert torch.nn.functional.conv2d(x, given).isfinite().all()
    response = push_pull_conv2d(x, given, avg_kernel_size=side)
    response.float().sum().backward()
    assert response.isfinite().all()
    assert response.min() < -30_000
    assert given.grad.isfinite().all()
    plain = composed.inhibit(
        torch.nn.functional.conv2d(x, given), torch.full((1, 1, 6, 6), 27_000.0), torch.tensor([4.0, -4.0]),
        torch.ones(2), None, side,
    )  # fmt: skip
    torch.testing.assert_close(response, plain)


def test_higher_derivatives_and_transformations_go_through_the_composed_form():
    x, weight = torch.randn(1, 1, 5, 5, dtype=torch.float64), torch.randn(1, 1, 2, 2, dtype=torch.float64)

    def loss(weight):
        return push_pull_conv2d(x, weight).square().sum()

    twice = torch.autograd.functional.hessian(loss, weight)
    torch.testing.assert_close(torch.func.hessian(loss)(weight), twice)
    torch.testing.assert_close(torch.func.jacrev(torch.func.jacrev(loss))(weight), twice)


@pytest.mark.parametrize("shape", list(itertools.product([0, 2], [4], [1, 3], [1, 5])))
def test_small_and_empty_maps(shape):
    given = [tensor.requires_grad_() for tensor in arguments(shape)]
    response = inhibit(*given, 3)
    torch.testing.assert_close(response, composed.inhibit(*given, 3))
    response.sum().backward()
    assert all(tensor.grad.isfinite().all() for tensor in given)


def test_a_constant_is_marked_as_pytorch_marks_it():
    functions = [lambda: 0, lambda: 0]
    torch.compiler.assume_constant_result(functions[0])
    assert constant_when_compiled(functions[1]) is functions[1]
    assert vars(functions[0]) == vars(functions[1])

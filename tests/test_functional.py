import itertools

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import nn

from pushpull_conv.errors import InputError
from pushpull_conv.functional import pull_kernel, push_pull_conv2d, push_pull_conv2d_reference

NUMPY_PADDING = {"zeros": "constant", "reflect": "reflect", "replicate": "edge", "circular": "wrap"}


def oracle(
    x, weight, bias, alpha, *, avg_kernel_size=3, stride=1, padding=0, dilation=1, groups=1, padding_mode="zeros"
):
    """The definition in NumPy and float64: two convolutions summed tap by tap, and means over explicit windows."""
    x, weight = (tensor.detach().double().numpy() for tensor in (x, weight))
    (sy, sx), (dy, dx) = (np.broadcast_to(value, 2) for value in (stride, dilation))
    _, _, kh, kw = weight.shape
    if padding == "same":
        spans = dy * (kh - 1), dx * (kw - 1)
        borders = [(span // 2, span - span // 2) for span in spans]
    else:
        borders = [(side, side) for side in np.broadcast_to(0 if padding == "valid" else padding, 2)]
    x = np.pad(x, [(0, 0), (0, 0), *borders], mode=NUMPY_PADDING[padding_mode])
    height = (x.shape[2] - dy * (kh - 1) - 1) // sy + 1
    width = (x.shape[3] - dx * (kw - 1) - 1) // sx + 1

    def convolve(kernels):
        maps = []
        for inputs, filters in zip(np.split(x, groups, axis=1), np.split(kernels, groups), strict=True):
            taps = (
                np.einsum(
                    "nchw,oc->nohw",
                    inputs[
                        :, :, i * dy : i * dy + (height - 1) * sy + 1 : sy, j * dx : j * dx + (width - 1) * sx + 1 : sx
                    ],
                    filters[:, :, i, j],
                )
                for i, j in itertools.product(range(kh), range(kw))
            )
            maps.append(sum(taps))
        return np.concatenate(maps, axis=1)

    constant = np.array([one.min() + one.max() for one in weight]).reshape(-1, 1, 1, 1)
    push, pull = convolve(weight), convolve(constant - weight)
    mean, reach = np.empty_like(pull), max(avg_kernel_size, 1) // 2
    for i, j in itertools.product(range(height), range(width)):
        window = pull[:, :, max(i - reach, 0) : i + reach + 1, max(j - reach, 0) : j + reach + 1]
        mean[:, :, i, j] = window.mean((2, 3))
    strength = np.broadcast_to(np.asarray(alpha, dtype=np.float64), len(weight)).reshape(-1, 1, 1)
    shift = 0 if bias is None else bias.detach().double().numpy().reshape(-1, 1, 1)
    return torch.from_numpy(np.maximum(push, 0) - strength * np.maximum(mean, 0) + shift)


def assert_near(actual, expected, tolerance=1e-5):
    """Equal to ``tolerance`` relative to the largest value."""
    assert actual.shape == expected.shape
    scale = max(1.0, expected.abs().max().item())
    assert (actual.double() - expected).abs().max().item() <= tolerance * scale


pairs = st.one_of(st.integers(1, 3), st.tuples(st.integers(1, 3), st.integers(1, 3)))


@st.composite
def convolutions(draw):
    """A random input, weight, bias, alpha and setting of the unit."""
    groups = draw(st.sampled_from([1, 2, 3]))
    kernel = draw(st.tuples(st.integers(1, 4), st.integers(1, 4)))
    dilation = draw(pairs)
    padding = draw(
        st.one_of(
            st.integers(0, 3), st.tuples(st.integers(0, 3), st.integers(0, 3)), st.sampled_from(["same", "valid"])
        )
    )
    stride = 1 if padding == "same" else draw(pairs)
    sides = draw(st.tuples(st.integers(4, 13), st.integers(4, 13)))
    spans = [d * (k - 1) for d, k in zip(np.broadcast_to(dilation, 2), kernel, strict=True)]
    borders = (
        [0, 0] if padding == "valid" else spans if padding == "same" else [2 * p for p in np.broadcast_to(padding, 2)]
    )
    assume(all(side + border > span for side, border, span in zip(sides, borders, spans, strict=True)))
    assume(all((border + 1) // 2 < side for side, border in zip(sides, borders, strict=True)))  # as reflection needs
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**31)))
    inputs, filters = groups * draw(st.integers(1, 2)), groups * draw(st.integers(1, 3))
    x = torch.randn(draw(st.integers(1, 3)), inputs, *sides, generator=generator)
    weight = torch.randn(filters, inputs // groups, *kernel, generator=generator)
    bias = torch.randn(filters, generator=generator) if draw(st.booleans()) else None
    alpha = torch.rand(filters, generator=generator) if draw(st.booleans()) else draw(st.floats(-2, 2, width=32))
    settings = {
        "avg_kernel_size": draw(st.sampled_from([0, 1, 3, 5, 7])),
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
        "padding_mode": draw(st.sampled_from(list(NUMPY_PADDING))),
    }
    return (x, weight, bias, alpha), settings


@given(convolutions())
@settings(max_examples=250, deadline=None)
def test_both_forms_equal_the_definition(case):
    arguments, settings = case
    expected = oracle(*arguments, **settings)
    assert_near(push_pull_conv2d(*arguments, **settings), expected)
    assert_near(push_pull_conv2d_reference(*arguments, **settings), expected)


def test_a_value_worked_by_hand():
    # One filter [1, -2] has m = -1 and the pull kernel [-2, 1]. Push is [1 - 6, 3 - 2] = [-5, 1],
    # pull is [-2 + 3, -6 + 1] = [1, -5], and its mean over three positions, two of them inside, is -2 twice.
    x, weight = torch.tensor([[[[1.0, 3.0, 1.0]]]]), torch.tensor([[[[1.0, -2.0]]]])
    assert pull_kernel(weight).tolist() == [[[[-2.0, 1.0]]]]
    assert push_pull_conv2d(x, weight, alpha=0.5, avg_kernel_size=0).tolist() == [[[[-0.5, 1.0]]]]
    assert push_pull_conv2d(x, weight, alpha=0.5, avg_kernel_size=3).tolist() == [[[[0.0, 1.0]]]]


def test_pull_kernel_mirrors_each_filter_and_is_its_own_inverse():
    weight = torch.randn(6, 3, 5, 5)
    pull = pull_kernel(weight)
    flat, pulled = weight.flatten(1), pull.flatten(1)
    torch.testing.assert_close(pulled.amin(1), flat.amin(1))
    torch.testing.assert_close(pulled.amax(1), flat.amax(1))
    torch.testing.assert_close(pull_kernel(pull), weight)
    assert np.corrcoef(flat[0], pulled[0])[0, 1] == pytest.approx(-1)


def test_without_inhibition_the_unit_is_a_rectified_convolution_and_bias():
    x, weight, bias = torch.randn(2, 3, 9, 9), torch.randn(4, 3, 3, 3), torch.randn(4)
    expected = torch.relu(nn.functional.conv2d(x, weight)) + bias.view(-1, 1, 1)
    torch.testing.assert_close(push_pull_conv2d(x, weight, bias, 0.0), expected)


@pytest.mark.parametrize("shape", [(8, 8), (1, 1, 3, 8, 8)])
def test_neither_an_image_nor_a_batch_is_refused_as_by_a_convolution(shape):
    with pytest.raises(RuntimeError, match=r"Expected 3D .* or 4D"):
        push_pull_conv2d(torch.randn(shape), torch.randn(4, 3, 3, 3))


def test_an_empty_batch_gives_an_empty_response():
    assert push_pull_conv2d(torch.randn(0, 3, 8, 8), torch.randn(4, 3, 3, 3)).shape == (0, 4, 6, 6)


@pytest.mark.parametrize("form", [push_pull_conv2d, push_pull_conv2d_reference])
def test_an_unbatched_image_gives_an_unbatched_response(form):
    x, weight = torch.randn(3, 9, 9), torch.randn(4, 3, 3, 3)
    alone = form(x, weight, padding=1, padding_mode="reflect")
    torch.testing.assert_close(alone, form(x[None], weight, padding=1, padding_mode="reflect")[0])


@pytest.mark.parametrize("avg_kernel_size", [0, 3, 5])
@pytest.mark.parametrize("groups", [1, 2])
def test_gradients_of_first_and_second_order(avg_kernel_size, groups):
    torch.manual_seed(1)
    x, weight = torch.randn(2, 2, 5, 5), torch.randn(2, 2 // groups, 2, 3)
    arguments = [value.double().requires_grad_() for value in (x, weight, torch.randn(2), torch.rand(2))]

    def unit(*arguments):
        return push_pull_conv2d(*arguments, avg_kernel_size=avg_kernel_size, padding=1, stride=(1, 2), groups=groups)

    assert torch.autograd.gradcheck(unit, arguments, check_forward_ad=True)
    assert torch.autograd.gradgradcheck(unit, arguments)


def test_gradients_equal_those_of_the_two_convolutions():
    x, weight, bias, alpha = torch.randn(3, 4, 11, 9), torch.randn(6, 2, 3, 3), torch.randn(6), torch.rand(6)
    gradients = []
    for form in (push_pull_conv2d, push_pull_conv2d_reference):
        arguments = [value.clone().requires_grad_() for value in (x, weight, bias, alpha)]
        form(*arguments, groups=2, stride=2, padding="valid").square().sum().backward()
        gradients.append([value.grad for value in arguments])
    for fast, slow in zip(*gradients, strict=True):
        torch.testing.assert_close(fast, slow, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_as_exact_as_its_convolution(dtype):
    x, weight = torch.randn(2, 3, 16, 16), torch.randn(8, 3, 7, 7) / 12
    response = push_pull_conv2d(x.to(dtype), weight.to(dtype), alpha=0.7)
    expected = oracle(x.to(dtype), weight.to(dtype), None, 0.7)
    assert response.dtype == dtype
    assert_near(response, expected, tolerance=4 * torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast_gives_the_dtype_of_a_convolution_and_near_values(dtype):
    x, weight = torch.randn(2, 3, 16, 16), (torch.randn(8, 3, 7, 7) / 12).requires_grad_()
    with torch.autocast("cpu", dtype=dtype):
        response = push_pull_conv2d(x, weight, alpha=0.7)
    assert response.dtype == dtype
    assert_near(response.detach(), oracle(x, weight, None, 0.7), tolerance=8 * torch.finfo(dtype).eps)
    response.float().square().sum().backward()
    assert weight.grad.dtype == torch.float32


def test_half_precision_does_not_overflow_where_the_convolution_does_not():
    # Sums over the window reach 2e6 and over the averaged window 5e7, far beyond 65504.
    x = torch.full((1, 3, 12, 12), 30_000.0, dtype=torch.float16)
    weight = torch.randn(4, 3, 5, 5)
    weight = weight - weight.mean((1, 2, 3), keepdim=True)
    weight = (weight - (weight.amin((1, 2, 3)) + weight.amax((1, 2, 3))).view(-1, 1, 1, 1) / 2).half() / 1000
    assert nn.functional.conv2d(x, weight).isfinite().all()
    response = push_pull_conv2d(x, weight, avg_kernel_size=5)
    assert response.isfinite().all()
    assert_near(response, oracle(x, weight, None, 1.0, avg_kernel_size=5), tolerance=1e-2)


@pytest.mark.parametrize("avg_kernel_size", [0, 3])
def test_channels_last_is_kept(avg_kernel_size):
    x = torch.randn(2, 3, 9, 9).to(memory_format=torch.channels_last)
    weight, alpha = torch.randn(4, 3, 3, 3), torch.rand(4)
    response = push_pull_conv2d(x, weight, alpha=alpha, avg_kernel_size=avg_kernel_size)
    assert response.is_contiguous(memory_format=torch.channels_last)
    assert_near(response, oracle(x, weight, None, alpha, avg_kernel_size=avg_kernel_size))


def test_the_arguments_are_left_as_they_were():
    arguments = [torch.randn(2, 3, 9, 9), torch.randn(4, 3, 3, 3), torch.randn(4), torch.rand(4)]
    copies = [value.clone() for value in arguments]
    push_pull_conv2d(*arguments)
    assert all(torch.equal(value, copy) for value, copy in zip(arguments, copies, strict=True))


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_function_transforms():
    x, weights, alphas, biases = (
        torch.randn(2, 3, 8, 8),
        torch.randn(5, 4, 3, 3, 3),
        torch.rand(5, 4),
        torch.randn(5, 4),
    )
    stacked = (weights, biases, alphas)
    for mapped in itertools.product([False, True], repeat=3):
        if not any(mapped):
            continue
        arguments = [values if each else values[0] for values, each in zip(stacked, mapped, strict=True)]
        dims = (None, *(0 if each else None for each in mapped))
        responses = torch.func.vmap(push_pull_conv2d, dims)(x, *arguments)
        for i, response in enumerate(responses):
            single = [values[i] if each else values[0] for values, each in zip(stacked, mapped, strict=True)]
            torch.testing.assert_close(response, push_pull_conv2d(x, *single), atol=1e-4, rtol=1e-4)

    def loss(weight, image):
        return push_pull_conv2d(image, weight).square().sum()

    per_image = torch.func.vmap(torch.func.grad(loss), (None, 0))(weights[0], x)
    whole = torch.func.grad(loss)(weights[0], x)
    torch.testing.assert_close(per_image.sum(0), whole, atol=1e-2, rtol=1e-4)


def test_a_strength_may_be_a_number_of_any_type():
    x, weight = torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3)
    for half in (np.float32(0.5), torch.tensor(0.5)):
        assert torch.equal(push_pull_conv2d(x, weight, alpha=half), push_pull_conv2d(x, weight, alpha=0.5))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"avg_kernel_size": 4}, "avg_kernel_size is 4; .* use 3 or 5"),
        ({"avg_kernel_size": -1}, "avg_kernel_size is -1; .* use 0 for no averaging"),
        ({"avg_kernel_size": 3.0}, "avg_kernel_size is 3.0; .*whole number"),
        ({"avg_kernel_size": True}, "avg_kernel_size is True"),
        ({"alpha": float("nan")}, "alpha is nan; allowed: any finite number"),
        ({"alpha": "1"}, "alpha is '1'; allowed: any finite number"),
        ({"alpha": float("-inf")}, "alpha is -inf"),
        ({"alpha": torch.rand(3)}, r"alpha has shape \[3\]; allowed: a number or \[4\]"),
        ({"alpha": torch.rand(4, 1)}, r"alpha has shape \[4, 1\]"),
        ({"padding": "sme"}, "unknown padding 'sme'; did you mean 'same'"),
        ({"padding": "sme", "padding_mode": "reflect"}, "unknown padding 'sme'; did you mean 'same'"),
        ({"padding": "same", "stride": 2}, "padding is 'same' and stride 2; allowed: stride 1 with it"),
        ({"padding": "same", "stride": (2, 1), "padding_mode": "circular"}, "padding is 'same' and stride"),
        ({"padding_mode": "mirror"}, "unknown padding_mode 'mirror'.*zeros, reflect, replicate, circular"),
    ],
)
@pytest.mark.parametrize("form", [push_pull_conv2d, push_pull_conv2d_reference])
def test_bad_input_is_named(form, settings, message):
    with pytest.raises(InputError, match=message) as error:
        form(torch.randn(1, 3, 8, 8), torch.randn(4, 3, 3, 3), **settings)
    assert "\n" not in str(error.value)

"""The comparison layers against numpy and scipy, and what every one of them keeps of `torch.nn.Conv2d`."""

import copy
import io
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.signal
import scipy.special
import torch
from torch import nn

from pushpull_conv.comparison_layers import (
    BlurPool2d,
    BlurPoolConv2d,
    BlurredConv2d,
    SurroundSuppressedConv2d,
    UpsampledPullConv2d,
    VariedPushPullConv2d,
)
from pushpull_conv.comparison_layers.blur import blur
from pushpull_conv.errors import InputError
from pushpull_conv.functional import push_pull_conv2d_reference

BLURS = {2: [1, 1], 3: [1, 2, 1], 5: [1, 4, 6, 4, 1]}  # Zhang 2019: Rect-2, Tri-3, Bin-5
CONVOLUTIONS = [
    (UpsampledPullConv2d, {"scale": 1.5, "alpha": 0.7}),
    (UpsampledPullConv2d, {"trainable_alpha": True}),
    (BlurredConv2d, {"blur_kernel_size": 3}),
    (BlurPoolConv2d, {"blur_kernel_size": 3}),
    (SurroundSuppressedConv2d, {"sigma": 0.4, "alpha": 0.7}),
    (SurroundSuppressedConv2d, {"sigma": 0.4, "trainable_alpha": True}),
    (VariedPushPullConv2d, {"avg_kernel_sizes": (1, 3), "pull_constant": "channel"}),
    (VariedPushPullConv2d, {"trainable_alpha": True, "alpha_limit": 0.8}),
    (VariedPushPullConv2d, {"blur_kernel_size": 3}),
]
GEOMETRIES = [
    {"kernel_size": 3, "stride": 2, "padding": 1},
    {"kernel_size": 5, "padding": "same", "padding_mode": "reflect"},
    {"kernel_size": 3, "padding": "same", "dilation": 2, "bias": False},
    {"kernel_size": 3, "padding": "valid", "groups": 2},
    {"kernel_size": (3, 5), "padding": (1, 2), "stride": 2, "padding_mode": "circular"},
    {"kernel_size": 4, "padding": 2, "padding_mode": "replicate"},
]


def double(*shape, seed=0):
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def correlate(x, kernel, stride=1):
    """Correlate ``[C, H, W]`` with ``[O, C, kh, kw]`` by scipy, borders cut off."""
    planes = [sum(scipy.signal.correlate2d(a, b, mode="valid") for a, b in zip(x, k, strict=True)) for k in kernel]
    return np.stack(planes)[:, ::stride, ::stride]


def padded(x, border):
    return np.pad(x, ((0, 0), (border, border), (border, border)))


def relu(x):
    return np.maximum(x, 0)


@pytest.mark.parametrize("side", BLURS)
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(7, 10), (8, 9)])
def test_blur_pool_is_scipys_mirrored_correlation_subsampled(side, stride, size):
    x = double(2, 3, *size)
    row = np.array(BLURS[side], float) / sum(BLURS[side])
    # scipy's "mirror" is torch's "reflect"; an even filter of scipy has its middle one pixel later.
    blurred = scipy.ndimage.correlate(
        x.numpy(), np.outer(row, row)[None, None], mode="mirror", origin=(0, 0, -1, -1) if side % 2 == 0 else 0
    )
    expected = blurred[..., ::stride, ::stride]
    assert BlurPool2d(side, stride).double()(x).numpy() == pytest.approx(expected, abs=1e-12)
    assert expected.shape[2:] == tuple(math.ceil(length / stride) for length in size)


def test_blur_pool_keeps_a_constant_and_removes_the_highest_frequency():
    constant = torch.full((1, 2, 9, 9), 3.0)
    checkers = (-1.0) ** (torch.arange(9)[:, None] + torch.arange(9)).expand(1, 2, 9, 9)
    torch.testing.assert_close(BlurPool2d(3, 2)(constant), torch.full((1, 2, 5, 5), 3.0))
    torch.testing.assert_close(BlurPool2d(3, 2)(checkers), torch.zeros(1, 2, 5, 5))


def test_blur_pool_takes_unbatched_half_precision_and_learns_nothing():
    blur, x = BlurPool2d(5, 2), torch.randn(3, 12, 12)
    torch.testing.assert_close(blur(x), blur(x[None])[0])
    assert blur(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(blur(x.bfloat16()).float(), blur(x), atol=0.03, rtol=0.03)
    assert not list(blur.parameters())
    assert "kernel_size=5, stride=2" in repr(blur)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_blurred_convolution_is_convolution_then_blur_by_scipy(stride):
    layer = BlurredConv2d(3, 4, 5, stride=stride, padding=2, blur_kernel_size=3, dtype=torch.float64)
    x = double(3, 11, 12)
    response = correlate(padded(x.numpy(), 2), layer.weight.detach().numpy())
    row = np.array(BLURS[3]) / 4
    blurred = scipy.ndimage.correlate(response, np.outer(row, row)[None], mode="mirror")
    expected = blurred[:, ::stride, ::stride] + layer.bias.detach().numpy()[:, None, None]
    assert layer(x).detach().numpy() == pytest.approx(expected, abs=1e-12)


POINTWISE = [
    {"bias": False},
    {"groups": 2, "blur_kernel_size": 4},
    {"padding_mode": "circular", "dilation": 3},
    {"stride": 3, "padding": "valid", "blur_kernel_size": 5},
    {"padding": 1},
    {"stride": 1},
]


@pytest.mark.parametrize("geometry", POINTWISE)
def test_a_strided_pointwise_convolution_is_blurred_first_where_that_is_the_same(geometry):
    layer = BlurredConv2d(4, 8, 1, **{"stride": 2} | geometry, dtype=torch.float64)
    x = double(2, 4, 9, 12).requires_grad_()
    response = torch.nn.functional.conv2d(layer._padded(x), layer.weight, layer.bias, groups=layer.groups)
    expected = blur(response, layer.filter, layer.stride[0])
    torch.testing.assert_close(layer(x), expected, atol=1e-12, rtol=1e-12)
    wanted = [x, *layer.parameters()]
    weighting = double(*expected.shape, seed=1)
    got, right = (torch.autograd.grad((y * weighting).sum(), wanted) for y in (layer(x), expected))
    torch.testing.assert_close(got, right, atol=1e-11, rtol=1e-11)
    torch.testing.assert_close(layer(x[0]), layer(x)[0])


def test_blur_pooled_convolution_is_blur_then_convolution_by_scipy():
    layer = BlurPoolConv2d(3, 4, 3, padding=1, blur_kernel_size=5, dtype=torch.float64)
    x = double(3, 11, 12)
    row = np.array(BLURS[5]) / 16
    pooled = scipy.ndimage.correlate(x.numpy(), np.outer(row, row)[None], mode="mirror")[:, ::2, ::2]
    expected = correlate(padded(pooled, 1), layer.weight.detach().numpy()) + layer.bias.detach().numpy()[:, None, None]
    assert layer(x).detach().numpy() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(
    ("side", "scale", "pull_side"), [(3, 1, 3), (3, 1.5, 5), (3, 2, 7), (5, 1.5, 7), (7, 2, 15), (4, 2, 8)]
)
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("stride", [1, 2])
def test_the_upsampled_pull_layer_is_its_formula_by_scipy(side, scale, pull_side, bias, stride):
    torch.manual_seed(1)
    layer = UpsampledPullConv2d(2, 3, side, stride, side // 2, bias=bias, scale=scale, alpha=0.7, dtype=torch.float64)
    x, weight = double(2, 12, 13).numpy(), layer.weight.detach().numpy()
    # Corner on corner, order 1: bilinear interpolation at evenly spaced places from the first to the last weight.
    places = np.linspace(0, side - 1, pull_side)
    grid = np.meshgrid(places, places, indexing="ij")
    pull = [[-scipy.ndimage.map_coordinates(plane, grid, order=1) for plane in kernel] for kernel in weight]
    shift = layer.bias.detach().numpy()[:, None, None] if bias else 0
    border = side // 2
    push_response = correlate(padded(x, border), weight, stride) + shift
    pull_response = correlate(padded(x, border + (pull_side - side) // 2), np.array(pull), stride) - shift
    expected = relu(push_response) - 0.7 * relu(pull_response)
    assert layer(torch.from_numpy(x)).detach().numpy() == pytest.approx(expected, abs=1e-10)
    assert layer.pull_kernel().shape == (3, 2, pull_side, pull_side)


def test_a_trained_alpha_of_the_upsampled_pull_layer_starts_and_acts_as_in_the_published_code():
    torch.manual_seed(0)
    layer = UpsampledPullConv2d(4, 4000, 1, trainable_alpha=True)
    spread = (4 * 4000) ** -0.5
    assert layer.alpha.min().item() == pytest.approx(0.5 - spread, abs=spread / 100)
    assert layer.alpha.max().item() == pytest.approx(0.5 + spread, abs=spread / 100)
    layer = UpsampledPullConv2d(3, 2, 3, trainable_alpha=True)
    with torch.no_grad():
        layer.alpha.copy_(torch.tensor([-1.0, 0.5]))
    x = torch.randn(1, 3, 9, 9)
    fixed = UpsampledPullConv2d.from_conv2d(nn.Conv2d(3, 2, 3), alpha=0.5)
    fixed.load_state_dict(layer.state_dict() | {"alpha": torch.tensor([0.0, 0.5])})
    torch.testing.assert_close(layer(x), fixed(x))


def ring(sigma, reach):
    """Grigorescu et al. 2003, equations 8 and 9, on a grid."""
    y, x = np.mgrid[-reach : reach + 1, -reach : reach + 1]

    def gaussian(deviation):
        return np.exp(-(x**2 + y**2) / (2 * deviation**2)) / (2 * np.pi * deviation**2)

    positive = relu(gaussian(4 * sigma) - gaussian(sigma))
    return positive / positive.sum()


@pytest.mark.parametrize(("sigma", "reach"), [(0.5, 6), (0.4, 5), (1.0, 12)])
@pytest.mark.parametrize("stride", [1, 2])
def test_surround_suppression_is_its_formula_by_scipy(sigma, reach, stride):
    torch.manual_seed(1)
    layer = SurroundSuppressedConv2d(3, 4, 3, stride, 1, sigma=sigma, alpha=0.8, dtype=torch.float64)
    x = double(3, 15, 16)
    push = relu(correlate(padded(x.numpy(), 1), layer.weight.detach().numpy(), stride))
    suppression = scipy.ndimage.correlate(push, ring(sigma, reach)[None], mode="constant")
    expected = relu(push - 0.8 * suppression) + layer.bias.detach().numpy()[:, None, None]
    assert layer(x).detach().numpy() == pytest.approx(expected, abs=1e-10)
    assert layer.surround[0, 0].numpy() == pytest.approx(ring(sigma, reach), abs=1e-15)
    assert layer.surround[0, 0, reach, reach] == 0


def test_surround_suppression_silences_what_answers_everywhere_and_spares_a_point():
    layer = SurroundSuppressedConv2d(1, 1, 1, bias=False, sigma=0.5)
    nn.init.ones_(layer.weight)
    texture = torch.ones(1, 1, 31, 31)
    point = torch.zeros(1, 1, 31, 31)
    point[..., 15, 15] = 1
    assert layer(texture)[..., 10:-10, 10:-10].abs().max() < 1e-6
    torch.testing.assert_close(layer(point), point)


@pytest.mark.parametrize("geometry", GEOMETRIES)
@pytest.mark.parametrize("size", [1, 3, 5])
def test_at_its_defaults_the_varied_unit_is_the_unit(geometry, size):
    layer = VariedPushPullConv2d(4, 6, avg_kernel_sizes=(size,), alpha=0.7, **geometry).double()
    x = double(2, 4, 12, 14)
    names = ("stride", "dilation", "groups", "padding_mode", "padding")
    settings = {name: getattr(layer, name) for name in names}
    expected = push_pull_conv2d_reference(x, layer.weight, layer.bias, 0.7, avg_kernel_size=size, **settings)
    torch.testing.assert_close(layer(x), expected)


@pytest.mark.parametrize("stride", [1, 2])
def test_the_varied_unit_is_its_formula_by_scipy(stride):
    layer = VariedPushPullConv2d(
        3,
        4,
        3,
        stride,
        padding=1,
        avg_kernel_sizes=(1, 3, 5),
        pull_constant="channel",
        trainable_alpha=True,
        alpha_limit=2,
    ).double()
    with torch.no_grad():
        layer.pooling.copy_(double(4, 3, seed=5))
        layer.alpha.copy_(double(4, seed=6))
    x, weight = double(3, 9, 11), layer.weight.detach().numpy()
    constants = weight.min((2, 3), keepdims=True) + weight.max((2, 3), keepdims=True)
    assert layer.pull_kernel().detach().numpy() == pytest.approx(constants - weight)
    push, pull = (correlate(padded(x.numpy(), 1), kernel, stride) for kernel in (weight, constants - weight))
    shares = scipy.special.softmax(layer.pooling.detach().numpy(), axis=1)
    alpha = 2 * scipy.special.expit(layer.alpha.detach().numpy())
    inside = np.ones(push.shape[1:])
    for o in range(4):
        means = [
            scipy.ndimage.uniform_filter(pull[o], k, mode="constant")
            / scipy.ndimage.uniform_filter(inside, k, mode="constant")
            for k in (1, 3, 5)
        ]
        expected = relu(push[o]) - alpha[o] * relu(
            sum(share * mean for share, mean in zip(shares[o], means, strict=True))
        )
        assert layer(x)[o].detach().numpy() == pytest.approx(expected + layer.bias[o].item(), abs=1e-10)


@pytest.mark.parametrize("side", [2, 3, 5])
@pytest.mark.parametrize("stride", [1, 2])
def test_with_a_blur_the_varied_unit_is_the_unit_on_blurred_responses(stride, side):
    layer = VariedPushPullConv2d(3, 4, 3, stride, padding=1, alpha=0.7, blur_kernel_size=side).double()
    x = double(2, 3, 12, 14)
    push, pull = (BlurredConv2d(3, 4, 3, stride, padding=1, bias=False, blur_kernel_size=side).double() for _ in "12")
    push.weight.data, pull.weight.data = layer.weight.detach(), layer.pull_kernel().detach()
    averaged = nn.functional.avg_pool2d(pull(x), 5, 1, 2, count_include_pad=False)
    torch.testing.assert_close(layer(x), push(x).relu() - 0.7 * averaged.relu() + layer.bias.view(-1, 1, 1))
    assert not any("filter" in name for name, _ in layer.named_parameters())


@pytest.mark.parametrize(("kind", "settings"), CONVOLUTIONS)
@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_shapes_and_parameters_are_those_of_the_convolution(kind, settings, geometry):
    torch.manual_seed(3)
    conv = nn.Conv2d(4, 6, **geometry)
    torch.manual_seed(3)
    layer = kind(4, 6, **geometry, **settings)
    assert torch.equal(layer.weight, conv.weight)
    x = torch.randn(2, 4, 14, 15)
    before = BlurPool2d()(x) if kind is BlurPoolConv2d else x
    assert layer(x).shape == conv(before).shape
    torch.testing.assert_close(layer(x[0]), layer(x)[0], atol=1e-5, rtol=1e-4)
    assert {*layer.state_dict()} - {"alpha", "pooling", "filter", "surround"} == {*conv.state_dict()}


@pytest.mark.parametrize(
    "blurred",
    [
        lambda: nn.Sequential(BlurredConv2d(3, 4, 3)),
        lambda: nn.Sequential(BlurPoolConv2d(3, 4, 3)),
        lambda: nn.Sequential(nn.Conv2d(3, 4, 3), BlurPool2d()),
    ],
)
def test_weights_that_learned_with_a_blur_do_not_fit_without_it_and_plain_ones_fit_with_it(blurred):
    plain, model = nn.Sequential(nn.Conv2d(3, 4, 3)), blurred()
    model.load_state_dict(plain.state_dict())
    assert torch.equal(model[0].weight, plain[0].weight)
    torch.testing.assert_close(model.state_dict(), blurred().state_dict() | plain.state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        plain.load_state_dict(model.state_dict())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_a_filter_that_the_settings_do_not_make_is_refused(dtype):
    """A ring of 12 x 0.45 and of 12 x 0.5 pixels is a tensor of the same shape."""
    layer, other, wide = (nn.Sequential(SurroundSuppressedConv2d(3, 4, 3, sigma=sigma)) for sigma in (0.45, 0.5, 4))
    ring = layer[0].surround.clone()
    message = r"'0.surround' belongs to other settings than those of SurroundSuppressedConv2d\(.*sigma=0.45\); give the"
    for strict in (True, False):
        with pytest.raises(RuntimeError, match=message):
            layer.load_state_dict(other.to(dtype).state_dict(), strict=strict)
    assert torch.equal(layer[0].surround, ring)
    for same in (layer, wide):  # as a file in half precision has them
        same.load_state_dict(copy.deepcopy(same).to(dtype).state_dict())
    with torch.device("meta"):
        unmade = nn.Sequential(SurroundSuppressedConv2d(3, 4, 3, sigma=0.45))
    unmade.load_state_dict(layer.state_dict(), assign=True)
    assert torch.equal(unmade[0].surround, layer[0].surround)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_without_their_own_part_the_layers_are_the_rectified_convolution(geometry):
    """At alpha 0 what is left is relu(conv), in any geometry."""
    x = double(2, 4, 14, 15)
    conv = nn.Conv2d(4, 6, **geometry, dtype=torch.float64)
    shift = 0 if conv.bias is None else conv.bias.view(-1, 1, 1)
    torch.testing.assert_close(UpsampledPullConv2d.from_conv2d(conv, alpha=0.0)(x), conv(x).relu())
    suppressed = SurroundSuppressedConv2d.from_conv2d(conv, alpha=0.0)
    torch.testing.assert_close(suppressed(x), (conv(x) - shift).relu() + shift)


@pytest.mark.parametrize("geometry", GEOMETRIES)
def test_at_scale_1_push_and_pull_are_the_two_halves_of_the_convolution(geometry):
    """With alpha -1 the pull is added: relu(z) + relu(-z) = |z|."""
    x = double(2, 4, 14, 15)
    conv = nn.Conv2d(4, 6, **geometry, dtype=torch.float64)
    torch.testing.assert_close(UpsampledPullConv2d.from_conv2d(conv, alpha=-1.0, scale=1)(x), conv(x).abs())


@pytest.mark.parametrize("kind", [UpsampledPullConv2d, SurroundSuppressedConv2d, VariedPushPullConv2d])
def test_a_layer_tells_the_strength_that_it_has(kind):
    """Not that with which it was built, before a state dict was loaded."""
    layer = kind(3, 4, 3, alpha=1.0)
    layer.load_state_dict(kind(3, 4, 3, alpha=0.25).state_dict())
    assert repr(layer) == repr(kind(3, 4, 3, alpha=0.25))


@pytest.mark.parametrize(("kind", "settings"), CONVOLUTIONS)
def test_padding_may_be_changed_as_that_of_a_convolution(kind, settings):
    """As is done to dilate a trained backbone."""
    settings = settings | ({"blur_stride": 1} if kind is BlurPoolConv2d else {})
    layer, built = kind(3, 4, 3, padding=1, **settings), kind(3, 4, 3, padding=2, dilation=2, **settings)
    layer.dilation = layer.padding = (2, 2)
    built.load_state_dict(layer.state_dict())
    x = torch.randn(1, 3, 16, 16)
    assert torch.equal(layer(x), built(x))


@pytest.mark.parametrize("padding", [1, "same"])
@pytest.mark.parametrize("padding_mode", ["zeros", "reflect", "replicate", "circular"])
def test_the_enlarged_pull_kernel_keeps_its_middle(padding, padding_mode):
    """A kernel that is one point pulls with a hat around the same pixel, dilated with the kernel."""
    layer = UpsampledPullConv2d(1, 1, 3, padding=padding, padding_mode=padding_mode, bias=False, scale=2, alpha=-1.0)
    with torch.no_grad():
        layer.weight.zero_()[..., 1, 1] = -1.0
    x = torch.zeros(1, 1, 15, 15)
    x[..., 7, 7] = 1
    response = layer(x)[0, 0]
    hat = torch.tensor([1 / 3, 2 / 3, 1.0, 2 / 3, 1 / 3])
    torch.testing.assert_close(response[5:10, 5:10], hat[:, None] * hat)
    assert response.sum().item() == pytest.approx((hat.sum() ** 2).item(), abs=1e-5)


@pytest.mark.parametrize(("kind", "settings"), CONVOLUTIONS)
def test_gradients_are_right_in_float64(kind, settings):
    torch.manual_seed(0)
    layer = kind(2, 3, 3, stride=1 if kind is BlurPoolConv2d else 2, padding=1, dtype=torch.float64, **settings)
    x = double(1, 2, 9, 9).requires_grad_()
    names = [name for name, _ in layer.named_parameters()]

    def response(x, *values):
        return torch.func.functional_call(layer, dict(zip(names, values, strict=True)), (x,))

    assert torch.autograd.gradcheck(response, (x, *(value.detach().requires_grad_() for value in layer.parameters())))


@pytest.mark.parametrize(("kind", "settings"), CONVOLUTIONS)
def test_copies_and_state_dicts_compute_the_same(kind, settings):
    layer, x = kind(3, 8, 3, padding=1, **settings), torch.randn(2, 3, 12, 12)
    other = kind(3, 8, 3, padding=1, **settings)
    other.load_state_dict(layer.state_dict())
    buffer = io.BytesIO()
    torch.save(layer, buffer)
    buffer.seek(0)
    for twin in (copy.deepcopy(layer), other, torch.load(buffer, weights_only=False)):
        assert torch.equal(twin(x), layer(x))
        assert twin.weight.data_ptr() != layer.weight.data_ptr()


@pytest.mark.parametrize(("kind", "settings"), CONVOLUTIONS)
def test_built_around_a_convolution_it_keeps_its_parameters_and_draws_nothing(kind, settings):
    conv = nn.Conv2d(4, 6, 3, stride=2, padding=1, dtype=torch.float64).eval()
    conv.weight.requires_grad_(False)
    before = torch.get_rng_state()
    layer = kind.from_conv2d(conv, **settings)
    if not settings.get("trainable_alpha"):
        assert torch.equal(torch.get_rng_state(), before)
    assert layer.weight is conv.weight
    assert layer.bias is conv.bias
    assert not layer.training
    assert not any(buffer.is_meta for buffer in layer.buffers())
    assert {value.dtype for value in (*layer.parameters(), *layer.buffers())} == {torch.float64}
    assert layer(double(1, 4, 12, 12)).isfinite().all()


@pytest.mark.parametrize(("kind", "settings"), CONVOLUTIONS)
def test_meta_device_then_materialised(kind, settings):
    with torch.device("meta"):
        layer = kind(3, 8, 3, padding=1, **settings)
    assert layer(torch.empty(2, 3, 12, 12, device="meta")).shape[:2] == (2, 8)
    layer.to_empty(device="cpu")
    for buffer in layer.buffers():
        buffer.fill_(math.nan)
    torch.manual_seed(3)
    layer.reset_parameters()
    torch.manual_seed(3)
    fresh = kind(3, 8, 3, padding=1, **settings)
    x = torch.randn(2, 3, 12, 12)
    assert torch.equal(layer(x), fresh(x))
    assert isinstance(layer.__dict__["_parameters"].get("alpha"), nn.Parameter) == bool(settings.get("trainable_alpha"))


@pytest.mark.parametrize(("kind", "settings"), CONVOLUTIONS)
def test_half_precision_and_autocast(kind, settings):
    layer, x = kind(3, 8, 3, padding=1, **settings), torch.randn(2, 3, 12, 12)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        mixed = layer(x)
    assert mixed.dtype == torch.bfloat16
    assert layer.bfloat16()(x.bfloat16()).dtype == torch.bfloat16
    torch.testing.assert_close(mixed.float(), layer.float()(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize(("kind", "settings"), CONVOLUTIONS)
def test_compiles_to_one_graph_and_describes_itself(kind, settings):
    torch.compiler.reset()
    layer, x = kind(3, 8, 3, padding=1, **settings), torch.randn(2, 3, 12, 12)
    torch.testing.assert_close(torch.compile(layer, fullgraph=True, backend="aot_eager")(x), layer(x))
    for name, value in settings.items():
        assert (f"{name}={value}" if name != "trainable_alpha" else "alpha=trainable") in repr(layer)


@pytest.mark.parametrize(("kind", "settings"), [case for case in CONVOLUTIONS if case[0] is not VariedPushPullConv2d])
def test_a_symbolic_trace_serves_other_sizes(kind, settings):
    layer = kind(3, 8, 3, stride=2, padding=1, **settings)
    traced, x = torch.fx.symbolic_trace(layer), torch.randn(2, 3, 15, 12)
    torch.testing.assert_close(traced(x), layer(x))


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: BlurPool2d(1), "blur kernel_size is 1; allowed: 2 to 7"),
        (lambda: BlurPool2d(3, 0), "blur stride is 0; allowed: 1 to 16"),
        (lambda: BlurPool2d(3, 2.0), "blur stride is 2.0; allowed: 1 to 16"),
        (lambda: BlurredConv2d(3, 4, 3, blur_kernel_size=3.0), "blur kernel_size is 3.0; allowed: 2 to 7"),
        (lambda: BlurPool2d(5)(torch.rand(1, 1, 2, 9)), "the map to blur is 2 x 9 pixels; a blur of 5 needs 3 or more"),
        (lambda: BlurredConv2d(3, 4, 3, blur_kernel_size=8), "blur kernel_size is 8"),
        (lambda: BlurredConv2d(3, 4, 3, stride=(1, 2)), r"stride is \(1, 2\); allowed: the same along both axes"),
        (lambda: BlurPoolConv2d(3, 4, 3, blur_stride=99), "blur stride is 99"),
        (lambda: UpsampledPullConv2d(3, 4, 3, scale=2.5), "scale is 2.5; allowed: 1 to 2"),
        (lambda: UpsampledPullConv2d(3, 4, 3, scale=math.nan), "scale is nan"),
        (lambda: UpsampledPullConv2d(3, 4, 3, scale=None), "scale is None; allowed: 1 to 2"),
        (lambda: UpsampledPullConv2d(3, 4, 3, alpha=math.inf), "alpha is inf; allowed: any finite number"),
        (lambda: UpsampledPullConv2d(3, 4, 3, alpha=None), "alpha is None; allowed: any finite number"),
        (lambda: SurroundSuppressedConv2d(3, 4, 3, sigma=0), "sigma is 0; allowed: above 0 to 4"),
        (lambda: SurroundSuppressedConv2d(3, 4, 3, sigma="x"), "sigma is 'x'; allowed: above 0 to 4"),
        (lambda: SurroundSuppressedConv2d(3, 4, 3, alpha=math.nan), "alpha is nan"),
        (lambda: VariedPushPullConv2d(3, 4, 3, avg_kernel_sizes=()), "avg_kernel_sizes is empty"),
        (lambda: VariedPushPullConv2d(3, 4, 3, avg_kernel_sizes=(3, 4)), "avg_kernel_size is 4; allowed: 0 or an odd"),
        (lambda: VariedPushPullConv2d(3, 4, 3, pull_constant="pixel"), "unknown pull_constant 'pixel'"),
        (lambda: VariedPushPullConv2d(3, 4, 3, blur_kernel_size=8), "blur kernel_size is 8; allowed: 2 to 7"),
        (lambda: VariedPushPullConv2d(3, 4, 3, (1, 2), blur_kernel_size=3), r"stride is \(1, 2\); allowed: the same"),
        (lambda: VariedPushPullConv2d(3, 4, 3, alpha_limit=1.0), "alpha_limit is 1.0; it limits a learned alpha"),
        (lambda: VariedPushPullConv2d(3, 4, 3, trainable_alpha=True, alpha_limit=0.0), "alpha_limit is 0.0"),
        (lambda: VariedPushPullConv2d(3, 4, 3, trainable_alpha=True, alpha_limit="1"), "alpha_limit is '1'; it limits"),
        (lambda: VariedPushPullConv2d(3, 4, 3, avg_kernel_sizes=3), r"avg_kernel_sizes is 3; .*, one as \[3\]"),
    ],
)
def test_bad_input_is_named(build, message):
    with pytest.raises(InputError, match=message) as error:
        build()
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("kind", "settings"), CONVOLUTIONS)
def test_built_around_a_convolution_it_may_have_another_stride_and_nothing_else(kind, settings):
    conv, x = nn.Conv2d(4, 6, 3, stride=2, padding=1, bias=False), torch.randn(1, 4, 13, 13)
    layer, built = kind.from_conv2d(conv, stride=1, **settings), kind(4, 6, 3, padding=1, bias=False, **settings)
    built.load_state_dict(layer.state_dict())
    assert repr(layer) == repr(built)
    assert torch.equal(layer(x), built(x))
    for name, value in {"kernel_size": 5, "bias": True, "dtype": torch.float64, "device": "cpu"}.items():
        with pytest.raises(InputError, match=f"{name} is {value!r}, but the layer has that of conv; leave it out"):
            kind.from_conv2d(conv, **settings, **{name: value})

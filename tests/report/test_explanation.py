"""The figure that explains a stem, against independent computations of what it draws."""

from xml.etree import ElementTree

import numpy as np
import pytest
import scipy.signal
import torch
from timm.layers import StdConv2d

from pushpull_conv.functional import pull_kernel
from pushpull_conv.layers import PushPullConv2d
from pushpull_conv.models import swap_first_conv_
from pushpull_conv.report import write_explanation
from pushpull_conv.report.explanation import explanation_figure, rectified_responses, spectrum


@pytest.fixture
def unit():
    torch.manual_seed(0)
    unit = PushPullConv2d(3, 6, 3, padding=1, trainable_alpha=True)
    with torch.no_grad():
        unit.alpha.copy_(torch.tensor([-0.2, 0.0, 0.1, 0.5, 0.5, 1.4]))
    return unit


PHOTO = torch.randint(0, 256, (3, 20, 30), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
X = PHOTO[None] / 255 - 0.5


@pytest.mark.parametrize("settings", [{}, {"bias": False, "stride": 2}, {"avg_kernel_size": 0, "alpha": 0.3}])
def test_the_responses_are_those_of_two_convolutions(settings):
    torch.manual_seed(0)
    unit = PushPullConv2d(3, 4, 3, **settings)
    push, pull = rectified_responses(unit, X)
    kernels = unit.weight.detach()
    for kernel, response, pooled in (
        (kernels, push, False),
        (pull_kernel(kernels), pull, settings.get("avg_kernel_size", 3) > 1),
    ):
        expected = torch.nn.functional.conv2d(X, kernel, stride=unit.stride)
        if pooled:
            expected = torch.nn.functional.avg_pool2d(expected, 3, 1, 1, count_include_pad=False)
        torch.testing.assert_close(response, expected[0].relu(), atol=1e-5, rtol=1e-4)
    bias = 0 if unit.bias is None else unit.bias.detach().view(-1, 1, 1)
    torch.testing.assert_close(
        unit(X)[0].detach(), push - unit.alpha.view(-1, 1, 1) * pull + bias, atol=1e-5, rtol=1e-4
    )


def test_the_spectrum_is_that_of_the_autocorrelation():
    """Wiener and Khinchin: the power spectrum is the transform of the autocorrelation, summed over the channels."""
    kernel = torch.randn(2, 3, 3, generator=torch.Generator().manual_seed(0))
    autocorrelation = sum(scipy.signal.correlate2d(plane, plane) for plane in kernel.double().numpy())
    y = x = np.arange(-2, 3)
    frequencies = np.fft.fftshift(np.fft.fftfreq(64))
    cosines = np.cos(2 * np.pi * (frequencies[:, None, None, None] * y[:, None] + frequencies[:, None, None] * x))
    assert spectrum(kernel) == pytest.approx((cosines * autocorrelation).sum((2, 3)), abs=1e-9)


def panels(figure):
    head, body = figure.figure.subfigs
    return head.axes, np.array(body.axes).reshape(-1, 7)


def test_the_rows_are_the_most_inhibited_filters_and_show_their_maps(unit):
    figure = explanation_figure(unit, PHOTO, X, filters=3)
    (photo, _), rows = panels(figure)
    assert np.array_equal(np.asarray(photo.images[0].get_array()), PHOTO.permute(1, 2, 0).numpy())
    push, pull = rectified_responses(unit, X)
    inhibition = unit.alpha.detach().view(-1, 1, 1) * pull
    order = inhibition.std((1, 2)).argsort(descending=True)[:3].tolist()
    assert [row[0].get_ylabel().split("\n")[0] for row in rows] == [f"filter {i}" for i in order]
    assert rows[0, 0].get_ylabel().endswith(f"α = {unit.alpha[order[0]].item():.2f}")
    for row, i in zip(rows, order, strict=True):
        shown = [np.asarray(axes.images[0].get_array()) for axes in row[4:]]
        for picture, expected in zip(shown, (push[i], inhibition[i], push[i] - inhibition[i]), strict=True):
            assert picture == pytest.approx(expected.numpy(), abs=1e-6)
        low, high = row[4].images[0].get_clim()
        assert -low == high == pytest.approx(max(np.abs(picture).max() for picture in shown))
        pair = [np.asarray(axes.images[0].get_array()) for axes in row[:2]]
        assert pair[0] + pair[1] == pytest.approx(np.ones((3, 3, 3)), abs=1e-6)
        assert max(axes.images[0].get_array().max() for axes in row[2:4]) == 0


def test_an_excitation_is_not_cut_off(unit):
    """A negative alpha adds the pull response, so the difference is stronger than the push response."""
    with torch.no_grad():
        unit.alpha.fill_(-3)
    row = panels(explanation_figure(unit, PHOTO, X, filters=1))[1][0]
    difference = np.asarray(row[6].images[0].get_array())
    assert difference.max() > np.asarray(row[4].images[0].get_array()).max()
    assert row[6].images[0].get_clim()[1] == pytest.approx(difference.max())


def test_the_kernels_are_those_that_are_convolved():
    """timm standardises the weights with a batch normalisation over the filters."""
    torch.manual_seed(0)
    conv = StdConv2d(3, 1, 3)
    with torch.no_grad():
        conv.weight += 1
    weight = torch.nn.functional.batch_norm(conv.weight.detach().view(1, 1, -1), None, None, training=True)
    expected = spectrum(weight.view(3, 3, 3))
    row = panels(explanation_figure(swap_first_conv_(conv)[0], PHOTO, X, filters=1))[1][0]
    drawn = np.asarray(row[2].images[0].get_array())
    within = drawn > -40
    decibels = 10 * np.log10(expected / expected.max())
    assert (drawn - drawn.max())[within] == pytest.approx(decibels[within], abs=0.1)
    assert within.mean() > 0.9


def test_every_alpha_is_in_the_histogram(unit):
    (_, axes), _ = panels(explanation_figure(unit, PHOTO, X))
    bars = {(bar.get_x(), bar.get_x() + bar.get_width()): bar.get_height() for bar in axes.patches if bar.get_height()}
    assert sum(bars.values()) == 6
    for value, count in ((-0.2, 1), (0.5, 2), (1.4, 1)):
        assert [height for (low, high), height in bars.items() if low <= value < high] == [count]
    assert axes.get_title(loc="left").startswith("α of 6 filters: 0.38 ± 0.52, learned")
    assert axes.get_xlabel()
    assert axes.get_ylabel()


def test_where_alpha_is_fixed_the_mean_responses_are_shown():
    torch.manual_seed(0)
    unit = PushPullConv2d(3, 6, 3, alpha=0.5)
    figure = explanation_figure(unit, PHOTO, X)
    (_, *maps), _ = panels(figure)
    push, pull = rectified_responses(unit, X)
    expected = push.mean(0), 0.5 * pull.mean(0), (push - 0.5 * pull).mean(0)
    for axes, mean in zip(maps, expected, strict=True):
        assert np.asarray(axes.images[0].get_array()) == pytest.approx(mean.numpy(), abs=1e-6)
    assert maps[0].get_xlabel() == "α = 0.50 in all 6 filters, fixed"
    assert "mean response of all filters" in figure.caption


def test_of_fixed_alphas_that_differ_the_range_is_told():
    unit = PushPullConv2d(3, 6, 3, alpha=[0.25, 0.0, 1.75, 1.0, 1.0, 1.0])
    (_, axes, *_), _ = panels(explanation_figure(unit, PHOTO, X))
    assert axes.get_xlabel() == "α = 0.00 to 1.75 in the 6 filters, fixed"


def test_the_caption_tells_what_the_unit_does_in_its_order(unit):
    assert "pull is averaged, rectified and multiplied by α" in explanation_figure(unit, PHOTO, X).caption


def test_the_caption_is_in_the_picture(unit, tmp_path):
    figure = explanation_figure(unit, PHOTO, X)
    write_explanation(tmp_path / "unit.svg", unit, PHOTO, X)
    lines = [line for line in ElementTree.parse(tmp_path / "unit.svg").getroot().itertext() if line.strip()]
    assert figure.caption in " ".join(" ".join(lines).split())

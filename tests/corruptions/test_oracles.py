"""Each corruption against another way of computing it: SciPy, Pillow, colorsys, plain loops."""

import colorsys
import io
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pushpull_conv.corruptions import jpeg, operators, pixelate, spec
from pushpull_conv.corruptions.blur import trail
from pushpull_conv.corruptions.engine import KERNELS
from pushpull_conv.corruptions.randomness import Random

SIDES = st.tuples(st.integers(32, 90), st.integers(32, 90))  # below and above where Pillow takes over


def pictures(height, width, count=2, seed=0):
    """Pictures with edges, ramps, noise and saturated areas: uint8 ``[count, 3, height, width]``."""
    state = np.random.default_rng(seed)
    ramp = np.add.outer(np.linspace(0, 200, height), np.linspace(0, 55, width))
    images = ramp + 30 * state.standard_normal((count, 3, height, width))
    images[:, :, height // 4 : height // 2, width // 3 :] = state.integers(0, 256, (count, 3, 1, 1))
    images[:, :, -height // 4 :, : width // 3] = 255
    return torch.from_numpy(images.clip(0, 255).astype(np.uint8))


def draws(name, images, parameters, seed=0):
    random = Random.keyed(torch.arange(len(images)), seed, 0, 1)
    return KERNELS[name].sample(random, images, parameters)


def channels_last(images):
    return images.permute(0, 2, 3, 1).numpy()


def differing(ours, expected):
    """The fraction of values that differ, none by more than one grey level."""
    difference = np.abs(ours.numpy().astype(int) - np.asarray(expected).astype(int))
    assert difference.max() <= 1
    return (difference > 0).mean()


def truncated(values):
    return np.clip(values, 0, 255).astype(np.uint8)


@pytest.mark.parametrize("name", ["gaussian_noise", "speckle_noise"])
def test_normal_noise_is_numpy_arithmetic(name):
    images = pictures(33, 40)
    (normal,) = given_draws = draws(name, images, (0.2,))
    unit = images.numpy() / 255
    gain = unit if name == "speckle_noise" else 1
    ours = KERNELS[name].apply(images, (0.2,), given_draws)
    assert differing(ours, truncated(255 * (unit + gain * 0.2 * normal.numpy()))) == 0


@pytest.mark.parametrize("white", [3, 60, 500])
def test_photon_counts_are_poisson(white):
    images = torch.full((40, 3, 32, 32), 200, dtype=torch.uint8)
    (counts,) = draws("shot_noise", images, (white,))
    rate = white * 200 / 255
    observed = np.bincount(counts.flatten().long().numpy())
    expected = scipy.stats.poisson.pmf(np.arange(len(observed)), rate) * counts.numel()
    common = expected > 10
    chi_square = ((observed - expected)[common] ** 2 / expected[common]).sum()
    assert scipy.stats.chi2.sf(chi_square, common.sum()) > 1e-4


def test_photon_counts_of_black_are_zero():
    black = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    assert draws("shot_noise", black, (500,))[0].eq(0).all()


def test_impulse_noise_replaces_the_asked_fraction_by_black_and_white():
    images = torch.full((50, 3, 32, 32), 7, dtype=torch.uint8)
    ours = KERNELS["impulse_noise"].apply(images, (0.1,), draws("impulse_noise", images, (0.1,)))
    assert ours.unique().tolist() == [0, 7, 255]
    count = images.numel()
    for level in (0, 255):
        assert abs((ours == level).sum().item() - 0.05 * count) < 4.5 * math.sqrt(0.05 * count)


@given(SIDES, st.sampled_from([0.4, 0.7, 1.0, 2.0, 6.0]))
@settings(max_examples=15, deadline=None)
def test_gaussian_blur_is_scipys(sides, sigma):
    images = pictures(*sides)
    ours = KERNELS["gaussian_blur"].apply(images, (sigma,), ())
    expected = scipy.ndimage.gaussian_filter(images.numpy() / 255, sigma, mode="nearest", truncate=4, axes=(2, 3))
    assert differing(ours, truncated(255 * expected)) < 0.25  # flat areas sit on the last truncation


@pytest.mark.parametrize("profile", spec.PROFILES)
@pytest.mark.parametrize("severity", spec.SEVERITIES)
def test_defocus_blur_is_a_correlation_with_a_disk(profile, severity):
    radius, sigma = parameters = spec.parameters("defocus_blur", profile, severity)
    half = max(8, int(radius))
    grid = np.hypot(*np.mgrid[-half : half + 1, -half : half + 1])
    disk = (grid <= radius).astype(float)
    smoothed = scipy.ndimage.gaussian_filter(disk / disk.sum(), sigma, mode="mirror", radius=1 if radius <= 8 else 2)
    images = pictures(40, 52)
    expected = scipy.ndimage.correlate(images[0, 0].numpy().astype(float), smoothed, mode="mirror")
    ours = KERNELS["defocus_blur"].apply(images, parameters, ())[0, 0]
    assert differing(ours, truncated(expected)) < 0.25  # whole grey levels sit on the last truncation


@pytest.mark.parametrize("parameters", [(0.4, 1, 2), (0.9, 2, 2), (1.5, 4, 2)])
def test_glass_blur_copies_pixels_one_after_the_other(parameters):
    sigma, reach, _ = parameters
    images = pictures(33, 38)
    (offsets,) = given_draws = draws("glass_blur", images, parameters)
    blurred = KERNELS["gaussian_blur"].apply(images, (sigma,), ())
    for image, moves in zip(blurred, offsets.tolist(), strict=True):
        for rows in moves:
            for row, steps in zip(range(33 - reach, reach, -1), rows, strict=True):
                for column, (dx, dy) in zip(range(38 - reach, reach, -1), steps, strict=True):
                    image[:, row, column] = image[:, row + dy, column + dx]
    expected = KERNELS["gaussian_blur"].apply(blurred, (sigma,), ())
    assert torch.equal(KERNELS["glass_blur"].apply(images, parameters, given_draws), expected)


@given(st.floats(-180, 180), st.sampled_from([(6, 1), (10, 3), (20, 15)]))
@settings(max_examples=15, deadline=None)
def test_a_trail_is_a_sum_over_nearest_pixels(degrees, parameters):
    radius, sigma = parameters
    images = pictures(32, 37, count=1)
    weights = np.exp(-0.5 * (np.arange(2 * radius + 1) / sigma) ** 2)
    expected = np.zeros(images.shape)
    for tap, weight in enumerate(weights / weights.sum()):
        rows = np.arange(32) + math.ceil(tap * math.sin(math.radians(degrees)) - 0.5)
        columns = np.arange(37) + math.ceil(tap * math.cos(math.radians(degrees)) - 0.5)
        expected += weight * images.numpy()[:, :, rows.clip(0, 31)][:, :, :, columns.clip(0, 36)]
    ours = trail(images, radius, sigma, torch.tensor([degrees], dtype=torch.float64))
    assert differing(ours, np.rint(np.rint(257 * expected) / 257)) < 1e-3


@given(st.integers(32, 70), st.floats(1, 5))
@settings(max_examples=30, deadline=None)
def test_a_zoom_is_scipys(size, factor):
    kept, stretched = operators.zoom_geometry(size, factor)
    line = np.random.default_rng(0).random(size)
    start = (size - kept) // 2
    expected = scipy.ndimage.zoom(line[start : start + kept], factor, order=1, mode="nearest")
    trim = (stretched - size) // 2
    image = torch.from_numpy(line).expand(1, 1, size, size)
    for ours, turned in ((image, False), (image.mT, True)):
        zoomed = operators.zoom(ours, (kept, stretched), (kept, stretched))[0, 0]
        lines = zoomed.T if turned else zoomed
        np.testing.assert_allclose(lines, np.tile(expected[trim : trim + size], (size, 1)), atol=1e-9)


def test_fog_is_a_diamond_square_cloud():
    images = pictures(32, 32, count=1)
    strength, decay = parameters = spec.parameters("fog", "cifar", 3)
    given_draws = draws("fog", images, parameters)
    cloud = np.zeros((32, 32))
    step, amplitude = 32, 100.0
    for octave in given_draws:
        centres, rows, columns = (amplitude * (2 * amplitude * octave[0].numpy() - amplitude)).tolist()
        half = step // 2
        places = [(row, column) for row in range(0, 32, step) for column in range(0, 32, step)]
        for row, column in places:
            corners = [cloud[(row + i) % 32, (column + j) % 32] for i in (0, step) for j in (0, step)]
            cloud[row + half, column + half] = sum(corners) / 4 + centres[row // step][column // step]
        for down, right, noise in ((0, half, rows), (half, 0, columns)):
            for row, column in places:
                i, j = row + down, column + right
                around = [cloud[(i + a) % 32, (j + b) % 32] for a, b in ((half, 0), (-half, 0), (0, half), (0, -half))]
                cloud[i, j] = sum(around) / 4 + noise[row // step][column // step]
        step, amplitude = half, amplitude / decay
    cloud = (cloud - cloud.min()) / (cloud.max() - cloud.min())
    brightest = images.max().item() / 255
    expected = (images.numpy() / 255 + strength * cloud) * brightest / (brightest + strength)
    assert differing(KERNELS["fog"].apply(images, parameters, given_draws), truncated(255 * expected)) < 1e-3


@pytest.mark.parametrize(
    ("name", "parameters", "change"),
    [
        ("brightness", (0.2,), lambda h, s, v: (h, s, min(v + 0.2, 1))),
        ("saturate", (0.3, 0), lambda h, s, v: (h, 0.3 * s, v)),
        ("saturate", (5, 0.1), lambda h, s, v: (h, min(5 * s + 0.1, 1), v)),
    ],
)
def test_colours_change_in_hsv(name, parameters, change):
    images = pictures(32, 32, count=1)
    images[0, :, :8] = images[0, :1, :8]  # greys
    pixels = channels_last(images).reshape(-1, 3) / 255
    expected = [255 * np.array(colorsys.hsv_to_rgb(*change(*colorsys.rgb_to_hsv(*pixel)))) for pixel in pixels]
    ours = channels_last(KERNELS[name].apply(images, parameters, ())).reshape(-1, 3)
    assert differing(torch.from_numpy(ours), truncated(np.array(expected))) < 0.02


def test_contrast_keeps_the_mean_of_each_channel():
    images = pictures(32, 45)
    unit = images.numpy() / 255
    mean = unit.mean((2, 3), keepdims=True)
    expected = truncated(255 * ((unit - mean) * 0.3 + mean))
    assert differing(KERNELS["contrast"].apply(images, (0.3,), ()), expected) < 1e-3


def test_elastic_transform_is_two_interpolations():
    images = pictures(34, 40, count=1)
    parameters = amplitude, smoothness, jitter, length = (0.1, 0.04, 0.06, 1)
    corners, field = given_draws = draws("elastic_transform", images, parameters)
    unit = 34 * length
    arm, middle = 34 // 3, np.array([20, 17])
    anchors = middle + arm * np.array([[1, 1], [1, -1], [-1, -1]])
    moved = (anchors + jitter * unit * (2 * corners[0].numpy() - 1)).astype(np.float32)
    forward = np.linalg.solve(np.c_[anchors, np.ones(3)], moved.astype(float)).T
    inverse = np.linalg.inv(np.r_[forward, [[0, 0, 1]]])
    grid = np.stack([*np.meshgrid(np.arange(40), np.arange(34)), np.ones((34, 40))])
    x, y = np.einsum("ij,jhw->ihw", inverse, grid)[:2]
    smooth = [
        amplitude * unit * scipy.ndimage.gaussian_filter(2 * part - 1, smoothness * unit, mode="reflect", truncate=3)
        for part in field[0].numpy()
    ]
    for channel, ours in zip(
        images[0].numpy(), KERNELS["elastic_transform"].apply(images, parameters, given_draws)[0], strict=True
    ):
        warped = scipy.ndimage.map_coordinates(channel.astype(float), (y, x), order=1, mode="mirror")
        places = grid[1] + smooth[1], grid[0] + smooth[0]
        expected = scipy.ndimage.map_coordinates(warped, places, order=1, mode="reflect")
        # The corruption rounds the first positions to 1/32 pixel, this oracle does not.
        assert np.abs(ours.numpy() - np.floor(expected)).mean() < 0.6


@given(SIDES, st.sampled_from([0.25, 0.3, 0.5, 0.65, 0.9, 0.95]))
@settings(max_examples=25, deadline=None)
def test_pixelate_is_pillows(sides, kept):
    images = pictures(*sides, count=1)
    picture = Image.fromarray(channels_last(images)[0])
    # In two steps, because Pillow starts with either axis as the sizes suggest; square images start with the width.
    narrow = picture.resize((int(picture.width * kept), picture.height), Image.Resampling.BOX)
    small = narrow.resize((narrow.width, int(picture.height * kept)), Image.Resampling.BOX)
    expected = np.asarray(small.resize(picture.size, Image.Resampling.BOX))
    for form in (pixelate.pixelate, pixelate.by_arithmetic):
        assert np.array_equal(channels_last(form(images, kept))[0], expected)


@given(SIDES, st.integers(1, 95))
@settings(max_examples=40, deadline=None)
def test_jpeg_is_pillows_to_the_bit(sides, quality):
    images = pictures(*sides, count=1)
    file = io.BytesIO()
    Image.fromarray(channels_last(images)[0]).save(file, "JPEG", quality=quality)
    with Image.open(file) as picture:
        expected = np.asarray(picture)
    for form in (jpeg.jpeg, jpeg.by_arithmetic):
        assert np.array_equal(channels_last(form(images, quality))[0], expected)


@pytest.mark.parametrize("severity", [1, 2, 3])
def test_water_is_opencvs(severity):
    cv2 = pytest.importorskip("cv2", reason="OpenCV comes with the extra 'reference'")
    images = pictures(48, 40, count=3)
    parameters = mean, deviation, sigma, threshold, strength, _ = spec.parameters("spatter", "cifar", severity)
    (normal,) = given_draws = draws("spatter", images, parameters)
    ours = KERNELS["spatter"].apply(images, parameters, given_draws)
    for image, noise, ours_one in zip(images.numpy(), normal.numpy(), ours, strict=True):
        liquid = scipy.ndimage.gaussian_filter(mean + deviation * noise, sigma, mode="nearest", truncate=4)
        liquid[liquid < threshold] = 0
        depth = (liquid * 255).astype(int).astype(np.uint8)
        distance = cv2.distanceTransform(255 - cv2.Canny(depth, 50, 150), cv2.DIST_L2, 5)
        relief = cv2.equalizeHist(cv2.blur(np.minimum(distance, 20), (3, 3)).astype(np.uint8))
        relief = cv2.filter2D(relief, cv2.CV_8U, np.array([[-2, -1, 0], [-1, 1, 1], [0, 1, 2]]))
        cover = depth * cv2.blur(relief, (3, 3)).astype(float)
        cover *= strength / cover.max()
        expected = image + cover * np.array([175, 238, 238])[:, None, None]
        assert differing(ours_one, truncated(expected)) < 0.02


def test_mud_hides_what_it_covers():
    images = pictures(40, 40, count=1)
    parameters = mean, deviation, sigma, threshold, softness, _ = spec.parameters("spatter", "cifar", 5)
    (normal,) = given_draws = draws("spatter", images, parameters)
    blur = lambda plane, width: scipy.ndimage.gaussian_filter(plane, width, mode="nearest", truncate=4)  # noqa: E731
    cover = blur((blur(mean + deviation * normal[0].numpy(), sigma) > threshold).astype(float), softness)
    cover[cover < 0.8] = 0
    expected = images[0].numpy() * (1 - cover) + cover * np.array([63, 42, 20])[:, None, None]
    assert differing(KERNELS["spatter"].apply(images, parameters, given_draws)[0], truncated(expected)) < 0.01


def test_snow_whitens_and_adds_the_streaks_from_both_sides():
    images = pictures(36, 36, count=1)
    parameters = mean, deviation, zoom, threshold, radius, sigma, mix = spec.parameters("snow", "cifar", 4)
    normal, degrees = given_draws = draws("snow", images, parameters)
    kept, stretched = operators.zoom_geometry(36, zoom)
    start, trim = (36 - kept) // 2, (stretched - 36) // 2
    layer = (mean + deviation * normal[0].numpy())[start : start + kept, start : start + kept]
    layer = scipy.ndimage.zoom(layer, zoom, order=1)[trim : trim + 36, trim : trim + 36]
    layer[layer < threshold] = 0
    flakes = torch.from_numpy(truncated(255 * layer))[None, None]
    streaks = trail(flakes, radius, sigma, degrees)[0, 0].numpy().astype(float)
    source = images[0].numpy().astype(float)
    grey = np.tensordot([0.299, 0.587, 0.114], source, 1)
    expected = mix * source + (1 - mix) * np.maximum(source, 1.5 * grey + 127.5) + streaks + streaks[::-1, ::-1]
    assert differing(KERNELS["snow"].apply(images, parameters, given_draws)[0], truncated(expected)) < 0.01


def test_frost_is_a_weighted_sum():
    images = pictures(32, 32)
    crops = pictures(32, 32, seed=1)
    expected = truncated(0.75 * images.numpy() + 0.45 * crops.numpy())
    assert differing(KERNELS["frost"].apply(images, (0.75, 0.45, 0.2), (crops,)), expected) == 0

"""PRIME against its formulas: each transform and each draw beside an independent one, then the whole by hand."""

import importlib
import math

import numpy as np
import pytest
import scipy.ndimage
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pushpull_conv.augment import CIFAR, IMAGENET, PrimeSettings, prime
from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.errors import InputError

module = importlib.import_module("pushpull_conv.augment.prime")
SMALLEST_P = 1e-4
TINY = PrimeSettings(warp_cut=12, color_cut=9, color_temperature=0.03, color_band=4)


def source(count, seed=0):
    return Random.keyed(torch.arange(count), seed)


def pictures(count, side=32, seed=0):
    return torch.randint(0, 256, (count, 3, side, side), generator=torch.Generator().manual_seed(seed)).to(torch.uint8)


def levels(count, side=32, seed=0):
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(seed))


# The transforms.


@pytest.mark.parametrize("size", [3, 5])
def test_a_filter_is_a_correlation_of_every_channel_with_zeros_outside(size):
    images, filters = levels(4, 11), torch.randn(4, size, size, generator=torch.Generator().manual_seed(1))
    expected = [
        [scipy.ndimage.correlate(channel, kernel, mode="constant").clip(0, 1) for channel in image]
        for image, kernel in zip(images.double().numpy(), filters.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(module.filter_images(images, filters), expected, atol=2e-6)


def sine_sum(value, coefficients):
    """v + sum_k b_k sin(pi k v), clipped, in double precision."""
    return min(
        max(value + sum(b * math.sin(math.pi * k * value) for k, b in enumerate(coefficients, start=1)), 0.0), 1.0
    )


@pytest.mark.parametrize("frequencies", [1, 9, 40, 100, 500])
def test_a_colour_map_is_its_sine_series_at_every_8_bit_level(frequencies):
    coefficients = 0.1 * torch.randn(2, 3, frequencies, generator=torch.Generator().manual_seed(frequencies))
    images = torch.arange(256).expand(2, 3, 256).reshape(2, 3, 16, 16) / 255
    mapped = module.recolor_images(images, coefficients).flatten(2)
    expected = [
        [[sine_sum(level / 255, series) for level in range(256)] for series in image] for image in coefficients.tolist()
    ]
    np.testing.assert_allclose(mapped, expected, atol=1e-4)


@pytest.mark.parametrize("frequencies", [9, 31, 32, 100, 500])
def test_between_the_levels_a_colour_map_is_off_by_two_percent_of_the_amplitude_at_most(frequencies):
    coefficients = torch.zeros(1, 3, frequencies)
    coefficients[..., -1] = 0.2  # the worst case: all of it in the highest frequency
    images = levels(1, 20)
    mapped = module.recolor_images(images, coefficients).flatten()
    expected = [sine_sum(value, coefficients[0, 0].tolist()) for value in images.flatten().tolist()]
    assert np.abs(mapped.numpy() - expected).max() <= 0.2 * (math.pi / 8) ** 2 / 8 + 1e-4


def test_a_warp_reads_bilinearly_at_displaced_places_and_the_border_outside():
    images = levels(3, 14)
    displacements = 4 * torch.randn(3, 2, 14, 14, generator=torch.Generator().manual_seed(2))
    rows, columns = np.mgrid[:14, :14]
    expected = [
        [
            scipy.ndimage.map_coordinates(channel, [rows + down, columns + right], order=1, mode="nearest")
            for channel in image
        ]
        for image, (right, down) in zip(images.double().numpy(), displacements.double().numpy(), strict=True)
    ]
    np.testing.assert_allclose(module.warp_images(images, displacements), expected, atol=1e-5)


def test_without_strength_every_transform_is_the_identity():
    images = pictures(5).float() / 255
    impulse = torch.zeros(5, 3, 3)
    impulse[:, 1, 1] = 1
    torch.testing.assert_close(module.filter_images(images, impulse), images, rtol=0, atol=0)
    torch.testing.assert_close(module.recolor_images(images, torch.zeros(5, 3, 100)), images, rtol=0, atol=0)
    torch.testing.assert_close(module.warp_images(images, torch.zeros(5, 2, 32, 32)), images, rtol=0, atol=1e-5)


# The draws.


@pytest.mark.parametrize(("side", "cut"), [(9, 3), (9, 7), (9, 8), (9, 20), (9, 43), (12, 100), (20, 18), (20, 9)])
def test_folded_frequencies_give_fields_of_the_covariance_of_the_whole_double_sum(side, cut):
    """Two Gaussian fields of equal covariance are equal in distribution."""
    pixels = np.linspace(0, 1, side)
    whole = np.zeros((side,) * 4)
    for i in range(1, cut + 1):
        for j in range(1, cut + 1):
            if i * i + j * j < (cut + 0.5) ** 2:
                down, across = np.sin(np.pi * i * pixels), np.sin(np.pi * j * pixels)
                whole += np.einsum("a,b,c,d->abcd", down, across, down, across) / (i * i + j * j)
    band = next(count for count in module._bands(side) if cut <= count or count == side - 2)
    modes = module._modes(side, band, max(cut, band), torch.device("cpu"))
    variances, values = modes.deviations(torch.tensor([float(cut)]))[0].double().square(), modes.values.double()
    folded = torch.einsum("pq,pa,qb,pc,qd->abcd", variances, values, values, values, values)
    np.testing.assert_allclose(folded, whole, atol=2e-5 * whole.max())


def test_fields_have_the_variance_of_their_cut_and_are_independent_of_each_other():
    count, side = 4000, 18
    cut = torch.full((count,), 40.0)
    cut[::2] = 5.0
    fields = module._fields(source(count), cut, side, 40).double()
    for rows, value in ((slice(0, None, 2), 5.0), (slice(1, None, 2), 40.0)):
        modes = module._modes(side, side - 2, 40, torch.device("cpu"))
        variance = modes.deviations(torch.tensor([value]))[0].double().square()
        energy = modes.values.double().square()
        expected = (energy.T @ variance @ energy)[1:-1, 1:-1]
        measured = fields[rows].square().mean(0)[:, 1:-1, 1:-1]
        assert ((measured / expected - 1).abs() < 5 * (2 / (count / 2)) ** 0.5).all()
    assert scipy.stats.pearsonr(fields[:, 0, 9, 9], fields[:, 1, 9, 9]).pvalue > SMALLEST_P


def independent_displacements(count, side, highest_cut, generator):
    """The middle pixel's displacement, drawn as the paper says, one image after the other."""
    middle = (side // 2) / (side - 1)
    for _ in range(count):
        upper = generator.integers(3, highest_cut, endpoint=True)
        cut = int(generator.beta(0.5, 0.5) * (upper + 1 - 2) + 2)
        low, high = 1 / (np.pi * side**2 * np.log(cut)), 4 / (np.pi**3 * cut**2 * np.log(cut))
        temperature = low + generator.beta(0.5, 0.5) * (max(low, high) - low)
        i, j = np.mgrid[1 : cut + 1, 1 : cut + 1]
        energy = i**2 + j**2
        numbers = generator.standard_normal(i.shape) / energy**0.5 * (energy < (cut + 0.5) ** 2)
        yield side * temperature**0.5 * (numbers * np.sin(np.pi * i * middle) * np.sin(np.pi * j * middle)).sum()


@pytest.mark.parametrize(("side", "highest_cut"), [(12, 30), (32, 20)])
def test_displacements_are_distributed_as_the_papers_say(side, highest_cut):
    warps = module.draw_warps(source(3000), side, PrimeSettings(highest_cut, 1, 0.0, None))
    expected = list(independent_displacements(3000, side, highest_cut, np.random.default_rng(5)))
    for axis in (0, 1):
        assert scipy.stats.ks_2samp(warps[:, axis, side // 2, side // 2].numpy(), expected).pvalue > SMALLEST_P
    assert warps[:, :, 0].abs().max() < 1e-4  # the border stays
    assert warps[..., -1].abs().max() < 1e-4


def test_the_lowest_temperature_moves_pixels_by_half_a_pixel():
    """Petrini et al.: the root mean square over the image of a displacement is side sqrt(pi T log(cut)) / 2."""
    side, cut = 64, torch.tensor([30.0])
    low, high = module.temperature_range(side, cut)
    assert side * math.sqrt(math.pi * low * math.log(30)) / 2 == pytest.approx(0.5)
    assert high == pytest.approx(max(4 / (math.pi**3 * 30**2 * math.log(30)), float(low)))
    fields = module._fields(source(200), cut.repeat(200), side, 62).double() * float(low) ** 0.5 * side
    assert fields.square().sum(1).mean().sqrt() == pytest.approx(0.5, rel=0.12)  # the law holds for large cuts


def test_filters_are_an_impulse_and_noise_of_uniform_sigma():
    noise = module.draw_filters(source(6000)).double()
    noise[:, 1, 1] -= 1
    generator = np.random.default_rng(3)
    expected = generator.uniform(0, 4, (6000, 1)) * generator.standard_normal((6000, 9))
    assert scipy.stats.ks_2samp(noise[:, 0, 2], expected[:, 0]).pvalue > SMALLEST_P
    assert scipy.stats.ks_2samp(noise.flatten(1).std(1), expected.std(1)).pvalue > SMALLEST_P  # one sigma for a filter
    assert scipy.stats.ks_2samp(noise[:, 1, 1], expected[:, 1]).pvalue > SMALLEST_P


def test_colour_coefficients_reach_a_uniform_cut_with_a_uniform_temperature():
    coefficients = module.draw_colors(source(20000), CIFAR).double()
    assert coefficients.shape == (20000, 3, 100)
    used = coefficients[:, 0] != 0
    cut = used.sum(1)
    assert torch.equal(coefficients != 0, used[:, None].expand(-1, 3, -1))
    assert torch.equal(used, torch.arange(1, 101) <= cut[:, None])
    assert scipy.stats.chisquare(np.bincount(cut - 1, minlength=100)).pvalue > SMALLEST_P
    generator = np.random.default_rng(4)
    expected = np.sqrt(generator.uniform(0, 0.01, 20000)) * generator.standard_normal(20000)
    assert scipy.stats.ks_2samp(coefficients[:, 2, 0], expected).pvalue > SMALLEST_P
    assert coefficients[:, 1, 0].var() == pytest.approx(0.005, rel=0.05)


def test_a_banded_colour_map_has_neighbouring_frequencies_only():
    coefficients = module.draw_colors(source(4000), IMAGENET)
    assert coefficients.shape == (4000, 3, 500)
    generator = np.random.default_rng(6)
    cut = generator.integers(1, 500, 4000, endpoint=True)
    first = generator.integers(1, cut, endpoint=True)
    used = (coefficients[:, 0] != 0).int()
    lowest, number = used.argmax(1) + 1, used.sum(1)
    assert torch.equal(
        used.bool(), (torch.arange(1, 501) >= lowest[:, None]) & (torch.arange(1, 501) < (lowest + number)[:, None])
    )
    assert scipy.stats.ks_2samp(lowest, first).pvalue > SMALLEST_P
    assert scipy.stats.ks_2samp(number, np.minimum(20, cut - first + 1)).pvalue > SMALLEST_P


def test_chains_have_one_to_three_transforms_of_each_kind_equally():
    kinds = module.draw_chains(source(5000))
    lengths = (kinds >= 0).sum(2)
    assert torch.equal(kinds >= 0, torch.arange(3) < lengths[..., None])  # nothing after the end
    for chain in range(3):
        assert scipy.stats.chisquare(np.bincount(lengths[:, chain], minlength=4)[1:]).pvalue > SMALLEST_P
        for step in range(3):
            drawn = kinds[:, chain, step]
            assert scipy.stats.chisquare(np.bincount(drawn[drawn >= 0], minlength=3)).pvalue > SMALLEST_P


def test_weights_are_uniform_and_flat_dirichlet():
    own, weights = module.draw_weights(source(20000))
    assert scipy.stats.kstest(own[:, 0], "uniform").pvalue > SMALLEST_P
    torch.testing.assert_close(weights.sum(1), torch.ones(20000, dtype=torch.float64))
    for chain in range(3):  # the margins of Dirichlet(1, 1, 1)
        assert scipy.stats.kstest(weights[:, chain], scipy.stats.beta(1, 2).cdf).pvalue > SMALLEST_P


# The whole.


def by_hand(image, place, epoch, seed, chosen):
    """PRIME on one image, written as the paper's algorithm reads."""
    random, sources = module.draw_sources(torch.tensor([place]), epoch=epoch, seed=seed)
    kinds, (own, weights) = module.draw_chains(random)[0], module.draw_weights(random)
    clean = image[None].float() / 255
    mixed = own.float() * clean
    for chain in range(3):
        current = clean
        for step, kind in enumerate(kinds[chain].tolist()):
            draw = Random(sources[step].keys[chain : chain + 1])
            if kind == 0:
                current = module.filter_images(current, module.draw_filters(draw))
            elif kind == 1:
                current = module.warp_images(current, module.draw_warps(draw, image.shape[-1], chosen))
            elif kind == 2:
                current = module.recolor_images(current, module.draw_colors(draw, chosen))
        mixed = mixed + (1 - own.float()) * weights[0, chain].float() * current
    return 255 * mixed[0]


@pytest.mark.parametrize("chosen", [CIFAR, IMAGENET, TINY], ids=["cifar", "imagenet", "tiny"])
def test_a_batch_is_what_the_algorithm_makes_of_each_image(chosen):
    images, index = pictures(12, 24), torch.arange(100, 112)
    together = prime(images, index=index, epoch=3, seed=9, settings=chosen)
    for image, place, result in zip(images, index.tolist(), together, strict=True):
        expected = by_hand(image, place, 3, 9, chosen)
        assert (result - expected).abs().max() <= 0.5 + 1e-2


@given(st.integers(0, 2**40), st.integers(0, 10**6), st.lists(st.integers(1, 7), min_size=2, max_size=4))
@settings(max_examples=15, deadline=None)
def test_a_batch_may_be_split_anywhere(seed, epoch, sizes):
    images, index = pictures(sum(sizes), seed=seed % 97), torch.arange(50, 50 + sum(sizes))
    together = prime(images, index=index, epoch=epoch, seed=seed)
    parts = [
        prime(part, index=places, epoch=epoch, seed=seed)
        for part, places in zip(images.split(sizes), index.split(sizes), strict=True)
    ]
    assert torch.equal(together, torch.cat(parts))


def test_a_batch_larger_than_a_chunk_is_its_parts(monkeypatch):
    images, index = pictures(9), torch.arange(9)
    whole = prime(images, index=index, epoch=0, seed=0)
    monkeypatch.setitem(module._CHUNK, "cpu", 2 * 32 * 32)
    assert torch.equal(prime(images, index=index, epoch=0, seed=0), whole)


def test_the_key_is_seed_epoch_and_place():
    image = pictures(1).expand(4, -1, -1, -1)
    first = prime(image, index=torch.arange(4), epoch=0, seed=0)
    assert torch.equal(first, prime(image, index=torch.arange(4), epoch=0, seed=0))
    others = [
        prime(image, index=torch.arange(4), epoch=1, seed=0),
        prime(image, index=torch.arange(4), epoch=0, seed=1),
    ]
    for other in [*others, prime(image, index=torch.arange(4, 8), epoch=0, seed=0)]:
        assert all(not torch.equal(one, two) for one, two in zip(first, other, strict=True))
    assert len({result.numpy().tobytes() for result in first}) == 4


def test_the_global_generator_is_neither_read_nor_moved_and_the_input_stays():
    images = pictures(6)
    kept, state = images.clone(), torch.get_rng_state()
    once = prime(images, index=torch.arange(6), epoch=0, seed=0)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(images, kept)
    torch.manual_seed(123)
    assert torch.equal(prime(images, index=torch.arange(6), epoch=0, seed=0), once)


def test_an_even_grey_image_may_change_but_black_without_colour_maps_stays_black():
    """Filters and warps are linear and colour maps keep 0 and 1 fixed, so that black has nowhere to go."""
    black = torch.zeros(40, 3, 32, 32, dtype=torch.uint8)
    assert prime(black, index=torch.arange(40), epoch=0, seed=0).max() == 0
    grey = torch.full((40, 3, 32, 32), 128, dtype=torch.uint8)
    assert prime(grey, index=torch.arange(40), epoch=0, seed=0).float().std() > 10


def test_a_float64_training_changes_nothing():
    """Lightning makes its precision the default dtype of the step."""
    call = {"index": torch.arange(8), "epoch": 0, "seed": 0}
    expected = prime(pictures(8), **call)
    torch.set_default_dtype(torch.float64)
    try:
        assert torch.equal(prime(pictures(8), **call), expected)
    finally:
        torch.set_default_dtype(torch.float32)


def test_autocast_changes_nothing():
    """A training step in half precision augments inside of autocast."""
    call = {"index": torch.arange(8), "epoch": 0, "seed": 0}
    with torch.autocast("cpu", torch.bfloat16):
        inside = prime(pictures(8), **call)
    assert torch.equal(inside, prime(pictures(8), **call))


def test_an_empty_batch_is_an_empty_batch():
    assert prime(pictures(0), index=torch.arange(0), epoch=0, seed=0).shape == (0, 3, 32, 32)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": pictures(2).float()}, "uint8"),
        ({"images": pictures(2)[:, :1]}, "square"),
        ({"images": pictures(2)[..., :16]}, "square"),
        ({"index": torch.arange(3)}, r"int64 \[2\]"),
        ({"index": torch.arange(2).int()}, r"int64 \[2\]"),
        ({"epoch": -1}, "epoch is -1"),
        ({"seed": 0.5}, "seed is 0.5"),
    ],
)
def test_what_it_cannot_use_it_names(change, message):
    arguments = {"images": pictures(2), "index": torch.arange(2), "epoch": 0, "seed": 0} | change
    with pytest.raises(InputError, match=message):
        prime(**arguments)

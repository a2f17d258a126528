"""The counter-based generator: its definition, its quality, its independence of everything but the key."""

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from pushpull_conv.corruptions.randomness import Random

SMALLEST_P = 1e-5


def source(count=1, *, seed=0, corruption=0, severity=1, first=0):
    return Random.keyed(torch.arange(first, first + count), seed, corruption, severity)


def splitmix(value):
    """SplitMix64's output function in Python's own integers."""
    value = (value ^ value >> 30) * 0xBF58476D1CE4E5B9 % 2**64
    value = (value ^ value >> 27) * 0x94D049BB133111EB % 2**64
    return value ^ value >> 31


def correlation(a, b):
    """The correlation of two samples in its own standard errors."""
    return np.corrcoef(a.flatten(), b.flatten())[0, 1] * a.numel() ** 0.5


def test_the_mixing_function_is_splitmix():
    key = torch.tensor([12345])
    golden = 0x9E3779B97F4A7C15
    stream_key = splitmix((12345 + 3 * 0x94D049BB133111EB) % 2**64)
    words = [splitmix((stream_key + step * golden) % 2**64) for step in (1, 2)]
    halves = [half for word in words for half in (word % 2**32, word >> 32)]
    assert (Random(key).bits(2, 4)[0].long() % 2**32).tolist() == halves


def test_numbers_stay_as_they_are():
    """A change of these makes every published result of this package another benchmark."""
    assert source(seed=1).bits(0, 3).tolist() == [[-1215915055, -1479715778, 1858461517]]


def test_uniform_numbers_are_uniform():
    numbers = source(64).uniform(0, 4096)
    assert numbers.min() >= 0
    assert numbers.max() < 1
    assert scipy.stats.kstest(numbers.flatten(), "uniform").pvalue > SMALLEST_P
    # Pairs of neighbours fill the unit square evenly.
    cells = (numbers[:, 0::2] * 16).long() * 16 + (numbers[:, 1::2] * 16).long()
    assert scipy.stats.chisquare(np.bincount(cells.flatten(), minlength=256)).pvalue > SMALLEST_P


def test_every_bit_is_fair():
    bits = source(16).bits(0, 8192).numpy().view(np.uint32)
    ones = np.array([(bits >> place & 1).sum() for place in range(32)])
    assert np.abs(ones - bits.size / 2).max() < 4.5 * bits.size**0.5 / 2


def test_normal_numbers_are_normal():
    numbers = source(64).normal(0, 4095)
    assert numbers.shape == (64, 4095)
    assert scipy.stats.kstest(numbers.flatten(), "norm").pvalue > SMALLEST_P
    assert scipy.stats.kurtosistest(numbers.flatten()).pvalue > SMALLEST_P
    assert abs(correlation(numbers[:, :2047] ** 2, numbers[:, 2048:] ** 2)) < 4.5  # the two of one Box-Muller pair


@pytest.mark.parametrize(("low", "high"), [(-4, 4), (0, 5), (-1, 1)])
def test_integers_are_uniform_on_their_range(low, high):
    numbers = source(32).integers(0, low, high, 1000)
    assert scipy.stats.chisquare(np.bincount(numbers.flatten() - low, minlength=high - low)).pvalue > SMALLEST_P
    assert numbers.max() == high - 1


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"first": 0}, {"first": 1}),
        ({"seed": 0}, {"seed": 1}),
        ({"corruption": 0}, {"corruption": 1}),
        ({"severity": 1}, {"severity": 2}),
        ({"corruption": 1, "severity": 2}, {"corruption": 2, "severity": 1}),
        ({"seed": 1, "corruption": 0}, {"seed": 0, "corruption": 1}),
    ],
)
def test_images_seeds_corruptions_and_severities_are_independent(one, other):
    a, b = source(100, **one).normal(0, 1000), source(100, **other).normal(0, 1000)
    assert abs(correlation(a, b)) < 4.5
    assert (a == b).sum() == 0


def test_streams_are_independent():
    random = source(100)
    assert abs(correlation(random.uniform(0, 1000), random.uniform(1, 1000))) < 4.5


def test_neighbouring_images_share_no_numbers():
    bits = source(2000).bits(0, 64)
    assert len(bits.flatten().unique()) > bits.numel() - 10  # a few of 128,000 coincide among 2^32


@given(st.integers(), st.integers(0, 2**40), st.integers(1, 20))
@settings(max_examples=30, deadline=None)
def test_a_batch_is_its_images_one_by_one(seed, first, count):
    together = source(count, seed=seed, first=first).normal(3, 5)
    alone = torch.cat([source(1, seed=seed, first=first + place).normal(3, 5) for place in range(count)])
    assert torch.equal(together, alone)


def test_the_global_generators_are_neither_moved_nor_read():
    torch.manual_seed(0)
    np.random.seed(0)  # noqa: NPY002
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    before = source(4).normal(0, 10)
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002
    torch.manual_seed(1)
    assert torch.equal(source(4).normal(0, 10), before)


@pytest.mark.gpu
def test_the_bits_are_the_same_on_the_gpu():
    if not torch.cuda.is_available():
        pytest.skip("there is no CUDA device")
    index = torch.arange(100)
    cpu, gpu = (Random.keyed(place, -5, 3, 2) for place in (index, index.cuda()))
    assert torch.equal(cpu.bits(1, 1001), gpu.bits(1, 1001).cpu())

"""Orders and choices of places: what they hold, and that they are functions of their seeds."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pushpull_conv.data import epoch_order, stratified
from pushpull_conv.data.places import WINDOW, blocks_in_window
from pushpull_conv.errors import InputError


def blocks_of(sizes):
    ends = np.cumsum(sizes).tolist()
    return [range(end - size, end) for size, end in zip(sizes, ends, strict=True)]


@given(st.lists(st.integers(1, 900), min_size=1, max_size=40), st.integers(0, 2**32), st.integers(0, 100))
def test_every_place_comes_once_and_again_with_the_same_seed_and_epoch(sizes, seed, epoch):
    blocks, count = blocks_of(sizes), sum(sizes)
    for given_blocks in (None, blocks):
        order = epoch_order(count, given_blocks, seed=seed, epoch=epoch)
        assert order.dtype == np.int64
        assert np.array_equal(np.sort(order), np.arange(count))
        assert np.array_equal(order, epoch_order(count, given_blocks, seed=seed, epoch=epoch))


def test_seeds_and_epochs_give_other_orders():
    blocks = blocks_of([100] * 60)
    for given_blocks in (None, blocks):
        orders = [epoch_order(6000, given_blocks, seed=seed, epoch=epoch) for seed in (1, 2) for epoch in (0, 1)]
        for first in range(4):
            for second in range(first):
                assert (orders[first] == orders[second]).mean() < 0.01


@given(st.lists(st.integers(1, 300), min_size=1, max_size=120), st.integers(0, 1000))
def test_a_reader_that_keeps_a_window_of_blocks_reads_each_once(sizes, seed):
    blocks = blocks_of(sizes)
    block_of = np.repeat(np.arange(len(sizes)), sizes)
    kept, reads = [], 0
    for block in block_of[epoch_order(sum(sizes), blocks, seed=seed, epoch=0)]:
        if block in kept:
            kept.remove(block)
        else:
            reads += 1
        kept = [*kept, block][-blocks_in_window(blocks) :]
    assert reads == len(sizes)


def test_a_window_mixes_its_images_and_its_blocks_come_from_everywhere():
    blocks = blocks_of([100] * 1000)
    width = blocks_in_window(blocks)
    assert width * 100 >= WINDOW
    window = epoch_order(100_000, blocks, seed=3, epoch=0)[: width * 100]
    used = sorted(set((window // 100).tolist()))
    assert len(used) == width
    assert used[0] < 200
    assert used[-1] > 800
    assert len(set((window[:width] // 100).tolist())) > width / 2  # not one block after the other


labels = st.lists(st.integers(0, 9), min_size=1, max_size=300).map(torch.tensor)
fractions = st.floats(0.001, 1)


@given(labels, fractions, st.integers(0, 2**32))
def test_a_fraction_of_each_class_is_kept(labels, fraction, seed):
    places = stratified(labels, fraction, seed)
    assert places.dtype == torch.int64
    assert places.tolist() == sorted(set(places.tolist()))
    for label in labels.unique():
        count = int((labels == label).sum())
        kept = int((labels[places] == label).sum())
        assert kept >= 1
        assert kept == 1 or abs(kept - fraction * count) <= 0.5
    assert torch.equal(places, stratified(labels, fraction, seed))


@given(labels, fractions, fractions, st.integers(0, 100))
def test_a_smaller_fraction_is_within_a_larger_one(labels, one, other, seed):
    small, large = (set(stratified(labels, fraction, seed).tolist()) for fraction in sorted((one, other)))
    assert small <= large


def test_the_choice_depends_on_the_seed_and_the_whole_is_the_whole():
    labels = torch.arange(1000) % 10
    assert not torch.equal(stratified(labels, 0.3, 1), stratified(labels, 0.3, 2))
    assert torch.equal(stratified(labels, 1, 1), torch.arange(1000))


@pytest.mark.parametrize("fraction", [0, -0.1, 1.01, float("nan")])
def test_fractions_outside_are_refused(fraction):
    with pytest.raises(InputError, match=r"fraction must be above 0 and at most 1, not"):
        stratified(torch.tensor([0, 1]), fraction, 0)

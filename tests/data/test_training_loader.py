"""Training batches made of pictures: what is cut out of them, and that workers and ranks change nothing."""

import dataclasses
import multiprocessing
import os
import signal

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from pushpull_conv.data import ImageSet, PictureBatches, Preparation, load_images
from pushpull_conv.errors import InputError

SIDE = 6


def coded(count: int = 12) -> ImageSet:
    """Images whose pixels say where they are: channel 0 the image, 1 the row, 2 the column, all from 1."""
    images = torch.empty(count, 3, SIDE, SIDE, dtype=torch.uint8)
    images[:, 0] = torch.arange(1, count + 1)[:, None, None]
    images[:, 1] = torch.arange(1, SIDE + 1)[:, None]
    images[:, 2] = torch.arange(1, SIDE + 1)
    return ImageSet(images, torch.arange(count) % 5, tuple("abcde"), 100 + torch.arange(count), "coded", "train")


class Large(ImageSet):
    """The same as pictures of another shape, which are to be scaled: twice as wide as high."""

    resize = 8

    @property
    def size(self):
        return SIDE, SIDE

    def picture(self, place):
        columns = np.arange(16)[None].repeat(8, 0) * 10
        rows = np.arange(8)[:, None].repeat(16, 1) * 10
        return Image.fromarray(np.stack([np.full((8, 16), place), rows, columns], -1).astype(np.uint8))


class Damaged(ImageSet):
    """The second picture cannot be read."""

    def picture(self, place):
        if place == 1:
            raise InputError("image 'broken.jpg' is truncated or not an image; replace it")
        return super().picture(place)


def of_kind(kind, count=12):
    source = coded(count)
    return kind(*(getattr(source, field.name) for field in dataclasses.fields(source)))


def epoch(source, number=0, *, preparation=None, **options):
    options = {"batch_size": 4, "seed": 3, "workers": 0} | options
    batches = PictureBatches(source, preparation=preparation or Preparation(), **options)
    batches.set_epoch(number)
    return batches, [torch.cat(values) for values in zip(*batches, strict=True)]


def test_every_image_comes_once_an_epoch_with_its_label_and_index():
    source = coded()
    _, (images, labels, index) = epoch(source)
    places = index - 100
    assert sorted(places.tolist()) == list(range(12))
    assert torch.equal(images, source.images[places])
    assert torch.equal(labels, source.labels[places])
    assert not torch.equal(index, epoch(source, 1)[1][2])


def both_ways(crop):
    return crop, crop.flip(-1)


def test_crops_are_cut_out_of_the_padded_image_and_mirrored_or_not():
    source = coded()
    padded = torch.nn.functional.pad(source.images, (4,) * 4)
    seen = set()
    for number in range(20):
        _, (images, _, index) = epoch(source, number, preparation=Preparation(crop=True, flip=True))
        for image, place in zip(images, index - 100, strict=True):
            found = [
                (top, left, flip)
                for top in range(9)
                for left in range(9)
                for flip, crop in enumerate(both_ways(padded[place, :, top : top + SIDE, left : left + SIDE]))
                if torch.equal(image, crop)
            ]
            assert found
            seen |= {found[0]}
    assert {top for top, _, _ in seen} == {left for _, left, _ in seen} == set(range(9))
    assert {flip for *_, flip in seen} == {0, 1}


def test_a_picture_that_is_scaled_is_cut_where_it_is_longer_too():
    source = of_kind(Large)
    offsets = set()
    for number in range(12):
        _, (images, _, _) = epoch(source, number, preparation=Preparation(crop=True))
        offsets |= {(int(image[1, 0, 0]) // 10, int(image[2, 0, 0]) // 10) for image in images}
    assert {top for top, _ in offsets} == {0, 1, 2}
    assert {left for _, left in offsets} == set(range(11))
    _, (images, _, _) = epoch(source)
    assert {(int(image[1, 0, 0]) // 10, int(image[2, 0, 0]) // 10) for image in images} == {(1, 5)}, "the centre"


def noisy(picture):
    """Draw from the global generator, as torchvision's augmentations do."""
    return Image.fromarray(torch.randint(0, 256, (picture.height, picture.width, 3), dtype=torch.uint8).numpy())


@pytest.mark.parametrize("augment", [None, noisy])
def test_workers_and_ranks_change_nothing(augment):
    source, preparation = coded(), Preparation(augment, crop=True, flip=True)
    _, whole = epoch(source, 2, preparation=preparation)
    _, again = epoch(source, 2, preparation=preparation, workers=2)
    assert all(torch.equal(one, other) for one, other in zip(whole, again, strict=True))
    parts = [epoch(source, 2, preparation=preparation, rank=rank, ranks=2)[1] for rank in range(2)]
    for value, *shared in zip(whole, *parts, strict=True):
        joined = torch.stack([part.unflatten(0, (3, 2)) for part in shared], 1).flatten(0, 2)
        assert torch.equal(joined, value)


def test_an_epoch_that_is_broken_off_leaves_no_workers_and_does_not_reach_the_next():
    source, preparation = coded(), Preparation(noisy, crop=True)
    batches = PictureBatches(source, batch_size=4, seed=3, preparation=preparation, workers=2)
    begun = iter(batches)
    next(begun)
    assert len(multiprocessing.active_children()) == 2
    del begun
    assert not multiprocessing.active_children()
    batches.set_epoch(1)
    made = [torch.cat(values) for values in zip(*batches, strict=True)]
    _, expected = epoch(source, 1, preparation=preparation)
    assert all(torch.equal(one, other) for one, other in zip(made, expected, strict=True))


def test_the_last_batch_of_an_epoch_comes_when_the_workers_have_ended():
    """Lightning drops the iterator then without asking for one more: Ctrl-C in a finaliser would be lost."""
    batches = PictureBatches(coded(), batch_size=4, seed=3, preparation=Preparation(), workers=2)
    made = iter(batches)
    for _ in range(len(batches)):
        next(made)
    assert not multiprocessing.active_children()


def test_workers_leave_ctrl_c_to_the_process_that_trains():
    """A terminal sends it to all of them."""
    batches = PictureBatches(coded(), batch_size=1, seed=3, preparation=Preparation(), workers=2)
    made = iter(batches)
    next(made)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGINT)
    assert len(list(made)) == len(batches) - 1


def test_pictures_made_in_this_process_leave_the_global_generator_alone():
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    epoch(coded(), preparation=Preparation(noisy))
    assert torch.rand(3).equal(expected)


def test_views_are_the_image_and_two_augmented_ones_cut_alike():
    def blur(picture):
        return picture.filter(ImageFilter.BoxBlur(int(torch.randint(1, 3, ()))))

    source = load_images("digits", "train")[:64]
    _, (views, _, index) = epoch(source, preparation=Preparation(blur, views=3, crop=True), batch_size=32)
    _, (plain, _, same) = epoch(source, preparation=Preparation(crop=True), batch_size=32)
    assert views.shape == (64, 3, 3, 32, 32)
    assert torch.equal(index, same)
    assert torch.equal(views[:, 0], plain)
    distance = (views.double() - plain[:, None].double()).abs().mean((0, 2, 3, 4))
    other = (plain.double() - plain.roll(1, 0).double()).abs().mean()
    assert (distance[1:] > 0).all()
    assert (distance[1:] < other / 2).all(), "views of one image are cut at one place"


@pytest.mark.parametrize("workers", [0, 2])
def test_an_unreadable_image_stops_the_training_or_is_left_out_and_noted(workers):
    with pytest.raises(InputError, match=r"broken\.jpg.*or let the recipe say data\.unreadable: skip"):
        epoch(of_kind(Damaged), workers=workers)
    batches, (_, _, index) = epoch(of_kind(Damaged), workers=workers, skip_unreadable=True)
    assert sorted(index.tolist()) == [100, *range(102, 112)]
    assert batches.unreadable == {1: "image 'broken.jpg' is truncated or not an image; replace it"}


class Lost(ImageSet):
    """No picture can be read any more."""

    def picture(self, place):
        raise InputError(f"image '{place}.jpg' cannot be read (Transport endpoint is not connected); check the file")


def test_a_batch_of_which_nothing_can_be_read_stops_the_training_all_the_same():
    with pytest.raises(
        InputError, match=r"\.jpg' cannot be read .* any other of the 4 images of its batch .* the disk"
    ):
        epoch(of_kind(Lost), skip_unreadable=True)


def test_numbers_out_of_range_are_refused():
    with pytest.raises(InputError, match="12 images do not fill one batch of 13"):
        epoch(coded(), batch_size=13)
    with pytest.raises(InputError, match="batch_size 4 is not a multiple of the 3 devices"):
        epoch(coded(), ranks=3)

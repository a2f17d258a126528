import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pushpull_conv.data import EvaluationBatches, ImageSet, TrainingBatches
from pushpull_conv.errors import InputError


def coded(count: int, height: int = 6, width: int = 5) -> ImageSet:
    """Images whose pixels say where they are: channel 0 the image (from 1), 1 the row, 2 the column (both from 1)."""
    images = torch.empty(count, 3, height, width, dtype=torch.uint8)
    images[:, 0] = torch.arange(1, count + 1)[:, None, None]
    images[:, 1] = torch.arange(1, height + 1)[:, None]
    images[:, 2] = torch.arange(1, width + 1)
    labels = torch.arange(count) % 7
    return ImageSet(images, labels, tuple("abcdefg"), torch.arange(count), "coded", "train")


def epoch(image_set: ImageSet, number: int = 0, **options) -> tuple[torch.Tensor, torch.Tensor]:
    batches = TrainingBatches(image_set, **{"batch_size": 8, "seed": 1} | options)
    batches.set_epoch(number)
    images, labels, index = zip(*batches, strict=True)
    assert torch.equal(torch.cat(index), torch.cat(images)[:, 0].flatten(1).amax(1).long() - 1)
    assert len(images) == len(batches)
    return torch.cat(images), torch.cat(labels)


@given(count=st.integers(9, 40), batch_size=st.integers(1, 9))
def test_an_image_comes_once_with_its_label_and_only_full_batches_come(count, batch_size):
    images, labels = epoch(coded(count), batch_size=batch_size)
    places = images[:, 0, 0, 0].long() - 1
    assert len(set(places.tolist())) == len(places) == count // batch_size * batch_size
    assert torch.equal(labels, places % 7)
    batches = TrainingBatches(coded(count), batch_size=batch_size, seed=0)
    assert [len(labels) for _, labels, _ in batches] == [batch_size] * (count // batch_size)


@given(seed=st.integers(0, 2**64), number=st.integers(0, 1000), padding=st.integers(0, 3), flip=st.booleans())
def test_each_picture_is_one_crop_of_the_padded_original_mirrored_or_not(seed, number, padding, flip):
    """Independent oracle: cut every possible crop out of the padded image by slicing and look for the batch's."""
    source = coded(5)
    images, _ = epoch(source, number, batch_size=5, seed=seed, crop_padding=padding, flip=flip)
    padded = torch.nn.functional.pad(source.images, (padding,) * 4)
    for image in images:
        crops = [
            padded[place, :, top : top + 6, left : left + 5]
            for place in range(5)
            for top in range(2 * padding + 1)
            for left in range(2 * padding + 1)
        ]
        allowed = torch.stack(crops + [crop.flip(-1) for crop in crops if flip])
        assert (allowed == image).flatten(1).all(1).any()


def test_crops_and_flips_are_uniform():
    source = coded(200, width=9)
    tops, lefts, mirrored = [], [], []
    for number in range(30):
        images, _ = epoch(source, number, batch_size=50, crop_padding=2, flip=True)
        row, column = images[:, 1, 3, 4].long(), images[:, 2, 3, 4].long()  # the middle is never border
        tops.append(row)
        step = images[:, 2, 3, 5].long() - column
        mirrored.append(step < 0)
        lefts.append(column)
    tops, lefts, mirrored = torch.cat(tops), torch.cat(lefts), torch.cat(mirrored)
    for values in (tops, lefts):
        share = values.bincount()[values.min() :] / len(values)
        assert len(share) == 5
        assert torch.allclose(share, torch.tensor(0.2), atol=0.025)
    assert abs(mirrored.double().mean() - 0.5) < 0.03


def test_an_epoch_is_a_function_of_seed_and_number():
    source, options = coded(40), {"crop_padding": 2, "flip": True}
    first = epoch(source, 3, **options)
    batches = TrainingBatches(source, batch_size=8, seed=1, **options)
    for number in (0, 1, 3):  # a loader that has run before, and one whose iteration was given up half-way
        batches.set_epoch(number)
        next(iter(batches))
        again = torch.cat([images for images, *_ in batches])
    assert torch.equal(again, first[0])
    assert not torch.equal(epoch(source, 4, **options)[0], first[0])
    assert not torch.equal(epoch(source, 3, seed=2, **options)[0], first[0])


def test_batch_size_changes_the_cutting_only():
    one, other = (epoch(coded(40), crop_padding=2, flip=True, batch_size=size)[0] for size in (4, 10))
    assert torch.equal(one, other)


@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_ranks_share_out_the_batches_of_one(ranks):
    source, options = coded(40), {"batch_size": 8, "crop_padding": 2, "flip": True}
    parts = [TrainingBatches(source, **options, seed=1, rank=rank, ranks=ranks) for rank in range(ranks)]
    for whole, *shared in zip(TrainingBatches(source, **options, seed=1), *parts, strict=True):
        for value, *pieces in zip(whole, *shared, strict=True):
            assert torch.equal(torch.cat(pieces), value)


def test_lightning_announces_the_epoch_to_the_sampler():
    batches = TrainingBatches(coded(9), batch_size=2, seed=0)
    batches.sampler.set_epoch(5)
    assert batches.epoch == 5


@given(count=st.integers(1, 40), batch_size=st.integers(1, 50))
def test_evaluation_keeps_the_order_and_every_image(count, batch_size):
    source = coded(count)
    batches = EvaluationBatches(source, batch_size=batch_size)
    assert len(list(batches)) == len(batches)
    assert torch.equal(torch.cat([images for images, *_ in batches]), source.images)
    assert torch.equal(torch.cat([labels for _, labels, _ in batches]), source.labels)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "batch_size must be 1 or more, not 0"),
        ({"batch_size": 41}, "40 images do not fill one batch of 41; lower batch_size"),
        ({"ranks": 3}, "batch_size 8 is not a multiple of the 3 devices that share a batch"),
        ({"crop_padding": -1}, "crop_padding must be 0 or more pixels, not -1"),
        ({"seed": -1}, "seed must be 0 or more, not -1"),
    ],
)
def test_bad_numbers_are_refused(options, message):
    with pytest.raises(InputError, match=message):
        TrainingBatches(coded(40), **{"batch_size": 8, "seed": 0} | options)


def test_bad_evaluation_batch_size():
    with pytest.raises(InputError, match="batch_size must be 1 or more"):
        EvaluationBatches(coded(3), batch_size=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_gives_the_same_batches():
    source = coded(40)
    here = epoch(source, crop_padding=2, flip=True)[0]
    there = epoch(source.to("cuda"), crop_padding=2, flip=True)[0]
    assert there.is_cuda
    assert torch.equal(there.cpu(), here)

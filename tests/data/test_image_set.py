import pytest
import torch

from pushpull_conv.data import ImageSet
from pushpull_conv.errors import InputError


def make(**changes) -> ImageSet:
    fields = {
        "images": torch.arange(4 * 3 * 5 * 6).remainder(256).to(torch.uint8).reshape(4, 3, 5, 6),
        "labels": torch.tensor([0, 1, 2, 1]),
        "classes": ("a", "b", "c"),
        "index": torch.tensor([5, 6, 7, 8]),
        "name": "tiny",
        "split": "test",
    }
    return ImageSet(**fields | changes)


@pytest.mark.parametrize("selection", [slice(1, 3), torch.tensor([1, 2]), torch.tensor([False, True, True, False])])
def test_a_selection_keeps_each_image_with_its_label_and_index(selection):
    part = make()[selection]
    assert torch.equal(part.images, make().images[1:3])
    assert part.labels.tolist() == [1, 2]
    assert part.index.tolist() == [6, 7]
    assert len(part) == 2
    assert part.num_classes == 3


def test_the_fingerprint_tells_what_the_images_are():
    same = make()
    assert same.fingerprint == make(name="renamed").fingerprint
    assert same.fingerprint == make(images=same.images.to(memory_format=torch.channels_last)).fingerprint
    assert same.fingerprint == same.to("cpu").fingerprint
    others = [
        make(images=same.images.flip(0)),
        make(images=same.images.reshape(4, 3, 6, 5)),
        make(labels=torch.tensor([0, 1, 2, 0])),
        make(index=torch.tensor([5, 6, 7, 9])),
        same[:3],
    ]
    assert len({other.fingerprint for other in others} | {same.fingerprint}) == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": torch.zeros(4, 3, 5, 6)}, r"images of tiny/test must be uint8 \[N, 3, H, W\], not torch.float32"),
        ({"images": torch.zeros(4, 1, 5, 6, dtype=torch.uint8)}, r"not torch.uint8 \[4, 1, 5, 6\]"),
        ({"images": torch.zeros(0, 3, 5, 6, dtype=torch.uint8)}, "tiny/test has no images"),
        ({"labels": torch.tensor([0, 1, 2])}, r"labels of tiny/test must be int64 \[4\].*not torch.int64 \[3\]"),
        ({"index": torch.zeros(4)}, "index of tiny/test must be int64"),
        ({"classes": ("a", "b", "a")}, "tiny/test has two classes called 'a'; give each class a name of its own"),
        ({"labels": torch.tensor([0, 3, 1, 1])}, "label 3 of image 1 of tiny/test is outside 0 to 2, its 3 classes"),
    ],
)
def test_what_does_not_fit_together_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        make(**changes)

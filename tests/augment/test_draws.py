"""Several draws from one photo."""

import numpy as np
import pytest
import torch
from PIL import Image

from pushpull_conv.augment import AUGMENTATIONS, CIFAR, IMAGENET, prime
from pushpull_conv.augment.draws import draws
from pushpull_conv.augment.policies import image_policy
from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.errors import InputError


@pytest.fixture
def photo():
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    return torch.from_numpy(np.array(Image.fromarray(pixels).resize((40, 40)))).permute(2, 0, 1)


@pytest.mark.parametrize("name", AUGMENTATIONS)
def test_draws_differ_are_the_same_again_and_leave_the_generator(name, photo):
    state = torch.get_rng_state()
    first = draws(name, photo, 40, seed=3)
    assert torch.equal(torch.get_rng_state(), state)
    torch.rand(1)
    assert torch.equal(draws(name, photo, 40, seed=3), first)
    assert torch.equal(draws(name, photo, 5, seed=3), first[:5])
    assert not torch.equal(draws(name, photo, 40, seed=4), first)
    assert len({image.numpy().tobytes() for image in first}) > 10
    assert (first.shape, first.dtype) == ((40, 3, 40, 40), torch.uint8)


def test_they_are_what_the_doors_give(photo):
    images = photo.expand(6, -1, -1, -1)
    assert torch.equal(
        draws("prime", photo, 6, seed=1), prime(images, index=torch.arange(6), epoch=0, seed=1, settings=IMAGENET)
    )
    small = photo[:, :32, :32]
    assert torch.equal(
        draws("prime", small, 6, seed=1),
        prime(images[..., :32, :32], index=torch.arange(6), epoch=0, seed=1, settings=CIFAR),
    )
    key = int(Random.keyed(torch.arange(3), 1, list(AUGMENTATIONS).index("randaugment")).bits(0, 1)[2])
    torch.default_generator.manual_seed(key)
    expected = np.asarray(image_policy("randaugment", 40)(Image.fromarray(photo.permute(1, 2, 0).numpy())))
    np.testing.assert_array_equal(draws("randaugment", photo, 3, seed=1)[2].permute(1, 2, 0), expected)


def test_an_unknown_augmentation_is_refused(photo):
    with pytest.raises(InputError, match="did you mean 'augmix'"):
        draws("augmixx", photo, 1, seed=0)

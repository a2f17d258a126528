"""What each augmentation makes of one photo, time after time: for a look at it."""

from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pushpull_conv.augment.prime import prime, settings_for
from pushpull_conv.augment.spec import AUGMENTATIONS
from pushpull_conv.corruptions.randomness import Random
from pushpull_conv.errors import require_module, require_name, require_seed


def draws(name: str, photo: Tensor, count: int, *, seed: int) -> Tensor:
    """Augment one photo several times, each time anew.

    Args:
        name: One of `AUGMENTATIONS`.
        photo: uint8 ``[3, S, S]``.
        count: How many times.
        seed: 0 to 2^64 - 1; another seed gives other draws. Torch's global generator is left as it was.

    Returns:
        uint8 ``[count, 3, S, S]``.

    Raises:
        InputError: ``name`` is unknown, ``seed`` out of range, or torchvision is not installed.

    Example:
        >>> photo = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8)
        >>> draws("augmix", photo, 4, seed=0).shape
        torch.Size([4, 3, 32, 32])
    """
    index, seed = torch.arange(count), require_seed(seed)
    if AUGMENTATIONS[require_name("augmentation", name, AUGMENTATIONS)].where == "batch":
        images = photo.expand(count, -1, -1, -1)
        return prime(images, index=index, epoch=0, seed=seed, settings=settings_for(photo.shape[-1]))
    require_module("torchvision", "train")
    from pushpull_conv.augment.policies import image_policy

    policy = image_policy(name, photo.shape[-1])
    picture = Image.fromarray(photo.permute(1, 2, 0).numpy())
    with torch.random.fork_rng(devices=()):
        keys = Random.keyed(index, seed, list(AUGMENTATIONS).index(name)).bits(0, 1).flatten().tolist()
        pictures = [_drawn(policy, picture, key) for key in keys]
    return torch.stack(pictures)


def _drawn(policy: Callable[[Image.Image], Image.Image], picture: Image.Image, key: int) -> Tensor:
    torch.default_generator.manual_seed(key)
    return torch.from_numpy(np.array(policy(picture))).permute(2, 0, 1)

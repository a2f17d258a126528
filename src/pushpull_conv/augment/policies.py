"""AutoAugment, AugMix, RandAugment and TrivialAugment on one picture at a time, as torchvision makes them."""

from collections.abc import Callable

from PIL import Image
from torchvision.transforms import v2

from pushpull_conv.augment.spec import AUGMENTATIONS, CIFAR_SIDE
from pushpull_conv.errors import InputError, require_name

ImagePolicy = Callable[[Image.Image], Image.Image]


def _auto_augment(size: int) -> v2.Transform:
    return v2.AutoAugment(v2.AutoAugmentPolicy.CIFAR10 if size <= CIFAR_SIDE else v2.AutoAugmentPolicy.IMAGENET)


def _aug_mix(size: int) -> v2.Transform:
    # Without the operations that the test corruptions overlap, as in the paper and against torchvision's default. A
    # severity of 1, as the authors' script has it for ImageNet, would leave torchvision no motion at all: it takes a
    # tenth of the range a step, from 0, where the authors draw from the whole range up to the severity.
    return v2.AugMix(severity=3, mixture_width=3, chain_depth=-1, alpha=1.0, all_ops=False)


def _rand_augment(size: int) -> v2.Transform:
    return v2.RandAugment(num_ops=2, magnitude=9, num_magnitude_bins=31)


def _trivial_augment(size: int) -> v2.Transform:
    return v2.TrivialAugmentWide(num_magnitude_bins=31)


_BUILDERS = {
    "autoaugment": _auto_augment,
    "augmix": _aug_mix,
    "randaugment": _rand_augment,
    "trivialaugment": _trivial_augment,
}


def image_policy(name: str, size: int) -> ImagePolicy:
    """Return an augmentation of single pictures.

    It draws from torch's global generator and from nothing else, so that the same picture under the same seed of that
    generator comes out the same. `torch.default_generator.manual_seed` sets it in a microsecond, much faster
    than `torch.manual_seed`; of the seed, the low 32 bits count.

    Args:
        name: ``"autoaugment"``: the policy found on CIFAR-10 for pictures of up to 32 pixels, that of ImageNet for
            larger ones. ``"augmix"``: severity 3, 3 chains of 1 to 3 operations, alpha 1, without the operations that
            overlap the test corruptions. ``"randaugment"``: 2 operations of magnitude 9, the paper's for a
            ResNet-50 on ImageNet, on torchvision's scale up to 30. ``"trivialaugment"``: the wide space of the paper
            in 31 steps.
        size: Side of the pictures in pixels.

    Returns:
        A function from an RGB picture to an RGB picture of the same size.

    Raises:
        InputError: ``name`` is not an augmentation of single pictures, or ``size`` is no positive integer.

    Source:
        See `pushpull_conv.augment.spec` for the papers; the operations are torchvision's.

    Example:
        >>> import torch
        >>> picture = Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 30).convert("RGB")
        >>> policy = image_policy("randaugment", 32)
        >>> _ = torch.default_generator.manual_seed(7)
        >>> once = policy(picture)
        >>> _ = torch.default_generator.manual_seed(7)
        >>> once == policy(picture), once.size, once.mode
        (True, (32, 32), 'RGB')
    """
    require_name("augmentation", name, [known for known, augment in AUGMENTATIONS.items() if augment.where == "image"])
    if type(size) is not int or size < 1:
        raise InputError(f"size is {size!r}; give the side of the pictures in pixels, an integer above 0")
    return _BUILDERS[name](size)

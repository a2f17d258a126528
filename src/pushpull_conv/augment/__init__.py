"""What training images go through beyond crop and flip.

`image_policy`, which needs torchvision, is in `pushpull_conv.augment.policies`.
"""

from pushpull_conv.augment.prime import CIFAR, IMAGENET, PrimeSettings, prime, settings_for
from pushpull_conv.augment.spec import AUGMENTATIONS, Augmentation, overlap_note

__all__ = [
    "AUGMENTATIONS",
    "CIFAR",
    "IMAGENET",
    "Augmentation",
    "PrimeSettings",
    "overlap_note",
    "prime",
    "settings_for",
]

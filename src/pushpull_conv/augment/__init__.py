"""What training images go through beyond crop and flip."""

from pushpull_conv.augment.prime import CIFAR, IMAGENET, PrimeSettings, prime

__all__ = ["CIFAR", "IMAGENET", "PrimeSettings", "prime"]

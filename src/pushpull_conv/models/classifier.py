"""`Classifier`: a network together with the normalisation of its input."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pushpull_conv.errors import InputError

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
"""Normalisation by the statistics of ImageNet, as torchvision's models expect it."""


class Classifier(nn.Module):
    """Map images to logits; the only place where images are normalised.

    Args:
        network: Maps normalised images ``[B, C, H, W]`` to logits ``[B, K]``. In half or double precision it gets the
            images so.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].

    Raises:
        InputError: ``mean`` and ``std`` are no sequences or differ in length, a mean is not in [0, 1] or a deviation
            not positive.

    Example:
        >>> classifier = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(48, 10)), mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> classifier(torch.zeros(2, 3, 4, 4, dtype=torch.uint8)).shape
        torch.Size([2, 10])
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, mean: Sequence[float], std: Sequence[float]) -> None:
        super().__init__()
        for argument, given in (("mean", mean), ("std", std)):
            if not isinstance(given, Sequence):
                raise InputError(f"{argument} is {given!r}; give a tuple with a number for each channel")
        if len(mean) != len(std):
            raise InputError(f"mean has {len(mean)} values and std {len(std)}; give one of each per channel")
        if not all(0 <= value <= 1 for value in mean):
            raise InputError(
                f"mean is {tuple(mean)}; allowed: 0 to 1, for pixels in [0, 1]; of 0 to 255, divide by 255"
            )
        if not std or not all(value > 0 for value in std):
            raise InputError(f"std is {tuple(std)}; allowed: positive numbers, one per channel")
        self.network = network
        like = next((value for value in network.parameters() if value.is_floating_point()), torch.empty(0))
        for name, values in (("mean", mean), ("std", std)):
            statistic = torch.tensor(values, dtype=like.dtype, device=like.device).view(-1, 1, 1)
            # Not persistent: a checkpoint's spec holds them, and its tensors are those of the network alone.
            self.register_buffer(name, statistic, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits ``[B, K]`` for ``images`` ``[B, C, H, W]``, uint8 or floating point in [0, 1]."""
        return self.network(self.normalise(images))

    def normalise(self, images: Tensor) -> Tensor:
        """Return ``images`` with the mean subtracted and divided by the deviation, in the network's dtype.

        Raises:
            InputError: They are no tensor of four dimensions, integers other than uint8, or have other channels than
                the mean and the deviation.
        """
        if not isinstance(images, Tensor):
            allowed = "a tensor [B, C, H, W], uint8 or floating point in [0, 1]"
            raise InputError(f"images are a {type(images).__name__}; give {allowed}")
        if images.dim() != 4:
            raise InputError(f"images are {[*images.shape]}; give [B, C, H, W], a single one as images[None]")
        if not images.is_floating_point():
            if images.dtype != torch.uint8:
                raise InputError(f"images are {images.dtype}; allowed: uint8, or floating point in [0, 1]")
            images = images.to(self.mean.dtype) / 255
        if images.shape[-3] != len(self.mean):
            raise InputError(
                f"images have {images.shape[-3]} channels, mean and std are of {len(self.mean)}; give one of each per "
                "channel, and a network that takes as many channels"
            )
        return (images.to(self.mean.dtype) - self.mean) / self.std


class ChosenLogits(nn.Module):
    """Give some of a classifier's logits, in an order of one's own: those of the classes that the images have.

    Args:
        classifier: Gives logits ``[B, K]``.
        places: The places of the logits to give among the K, in the order to give them in.

    Example:
        >>> three = Classifier(nn.Sequential(nn.AvgPool2d(4), nn.Flatten()), mean=(0.0,) * 3, std=(1.0,) * 3)
        >>> ChosenLogits(three, [2, 0])(torch.arange(3.0).view(1, 3, 1, 1).expand(1, 3, 4, 4))
        tensor([[2., 0.]])
    """

    places: Tensor

    def __init__(self, classifier: Classifier, places: Sequence[int]) -> None:
        super().__init__()
        self.classifier = classifier
        self.register_buffer("places", torch.tensor(places))

    def forward(self, images: Tensor) -> Tensor:
        """Return the chosen logits ``[B, len(places)]`` for ``images``."""
        return self.classifier(images)[:, self.places]


def count_parameters(model: nn.Module) -> int:
    """How many numbers a model learns or has learned.

    Example:
        >>> count_parameters(nn.Conv2d(3, 8, 3))
        224
    """
    return sum(parameter.numel() for parameter in model.parameters())

"""Batches on the device that holds the images: for training cut, shuffled and augmented, for evaluation in order."""

from collections.abc import Iterator

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from pushpull_conv.data.image_set import ImageSet
from pushpull_conv.data.source import ImageSource
from pushpull_conv.errors import InputError, require_positive

PADDING = 4
"""Pixels of black border that a random crop of a small image may reach into, on each side."""


class TrainingBatches:
    """One epoch of shuffled training batches, all of them full, with random crop and horizontal flip.

    Iterating gives ``(images, labels, index)``: uint8 ``[B, 3, H, W]``, int64 ``[B]`` and int64 ``[B]`` on the set's
    device. Order, crops and flips are a pure function of ``(seed, epoch)``, whatever was iterated before, so a run that
    resumes at an epoch sees exactly the batches of an uninterrupted one, and several ranks together see those of one.

    Args:
        image_set: The images.
        batch_size: Images in a batch, of all ranks together.
        seed: Together with the epoch, the key of all randomness.
        crop_padding: Pixels of black border on each side from which a crop of the original size is taken; 0: no crop.
        flip: Mirror each image left to right with probability 1/2.
        rank: Which part of each batch to give.
        ranks: The number of equal parts.

    Raises:
        InputError: A number is out of range, or there would be no batch.

    Example:
        >>> from pushpull_conv.data import load_images
        >>> batches = TrainingBatches(load_images("digits", "train"), batch_size=128, seed=1, crop_padding=4, flip=True)
        >>> batches.set_epoch(3)
        >>> images, labels, index = next(iter(batches))
        >>> len(batches), images.shape, images.dtype
        (11, torch.Size([128, 3, 32, 32]), torch.uint8)
    """

    def __init__(
        self,
        image_set: ImageSet,
        *,
        batch_size: int,
        seed: int,
        crop_padding: int = 0,
        flip: bool = False,
        rank: int = 0,
        ranks: int = 1,
    ) -> None:
        require_batches(len(image_set), batch_size, ranks)
        if crop_padding < 0:
            raise InputError(f"crop_padding must be 0 or more pixels, not {crop_padding}")
        if seed < 0:
            raise InputError(f"seed must be 0 or more, not {seed}")
        self.image_set = image_set
        self.batch_size = batch_size
        self.seed = seed
        self.crop_padding = crop_padding
        self.flip = flip
        self.rank = rank
        self.ranks = ranks
        self.epoch = 0

    @property
    def sampler(self) -> "TrainingBatches":
        """This object: Lightning announces each epoch by calling ``set_epoch`` on a loader's ``sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (counted from 0) that the next iteration gives."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.image_set) // self.batch_size

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        random = np.random.default_rng([self.seed, self.epoch])
        count, device = len(self.image_set), self.image_set.device
        order = torch.from_numpy(random.permutation(count)).to(device)
        offsets = torch.from_numpy(random.integers(0, 2 * self.crop_padding + 1, (count, 2))).to(device)
        flips = torch.from_numpy(random.integers(0, 2, count)).bool().to(device) & self.flip
        part = self.batch_size // self.ranks
        for start in range(self.rank * part, len(self) * self.batch_size, self.batch_size):
            batch = slice(start, start + part)
            images = self.image_set.images[order[batch]]
            if self.crop_padding or self.flip:
                images = _crop_and_flip(images, self.crop_padding, offsets[batch], flips[batch])
            yield images, self.image_set.labels[order[batch]], self.image_set.index[order[batch]]


class EvaluationBatches:
    """The images of a source in order, every one of them once, as ``(images, labels, index)`` batches.

    Example:
        >>> from pushpull_conv.data import load_images
        >>> batches = EvaluationBatches(load_images("digits", "test"), batch_size=100)
        >>> [len(labels) for images, labels, index in batches]
        [100, 100, 100, 55]
    """

    def __init__(self, source: ImageSource, *, batch_size: int) -> None:
        require_positive("batch_size", batch_size)
        self.source = source
        self.batch_size = batch_size

    def __len__(self) -> int:
        return -(-len(self.source) // self.batch_size)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        return ((batch.images, batch.labels, batch.index) for batch in self.source.batches(self.batch_size))


def _crop_and_flip(images: Tensor, padding: int, offsets: Tensor, flips: Tensor) -> Tensor:
    """Crop ``[B, C, H, W]`` at ``offsets`` ``[B, 2]`` (rows, columns) of its padded form, then mirror where ``flips``.

    A single gather does both: the place of every output pixel in its padded image is known beforehand.
    """
    batch, channels, height, width = images.shape
    padded = F.pad(images, (padding,) * 4)
    rows = torch.arange(height, device=images.device) + offsets[:, :1]
    across = torch.arange(width, device=images.device)
    columns = torch.where(flips[:, None], across.flip(0), across) + offsets[:, 1:]
    places = rows[:, :, None] * padded.shape[-1] + columns[:, None, :]
    places = places.reshape(batch, 1, -1).expand(-1, channels, -1)
    return padded.flatten(2).gather(2, places).reshape(images.shape)


def require_batches(count: int, batch_size: int, ranks: int) -> None:
    """Raise `InputError` unless ``count`` images make a batch, and a batch as many equal parts as there are ranks."""
    require_positive("batch_size", batch_size)
    require_equal_parts(batch_size, ranks)
    if count < batch_size:
        raise InputError(f"{count} images do not fill one batch of {batch_size}; lower batch_size")


def require_equal_parts(batch_size: int, ranks: int) -> None:
    """Raise `InputError` unless a batch can be shared out evenly among the ranks."""
    if batch_size % ranks:
        raise InputError(f"batch_size {batch_size} is not a multiple of the {ranks} devices that share a batch")

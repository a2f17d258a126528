"""Training batches whose images are decoded and augmented one by one, by worker processes."""

import dataclasses
import signal
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from pushpull_conv.cores import usable_cores
from pushpull_conv.data.batches import PADDING, require_batches
from pushpull_conv.data.pixels import scaled_part, scaled_size
from pushpull_conv.data.places import epoch_order
from pushpull_conv.data.source import ImageSource
from pushpull_conv.errors import InputError
from pushpull_conv.interrupts import interrupts_held, meet_interrupts

ImageAugmentation = Callable[[Image.Image], Image.Image]
"""Changes one picture; what it draws comes from torch's global generator."""


@dataclasses.dataclass(frozen=True)
class Preparation:
    """How a picture becomes a training image.

    Args:
        augment: Applied to the picture before it is scaled and cropped; None: nothing.
        views: Images made of each picture; of several, the first is not augmented. All are cropped and flipped alike.
        crop: Cut a random place out instead of the centre: of a picture that is scaled to another size first, so much
            as that leaves over; of one that has its size already, after adding 4 black pixels on each side.
        flip: Mirror the image left to right with probability 1/2.
    """

    augment: ImageAugmentation | None = None
    views: int = 1
    crop: bool = False
    flip: bool = False


class PictureBatches:
    """One epoch of shuffled training batches, made by worker processes a few batches ahead.

    Iterating gives ``(images, labels, index)``: uint8 ``[B, 3, H, W]``, or ``[B, V, 3, H, W]`` with several views,
    int64 ``[B]`` and int64 ``[B]``, on the CPU. Every draw is a pure function of ``(seed, epoch, index)``, whatever the
    number of workers or of ranks.

    Args:
        source: The images.
        batch_size: Images in a batch, of all ranks together.
        seed: Together with the epoch, the key of all randomness.
        preparation: How a picture becomes a training image.
        workers: Processes; 0: no others than this one.
        rank: Which part of each batch to give.
        ranks: The number of equal parts.
        skip_unreadable: Leave out an image that cannot be read, and note why in ``unreadable``, by its place. Of a
            batch at least one must be readable: else it is the disk, and ranks would lose step with each other.

    Raises:
        InputError: A number is out of range, or there would be no batch. While iterating: an image cannot be read.
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        batch_size: int,
        seed: int,
        preparation: Preparation,
        workers: int,
        rank: int = 0,
        ranks: int = 1,
        skip_unreadable: bool = False,
    ) -> None:
        require_batches(len(source), batch_size, ranks)
        self.source = source
        self.unreadable: dict[int, str] = {}
        self._skip = skip_unreadable
        part = slice(rank * (batch_size // ranks), (rank + 1) * (batch_size // ranks))
        self._keys = _Keys(source, batch_size, seed, part)
        self._loader = DataLoader(
            _Pictures(source, preparation, seed),
            batch_sampler=self._keys,
            num_workers=workers,
            collate_fn=_gathered,
            worker_init_fn=_begin_worker,
            generator=torch.Generator(),  # of its own: each epoch draws from it, for workers that have no use for it
        )

    @property
    def sampler(self) -> "PictureBatches":
        """This object: Lightning announces each epoch by calling ``set_epoch`` on a loader's ``sampler``."""
        return self

    def set_epoch(self, epoch: int) -> None:
        """Choose the epoch (counted from 0) that the next iteration gives."""
        self._keys.epoch = epoch

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        with interrupts_held():
            batches = iter(self._loader)
        for number, (images, labels, index, trouble) in enumerate(batches, start=1):
            self._note(trouble, readable=len(labels))
            if number == len(self):  # who trains may not ask for one more, and Ctrl-C in a finaliser would be lost
                next(batches, None)  # ends the workers
            yield images, labels, index

    def _note(self, trouble: dict[int, str], readable: int) -> None:
        """Keep why images of a batch could not be read, by place, or raise it."""
        if trouble and not self._skip:
            raise InputError(f"{next(iter(trouble.values()))}; or let the recipe say data.unreadable: skip")
        if not readable:
            first, count = next(iter(trouble.values())), len(trouble)
            raise InputError(f"{first}; nor can any other of the {count} images of its batch be read: check the disk")
        self.unreadable |= trouble


@dataclasses.dataclass
class _Keys:
    """What the workers are sent: the places of each batch, and the epoch with each, so that they need no state."""

    source: ImageSource
    batch_size: int
    seed: int
    part: slice
    epoch: int = 0

    def __len__(self) -> int:
        return len(self.source) // self.batch_size

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        epoch = self.epoch
        order = epoch_order(len(self.source), self.source.blocks, seed=self.seed, epoch=epoch)
        batches = order[: len(self) * self.batch_size].reshape(len(self), self.batch_size)
        return ([(epoch, place) for place in places] for places in batches[:, self.part].tolist())


@dataclasses.dataclass(frozen=True)
class _Pictures(Dataset["_Made"]):
    """Training images by (epoch, place)."""

    source: ImageSource
    preparation: Preparation
    seed: int

    def __getitem__(self, key: tuple[int, int]) -> "_Made":
        epoch, place = key
        try:
            picture = self.source.picture(place)
        except InputError as error:  # raised by the process that trains: a worker's error would arrive as a traceback
            return None, 0, place, str(error)
        index = int(self.source.index[place])
        views = self._views(picture, np.random.default_rng([self.seed, epoch, index]))
        return views, int(self.source.labels[place]), index, ""

    def _views(self, picture: Image.Image, random: np.random.Generator) -> Tensor:
        """The views of one picture: uint8 ``[V, 3, H, W]``."""
        augment, count = self.preparation.augment, self.preparation.views
        pictures = [picture] if count > 1 else []
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(int(random.integers(2**32)))  # no device but this process's is asked
            while len(pictures) < count:
                pictures.append(augment(picture) if augment else picture)
        place, flip = random.random(2), bool(random.integers(2)) and self.preparation.flip
        cuts = [self._cut(picture, place) for picture in pictures]
        pixels = [np.asarray(ImageOps.mirror(cut) if flip else cut) for cut in cuts]
        return torch.from_numpy(np.stack(pixels)).permute(0, 3, 1, 2).contiguous()

    def _cut(self, picture: Image.Image, place: np.ndarray) -> Image.Image:
        """Scale and crop one picture; ``place`` in [0, 1)^2 is where between the borders, from the top left."""
        (height, width), resize, crop = self.source.size, self.source.resize, self.preparation.crop
        if crop and resize is None:
            picture = ImageOps.expand(picture, PADDING)
        size = picture.size if resize is None else scaled_size(picture, resize)
        spare = np.array([size[1] - height, size[0] - width])
        begins = place * (spare + 1) if crop else np.round(spare / 2)
        top, left = begins.astype(int).tolist()
        box = (left, top, left + width, top + height)
        return picture.crop(box) if size == picture.size else scaled_part(picture, size, box)


_Made = tuple[Tensor | None, int, int, str]
"""The views of one training image, its label and its index; or None, 0, its place and why there is none."""


def _gathered(made: Sequence[_Made]) -> tuple[Tensor, Tensor, Tensor, dict[int, str]]:
    """One batch from its images, and the trouble with those that are missing, by place."""
    trouble = {place: reason for views, _, place, reason in made if views is None}
    whole = [(views, label, index) for views, label, index, _ in made if views is not None]
    if not whole:
        return torch.empty(0), torch.empty(0), torch.empty(0), trouble
    views, labels, index = zip(*whole, strict=True)
    images = torch.stack(views)
    return images[:, 0] if images.shape[1] == 1 else images, torch.tensor(labels), torch.tensor(index), trouble


def _begin_worker(worker: int) -> None:
    """Leave Ctrl-C to the process that trains, which ends its workers."""
    meet_interrupts(signal.SIG_IGN)


def default_workers(ranks: int) -> int:
    """Worker processes for each of ``ranks`` processes that train: one for each core, shared out."""
    return max(1, usable_cores() // ranks)

"""Labelled images that are decoded while they are used, a few batches ahead, and never lie in memory as a whole."""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from pushpull_conv.data.image_set import ImageSet, require_labels
from pushpull_conv.data.pixels import decode
from pushpull_conv.data.source import Batch
from pushpull_conv.data.spec import DataSpec
from pushpull_conv.errors import InputError

Given = TypeVar("Given")
Made = TypeVar("Made")

_TASK = 8


class Encoded(NamedTuple):
    """One encoded image.

    Attributes:
        name: What to call it in an error message.
        read: Gives the content of its file.
    """

    name: str
    read: Callable[[], bytes]


class EncodedImages(Protocol):
    """The encoded images of one split, in order, with their labels int64 ``[N]`` and index int64 ``[N]``."""

    @property
    def labels(self) -> Tensor:
        """int64 ``[N]``."""

    @property
    def index(self) -> Tensor:
        """int64 ``[N]``."""

    def __iter__(self) -> Iterator[Encoded]:
        """Every image once, in the order of the labels."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageStream:
    """Labelled images in files. Threads decode them, as many as torch has, no more than about a batch ahead.

    Args:
        encoded: The files.
        spec: The data set.
        split: ``"train"`` or ``"test"``.

    Raises:
        InputError: There is no image, or a label is outside the classes. While images are read: a file cannot be read
            or decoded, or has another size.
    """

    encoded: EncodedImages
    spec: DataSpec
    split: str

    def __post_init__(self) -> None:
        require_labels(self.labels, len(self.classes), f"{self.name}/{self.split}")

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def name(self) -> str:
        """The data set (``"imagenet"``)."""
        return self.spec.name

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class."""
        return self.spec.classes

    @property
    def num_classes(self) -> int:
        """How many classes there are, also if some have no image here."""
        return len(self.classes)

    @property
    def labels(self) -> Tensor:
        """int64 ``[N]``, places in ``classes``."""
        return self.encoded.labels

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        return self.spec.size, self.spec.size

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over the files' contents, how they are prepared, labels and index; reads every file once."""
        digest = hashlib.sha256(repr((len(self), self.spec.size, self.spec.resize)).encode())
        for part in _ahead(_digest, _tasks(self.encoded), ahead=2 * torch.get_num_threads()):
            digest.update(part)
        for values in (self.labels, self.encoded.index):
            digest.update(values.numpy().data)
        return digest.hexdigest()

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in order, ``batch_size`` at a time, on the CPU."""
        ahead = -(-batch_size // _TASK) + torch.get_num_threads()
        tasks = _ahead(functools.partial(_decode, spec=self.spec), _tasks(self.encoded), ahead=ahead)
        pixels: Iterator[np.ndarray] = itertools.chain.from_iterable(tasks)
        for labels, index in zip(self.labels.split(batch_size), self.encoded.index.split(batch_size), strict=True):
            images = torch.from_numpy(np.stack(list(itertools.islice(pixels, len(labels)))))
            yield Batch(images.permute(0, 3, 1, 2).contiguous(), labels, index)

    def load(self) -> ImageSet:
        """All images in memory."""
        images = torch.cat([batch.images for batch in self.batches(1000)])
        return ImageSet(images, self.labels, self.classes, self.encoded.index, self.name, self.split)


def _tasks(images: Iterable[Encoded]) -> Iterator[Sequence[Encoded]]:
    """What a thread does at a time: a thread handed each small image alone would cost more than it saves."""
    rest = iter(images)
    return iter(lambda: tuple(itertools.islice(rest, _TASK)), ())


def _decode(task: Sequence[Encoded], spec: DataSpec) -> list[np.ndarray]:
    return [decode(_read(image), image.name, spec) for image in task]


def _digest(task: Sequence[Encoded]) -> bytes:
    return b"".join(hashlib.sha256(_read(image)).digest() for image in task)


def _read(image: Encoded) -> bytes:
    try:
        return image.read()
    except OSError as error:
        raise InputError(f"image {image.name} cannot be read ({error.strerror}); check the file") from error


def _ahead(make: Callable[[Given], Made], tasks: Iterable[Given], *, ahead: int) -> Iterator[Made]:
    """``map(make, tasks)`` by threads, at most ``ahead`` tasks before the one that is asked for."""
    pool = concurrent.futures.ThreadPoolExecutor(torch.get_num_threads())
    pending: collections.deque[concurrent.futures.Future[Made]] = collections.deque()
    try:
        for task in tasks:
            pending.append(pool.submit(make, task))
            if len(pending) > ahead:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

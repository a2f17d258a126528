"""Labelled images that are decoded while they are used, a few batches ahead, and never lie in memory as a whole."""

import collections
import concurrent.futures
import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple, Protocol, Self, TypeVar

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pushpull_conv.data.image_set import ImageSet, require_labels
from pushpull_conv.data.pixels import decode, decode_picture
from pushpull_conv.data.source import Batch
from pushpull_conv.data.spec import GREYSCALE, DataSpec, greyscale_name
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
    """The encoded images of one split; it can be sent to other processes, and read by several at once."""

    @property
    def labels(self) -> Tensor:
        """int64 ``[N]``."""

    @property
    def index(self) -> Tensor:
        """int64 ``[N]``."""

    @property
    def blocks(self) -> Sequence[range] | None:
        """Runs of places that are read together, and cover every place once; None: every image is read alone."""

    @property
    def identity(self) -> str:
        """What tells the files from others, wherever they lie, without reading them: their names and sizes."""

    def __getitem__(self, place: int) -> Encoded:
        """The image at a place."""

    def subset(self, places: Tensor) -> Self:
        """The images at ``places`` (int64 ``[M]``)."""


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

    @property
    def index(self) -> Tensor:
        """int64 ``[N]``, each image's place in its full data set."""
        return self.encoded.index

    @property
    def resize(self) -> int | None:
        """Length to which the shorter side of a picture is scaled, in pixels; None: pictures have their size."""
        return self.spec.resize

    @property
    def blocks(self) -> Sequence[range] | None:
        """Runs of places whose files are cheap to read together."""
        return self.encoded.blocks

    @functools.cached_property
    def files(self) -> str:
        """What tells the files from others, wherever they lie, without reading them."""
        return self.encoded.identity

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over the files' contents, how they are prepared, labels and index; reads every file once."""
        prepared = (len(self), self.spec.size, self.spec.resize, *[GREYSCALE] * self.spec.greyscale)
        digest = hashlib.sha256(repr(prepared).encode())
        for part in ahead(_digest, tasks(self.encoded), count=2 * torch.get_num_threads()):
            digest.update(part)
        for values in (self.labels, self.index):
            digest.update(values.numpy().data)
        return digest.hexdigest()

    def picture(self, place: int) -> Image.Image:
        """The image at a place, RGB, neither scaled nor cut; large JPEG files are decoded at a part of their size.

        See ``reduced`` of `pushpull_conv.data.pixels.decode_picture`: it is a picture to train on.
        """
        image = self.encoded[place]
        return decode_picture(read(image), image.name, self.spec, reduced=True)

    def subset(self, places: Tensor) -> "ImageStream":
        """The images at ``places`` (int64 ``[M]``), each keeping its ``index``."""
        return dataclasses.replace(self, encoded=self.encoded.subset(places))

    def greyscale(self) -> "ImageStream":
        """The same images turned to luminance (ITU-R 601, as Pillow's "L"), on three equal channels."""
        name = greyscale_name(self.name)
        return dataclasses.replace(self, spec=dataclasses.replace(self.spec, name=name, greyscale=True))

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in order, ``batch_size`` at a time, on the CPU."""
        count = -(-batch_size // _TASK) + torch.get_num_threads()
        decoded = ahead(functools.partial(_decode, spec=self.spec), tasks(self.encoded), count=count)
        pixels: Iterator[np.ndarray] = itertools.chain.from_iterable(decoded)
        for labels, index in zip(self.labels.split(batch_size), self.index.split(batch_size), strict=True):
            images = torch.from_numpy(np.stack(list(itertools.islice(pixels, len(labels)))))
            yield Batch(images.permute(0, 3, 1, 2).contiguous(), labels, index)

    def load(self) -> ImageSet:
        """All images in memory."""
        images = torch.cat([batch.images for batch in self.batches(1000)])
        return ImageSet(images, self.labels, self.classes, self.index, self.name, self.split)


def tasks(images: EncodedImages) -> Iterator[Sequence[Encoded]]:
    """What a thread does at a time: a thread handed each small image alone would cost more than it saves."""
    rest = map(images.__getitem__, range(len(images.labels)))
    return iter(lambda: tuple(itertools.islice(rest, _TASK)), ())


def _decode(task: Sequence[Encoded], spec: DataSpec) -> list[np.ndarray]:
    return [decode(read(image), image.name, spec) for image in task]


def _digest(task: Sequence[Encoded]) -> bytes:
    return b"".join(hashlib.sha256(read(image)).digest() for image in task)


def read(image: Encoded) -> bytes:
    """The content of an image's file; `InputError` if it cannot be read."""
    try:
        return image.read()
    except OSError as error:
        raise InputError(f"image {image.name} cannot be read ({error.strerror}); check the file") from error


def ahead(make: Callable[[Given], Made], tasks: Iterable[Given], *, count: int) -> Iterator[Made]:
    """``map(make, tasks)`` by threads, at most ``count`` tasks before the one that is asked for."""
    pool = concurrent.futures.ThreadPoolExecutor(torch.get_num_threads())
    pending: collections.deque[concurrent.futures.Future[Made]] = collections.deque()
    try:
        for task in tasks:
            pending.append(pool.submit(make, task))
            if len(pending) > count:
                yield pending.popleft().result()
        while pending:
            yield pending.popleft().result()
    finally:
        pool.shutdown(cancel_futures=True)

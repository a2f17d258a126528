"""What benchmark and training need of labelled images, whether they lie in memory or are decoded when asked for."""

import dataclasses
import hashlib
import operator
from collections.abc import Iterator, Sequence
from typing import Protocol, Self

from PIL import Image
from torch import Tensor

SIZES = ", sizes "
"""In an identity: the signs for the sizes of files follow."""


@dataclasses.dataclass(frozen=True, slots=True)
class Batch:
    """Some images with what belongs to them.

    Args:
        images: uint8 ``[B, 3, H, W]``, RGB.
        labels: int64 ``[B]``.
        index: int64 ``[B]``, each image's place in its full data set, the key of its corruption.
    """

    images: Tensor
    labels: Tensor
    index: Tensor


class ImageSource(Protocol):
    """One split of a data set: images of one size, in a fixed order."""

    @property
    def name(self) -> str:
        """The data set (``"cifar10"``)."""

    @property
    def split(self) -> str:
        """``"train"`` or ``"test"``."""

    @property
    def classes(self) -> tuple[str, ...]:
        """The name of each class."""

    @property
    def num_classes(self) -> int:
        """How many classes there are, also if some have no image here."""

    @property
    def labels(self) -> Tensor:
        """int64 ``[N]``, places in ``classes``."""

    @property
    def index(self) -> Tensor:
        """int64 ``[N]``, each image's place in its full data set."""

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""

    @property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over all that decides images, labels and index: the identity that results record."""

    def __len__(self) -> int:
        """Number of images."""

    @property
    def files(self) -> str | None:
        """What tells their files from others, wherever these lie, without reading them; None: they lie in memory."""

    @property
    def resize(self) -> int | None:
        """Length to which the shorter side of a picture is scaled before ``size`` is cut out; None: it has its size."""

    @property
    def blocks(self) -> Sequence[range] | None:
        """Runs of places whose pictures are cheap to read together; None: each is as cheap alone. See `epoch_order`."""

    def picture(self, place: int) -> Image.Image:
        """The image at a place as it is stored, RGB, before it is scaled and cut; `InputError` if it cannot be read."""

    def subset(self, places: Tensor) -> Self:
        """The images at ``places`` (int64 ``[M]``), each keeping its ``index``."""

    def greyscale(self) -> Self:
        """The same images turned to luminance, on three equal channels; name and fingerprint are others."""

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in order, ``batch_size`` at a time; the last batch may be smaller."""


def identity_of(images: ImageSource) -> str:
    """Return a cheap identity of images, from their number, classes, labels and files; a fingerprint may read each."""
    labels = hashlib.sha256(images.labels.cpu().numpy().tobytes()).hexdigest()
    told = f"{len(images)} images of {images.num_classes} classes, labels {labels[:12]}"
    return told if images.files is None else f"{told}, {images.files}"


def same_images(one: str, other: str) -> bool:
    """Whether two identities are of the same images, of whose files some may have been damaged or restored meanwhile.

    A quarter of the signs for their sizes may differ: other images of the same names differ in nearly all.

    Example:
        >>> begun = "9 images of 2 classes, labels 5f, names 3c, sizes 012345678"
        >>> same_images(begun, begun.replace("8", "f")), same_images(begun, begun.replace("01234", "98765"))
        (True, False)
        >>> same_images(begun, begun.replace("5f", "50"))
        False
    """
    (told, _, signs), (other_told, _, other_signs) = (identity.partition(SIZES) for identity in (one, other))
    if (told, len(signs)) != (other_told, len(other_signs)):
        return False
    return sum(map(operator.ne, signs, other_signs)) <= len(signs) // 4

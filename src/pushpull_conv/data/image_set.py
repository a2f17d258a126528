"""The form in which labelled images pass between the rooms of this package."""

import dataclasses
import functools
import hashlib
import itertools
from collections.abc import Iterator

import torch
from PIL import Image
from torch import Tensor

from pushpull_conv.data.source import Batch
from pushpull_conv.data.spec import greyscale_name, require_own_names
from pushpull_conv.errors import InputError


@dataclasses.dataclass(frozen=True, eq=False)
class ImageSet:
    """Labelled images that fit in memory, kept as uint8 on one device.

    Args:
        images: uint8 ``[N, 3, H, W]``, RGB.
        labels: int64 ``[N]``, places in ``classes``.
        classes: The name of each class.
        index: int64 ``[N]``, each image's place in its full data set. It stays with the image when the set is
            shuffled or cut, and is the key of the image's corruption.
        name: The data set (``"cifar10"``).
        split: ``"train"`` or ``"test"``.

    Raises:
        InputError: There is no image, a tensor has another dtype, shape or length, two classes have one name, or a
            label is outside ``classes``.

    Example:
        >>> from pushpull_conv.data import load_images
        >>> digits = load_images("digits", "test")
        >>> digits.images.shape, digits.num_classes, len(digits[:100])
        (torch.Size([355, 3, 32, 32]), 10, 100)
    """

    images: Tensor
    labels: Tensor
    classes: tuple[str, ...]
    index: Tensor
    name: str
    split: str

    def __post_init__(self) -> None:
        if len(self.images) == 0:
            raise InputError(f"{self._title} has no images")
        if self.images.dtype != torch.uint8 or self.images.ndim != 4 or self.images.shape[1] != 3:
            raise InputError(
                f"images of {self._title} must be uint8 [N, 3, H, W], not {self.images.dtype} {[*self.images.shape]}"
            )
        for field in ("labels", "index"):
            values = getattr(self, field)
            if values.dtype != torch.int64 or values.shape != self.images.shape[:1]:
                raise InputError(
                    f"{field} of {self._title} must be int64 [{len(self.images)}], one for each image, "
                    f"not {values.dtype} {[*values.shape]}"
                )
        require_own_names(self.classes, self._title)
        require_labels(self.labels, self.num_classes, self._title)

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, selection: slice | Tensor) -> "ImageSet":
        """The images that a slice, an index tensor or a mask selects, each keeping its ``index``."""
        return dataclasses.replace(
            self, images=self.images[selection], labels=self.labels[selection], index=self.index[selection]
        )

    @property
    def num_classes(self) -> int:
        """How many classes there are, also if some have no image here."""
        return len(self.classes)

    @property
    def size(self) -> tuple[int, int]:
        """Height and width of every image, in pixels."""
        height, width = self.images.shape[2:]
        return height, width

    @property
    def device(self) -> torch.device:
        """Where the images lie."""
        return self.images.device

    @functools.cached_property
    def fingerprint(self) -> str:
        """SHA-256, in hex, over the shape, pixels, labels and index: the identity that results record."""
        digest = hashlib.sha256(repr(tuple(self.images.shape)).encode())
        for part in (self.images, self.labels, self.index):
            digest.update(part.cpu().contiguous().numpy().data)
        return digest.hexdigest()

    @property
    def files(self) -> None:
        """The images lie in memory."""

    @property
    def resize(self) -> None:
        """The images have their size already."""

    @property
    def blocks(self) -> None:
        """Every image is as cheap to read alone."""

    def picture(self, place: int) -> Image.Image:
        """The image at a place in the set, as a picture."""
        return Image.fromarray(self.images[place].permute(1, 2, 0).cpu().numpy())

    def subset(self, places: Tensor) -> "ImageSet":
        """The images at ``places`` (int64 ``[M]``), each keeping its ``index``."""
        return self[places]

    def greyscale(self) -> "ImageSet":
        """The same images turned to luminance (ITU-R 601, as Pillow's "L"), on three equal channels."""
        images = torch.cat([luminance(part) for part in self.images.split(1000)])
        return dataclasses.replace(self, images=images, name=greyscale_name(self.name))

    def batches(self, batch_size: int) -> Iterator[Batch]:
        """Every image once, in order, ``batch_size`` at a time, on the set's device; the last batch may be smaller."""
        parts = (values.split(batch_size) for values in (self.images, self.labels, self.index))
        return itertools.starmap(Batch, zip(*parts, strict=True))

    def to(self, device: torch.device | str) -> "ImageSet":
        """The same set on ``device``."""
        return dataclasses.replace(
            self, images=self.images.to(device), labels=self.labels.to(device), index=self.index.to(device)
        )

    @property
    def _title(self) -> str:
        return f"{self.name}/{self.split}"


def luminance(images: Tensor) -> Tensor:
    """Pillow's integer arithmetic: uint8 ``[N, 3, H, W]`` to the same, with equal channels."""
    red, green, blue = images.int().unbind(1)
    grey = (19595 * red + 38470 * green + 7471 * blue + 0x8000) >> 16
    return grey.to(torch.uint8)[:, None].expand(-1, 3, -1, -1).contiguous()


def require_labels(labels: Tensor, num_classes: int, title: str) -> None:
    """Raise `InputError` where a set has no labels or one that is no class."""
    if len(labels) == 0:
        raise InputError(f"{title} has no images")
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        place = int(outside.nonzero()[0])
        raise InputError(
            f"label {int(labels[place])} of image {place} of {title} is outside "
            f"0 to {num_classes - 1}, its {num_classes} classes"
        )

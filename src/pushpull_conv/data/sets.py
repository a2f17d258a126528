"""The data sets that can be loaded by name."""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pushpull_conv.data.cifar_batches import FOLDER as CIFAR_BATCHES
from pushpull_conv.data.cifar_batches import download_cifar_batches, read_cifar_batches
from pushpull_conv.data.folders import read_class_folders
from pushpull_conv.data.image_set import ImageSet
from pushpull_conv.data.parquet import read_parquet
from pushpull_conv.data.spec import DataSpec
from pushpull_conv.errors import InputError, require_module, require_name

SPLITS = ("train", "test")
CIFAR10 = DataSpec(
    name="cifar10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    size=32,
)


def load_images(name: str, split: str, *, root: str | os.PathLike[str] | None = None) -> ImageSet:
    """Load one split of a data set into memory.

    Args:
        name: One of `DATA_SETS`. ``"cifar10"``: 50,000 training and 10,000 test photographs of 32 x 32 pixels in 10
            classes. ``"digits"``: 1,797 handwritten digits, enlarged from 8 x 8 to 32 x 32 pixels; scikit-learn ships
            them, so they need neither files nor network.
        split: ``"train"`` or ``"test"``.
        root: The folder that holds ``"cifar10"`` as Parquet files (``train-*.parquet``, ``test-*.parquet``), as class
            folders (``train/<class>/*.png``, ``test/<class>/*.png``) or as the original ``cifar-10-batches-py``.
            None: the original is downloaded once to the user's cache folder.

    Returns:
        The images in the order of the files, on the CPU.

    Raises:
        InputError: The name or split is unknown; the folder is missing, empty or has other classes; a file is truncated
            or has images of another size; a label is out of range; there is no network to download from.

    Example:
        >>> train = load_images("digits", "train")
        >>> len(train), train.classes[:3], train.images.dtype
        (1442, ('0', '1', '2'), torch.uint8)
    """
    load = _LOADERS[require_name("data set", name, DATA_SETS)]
    return load(require_name("split", split, SPLITS), None if root is None else Path(root).expanduser())


def _load_cifar10(split: str, root: Path | None) -> ImageSet:
    images, labels = _read_cifar10(split, _cached_cifar10() if root is None else root)
    return ImageSet(images, labels, CIFAR10.classes, torch.arange(len(images)), CIFAR10.name, split)


def _read_cifar10(split: str, root: Path) -> tuple[Tensor, Tensor]:
    if not root.is_dir():
        raise InputError(f"data folder '{root}' is missing; give the folder of cifar10, or none to download it")
    if shards := sorted(root.glob(f"{split}-*.parquet")):
        return read_parquet(shards, CIFAR10)
    if (root / split).is_dir():
        return read_class_folders(root / split, CIFAR10)
    if (root / CIFAR_BATCHES).is_dir():
        return read_cifar_batches(root / CIFAR_BATCHES, split)
    raise InputError(
        f"data folder '{root}' has no {split} images of cifar10; expected {split}-*.parquet, {split}/<class>/*.png "
        f"or {CIFAR_BATCHES}"
    )


def _cached_cifar10() -> Path:
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pushpull-conv"
    if not (cache / CIFAR_BATCHES).is_dir():
        download_cifar_batches(cache / CIFAR_BATCHES)
    return cache


def _load_digits(split: str, root: Path | None) -> ImageSet:
    if root is not None:
        raise InputError(f"digits come with scikit-learn, not from a data folder; leave out '{root}'")
    digits = require_module("sklearn.datasets", "train").load_digits()
    labels = torch.from_numpy(digits.target).long()
    index = _digits_split(labels, split)
    grey = np.rint(digits.images * (255 / 16)).astype(np.uint8)
    # Pillow enlarges in integer arithmetic, so the pixels and their fingerprint are the same on every machine.
    enlarged = [np.asarray(Image.fromarray(grey[place]).resize((32, 32), Image.Resampling.BILINEAR)) for place in index]
    images = torch.from_numpy(np.stack(enlarged))[:, None].expand(-1, 3, -1, -1).contiguous()
    return ImageSet(images, labels[index], tuple(map(str, digits.target_names)), index, "digits", split)


def _digits_split(labels: Tensor, split: str) -> Tensor:
    """The places of one split: of each class in turn, every fifth image is a test image."""
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        is_test[(labels == label).nonzero()[4::5]] = True
    return (is_test if split == "test" else ~is_test).nonzero()[:, 0]


_LOADERS: dict[str, Callable[[str, Path | None], ImageSet]] = {"cifar10": _load_cifar10, "digits": _load_digits}
DATA_SETS = tuple(_LOADERS)
"""The names that `load_images` knows."""

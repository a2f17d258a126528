"""Images in class folders: ``root/<split>/<class>/<image file>``."""

from pathlib import Path

import torch
from torch import Tensor

from pushpull_conv.data.pixels import decode_images
from pushpull_conv.data.spec import DataSpec
from pushpull_conv.errors import InputError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


def read_class_folders(folder: Path, spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Read the class folders of one split; classes and files in alphabetical order.

    Args:
        folder: The split's folder; each folder in it is a class.
        spec: The data set, whose classes the folders must name.

    Returns:
        Images uint8 ``[N, 3, size, size]`` and labels int64 ``[N]``.

    Raises:
        InputError: The classes are others, a class has no images, or an image cannot be decoded.
    """
    classes = sorted(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    spec.require_classes(classes, folder)
    files = [(file, label) for label, name in enumerate(classes) for file in _image_files(folder / name)]
    images = decode_images([file.read_bytes() for file, _ in files], (f"'{file}'" for file, _ in files), spec.size)
    return images, torch.tensor([label for _, label in files], dtype=torch.int64)


def _image_files(folder: Path) -> list[Path]:
    files = sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES)
    if not files:
        raise InputError(f"class folder '{folder}' has no images ({', '.join(sorted(SUFFIXES))})")
    return files

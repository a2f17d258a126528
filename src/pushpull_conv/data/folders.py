"""Images in class folders: ``root/<split>/<class>/<image file>``."""

import dataclasses
import os
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch
from torch import Tensor

from pushpull_conv.data.spec import DataSpec
from pushpull_conv.data.stream import Encoded
from pushpull_conv.errors import InputError

SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files with their labels int64 ``[N]`` and their index int64 ``[N]``."""

    paths: tuple[str, ...]
    labels: Tensor
    index: Tensor

    def __iter__(self) -> Iterator[Encoded]:
        return (Encoded(f"'{path}'", Path(path).read_bytes) for path in self.paths)


def list_class_folders(folder: Path, spec: DataSpec) -> ImageFiles:
    """List the class folders of one split; classes and files in alphabetical order.

    Args:
        folder: The split's folder; each folder in it is a class.
        spec: The data set, whose classes the folders must name.

    Returns:
        The files of the data set's classes, each with its place among all files of the folder as index.

    Raises:
        InputError: The classes are others, or a class has no images.
    """
    found = class_names(folder)
    spec.require_classes(found, folder)
    return list_files(folder, dict(zip(found, spec.labels_of(found), strict=True)))


def list_files(folder: Path, labels: Mapping[str, int | None]) -> ImageFiles:
    """List the files of class folders, each with its place among them as index.

    Args:
        folder: What the class folders lie in.
        labels: The label of each class folder; None: its files count, but are not listed.

    Raises:
        InputError: A class has no images.
    """
    paths: list[str] = []
    files_of: list[int] = []
    index: list[int] = []
    before = 0
    for name, label in labels.items():
        names = [entry.name for entry in image_entries(folder / name)]
        if label is not None:
            paths += [f"{folder / name}{os.sep}{file}" for file in names]
            files_of += [label] * len(names)
            index += range(before, before + len(names))
        before += len(names)
    return ImageFiles(tuple(paths), torch.tensor(files_of, dtype=torch.int64), torch.tensor(index, dtype=torch.int64))


def class_names(folder: Path) -> list[str]:
    """The names of the folders in ``folder`` that are not hidden, in alphabetical order."""
    return sorted(entry.name for entry in os.scandir(folder) if entry.is_dir() and not entry.name.startswith("."))


def image_entries(folder: Path) -> list[os.DirEntry[str]]:
    """The image files in a class folder, in alphabetical order; `InputError` if there are none."""
    entries = [entry for entry in os.scandir(folder) if Path(entry.name).suffix.lower() in SUFFIXES]
    if not entries:
        raise InputError(f"class folder '{folder}' has no images ({', '.join(sorted(SUFFIXES))})")
    return sorted(entries, key=lambda entry: entry.name)

"""Images in class folders, ``root/<split>/<class>/<image file>``, and in the folders of the original Tiny-ImageNet."""

import collections
import dataclasses
import hashlib
import os
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from pushpull_conv.data.source import SIZES
from pushpull_conv.data.spec import OTHER, DataSpec, shortened
from pushpull_conv.data.stream import Encoded
from pushpull_conv.errors import InputError, InputWarning
from pushpull_conv.pictures import SUFFIXES

ANNOTATIONS_FILE = "val_annotations.txt"
"""Says in the original Tiny-ImageNet which class each validation image is of."""
IMAGES_FOLDER = "images"
"""Holds the images there: those of a class, in its folder, and those of the validation split."""
_KNOWN = SUFFIXES | {"", ".csv", ".db", ".htm", ".html", ".ini", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"}
"""How the names of images end, and of files that nobody takes for images."""
_MOST_SIZES = 1000
_GROUPS = 32
"""Of the sizes of files, and so the signs for them in an identity, at most."""


@dataclasses.dataclass(frozen=True, eq=False)
class ImageFiles:
    """Image files, held without an object for each, which every process that reads a large set would soon copy.

    Args:
        folders: The folders that the files lie in.
        folder_of: int64 ``[N]``, the place of each file's folder.
        names: Bytes ``[N]``, the name of each file in its folder.
        labels: int64 ``[N]``.
        index: int64 ``[N]``.
    """

    folders: tuple[str, ...]
    folder_of: np.ndarray
    names: np.ndarray
    labels: Tensor
    index: Tensor

    @property
    def blocks(self) -> None:
        """Every file is read alone."""

    @property
    def identity(self) -> str:
        """From the name of every file, and the sizes of some, evenly spaced: a million on a network disk take long."""
        names = hashlib.sha256(self.names.tobytes()).hexdigest()
        places = np.linspace(0, len(self.names) - 1, min(len(self.names), _MOST_SIZES)).astype(int)
        return f"names {names[:12]}{SIZES}{_signs([_size(self._path(place)) for place in places])}"

    def __getitem__(self, place: int) -> Encoded:
        """The image at a place."""
        path = self._path(place)
        return Encoded(f"'{path}'", path.read_bytes)

    def _path(self, place: int) -> Path:
        return Path(self.folders[self.folder_of[place]], os.fsdecode(self.names[place]))

    def subset(self, places: Tensor) -> "ImageFiles":
        """The files at ``places``."""
        chosen = places.numpy()
        return ImageFiles(
            self.folders, self.folder_of[chosen], self.names[chosen], self.labels[places], self.index[places]
        )


def list_split_folder(folder: Path, spec: DataSpec) -> ImageFiles:
    """List the images in the folder of one split, in alphabetical order of their classes and files.

    Args:
        folder: Each folder in it is a class, with its images there or in a folder ``images``; or it is the validation
            split of the original Tiny-ImageNet, with a ``val_annotations.txt``.
        spec: The data set, whose classes the folders must name.

    Returns:
        The files of the data set's classes, each with its place among all files of the folder as index.

    Raises:
        InputError: The classes are others, a class has no images, or files and annotations do not agree.
    """
    if (folder / ANNOTATIONS_FILE).is_file():
        return _list_annotated(folder, spec)
    found = class_names(folder)
    if not found:
        raise InputError(f"'{folder}' has no class folders; put its images into one folder for each class")
    spec.require_classes(found, folder)
    files, others = _list(folder, dict(zip(found, spec.labels_of(found), strict=True)))
    if others:
        warnings.warn(
            f"class folders of '{folder}' hold {others.total()} entries that are not read ({shortened(sorted(others))})"
            f"; pushpull data check '{folder.parent}' --data-set {spec.name} lists them",
            InputWarning,
            stacklevel=2,
        )
    return files


def list_files(folder: Path, labels: Mapping[str, int]) -> ImageFiles:
    """List the files of class folders, each with its place among them as index.

    Args:
        folder: What the class folders lie in.
        labels: The label of each class folder; with `OTHER` its files count, but are not listed.

    Raises:
        InputError: A class has no images.
    """
    return _list(folder, labels)[0]


def _list(folder: Path, labels: Mapping[str, int]) -> tuple[ImageFiles, collections.Counter[str]]:
    """Do what `list_files` does, and count what else lies there by the ending of its name."""
    holders, names, others = [], [], collections.Counter[str]()
    for name in labels:
        entries = entries_of_class(folder / name)
        images = _images_of(folder / name, entries)
        holders.append(str(Path(images[0].path).parent))
        names.append([entry.name for entry in images])
        if len(images) < len(entries):
            others.update(kind for entry in entries if (kind := _kind(entry)) not in _KNOWN)
    return _files(holders, names, tuple(labels.values())), others


def class_names(folder: Path) -> list[str]:
    """The names of the folders in ``folder`` that are not hidden, in alphabetical order.

    Raises:
        InputError: A name is not UTF-8, and so can be neither printed nor stored with results.
    """
    names = sorted(entry.name for entry in _visible(folder) if entry.is_dir())
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            raise InputError(
                f"class folder {os.fsencode(name)!r} in '{folder}' is not named in UTF-8; rename it"
            ) from error
    return names


def image_entries(folder: Path) -> list[os.DirEntry[str]]:
    """The image files in a class folder, in alphabetical order; `InputError` if there are none."""
    return _images_of(folder, entries_of_class(folder))


def _images_of(folder: Path, entries: Sequence[os.DirEntry[str]]) -> list[os.DirEntry[str]]:
    images = [entry for entry in entries if is_image(entry.name)]
    if not images:
        raise InputError(f"class folder '{folder}' has no images ({', '.join(sorted(SUFFIXES))})")
    return sorted(images, key=lambda entry: entry.name)


def entries_of_class(folder: Path) -> list[os.DirEntry[str]]:
    """What is not hidden in a class folder, and in its folder ``images`` where it has no images beside that."""
    entries = _visible(folder)
    inner = [entry for entry in entries if entry.name == IMAGES_FOLDER and entry.is_dir()]
    if not inner or any(is_image(entry.name) for entry in entries):
        return entries
    return [entry for entry in entries if entry not in inner] + _visible(folder / IMAGES_FOLDER)


def is_image(name: str) -> bool:
    """Whether a file's name ends like an image's."""
    return _suffix(name) in SUFFIXES


def _suffix(name: str) -> str:
    return os.path.splitext(name)[1].lower()  # noqa: PTH122  # a Path for each of a million is slow


def _kind(entry: os.DirEntry[str]) -> str:
    """The ending of a file's name, or what to call it without one."""
    return "folders" if entry.is_dir() else _suffix(entry.name)


def read_annotations(folder: Path) -> dict[str, str]:
    """The class of each validation image of the original Tiny-ImageNet, by the name of its file.

    Args:
        folder: The split's folder, which holds the annotations.

    Raises:
        InputError: A line is not a file and a class.
    """
    path = folder / ANNOTATIONS_FILE
    classes: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), start=1):
        name, tab, rest = line.partition("\t")
        if not tab or not name:
            raise InputError(f"line {number} of '{path}' is not a file's name, a tab and its class; copy it again")
        classes[name] = rest.split("\t")[0].strip()
    return classes


def _size(path: Path) -> int:
    """A file's size in bytes, -1 where that cannot be known: whoever reads it says so, or may leave it out."""
    try:
        return path.stat().st_size
    except OSError:
        return -1


def _signs(sizes: list[int]) -> str:
    """A hexadecimal digit for each of some groups of sizes: where few sizes change, most digits stay."""
    groups = np.array_split(np.array(sizes), min(len(sizes), _GROUPS))
    return "".join(f"{int(group.sum()) % 16:x}" for group in groups)


def _list_annotated(folder: Path, spec: DataSpec) -> ImageFiles:
    annotated = read_annotations(folder)
    there = {entry.name for entry in _visible(folder / IMAGES_FOLDER) if is_image(entry.name)}
    if missing := sorted(set(annotated) - there):
        raise InputError(f"'{folder / IMAGES_FOLDER / missing[0]}' is missing, of {len(missing)}; copy all of them")
    if spare := sorted(there - set(annotated)):
        raise InputError(f"'{folder / ANNOTATIONS_FILE}' does not say the class of {spare[0]}, of {len(spare)} images")
    by_class = collections.defaultdict(list)
    for name in sorted(annotated):
        by_class[annotated[name]].append(name)
    found = sorted(by_class)
    spec.require_classes(found, folder / ANNOTATIONS_FILE)
    holders = [str(folder / IMAGES_FOLDER)] * len(found)
    return _files(holders, [by_class[name] for name in found], spec.labels_of(found))


def _files(folders: Sequence[str], names: Sequence[list[str]], labels: Sequence[int]) -> ImageFiles:
    """The files of several folders, of which those of other classes count, but are not listed."""
    counts = [len(files) for files in names]
    label = np.repeat(np.array(labels, np.int64), counts)
    kept = np.flatnonzero(label != OTHER)
    return ImageFiles(
        tuple(folders),
        np.repeat(np.arange(len(folders)), counts)[kept],
        np.array([os.fsencode(name) for files in names for name in files], np.bytes_)[kept],
        torch.from_numpy(label[kept]),
        torch.from_numpy(kept),
    )


def _visible(folder: Path) -> list[os.DirEntry[str]]:
    try:
        return [entry for entry in os.scandir(folder) if not entry.name.startswith(".")]
    except FileNotFoundError as error:
        raise InputError(f"folder '{folder}' is missing; copy the whole set") from error

"""Images in tar shards, in the layout of WebDataset: ``key.jpg`` beside ``key.cls`` or ``key.json``."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import tarfile
import zipfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, NamedTuple, Self, cast

import numpy as np
import torch
from torch import Tensor

from pushpull_conv.data.shards import require_no_gap, require_stated_number
from pushpull_conv.data.spec import OTHER, DataSpec, is_label
from pushpull_conv.data.stream import Encoded
from pushpull_conv.errors import InputError
from pushpull_conv.files import atomic_write, cache_folder
from pushpull_conv.pictures import SUFFIXES

CLASSES_FILE = "classes.txt"
"""Beside the shards: the name of each class, one a line, in the order of the numbers in the shards."""
_COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst", ".tar.lz4")
_LABEL_KINDS = ("cls", "json")
_LABEL_KEYS = ("label", "cls")
"""What a label may be called in a ``key.json``."""
_RULES = 3
"""Counted up when shards are listed or refused by other rules, so that what was found by earlier ones is not used."""


@dataclasses.dataclass(frozen=True, eq=False)
class TarImages:
    """The images of all shards of one split that are of the data set's classes; each is read by itself.

    Args:
        shards: The tar files, in order.
        shard_of: int64 ``[N]``, the place of each image's shard.
        names: UTF-8 ``[N]``, the name of each image in its shard.
        offsets: int64 ``[N]``, where its content begins, in bytes.
        sizes: int64 ``[N]``, how long it is, in bytes.
        labels: int64 ``[N]``.
        index: int64 ``[N]``, the place of each among all images.
    """

    shards: tuple[Path, ...]
    shard_of: np.ndarray
    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: Tensor
    index: Tensor

    @property
    def blocks(self) -> None:
        """Every image is read alone."""

    @property
    def identity(self) -> str:
        """From the name and size of every image."""
        return f"files {hashlib.sha256(self.names.tobytes() + self.sizes.tobytes()).hexdigest()[:12]}"

    def __getitem__(self, place: int) -> Encoded:
        """The image at a place."""
        path = self.shards[self.shard_of[place]]
        read = functools.partial(_read, path, int(self.offsets[place]), int(self.sizes[place]))
        return Encoded(f"'{_shown(self.names[place])}' in '{path}'", read)

    def subset(self, places: Tensor) -> Self:
        """The images at ``places``."""
        arrays = {name: getattr(self, name)[places.numpy()] for name in ("shard_of", "names", "offsets", "sizes")}
        return dataclasses.replace(self, **arrays, labels=self.labels[places], index=self.index[places])


def find_tar_shards(root: Path, names: Sequence[str]) -> list[Path]:
    """The shards of a split in ``root``: ``<name>-*.tar``, ``*-<name>-*.tar`` or ``<name>/*.tar``, in order.

    None where each is beside a folder of its name, as ImageNet's are whose classes were unpacked from them.

    Args:
        root: The folder of the data set.
        names: What the split may be called, the preferred name first.

    Raises:
        InputError: They are compressed, or their names tell that one is missing.
    """
    for pattern in (f"{place}.tar" for name in names for place in (f"{name}-*", f"*-{name}-*", f"{name}/*")):
        if compressed := sorted(path for ending in _COMPRESSED for path in root.glob(pattern.replace(".tar", ending))):
            raise InputError(f"'{compressed[0]}' is compressed, so no image can be read alone; unpack it to a .tar")
        shards = sorted(root.glob(pattern))
        if shards and not all(shard.with_suffix("").is_dir() for shard in shards):  # left of the folders' unpacking
            require_stated_number(shards)
            require_no_gap(shards)
            return shards
    return []


def list_tar(shards: Sequence[Path], spec: DataSpec, classes_file: Path) -> TarImages:
    """List the images in the shards of one split, in their order.

    Shards are looked through once; what is found is kept in the user's cache folder for as long as a shard has the same
    size and time.

    Args:
        shards: Plain tar files in order. Each image ``key.jpg`` (or another of `SUFFIXES`) has a label,
            the text of ``key.cls`` or ``"label"`` or ``"cls"`` in ``key.json``.
        spec: The data set.
        classes_file: Says which class a label is; where there is no such file, labels are those of the data set.

    Raises:
        InputError: A shard is truncated, compressed or laid out differently, an image has no label, or the classes are
            others.
    """
    labels_of = _labels_of(spec, classes_file)
    listed = [_listed(shard) for shard in shards]
    shard_of = np.repeat(np.arange(len(listed)), [len(each.labels) for each in listed])
    names, offsets, sizes, numbers = (np.concatenate(column) for column in zip(*listed, strict=True))
    if labels_of is not None:
        _require_numbers(numbers, len(labels_of), classes_file)
        numbers = labels_of[numbers]
    kept = np.flatnonzero(numbers != OTHER)
    columns = (shard_of[kept], names[kept], offsets[kept], sizes[kept])
    return TarImages(tuple(shards), *columns, torch.from_numpy(numbers[kept]), torch.from_numpy(kept))


def read_classes(classes_file: Path) -> tuple[str, ...]:
    """The names of the classes, one a line."""
    try:
        lines = classes_file.read_text(encoding="utf-8-sig").splitlines()  # some editors begin with a byte order mark
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"'{classes_file}' cannot be read; write the name of each class there, one a line") from error
    return tuple(line.strip() for line in lines if line.strip())


class _Listed(NamedTuple):
    """The images of one shard, each field an array ``[n]`` as in `TarImages`; labels as they are in the shard."""

    names: np.ndarray
    offsets: np.ndarray
    sizes: np.ndarray
    labels: np.ndarray


def _labels_of(spec: DataSpec, classes_file: Path) -> np.ndarray | None:
    """The data set's label of each number in the shards; None: the same."""
    if classes_file.is_file():
        names = read_classes(classes_file)
        spec.require_classes(names, classes_file)
        return np.array(spec.labels_of(names), np.int64)
    spec.require_whole(f"'{classes_file}' is missing", "write the name of each class there, one a line")
    return None


def _require_numbers(numbers: np.ndarray, count: int, classes_file: Path) -> None:
    outside = numbers[(numbers < 0) | (numbers >= count)]
    if len(outside):
        raise InputError(f"the shards have the label {outside[0]}, but '{classes_file}' names {count} classes, from 0")


def _listed(shard: Path) -> _Listed:
    """The images of a shard, from the cache if it has been looked through before."""
    state = shard.stat()
    key = hashlib.sha256(f"{_RULES} {shard.resolve()} {state.st_size} {state.st_mtime_ns}".encode()).hexdigest()
    cached = cache_folder() / "tar" / f"{key}.npz"
    damaged = (OSError, EOFError, ValueError, KeyError, NotImplementedError, zipfile.BadZipFile)
    with contextlib.suppress(*damaged), np.load(cached) as content:
        return _Listed(*(content[field] for field in _Listed._fields))
    listed = _look_through(shard)
    with contextlib.suppress(InputError), atomic_write(cached) as temporary:  # a cache that cannot be kept is none
        np.savez(temporary, **listed._asdict())
    return listed


def _look_through(shard: Path) -> _Listed:
    images: dict[str, tuple[bytes, int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(shard, "r:") as tar:
            for key, kind, member in _members(tar, shard):
                if kind in _LABEL_KINDS:
                    content = cast("IO[bytes]", tar.extractfile(member)).read()  # a file, as `_members` sees to
                    label = _label(content, kind)
                    if label is not None:
                        labels.setdefault(key, label)
                elif key in images:
                    raise InputError(f"'{shard}' has two images '{key.rpartition('/')[2]}'; give each its own name")
                else:
                    images[key] = member.name.encode(errors="surrogateescape"), member.offset_data, member.size
            _require_end(shard, tar.offset)
    except (tarfile.TarError, OSError) as error:
        raise InputError(f"'{shard}' is truncated, compressed or not a tar file; copy or unpack it again") from error
    for key in images:
        if key not in labels:
            raise InputError(f"image '{_shown(images[key][0])}' in '{shard}' has no integer label in a .cls or .json")
    names, offsets, sizes = zip(*images.values(), strict=True) if images else ((), (), ())
    numbers = [labels[key] for key in images]
    return _Listed(np.array(names, np.bytes_), *(np.array(column, np.int64) for column in (offsets, sizes, numbers)))


def _members(tar: tarfile.TarFile, shard: Path) -> Iterator[tuple[str, str, tarfile.TarInfo]]:
    """The images and labels of a shard: the key that those of one image share, the ending, and the member itself."""
    for member in tar:
        folder, _, name = member.name.rpartition("/")
        stem, _, kind = name.partition(".")
        if stem and (f".{kind.lower()}" in SUFFIXES or kind in _LABEL_KINDS):
            _require_no_link(member, shard)
            if member.isreg():
                yield f"{folder}/{stem}", kind, member


def _require_no_link(member: tarfile.TarInfo, shard: Path) -> None:
    """A second hard link to a file is packed without its content, and so is a symbolic link."""
    if member.islnk() or member.issym():
        name, target = (_shown(text.encode(errors="surrogateescape")) for text in (member.name, member.linkname))
        raise InputError(
            f"'{name}' in '{shard}' is a link to '{target}', without content of its own; "
            "pack the shard with tar --dereference --hard-dereference"
        )


def _require_end(shard: Path, offset: int) -> None:
    """Zeros end an archive; `tarfile` takes the end of the file for it as well, or a header that is damaged."""
    if _read(shard, offset, tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError("no end of the archive")


def _shown(name: bytes) -> str:
    return name.decode(errors="backslashreplace")


def _label(content: bytes, kind: str) -> int | None:
    """The label in a ``.cls`` or ``.json`` file; None if there is none."""
    try:
        node = {"cls": int(content)} if kind == "cls" else json.loads(content)
    except ValueError:
        return None
    found = [node[key] for key in _LABEL_KEYS if key in node] if isinstance(node, dict) else []
    return next((value for value in found if is_label(value)), None)


def _read(path: Path, offset: int, size: int) -> bytes:
    """Part of a file, opened anew: nothing is shared by threads or processes."""
    with path.open("rb") as file:
        file.seek(offset)
        return file.read(size)

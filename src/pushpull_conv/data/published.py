"""The corrupted sets that can be downloaded, as they lie on the disk: CIFAR-10-C, Tiny-ImageNet-C, ImageNet-C.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations", ICLR
2019, arXiv 1903.12261, and the files that its authors published.
"""

import functools
import hashlib
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from pushpull_conv.data.folders import class_names, image_entries, list_files
from pushpull_conv.data.manifest import MANIFEST_FILE, changed, read_manifest, require_finished, total_bytes
from pushpull_conv.data.sets import larger_set
from pushpull_conv.data.source import Batch, ImageSource
from pushpull_conv.data.spec import DataSpec, is_greyscale
from pushpull_conv.data.stream import ImageStream
from pushpull_conv.errors import InputError

LABELS_FILE = "labels.npy"
_SEVERITIES = 5
"""Severities in an array file, one after the other."""


def open_published(
    folder: Path, source: ImageSource, layout: str, cells: Collection[tuple[str, int]]
) -> "PublishedArrays | PublishedFolders":
    """Open a corrupted set and make sure that it holds what is wanted of it.

    A set that `pushpull_conv.benchmark.write_set` wrote is compared with its manifest where its ``identity`` is found:
    arrays by their SHA-256, folders by the total size of their files. To read them as a whole there is
    `pushpull_conv.data.manifest.damaged_parts`.

    Args:
        folder: Where it lies.
        source: The clean images that it was made from, or as many of each class.
        layout: ``"arrays"``: ``<corruption>.npy``, uint8 ``[5N, H, W, 3]``, the severities one after the other, and
            ``labels.npy``, as CIFAR-10-C. ``"folders"``: ``<corruption>/<severity>/<class>/*.JPEG``, as Tiny-ImageNet-C
            and ImageNet-C; images of classes that the source has not are left out where it is a part of ImageNet.
        cells: The (corruption, severity) pairs that are wanted.

    Raises:
        InputError: Something that is wanted is missing, truncated, of another number or size, or labelled otherwise;
            only one of clean and corrupted images is in greyscale; or the set was written from other images.
    """
    if not folder.is_dir():
        raise InputError(f"published set '{folder}' is missing; give the folder that holds it")
    require_finished(folder)
    manifest = read_manifest(folder)
    _require_colours(folder, source, manifest.get("data", ""))
    kind = PublishedArrays if layout == "arrays" else PublishedFolders
    published = kind(folder, source, cells, manifest)
    _require_made_from(folder, source, manifest)
    return published


def _require_colours(folder: Path, source: ImageSource, made_from: str) -> None:
    """Raise `InputError` if only the clean or only the corrupted images are grey; downloaded sets are in colour."""
    if is_greyscale(made_from) != is_greyscale(source.name):
        grey, other = ("corrupted", "clean") if is_greyscale(made_from) else ("clean", "corrupted")
        raise InputError(
            f"the {grey} images are in greyscale, the {other} ones of '{folder}' and {source.name} in colour; "
            "leave the published set out, or give one that was written from the same images"
        )


def _require_made_from(folder: Path, source: ImageSource, manifest: Mapping[str, Any]) -> None:
    """Raise `InputError` if a set was written from other images than the source's, or than a larger set's."""
    facts = {"split": source.split}
    if manifest.get("images") == len(source):
        facts["fingerprint"] = source.fingerprint
    for name, value in facts.items():
        if manifest.get(name, value) != value:
            raise InputError(
                f"'{folder}' was written from other images than {source.name}/{source.split}: its {MANIFEST_FILE} has "
                f"the {name} {manifest[name]}, and not {value}; give the images that it was written from, in the same "
                "files"
            )


class PublishedArrays:
    """A set in the layout of CIFAR-10-C, read in pieces from the disk; see `open_published`."""

    def __init__(
        self, folder: Path, source: ImageSource, cells: Collection[tuple[str, int]], manifest: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self.source = source
        self.manifest = manifest
        self._require_labels()
        for corruption in {corruption: None for corruption, _ in cells}:
            self._array(corruption)

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256, in hex, over the names and contents of all arrays in the folder.

        Raises:
            InputError: An array is not the one that the set's manifest names.
        """
        digest, written = hashlib.sha256(), self.manifest["sha256"]
        for path in sorted(self.folder.glob("[!.]*.npy")):
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256")
            if written.get(path.name, content.hexdigest()) != content.hexdigest():
                raise changed(path)
            digest.update(path.name.encode() + content.digest())
        return digest.hexdigest()

    def batches(self, corruption: str, severity: int, batch_size: int) -> Iterator[Batch]:
        """Every image of one corruption and severity once, in order, ``batch_size`` at a time, on the CPU."""
        count = len(self.source)
        pixels = self._array(corruption)[(severity - 1) * count : severity * count]
        for start in range(0, count, batch_size):
            images = torch.from_numpy(np.array(pixels[start : start + batch_size])).permute(0, 3, 1, 2).contiguous()
            yield Batch(
                images, self.source.labels[start : start + batch_size], torch.arange(start, start + len(images))
            )

    def _array(self, corruption: str) -> np.ndarray:
        path = self.folder / f"{corruption}.npy"
        if not path.exists():
            raise InputError(f"corruption {corruption} is missing: there is no '{path}'; copy it, or leave it out")
        pixels = _mapped(path)
        count, size = len(self.source), self.source.size
        if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1:] != (*size, 3):
            raise InputError(
                f"'{path}' holds {pixels.dtype} {[*pixels.shape]}; "
                f"{self.source.name} needs uint8 [{_SEVERITIES * count}, {size[0]}, {size[1]}, 3]"
            )
        if len(pixels) != _SEVERITIES * count:
            raise InputError(
                f"'{path}' holds {len(pixels)} images; {_SEVERITIES} severities of the {count} images of "
                f"{self.source.name}/{self.source.split} are {_SEVERITIES * count}: images or severities are missing"
            )
        return pixels

    def _require_labels(self) -> None:
        path, clean = self.folder / LABELS_FILE, self.source.labels.cpu().numpy()
        if not path.exists():
            raise InputError(f"'{path}' is missing; copy the whole set, which says there what each image shows")
        labels, title = _mapped(path), f"{self.source.name}/{self.source.split}"
        if labels.dtype.kind not in "iu" or labels.shape != (_SEVERITIES * len(clean),):
            raise InputError(
                f"'{path}' holds {labels.dtype} {[*labels.shape]}; {_SEVERITIES} severities of the {len(clean)} images "
                f"of {title} need integers [{_SEVERITIES * len(clean)}]"
            )
        wrong = np.flatnonzero(labels != np.tile(clean, _SEVERITIES))
        if len(wrong):
            place = int(wrong[0])
            raise InputError(
                f"'{path}' gives image {place} the label {labels[place]}, {title} {clean[place % len(clean)]}, and "
                f"{len(wrong)} labels differ: they are shuffled or of other images; read the clean images in their "
                "original order, from Parquet files or the original batches"
            )


class PublishedFolders:
    """A set in the layout of ImageNet-C, decoded from its files while it is used; see `open_published`."""

    def __init__(
        self, folder: Path, source: ImageSource, cells: Collection[tuple[str, int]], manifest: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self.source = source
        self.manifest = manifest
        counts = source.labels.bincount(minlength=source.num_classes).tolist()
        self.counts = {name: count for name, count in zip(source.classes, counts, strict=True) if count}
        for corruption, severity in cells:
            self._require_cell(corruption, severity)

    @functools.cached_property
    def identity(self) -> str:
        """SHA-256, in hex, over the names and sizes of the files of all wanted classes.

        The sizes stand for the contents, which would take long to read: compressed photographs that differ seldom have
        the same size, and never all of them.

        Raises:
            InputError: The files of a severity do not have the size that the set's manifest names.
        """
        digest, written = hashlib.sha256(), self.manifest["bytes"]
        for cell in sorted(self.folder.glob(f"*/[1-{_SEVERITIES}]")):
            expected = written.get(f"{cell.parent.name}/{cell.name}")
            if expected is not None and total_bytes(cell) != expected:
                raise changed(cell)
            for name in class_names(cell):
                if name in self.counts:
                    for entry in image_entries(cell / name):
                        place = f"{cell.parent.name}/{cell.name}/{name}/{entry.name}"
                        digest.update(f"{place} {entry.stat().st_size}\n".encode())
        return digest.hexdigest()

    def batches(self, corruption: str, severity: int, batch_size: int) -> Iterator[Batch]:
        """Every image of one corruption and severity once, by class, ``batch_size`` at a time, on the CPU."""
        labels = {name: label for label, name in enumerate(self.source.classes) if name in self.counts}
        files = list_files(self.folder / corruption / str(severity), labels)
        spec = DataSpec(self.source.name, tuple(self.source.classes), size=self.source.size[0])
        return ImageStream(files, spec, self.source.split).batches(batch_size)

    def _require_cell(self, corruption: str, severity: int) -> None:
        cell = self.folder / corruption / str(severity)
        for folder, what in ((cell.parent, "corruption"), (cell, "severity")):
            if not folder.is_dir():
                raise InputError(f"{what} {folder.name} is missing: there is no '{folder}'; copy it, or leave it out")
        found = class_names(cell)
        if unknown := sorted(set(found) - set(larger_set(self.source))):
            raise InputError(f"class folder '{cell / unknown[0]}' is not of {self.source.name}; remove it")
        for name, count in self.counts.items():
            there = len(image_entries(cell / name)) if name in found else 0
            if there != count:
                raise InputError(
                    f"'{cell / name}' has {there} images, where {self.source.name}/{self.source.split} has {count} "
                    "of this class; copy all of them, or give the clean images that the set was made from"
                )


def _mapped(path: Path) -> np.ndarray:
    """An array on the disk, not read before it is used."""
    try:
        return np.lib.format.open_memmap(path, mode="r")
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' is truncated or not an array of numpy; copy it again") from error

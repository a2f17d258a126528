"""The data sets that can be opened by name."""

import dataclasses
import os
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pushpull_conv.data.cifar_batches import FOLDER as CIFAR_BATCHES
from pushpull_conv.data.cifar_batches import download_cifar_batches, read_cifar_batches
from pushpull_conv.data.folders import class_names, is_image, list_split_folder
from pushpull_conv.data.image_set import ImageSet
from pushpull_conv.data.parquet import list_parquet
from pushpull_conv.data.source import ImageSource
from pushpull_conv.data.spec import DataSpec, class_list, colour_name
from pushpull_conv.data.stream import ImageStream
from pushpull_conv.data.tar import CLASSES_FILE, find_tar_shards, list_tar, read_classes
from pushpull_conv.errors import InputError, require_module, require_name
from pushpull_conv.files import cache_folder

SPLITS = ("train", "test")
CIFAR10 = DataSpec(
    name="cifar10",
    classes=("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"),
    size=32,
    held_out=("test",),
)
IMAGENET = class_list("imagenet")
STREAMED = {
    spec.name: spec
    for spec in (
        DataSpec("tiny-imagenet", class_list("imagenet-200"), size=64),
        DataSpec("imagenet", IMAGENET, size=224, resize=256),
        DataSpec("imagenet-100", class_list("imagenet-100"), size=224, resize=256, within=IMAGENET),
        DataSpec("imagenet-200", class_list("imagenet-200"), size=224, resize=256, within=IMAGENET),
    )
}
FOLDER = "folder"
DIGITS = "digits"
_SPLIT_FOLDERS = {"train", *DataSpec.held_out}
_ANY_TREE = DataSpec(FOLDER, (), size=224, resize=256)
IN_MEMORY = (CIFAR10.name, DIGITS)
"""The names that `load_images` knows."""
DATA_SETS = (*IN_MEMORY, *STREAMED, FOLDER)
"""The names that `open_images` knows."""


def open_images(
    name: str, split: str, *, root: str | os.PathLike[str] | None = None, greyscale: bool = False
) -> ImageSource:
    """Open one split of a data set: in memory where it is small, else decoded from its files while it is used.

    Args:
        name: One of `DATA_SETS`. Those that `load_images` knows, and: ``"tiny-imagenet"``, 64 x 64 pixels, 200 classes.
            ``"imagenet"``, 1000 classes, ``"imagenet-100"`` and ``"imagenet-200"``, parts of it: photographs whose
            shorter side is scaled to 256 pixels and whose central 224 x 224 are cut out. ``"folder"``: any tree of
            class folders, whose names are the classes, scaled and cut in the same way.
        split: ``"train"`` or ``"test"``; the validation images of these sets are their test images, as their own test
            labels are not public.
        root: The folder that holds the set as class folders (``train/<class>/*``, and ``val``, ``valid``,
            ``validation`` or ``test``), as Parquet files (``train-*.parquet``, ``validation-*.parquet``, ...; not for
            ``"folder"``), as tar shards (``train-*.tar``, ..., and ``classes.txt``) or, for Tiny-ImageNet, as its
            authors published it. A part of ImageNet may lie in the whole one.
        greyscale: Turn every image to luminance (ITU-R 601), on three equal channels; the set's name ends in
            ``-greyscale``.

    Returns:
        The images in the order of the files; of a tree of class folders, in alphabetical order.

    Raises:
        InputError: The name or split is unknown; the folder is missing, empty or has other classes; a file is truncated
            or laid out otherwise; a label is out of range.

    Example:
        >>> source = open_images("digits", "test")
        >>> [len(batch.labels) for batch in source.batches(200)], source.size
        ([200, 155], (32, 32))
    """
    require_name("data set", name, DATA_SETS)
    require_name("split", split, SPLITS)
    source: ImageSource = load_images(name, split, root=root) if name in IN_MEMORY else _open_stream(name, split, root)
    return source.greyscale() if greyscale else source


def load_images(name: str, split: str, *, root: str | os.PathLike[str] | None = None) -> ImageSet:
    """Load one split of a small data set into memory.

    Args:
        name: One of `IN_MEMORY`. ``"cifar10"``: 50,000 training and 10,000 test photographs of 32 x 32 pixels in 10
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
    require_name("data set", name, IN_MEMORY)
    require_name("split", split, SPLITS)
    folder = None if root is None else Path(root).expanduser()
    return _load_digits(split, folder) if name == DIGITS else _load_cifar10(split, folder)


def spec_of(name: str) -> DataSpec:
    """What the files of a data set must look like; the classes of ``"folder"``, which are in the files, are left out.

    Raises:
        InputError: There is no such data set, or it has no files.
    """
    require_name("data set", name, DATA_SETS)
    if name == DIGITS:
        raise InputError(f"{name} come with scikit-learn, not from a data folder; name a set that lies in files")
    return {CIFAR10.name: CIFAR10, FOLDER: _ANY_TREE, **STREAMED}[name]


def open_stream(name: str, split: str, root: Path) -> ImageStream | None:
    """Open one split from its files; None if ``root`` holds it in none of the layouts that `open_images` lists.

    Raises:
        InputError: As for `open_images`.
    """
    spec = spec_of(name)
    require_folder(root, name)
    match _found(spec, split, root):
        case "parquet", shards:
            return ImageStream(list_parquet(shards, spec), spec, split)
        case "tar", shards:
            if name == FOLDER:
                spec = dataclasses.replace(spec, classes=read_classes(root / CLASSES_FILE))
            return ImageStream(list_tar(shards, spec, root / CLASSES_FILE), spec, split)
        case "folder", [folder]:
            if name == FOLDER:
                _require_same_classes(root, spec)
                spec = dataclasses.replace(spec, classes=tuple(class_names(folder)))
            return ImageStream(list_split_folder(folder, spec), spec, split)
    return None


def require_folder(root: Path, name: str) -> None:
    """Raise `InputError` unless ``root``, which holds a data set, is a folder."""
    if not root.is_dir():
        what = "is a file, and no folder" if root.exists() else "is missing"
        raise InputError(f"data folder '{root}' {what}; give the folder of {'the images' if name == FOLDER else name}")


def split_folder(name: str, split: str, root: Path) -> Path | None:
    """The folder whose class folders are one split; None where it lies otherwise, or not in ``root``."""
    found = _found(spec_of(name), split, root)
    return found[1][0] if found and found[0] == "folder" else None


def nothing_in(root: Path, name: str, *splits: str) -> InputError:
    """Return the error for a folder that has one split, or any, of a data set in none of its layouts."""
    what = f"{splits[0]} images of {name}" if len(splits) == 1 else f"images of {name} in a layout that is known"
    expected = ", ".join(_layouts(name, split) for split in splits)
    advice = ""
    if root.name in _SPLIT_FOLDERS:
        advice = f"; give the folder that holds it, '{root.parent}'"
    elif any(is_image(path.name) for path in root.glob("[!.]*/*")):
        advice = f"; if its folders are classes, put them into {spec_of(name).held_out[0]}/ (and train/)"
    return InputError(f"data folder '{root}' has no {what}; expected {expected}{advice}")


def _layouts(name: str, split: str) -> str:
    """Where the files of a split are looked for, as `open_images` lists it, for a sentence."""
    if name == CIFAR10.name:
        return f"{split}-*.parquet, {split}/<class>/*.png or {CIFAR_BATCHES}"
    kinds = "{0}/<class>/* or {0}-*.tar" if name == FOLDER else "{0}/<class>/*, {0}-*.parquet or {0}-*.tar"
    return ", ".join(map(kinds.format, spec_of(name).names_of(split)))


def require_outside(out: Path, root: Path | None) -> None:
    """Raise `InputError` if ``out`` lies among the images of the data set in ``root`` and would become one of them."""
    if root is None:
        return
    below = os.path.relpath(out.expanduser().resolve(), root.expanduser().resolve())
    if Path(below).parts[0] in _SPLIT_FOLDERS:
        raise InputError(f"output folder '{out}' lies among the images of '{root}'; choose a folder outside of it")


def larger_set(source: ImageSource) -> tuple[str, ...]:
    """The classes that files of a source's data set may be of: its own, or those of the set that it is a part of."""
    spec = STREAMED.get(colour_name(source.name))
    return spec.within if spec and spec.within else source.classes


def _open_stream(name: str, split: str, root: str | os.PathLike[str] | None) -> ImageStream:
    if root is None:
        raise InputError(f"{name} is not downloaded; give the folder that holds it (--data)")
    folder = Path(root).expanduser()
    stream = open_stream(name, split, folder)
    if stream is None:
        raise nothing_in(folder, name, split)
    return stream


def _require_same_classes(root: Path, spec: DataSpec) -> None:
    """A class that one split lacks would give all later ones another label there."""
    folders = [folder for split in SPLITS if (folder := _split_folder(root, spec.names_of(split)))]
    first, *others = [(folder, set(class_names(folder))) for folder in folders]
    for folder, classes in others:
        if alone := sorted(classes ^ first[1]):
            raise InputError(
                f"class '{alone[0]}', of {len(alone)}, is in one of '{first[0]}' and '{folder}' only; "
                "give both splits the same class folders"
            )


def _found(spec: DataSpec, split: str, root: Path) -> tuple[Literal["parquet", "tar", "folder"], list[Path]] | None:
    """The layout in which ``root`` holds a split, and its shards or its one folder."""
    names = spec.names_of(split)
    if spec.name != FOLDER and (shards := _parquet_shards(root, names)):
        return "parquet", shards
    if shards := find_tar_shards(root, names):
        return "tar", shards
    folder = _split_folder(root, names)
    return ("folder", [folder]) if folder else None


def _parquet_shards(root: Path, names: tuple[str, ...]) -> list[Path]:
    return next((files for name in names if (files := sorted(root.glob(f"{name}-*.parquet")))), [])


def _split_folder(root: Path, names: tuple[str, ...]) -> Path | None:
    return next((root / name for name in names if (root / name).is_dir()), None)


def _load_cifar10(split: str, root: Path | None) -> ImageSet:
    folder = _cached_cifar10() if root is None else root
    if stream := open_stream(CIFAR10.name, split, folder):
        return stream.load()
    if not (folder / CIFAR_BATCHES).is_dir():
        raise nothing_in(folder, CIFAR10.name, split)
    images, labels = read_cifar_batches(folder / CIFAR_BATCHES, split)
    return ImageSet(images, labels, CIFAR10.classes, torch.arange(len(images)), CIFAR10.name, split)


def _cached_cifar10() -> Path:
    cache = cache_folder()
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
    return ImageSet(images, labels[index], tuple(map(str, digits.target_names)), index, DIGITS, split)


def _digits_split(labels: Tensor, split: str) -> Tensor:
    """The places of one split: of each class in turn, every fifth image is a test image."""
    is_test = torch.zeros(len(labels), dtype=torch.bool)
    for label in labels.unique():
        is_test[(labels == label).nonzero()[4::5]] = True
    return (is_test if split == "test" else ~is_test).nonzero()[:, 0]

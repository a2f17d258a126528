"""Looking over a data set before it is trained on: every folder, every file, every image."""

import collections
import dataclasses
import functools
import io
import os
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from pushpull_conv.data.cifar_batches import FOLDER as CIFAR_BATCHES
from pushpull_conv.data.folders import ANNOTATIONS_FILE, class_names, entries_of_class, is_image, list_files
from pushpull_conv.data.image_set import ImageSet
from pushpull_conv.data.pixels import decode_picture
from pushpull_conv.data.sets import (
    FOLDER,
    IN_MEMORY,
    SPLITS,
    load_images,
    nothing_in,
    open_stream,
    require_folder,
    spec_of,
    split_folder,
)
from pushpull_conv.data.spec import DataSpec, shortened
from pushpull_conv.data.stream import Encoded, ImageStream, ahead, read, tasks
from pushpull_conv.errors import InputError

_BOXES = "_boxes.txt"
"""Ends the name of the file with the boxes of a class, in the published Tiny-ImageNet."""
_AHEAD = 16


@dataclasses.dataclass(frozen=True)
class SplitCheck:
    """What one split holds.

    Args:
        split: ``"train"`` or ``"test"``.
        counts: The number of images of each class that can be used.
        damaged: The number of images that cannot.
        smallest: Width and height of the image with the fewest pixels.
        largest: Width and height of the one with the most.
        modes: How many images have which of Pillow's modes: ``"RGB"``, ``"L"`` (grey), ``"CMYK"``, ...
        seconds: How long it took to read and decode them.
    """

    split: str
    counts: dict[str, int]
    damaged: int
    smallest: tuple[int, int]
    largest: tuple[int, int]
    modes: dict[str, int]
    seconds: float

    @property
    def images(self) -> int:
        """The number of images that can be used."""
        return sum(self.counts.values())


@dataclasses.dataclass(frozen=True)
class DataCheck:
    """What a data set holds, and what is wrong with it.

    Args:
        name: The data set.
        splits: The splits that are there and can be read at all.
        problems: A sentence for everything that is wrong; none: all is well.
    """

    name: str
    splits: tuple[SplitCheck, ...]
    problems: tuple[str, ...]


def check_data(
    name: str, root: str | os.PathLike[str], *, on_images: Callable[[str, int, int], None] | None = None
) -> DataCheck:
    """Look for the class folders and files of a data set and decode every image, by as many threads as torch has.

    Args:
        name: One of `pushpull_conv.data.DATA_SETS` that lies in files.
        root: The folder that holds it, in one of the layouts of `pushpull_conv.data.open_images`.
        on_images: Called after every few images: split, images done, images in all.

    Returns:
        What was found. A split that is not there is left out, as a benchmark needs no training images.

    Raises:
        InputError: The name is unknown, or the folder is missing or has no split at all.

    Example:
        >>> import tempfile
        >>> root = Path(tempfile.mkdtemp())
        >>> for name in ("ant", "bee"):
        ...     (root / "train" / name).mkdir(parents=True)
        >>> Image.new("L", (20, 30)).save(root / "train" / "bee" / "0.png")
        >>> Image.new("L", (40, 30)).save(root / "train" / "ant" / "0.png")
        >>> _ = (root / "train" / "ant" / "1.png").write_text("half an ima")
        >>> found = check_data("folder", root)
        >>> found.splits[0].counts, found.splits[0].largest, found.splits[0].modes
        ({'ant': 1, 'bee': 1}, (40, 30), {'L': 2})
        >>> len(found.problems), found.problems[0].endswith("ant/1.png' is truncated or not an image; replace it")
        (1, True)
    """
    spec, folder = spec_of(name), Path(root).expanduser()
    require_folder(folder, name)
    splits, absent, problems = [], [], []
    for split in SPLITS:
        source, found = _opened(spec, split, folder)
        problems += found
        if source is not None:
            report = functools.partial(on_images, split) if on_images else None
            checked, found = _in_memory(source) if isinstance(source, ImageSet) else _decoded(source, report)
            splits.append(checked)
            problems += found
        elif not found:
            absent.append(split)
    if not splits and not problems:
        raise nothing_in(folder, name, *SPLITS)
    problems += [problem for split in absent for problem in _other_folders(spec, split, folder)]
    if splits and len(classes := list(splits[0].counts)) == 1:
        problems.append(f"'{folder}' has one class only, '{classes[0]}'; give each class a folder of its own beside it")
    return DataCheck(name, tuple(splits), tuple(problems))


def _opened(spec: DataSpec, split: str, root: Path) -> tuple[ImageStream | ImageSet | None, list[str]]:
    """One split, as far as it can be read, and what is wrong with its folders and files."""
    try:
        folder = split_folder(spec.name, split, root)
        if folder is not None and not (folder / ANNOTATIONS_FILE).is_file():
            return _class_folders(folder, _with_classes(spec, root), split)
        stream = open_stream(spec.name, split, root)
        if stream is None and (root / CIFAR_BATCHES).is_dir() and spec.name in IN_MEMORY:
            return load_images(spec.name, split, root=root), []
        return stream, []
    except InputError as error:
        return None, [str(error)]


def _with_classes(spec: DataSpec, root: Path) -> DataSpec:
    """The data set with its classes; those of any tree are what one of the splits has."""
    if spec.name != FOLDER:
        return spec
    folders = [folder for split in SPLITS if (folder := split_folder(FOLDER, split, root))]
    return dataclasses.replace(
        spec, classes=tuple(sorted({name for folder in folders for name in class_names(folder)}))
    )


def _class_folders(folder: Path, spec: DataSpec, split: str) -> tuple[ImageStream | None, list[str]]:
    """The class folders of one split that are of the data set and have images, and what is wrong with all of them."""
    found, classes = class_names(folder), set(spec.classes)
    allowed = classes | set(spec.within or ())
    problems = []
    if unknown := [name for name in found if name not in allowed]:
        problems.append(f"'{folder}' has {_of(unknown)} that {spec.name} has not: {shortened(unknown)}; remove them")
    if missing := [name for name in spec.classes if name not in found]:
        problems.append(f"'{folder}' lacks {_of(missing)} of {spec.name}: {shortened(missing)}; copy them")
    if loose := sorted(entry.name for entry in os.scandir(folder) if is_image(entry.name)):
        problems.append(f"'{folder}' has {len(loose)} images in no class folder: {shortened(loose)}; move them")
    labels = {}
    for label, name in enumerate(spec.classes):
        if name in found:
            count, wrong = _class_folder(folder / name)
            problems += wrong
            if count:
                labels[name] = label
    return (ImageStream(list_files(folder, labels), spec, split) if labels else None), problems


def _other_folders(spec: DataSpec, split: str, root: Path) -> list[str]:
    """Say of a split that is not there which folders may be meant for it."""
    names = spec.names_of(split)
    known = {name for each in SPLITS for name in spec.names_of(each)}
    others = [name for name in class_names(root) if name not in known]
    if not others:
        return []
    where = " or ".join(names)
    return [f"'{root}' has no {split} images, but {shortened(others)}; {split} images are read from {where}"]


def _class_folder(folder: Path) -> tuple[int, list[str]]:
    """The number of images in a class folder, and what else is there."""
    try:
        entries = entries_of_class(folder)
    except PermissionError as error:
        return 0, [f"class folder '{error.filename}' may not be entered ({error.strerror}); ask its owner for access"]
    images = sum(is_image(entry.name) for entry in entries)
    others = sorted(entry.name for entry in entries if not is_image(entry.name) and not entry.name.endswith(_BOXES))
    problems = [] if images else [f"class folder '{folder}' has no images; copy it again"]
    if others:
        problems.append(f"class folder '{folder}' has {len(others)} entries that are no images: {shortened(others)}")
    return images, problems


def _in_memory(images: ImageSet) -> tuple[SplitCheck, list[str]]:
    """What a small set holds; all of its images were decoded when it was loaded."""
    counts = dict(zip(images.classes, images.labels.bincount(minlength=images.num_classes).tolist(), strict=True))
    size = images.size[1], images.size[0]
    found = SplitCheck(images.split, counts, 0, size, size, {"RGB": len(images)}, 0.0)
    return found, _without_images(found)


class _Seen(NamedTuple):
    """One image: width, height and mode; or the problem with it."""

    size: tuple[int, int]
    mode: str
    problem: str


def _decoded(stream: ImageStream, report: Callable[[int, int], None] | None) -> tuple[SplitCheck, list[str]]:
    """Decode every image of a split; return what it holds and a sentence for each image that cannot be used."""
    begin, seen, problems = time.perf_counter(), [], []
    try:
        for part in _seen(stream):
            seen += part
            if report:
                report(len(seen), len(stream))
    except InputError as error:  # a file with many images, of which nothing more can be read
        problems.append(f"{error}; {len(stream) - len(seen)} images of {stream.split} were not looked at")
    seconds = time.perf_counter() - begin
    good = [image for image in seen if not image.problem]
    kinds = collections.Counter(
        stream.classes[label] for label, image in zip(stream.labels.tolist(), seen, strict=False) if not image.problem
    )
    by_area = sorted((image.size for image in good), key=lambda size: size[0] * size[1]) or [(0, 0)]
    found = SplitCheck(
        stream.split,
        {name: kinds[name] for name in stream.classes},
        len(seen) - len(good),
        by_area[0],
        by_area[-1],
        dict(collections.Counter(image.mode for image in good).most_common()),
        seconds,
    )
    return found, problems + [image.problem for image in seen if image.problem] + _without_images(found)


def _seen(stream: ImageStream) -> Iterator[list[_Seen]]:
    see = functools.partial(_see_all, spec=stream.spec)
    return ahead(see, tasks(stream.encoded), count=_AHEAD)


def _see_all(images: Sequence[Encoded], spec: DataSpec) -> list[_Seen]:
    return [_see(image, spec) for image in images]


def _see(image: Encoded, spec: DataSpec) -> _Seen:
    try:
        content = read(image)
        picture = decode_picture(content, image.name, spec)
    except InputError as error:
        return _Seen((0, 0), "", str(error))
    with Image.open(io.BytesIO(content)) as header:
        return _Seen(picture.size, header.mode, "")


def _of(classes: Sequence[str]) -> str:
    return f"{len(classes)} class{'es' if len(classes) > 1 else ''}"


def _without_images(found: SplitCheck) -> list[str]:
    names = [name for name, count in found.counts.items() if not count]
    who = "1 class has" if len(names) == 1 else f"{len(names)} classes have"
    return [f"{who} no {found.split} images: {shortened(names)}"] if names else []

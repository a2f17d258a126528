"""What a benchmark counted: integers per corruption and severity, in one readable file."""

import dataclasses
import functools
import itertools
import json
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from pushpull_conv.corruptions import CORRUPTIONS, SEVERITIES, require_severity
from pushpull_conv.corruptions.spec import NAMES
from pushpull_conv.errors import InputError, require_name
from pushpull_conv.files import write_text

FORMAT = 1
GENERATED = "generated"


@dataclasses.dataclass(frozen=True)
class Cell:
    """How often a classifier was right on one version of the images.

    Args:
        n: Number of images.
        top1: Images whose class scored highest.
        top5: Images whose class is among the five that scored highest.
        class_n: Number of images of each class.
        class_top1: Images of each class whose class scored highest.

    Raises:
        InputError: The counts contradict each other.

    Example:
        >>> cell = Cell(n=4, top1=3, top5=4, class_n=(2, 2, 0), class_top1=(2, 1, 0))
        >>> cell.error, cell.top5_error, cell.class_errors
        (0.25, 0.0, (0.0, 0.5, None))
    """

    n: int
    top1: int
    top5: int
    class_n: tuple[int, ...]
    class_top1: tuple[int, ...]

    def __post_init__(self) -> None:
        counts = (self.n, self.top1, self.top5, *self.class_n, *self.class_top1)
        if any(type(count) is not int or count < 0 for count in counts):
            raise InputError(f"counts of a cell must be integers of at least 0: {self}")
        consistent = (
            0 < self.n == sum(self.class_n)
            and sum(self.class_top1) == self.top1 <= self.top5 <= self.n
            and len(self.class_top1) == len(self.class_n)
            and all(right <= all_ for right, all_ in zip(self.class_top1, self.class_n, strict=True))
        )
        if not consistent:
            raise InputError(f"counts of a cell contradict each other: {self}")

    @property
    def error(self) -> float:
        """Top-1 error in [0, 1]."""
        return (self.n - self.top1) / self.n

    @property
    def top5_error(self) -> float:
        """Top-5 error in [0, 1]."""
        return (self.n - self.top5) / self.n

    @property
    def class_errors(self) -> tuple[float | None, ...]:
        """Top-1 error of each class in [0, 1]; None for a class without images."""
        counts = zip(self.class_n, self.class_top1, strict=True)
        return tuple((n - right) / n if n else None for n, right in counts)

    @classmethod
    def from_json(cls, content: Any) -> "Cell":
        """Rebuild a cell from what ``dataclasses.asdict`` gave, as JSON keeps it."""
        fields = _fields(cls, content)
        return cls(**fields | {name: tuple(fields[name]) for name in ("class_n", "class_top1")})


@dataclasses.dataclass(frozen=True)
class Header:
    """What must agree before two results may be compared.

    Args:
        data: Name of the data set.
        split: ``"train"`` or ``"test"``.
        fingerprint: Identity of the images, `pushpull_conv.data.ImageSet.fingerprint`.
        images: Number of images.
        classes: Class names.
        suite: Name of the benchmark.
        revision: The suite's revision.
        seed: Seed of the corruptions; None where the corrupted images were published.
        frost: Identity of the frost textures; None where the corrupted images were published by others.
        version: Version of this package that counted; recorded, not compared.
        origin: ``"generated"``, or ``"published"`` and the identity of the set.
        jpeg_quality: Quality of the JPEG files that the generated images went through; None: they did not.
        autocast: The lower precision in which the model was let compute; None: none.
    """

    data: str
    split: str
    fingerprint: str
    images: int
    classes: tuple[str, ...]
    suite: str
    revision: int
    seed: int | None
    frost: str | None
    version: str = dataclasses.field(compare=False)
    # Fields that came later have defaults that say what results without them are.
    origin: str = GENERATED
    jpeg_quality: int | None = None
    autocast: str | None = None

    @classmethod
    def from_json(cls, content: Any) -> "Header":
        """Rebuild a header from what ``dataclasses.asdict`` gave, as JSON keeps it."""
        fields = _fields(cls, content)
        return cls(**fields | {"classes": tuple(fields["classes"])})

    def differences(self, other: "Header") -> dict[str, tuple[Any, Any]]:
        """By name the fields that must agree and do not: what is here, and what is in the other."""
        names = [field.name for field in dataclasses.fields(self) if field.compare]
        pairs = {name: (getattr(self, name), getattr(other, name)) for name in names}
        return {name: (one, two) for name, (one, two) in pairs.items() if one != two}


@dataclasses.dataclass(frozen=True)
class Results:
    """One classifier's counts on the clean images and on every corruption and severity that was run.

    Args:
        model: The classifier's label, as tables show it.
        header: What the results were made with.
        clean: Counts on the clean images.
        cells: Counts by (corruption, severity).

    Raises:
        InputError: A cell counts other images than the header says, or is of an unknown corruption or severity; or the
            label holds what cannot be printed.
    """

    model: str
    header: Header
    clean: Cell
    cells: Mapping[tuple[str, int], Cell]

    def __post_init__(self) -> None:
        require_printable(self.model)
        for corruption, severity in self.cells:
            require_name("corruption", corruption, NAMES)
            require_severity(severity)
        for cell in (self.clean, *self.cells.values()):
            if cell.n != self.header.images or cell.class_n != self.clean.class_n:
                raise InputError(f"results of {self.model!r} count other images in one cell than in another: {cell}")
        if len(self.clean.class_n) != len(self.header.classes):
            raise InputError(f"results of {self.model!r} count {len(self.clean.class_n)} classes, not those they name")

    @property
    def clean_error(self) -> float:
        """Top-1 error on the clean images, in [0, 1]."""
        return self.clean.error

    @functools.cached_property
    def errors(self) -> dict[str, tuple[float, ...]]:
        """Top-1 error in [0, 1] by corruption, in benchmark order, for each severity that was run, mildest first."""
        return {
            corruption: tuple(self.cells[corruption, severity].error for severity in severities)
            for corruption, severities in self.severities.items()
        }

    @functools.cached_property
    def severities(self) -> dict[str, tuple[int, ...]]:
        """The severities that were run, mildest first, by corruption, as in `errors`."""
        found: dict[str, tuple[int, ...]] = {}
        for corruption, severity in ordered(self.cells):
            found[corruption] = (*found.get(corruption, ()), severity)
        return found

    @property
    def missing(self) -> list[tuple[str, int]]:
        """The cells of the whole benchmark that were not run, in its order."""
        return [key for key in itertools.product(CORRUPTIONS, SEVERITIES) if key not in self.cells]

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write one JSON file, whole or not at all.

        Raises:
            InputError: The folder cannot be written.
        """
        cells = [
            {"corruption": key[0], "severity": key[1], **dataclasses.asdict(self.cells[key])}
            for key in ordered(self.cells)
        ]
        lines = [
            f'"format": {FORMAT}',
            f'"model": {_json(self.model)}',
            f'"header": {_json(dataclasses.asdict(self.header))}',
            f'"clean": {_json(dataclasses.asdict(self.clean))}',
            '"cells": [\n' + ",\n".join("  " + _json(cell) for cell in cells) + "\n ]",
        ]
        write_text(path, "{\n " + ",\n ".join(lines) + "\n}\n")

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> "Results":
        """Read what `save` wrote.

        Raises:
            InputError: The file is missing, truncated, of another format or contradicts itself.
        """
        content = read_json(Path(path))
        try:
            if content["format"] != FORMAT:
                raise InputError(f"format is {content['format']}, this version reads {FORMAT}")
            cells = {}
            for entry in content["cells"]:
                counts = dict(entry)
                key = counts.pop("corruption"), counts.pop("severity")
                cells[key] = Cell.from_json(counts)
            if len(cells) != len(content["cells"]):
                raise InputError("a corruption and severity is there twice")
            header, clean = Header.from_json(content["header"]), Cell.from_json(content["clean"])
            return cls(model=content["model"], header=header, clean=clean, cells=cells)
        except InputError as error:
            raise InputError(f"results file '{path}': {error}") from error
        except (KeyError, TypeError, ValueError) as error:
            raise InputError(f"'{path}' is not a results file; write one with pushpull evaluate") from error


def require_printable(label: str) -> None:
    """Raise `InputError` where a label has characters that no table can show, such as a line's end."""
    if not isinstance(label, str) or not label.isprintable():
        raise InputError(f"label is {label!r}; allowed: letters, digits, spaces and signs that can be printed")


def check_comparable(results: Sequence[Results]) -> None:
    """Raise unless all results were made from the same images, corrupted in the same way.

    Raises:
        InputError: Two results differ in data, suite, seed, frost textures, JPEG step, autocast, or in whether and from
            where the corrupted images were published; the message says in which.
    """
    for other in results[1:]:
        first = results[0]
        if differences := first.header.differences(other.header):
            told = ", ".join(f"{name} {one!r} and {two!r}" for name, (one, two) in differences.items())
            raise InputError(
                f"results of {first.model!r} and {other.model!r} cannot be compared, they are made with {told}; "
                "evaluate them again alike"
            )


def ordered(keys: Iterable[tuple[str, int]]) -> list[tuple[str, int]]:
    """(corruption, severity) pairs in the order of the benchmark."""
    return sorted(keys, key=lambda key: (NAMES.index(key[0]), key[1]))


def read_json(path: Path) -> Any:
    """Parse a JSON file, or raise `InputError` naming it."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"'{path}' cannot be read ({error.strerror}); check the path") from error
    except ValueError as error:
        raise InputError(f"'{path}' is truncated or not JSON; delete it and evaluate again") from error


def _fields(cls: Any, content: Any) -> dict[str, Any]:
    fields = dataclasses.fields(cls)
    names = {field.name for field in fields}
    needed = {field.name for field in fields if field.default is dataclasses.MISSING}
    if not isinstance(content, dict) or not needed <= set(content) <= names:
        raise InputError(f"a {cls.__name__.lower()} must have the fields {', '.join(sorted(names))}")
    return content


def _json(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False)

"""Images in Parquet files, in the layout of the Hugging Face hub."""

import contextlib
import dataclasses
import functools
import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pushpull_conv.data.spec import DataSpec, class_list
from pushpull_conv.data.stream import Encoded
from pushpull_conv.errors import InputError, require_module

IMAGE_COLUMNS = ("img", "image")
_HUB_IMAGENET = (1000, "tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue")
"""Number, first and last of the names in the hub's ImageNet: words for the synset ids, in the order of these."""
_ROWS = 64
"""Rows read at a time, some megabytes of photographs."""


@dataclasses.dataclass(frozen=True, eq=False)
class ParquetImages:
    """The rows of all shards of one split that are of the data set's classes.

    Args:
        files: The shards, in order.
        labels: int64 ``[N]``, the label of each of these rows.
        index: int64 ``[N]``, the place of each among all rows.
    """

    files: tuple[Path, ...]
    labels: Tensor
    index: Tensor

    def __iter__(self) -> Iterator[Encoded]:
        wanted = iter(self.index.tolist())
        place, next_wanted = 0, next(wanted, None)
        for file in self.files:
            for row, image in enumerate(_images(file)):
                if place == next_wanted:
                    if not isinstance(image, dict) or not isinstance(image.get("bytes"), bytes):
                        raise InputError(_lacking(row, file))
                    yield Encoded(f"in row {row} of '{file}'", functools.partial(bytes, image["bytes"]))
                    next_wanted = next(wanted, None)
                place += 1


def list_parquet(files: Sequence[Path], spec: DataSpec) -> ParquetImages:
    """Look through the shards of one split: columns ``img`` or ``image`` = {bytes, path}, and ``label``.

    Args:
        files: All shards, in order.
        spec: The data set. Its classes are compared with those that the schema names, where it names any.

    Raises:
        InputError: A shard is missing, truncated, laid out differently or has other classes.
    """
    _require_all_shards(files)
    labels = torch.cat([_labels(file, spec) for file in files])
    kept = (labels != _OTHER).nonzero()[:, 0]
    return ParquetImages(tuple(files), labels[kept], kept)


_OTHER = torch.iinfo(torch.int64).min
"""Stands for the label of a class that the data set leaves out."""


def _require_all_shards(files: Sequence[Path]) -> None:
    for file in files:
        stated = re.search(r"-of-(\d+)$", file.stem)
        if stated and int(stated[1]) != len(files):
            raise InputError(f"'{file}' is one of {int(stated[1])} shards but {len(files)} are there; copy all of them")


def _labels(file: Path, spec: DataSpec) -> Tensor:
    """The data set's label of each row: int64 ``[rows]``."""
    with _opened(file) as parquet:
        _image_column(file, parquet)
        values = parquet.read(columns=["label"])["label"].to_pylist()
    for row, value in enumerate(values):
        if not isinstance(value, int):
            raise InputError(_lacking(row, file))
    labels = torch.tensor(values, dtype=torch.int64)
    names = _class_names(parquet.schema_arrow.metadata)
    if names is None:
        return labels
    spec.require_classes(names, file)
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        return labels  # whoever holds the labels names the one that is out of range
    return torch.tensor([_OTHER if label is None else label for label in spec.labels_of(names)])[labels]


def _images(file: Path) -> Iterator[Any]:
    """The image column's rows, a few in memory at a time."""
    with _opened(file) as parquet:
        column = _image_column(file, parquet)
        for rows in parquet.iter_batches(_ROWS, columns=[column]):
            yield from rows.column(0).to_pylist()


@contextlib.contextmanager
def _opened(file: Path) -> Iterator[Any]:
    """An open Parquet file; whatever is damaged in it is `InputError`."""
    pyarrow = require_module("pyarrow", "train")
    parquet = require_module("pyarrow.parquet", "train")
    try:
        with parquet.ParquetFile(file) as opened:
            yield opened
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"Parquet file '{file}' is truncated or damaged; copy it again") from error


def _image_column(file: Path, parquet: Any) -> str:
    columns = parquet.schema_arrow.names
    column = next((name for name in IMAGE_COLUMNS if name in columns), None)
    if column is None or "label" not in columns:
        raise InputError(
            f"Parquet file '{file}' has the columns {', '.join(columns)}; "
            f"expected 'label' and one of {', '.join(IMAGE_COLUMNS)}"
        )
    return column


def _lacking(row: int, file: Path) -> str:
    return f"row {row} of '{file}' has no image bytes or no integer label; replace the file"


def _class_names(metadata: dict[bytes, bytes] | None) -> list[str] | None:
    """The names that the hub's schema metadata gives to the values of ``label``."""
    node: Any = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    for key in ("info", "features", "label", "names"):
        node = node.get(key) if isinstance(node, dict) else None
    return list(class_list("imagenet")) if node and (len(node), node[0], node[-1]) == _HUB_IMAGENET else node

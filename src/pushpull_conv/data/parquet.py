"""Images in Parquet files, in the layout of the Hugging Face hub."""

import collections
import contextlib
import functools
import hashlib
import itertools
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pushpull_conv.data.places import blocks_in_window
from pushpull_conv.data.shards import require_stated_number
from pushpull_conv.data.spec import OTHER, DataSpec, class_list, is_label
from pushpull_conv.data.stream import Encoded
from pushpull_conv.errors import InputError, require_module

IMAGE_COLUMNS = ("img", "image")
_HUB_IMAGENET = (1000, "tench, Tinca tinca", "toilet tissue, toilet paper, bathroom tissue")
"""Number, first and last of the names in the hub's ImageNet: words for the synset ids, in the order of these."""


class ParquetImages:
    """The rows of all shards of one split that are of the data set's classes.

    A row is read with its whole row group; what is wanted of the last groups that were read is kept, of so many as
    `epoch_order` shuffles together, by each process for itself.

    Args:
        files: The shards, in order.
        groups: For each row group of all shards, in order: the place of its shard, its number and its first row there.
        group_of: int64 ``[N]``, the place in ``groups`` of each row that is wanted.
        rows: int64 ``[N]``, its row in its shard.
        labels: int64 ``[N]``, its label.
        index: int64 ``[N]``, its place among all rows.
    """

    def __init__(
        self,
        files: tuple[Path, ...],
        groups: np.ndarray,
        group_of: np.ndarray,
        rows: np.ndarray,
        labels: Tensor,
        index: Tensor,
    ) -> None:
        self.files = files
        self.groups = groups
        self.group_of = group_of
        self.rows = rows
        self.labels = labels
        self.index = index
        self.blocks = _runs(group_of)
        order = np.lexsort((rows, group_of))
        self._wanted = np.split(rows[order], np.searchsorted(group_of[order], np.arange(1, len(groups))))
        self._kept: collections.OrderedDict[int, Any] = collections.OrderedDict()

    @property
    def identity(self) -> str:
        """From the name and size of every shard."""
        shards = "".join(f"{file.name} {file.stat().st_size}\n" for file in self.files)
        return f"files {hashlib.sha256(shards.encode(errors='surrogateescape')).hexdigest()[:12]}"

    def __getitem__(self, place: int) -> Encoded:
        """The image at a place; its content is read at once."""
        group, row = int(self.group_of[place]), int(self.rows[place])
        content = self._group(group)[int(np.searchsorted(self._wanted[group], row))].as_py()
        place_in_file = f"row {row} of '{self.files[self.groups[group, 0]]}'"
        return Encoded(f"in {place_in_file}", functools.partial(_bytes, content, place_in_file))

    def subset(self, places: Tensor) -> "ParquetImages":
        """The rows at ``places``."""
        chosen = places.numpy()
        return ParquetImages(
            self.files, self.groups, self.group_of[chosen], self.rows[chosen], self.labels[places], self.index[places]
        )

    def __getstate__(self) -> dict[str, Any]:
        """What another process needs: not the groups that this one has read."""
        return {**self.__dict__, "_kept": collections.OrderedDict()}

    def _group(self, group: int) -> Any:
        """The contents of the wanted images of a row group, as an array of pyarrow."""
        if group in self._kept:
            self._kept.move_to_end(group)
        else:
            shard, number, first = self.groups[group].tolist()
            self._kept[group] = _contents(self.files[shard], number).take(self._wanted[group] - first)
            if len(self._kept) > blocks_in_window(self.blocks):
                self._kept.popitem(last=False)
        return self._kept[group]


def _runs(group_of: np.ndarray) -> Sequence[range]:
    """The runs of places that are of one row group."""
    ends = [*(np.flatnonzero(np.diff(group_of)) + 1).tolist(), len(group_of)]
    return [range(start, end) for start, end in itertools.pairwise([0, *ends])]


def list_parquet(files: Sequence[Path], spec: DataSpec) -> ParquetImages:
    """Look through the shards of one split: columns ``img`` or ``image`` = {bytes, path}, and ``label``.

    Args:
        files: All shards, in order.
        spec: The data set. Its classes are compared with those that the schema names; where it names none, labels are
            those of the data set.

    Raises:
        InputError: A shard is missing, truncated, laid out differently or has other classes, or names none of a data
            set that is part of a larger one.
    """
    require_stated_number(files)
    labels, groups, sizes = [], [], []
    for shard, file in enumerate(files):
        with _opened(file) as parquet:
            labels.append(_labels(file, parquet, spec))
            rows = [parquet.metadata.row_group(number).num_rows for number in range(parquet.num_row_groups)]
        groups += [(shard, number, first) for number, first in enumerate(itertools.accumulate(rows[:-1], initial=0))]
        sizes += rows or [0]
    every = torch.cat(labels)
    kept = (every != OTHER).nonzero()[:, 0]
    group_of = np.repeat(np.arange(len(sizes)), sizes)[kept.numpy()]
    of_shard = np.concatenate([np.arange(len(values)) for values in labels])[kept.numpy()]
    return ParquetImages(tuple(files), np.array(groups), group_of, of_shard, every[kept], kept)


def _labels(file: Path, parquet: Any, spec: DataSpec) -> Tensor:
    """The data set's label of each row: int64 ``[rows]``."""
    _image_column(file, parquet)
    values = parquet.read(columns=["label"])["label"].to_pylist()
    for row, value in enumerate(values):
        if not is_label(value):
            raise InputError(f"row {row} of '{file}' has no integer label; replace the file")
    labels = torch.tensor(values, dtype=torch.int64)
    names = _class_names(file, parquet.schema_arrow.metadata)
    if names is None:
        spec.require_whole(f"the schema of Parquet file '{file}' names no classes", "write it anew with their names")
        return labels
    spec.require_classes(names, file)
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < len(names):
        return labels  # whoever holds the labels names the one that is out of range
    return torch.tensor(spec.labels_of(names))[labels]


def _contents(file: Path, group: int) -> Any:
    """The encoded images of one row group: an array of pyarrow, binary."""
    with _opened(file) as parquet:
        column = _image_column(file, parquet)
        images = parquet.read_row_group(group, columns=[column], use_threads=False)[column].combine_chunks()
    return images.field("bytes")


def _bytes(content: Any, place: str) -> bytes:
    if not isinstance(content, bytes):
        raise InputError(f"{place} has no image bytes; replace the file")
    return content


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
    kind, types = parquet.schema_arrow.field(column).type, require_module("pyarrow.types", "train")
    inner = kind.field("bytes").type if types.is_struct(kind) and kind.get_field_index("bytes") >= 0 else None
    if inner is None or not (types.is_binary(inner) or types.is_large_binary(inner)):
        raise InputError(f"'{column}' in Parquet file '{file}' is {kind}; expected a struct with binary 'bytes'")
    return column


def _class_names(file: Path, metadata: dict[bytes, bytes] | None) -> list[str] | None:
    """The names that the hub's schema metadata gives to the values of ``label``."""
    try:
        node: Any = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    except ValueError as error:
        raise InputError(f"the class names in Parquet file '{file}' cannot be read ({error}); copy it again") from error
    for key in ("info", "features", "label", "names"):
        node = node.get(key) if isinstance(node, dict) else None
    if not isinstance(node, list):
        return None
    return list(class_list("imagenet")) if node and (len(node), node[0], node[-1]) == _HUB_IMAGENET else node

"""Images in Parquet files, in the layout of the Hugging Face hub."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pushpull_conv.data.pixels import decode_images
from pushpull_conv.data.spec import DataSpec
from pushpull_conv.errors import InputError, require_module

IMAGE_COLUMNS = ("img", "image")


def read_parquet(files: Sequence[Path], spec: DataSpec) -> tuple[Tensor, Tensor]:
    """Read the shards of one split: columns ``img`` or ``image`` = {bytes, path}, and ``label``.

    Args:
        files: All shards, in order.
        spec: The data set. Its classes are compared with those that the schema names, where it names any.

    Returns:
        Images uint8 ``[N, 3, size, size]`` and labels int64 ``[N]``.

    Raises:
        InputError: A shard is missing, truncated, laid out differently or has other classes, or an image cannot be
            decoded.
    """
    _require_all_shards(files)
    images, labels = zip(*(_read_shard(file, spec) for file in files), strict=True)
    return torch.cat(images), torch.cat(labels)


def _require_all_shards(files: Sequence[Path]) -> None:
    for file in files:
        stated = re.search(r"-of-(\d+)$", file.stem)
        if stated and int(stated[1]) != len(files):
            raise InputError(f"'{file}' is one of {int(stated[1])} shards but {len(files)} are there; copy all of them")


def _read_shard(file: Path, spec: DataSpec) -> tuple[Tensor, Tensor]:
    pyarrow = require_module("pyarrow", "train")
    parquet = require_module("pyarrow.parquet", "train")
    try:
        table = parquet.read_table(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise InputError(f"Parquet file '{file}' is truncated or damaged; copy it again") from error
    column = next((name for name in IMAGE_COLUMNS if name in table.column_names), None)
    if column is None or "label" not in table.column_names:
        raise InputError(
            f"Parquet file '{file}' has the columns {', '.join(table.column_names)}; "
            f"expected 'label' and one of {', '.join(IMAGE_COLUMNS)}"
        )
    if (classes := _class_names(table.schema.metadata)) is not None:
        spec.require_classes(classes, file)
    rows = table[column].to_pylist()
    labels = table["label"].to_pylist()
    for row, (image, label) in enumerate(zip(rows, labels, strict=True)):
        if not isinstance(image, dict) or not isinstance(image.get("bytes"), bytes) or not isinstance(label, int):
            raise InputError(f"row {row} of '{file}' has no image bytes or no integer label; replace the file")
    names = (f"in row {row} of '{file}'" for row in range(len(rows)))
    images = decode_images([row["bytes"] for row in rows], names, spec.size)
    return images, torch.tensor(labels, dtype=torch.int64)


def _class_names(metadata: dict[bytes, bytes] | None) -> list[str] | None:
    """The names that the hub's schema metadata gives to the values of ``label``."""
    node: Any = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    for key in ("info", "features", "label", "names"):
        node = node.get(key) if isinstance(node, dict) else None
    return node

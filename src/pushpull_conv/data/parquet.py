"""Images in Parquet files, in the layout of the Hugging Face hub."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pushpull_conv.data.pixels import decode_images
from pushpull_conv.errors import InputError, require_module

IMAGE_COLUMNS = ("img", "image")


def read_parquet(files: Sequence[Path], size: int) -> tuple[Tensor, Tensor, tuple[str, ...] | None]:
    """Read the shards of one split: columns ``img`` or ``image`` = {bytes, path}, and ``label``.

    Args:
        files: All shards, in order.
        size: Height and width of every image, in pixels.

    Returns:
        Images uint8 ``[N, 3, size, size]``, labels int64 ``[N]``, and the class names if the schema gives them.

    Raises:
        InputError: A shard is missing, truncated or laid out differently, or an image cannot be decoded.
    """
    _require_all_shards(files)
    shards = [_read_shard(file, size) for file in files]
    images, labels, classes = zip(*shards, strict=True)
    if len(set(classes)) > 1:
        raise InputError(f"the Parquet files in '{files[0].parent}' name different classes; keep one data set a folder")
    return torch.cat(images), torch.cat(labels), classes[0]


def _require_all_shards(files: Sequence[Path]) -> None:
    for file in files:
        stated = re.search(r"-of-(\d+)$", file.stem)
        if stated and int(stated[1]) != len(files):
            raise InputError(f"'{file}' is one of {int(stated[1])} shards but {len(files)} are there; copy all of them")


def _read_shard(file: Path, size: int) -> tuple[Tensor, Tensor, tuple[str, ...] | None]:
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
    rows = table[column].to_pylist()
    labels = table["label"].to_pylist()
    for row, (image, label) in enumerate(zip(rows, labels, strict=True)):
        if not isinstance(image, dict) or not isinstance(image.get("bytes"), bytes) or not isinstance(label, int):
            raise InputError(f"row {row} of '{file}' has no image bytes or no integer label; replace the file")
    names = (f"in row {row} of '{file}'" for row in range(len(rows)))
    images = decode_images([row["bytes"] for row in rows], names, size)
    return images, torch.tensor(labels, dtype=torch.int64), _class_names(table.schema.metadata)


def _class_names(metadata: dict[bytes, bytes] | None) -> tuple[str, ...] | None:
    """The names that the hub's schema metadata gives to the values of ``label``."""
    node: Any = json.loads((metadata or {}).get(b"huggingface", b"{}"))
    for key in ("info", "features", "label", "names"):
        node = node.get(key) if isinstance(node, dict) else None
    return tuple(node) if node else None

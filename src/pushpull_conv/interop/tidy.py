"""Results as one tidy table, for pandas, polars, R and their like."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pushpull_conv.benchmark import Results
from pushpull_conv.benchmark.results import ordered
from pushpull_conv.corruptions import GROUPS
from pushpull_conv.errors import InputError, require_module
from pushpull_conv.files import CLEAN, atomic_write
from pushpull_conv.repeats import variant_of

COLUMNS = {
    "model": "string",
    "variant": "string",
    "data": "string",
    "split": "string",
    "suite": "string",
    "revision": "int64",
    "origin": "string",
    "corruption_seed": "uint64",
    "frost": "string",
    "jpeg_quality": "int64",
    "autocast": "string",
    "group": "string",
    "corruption": "string",
    "severity": "int64",
    "n": "int64",
    "top1": "int64",
    "top5": "int64",
    "error": "float64",
    "top5_error": "float64",
    "fingerprint": "string",
    "version": "string",
}
"""Arrow type of each column, in order; `pushpull_conv.benchmark.Header` and ``Cell`` say what they hold. The trainings
of one variant with several seeds have its name in ``variant`` and each their own in ``model``."""

_GROUP_OF = {name: group for group, names in GROUPS.items() for name in names} | {CLEAN[0]: CLEAN[0]}


def tidy_rows(results: Results) -> list[dict[str, Any]]:
    """Return one row for the clean images and one for each corruption and severity, in benchmark order.

    Args:
        results: One classifier's counts.

    Returns:
        Rows with the keys of `COLUMNS`. Errors are fractions in [0, 1]; what the results do not have is None. The clean
        images' corruption and group are ``"clean"``, their severity is 0.

    Example:
        >>> from pushpull_conv.benchmark import Cell, Header
        >>> header = Header("mine", "test", "ab12", 4, ("cat", "dog"), "cifar10-c", 1, 0, "procedural-1", "0.1.0")
        >>> clean, foggy = Cell(4, 4, 4, (2, 2), (2, 2)), Cell(4, 3, 4, (2, 2), (2, 1))
        >>> rows = tidy_rows(Results("PP3", header, clean, {("fog", 5): foggy}))
        >>> [(row["model"], row["group"], row["corruption"], row["severity"], row["error"]) for row in rows]
        [('PP3', 'clean', 'clean', 0, 0.0), ('PP3', 'weather', 'fog', 5, 0.25)]
    """
    names = {"model": results.model, "variant": variant_of(results.model), "corruption_seed": results.header.seed}
    cells = {CLEAN: results.clean, **{key: results.cells[key] for key in ordered(results.cells)}}
    rows = []
    for (corruption, severity), cell in cells.items():
        place = {"group": _GROUP_OF[corruption], "corruption": corruption, "severity": severity}
        errors = {"error": cell.error, "top5_error": cell.top5_error}
        row = {**vars(results.header), **names, **place, **vars(cell), **errors}
        rows.append({name: row[name] for name in COLUMNS})
    return rows


def write_tidy(path: str | os.PathLike[str], results: Sequence[Results]) -> Path:
    """Write the rows of several results to one CSV or Parquet file, whole or not at all.

    Args:
        path: The file, ``.csv`` or ``.parquet``.
        results: Counts of any classifiers on any data; the rows say which.

    Returns:
        The path.

    Raises:
        InputError: The file's name has another ending, its folder cannot be written, or there are no results.

    Example:
        >>> write_tidy("results.xlsx", [])
        Traceback (most recent call last):
            ...
        pushpull_conv.errors.InputError: table 'results.xlsx' must end in .csv or .parquet; choose one of them
    """
    path = Path(path)
    ending = path.suffix.lower()
    if ending not in {".csv", ".parquet"}:
        raise InputError(f"table '{path}' must end in .csv or .parquet; choose one of them")
    if not results:
        raise InputError(f"table '{path}' would be empty; give at least one result")
    pyarrow = require_module("pyarrow", "train")
    schema = pyarrow.schema([(name, getattr(pyarrow, kind)()) for name, kind in COLUMNS.items()])
    table = pyarrow.Table.from_pylist([row for result in results for row in tidy_rows(result)], schema=schema)
    with atomic_write(path) as temporary:
        if ending == ".csv":
            require_module("pyarrow.csv", "train").write_csv(table, temporary)
        else:
            require_module("pyarrow.parquet", "train").write_table(table, temporary)
    return path

"""The folder in which a benchmark keeps its finished cells, so that it can be killed at any moment and go on."""

import dataclasses
import itertools
import json
import os
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pushpull_conv.benchmark.results import Cell, Header, read_json
from pushpull_conv.corruptions.spec import NAMES, SEVERITIES
from pushpull_conv.errors import InputError
from pushpull_conv.files import CLEAN, cell_file, writable_folder, write_text

_OTHERS = {"weights": "of a model with other layers or weights", "fingerprint": "of other images"}
"""What differs where the values that do would tell a reader nothing."""
_HEADER_FILE = "header.json"


class CellStore:
    """One file for each finished cell of one classifier's benchmark, and one that says whose cells they are.

    Args:
        folder: Where they lie; made if missing.
        model: The classifier's label.
        weights: Identity of the classifier's layers and weights.
        header: What the results are made with.

    Raises:
        InputError: The folder cannot be written, or holds cells of another classifier or made otherwise.
    """

    def __init__(self, folder: str | os.PathLike[str], *, model: str, weights: str, header: Header) -> None:
        self.folder = writable_folder(folder)
        self._claimed = self.folder / _HEADER_FILE
        self._owner = {"model": model, "weights": weights}
        self._header = header
        if self._claimed.exists():
            self._require_own()

    def cells(self) -> dict[tuple[str, int], Cell]:
        """All finished cells, those of `CLEAN` among them."""
        return self._finished([CLEAN, *itertools.product(NAMES, SEVERITIES)])

    def cell(self, key: tuple[str, int]) -> Cell | None:
        """A finished cell, None where it is not finished.

        Raises:
            InputError: It is damaged, or another classifier's or benchmark's.
        """
        return self._finished([key]).get(key)

    def add(self, key: tuple[str, int], cell: Cell) -> None:
        """Keep a finished cell, and with the first whose it is.

        Raises:
            InputError: Another process, of another classifier or benchmark, was the first.
        """
        if not self._claimed.exists():
            _write_first(self._claimed, {**self._owner, **dataclasses.asdict(self._header)})
        self._require_own()
        _write_json(self._path(key), dataclasses.asdict(cell))

    def _finished(self, keys: Sequence[tuple[str, int]]) -> dict[tuple[str, int], Cell]:
        """Those of some cells that are finished."""
        files = {key: path for key in keys if (path := self._path(key)).exists()}
        if files:
            self._require_own()
        return {key: _read_cell(path) for key, path in files.items()}

    def _path(self, key: tuple[str, int]) -> Path:
        return self.folder / cell_file(*key)

    def _require_own(self) -> None:
        """Refuse the folder if its cells have another owner."""
        found = read_json(self._claimed)
        try:
            owner = {name: found.pop(name) for name in self._owner}
            header = Header.from_json(found)
        except (AttributeError, TypeError, KeyError, InputError) as error:
            raise InputError(
                f"'{self._claimed}' does not say whose cells lie beside it; delete '{self.folder}' to count them again"
            ) from error
        others = {name: (owner[name], value) for name, value in self._owner.items() if owner[name] != value}
        for name, (there, here) in {**others, **header.differences(self._header)}.items():
            other = _OTHERS.get(name, f"with {name} {there!r}, not {here!r}")
            raise InputError(f"'{self.folder}' holds cells {other}; choose another folder")


def counted_model(folder: Path) -> str | None:
    """The identity of the classifier whose cells lie in a folder, None where there are none."""
    claimed = folder / _HEADER_FILE
    found = read_json(claimed) if claimed.exists() else None
    return found.get("weights") if isinstance(found, dict) else None


def _read_cell(path: Path) -> Cell:
    try:
        return Cell.from_json(read_json(path))
    except InputError as error:
        raise InputError(f"finished cell '{path}' is damaged ({error}); delete it to count it again") from error


def _write_first(path: Path, content: Any) -> None:
    """Write a whole file unless there is one: of several processes at the same time one does, and none replaces it."""
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as folder:
        whole = Path(folder, path.name)
        _write_json(whole, content)
        try:
            path.hardlink_to(whole)
        except FileExistsError:
            return
        except OSError:  # the file system has no hard links; there the last of several is the one
            whole.replace(path)


def _write_json(path: Path, content: Any) -> None:
    write_text(path, json.dumps(content, ensure_ascii=False) + "\n")

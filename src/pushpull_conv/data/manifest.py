"""What a written set of corrupted images says of itself, and whether its files still are what it says.

A part of a set is a file (``fog.npy``) or a folder of one severity (``fog/3``).
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pushpull_conv.errors import InputError

MANIFEST_FILE = "manifest.json"
"""What `pushpull_conv.benchmark.write_set` leaves in a set that is whole."""
PARTIAL_FILE = "manifest.partial.json"
"""What it leaves in a set that it has not finished."""


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a written set: what it was made from, ``sha256`` and ``bytes`` by part.

    Returns:
        The manifest. A downloaded set has none, or another program's: then ``sha256`` and ``bytes`` are empty.

    Raises:
        InputError: It is damaged.
    """
    return {"sha256": {}, "bytes": {}, **_content(folder)}


def is_written(folder: Path) -> bool:
    """Whether ``folder`` has the manifest of a written set, be it one that names no part.

    Raises:
        InputError: It is damaged.
    """
    return "sha256" in _content(folder)


def _content(folder: Path) -> dict[str, Any]:
    path = folder / MANIFEST_FILE
    if not path.exists():
        return {}
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"'{path}' is truncated or not a set's manifest; write the set again") from error
    ours = isinstance(content, dict) and all(isinstance(content.get(name, {}), dict) for name in ("sha256", "bytes"))
    return content if ours else {}


def require_finished(folder: Path) -> None:
    """Raise `InputError` if parts of a written set are still missing."""
    if (folder / PARTIAL_FILE).exists():
        raise InputError(f"set '{folder}' is not finished; repeat the pushpull corrupt that was writing it")


def checksum(part: Path) -> str:
    """SHA-256, in hex, of a file; of a folder, over the names and checksums of its files, as sha256sum prints them."""
    if part.is_file():
        with part.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    lines = [f"{checksum(part / file)}  {file}\n" for file in _files(part)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def total_bytes(part: Path) -> int:
    """The size of a file; of a folder, that of all its files, without reading them."""
    return part.stat().st_size if part.is_file() else sum((part / file).stat().st_size for file in _files(part))


def damaged_parts(folder: Path) -> Iterator[tuple[str, str]]:
    """Read a written set as a whole and compare it with its manifest.

    Yields:
        Each part, and what is wrong with it: ``""`` if nothing is.
    """
    for part, expected in read_manifest(folder)["sha256"].items():
        yield part, _damage(folder / part, expected)


def changed(part: Path) -> InputError:
    """The error of a part that is not what the manifest says."""
    return InputError(
        f"'{part}' was changed or damaged since it was written: {MANIFEST_FILE} says otherwise; "
        "delete it and repeat the pushpull corrupt that wrote it"
    )


def _damage(part: Path, expected: str) -> str:
    if not part.exists():
        return f"'{part}' is missing; repeat the pushpull corrupt that wrote it"
    try:
        return "" if checksum(part) == expected else str(changed(part))
    except OSError as error:
        return f"'{part}' cannot be read ({error.strerror}); check the disk"


def _files(folder: Path) -> list[str]:
    return sorted(file.relative_to(folder).as_posix() for file in folder.glob("*/*"))

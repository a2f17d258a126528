"""The files of a run, and writing files so that a reader never sees half of one."""

import contextlib
import csv
import errno
import os
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from pushpull_conv.errors import InputError

RECIPE_FILE = "recipe.yaml"
MODEL_FILE = "model.safetensors"
RESULTS_FILE = "results.json"
METRICS_FILE = "metrics.csv"
UNREADABLE_FILE = "unreadable.csv"
EPOCHS_FOLDER = "epochs"
CELLS_FOLDER = "cells"
REPORT_FOLDER = "report"
REPORT_FILE = "index.html"
CLUSTER_FOLDER = "cluster"
LOCK_FILE = ".lock"
CLEAN = ("clean", 0)
"""Stands for the clean images where the other cells of a benchmark have (corruption, severity)."""
_REMEDIES = {
    errno.ENOSPC: "free some space and repeat",
    errno.EDQUOT: "free some space and repeat",
    errno.EISDIR: "name a file",
    errno.ENAMETOOLONG: "choose a shorter name",
}


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary path beside ``path``; rename it to ``path`` on success, delete it on failure.

    Args:
        path: The file to create or replace. Its folder is created if missing.

    Raises:
        InputError: The folder cannot be written, the disk is full, or ``path`` is a folder or too long a name.

    Example:
        >>> import tempfile
        >>> folder = Path(tempfile.mkdtemp())
        >>> with atomic_write(folder / "a.txt") as temporary:
        ...     _ = temporary.write_text("whole")
        >>> [file.name for file in folder.iterdir()], (folder / "a.txt").read_text()
        (['a.txt'], 'whole')
    """
    path = Path(path)
    folder = writable_folder(path.parent)
    handle, name = tempfile.mkstemp(dir=folder, prefix=f".{path.name[:32]}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        with remedies_told(path):
            yield temporary
            temporary.chmod(0o666 & ~_umask())
            with temporary.open("rb") as whole:
                os.fsync(whole.fileno())  # or after a power cut the name may be there and the content not
            temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def remedies_told(path: str | os.PathLike[str]) -> Iterator[None]:
    """Raise `InputError` where ``path`` is being written and the disk is full, or it is a folder or too long a name."""
    try:
        yield
    except OSError as error:
        if error.errno not in _REMEDIES:
            raise
        raise InputError(f"'{path}' cannot be written: {error.strerror}; {_REMEDIES[error.errno]}") from error


def write_text(path: str | os.PathLike[str], text: str) -> None:
    """Write a file in UTF-8, whole or not at all, as `atomic_write` does and with its errors.

    Example:
        >>> import tempfile
        >>> file = Path(tempfile.mkdtemp(), "a.txt")
        >>> write_text(file, "whole")
        >>> file.read_text()
        'whole'
    """
    with atomic_write(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def writable_folder(path: str | os.PathLike[str]) -> Path:
    """Create ``path`` if it is missing and return it, or raise `InputError` if it cannot be written."""
    folder = Path(path)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(
            f"output folder '{folder}' cannot be written ({error.strerror}); choose another folder"
        ) from error
    return folder


@contextlib.contextmanager
def alone(lock: Path, refusal: str, *, patience: float = 0.0) -> Iterator[None]:
    """Hold the file ``lock``, which is made and at the end removed; what held it and was killed keeps nobody out.

    Where the system or the file system has no locks, nobody is kept out either. ``patience`` are the seconds to try
    for: worker processes end, and let go, a little later than the one that started them and was killed.

    Raises:
        InputError: Another process holds it; ``refusal`` is the message.
    """
    end = time.monotonic() + patience
    while (held := _held(lock)) is None:
        if time.monotonic() >= end:
            raise InputError(refusal)
        time.sleep(0.1)
    with held:
        try:
            yield
        finally:
            with contextlib.suppress(PermissionError):  # of Windows, where an open file stays
                lock.unlink(missing_ok=True)


def _held(lock: Path) -> IO[str] | None:
    """The file ``lock``, opened and locked; None where another process has it."""
    file = lock.open("w")
    # Who held it may have removed it before it was locked here, and it may be another's by now.
    if _lock(file) and lock.exists() and os.path.samestat(os.fstat(file.fileno()), lock.stat()):
        return file
    file.close()
    return None


@contextlib.contextmanager
def in_use(file: Path) -> Iterator[None]:
    """Keep ``file`` marked as in use, by any number of processes; one that is killed leaves no mark."""
    with file.open() as marked:
        with contextlib.suppress(ImportError, OSError):  # as in `_lock`
            import fcntl

            fcntl.flock(marked, fcntl.LOCK_SH)  # `is_in_use` keeps it for a moment only
        yield


def is_in_use(file: Path) -> bool:
    """Whether a process has marked ``file``, which may be missing, with `in_use`."""
    try:
        with file.open("r+") as marked:
            return not _lock(marked)
    except OSError:  # missing, or in a folder that is none
        return False


def _lock(file: IO[str]) -> bool:
    """Lock an open file until it is closed; False where another process has done so. Without locks nobody has."""
    try:
        import fcntl  # not on Windows

        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except (ImportError, OSError):
        pass
    return True


def cache_folder() -> Path:
    """Where this package keeps what it can make or download again: in ``XDG_CACHE_HOME``, or else in ``~/.cache``."""
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pushpull-conv"


def cell_file(corruption: str, severity: int) -> str:
    """Return the name of the file that keeps one finished cell of a benchmark, or of `CLEAN`.

    Example:
        >>> cell_file("clean", 0), cell_file("fog", 3)
        ('clean.json', 'fog-3.json')
    """
    return f"{corruption}-{severity}.json" if severity else f"{corruption}.json"


def kept_epochs(folder: Path) -> list[Path]:
    """Return the folders of a training's kept epochs, earliest first; each is called by its number."""
    kept = (path for path in (folder / EPOCHS_FOLDER).glob("*") if path.name.isdigit())
    return sorted(kept, key=lambda path: int(path.name))


def csv_rows(file: Path) -> list[dict[str, str]]:
    """Return the rows of a CSV file by column; a value may hold line breaks."""
    with file.open(newline="", encoding="utf-8") as lines:
        return list(csv.DictReader(lines))


def in_its_run(folder: Path) -> Path:
    """Return a training's folder as its run has it, however it was given: as ``.``, or by a link into a run or out."""
    there = folder.resolve()
    return there if (there.parent / RECIPE_FILE).exists() else Path(os.path.abspath(folder))  # noqa: PTH100


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask

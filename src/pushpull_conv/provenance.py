"""Where a result comes from: versions, hardware, commit, command and time."""

import contextlib
import importlib.metadata
import json
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

import torch

from pushpull_conv._version import __version__
from pushpull_conv.errors import InputError
from pushpull_conv.files import write_text

PROVENANCE_FILE = "provenance.json"
_PACKAGES = ("torch", "numpy", "pillow", "lightning", "timm", "torchvision")


def provenance() -> dict[str, str]:
    """Return what a reader needs to repeat a run on a like machine, as strings.

    Example:
        >>> record = provenance()
        >>> record["pushpull_conv"] == __version__, "torch" in record, "cpu" in record
        (True, True, True)
    """
    versions = {name: version for name in _PACKAGES if (version := _version(name))}
    return {
        "command": shlex.join(["pushpull", *sys.argv[1:]]),
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
        "pushpull_conv": __version__,
        "commit": _commit(),
        "python": platform.python_version(),
        **versions,
        "system": f"{platform.system()} {platform.machine()}",
        "cpu": _cpu(),
        "threads": str(torch.get_num_threads()),
        "accelerator": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
    }


@contextlib.contextmanager
def recorded(folder: Path, step: str, made: str, facts: Mapping[str, str] | None = None) -> Iterator[None]:
    """Add what is known of ``step`` (``"training"``) to the folder's provenance file once the step is done.

    ``facts`` are what the caller knows of it. ``seconds`` are those of the call that finished the step. If the step
    leaves the file ``made`` unchanged, everything was already done, and the earlier record is kept.
    """
    started, record, before = time.monotonic(), {**provenance(), **(facts or {})}, _content(folder / made)
    yield
    if before is not None and before == _content(folder / made) and step in read_provenance(folder):
        return
    record["seconds"] = f"{time.monotonic() - started:.0f}"
    records = {**read_provenance(folder), step: record}
    write_text(folder / PROVENANCE_FILE, json.dumps(records, indent=1) + "\n")


def read_provenance(folder: Path) -> dict[str, dict[str, str]]:
    """Return the records of a folder, step to provenance; empty where there is none.

    Raises:
        InputError: The file is damaged.
    """
    content = _content(folder / PROVENANCE_FILE)
    try:
        records = {} if content is None else json.loads(content)
        return {step: dict(record) for step, record in records.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise InputError(f"'{folder / PROVENANCE_FILE}' is damaged; restore it, or delete it and do without") from error


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _commit() -> str:
    """Return the commit of the checkout that the code runs from, "+" where it has changes, "" outside of one."""
    here = Path(__file__).parent

    def git(*words: str) -> str:
        call = ["git", "-C", str(here), *words]
        return subprocess.run(call, capture_output=True, text=True, check=True, timeout=10).stdout.strip()

    try:
        git("ls-files", "--error-unmatch", Path(__file__).name)  # or it is installed within another project's checkout
        return git("describe", "--always", "--abbrev=12", "--dirty=+", "--exclude=*")
    except (OSError, subprocess.SubprocessError):
        return ""


def _cpu() -> str:
    """Return the processor's model name; the standard library knows it on few systems."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0]}, {len(names)} cores" if names else platform.processor()

"""Writing a corrupted set to the disk, in the layout of the published one of the same name."""

import concurrent.futures
import contextlib
import dataclasses
import itertools
import json
import multiprocessing
import os
import shutil
import signal
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image

from pushpull_conv.benchmark.evaluation import generated, wanted_cells
from pushpull_conv.benchmark.results import read_json
from pushpull_conv.benchmark.suites import Suite, suite_of
from pushpull_conv.benchmark.versions import Generated
from pushpull_conv.corruptions import SEVERITIES, FrostTextures
from pushpull_conv.data import ImageSource
from pushpull_conv.data.manifest import MANIFEST_FILE, PARTIAL_FILE, checksum, total_bytes
from pushpull_conv.data.published import LABELS_FILE
from pushpull_conv.errors import InputError, require_positive
from pushpull_conv.files import LOCK_FILE, alone, writable_folder, write_text
from pushpull_conv.interrupts import interrupts_held, meet_interrupts
from pushpull_conv.provenance import provenance

_FORMAT = 1
_BATCH = 100
_CPU = torch.device("cpu")


@dataclasses.dataclass(frozen=True)
class PartEvent:
    """A part of a corrupted set is on the disk.

    Args:
        name: Its file (``"fog.npy"``) or folder (``"fog/3"``).
        done: Parts finished so far, this one included.
        total: Parts of the whole set.
    """

    name: str
    done: int
    total: int


def write_set(
    source: ImageSource,
    folder: str | os.PathLike[str],
    *,
    suite: str | None = None,
    seed: int = 0,
    corruptions: Sequence[str] | None = None,
    frost: str | os.PathLike[str] | FrostTextures = "procedural",
    workers: int = 1,
    on_part: Callable[[PartEvent], None] | None = None,
) -> Path:
    """Write a data set's corrupted images in the layout of the published sets.

    ``evaluate(..., published=folder)`` counts on them what ``evaluate`` with the same seed counts on images that it
    generates. Parts are written whole or not at all, and a call that was stopped goes on where the same call is
    repeated. Until all are there the folder has a ``manifest.partial.json``, and is refused where sets are read.

    Args:
        source: The clean images.
        folder: Where to write; made if missing. Arrays: ``<corruption>.npy`` and ``labels.npy``; else
            ``<corruption>/<severity>/<class>/<index>.JPEG``. ``manifest.json`` says from what the set was made, and the
            SHA-256 and the size of each part.
        suite: As for `pushpull_conv.evaluate`.
        seed: Seed of the corruptions.
        corruptions: Names to write, each at all severities; None: the 15 of the benchmark.
        frost: As for `pushpull_conv.evaluate`.
        workers: Processes that work side by side, each with one thread; 1: this one, with all threads.
        on_part: Called after each part, also for one that was found finished.

    Returns:
        The manifest.

    Raises:
        InputError: An unknown suite, corruption or frost source; images of another size than the suite's, or that
            cannot be read; a class whose name no folder can have; a folder that cannot be written, holds something
            else, or that another call writes to.

    Example:
        >>> import tempfile
        >>> from pushpull_conv.data import load_images
        >>> folder = tempfile.mkdtemp()
        >>> manifest = write_set(load_images("digits", "test")[:9], folder, corruptions=["fog"])
        >>> sorted(file.name for file in Path(folder).iterdir())
        ['fog.npy', 'labels.npy', 'manifest.json']
        >>> np.load(Path(folder, "fog.npy"), mmap_mode="r").shape
        (45, 32, 32, 3)
    """
    chosen = suite_of(source, suite)
    cells = wanted_cells(corruptions)[1:]
    require_positive("workers", workers)
    versions = generated(source, chosen, seed=seed, frost=frost, jpeg=True)
    if chosen.layout == "folders":
        _require_folder_names(source)
    parts = _parts(cells, chosen)
    lock = writable_folder(folder) / LOCK_FILE
    with alone(lock, f"'{folder}' is being written by another call; wait until it is through"):
        manifest = _Manifest(Path(folder), _facts(source, chosen, versions))
        missing = manifest.open(list(parts))
        write = partial(_write, parts=parts, versions=versions, folder=Path(folder))
        found = [(part, None) for part in parts if part not in missing]
        for done, (part, written) in enumerate(itertools.chain(found, _results(write, missing, workers)), start=1):
            if written:
                manifest.add(part, written)
            if on_part:
                on_part(PartEvent(part, done, len(parts)))
        return manifest.close()


class _Manifest:
    """What the folder says of itself: under one name while parts are missing, under another when it is whole."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self.partial = folder / PARTIAL_FILE
        self.whole = folder / MANIFEST_FILE
        self.facts = facts
        self.content: dict[str, Any] = {**facts, "provenance": provenance(), "sha256": {}, "bytes": {}}

    def open(self, parts: list[str]) -> list[str]:
        """Claim the folder, and return the parts that it lacks."""
        stored = next((path for path in (self.partial, self.whole) if path.exists()), None)
        if stored is not None:
            self.content = self._checked(stored)
        elif others := [entry.name for entry in os.scandir(self.whole.parent) if entry.name != LOCK_FILE]:
            raise InputError(f"'{self.whole.parent}' holds {others[0]}, not a corrupted set; choose an empty folder")
        missing = [part for part in parts if not self._has(part)]
        if stored == self.whole and missing:
            self.whole.replace(self.partial)
        elif stored is None:
            self._save()
        return missing

    def add(self, part: str, written: "_Written") -> None:
        """Record a finished part."""
        self.content["sha256"][part] = written.sha256
        self.content.setdefault("bytes", {})[part] = written.bytes  # older manifests have no sizes
        self._save()

    def close(self) -> Path:
        """Declare the set whole."""
        if self.partial.exists():
            self.partial.replace(self.whole)
        return self.whole

    def _has(self, part: str) -> bool:
        """Whether a part is recorded and there, as large as it was written."""
        written = self.whole.parent / part
        if part not in self.content["sha256"] or not written.exists():
            return False
        recorded = self.content.get("bytes", {}).get(part)
        return recorded is None or recorded == total_bytes(written)

    def _save(self) -> None:
        write_text(self.partial, json.dumps(self.content, indent=1) + "\n")

    def _checked(self, path: Path) -> dict[str, Any]:
        content = read_json(path)
        if not isinstance(content, dict):
            raise InputError(f"'{path}' is not of a corrupted set; choose another folder")
        for name, value in self.facts.items():
            if content.get(name) != value:
                there = f"'{path.parent}' holds a set with {name} {content.get(name)!r}"
                raise InputError(f"{there}, not {value!r}; choose another folder")
        return content


def _facts(source: ImageSource, suite: Suite, versions: Generated) -> dict[str, Any]:
    """What decides the images."""
    return {
        "format": _FORMAT,
        "data": source.name,
        "split": source.split,
        "images": len(source),
        "fingerprint": source.fingerprint,
        "suite": suite.name,
        "revision": suite.revision,
        "seed": versions.seed,
        "frost": versions.frost,
        "jpeg_quality": versions.jpeg_quality,
    }


def _require_folder_names(source: ImageSource) -> None:
    """Raise `InputError` if a class could not be read back from a folder of its name."""
    for name in source.classes:
        if name[:1] in ("", ".") or name != Path(name).name or "\0" in name:
            raise InputError(
                f"class {name!r} of {source.name} cannot be the name of a folder; rename it, without a leading '.' and "
                "without '/'"
            )


_Writer = Callable[[Generated, Path], None]


def _parts(cells: Sequence[tuple[str, int]], suite: Suite) -> dict[str, _Writer]:
    """The files or folders of which a set consists, each with what writes it to a path."""
    if suite.layout == "arrays":
        names = dict.fromkeys(name for name, _ in cells)
        return {LABELS_FILE: _write_labels, **{f"{name}.npy": partial(_write_array, name) for name in names}}
    return {f"{name}/{severity}": partial(_write_jpegs, (name, severity)) for name, severity in cells}


class _Written(NamedTuple):
    """What the manifest keeps of a part."""

    sha256: str
    bytes: int


def _write(part: str, parts: Mapping[str, _Writer], versions: Generated, folder: Path) -> _Written:
    """Write one part, whole or not at all."""
    with _whole(folder / part) as temporary:
        parts[part](versions, temporary)
        return _Written(checksum(temporary), total_bytes(temporary))


@contextlib.contextmanager
def _whole(path: Path) -> Iterator[Path]:
    """Yield a path beside ``path`` for a file or a folder, which takes its place on success."""
    temporary = path.parent / f".{path.name}.partial"
    _remove(temporary)
    path.parent.mkdir(exist_ok=True)
    yield temporary
    _remove(path)
    temporary.replace(path)


def _remove(path: Path) -> None:
    if path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _write_labels(versions: Generated, path: Path) -> None:
    source = versions.source
    labels = source.labels.cpu().numpy().astype(np.uint8 if source.num_classes <= 256 else np.int64)
    with path.open("wb") as file:
        np.save(file, np.tile(labels, len(SEVERITIES)))


def _write_array(corruption: str, versions: Generated, path: Path) -> None:
    source = versions.source
    shape = (len(SEVERITIES) * len(source), *source.size, 3)
    header = {"descr": np.lib.format.dtype_to_descr(np.dtype(np.uint8)), "fortran_order": False, "shape": shape}
    with path.open("wb") as file:  # not mapped, which on a full disk ends the process
        np.lib.format.write_array_header_1_0(file, header)
        for severity in SEVERITIES:
            for batch in versions.batches((corruption, severity), _BATCH, _CPU):
                file.write(batch.images.permute(0, 2, 3, 1).contiguous().numpy().data)


def _write_jpegs(key: tuple[str, int], versions: Generated, folder: Path) -> None:
    """Pillow stores the images at the quality that `evaluate` takes them through, with the same pixels in the end."""
    names = versions.source.classes
    for name in {names[label] for label in versions.source.labels.tolist()}:
        (folder / name).mkdir(parents=True)
    for batch in dataclasses.replace(versions, jpeg_quality=None).batches(key, _BATCH, _CPU):
        pixels = batch.images.permute(0, 2, 3, 1).numpy()
        for image, label, index in zip(pixels, batch.labels.tolist(), batch.index.tolist(), strict=True):
            Image.fromarray(image).save(
                folder / names[label] / f"{index:08}.JPEG",
                quality=versions.jpeg_quality,
                subsampling="4:2:0",
                optimize=True,
            )


def _results(write: Callable[[str], _Written], parts: list[str], workers: int) -> Iterator[tuple[str, _Written]]:
    """Each part with what is kept of it, as they are finished."""
    if workers == 1 or len(parts) < 2:
        yield from ((part, write(part)) for part in parts)
        return
    pool = concurrent.futures.ProcessPoolExecutor(
        min(workers, len(parts)),
        multiprocessing.get_context("spawn"),
        initializer=_begin_worker,
        initargs=(write,),  # not with each part: the images would be handed over anew, by a thread that Ctrl-C upsets
    )
    try:
        with interrupts_held():
            futures = {pool.submit(_write_in_worker, part): part for part in parts}
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()
    finally:
        pool.shutdown(cancel_futures=True)


_worker_write: Callable[[str], _Written]


def _begin_worker(write: Callable[[str], _Written]) -> None:
    """Work in one thread, and end at Ctrl-C without a word: what is half written is written anew."""
    global _worker_write
    _worker_write = write
    torch.set_num_threads(1)
    meet_interrupts(signal.SIG_DFL)


def _write_in_worker(part: str) -> _Written:
    return _worker_write(part)

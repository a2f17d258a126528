"""Running the benchmark: corrupt every image on the fly, classify it, count."""

import contextlib
import dataclasses
import functools
import hashlib
import itertools
import os
import re
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pushpull_conv._version import __version__
from pushpull_conv.benchmark.results import Cell, Header, Results, ordered, require_printable
from pushpull_conv.benchmark.store import CellStore, counted_model
from pushpull_conv.benchmark.suites import Suite, suite_of
from pushpull_conv.benchmark.versions import Generated, Published, Versions
from pushpull_conv.corruptions import CORRUPTIONS, SEVERITIES, FrostTextures, corrupt, load_frost, require_severity
from pushpull_conv.corruptions.spec import NAMES
from pushpull_conv.data import Batch, ImageSource
from pushpull_conv.errors import InputError, require_name, require_positive, require_seed
from pushpull_conv.files import CELLS_FOLDER, CLEAN, RESULTS_FILE, cell_file

TOP = 5
AUTOCAST_DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16}
"""What a benchmark's ``autocast`` may be."""


@dataclasses.dataclass(frozen=True)
class CellEvent:
    """A cell is finished.

    Args:
        corruption: Its corruption, ``"clean"`` for the clean images.
        severity: Its severity, 0 for the clean images.
        cell: Its counts.
        done: Cells finished so far, this one included.
        total: Cells of the whole benchmark.
    """

    corruption: str
    severity: int
    cell: Cell
    done: int
    total: int


def evaluate(
    model: nn.Module,
    source: ImageSource,
    *,
    suite: str | None = None,
    seed: int = 0,
    corruptions: Iterable[str] | None = None,
    severities: Iterable[int] | None = None,
    frost: str | os.PathLike[str] | FrostTextures = "procedural",
    jpeg: bool = True,
    published: str | os.PathLike[str] | None = None,
    batch_size: int = 250,
    autocast: str | None = None,
    device: torch.device | str | None = None,
    store: str | os.PathLike[str] | None = None,
    label: str = "model",
    on_cell: Callable[[CellEvent], None] | None = None,
) -> Results:
    """Count a classifier's hits on clean images and under common corruptions (Hendrycks & Dietterich, 1903.12261).

    Args:
        model: Maps uint8 images ``[B, 3, H, W]`` to logits ``[B, num_classes]``; it normalises them itself, as
            `pushpull_conv.models.Classifier` does. Its training flags are left as they were.
        source: The clean images.
        suite: One of `pushpull_conv.benchmark.SUITES`; None: the one of the source's data set, of a set of another
            name that for its size.
        seed: Seed of the corruptions, 0 to 2^64 - 1; the same corrupts the same image alike, whatever the batch size or
            device.
        corruptions: Names to run; None: the 15 of the benchmark.
        severities: Severities to run; None: 1 to 5.
        frost: The textures of frost: ``"procedural"``, ``"reference"``, a folder of photographs, or loaded textures.
        jpeg: Store corrupted images as JPEG and decode them again, where the suite does; the results record it.
        published: Folder of a corrupted set on the disk, as downloaded or as `pushpull_conv.benchmark.write_set` writes
            it; the corrupted images are read from it, and ``seed``, ``frost`` and ``jpeg`` play no part. None: they are
            generated.
        batch_size: Images at a time.
        autocast: One of `AUTOCAST_DTYPES`, in which `torch.autocast` lets the model compute where that is safe: faster,
            and a few decisions in a thousand differ. None: the model computes as it is. The results record it.
        device: Where to run; the model is moved there. None: where the model is.
        store: Folder in which each finished cell is kept (``cells/``), and in the end the results (``results.json``).
            What is finished there is not counted again, so a killed run goes on; the results hold all of it. Another
            model is told by its modules as they print themselves (`torch.nn.Module.extra_repr`), its parameters and
            buffers: give models that differ in an attribute that they do not print a folder each.
        label: What tables call the classifier.
        on_cell: Called after each cell, also for one that was found finished.

    Returns:
        Counts on the clean images and by (corruption, severity).

    Raises:
        InputError: An unknown suite, corruption, severity or ``autocast``, or a suite for images of another size; a
            model that gives no logits, or such that are not finite or do not fit the classes; a published set that is
            incomplete, damaged or of other images; a store that cannot be written or that holds another model's or
            benchmark's cells.

    Example:
        >>> from pushpull_conv.data import load_images
        >>> class Brightness(nn.Module):
        ...     def forward(self, images):
        ...         return images.double().mean((1, 2, 3))[:, None] * torch.arange(10)
        >>> digits = load_images("digits", "test")
        >>> results = evaluate(Brightness(), digits, corruptions=["fog"], severities=[1, 5])
        >>> sorted(results.cells), results.clean.n
        ([('fog', 1), ('fog', 5)], 355)
    """
    wanted = wanted_cells(corruptions, severities)
    if store is not None:
        _require_none_lost(Path(store), label, wanted)
    header, cells = count_cells(
        model,
        source,
        wanted,
        suite=suite,
        seed=seed,
        frost=frost,
        jpeg=jpeg,
        published=published,
        batch_size=batch_size,
        autocast=autocast,
        device=device,
        store=store,
        label=label,
        on_cell=on_cell,
    )
    clean = cells.pop(CLEAN)
    results = Results(model=label, header=header, clean=clean, cells={key: cells[key] for key in ordered(cells)})
    if store is not None:
        results.save(Path(store, RESULTS_FILE))
    return results


def count_cells(
    model: nn.Module,
    source: ImageSource,
    wanted: Sequence[tuple[str, int]],
    *,
    suite: str | None,
    seed: int,
    frost: str | os.PathLike[str] | FrostTextures,
    jpeg: bool,
    published: str | os.PathLike[str] | None = None,
    batch_size: int,
    autocast: str | None,
    device: torch.device | str | None,
    store: str | os.PathLike[str] | None,
    label: str,
    on_cell: Callable[[CellEvent], None] | None,
) -> tuple[Header, dict[tuple[str, int], Cell]]:
    """Count some cells of a benchmark: the part of `evaluate` that several processes may share.

    Where all use the same ``store``, each counts its own cells, and `evaluate` then finds them all. ``wanted`` are the
    cells, by (corruption, severity), and ``("clean", 0)``, the clean images; the other arguments and the errors are
    those of `evaluate`.

    Returns:
        What the cells are made with, and the cells: those wanted and all that the store had.
    """
    _require_kinds(model, source)
    chosen = suite_of(source, suite)
    if autocast is not None:
        require_name("autocast dtype", autocast, AUTOCAST_DTYPES)
    require_positive("batch_size", batch_size)
    require_printable(label)
    versions: Versions
    if published is None:
        versions = generated(source, chosen, seed=seed, frost=frost, jpeg=jpeg)
    else:
        versions = Published(source, Path(published).expanduser(), chosen, [key for key in wanted if key != CLEAN])
    header = _header(source, chosen, versions, autocast)
    kept = None
    if store is not None:
        _require_same_benchmark(Path(store), header)
        kept = CellStore(Path(store, CELLS_FOLDER), model=label, weights=model_fingerprint(model), header=header)
    cells = kept.cells() if kept else {}
    if device is not None:
        model.to(device)
    device = _device_of(model)
    classify = _Classify(model)
    with _evaluating(model):
        for done, key in enumerate(wanted, start=1):
            cell = cells.get(key) or (kept.cell(key) if kept else None)  # another process may have finished it
            if cell is None:
                batches = versions.batches(key, batch_size, device)
                cell = _count(classify, key, batches, source.num_classes, autocast)
                if kept:
                    kept.add(key, cell)
            cells[key] = cell
            if on_cell:
                on_cell(CellEvent(*key, cells[key], done, len(wanted)))
    return header, cells


def _require_kinds(model: nn.Module, source: ImageSource) -> None:
    if not isinstance(model, nn.Module):
        raise InputError(f"model is a {type(model).__name__}; give a torch.nn.Module from uint8 images to logits")
    if not hasattr(type(source), "fingerprint"):
        raise InputError(
            f"source is a {type(source).__name__}; give what pushpull_conv.data.open_images returns, or tensors in an "
            "ImageSet"
        )


def _require_none_lost(folder: Path, label: str, wanted: Sequence[tuple[str, int]]) -> None:
    """Refuse to replace results by another model's, or by fewer because their cells are no longer kept."""
    file = folder / RESULTS_FILE
    if not file.exists():
        return
    there = Results.load(file)
    if there.model != label:
        raise InputError(f"'{file}' holds the results of {there.model!r}, not {label!r}; choose another folder")
    lost = [key for key in there.cells if key not in wanted and not (folder / CELLS_FOLDER / cell_file(*key)).exists()]
    if lost:
        raise InputError(
            f"'{file}' has {len(lost)} cells, {lost[0][0]} at severity {lost[0][1]} among them, that are neither asked "
            f"for nor kept in '{CELLS_FOLDER}', and would be lost; choose another folder, or ask for them, too"
        )


def _require_same_benchmark(folder: Path, header: Header) -> None:
    """Refuse to replace results that were made otherwise and whose cells, which would tell, are no longer kept."""
    file = folder / RESULTS_FILE
    if not file.exists() or counted_model(folder / CELLS_FOLDER):
        return
    for name, facts in Results.load(file).header.differences(header).items():
        found, asked = (textwrap.shorten(str(fact), 60) for fact in facts)
        raise InputError(f"'{file}' holds results with {name} {found}, not {asked}; choose another folder")


def generated(
    source: ImageSource, suite: Suite, *, seed: int, frost: str | os.PathLike[str] | FrostTextures, jpeg: bool
) -> Generated:
    """The versions that a suite makes of a source; the arguments are those of `evaluate`."""
    require_seed(seed)
    textures = load_frost(frost)
    make = functools.partial(corrupt, seed=seed, profile=suite.profile, frost=textures)
    return Generated(source, make, seed, textures.identity, suite.quality(jpeg=jpeg))


def _header(source: ImageSource, suite: Suite, versions: Versions, autocast: str | None) -> Header:
    return Header(
        data=source.name,
        split=source.split,
        fingerprint=source.fingerprint,
        images=len(source),
        classes=tuple(source.classes),
        suite=suite.name,
        revision=suite.revision,
        version=__version__,
        autocast=autocast,
        **versions.facts(),
    )


def model_fingerprint(model: nn.Module) -> str:
    """SHA-256, in hex, over a model's modules as they print themselves and over its parameters and all its buffers."""
    digest = hashlib.sha256()
    for name, module in model.named_modules():
        settings = re.sub(" at 0x[0-9a-f]+", "", module.extra_repr())  # a function is elsewhere the next time
        digest.update(f"{name} {type(module).__qualname__} {settings}".encode())
    for name, tensor in itertools.chain(model.named_parameters(), model.named_buffers()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def wanted_cells(
    corruptions: Iterable[str] | None = None, severities: Iterable[int] | None = None
) -> list[tuple[str, int]]:
    """`CLEAN` and the cells that a caller asks for, in the order of the benchmark; `InputError` if it is none."""
    names = CORRUPTIONS if corruptions is None else corruptions
    levels = SEVERITIES if severities is None else severities
    for argument, given in (("corruptions", names), ("severities", levels)):
        if isinstance(given, str) or not isinstance(given, Iterable):
            raise InputError(f"{argument} is {given!r}; give several as a list, one as [{given!r}]")
    known = [require_name("corruption", name, NAMES) for name in names]
    return [CLEAN, *ordered(set(itertools.product(known, map(require_severity, levels))))]


def named_cells(names: Sequence[str]) -> list[tuple[str, int]]:
    """All cells of some corruptions, where ``"clean"`` stands for the clean images, in the order of the benchmark.

    Raises:
        InputError: A name is neither a corruption nor ``"clean"``.

    Example:
        >>> named_cells(["fog", "clean"])
        [('clean', 0), ('fog', 1), ('fog', 2), ('fog', 3), ('fog', 4), ('fog', 5)]
    """
    for name in names:
        require_name("corruption", name, (CLEAN[0], *NAMES))
    clean, *cells = wanted_cells([name for name in names if name != CLEAN[0]])
    return [clean, *cells] if CLEAN[0] in names else cells


class _Classify:
    """Calls a model on images in channels-last layout, which is faster, or in the usual one if it takes no other."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.layout = torch.channels_last
        self.taken: torch.Size | None = None  # what it took once is no input that it cannot take

    def __call__(self, images: Tensor) -> Any:
        try:
            return self.model(images.contiguous(memory_format=self.layout))
        except RuntimeError as error:
            if self.layout == torch.contiguous_format or "view size is not compatible" not in str(error):
                raise
        self.layout = torch.contiguous_format
        return self(images)


def _count(
    classify: _Classify, key: tuple[str, int], batches: Iterable[Batch], num_classes: int, autocast: str | None
) -> Cell:
    """Classify one cell's images and count; nothing waits for the device before the cell is done."""
    ranked = []
    for batch in batches:
        logits = _logits(classify, batch.images, num_classes, autocast)
        ranked.append((label_ranks(logits, batch.labels), batch.labels))
    ranks, labels = (torch.cat(parts) for parts in zip(*ranked, strict=True))
    if (ranks < 0).any():
        name = "clean images" if key == CLEAN else f"{key[0]} at severity {key[1]}"
        raise InputError(f"the model's logits are not finite on {name}; check its weights and precision")
    return Cell(
        n=len(labels),
        top1=int((ranks == 0).sum()),
        top5=int((ranks < TOP).sum()),
        class_n=tuple(labels.bincount(minlength=num_classes).tolist()),
        class_top1=tuple(labels[ranks == 0].bincount(minlength=num_classes).tolist()),
    )


def _logits(classify: _Classify, images: Tensor, num_classes: int, autocast: str | None) -> Tensor:
    with torch.autocast(images.device.type, AUTOCAST_DTYPES[autocast]) if autocast else contextlib.nullcontext():
        try:
            logits = classify(images)
        except (RuntimeError, AssertionError) as error:
            if images.shape == classify.taken or isinstance(error, torch.OutOfMemoryError):
                raise
            reason = " ".join(str(error).split())[:200]
            raise InputError(
                f"the model cannot take uint8 images {[*images.shape]} ({reason}); give one for images of this size, "
                "and a network that takes normalised floats in a pushpull_conv.models.Classifier"
            ) from error
    if not isinstance(logits, Tensor):
        raise InputError(f"the model gives a {type(logits).__name__}, not a tensor of logits; wrap it to return them")
    if logits.shape != (len(images), num_classes):
        raise InputError(
            f"the model gives logits of shape {[*logits.shape]} where the data's {num_classes} classes need "
            f"{[len(images), num_classes]}; use a model of these classes"
        )
    classify.taken = images.shape
    return logits


def label_ranks(logits: Tensor, labels: Tensor) -> Tensor:
    """Place of each label in descending order of the logits, from 0; -1 where a logit is not finite.

    Of equal logits the lower class comes first, so that counts never depend on how a device sorts.

    Args:
        logits: ``[B, K]``.
        labels: int64 ``[B]``.

    Returns:
        int64 ``[B]``.

    Example:
        >>> label_ranks(torch.tensor([[0.1, 0.9], [0.5, 0.5]]), torch.tensor([0, 0])).tolist()
        [1, 0]
    """
    own = logits.gather(1, labels[:, None])
    lower_class = torch.arange(logits.shape[1], device=logits.device) < labels[:, None]
    ahead = (logits > own) | ((logits == own) & lower_class)
    return torch.where(logits.isfinite().all(1), ahead.sum(1), -1)


def _device_of(model: nn.Module) -> torch.device:
    tensors = itertools.chain(model.parameters(), model.buffers())
    return next((tensor.device for tensor in tensors), torch.device("cpu"))


@contextlib.contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Evaluation and inference mode; afterwards every module trains or not as before."""
    trained = [module for module in model.modules() if module.training]
    model.eval()
    try:
        with torch.inference_mode():
            yield
    finally:
        for module in trained:
            module.training = True

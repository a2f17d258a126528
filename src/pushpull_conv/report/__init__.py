"""The comparison of variants: tables, figures and one HTML page."""

import contextlib
import importlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType, ModuleType
from typing import TYPE_CHECKING

from torch import Tensor

from pushpull_conv.benchmark import Results
from pushpull_conv.corruptions import CORRUPTIONS
from pushpull_conv.errors import InputError, require_module
from pushpull_conv.files import REPORT_FILE, atomic_write, remedies_told, writable_folder
from pushpull_conv.layers import PushPullConv2d
from pushpull_conv.report.averages import trainings_of
from pushpull_conv.report.sample import Sample
from pushpull_conv.report.scores import Comparison, Kernels, Provenance, class_errors, scored
from pushpull_conv.report.tables import (
    Table,
    comparison_table,
    corruption_table,
    corruptions_csv,
    scores_csv,
    to_latex,
    to_markdown,
)
from pushpull_conv.report.wording import images_of

if TYPE_CHECKING:
    from pushpull_conv.report.style import Figure

__all__ = [
    "Comparison",
    "Sample",
    "require_picture",
    "scored",
    "terminal_table",
    "write_augmentations",
    "write_explanation",
    "write_gallery",
    "write_report",
]

_CELLS_SHOWN = 10
_CLASSES_SHOWN = 30  # more would be a figure longer than a page
_PICTURES = (".png", ".svg", ".pdf")


def write_report(
    folder: str | os.PathLike[str],
    compared: Comparison,
    *,
    title: str,
    recipes: Sequence[str] = (),
    kernels: Kernels = MappingProxyType({}),
    sample: Sample | None = None,
    provenance: Provenance = MappingProxyType({}),
    epochs: Mapping[str, Mapping[int, Results]] = MappingProxyType({}),
    notes: Sequence[str] = (),
) -> Path:
    """Write the comparison of variants: all of it, or on an error nothing.

    The folder receives ``index.html`` (everything, in one file that needs no other), ``table.md``, ``table.tex``,
    ``table.csv``, ``corruptions.csv`` and ``figures/`` (SVG, PNG and PDF). Other files in it are left alone.

    Args:
        folder: Where to write; made if missing.
        compared: The variants and their scores. One that was trained several times is shown with the kernels and the
            epochs of the first training.
        title: Heading of the page.
        recipes: The recipe as YAML, or those of all runs that are compared.
        kernels: Per label of a training, as `scored` takes them.
        sample: A photo to show the corruptions on.
        provenance: Per label what its numbers come from, name to text, shown as given; names that end in
            ``seconds`` are shown as a duration.
        epochs: Per label the results after each benchmarked epoch of its training, epoch (from 1) to results.
        notes: Sentences that a reader of the comparison must know, shown below its table.

    Returns:
        The path of ``index.html``.

    Raises:
        InputError: The folder cannot be written, the disk is full, or the ``report`` extra is not installed.
    """
    for module in ("matplotlib", "jinja2"):
        require_module(module, "report")
    from pushpull_conv.report import differences, dots, figures, page, pictures, style

    rows, scores, base, base_score = compared.rows, compared.scores, compared.baseline, compared.base_score
    looks = style.looks([row.model for row in rows], base.model)
    firsts = {row.model: trainings_of(row)[0].model for row in rows}
    grown = {name: epochs[label] for name, label in firsts.items() if len(epochs.get(label, ())) > 1}
    shown_kernels = {name: kernels[label] for name, label in firsts.items() if label in kernels}
    cells = differences.differing_cells(rows, base, _CELLS_SHOWN)
    on_classes = class_errors(rows)
    classes = differences.differing_classes(on_classes, base.model, _CLASSES_SHOWN)
    drawn = [
        figures.severity_figure(rows, base, looks),
        figures.severity_by_corruption_figure(rows, looks),
        figures.tradeoff_figure(scores, base_score, looks),
        dots.corruptions_figure(rows, base, looks),
        dots.classes_figure(on_classes, base.model, looks, classes),
        *([figures.epochs_figure(grown, base.model, looks)] if grown else []),
        *([pictures.kernels_figure(shown_kernels)] if shown_kernels else []),
        *([pictures.gallery_figure(sample, framed=cells)] if sample else []),
    ]
    tables = {"comparison": comparison_table(scores, base_score), "corruptions": corruption_table(rows)}
    drawings = {figure.name: style.svg_text(figure) for figure in drawn}
    html = page.render_page(
        title=title,
        compared=compared,
        tables={
            **tables,
            "cells": differences.cells_table(rows, base, cells),
            "classes": differences.class_table(on_classes, base.model, classes),
        },
        photos=[page.photo_uri(sample.cell(*cell)) for cell in cells] if sample else [],
        figures=drawn,
        drawings=drawings,
        recipes=recipes,
        provenance=provenance,
        notes=notes,
    )
    about = f"{title}; {images_of(base.header)}."
    texts = {
        "table.md": "\n".join(map(to_markdown, tables.values())),
        "table.tex": "\n".join(to_latex(table, name, about) for name, table in tables.items()),
        "table.csv": scores_csv(scores, base_score),
        "corruptions.csv": corruptions_csv(compared.results),
        **{f"figures/{name}.svg": drawing for name, drawing in drawings.items()},
        REPORT_FILE: html,
    }
    with _staged(folder) as stage:
        (stage / "figures").mkdir()
        for figure in drawn:
            for suffix in (".png", ".pdf"):
                style.write(figure, stage / "figures" / (figure.name + suffix))
        for name, text in texts.items():
            (stage / name).write_text(text, encoding="utf-8")
    return Path(folder) / REPORT_FILE


def write_gallery(path: str | os.PathLike[str], sample: Sample, names: Sequence[str] = CORRUPTIONS) -> Path:
    """Draw a photo under the named corruptions at every severity, into one PNG, SVG or PDF file.

    Args:
        path: The file to write; its suffix names the format.
        sample: The photo and what decides how it is corrupted.
        names: Corruptions, in the order to show them.

    Returns:
        The path written.

    Raises:
        InputError: The suffix is none of the three, or the file cannot be written.
    """
    return _write_picture(path, lambda pictures: pictures.gallery_figure(sample, names), "pictures")


def write_explanation(
    path: str | os.PathLike[str], unit: PushPullConv2d, photo: Tensor, x: Tensor, *, filters: int = 4
) -> Path:
    """Draw what a push-pull stem does to a photo, into one PNG, SVG or PDF file.

    Args:
        path: The file to write; its suffix names the format.
        unit: The stem.
        photo: What is shown, uint8 ``[3, H, W]``.
        x: The same as the unit gets it, normalised, ``[1, 3, H, W]``.
        filters: How many filters to show.

    Returns:
        The path written.

    Raises:
        InputError: The suffix is none of the three, or the file cannot be written.
    """
    return _write_picture(path, lambda module: module.explanation_figure(unit, photo, x, filters), "explanation")


def write_augmentations(path: str | os.PathLike[str], photo: Tensor, draws: Mapping[str, Tensor]) -> Path:
    """Draw what each augmentation makes of a photo, into one PNG, SVG or PDF file.

    Args:
        path: The file to write; its suffix names the format.
        photo: uint8 ``[3, H, W]``.
        draws: Per title of an augmentation uint8 ``[N, 3, H, W]``, N the same for all.

    Returns:
        The path written.

    Raises:
        InputError: The suffix is none of the three, or the file cannot be written.
    """
    return _write_picture(path, lambda module: module.augmentations_figure(photo, draws), "augmentations")


def require_picture(path: str | os.PathLike[str]) -> Path:
    """Raise `InputError` if no figure could be written to ``path``: before it is drawn, which takes long."""
    path = Path(path)
    if path.suffix.lower() not in _PICTURES:
        raise InputError(f"picture file '{path.name}' must end in {', '.join(_PICTURES)}; give it one of these endings")
    if path.is_dir():
        raise InputError(f"picture file '{path}' is a folder; name a file in it")
    writable_folder(path.parent)
    return path


def _write_picture(path: str | os.PathLike[str], draw: Callable[[ModuleType], "Figure"], module: str) -> Path:
    """Write one figure that ``draw`` makes with a module of this package, which needs matplotlib, and its caption."""
    path = require_picture(path)
    require_module("matplotlib", "report")
    from pushpull_conv.report import style

    figure = draw(importlib.import_module(f"{__name__}.{module}"))
    with atomic_write(path) as temporary:
        style.write_captioned(figure, temporary)
    return path


def terminal_table(compared: Comparison) -> Table:
    """Return the comparison for ``rich.print``."""
    return comparison_table(compared.scores, compared.base_score)


@contextlib.contextmanager
def _staged(folder: str | os.PathLike[str]) -> Iterator[Path]:
    """Yield a temporary folder; when all is written there, move it into ``folder`` file by file, the page last."""
    target = writable_folder(folder)
    with tempfile.TemporaryDirectory(dir=target, prefix=".report.") as name, remedies_told(target):
        stage = Path(name)
        yield stage
        files = [file.relative_to(stage) for file in stage.rglob("*") if file.is_file()]
        for file in sorted(files, key=lambda file: file.suffix == ".html"):
            writable_folder((target / file).parent)
            (stage / file).replace(target / file)

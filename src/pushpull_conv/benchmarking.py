"""One model's benchmark, and the writing of a corrupted set, as the command line shows them."""

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from rich.console import Console

from pushpull_conv.benchmark import CellEvent, Results, evaluate, write_set
from pushpull_conv.benchmark.evaluation import AUTOCAST_DTYPES
from pushpull_conv.data import ImageSource
from pushpull_conv.files import RESULTS_FILE, atomic_write
from pushpull_conv.models import ChosenLogits, Classifier, count_parameters
from pushpull_conv.progress import progress_bar
from pushpull_conv.provenance import recorded
from pushpull_conv.ranks import own_device
from pushpull_conv.training.precision import slow_precision_note


def benchmark(
    classifier: Classifier | ChosenLogits,
    images: ImageSource,
    folder: Path,
    *,
    label: str,
    console: Console,
    **settings: Any,
) -> Results:
    """Evaluate one classifier under a progress bar; leave cells, results and provenance in ``folder``.

    Its input, its number of parameters and, where it knows more classes than the images have, among which it chooses,
    are printed and recorded.
    It runs on the GPU if there is one; ``settings`` are other arguments of `pushpull_conv.evaluate`.
    """
    facts = _facts(classifier, images)
    for name, fact in facts.items():
        console.print(f"{name}: {fact}", highlight=False, soft_wrap=True)
    if (autocast := settings.get("autocast")) in AUTOCAST_DTYPES:
        note_if_slow(console, autocast, AUTOCAST_DTYPES[autocast], "without --autocast the model computes in float32")
    with recorded(folder, "benchmark", RESULTS_FILE, facts), cell_bar(label, console) as on_cell:
        results = evaluate(
            classifier, images, label=label, store=folder, device=own_device(), on_cell=on_cell, **settings
        )
    save_sample(images, folder)
    return results


def note_if_slow(console: Console, precision: str, half: torch.dtype | None, instead: str) -> None:
    """Say if a lower precision is slow on this device, and what computes in float32 ``instead``."""
    if note := slow_precision_note(precision, half, own_device()):
        console.print(f"note: {note}; {instead}", highlight=False, soft_wrap=True)


def _facts(classifier: Classifier | ChosenLogits, images: ImageSource) -> dict[str, str]:
    """Say what a classifier gets, how many parameters it has, and among which classes it chooses."""
    whole = classifier.classifier if isinstance(classifier, ChosenLogits) else classifier
    mean, std = (" ".join(f"{value:.3g}" for value in values.flatten()) for values in (whole.mean, whole.std))
    facts = {"input": f"{images.size[1]} x {images.size[0]} pixels in [0, 1], minus {mean}, divided by {std}"}
    facts["parameters"] = str(count_parameters(classifier))
    if whole is not classifier:
        facts["classes"] = f"the {images.num_classes} of {images.name}, of those that the model knows"
    return facts


def corrupt_set(images: ImageSource, folder: Path, *, console: Console, **settings: Any) -> Path:
    """Write a corrupted set under a progress bar and return its manifest.

    ``settings`` are other arguments of `pushpull_conv.benchmark.write_set`.
    """
    with progress_bar(console, images.name, "parts written") as show:
        return write_set(images, folder, on_part=lambda event: show(event.done, event.total, event.name), **settings)


@contextlib.contextmanager
def cell_bar(label: str, console: Console, whole: int | None = None) -> Iterator[Callable[[CellEvent], None]]:
    """Show a bar over the cells with the last one's error and the time left; leave one line at the end.

    ``whole`` is the number of cells where other processes count some of them.
    """
    with progress_bar(console, label, "cells benchmarked", whole) as show:

        def on_cell(event: CellEvent) -> None:
            place = event.corruption if event.severity == 0 else f"{event.corruption} {event.severity}"
            show(event.done, event.total, f"{place}: error {event.cell.error:.1%}")

        yield on_cell


def save_sample(images: ImageSource, folder: Path) -> None:
    """Keep the first image, its place in its name, so that a report can show the corruptions without the data."""
    first = next(images.batches(1))
    with atomic_write(folder / f"sample-{int(first.index)}.png") as temporary:
        Image.fromarray(first.images[0].permute(1, 2, 0).cpu().numpy()).save(temporary)

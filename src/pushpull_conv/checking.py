"""What ``pushpull data check`` shows: a bar while images are decoded, then a table of what was found."""

import functools
from collections.abc import Callable, Iterable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from pushpull_conv.data.check import DataCheck, SplitCheck, check_data
from pushpull_conv.data.manifest import MANIFEST_FILE, damaged_parts, is_written, read_manifest, require_finished
from pushpull_conv.errors import InputError
from pushpull_conv.progress import progress_bar

_FEW_CLASSES = 20


def check(folder: Path, name: str | None, console: Console) -> list[str]:
    """Check a data set, or a corrupted set against its manifest, and print what it holds.

    Args:
        folder: Where it lies.
        name: The data set; None for a corrupted set that has a manifest.
        console: Where to print.

    Returns:
        A sentence for everything that is wrong.

    Raises:
        InputError: Nothing says what the folder is to hold, it holds nothing of that, or it is a corrupted set that is
            not finished.
    """
    require_finished(folder)
    if is_written(folder):
        if name is not None:
            raise InputError(f"'{folder}' is a corrupted set, as its {MANIFEST_FILE} says; leave out --data-set")
        return _check_written(folder, console)
    if name is None:
        raise InputError(
            f"'{folder}' has no {MANIFEST_FILE} of a corrupted set that was written; name its data set (--data-set)"
        )
    with progress_bar(console) as show:
        found = check_data(name, folder, on_images=lambda split, done, total: show(done, total, split))
    console.print(data_table(found))
    return list(found.problems)


def data_table(found: DataCheck) -> Table:
    """What each split of a data set holds: a column for each."""
    table = Table(title=found.name)
    table.add_column("")
    for split in found.splits:
        table.add_column(split.split, justify="right")
    for title, cell in _ROWS.items():
        table.add_row(title, *[cell(split) for split in found.splits])
    names = list(dict.fromkeys(name for split in found.splits for name in split.counts))
    if len(names) <= _FEW_CLASSES:
        table.add_section()
        for name in names:
            table.add_row(escape(name), *[f"{split.counts.get(name, 0):,}" for split in found.splits])
    return table


def _check_written(folder: Path, console: Console) -> list[str]:
    parts = read_manifest(folder)["sha256"]
    problems = []
    with progress_bar(console) as show:
        for done, (part, problem) in enumerate(damaged_parts(folder), start=1):
            problems += [problem] if problem else []
            show(done, len(parts), part)
    said = f"{folder}: {len(parts)} parts, {len(parts) - len(problems)} as written"
    console.print(said, markup=False, highlight=False)
    return problems


def _of_a_class(choose: Callable[[Iterable[int]], int], split: SplitCheck) -> str:
    """The smallest or largest number of images of a class, and a class that has so many."""
    count = choose(split.counts.values())
    names = [name for name in split.counts if split.counts[name] == count]
    return f"{count:,} ({escape(names[0]) if len(names) < len(split.counts) else 'each'})"


def _sides(size: tuple[int, int]) -> str:
    return f"{size[0]} x {size[1]}"


def _modes(split: SplitCheck) -> str:
    return ", ".join(f"{count:,} {mode}" for mode, count in split.modes.items())


def _rate(split: SplitCheck) -> str:
    return f"{(split.images + split.damaged) / split.seconds:,.0f}" if split.seconds else ""


_ROWS: dict[str, Callable[[SplitCheck], str]] = {
    "images": lambda split: f"{split.images:,}",
    "images that cannot be used": lambda split: f"{split.damaged:,}",
    "classes": lambda split: f"{len(split.counts):,}",
    "fewest of a class": functools.partial(_of_a_class, min),
    "most of a class": functools.partial(_of_a_class, max),
    "smallest image": lambda split: _sides(split.smallest),
    "largest image": lambda split: _sides(split.largest),
    "kinds of pixels": _modes,
    "images a second": _rate,
}

"""Where the variants differ most from the baseline: the cells and the classes, and their tables."""

from collections.abc import Collection, Hashable, Mapping, Sequence
from typing import TypeVar

from pushpull_conv.corruptions.spec import SEVERITIES, spoken
from pushpull_conv.report.averages import Row
from pushpull_conv.report.scores import shared_corruptions
from pushpull_conv.report.tables import Entry, Table, read_as_best
from pushpull_conv.report.wording import percent, signed

Key = TypeVar("Key", bound=Hashable)
Cell = tuple[str, int]
"""A corruption's name and a severity."""
ClassErrors = Mapping[str, Mapping[str, float]]
"""By label the error on each class, as `scores.class_errors` gives it."""


def differing_cells(results: Sequence[Row], baseline: Row, most: int) -> list[Cell]:
    """Return the cells in which a variant's error is furthest from the baseline's, above or below, furthest first.

    Args:
        results: The results compared, the baseline's among them.
        baseline: The results of the baseline.
        most: How many cells to return at most. Cells in which all variants err alike are never returned.
    """
    cells = [(name, severity) for name in shared_corruptions(results) for severity in SEVERITIES]
    errors = {row.model: {cell: _error(row, cell) for cell in cells} for row in results}
    return _furthest(errors, baseline.model, most)


def differing_classes(errors: ClassErrors, baseline: str, most: int) -> list[str]:
    """Return the classes in which a variant's error is furthest from the baseline's, in the order of the classes.

    Args:
        errors: By label the error on each class.
        baseline: The baseline's label.
        most: How many classes to return at most; all where there are no more.
    """
    names = list(errors[baseline])
    if len(names) <= most:
        return names
    chosen = set(_furthest(errors, baseline, most))
    return [name for name in names if name in chosen]


def cells_table(results: Sequence[Row], baseline: Row, cells: Sequence[Cell]) -> Table:
    """Return one row per cell, one column per variant: the error, and its difference to the baseline's."""
    rows = []
    for cell in cells:
        errors, base = [_error(row, cell) for row in results], _error(baseline, cell)
        texts = [_beside(error, base, row.model == baseline.model) for row, error in zip(results, errors, strict=True)]
        marks = read_as_best([percent(error) for error in errors], errors)
        name, severity = cell
        entries = map(Entry, texts, errors, marks)
        rows.append((Entry(f"{spoken(name)} {severity}", f"{name} {severity}"), *entries))
    return Table(
        title="Where the variants differ most",
        caption=(
            f"The {len(cells)} pairs of corruption and severity in which a variant’s error is furthest from that of "
            f"{baseline.model}, above or below. Top-1 error in percent; in brackets the difference to {baseline.model} "
            "in percentage points. The lowest of each row is in bold."
        ),
        header=("Corruption and severity", *(result.model for result in results)),
        rows=tuple(rows),
    )


def class_table(errors: ClassErrors, baseline: str, names: Collection[str]) -> Table:
    """Return one row per named class: the baseline's error, and each variant's difference to it."""
    base = errors[baseline]
    others = [label for label in errors if label != baseline]
    rows = tuple(
        (
            Entry(name, name),
            Entry(f"{100 * base[name]:.2f}", base[name]),
            *(Entry(signed(points := 100 * (errors[label][name] - base[name])), points) for label in others),
        )
        for name in base
        if name in names
    )
    return Table(
        title="Difference by class",
        caption=(
            f"{baseline}: top-1 error in percent, averaged over the corruptions of the benchmark and their "
            "severities. The others: difference to it in percentage points; below zero a variant makes fewer errors."
        ),
        header=("Class", f"{baseline}, %", *(f"{label}, points" for label in others)),
        rows=rows,
    )


def _error(row: Row, cell: Cell) -> float:
    name, severity = cell
    return row.errors[name][SEVERITIES.index(severity)]


def _furthest(errors: Mapping[str, Mapping[Key, float]], baseline: str, most: int) -> list[Key]:
    """Return the keys under which an error is furthest from the baseline's, furthest first."""
    base = errors[baseline]
    gaps = {key: max(abs(own[key] - base[key]) for own in errors.values()) for key in base}
    return [key for key in sorted(gaps, key=gaps.__getitem__, reverse=True) if gaps[key] > 0][:most]


def _beside(error: float, base: float, alone: bool) -> str:
    return f"{100 * error:.2f}" if alone else f"{100 * error:.2f} ({signed(100 * (error - base))})"

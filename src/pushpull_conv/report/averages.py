"""Several trainings of one variant as one row of the comparison."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from pushpull_conv.benchmark import Cell, Header, Results, check_comparable
from pushpull_conv.errors import InputError
from pushpull_conv.repeats import variant_of


@dataclass(frozen=True)
class Average:
    """What the trainings of one variant score on average; reads like the `Results` of one training.

    Attributes:
        model: The variant.
        trainings: The results of each training, of the same images; at least two.
    """

    model: str
    trainings: tuple[Results, ...]

    @property
    def header(self) -> Header:
        """What the results were made with."""
        return self.trainings[0].header

    @property
    def clean_error(self) -> float:
        """Mean over the trainings of the top-1 error on the clean images, in [0, 1]."""
        return _error(result.clean for result in self.trainings)

    @cached_property
    def errors(self) -> Mapping[str, tuple[float, ...]]:
        """Mean over the trainings of the top-1 error, by corruption for each severity that every training was run on.

        A corruption whose severities differ between the trainings is left out.
        """
        first, *others = self.trainings
        return {
            name: tuple(_error(result.cells[name, severity] for result in self.trainings) for severity in severities)
            for name, severities in first.severities.items()
            if all(other.severities.get(name) == severities for other in others)
        }


def _error(cells: Iterable[Cell]) -> float:
    """The error of cells of the same images together: of the counts, so that equal counts give equal errors."""
    right, images = map(sum, zip(*((cell.top1, cell.n) for cell in cells), strict=True))
    return (images - right) / images


Row = Results | Average
"""One row of the comparison."""


def trainings_of(row: Row) -> tuple[Results, ...]:
    """Return the results that a row is the mean of."""
    return row.trainings if isinstance(row, Average) else (row,)


def averaged(results: Sequence[Results]) -> list[Row]:
    """Return one row per variant, in the order in which they first appear.

    Raises:
        InputError: Two results share a label, or they cannot be compared.
    """
    _require_own_labels([result.model for result in results])
    check_comparable(results)
    by_variant: dict[str, list[Results]] = {}
    for result in results:
        by_variant.setdefault(variant_of(result.model), []).append(result)
    rows: list[Row] = [
        trainings[0] if len(trainings) == 1 else Average(variant, tuple(trainings))
        for variant, trainings in by_variant.items()
    ]
    _require_own_labels([row.model for row in rows])
    return rows


def _require_own_labels(labels: Sequence[str]) -> None:
    if repeated := sorted({name for name in labels if labels.count(name) > 1}):
        raise InputError(
            f"two results are labelled {repeated[0]!r}; leave one out, or benchmark its model under another label "
            "(pushpull evaluate --label)"
        )

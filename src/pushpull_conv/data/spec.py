"""What a data set must look like, whatever the files it is read from."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from pushpull_conv.errors import InputError


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The fixed facts of a data set.

    Args:
        name: As `load_images` knows it.
        classes: The class names, in the order of the labels.
        size: Height and width of every image, in pixels.
    """

    name: str
    classes: tuple[str, ...]
    size: int

    def require_classes(self, found: Sequence[str], place: Path) -> None:
        """Raise `InputError` unless ``found``, the classes at ``place``, are this data set's, in its order."""
        if tuple(found) != self.classes:
            raise InputError(
                f"'{place}' has {len(found)} classes ({_shortened(found)}); "
                f"{self.name} has {len(self.classes)}: {_shortened(self.classes)}"
            )


def _shortened(names: Sequence[str]) -> str:
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")

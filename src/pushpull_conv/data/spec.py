"""What a data set must look like, whatever the files it is read from."""

import collections
import dataclasses
import importlib.resources
from collections.abc import Sequence
from pathlib import Path
from typing import TypeGuard

from pushpull_conv.errors import InputError

GREYSCALE = "-greyscale"
"""Ends the name of a data set whose images are turned to luminance."""
OTHER = -(2**63)
"""Stands for the label of a class that the data set leaves out: the least int64, which is no label in a file."""


@dataclasses.dataclass(frozen=True)
class DataSpec:
    """The fixed facts of a data set.

    Args:
        name: As `open_images` knows it.
        classes: The class names, in the order of the labels.
        size: Height and width of every image as it reaches a network, in pixels.
        resize: Length to which an image's shorter side is scaled before the centre is cut out, in pixels. None: images
            have their size already, and others are refused.
        within: The classes of the larger set that the files may be of; images of other classes than ``classes`` are
            left out. None: the files are of ``classes`` exactly.
        held_out: What the split ``"test"`` may be called in file and folder names, the preferred name first.
        greyscale: Images are turned to luminance, on three equal channels.
    """

    name: str
    classes: tuple[str, ...]
    size: int
    resize: int | None = None
    within: tuple[str, ...] | None = None
    held_out: tuple[str, ...] = ("val", "valid", "validation", "test")
    greyscale: bool = False

    def names_of(self, split: str) -> tuple[str, ...]:
        """What a split may be called in file and folder names, in the order in which they are looked for."""
        return ("train",) if split == "train" else self.held_out

    def require_classes(self, found: Sequence[str], place: Path) -> None:
        """Raise `InputError` unless ``found``, the classes at ``place``, are this data set's, in its order.

        Where the data set is part of a larger one, more classes of the larger one may be among them.
        """
        require_own_names(found, f"'{place}'")
        if tuple(found) == self.classes:
            return
        if self.within is None:
            raise InputError(
                f"'{place}' has {len(found)} classes ({shortened(found)}); "
                f"{self.name} has {len(self.classes)}: {shortened(self.classes)}"
            )
        if unknown := [name for name in found if name not in set(self.within)]:
            raise InputError(
                f"'{place}' has the classes {shortened(unknown)}, which are not of {self.name}; remove them"
            )
        if missing := [name for name in self.classes if name not in set(found)]:
            raise InputError(f"'{place}' lacks the classes {shortened(missing)} of {self.name}; copy all of them")

    def require_whole(self, without: str, remedy: str) -> None:
        """Raise `InputError` where the data set is part of a larger one, and labels could be meant for either.

        Args:
            without: Says of the files that they do not name their classes.
            remedy: Says what to do.
        """
        if self.within is not None:
            raise InputError(
                f"{without}, so nothing says whether the labels are those of {self.name} or of a larger set; {remedy}"
            )

    def labels_of(self, found: Sequence[str]) -> tuple[int, ...]:
        """The label of each class in ``found``; `OTHER` for those of the larger set only."""
        places = {name: label for label, name in enumerate(self.classes)}
        return tuple(places.get(name, OTHER) for name in found)


def is_label(value: object) -> TypeGuard[int]:
    """Whether a value in a file can be a label: an integer that int64 holds and that is not `OTHER`.

    Example:
        >>> is_label(3), is_label("3"), is_label(2**63)
        (True, False, False)
    """
    return isinstance(value, int) and OTHER < value < 2**63


def colour_name(name: str) -> str:
    """The name of the data set that a set is of, greyscale or not.

    Example:
        >>> colour_name("cifar10-greyscale"), colour_name("cifar10")
        ('cifar10', 'cifar10')
    """
    return name.removesuffix(GREYSCALE)


def greyscale_name(name: str) -> str:
    """The name of a data set, greyscale or not, when it is turned to luminance."""
    return colour_name(name) + GREYSCALE


def is_greyscale(name: str) -> bool:
    """Whether a data set of this name is turned to luminance."""
    return name.endswith(GREYSCALE)


def class_list(name: str) -> tuple[str, ...]:
    """The synset ids of ``imagenet``, ``imagenet-100`` or ``imagenet-200``, in the order of the labels.

    Example:
        >>> len(class_list("imagenet")), class_list("imagenet-100")[:2]
        (1000, ('n01514668', 'n01537544'))
    """
    text = (importlib.resources.files("pushpull_conv.data") / "classes" / f"{name}.txt").read_text(encoding="utf-8")
    return tuple(line for line in text.splitlines() if not line.startswith("#"))


def require_own_names(classes: Sequence[str], owner: str) -> None:
    """Raise `InputError` where two classes of ``owner`` have one name, and so would become one class."""
    if repeated := [name for name, count in collections.Counter(classes).items() if count > 1]:
        raise InputError(f"{owner} has two classes called '{repeated[0]}'; give each class a name of its own")


def shortened(names: Sequence[str]) -> str:
    """The first names of a list, for a sentence."""
    return ", ".join(names[:12]) + (", ..." if len(names) > 12 else "")

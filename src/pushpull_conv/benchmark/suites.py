"""The benchmarks that can be run by name."""

import dataclasses

from pushpull_conv.data import ImageSource
from pushpull_conv.data.spec import colour_name
from pushpull_conv.errors import InputError, require_name


@dataclasses.dataclass(frozen=True)
class Suite:
    """How a benchmark makes its images.

    Args:
        name: As `evaluate` knows it and results record it.
        profile: The severity tables of `pushpull_conv.corruptions`.
        side: Height and width of the images, in pixels.
        layout: How its set lies on the disk, see `pushpull_conv.data.open_published`.
        jpeg_quality: The corrupted images are stored as JPEG of this quality, with chroma at half the size; None: as
            they are.
        data_sets: The data sets whose benchmark it is if none is named.
        revision: Raised when the images of the same seed change, so that results from before and after never mix.
    """

    name: str
    profile: str
    side: int
    layout: str
    jpeg_quality: int | None
    data_sets: tuple[str, ...]
    revision: int

    def quality(self, *, jpeg: bool) -> int | None:
        """The quality of the JPEG step, None without one; `InputError` if there is none to leave out."""
        if jpeg:
            return self.jpeg_quality
        if self.jpeg_quality is None:
            raise InputError(f"suite '{self.name}' has no JPEG step to leave out; set jpeg back to true")
        return None

    def require_size(self, source: ImageSource) -> None:
        """Raise `InputError` unless the images have the size that the suite is for."""
        if source.size != (self.side, self.side):
            sides = ", ".join(f"{suite.side} x {suite.side} ({suite.name})" for suite in SUITES.values())
            raise InputError(
                f"suite '{self.name}' is for images of {self.side} x {self.side} pixels, those of {source.name} have "
                f"{source.size[0]} x {source.size[1]}; suites for these: "
                f"{', '.join(_of_size(source)) or f'none; resize them to {sides}'}"
            )


SUITES = {
    suite.name: suite
    for suite in (
        Suite("cifar10-c", "cifar", 32, "arrays", None, data_sets=("cifar10", "digits"), revision=1),
        Suite("tiny-imagenet-c", "tiny-imagenet", 64, "folders", 85, data_sets=("tiny-imagenet",), revision=1),
        Suite(
            "imagenet-c",
            "imagenet",
            224,
            "folders",
            85,
            data_sets=("imagenet", "imagenet-100", "imagenet-200", "folder"),
            revision=1,
        ),
    )
}
"""Suite by name, each by the protocol of the published set of that name. ``cifar10-c``: 32 x 32 pixels, kept as they
are. ``tiny-imagenet-c``: 64 x 64, stored as JPEG. ``imagenet-c``: the central 224 x 224 of photographs whose shorter
side was scaled to 256, stored as JPEG and not scaled again."""


def suite_of(source: ImageSource, name: str | None) -> Suite:
    """Return the suite ``name``; None: the data set's own, or for an unknown data set the one for images of its size.

    Raises:
        InputError: There is no such suite, or it is for images of another size.

    Example:
        >>> from pushpull_conv.data import load_images
        >>> suite_of(load_images("digits", "test"), None).name
        'cifar10-c'
    """
    of_name = [suite.name for suite in SUITES.values() if colour_name(source.name) in suite.data_sets]
    own = (of_name or _of_size(source) or list(SUITES))[0]
    suite = SUITES[require_name("suite", own if name is None else name, SUITES)]
    suite.require_size(source)
    return suite


def _of_size(source: ImageSource) -> list[str]:
    """The suites for images of the source's size."""
    return [suite.name for suite in SUITES.values() if source.size == (suite.side, suite.side)]

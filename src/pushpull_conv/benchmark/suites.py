"""The benchmarks that can be run by name."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Suite:
    """How a benchmark makes its images.

    Args:
        name: As `evaluate` knows it and results record it.
        profile: The severity tables of `pushpull_conv.corruptions`.
        revision: Raised when the images of the same seed change, so that results from before and after never mix.
    """

    name: str
    profile: str
    revision: int


SUITES = {suite.name: suite for suite in (Suite(name="cifar10-c", profile="cifar", revision=1),)}
"""Suite by name. ``cifar10-c``: images of 32 x 32 pixels, stored as uint8, as CIFAR-10-C was made."""

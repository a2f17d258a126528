"""What the benchmark fixes: the names, their order, their groups, and the constants of every severity.

Three sets of constants exist, one for each side the authors published: ``cifar`` (32 pixels), ``tiny-imagenet`` (64)
and ``imagenet`` (224). A profile is chosen by name and never guessed from the size of the images.

Source: Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to Common Corruptions and Perturbations",
ICLR 2019, arXiv 1903.12261, and the constants of its published generators.
"""

from collections.abc import Collection, Mapping
from types import MappingProxyType

from pushpull_conv.errors import InputError, is_integer

Parameters = tuple[float, ...]
Table = tuple[Parameters, Parameters, Parameters, Parameters, Parameters]

SEVERITIES = (1, 2, 3, 4, 5)
PROFILES = ("cifar", "tiny-imagenet", "imagenet")

GROUPS: Mapping[str, tuple[str, ...]] = MappingProxyType(
    {
        "noise": ("gaussian_noise", "shot_noise", "impulse_noise"),
        "blur": ("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
        "weather": ("snow", "frost", "fog", "brightness"),
        "digital": ("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
        "extra": ("speckle_noise", "gaussian_blur", "spatter", "saturate"),
    }
)
CORRUPTIONS = tuple(name for group in ("noise", "blur", "weather", "digital") for name in GROUPS[group])
EXTRA_CORRUPTIONS = GROUPS["extra"]
NAMES = CORRUPTIONS + EXTRA_CORRUPTIONS


def by_group(names: Collection[str]) -> dict[str, tuple[str, ...]]:
    """Sort corruptions into their groups, all in benchmark order; groups without any are left out.

    Example:
        >>> by_group(["fog", "gaussian_noise", "frost"])
        {'noise': ('gaussian_noise',), 'weather': ('frost', 'fog')}
    """
    groups = {group: tuple(name for name in members if name in names) for group, members in GROUPS.items()}
    return {group: members for group, members in groups.items() if members}


def spoken(name: str) -> str:
    """Return a corruption's name as a reader says it.

    Example:
        >>> spoken("gaussian_noise"), spoken("jpeg_compression")
        ('gaussian noise', 'JPEG compression')
    """
    return name.replace("_", " ").replace("jpeg", "JPEG")


def require_severity(severity: int) -> int:
    """Return ``severity``, an integer of Python or NumPy, as Python's if it is one, else raise `InputError`.

    Example:
        >>> require_severity(6)
        Traceback (most recent call last):
            ...
        pushpull_conv.errors.InputError: severity is 6; allowed are the integers 1, 2, 3, 4 and 5
    """
    if not is_integer(severity) or severity not in SEVERITIES:
        raise InputError(f"severity is {severity!r}; allowed are the integers 1, 2, 3, 4 and 5")
    return int(severity)


def _scalars(*values: float) -> Table:
    one, two, three, four, five = ((value,) for value in values)
    return one, two, three, four, five


def _zooms(*lists: tuple[float, int]) -> Table:
    """Zoom factors from (step, count), with the rounding that numpy's ``arange(1, stop, step)`` gives them."""
    one, two, three, four, five = (
        tuple(1.0 + number * ((1.0 + step) - 1.0) for number in range(count)) for step, count in lists
    )
    return one, two, three, four, five


_FROST = {
    "cifar": (0.2, ((1, 0.2), (1, 0.3), (0.9, 0.4), (0.85, 0.4), (0.75, 0.45))),
    "tiny-imagenet": (0.3, ((1, 0.3), (0.9, 0.4), (0.8, 0.45), (0.75, 0.5), (0.7, 0.55))),
    "imagenet": (1.0, ((1, 0.4), (0.8, 0.6), (0.7, 0.7), (0.65, 0.7), (0.6, 0.75))),
}


def _frost(profile: str) -> Table:
    scale, weights = _FROST[profile]
    one, two, three, four, five = ((image, photo, scale) for image, photo in weights)
    return one, two, three, four, five


_SMALL_ZOOMS = _zooms((0.01, 7), (0.01, 12), (0.01, 16), (0.01, 21), (0.01, 26))

# Corruption -> one table per profile, in the order of PROFILES. A table has one tuple per severity, named in its
# comment.
_TABLES: dict[str, tuple[Table, Table, Table]] = {
    # (standard deviation)
    "gaussian_noise": (
        _scalars(0.04, 0.06, 0.08, 0.09, 0.10),
        _scalars(0.04, 0.08, 0.12, 0.15, 0.18),
        _scalars(0.08, 0.12, 0.18, 0.26, 0.38),
    ),
    # (photons at full white)
    "shot_noise": (
        _scalars(500, 250, 100, 75, 50),
        _scalars(250, 100, 50, 30, 15),
        _scalars(60, 25, 12, 5, 3),
    ),
    # (fraction of values replaced)
    "impulse_noise": (
        _scalars(0.01, 0.02, 0.03, 0.05, 0.07),
        _scalars(0.01, 0.02, 0.05, 0.08, 0.14),
        _scalars(0.03, 0.06, 0.09, 0.17, 0.27),
    ),
    # (disk radius, sigma of its anti-aliasing)
    "defocus_blur": (
        ((0.3, 0.4), (0.4, 0.5), (0.5, 0.6), (1, 0.2), (1.5, 0.1)),
        ((0.5, 0.6), (1, 0.1), (1.5, 0.1), (2.5, 0.01), (3, 0.1)),
        ((3, 0.1), (4, 0.5), (6, 0.5), (8, 0.5), (10, 0.5)),
    ),
    # (sigma, largest displacement, passes)
    "glass_blur": (
        ((0.05, 1, 1), (0.25, 1, 1), (0.4, 1, 1), (0.25, 1, 2), (0.4, 1, 2)),
        ((0.1, 1, 1), (0.5, 1, 1), (0.6, 1, 2), (0.7, 2, 1), (0.9, 2, 2)),
        ((0.7, 1, 2), (0.9, 2, 1), (1, 2, 3), (1.1, 3, 2), (1.5, 4, 2)),
    ),
    # (radius, sigma)
    "motion_blur": (
        ((6, 1), (6, 1.5), (6, 2), (8, 2), (9, 2.5)),
        ((10, 1), (10, 1.5), (10, 2), (10, 2.5), (12, 3)),
        ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
    ),
    # (every zoom factor of the mean)
    "zoom_blur": (
        _SMALL_ZOOMS,
        _SMALL_ZOOMS,
        _zooms((0.01, 12), (0.01, 16), (0.02, 11), (0.02, 13), (0.03, 11)),
    ),
    # (mean, standard deviation, zoom, threshold, streak radius, streak sigma, weight of the unwhitened image)
    "snow": (
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.95),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.9),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.9),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.85),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.8),
        ),
        (
            (0.1, 0.2, 1, 0.6, 8, 3, 0.8),
            (0.1, 0.2, 1, 0.5, 10, 4, 0.8),
            (0.15, 0.3, 1.75, 0.55, 10, 4, 0.7),
            (0.25, 0.3, 2.25, 0.6, 12, 6, 0.65),
            (0.3, 0.3, 1.25, 0.65, 14, 12, 0.6),
        ),
        (
            (0.1, 0.3, 3, 0.5, 10, 4, 0.8),
            (0.2, 0.3, 2, 0.5, 12, 4, 0.7),
            (0.55, 0.3, 4, 0.9, 12, 8, 0.7),
            (0.55, 0.3, 4.5, 0.85, 12, 8, 0.65),
            (0.55, 0.3, 2.5, 0.85, 12, 12, 0.55),
        ),
    ),
    # (weight of the image, weight of the frost, scale of the photographs)
    "frost": (_frost("cifar"), _frost("tiny-imagenet"), _frost("imagenet")),
    # (strength, decay per octave)
    "fog": (
        ((0.2, 3), (0.5, 3), (0.75, 2.5), (1, 2), (1.5, 1.75)),
        ((0.4, 3), (0.7, 3), (1, 2.5), (1.5, 2), (2, 1.75)),
        ((1.5, 2), (2, 2), (2.5, 1.7), (2.5, 1.5), (3, 1.4)),
    ),
    # (added to the HSV value)
    "brightness": (
        _scalars(0.05, 0.1, 0.15, 0.2, 0.3),
        _scalars(0.1, 0.2, 0.3, 0.4, 0.5),
        _scalars(0.1, 0.2, 0.3, 0.4, 0.5),
    ),
    # (contrast kept)
    "contrast": (
        _scalars(0.75, 0.5, 0.4, 0.3, 0.15),
        _scalars(0.4, 0.3, 0.2, 0.1, 0.05),
        _scalars(0.4, 0.3, 0.2, 0.1, 0.05),
    ),
    # (amplitude, smoothing sigma, affine jitter, all in units of a length; that length over the side of the image)
    "elastic_transform": (
        ((0, 0, 0.08, 1), (0.05, 0.2, 0.07, 1), (0.08, 0.06, 0.06, 1), (0.1, 0.04, 0.05, 1), (0.1, 0.03, 0.03, 1)),
        ((0, 0, 0.08, 1), (0.05, 0.3, 0.06, 1), (0.1, 0.08, 0.06, 1), (0.1, 0.03, 0.03, 1), (0.16, 0.03, 0.02, 1)),
        (  # the published generator measures 224-pixel images by a length of 244, a slip that belongs to the benchmark
            (2, 0.7, 0.1, 244 / 224),
            (2, 0.08, 0.2, 244 / 224),
            (0.05, 0.01, 0.02, 244 / 224),
            (0.07, 0.01, 0.02, 244 / 224),
            (0.12, 0.01, 0.02, 244 / 224),
        ),
    ),
    # (fraction of the side kept)
    "pixelate": (
        _scalars(0.95, 0.9, 0.85, 0.75, 0.65),
        _scalars(0.9, 0.8, 0.7, 0.6, 0.5),
        _scalars(0.6, 0.5, 0.4, 0.3, 0.25),
    ),
    # (JPEG quality)
    "jpeg_compression": (
        _scalars(80, 65, 58, 50, 40),
        _scalars(65, 58, 50, 40, 25),
        _scalars(25, 18, 15, 10, 7),
    ),
    # (standard deviation relative to the value)
    "speckle_noise": (
        _scalars(0.06, 0.10, 0.12, 0.16, 0.20),
        _scalars(0.15, 0.20, 0.25, 0.30, 0.35),
        _scalars(0.15, 0.20, 0.35, 0.45, 0.60),
    ),
    # (sigma)
    "gaussian_blur": (
        _scalars(0.4, 0.6, 0.7, 0.8, 1),
        _scalars(0.5, 0.75, 1, 1.25, 1.5),
        _scalars(1, 2, 3, 4, 6),
    ),
    # (mean, standard deviation, sigma, threshold, strength of the water or sigma of the mud, 0 for water and 1 for mud)
    "spatter": (
        (
            (0.62, 0.1, 0.7, 0.7, 0.5, 0),
            (0.65, 0.1, 0.8, 0.7, 0.5, 0),
            (0.65, 0.3, 1, 0.69, 0.5, 0),
            (0.65, 0.1, 0.7, 0.69, 0.6, 1),
            (0.65, 0.1, 0.5, 0.68, 0.6, 1),
        ),
        (
            (0.62, 0.1, 0.7, 0.7, 0.6, 0),
            (0.65, 0.1, 0.8, 0.7, 0.6, 0),
            (0.65, 0.3, 1, 0.69, 0.6, 0),
            (0.65, 0.1, 0.7, 0.68, 0.6, 1),
            (0.65, 0.1, 0.5, 0.67, 0.6, 1),
        ),
        (
            (0.65, 0.3, 4, 0.69, 0.6, 0),
            (0.65, 0.3, 3, 0.68, 0.6, 0),
            (0.65, 0.3, 2, 0.68, 0.5, 0),
            (0.65, 0.3, 1, 0.65, 1.5, 1),
            (0.67, 0.4, 1, 0.65, 1.5, 1),
        ),
    ),
    # (factor on the HSV saturation, added to it)
    "saturate": (
        ((0.3, 0), (0.1, 0), (1.5, 0), (2, 0.1), (2.5, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (30, 0.2)),
        ((0.3, 0), (0.1, 0), (2, 0), (5, 0.1), (20, 0.2)),
    ),
}


def parameters(name: str, profile: str, severity: int) -> Parameters:
    """Return the constants of one corruption at one severity.

    Example:
        >>> parameters("frost", "cifar", 3)
        (0.9, 0.4, 0.2)
    """
    return _TABLES[name][PROFILES.index(profile)][severity - 1]

"""The names of a variant's repeated trainings, which differ in nothing but the seed, and how a name is broken."""

import re

SEEDS = 2**32
"""Seeds of trainings are below: NumPy takes no larger ones."""


def repeat_name(variant: str, seed: int) -> str:
    """Return what the training of a variant with another seed than the recipe's is called.

    Example:
        >>> repeat_name("PP3", 1235)
        'PP3@1235'
    """
    return f"{variant}@{seed}"


def variant_of(name: str) -> str:
    """Return the variant that a training belongs to; a name without ``@SEED`` is returned unchanged.

    Example:
        >>> variant_of("PP3@1235"), variant_of("PP3"), variant_of("me@home")
        ('PP3', 'PP3', 'me@home')
    """
    return re.sub(r"(?<=.)@\d+$", "", name)


def repeat_teacher(teacher: str, seed: int) -> str:
    """Return whom a student with another seed learns from: the teacher of that seed, or one that is named with its own.

    Example:
        >>> repeat_teacher("baseline", 1235), repeat_teacher("baseline@1236", 1235)
        ('baseline@1235', 'baseline@1236')
    """
    return repeat_name(teacher, seed) if variant_of(teacher) == teacher else teacher


def further_seeds(seed: int, repeats: int) -> range:
    """Return the seeds of all trainings but the first.

    Example:
        >>> list(further_seeds(1234, repeats=3))
        [1235, 1236]
    """
    return range(seed + 1, seed + repeats)


def broken_name(name: str, room: int) -> str:
    r"""Break a variant's or training's name into lines after its signs; one part may be longer than ``room``.

    Example:
        >>> broken_name("PP5-trainable-BlurredConv", 15)
        'PP5-trainable-\nBlurredConv'
    """
    lines = [""]
    for part in re.findall(r"[^-+@]*[-+@]|[^-+@]+", name):
        if lines[-1] and len(lines[-1] + part) > room:
            lines.append("")
        lines[-1] += part
    return "\n".join(lines)

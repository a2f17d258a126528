"""The one error a caller's input can raise and the one warning, their sentences, and what counts as a number."""

import difflib
import importlib
import math
from collections.abc import Iterable
from numbers import Integral
from types import ModuleType
from typing import TypeVar

Name = TypeVar("Name", bound=str)


class InputError(ValueError):
    """What the caller gave cannot be used.

    The message is one line: it names the argument, shows the value, lists what is allowed and says what to do.
    The command line prints it and exits with code 2.
    """


class InputWarning(UserWarning):
    """What the caller gave is used, but perhaps not as it was meant. The message is one line, and says what to do."""


def require_name(kind: str, value: str, allowed: Iterable[Name]) -> Name:
    """Return ``value`` if it is one of ``allowed``, else raise with the nearest valid name.

    Args:
        kind: What the name stands for, as the user knows it (``"corruption"``, ``"variant"``).
        value: What the user wrote.
        allowed: The valid names.

    Returns:
        The entry of ``allowed`` that equals ``value``.

    Raises:
        InputError: ``value`` is not in ``allowed``.

    Example:
        >>> require_name("corruption", "fog", ["fog", "frost"])
        'fog'
        >>> require_name("corruption", "fogg", ["fog", "frost"])
        Traceback (most recent call last):
            ...
        pushpull_conv.errors.InputError: unknown corruption 'fogg'; did you mean 'fog'? Allowed: fog, frost
    """
    names = list(allowed)
    for name in names:
        if name == value:
            return name
    by_lower_case = {name.lower(): name for name in names}
    near = difflib.get_close_matches(str(value).lower(), by_lower_case, n=1, cutoff=0.5)
    hint = f"; did you mean '{by_lower_case[near[0]]}'?" if near else "."
    raise InputError(f"unknown {kind} {value!r}{hint} Allowed: {', '.join(names)}")


def require_positive(argument: str, value: int) -> None:
    """Raise `InputError` unless a number of things is an integer, of Python or NumPy, of 1 or more.

    Example:
        >>> require_positive("workers", 0)
        Traceback (most recent call last):
            ...
        pushpull_conv.errors.InputError: workers must be 1 or more, not 0
    """
    if not is_integer(value):
        raise InputError(f"{argument} must be an integer of 1 or more, not {value!r}")
    if value < 1:
        raise InputError(f"{argument} must be 1 or more, not {value}")


def require_seed(seed: int, argument: str = "seed") -> int:
    """Return ``seed``, an integer of Python or NumPy, as Python's if it can be a key: no other gives the same draws.

    Example:
        >>> require_seed(-1)
        Traceback (most recent call last):
            ...
        pushpull_conv.errors.InputError: seed is -1; allowed: 0 to 18446744073709551615
    """
    if not is_integer(seed) or not 0 <= int(seed) < 2**64:
        raise InputError(f"{argument} is {seed!r}; allowed: 0 to {2**64 - 1}")
    return int(seed)


def is_integer(value: object) -> bool:
    """Tell whether ``value`` is an integer of Python or NumPy, and no truth value.

    Example:
        >>> is_integer(3), is_integer(3.0), is_integer(True)
        (True, False, False)
    """
    return isinstance(value, Integral) and not isinstance(value, bool)


def is_finite(value: float) -> bool:
    """Tell whether ``value`` is a finite number, of whatever type stands for one.

    Example:
        >>> is_finite(0.5), is_finite(float("nan")), is_finite("0.5")
        (True, False, False)
    """
    try:
        return math.isfinite(value)
    except (TypeError, OverflowError):
        return False


def require_module(module: str, extra: str) -> ModuleType:
    """Import an optional dependency, or say which extra of this package brings it.

    Example:
        >>> require_module("json", "train").__name__
        'json'
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        if error.name != module.split(".")[0]:
            raise
        raise InputError(f"{error.name} is not installed; run: pip install 'pushpull-conv[{extra}]'") from error

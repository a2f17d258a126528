"""How many processor cores there are to share out."""

import os


def usable_cores() -> int:
    """Return how many cores this process may use: in a job of a cluster those that it was given, not all of the node's.

    Example:
        >>> 1 <= usable_cores() <= os.cpu_count()
        True
    """
    if hasattr(os, "sched_getaffinity"):  # not on macOS and Windows
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

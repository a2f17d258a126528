"""What the names of shards tell of those that are missing, without which the others would look whole."""

import itertools
import re
from collections.abc import Sequence
from pathlib import Path

from pushpull_conv.errors import InputError

_OF = re.compile(r"-of-(\d+)(-[0-9a-f]+)?$")
"""Ends the name of a shard that tells how many there are; the hub's older names add a hash."""


def require_stated_number(shards: Sequence[Path]) -> None:
    """Raise `InputError` unless there are as many shards as their names tell: ``train-00000-of-00003``, ..."""
    for shard in shards:
        stated = _OF.search(shard.stem)
        if stated and int(stated[1]) != len(shards):
            raise InputError(
                f"'{shard}' is one of {int(stated[1])} shards but {len(shards)} are there; copy all of them"
            )


def require_no_gap(shards: Sequence[Path]) -> None:
    """Raise `InputError` unless shards that are only numbered, ``train-0000``, ..., begin at 0 or 1 and leave none out.

    Whether the last one is there cannot be known.
    """
    plain = [shard for shard in shards if not _OF.search(shard.stem)]
    numbers = {int(digits[0]): shard for shard in plain if (digits := re.search(r"\d+$", shard.stem))}
    gaps = [(before, after - before - 1) for before, after in itertools.pairwise(sorted(numbers)) if after > before + 1]
    if gaps:
        after, missing = numbers[gaps[0][0]], sum(length for _, length in gaps)
        raise InputError(f"the shard after '{after}' is missing, and {missing} in all; copy all of them")
    if numbers and min(numbers) > 1:
        raise InputError(
            f"the shards before '{numbers[min(numbers)]}' are missing, as numbers begin at 0 or 1; copy all of them, "
            "or rename it if there are none"
        )

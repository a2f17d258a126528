"""What the names of shards tell of those that are missing."""

from pathlib import Path

import pytest

from pushpull_conv.data.shards import require_no_gap, require_stated_number
from pushpull_conv.errors import InputError


def named(*stems: str) -> list[Path]:
    return [Path(f"{stem}.tar") for stem in stems]


@pytest.mark.parametrize(
    "stems",
    [
        ("train-0", "train-1"),
        ("train-1", "train-10", *(f"train-{number}" for number in range(2, 10))),
        ("train-ants", "train-bees"),
        ("train-00000-of-00002", "train-00001-of-00002"),
        ("train-00000-of-00001-1359597a978bc465",),
    ],
)
def test_shards_of_which_none_is_missing_are_accepted(stems):
    require_stated_number(named(*stems))
    require_no_gap(named(*stems))


@pytest.mark.parametrize("name", ["train-{:05}-of-00003", "{:05}-of-00003", "train-{:05}-of-00003-1359597a978bc465"])
@pytest.mark.parametrize("numbers", [(0, 1), (0, 2), (1, 2), (2,)])
def test_fewer_shards_than_their_names_count_are_refused(name, numbers):
    shards = named(*map(name.format, numbers))
    require_no_gap(shards)
    with pytest.raises(InputError, match=f"{shards[0]}' is one of 3 shards but {len(shards)} are there; copy all"):
        require_stated_number(shards)


@pytest.mark.parametrize(
    ("stems", "message"),
    [
        (("train-0", "train-2", "train-5"), "the shard after 'train-0.tar' is missing, and 3 in all; copy all of them"),
        (("train-2", "train-3"), "the shards before 'train-2.tar' are missing, as numbers begin at 0 or 1; copy all"),
        (("train-7",), "the shards before 'train-7.tar' are missing"),
    ],
)
def test_numbers_that_are_left_out_are_refused(stems, message):
    with pytest.raises(InputError, match=message):
        require_no_gap(named(*stems))

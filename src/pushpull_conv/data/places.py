"""Which images of a set, in which order: places, drawn as pure functions of a seed."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from pushpull_conv.errors import InputError

WINDOW = 2048
"""Images that are shuffled together where blocks of them are read as a whole, at least."""
_BLOCKS = 4
"""Blocks that are shuffled together, at least."""


def epoch_order(count: int, blocks: Sequence[range] | None, *, seed: int, epoch: int) -> np.ndarray:
    """The order in which an epoch uses the images of a set: a pure function of ``(seed, epoch)``.

    Without blocks every order is as likely. With blocks they are shuffled first; then the images of each window of
    `blocks_in_window` of them, so that a reader that keeps as many blocks reads each once. The images of a block that
    are all of one class are therefore used within one window: sets in blocks should be stored shuffled.

    Args:
        count: The number of images.
        blocks: Runs of places that are cheap to read together, which cover every place once; None: there are none.
        seed: Together with the epoch, the key of the order.
        epoch: Counted from 0.

    Returns:
        int64 ``[count]``, every place once.

    Example:
        >>> epoch_order(6, None, seed=1, epoch=0).tolist()
        [4, 0, 2, 1, 5, 3]
        >>> sorted(epoch_order(6, [range(0, 4), range(4, 6)], seed=1, epoch=0).tolist())
        [0, 1, 2, 3, 4, 5]
    """
    random = np.random.default_rng([seed, epoch])
    if blocks is None:
        return random.permutation(count)
    shuffled, width = random.permutation(len(blocks)), blocks_in_window(blocks)
    windows = [shuffled[start : start + width] for start in range(0, len(blocks), width)]
    return np.concatenate([random.permutation(_places_of(blocks, window)) for window in windows])


def blocks_in_window(blocks: Sequence[range]) -> int:
    """How many blocks `epoch_order` shuffles together: at least 4, and so many as hold about `WINDOW` images.

    Example:
        >>> blocks_in_window([range(0, 100), range(100, 200)]), blocks_in_window([range(5000)])
        (21, 4)
    """
    images = sum(map(len, blocks))
    return max(_BLOCKS, -(-WINDOW * len(blocks) // images))


def _places_of(blocks: Sequence[range], chosen: np.ndarray) -> np.ndarray:
    return np.concatenate([np.arange(blocks[block].start, blocks[block].stop) for block in chosen])


def stratified(labels: Tensor, fraction: float, seed: int) -> Tensor:
    """The places of a fraction of each class, in order; a pure function of its arguments.

    Every class that is there keeps at least one image. What a smaller fraction chooses is among what a larger one
    chooses with the same seed.

    Args:
        labels: int64 ``[N]``.
        fraction: How much of each class, in (0, 1]; rounded to whole images.
        seed: The key of the choice.

    Returns:
        int64 ``[M]``, ascending.

    Raises:
        InputError: ``fraction`` is outside (0, 1].

    Example:
        >>> stratified(torch.tensor([0, 0, 0, 0, 1, 1, 2]), 0.5, seed=1).tolist()
        [0, 1, 4, 6]
    """
    if not 0 < fraction <= 1:
        raise InputError(f"fraction must be above 0 and at most 1, not {fraction}; 1 is the whole set")
    order = np.argsort(labels.cpu().numpy(), kind="stable")
    classes, counts = np.unique(labels.cpu().numpy(), return_counts=True)
    kept = [
        np.random.default_rng([seed, label]).permutation(places)[: max(1, round(fraction * len(places)))]
        for label, places in zip(classes.tolist(), np.split(order, np.cumsum(counts)[:-1]), strict=True)
    ]
    return torch.from_numpy(np.sort(np.concatenate(kept)))

"""Pixelation: in tensor arithmetic on any device, or by Pillow where that is faster, bit for bit."""

from functools import lru_cache

import torch
from PIL import Image
from torch import Tensor

from pushpull_conv.corruptions import operators
from pushpull_conv.corruptions.kernel import usual_part
from pushpull_conv.corruptions.pillow import map_pictures

_LARGE = 64 * 64  # pixels from which Pillow is faster


def pixelate(images: Tensor, kept: float) -> Tensor:
    """Shrink with a box filter, the width first, and enlarge by repetition, as Pillow does.

    Args:
        images: uint8 ``[B, 3, H, W]``.
        kept: Each side over what it becomes in between.

    Returns:
        uint8 ``[B, 3, H, W]``.

    Example:
        >>> pixelate(torch.tensor([[[[0, 2, 8, 4]] * 4] * 3], dtype=torch.uint8), 0.5)[0, 0, 0]
        tensor([1, 1, 6, 6], dtype=torch.uint8)
    """
    return _by_pillow(images, kept) if _uses_pillow(images) else by_arithmetic(images, kept)


def pixelate_part(images: Tensor) -> int:
    """How many images `pixelate` is best given at a time: all where Pillow takes them one by one."""
    return len(images) if _uses_pillow(images) else usual_part(images)


def _uses_pillow(images: Tensor) -> bool:
    return images.is_cpu and images[:1, :1].numel() >= _LARGE


def _by_pillow(images: Tensor, kept: float) -> Tensor:
    height, width = images.shape[2:]
    rows, columns = int(height * kept), int(width * kept)

    def shrink(picture: Image.Image) -> Image.Image:
        # In two calls, because in one Pillow shrinks the height first where that is much larger.
        narrow = picture.resize((columns, height), Image.Resampling.BOX)
        return narrow.resize((columns, rows), Image.Resampling.BOX)

    small = map_pictures(images, shrink).numpy()  # NumPy repeats bytes faster than PyTorch and Pillow
    wide = small.take(_box_repeat(columns, width, images.device).numpy(), axis=3)
    return torch.from_numpy(wide.take(_box_repeat(rows, height, images.device).numpy(), axis=2))


def by_arithmetic(images: Tensor, kept: float) -> Tensor:
    """Compute `pixelate` on the device of the images."""
    height, width = images.shape[2:]
    rows, columns = int(height * kept), int(width * kept)
    narrow = _round(_box_average(width, columns, images.device).along_rows(images.to(torch.float64)))
    small = _round(_box_average(height, rows, images.device).along_columns(narrow)).to(torch.uint8)
    small = small.index_select(3, _box_repeat(columns, width, images.device))
    return small.index_select(2, _box_repeat(rows, height, images.device))


@lru_cache(maxsize=64)
def _box_average(size: int, target: int, device: torch.device) -> operators.LineMap:
    """Averages of a line in ``target`` boxes, in units of 2^-22.

    A sample belongs to a box whole or not at all: if its middle lies in the box, the upper end included.
    """
    scale = size / target
    middle = (torch.arange(target, dtype=torch.float64)[:, None] + 0.5) * scale
    samples = torch.arange(size)
    # Two tests that agree but for rounding, where Pillow makes both.
    near = (samples >= (middle - scale / 2 + 0.5).floor()) & (samples < (middle + scale / 2 + 0.5).floor())
    offset = (samples - middle + 0.5) * (1 / scale)
    inside = near & (offset > -0.5) & (offset <= 0.5)
    weights = inside.to(torch.float64) / inside.sum(1, keepdim=True)
    return operators.LineMap.of((weights * 2**22).round_(), device)


@lru_cache(maxsize=64)
def _box_repeat(size: int, target: int, device: torch.device) -> Tensor:
    """Which of ``size`` samples each of ``target`` samples repeats: int64 ``[target]``."""
    middle = (torch.arange(target, dtype=torch.float64) + 0.5) * (size / target)
    return middle.to(torch.int64).to(device)


def _round(sums: Tensor) -> Tensor:
    """Whole grey levels from units of 2^-22, halves up."""
    return sums.add_(2**21).mul_(2.0**-22).floor_()

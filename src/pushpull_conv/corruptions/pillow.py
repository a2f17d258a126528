"""Steps by Pillow, whose C code is faster on a CPU than tensor arithmetic."""

from collections.abc import Callable

import torch
from PIL import Image
from torch import Tensor


def map_pictures(images: Tensor, change: Callable[[Image.Image], Image.Image]) -> Tensor:
    """Change each image as a picture; its planes are handed over as they lie, which is faster than pixel by pixel.

    Args:
        images: uint8 ``[B, 3, H, W]`` on the CPU.
        change: From an RGB picture to another, of a size that all images share.

    Returns:
        uint8 ``[B, 3, H', W']``, contiguous.

    Example:
        >>> images = torch.tensor([[[[1, 2]], [[3, 4]], [[5, 6]]]], dtype=torch.uint8)
        >>> map_pictures(images, lambda picture: picture.rotate(180)).tolist()
        [[[[2, 1]], [[4, 3]], [[6, 5]]]]
    """
    height, width = images.shape[2:]
    changed = []
    for planes in images.contiguous().numpy():
        bands = [Image.frombuffer("L", (width, height), plane, "raw", "L", 0, 1) for plane in planes]
        picture = change(Image.merge("RGB", bands))
        changed += [picture.tobytes("raw", band) for band in "RGB"]
    pixels = torch.frombuffer(bytearray().join(changed), dtype=torch.uint8)
    return pixels.view(len(images), 3, picture.height, picture.width)

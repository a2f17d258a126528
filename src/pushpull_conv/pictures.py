"""What every reader of image files asks of Pillow."""

from PIL import Image

from pushpull_conv.errors import InputError

SUFFIXES = frozenset({".bmp", ".gif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"})
"""How the names of image files end; of a file of several pictures Pillow gives the first."""
DAMAGE = (OSError, SyntaxError, ValueError, TypeError, OverflowError, RuntimeError, Image.DecompressionBombError)
"""What Pillow raises where a file is truncated or not an image; the rarer ones where it is an AVIF or a TIFF file."""


def to_rgb(image: Image.Image) -> Image.Image:
    """Return an image in RGB: grey in three equal channels, palettes looked up, transparency dropped, not blended."""
    if image.mode == "P":
        image = image.convert("RGBA")  # to RGB at once Pillow would warn of a transparent palette
    return image if image.mode == "RGB" else image.convert("RGB")  # which of its own mode would be a copy


def require_8_bits(image: Image.Image, name: str) -> None:
    """Raise `InputError` if Pillow would cut off what is above 255, which turns most 16-bit images white."""
    if image.mode.startswith(("I", "F")):
        raise InputError(f"{name} has more than 8 bits a channel (Pillow's mode {image.mode}); convert it to 8 bits")

"""The 19 common corruptions, made on the fly: batched, on any device, the same image for the same (seed, index)."""

from pushpull_conv.corruptions.engine import corrupt, recompress
from pushpull_conv.corruptions.frost import FrostTextures, load_frost
from pushpull_conv.corruptions.spec import CORRUPTIONS, EXTRA_CORRUPTIONS, GROUPS, PROFILES, SEVERITIES

__all__ = [
    "CORRUPTIONS",
    "EXTRA_CORRUPTIONS",
    "GROUPS",
    "PROFILES",
    "SEVERITIES",
    "FrostTextures",
    "corrupt",
    "load_frost",
    "recompress",
]

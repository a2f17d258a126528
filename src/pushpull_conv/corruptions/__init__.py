"""The 19 common corruptions, made on the fly: batched, on any device, the same image for the same (seed, index).

What computes loads on first use, so that the names and severities are known without importing torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pushpull_conv.corruptions.spec import (
    CORRUPTIONS,
    EXTRA_CORRUPTIONS,
    GROUPS,
    PROFILES,
    SEVERITIES,
    require_severity,
)

if TYPE_CHECKING:
    from pushpull_conv.corruptions.engine import corrupt, recompress
    from pushpull_conv.corruptions.frost import FrostTextures, load_frost

_HOME = {"FrostTextures": "frost", "corrupt": "engine", "load_frost": "frost", "recompress": "engine"}

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
    "require_severity",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)

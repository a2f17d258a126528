"""Robust image classifiers by push-pull inhibition: the unit, the corruption benchmark and the comparison.

The names below load on first use, so that importing the package (and ``pushpull --help``) does not import torch.
"""

import importlib
from typing import TYPE_CHECKING, Any

from pushpull_conv._version import __version__

if TYPE_CHECKING:
    from pushpull_conv.benchmark import Results, evaluate, mce, mean_error, r_net, relative_mce
    from pushpull_conv.corruptions import CORRUPTIONS, corrupt
    from pushpull_conv.errors import InputError
    from pushpull_conv.functional import push_pull_conv2d
    from pushpull_conv.layers import PushPullConv2d
    from pushpull_conv.models import create_model, swap_first_conv_

_HOME = {
    "CORRUPTIONS": "corruptions",
    "InputError": "errors",
    "PushPullConv2d": "layers",
    "Results": "benchmark",
    "corrupt": "corruptions",
    "create_model": "models",
    "evaluate": "benchmark",
    "mce": "benchmark",
    "mean_error": "benchmark",
    "push_pull_conv2d": "functional",
    "r_net": "benchmark",
    "relative_mce": "benchmark",
    "swap_first_conv_": "models",
}

__all__ = [
    "CORRUPTIONS",
    "InputError",
    "PushPullConv2d",
    "Results",
    "__version__",
    "corrupt",
    "create_model",
    "evaluate",
    "mce",
    "mean_error",
    "push_pull_conv2d",
    "r_net",
    "relative_mce",
    "swap_first_conv_",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)

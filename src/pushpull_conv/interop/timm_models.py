"""Networks with a push-pull stem under names of their own in timm's registry; importing this module registers them.

A name is the architecture's with ``_pp3`` or ``_pp5``: the unit, averaging over 3 x 3 or 5 x 5 pixels, in the place of
the first convolution. They are not ``"resnet50.pp3"``, because to timm what follows the point names weights of the
plain ``resnet50``.

Example:
    >>> import timm
    >>> network = timm.create_model("resnet18_pp3", num_classes=10, trainable_alpha=True)
    >>> network.conv1
    PushPullConv2d(3, 64, kernel_size=(7, 7), stride=(2, 2), padding=(3, 3), bias=False, avg_kernel_size=3, \
alpha=trainable)
    >>> timm.list_models("convnext_tiny_pp*")
    ['convnext_tiny_pp3', 'convnext_tiny_pp5']
"""

import sys
from collections.abc import Callable
from typing import Any

import timm
from timm.models import (
    generate_default_cfgs,
    get_pretrained_cfg,
    load_pretrained,
    model_entrypoint,
    register_model,
    resolve_pretrained_cfg,
)
from torch import nn

from pushpull_conv.errors import InputError
from pushpull_conv.models import swap_first_conv_
from pushpull_conv.models.create import unknown_model

ARCHITECTURES = (
    *("resnet18", "resnet34", "resnet50", "resnet101", "resnet152", "resnext50_32x4d", "wide_resnet50_2"),
    *("convnext_tiny", "convnext_small", "convnext_base"),
    *("efficientnet_b0", "mobilenetv3_large_100", "densenet121", "regnety_016", "vgg16_bn"),
)
"""timm's architectures that have push-pull variants by import; `register_pushpull` adds any other."""
AVG_KERNEL_SIZES = (3, 5)

# timm's decorator looks for a module's ``default_cfgs`` and adds to its ``__all__``.
default_cfgs: dict[str, Any] = {}
__all__ = ["ARCHITECTURES", "AVG_KERNEL_SIZES", "register_pushpull"]

# What a configuration says of the network, and not of the weights whose source and authors it names.
_OF_THE_NETWORK = (
    *("input_size", "min_input_size", "fixed_input_size", "pool_size", "num_classes", "first_conv", "classifier"),
    *("mean", "std", "interpolation"),
)


def register_pushpull(architecture: str) -> list[str]:
    """Add the push-pull variants of one of timm's architectures to its registry.

    `timm.create_model` builds them with the arguments of the architecture (``num_classes``, ``in_chans``, ...) and two
    of the unit, ``alpha`` and ``trainable_alpha``. No weights come with them: ``pretrained=True`` works with weights of
    one's own, from a folder or repository that timm stored (``"local-dir:FOLDER"``, ``"hf-hub:NAME"``).

    Args:
        architecture: A name in `timm.list_models`, without the tag of pretrained weights.

    Returns:
        The names of the variants.

    Raises:
        InputError: timm does not know the architecture, or it is a variant itself. Whether its stem takes the unit is
            found when it is built; ``docs/surgery.md`` lists it.

    Example:
        >>> register_pushpull("resnet26")
        ['resnet26_pp3', 'resnet26_pp5']
        >>> timm.create_model("resnet26_pp5", in_chans=1).conv1.avg_kernel_size
        5
    """
    if architecture in default_cfgs:
        plain = architecture.rpartition("_pp")[0]
        raise InputError(f"'{architecture}' is a push-pull variant already; give the plain architecture, '{plain}'")
    if not timm.is_model(architecture) or "." in architecture:
        raise unknown_model("timm", architecture, timm.list_models())
    return [_register(architecture, size) for size in AVG_KERNEL_SIZES]


def _register(architecture: str, avg_kernel_size: int) -> str:
    name = f"{architecture}_pp{avg_kernel_size}"
    if name in default_cfgs:
        return name
    published = get_pretrained_cfg(architecture)
    config = published.to_dict() if published else {}
    default_cfgs.update(generate_default_cfgs({name: {key: config[key] for key in _OF_THE_NETWORK if key in config}}))
    setattr(sys.modules[__name__], name, register_model(_entrypoint(architecture, name, avg_kernel_size)))
    return name


def _entrypoint(architecture: str, name: str, avg_kernel_size: int) -> Callable[..., nn.Module]:
    def build(
        pretrained: bool = False,
        pretrained_cfg: Any = None,
        pretrained_cfg_overlay: dict[str, Any] | None = None,
        alpha: float = 1.0,
        trainable_alpha: bool = False,
        **kwargs: Any,
    ) -> nn.Module:
        config = resolve_pretrained_cfg(name, pretrained_cfg, pretrained_cfg_overlay)
        if pretrained:
            _require_weights(architecture, name, config, features_only=kwargs.get("features_only", False))
        network = model_entrypoint(architecture)(pretrained=False, pretrained_cfg=config, **kwargs)
        swap_first_conv_(network, avg_kernel_size=avg_kernel_size, alpha=alpha, trainable_alpha=trainable_alpha)
        if pretrained:
            sizes = {"num_classes": network.num_classes, "in_chans": kwargs.get("in_chans", 3)}
            fitted = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)  # to another img_size
            load_pretrained(network, config.to_dict(), filter_fn=fitted, **sizes, cache_dir=kwargs.get("cache_dir"))
        return network

    build.__name__ = build.__qualname__ = name
    build.__doc__ = f"Build timm's {architecture} with a push-pull stem that averages over {avg_kernel_size} pixels."
    return build


def _require_weights(architecture: str, name: str, config: Any, *, features_only: bool) -> None:
    """Raise unless weights are named, and may be loaded into what is built."""
    if not (config.has_weights or config.state_dict):
        raise InputError(
            f"'{name}' has no published weights; train it, or fine-tune from timm.create_model('{architecture}', "
            f"pretrained=True) and swap_first_conv_(model, ...)"
        )
    if features_only:
        raise InputError(f"'{name}' cannot load weights with features_only=True; load them into the whole network")


for _architecture in ARCHITECTURES:
    register_pushpull(_architecture)

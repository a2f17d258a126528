"""Putting the push-pull unit in the place of a network's first convolution."""

from dataclasses import dataclass
from typing import TypeVar

from torch import nn

from pushpull_conv.errors import InputError
from pushpull_conv.layers import PushPullConv2d

Network = TypeVar("Network", bound=nn.Module)

_WRAPPERS = {
    "DataParallel",
    "DistributedDataParallel",
    "FSDPModule",
    "FullyShardedDataParallel",
    "GraphModule",
    "OptimizedModule",
    "ScriptModule",
}
_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


@dataclass(frozen=True)
class SwapReport:
    """What `swap_first_conv_` did.

    Attributes:
        name: Place of the convolution in the network (``"conv1"``); empty if the network was the convolution.
        replaced: The convolution that was there. Its parameters are now those of ``unit``.
        unit: The push-pull unit that is there now.
    """

    name: str
    replaced: nn.Conv2d
    unit: PushPullConv2d

    def __str__(self) -> str:
        return f"{self.name or 'the model itself'}: {self.replaced} -> {self.unit}"


def swap_first_conv_(
    model: Network, *, avg_kernel_size: int = 3, alpha: float = 1.0, trainable_alpha: bool = False
) -> tuple[Network | PushPullConv2d, SwapReport]:
    """Put a `PushPullConv2d` in the place of the convolution that takes the image, keeping its weights.

    That convolution is the one that a timm model names (``pretrained_cfg["first_conv"]``), else the only
    `torch.nn.Conv2d` with 3 input channels, else the only one with 1. The patch embedding of a transformer is such a
    convolution and is swapped too. Only a plain `torch.nn.Conv2d` can be replaced: a subclass, a hook or a
    parametrisation may compute something else, and is refused.

    Swap before wrapping or compiling the network, and before building an optimizer if ``alpha`` is to be trained.

    Args:
        model: The network, changed in place. If it is itself the convolution, the unit is returned in its stead.
        avg_kernel_size: Side of the window over which the pull response is averaged, odd; 0 or 1 for none.
        alpha: Strength of the inhibition.
        trainable_alpha: Learn ``alpha`` per filter, starting from U(0, 1).

    Returns:
        The network and the report of what was replaced.

    Raises:
        InputError: No convolution takes the image, several do, or the one that does cannot be replaced.

    Example:
        >>> model, report = swap_first_conv_(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), avg_kernel_size=5)
        >>> print(report)
        0: Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1)) -> PushPullConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), \
avg_kernel_size=5, alpha=1)
    """
    _refuse_wrapped(model)
    name = _stem_name(model)
    conv = _plain_conv(model, name)
    unit = PushPullConv2d.from_conv2d(
        conv, avg_kernel_size=avg_kernel_size, alpha=alpha, trainable_alpha=trainable_alpha
    )
    report = SwapReport(name, conv, unit)
    if not name:
        return unit, report
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, unit)
    return model, report


def _stem_name(model: nn.Module) -> str:
    """Return the name of the convolution that takes the image."""
    named = (getattr(model, "pretrained_cfg", None) or {}).get("first_conv")
    if named:
        return _named_stem(model, (named,) if isinstance(named, str) else tuple(named))
    convs = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    for channels in (3, 1):
        names = [name for name, conv in convs.items() if conv.in_channels == channels]
        if len(names) > 1:
            raise InputError(
                f"model {type(model).__name__} has {len(names)} convolutions of {channels} input channels "
                f"({', '.join(names[:4])}); call swap_first_conv_ on the part of it that holds the first one"
            )
        if names:
            return names[0]
    raise InputError(
        f"model {type(model).__name__} has {len(convs)} convolutions and none of 3 or 1 input channels; "
        "call swap_first_conv_ on a network whose first layer is a torch.nn.Conv2d that takes the image"
    )


def _named_stem(model: nn.Module, names: tuple[str, ...]) -> str:
    if len(names) > 1:
        raise InputError(
            f"model {type(model).__name__} has {len(names)} first convolutions ({', '.join(names)}); "
            "call swap_first_conv_ on each part of it that holds one"
        )
    modules = dict(model.named_modules())
    if names[0] not in modules:
        raise InputError(
            f"model {type(model).__name__} names '{names[0]}' as its first convolution and has no such module; "
            "set pretrained_cfg['first_conv'] to the right name"
        )
    return names[0]


def _refuse_wrapped(model: nn.Module) -> None:
    for module in model.modules():
        kinds = {kind.__name__ for kind in type(module).__mro__} & _WRAPPERS
        if kinds or module._compiled_call_impl is not None:
            wrapper = min(kinds) if kinds else "compiled module"
            raise InputError(f"model is wrapped in a {wrapper}; call swap_first_conv_ before wrapping or compiling it")


def _plain_conv(model: nn.Module, name: str) -> nn.Conv2d:
    """Return the convolution of that name if it is a plain one that is used in one place."""
    conv = model.get_submodule(name)
    reason = _why_special(model, conv)
    if reason is not None or not isinstance(conv, nn.Conv2d):
        raise InputError(f"model's first convolution '{name}' ({type(conv).__name__}) {reason}")
    return conv


def _why_special(model: nn.Module, conv: nn.Module) -> str | None:
    if isinstance(conv, PushPullConv2d):
        return "is a push-pull unit already; swap once"
    if type(conv) is not nn.Conv2d:
        return "is not a plain torch.nn.Conv2d and may compute something else; choose a model with a plain one"
    places = [place for place, module in model.named_modules(remove_duplicate=False) if module is conv]
    if len(places) > 1:
        return f"is shared by {', '.join(places)}; give each place its own convolution first"
    if "forward" in vars(conv) or any(getattr(conv, hooks) for hooks in _HOOKS):
        return "has hooks or a replaced forward, which the swap would lose; remove them first"
    return None

"""Putting the push-pull unit in the place of a network's first convolution."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, TypeVar

from torch import Tensor, nn
from torch.optim import Optimizer

from pushpull_conv.errors import InputError, require_name
from pushpull_conv.layers import PushPullConv2d
from pushpull_conv.models.timm_convs import TimmPushPullConv2d, is_timm_conv

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
_HOOKS = (
    "_forward_hooks",
    "_forward_pre_hooks",
    "_backward_hooks",
    "_backward_pre_hooks",
    "_state_dict_hooks",
    "_state_dict_pre_hooks",
    "_load_state_dict_pre_hooks",
    "_load_state_dict_post_hooks",
)


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
    model: Network,
    *,
    avg_kernel_size: int = 3,
    alpha: float = 1.0,
    trainable_alpha: bool = False,
    name: str | None = None,
    optimizer: Optimizer | None = None,
) -> tuple[Network | PushPullConv2d, SwapReport]:
    """Put a `PushPullConv2d` in the place of the convolution that takes the image, keeping its weights.

    That convolution is the one called ``name``, else the one that a timm model gives
    (``pretrained_cfg["first_conv"]``), else the only `torch.nn.Conv2d` with 3 input channels, else the only one with 1,
    provided that it is the first of all. The patch embedding of a transformer is such a convolution and is swapped too.
    A plain `torch.nn.Conv2d` can be replaced, and timm's convolutions that pad as TensorFlow does or standardise their
    weights, which the unit then does too. Another subclass, a hook or a parametrisation may compute something else, and
    is refused.

    Swap before wrapping or compiling the network. An optimizer built before goes on training the weights, which stay
    the same parameters, but does not know a trainable ``alpha``, which is new: give it as ``optimizer``, or build it
    after the swap.

    Args:
        model: The network, changed in place. If it is itself the convolution, the unit is returned in its stead.
        avg_kernel_size: Side of the window over which the pull response is averaged, odd; 0 or 1 for none.
        alpha: Strength of the inhibition.
        trainable_alpha: Learn ``alpha`` per filter, starting from U(0, 1).
        name: Which convolution to replace, as in ``model.named_modules()``; None to find the one that takes the image.
        optimizer: An optimizer of the network's parameters, built before the swap. A trainable ``alpha`` joins the
            group of the weight, and so gets its learning rate and schedule.

    Returns:
        The network and the report of what was replaced.

    Raises:
        InputError: ``model`` is no network, no convolution takes the image, several do, the one that does cannot be
            replaced, or ``optimizer`` does not train it.

    Example:
        >>> model, report = swap_first_conv_(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), avg_kernel_size=5)
        >>> print(report)
        0: Conv2d(3, 8, kernel_size=(3, 3), stride=(1, 1)) -> PushPullConv2d(3, 8, kernel_size=(3, 3), stride=(1, 1), \
avg_kernel_size=5, alpha=1)
    """
    place = find_first_conv(model, name)
    conv = replaceable_conv(model, place, of_timm=True)
    kind = TimmPushPullConv2d if is_timm_conv(conv) else PushPullConv2d
    group = _group_of(optimizer, conv.weight) if optimizer is not None else None
    unit = kind.from_conv2d(conv, avg_kernel_size=avg_kernel_size, alpha=alpha, trainable_alpha=trainable_alpha)
    if group is not None and trainable_alpha:
        _add_alpha(group, conv, unit.alpha, place)
    return replace_module_(model, place, unit), SwapReport(place, conv, unit)


def find_first_conv(model: nn.Module, name: str | None = None) -> str:
    """Return the name of the convolution that takes the image, "" if that is the network itself.

    Raises:
        InputError: The network is none, wrapped or compiled, ``name`` is not in it, or no or several convolutions fit.

    Example:
        >>> find_first_conv(nn.Sequential(nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU()), nn.Conv2d(8, 8, 3)))
        '0.0'
    """
    _require_plain(model)
    convs = {place: module for place, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    if name is not None:
        return require_name("convolution", name, convs)
    config = getattr(model, "pretrained_cfg", None) or {}
    if config.get("first_conv") is not None:
        named = config["first_conv"]
        return _named_stem(model, (named,) if isinstance(named, str) else tuple(named))
    return _only_conv_of_an_image(model, convs)


def replaceable_conv(model: nn.Module, name: str, *, of_timm: bool = False) -> nn.Conv2d:
    """Return the convolution of that name if another layer may take its place.

    Args:
        model: The network.
        name: Place of the convolution in it.
        of_timm: Take also timm's own kinds of convolution, which compute something else than `torch.nn.Conv2d`.

    Raises:
        InputError: It is of another kind, is used in several places, or has hooks that a replacement would lose.
    """
    conv = model.get_submodule(name)
    reason = _why_special(conv, of_timm) or _why_entangled(model, conv)
    if reason is not None or not isinstance(conv, nn.Conv2d):
        raise InputError(f"model's layer '{name}' ({type(conv).__name__}) {reason}")
    return conv


def replace_module_(model: Network, name: str, module: nn.Module) -> Any:
    """Put ``module`` in the place called ``name`` and return the network, or the module if ``name`` is empty."""
    if not name:
        return module
    parent, _, leaf = name.rpartition(".")
    setattr(model.get_submodule(parent), leaf, module)
    return model


def _only_conv_of_an_image(model: nn.Module, convs: dict[str, nn.Conv2d]) -> str:
    for channels in (3, 1):
        names = [name for name, conv in convs.items() if conv.in_channels == channels]
        if len(names) > 1:
            raise InputError(
                f"model {type(model).__name__} has {len(names)} convolutions of {channels} input channels "
                f"({_some(names)}); say with name= which one takes the image"
            )
        if names and names[0] != next(iter(convs)):
            raise InputError(
                f"model {type(model).__name__} has one convolution of {channels} input channels ('{names[0]}'), and it "
                f"is not the first, '{next(iter(convs))}'; say with name= which one takes the image"
            )
        if names:
            return names[0]
    if not convs:
        raise InputError(f"model {type(model).__name__} has no torch.nn.Conv2d; choose one whose first layer is one")
    raise InputError(
        f"model {type(model).__name__} has {len(convs)} convolutions and none of 3 or 1 input channels "
        f"({_some(convs)}); say with name= which one takes the image"
    )


def _named_stem(model: nn.Module, names: tuple[str, ...]) -> str:
    if not names:
        raise InputError(
            f"model {type(model).__name__} says that it has no first convolution; choose one whose first layer is one"
        )
    if len(names) > 1:
        raise InputError(
            f"model {type(model).__name__} has {len(names)} first convolutions ({_some(names)}), side by side; "
            "swap each with name=, or one of them if that is what you mean"
        )
    # timm's networks that give features (features_only) keep stem.0 as stem_0 or as model.stem.0.
    places = {_flat(place.removeprefix("model.")): place for place, _ in model.named_modules()}
    if _flat(names[0]) not in places:
        raise InputError(
            f"model {type(model).__name__} names '{names[0]}' as its first convolution and has no such module; "
            "set pretrained_cfg['first_conv'] to the right name"
        )
    place = places[_flat(names[0])]
    stem = model.get_submodule(place)
    if isinstance(stem, nn.Sequential):  # of another stem than the one that timm's weights have
        return f"{place}.{find_first_conv(stem)}"
    return place


def _flat(name: str) -> str:
    return name.replace(".", "_")


def _some(names: Iterable[str]) -> str:
    listed = list(names)
    return ", ".join(listed[:4]) + (f" and {len(listed) - 4} more" if len(listed) > 4 else "")


def _require_plain(model: nn.Module) -> None:
    if not isinstance(model, nn.Module):
        kind = type(model).__name__
        raise InputError(f"model is a {kind}, not a network; give one that is built, as by torchvision's resnet18()")
    for module in model.modules():
        kinds = {kind.__name__ for kind in type(module).__mro__} & _WRAPPERS
        if kinds or module._compiled_call_impl is not None:
            wrapper = min(kinds) if kinds else "compiled module"
            raise InputError(f"model is wrapped in a {wrapper}; change its layers before wrapping or compiling it")


def _group_of(optimizer: Optimizer, weight: Tensor) -> dict[str, Any]:
    """Return the group of parameters that holds ``weight``."""
    for group in optimizer.param_groups:
        if any(parameter is weight for parameter in group["params"]):
            return group
    raise InputError(
        f"optimizer {type(optimizer).__name__} does not train the first convolution; give the one that was built from "
        "this network's parameters, or none"
    )


def _add_alpha(group: dict[str, Any], conv: nn.Conv2d, alpha: Tensor, place: str) -> None:
    """Put ``alpha`` after the weight and bias, where an optimizer built after the swap has it, so that states fit."""
    parameters = group["params"]
    after = 1 + max(i for i, known in enumerate(parameters) if known is conv.weight or known is conv.bias)
    parameters.insert(after, alpha)
    if "param_names" in group:  # an optimizer of model.named_parameters()
        group["param_names"].insert(after, f"{place}.alpha".removeprefix("."))


def _why_special(conv: nn.Module, of_timm: bool) -> str | None:
    if isinstance(conv, PushPullConv2d):
        return "is a push-pull unit already; swap once"
    if not isinstance(conv, nn.Conv2d):
        return "is no convolution, and the unit needs one; choose a model whose first layer is a torch.nn.Conv2d"
    if not (TimmPushPullConv2d if of_timm else PushPullConv2d).accepts(conv):
        return "is not a plain torch.nn.Conv2d and may compute something else; choose a model with a plain one"
    return None


def _why_entangled(model: nn.Module, conv: nn.Module) -> str | None:
    places = [place for place, module in model.named_modules(remove_duplicate=False) if module is conv]
    if len(places) > 1:
        return f"is shared by {', '.join(places)}; give each place its own convolution first"
    if "forward" in vars(conv) or any(getattr(conv, hooks) for hooks in _HOOKS):
        return "has hooks or a replaced forward, which the swap would lose; remove them first"
    return None

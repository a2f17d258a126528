"""One door to every network: CIFAR ResNets, torchvision's ResNets with either stem, any timm or torchvision name."""

import difflib
import numbers
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from pushpull_conv.errors import InputError, require_module, require_name
from pushpull_conv.models.cifar_resnet import CIFAR_DEPTHS, CifarResNet
from pushpull_conv.models.classifier import IMAGENET_MEAN, IMAGENET_STD
from pushpull_conv.models.layer_kinds import apply_layer_
from pushpull_conv.models.surgery import swap_first_conv_

_CIFAR_RESNETS = {f"resnet{depth}": depth for depth in CIFAR_DEPTHS}
_RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101")
_STEMS = ("cifar", "imagenet")
_PUSHPULL_KEYS = ("avg_kernel_size", "alpha", "trainable_alpha")


def create_model(
    name: str,
    *,
    num_classes: int,
    stem: str | None = None,
    pushpull: Mapping[str, Any] | None = None,
    layer: Mapping[str, Any] | None = None,
    pretrained: bool = False,
) -> nn.Module:
    """Create a network that maps normalised images ``[B, 3, H, W]`` to logits ``[B, num_classes]``.

    Args:
        name: ``"resnet20"``, ``"resnet32"``, ``"resnet44"``, ``"resnet56"`` (He et al. 2016, for CIFAR);
            ``"resnet18"``, ``"resnet34"``, ``"resnet50"``, ``"resnet101"`` (torchvision's); ``"timm:NAME"``;
            ``"torchvision:NAME"``.
        num_classes: Number of logits.
        stem: ``"cifar"`` (3 x 3, stride 1, no max-pool) or ``"imagenet"`` (7 x 7, stride 2, max-pool). By default
            ``"cifar"`` for the CIFAR ResNets, which have no other, and ``"imagenet"`` for torchvision's.
        pushpull: Arguments of `swap_first_conv_` (``avg_kernel_size``, ``alpha``, ``trainable_alpha``), or None to keep
            the plain convolution. The swap draws no weights: the network is otherwise the same for the same seed.
        layer: In its stead a layer to compare the unit with: its ``kind`` (``"upsampled-pull"``, ``"blurpool"``,
            ``"blurred-conv"``, ``"surround"``, ``"varied-push-pull"``) and the settings of that kind, as
            ``docs/layers.md`` lists them.
        pretrained: Load the library's published weights, for ``"timm:"`` and ``"torchvision:"`` names. For another
            number of classes than theirs, the last layer starts afresh.

    Returns:
        The network, in training mode, on the CPU in float32.

    Raises:
        InputError: An argument is unknown or does not fit the others; the message names the nearest valid one.

    Example:
        >>> network = create_model("resnet20", num_classes=10, pushpull={"avg_kernel_size": 3})
        >>> network.conv1
        PushPullConv2d(3, 16, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), bias=False, avg_kernel_size=3, alpha=1)
    """
    if not isinstance(num_classes, numbers.Integral) or num_classes < 1:
        raise InputError(f"num_classes is {num_classes!r}; allowed: 1 or more; give the number of classes of the data")
    require_change(pushpull, layer)
    library, _, library_name = name.partition(":")
    if library in _LIBRARIES and library_name:
        if stem is not None:
            raise InputError(f"stem is {stem!r}, but '{name}' has its own; leave stem out; in a recipe, stem: null")
        network = _from_library(library, library_name, num_classes, pretrained)
    else:
        network = _own_network(name, num_classes, stem, pretrained)
    change_(network, pushpull, layer)
    return network


def require_change(pushpull: Mapping[str, Any] | None, layer: Mapping[str, Any] | None) -> None:
    """Raise `InputError` unless these are settings for `change_`, as far as that can be told without a network."""
    if pushpull is not None and layer is not None:
        raise InputError("pushpull and layer are both given, but exclude each other; leave one of them out")
    for argument, settings, least in (("pushpull", pushpull, {}), ("layer", layer, {"kind": "blurred-conv"})):
        if settings is not None and not isinstance(settings, Mapping):
            raise InputError(f"{argument} is {settings!r}; give a mapping of its settings, at the least {least}")
    for key in pushpull or ():
        require_name("pushpull key", key, _PUSHPULL_KEYS)


def change_(network: nn.Module, pushpull: Mapping[str, Any] | None, layer: Mapping[str, Any] | None) -> None:
    """Put the unit or layer of `create_model` into a plain network, which keeps its weights."""
    if pushpull is not None:
        swap_first_conv_(network, **pushpull)
    if layer is not None:
        apply_layer_(network, layer)


class _NoDraws(TorchFunctionMode):
    """Leaves out random numbers for tensors without memory, for which PyTorch would import its compiler."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        undrawn = func in (Tensor.normal_, Tensor.uniform_) and args[0].is_meta
        return args[0] if undrawn else func(*args, **(kwargs or {}))


def create_without_memory(name: str, **settings: Any) -> nn.Module:
    """Create a network as `create_model` does, for its structure: its tensors have no memory where that is possible."""
    try:
        with torch.device("meta"), _NoDraws():
            return create_model(name, **settings)
    except NotImplementedError:  # torchvision's RegNets compute their widths with tensors
        return create_model(name, **settings)


def pretrained_classes(name: str) -> int:
    """Return how many classes the weights that timm or torchvision publish under a name know; 0 where there are none.

    Example:
        >>> pretrained_classes("timm:resnet18"), pretrained_classes("torchvision:resnet18")
        (1000, 1000)
        >>> pretrained_classes("resnet20")
        0
    """
    library, _, library_name = name.partition(":")
    if library == "timm":
        published = require_module("timm", "train").get_pretrained_cfg(library_name)
        return published.num_classes if published else 0
    if library == "torchvision":
        models = require_module("torchvision.models", "train")
        if library_name in models.list_models(module=models):
            return len(models.get_model_weights(library_name).DEFAULT.meta["categories"])
    return 0


def pretrained_synsets(name: str) -> tuple[str, ...]:
    """Return the classes that a name's published weights know, in the order of the logits, as ImageNet's synset ids.

    Empty for a name that has no such weights, or weights for other classes.

    Example:
        >>> len(pretrained_synsets("timm:resnet18")), pretrained_synsets("torchvision:resnet18")[0]
        (1000, 'n01440764')
        >>> pretrained_synsets("resnet20")
        ()
    """
    if not (known := pretrained_classes(name)):
        return ()
    info = require_module("timm.data.imagenet_info", "train")
    subset = info.infer_imagenet_subset({"num_classes": known})
    return tuple(info.ImageNetInfo(subset).label_names()) if subset else ()


def pretrained_statistics(name: str) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return the mean and the deviation by which a model's published weights expect pixels in [0, 1] to be normalised.

    ImageNet's for a name that has none.

    Example:
        >>> pretrained_statistics("torchvision:efficientnet_v2_l")
        ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
        >>> pretrained_statistics("resnet20") == (IMAGENET_MEAN, IMAGENET_STD)
        True
    """
    library, _, library_name = name.partition(":")
    published = None
    if library == "timm":
        published = require_module("timm", "train").get_pretrained_cfg(library_name)
    elif library == "torchvision":
        published = require_module("torchvision.models", "train").get_model_weights(library_name).DEFAULT.transforms()
    return (IMAGENET_MEAN, IMAGENET_STD) if published is None else (tuple(published.mean), tuple(published.std))


def _from_library(library: str, name: str, num_classes: int, pretrained: bool) -> nn.Module:
    try:
        return _LIBRARIES[library](name, num_classes, pretrained)
    except OSError as error:  # every failed download is one
        reason = str(error).splitlines()[0]
        raise InputError(
            f"the weights of '{library}:{name}' cannot be downloaded ({reason}); check the connection, or give a file "
            "that holds them"
        ) from error


def _own_network(name: str, num_classes: int, stem: str | None, pretrained: bool) -> nn.Module:
    require_name("model", name, [*_CIFAR_RESNETS, *_RESNETS, "timm:NAME", "torchvision:NAME"])
    if name.endswith(":NAME"):
        raise InputError(f"model is {name!r}; put a name of that library in the place of NAME")
    if pretrained:
        both = f"name 'timm:{name}' or 'torchvision:{name}'"  # of the CIFAR ResNets these have none
        advice = both if name in _RESNETS else "choose a network of timm or torchvision"
        raise InputError(f"'{name}' has no published weights; {advice}")
    if stem is not None:
        require_name("stem", stem, _STEMS)
    if name in _CIFAR_RESNETS:
        if stem == "imagenet":
            raise InputError(f"stem is 'imagenet', but '{name}' has only the stem 'cifar'; use resnet18 or deeper")
        return CifarResNet(_CIFAR_RESNETS[name], num_classes)
    network = _from_torchvision(name, num_classes)
    return _with_cifar_stem(network) if stem == "cifar" else network


def _with_cifar_stem(network: Any) -> nn.Module:
    network.conv1 = nn.Conv2d(3, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(network.conv1.weight, mode="fan_out", nonlinearity="relu")
    network.maxpool = nn.Identity()
    return network


def _from_timm(name: str, num_classes: int, pretrained: bool) -> nn.Module:
    timm = require_module("timm", "train")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        raise unknown_model("timm", name, timm.list_models())
    tags = [full.partition(".")[2] for full in timm.list_pretrained(f"{architecture}.*")] if tag else []
    if tag and tag not in tags:
        require_name(f"weights of timm's {architecture}", tag, tags)
    if pretrained and not timm.get_pretrained_cfg(name).has_weights:
        raise InputError(f"'timm:{name}' has no published weights; choose another network")
    return timm.create_model(name, pretrained=pretrained, num_classes=num_classes)


def _from_torchvision(name: str, num_classes: int, pretrained: bool = False) -> nn.Module:
    models = require_module("torchvision.models", "train")
    names = models.list_models(module=models)
    if name not in names:
        raise unknown_model("torchvision", name, names)
    # These two return a tuple in training unless told not to, and warn unless told how to start.
    inception = name in {"googlenet", "inception_v3"}
    if inception and pretrained:
        raise InputError(f"with its published weights 'torchvision:{name}' takes other input; use 'timm:inception_v3'")
    options = {"aux_logits": False, "init_weights": True} if inception else {}
    network = models.get_model(name, num_classes=num_classes, **options)
    if pretrained:
        trained = models.get_model(name, weights=models.get_model_weights(name).DEFAULT).state_dict()
        for key, fresh in network.state_dict().items():
            if fresh.shape != trained[key].shape:
                if fresh.shape != (num_classes, *trained[key].shape[1:]):
                    raise InputError(
                        f"the published weights of 'torchvision:{name}' are for images of another size: '{key}' is "
                        f"{[*trained[key].shape]} instead of {[*fresh.shape]}; choose another network"
                    )
                trained[key] = fresh
        network.load_state_dict(trained)
    return network


_LIBRARIES: dict[str, Callable[[str, int, bool], nn.Module]] = {"timm": _from_timm, "torchvision": _from_torchvision}


def unknown_model(library: str, name: str, names: Iterable[str]) -> InputError:
    """Return the error for a name that a library does not have, with the nearest of those that it has."""
    near = difflib.get_close_matches(name, list(names), n=3)
    hint = f"did you mean {' or '.join(repr(match) for match in near)}? " if near else ""
    listing = "timm.list_models()" if library == "timm" else "torchvision.models.list_models()"
    return InputError(f"unknown {library} model {name!r}; {hint}{listing} lists all")

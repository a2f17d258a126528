"""Putting a layer that the push-pull unit is compared with into a network, by name.

Each kind changes the network where its paper says, and keeps every weight and its name in the state dict.
"""

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Any

from torch import nn

from pushpull_conv.comparison_layers import (
    BlurPool2d,
    BlurPoolConv2d,
    BlurredConv2d,
    SurroundSuppressedConv2d,
    UpsampledPullConv2d,
    VariedPushPullConv2d,
)
from pushpull_conv.comparison_layers.blur import require_square_stride
from pushpull_conv.errors import InputError, require_name
from pushpull_conv.models.cifar_resnet import CifarResNet, Subsample
from pushpull_conv.models.surgery import find_first_conv, replace_module_, replaceable_conv


def apply_layer_(network: nn.Module, layer: Mapping[str, Any]) -> None:
    """Change ``network`` in place as ``layer`` says.

    Args:
        network: A network, not yet wrapped (DDP, FSDP, `torch.compile`) and known to no optimizer. It keeps its
            weights, but not its function: train or fine-tune it afterwards.
        layer: ``kind``, one of `LAYER_KINDS`, and the settings of that kind.

    Raises:
        InputError: The kind or a setting is unknown or out of range, or the network cannot be changed so.

    Example:
        >>> network = CifarResNet(20, num_classes=10)
        >>> apply_layer_(network, {"kind": "surround", "sigma": 0.5})
        >>> type(network.conv1).__name__
        'SurroundSuppressedConv2d'
    """
    if "kind" not in layer:
        raise InputError(f"layer has no kind; allowed: {', '.join(LAYER_KINDS)}")
    apply = LAYER_KINDS[require_name("layer kind", layer["kind"], LAYER_KINDS)]
    settings = {name: value for name, value in layer.items() if name != "kind"}
    for name in settings:
        require_name(f"setting of layer '{layer['kind']}'", name, list(inspect.signature(apply).parameters)[1:])
    apply(network, **settings)


def _upsampled_pull(
    network: nn.Module, *, scale: float = 2.0, alpha: float = 1.0, trainable_alpha: bool = False
) -> None:
    """The first convolution becomes the push-pull layer of Strisciuglio et al. (2020)."""
    name, conv = _first_conv(network)
    unit = UpsampledPullConv2d.from_conv2d(conv, scale=scale, alpha=alpha, trainable_alpha=trainable_alpha)
    replace_module_(network, name, unit)


def _surround(network: nn.Module, *, sigma: float = 0.5, alpha: float = 1.0, trainable_alpha: bool = False) -> None:
    """The first convolution is followed by surround suppression."""
    name, conv = _first_conv(network)
    unit = SurroundSuppressedConv2d.from_conv2d(conv, sigma=sigma, alpha=alpha, trainable_alpha=trainable_alpha)
    replace_module_(network, name, unit)


def _varied_push_pull(
    network: nn.Module,
    *,
    avg_kernel_sizes: Sequence[int] = (5,),
    pull_constant: str = "filter",
    alpha: float = 1.0,
    trainable_alpha: bool = False,
    alpha_limit: float | None = None,
    where: Sequence[str] = (),
    blur: str | None = None,
    blur_kernel_size: int = 3,
) -> None:
    """The first convolution, and those whose name fits a pattern of ``where``, become a variation of the unit.

    With ``blur`` the network is blurred besides where the layer of that kind blurs it.
    """
    if blur is not None:
        require_name("blur", blur, ("blurpool", "blurred-conv"))
    elif blur_kernel_size != 3:
        raise InputError(
            f"blur_kernel_size is {blur_kernel_size!r} and blur is not given; choose blur 'blurpool' or 'blurred-conv'"
        )
    first, _ = _first_conv(network)
    names = [first, *_convs_matching(network, where, without=first)]
    blurred = _convs_to_blur(network) if blur == "blurred-conv" else []
    units = {
        name: VariedPushPullConv2d.from_conv2d(
            replaceable_conv(network, name),
            avg_kernel_sizes=avg_kernel_sizes,
            pull_constant=pull_constant,
            alpha=alpha,
            trainable_alpha=trainable_alpha,
            alpha_limit=alpha_limit,
            blur_kernel_size=blur_kernel_size if name in blurred else None,
        )
        for name in names
    }
    if blur == "blurpool":
        if where:
            raise InputError("where and blur 'blurpool' are both given; allowed: one of them, or blur 'blurred-conv'")
        _blurpool(network, blur_kernel_size=blur_kernel_size)
        units[first].stride = _first_conv(network)[1].stride  # 1 where the blur now subsamples in its stead
    elif blurred:
        _blur_convs(network, [name for name in blurred if name not in units], blur_kernel_size)
    for name, unit in units.items():
        replace_module_(network, name, unit)


def _convs_matching(network: nn.Module, patterns: Sequence[str], *, without: str) -> list[str]:
    """The names of the convolutions that fit a pattern such as ``layer1.*.conv1``, in the order of the network."""
    if isinstance(patterns, str) or not isinstance(patterns, Iterable):
        raise InputError(f"where is {patterns!r}; give several as a list, one as [{patterns!r}]")
    names = [name for name, module in network.named_modules() if isinstance(module, nn.Conv2d)]
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in names):
            raise InputError(
                f"where has '{pattern}', which fits no convolution of the network; it has {', '.join(names)}"
            )
    return [name for name in names if name != without and any(fnmatchcase(name, pattern) for pattern in patterns)]


def _blurred_conv(network: nn.Module, *, blur_kernel_size: int = 3) -> None:
    """The first convolution and every one of stride 2 are blurred before they subsample (Vasconcelos et al. 2020)."""
    _blur_convs(network, _convs_to_blur(network), blur_kernel_size)


def _blur_convs(network: nn.Module, names: Sequence[str], side: int) -> None:
    """Blur the responses of these convolutions, and the shortcuts that subsample."""
    convs = {name: replaceable_conv(network, name) for name in names}  # all, before the first is replaced
    for name, conv in convs.items():
        replace_module_(network, name, BlurredConv2d.from_conv2d(conv, blur_kernel_size=side))
    _blur_shortcuts(network, side)


def _convs_to_blur(network: nn.Module) -> list[str]:
    """The names of the first convolution and of those that subsample."""
    first, _ = _first_conv(network)
    strides = {name: module.stride for name, module in network.named_modules() if isinstance(module, nn.Conv2d)}
    for name, stride in strides.items():
        if stride not in {(1, 1), (2, 2)}:
            raise InputError(
                f"layer 'blurred-conv' blurs convolutions of stride 1 and 2, but '{name}' has {stride}; "
                "choose a network that subsamples by 2 at a time"
            )
    return [name for name, stride in strides.items() if name == first or stride != (1, 1)]


def _blurpool(network: nn.Module, *, blur_kernel_size: int = 3) -> None:
    """Every subsampling of a ResNet follows a blur of the rectified response (Zhang 2019).

    A strided convolution runs at stride 1, and its response is blurred and subsampled after its activation, by the
    convolution that takes it; a max-pool runs at stride 1 and is followed by the blur; a strided shortcut is blurred
    first. A CIFAR stem does not subsample and stays as it is.
    """
    if not (isinstance(network, CifarResNet) or _is_torchvision_resnet(network)):
        raise InputError(
            f"layer 'blurpool' knows the CIFAR ResNets and torchvision's, not {type(network).__name__}: the blur must "
            "follow the activation, whose place elsewhere it cannot see; choose such a model, or kind 'blurred-conv'"
        )
    subsamplings, pooled = list(_subsamplings(network)), {}  # all, before the first is replaced
    for conv, following in subsamplings:
        taker = replaceable_conv(network, following)
        stride = (1, 1) if taker is conv else taker.stride
        pooled[following] = BlurPoolConv2d.from_conv2d(
            taker, stride=stride, blur_kernel_size=blur_kernel_size, blur_stride=conv.stride[0]
        )
    _blurpool_stem(network, blur_kernel_size)
    for conv, _ in subsamplings:
        conv.stride = (1, 1)
    for name, conv in pooled.items():
        replace_module_(network, name, conv)
    _blur_shortcuts(network, blur_kernel_size)


def _subsamplings(network: nn.Module) -> Iterator[tuple[nn.Conv2d, str]]:
    """Yield the strided convolutions of the blocks, each with the name of the one to be blurred before.

    That is the one that takes its activation, or in a shortcut itself.
    """
    for name, module in network.named_modules():
        block, _, leaf = name.rpartition(".")
        if isinstance(module, nn.Conv2d) and module.stride != (1, 1) and name.startswith("layer"):
            yield module, f"{block}.conv{int(leaf[-1]) + 1}" if leaf.startswith("conv") else name


def _blurpool_stem(network: Any, side: int) -> None:
    """Blur where the stem subsamples: after the activation of its convolution, and after its max-pool."""
    pool = getattr(network, "maxpool", None)
    strided = network.conv1.stride != (1, 1)
    if pool is None:
        if strided:
            raise InputError(
                f"layer 'blurpool' needs a {type(network).__name__} whose first convolution has stride 1, not "
                f"{network.conv1.stride}; choose such a model, or kind 'blurred-conv'"
            )
        return
    steps: list[nn.Module] = [BlurPool2d(side, _only_stride(network.conv1))] if strided else []
    if isinstance(pool, nn.MaxPool2d) and (stride := _only_stride(pool)) > 1:
        dense = nn.MaxPool2d(pool.kernel_size, stride=1, padding=pool.padding, dilation=pool.dilation)
        steps += [dense, BlurPool2d(side, stride)]
    else:
        steps.append(pool)
    network.maxpool = nn.Sequential(*steps)
    network.conv1.stride = (1, 1)


def _only_stride(module: Any) -> int:
    """The stride of a layer that has the same along both axes."""
    stride = module.stride if isinstance(module.stride, tuple) else (module.stride, module.stride)
    require_square_stride(stride)
    return int(stride[0])


def _blur_shortcuts(network: nn.Module, side: int) -> None:
    """Blur where a shortcut without parameters subsamples."""
    for name, module in list(network.named_modules()):
        if isinstance(module, Subsample) and module.stride > 1:
            replace_module_(network, name, BlurPool2d(side, module.stride))


def _is_torchvision_resnet(network: nn.Module) -> bool:
    return type(network).__module__ == "torchvision.models.resnet"


def _first_conv(network: nn.Module) -> tuple[str, nn.Conv2d]:
    name = find_first_conv(network)
    if not name:
        raise InputError(
            f"network is itself a {type(network).__name__}, in whose place nothing can be put; build the layer with "
            "its from_conv2d"
        )
    return name, replaceable_conv(network, name)


LAYER_KINDS: Mapping[str, Callable[..., None]] = {
    "upsampled-pull": _upsampled_pull,
    "blurpool": _blurpool,
    "blurred-conv": _blurred_conv,
    "surround": _surround,
    "varied-push-pull": _varied_push_pull,
}
"""What a recipe's ``layer`` may be."""

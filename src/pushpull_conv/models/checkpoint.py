"""Storing a classifier in one file, and reading weights without running code."""

import argparse
import collections
import contextlib
import json
import os
import pickle
import re
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pushpull_conv.errors import InputError, require_module
from pushpull_conv.files import atomic_write
from pushpull_conv.models.classifier import Classifier
from pushpull_conv.models.create import create_model, create_without_memory
from pushpull_conv.models.timm_convs import is_timm_conv

_METADATA_KEY = "pushpull_conv"
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, nn.ConvTranspose2d)
# What Lightning, DistributedDataParallel, torch.compile and Classifier put before a network's own names.
_PREFIXES = ("model.", "module.", "_orig_mod.", "classifier.network.", "network.")

_ENTRIES = ("state_dict", "model", "model_state_dict", "state_dict_ema")  # where checkpoints keep the weights
_OWN = (
    "pushpull_conv.layers",
    "pushpull_conv.comparison_layers",
    "pushpull_conv.models",
)  # not a training's batch norm

StrPath = str | os.PathLike[str]


@dataclass(frozen=True)
class ModelSpec:
    """All that is needed, besides the weights, to build a classifier again.

    Numbers and arrays of NumPy and PyTorch become Python's, which JSON can hold.

    Attributes:
        name: As in `create_model`.
        num_classes: Number of logits.
        stem: As in `create_model`.
        pushpull: As in `create_model`.
        mean: Mean of each channel, for pixels in [0, 1].
        std: Standard deviation of each channel, for pixels in [0, 1].
        classes: Names of the classes in the order of the logits; may be empty.
        layer: As in `create_model`.
        greyscale: Whether it learned from luminance on all channels, and expects that.

    Raises:
        InputError: ``classes`` has names, but not one for each logit.

    Example:
        >>> spec = ModelSpec("resnet20", 10, None, {"avg_kernel_size": 3}, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> type(spec.build()).__name__
        'Classifier'
    """

    name: str
    num_classes: int
    stem: str | None
    pushpull: Mapping[str, Any] | None
    mean: tuple[float, ...]
    std: tuple[float, ...]
    classes: tuple[str, ...] = ()
    layer: Mapping[str, Any] | None = None
    greyscale: bool = False

    def __post_init__(self) -> None:
        for name, value in vars(self).items():
            object.__setattr__(self, name, _plain(value))  # the dataclass is frozen
        if self.classes and len(self.classes) != self.num_classes:
            raise InputError(
                f"classes has {len(self.classes)} names, num_classes is {self.num_classes!r}; give one name per class, "
                "or none"
            )

    @property
    def change(self) -> str:
        """What the plain network was given, for a sentence; "" if nothing. A unit without settings is one, too."""
        given = {"pushpull": self.pushpull, "layer": self.layer}
        return ", ".join(f"{name}={settings}" for name, settings in given.items() if settings is not None)

    def build(self) -> Classifier:
        """Create the classifier with freshly drawn weights."""
        return Classifier(create_model(self.name, **self._architecture()), self.mean, self.std)

    def _architecture(self) -> dict[str, Any]:
        return {name: getattr(self, name) for name in ("num_classes", "stem", "pushpull", "layer")}


def _plain(value: Any) -> Any:
    """Return a value, or what is in it, without types of NumPy and PyTorch."""
    if isinstance(value, Mapping):
        return {key: _plain(part) for key, part in value.items()}
    if isinstance(value, list | tuple):
        parts = [_plain(part) for part in value]
        return tuple(parts) if isinstance(value, tuple) else parts
    return value.tolist() if hasattr(value, "tolist") else value


def save_checkpoint(path: StrPath, classifier: Classifier, spec: ModelSpec) -> None:
    """Write the weights and the spec to one safetensors file, whole or not at all.

    Args:
        path: The file to create or replace.
        classifier: Whose network's state to store. It may be on any device, compiled, or in channels-last format;
            float64 is stored as float32, in which it will be built again.
        spec: How to build the classifier again; stored as JSON in the file's metadata.

    Raises:
        InputError: ``classifier`` is none; the spec builds another network, from which the file could not be loaded;
            or the folder cannot be written.

    Example:
        >>> import tempfile
        >>> spec = ModelSpec("resnet20", 10, None, None, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> path = Path(tempfile.mkdtemp()) / "model.safetensors"
        >>> save_checkpoint(path, spec.build(), spec)
        >>> load_checkpoint(path)[1] == spec
        True
    """
    if not isinstance(_uncompiled(classifier), Classifier):
        kind = type(classifier).__name__
        raise InputError(f"classifier is a {kind}; wrap your network: Classifier(network, mean=..., std=...)")
    safetensors = require_module("safetensors.torch", "train")
    network = _uncompiled(classifier.network)
    # Cloned, because safetensors stores neither shared nor non-contiguous memory.
    tensors = {
        name: _at_most_single(value).detach().cpu().clone(memory_format=torch.contiguous_format)
        for name, value in network.state_dict().items()
    }
    _require_fit(classifier, tensors, spec)
    content = safetensors.save(tensors, metadata={_METADATA_KEY: json.dumps(asdict(spec))})
    with atomic_write(path) as temporary:
        temporary.write_bytes(content)  # what safetensors itself raises on a full disk is no OSError


def _require_fit(classifier: Classifier, tensors: Mapping[str, Tensor], spec: ModelSpec) -> None:
    network = _structure(spec)
    expected, given = (
        {name: [*value.shape] for name, value in state.items()} for state in (network.state_dict(), tensors)
    )
    if difference := (
        _difference(expected, given)
        or _difference(_own_layers(network), _own_layers(classifier.network))
        or _other_convolution(network, classifier.network)
    ):
        raise InputError(
            f"spec builds another network than the classifier's: {difference}; give the spec that fits (name, "
            "num_classes, pushpull, layer), or the file would not give this network back; what no spec builds "
            "(in_chans, img_size, ...) cannot be stored this way: store its state dict, and benchmark it from Python "
            "with evaluate"
        )
    for name, value in (("mean", spec.mean), ("std", spec.std)):
        own = getattr(classifier, name).flatten().double().cpu()
        told = torch.tensor(value, dtype=torch.float64)
        if own.shape != told.shape or not torch.allclose(own, told, rtol=5e-3):  # that much bfloat16 may be away
            raise InputError(f"spec has {name} {tuple(value)}, the classifier {tuple(own.tolist())}; give one for both")


def _structure(spec: ModelSpec) -> nn.Module:
    """Return the network of a spec, without memory for its tensors where that is possible."""
    with torch.random.fork_rng(devices=[]):  # some networks cannot be built without drawing their weights
        return create_without_memory(spec.name, **spec._architecture())


def _uncompiled(model: nn.Module) -> nn.Module:
    """Return what `torch.compile` wraps, whose tensors have the names that a file gives them."""
    return getattr(model, "_orig_mod", model)


def _own_layers(network: nn.Module) -> dict[str, str]:
    """Return, by name, the layers of this package in a network, of which some compute without a tensor of their own."""
    return {name: _shown(module) for name, module in _uncompiled(network).named_modules() if _is_own(module)}


def _other_convolution(there: nn.Module, here: nn.Module, new: Collection[str] = ()) -> str:
    """Return the first convolution of both networks that does not compute the same, as `_difference` does.

    No tensor tells a stride or a padding: timm's ports of TensorFlow's networks have the tensors of its own. Other
    layers are not compared, nor those of ``new``, nor subclasses as such: a batch norm or a convolution of another
    class may compute the same.
    """
    fresh = {name.rpartition(".")[0] for name in new}
    first, second = (_convolutions(_uncompiled(network)) for network in (there, here))
    both = [name for name in first if name in second and name not in fresh]
    return _difference({name: first[name] for name in both}, {name: second[name] for name in both})


def _convolutions(network: nn.Module) -> dict[str, str]:
    return {name: _shown(part) for name, part in network.named_modules() if isinstance(part, _CONVOLUTIONS)}


def _is_own(module: nn.Module) -> bool:
    return type(module).__module__.startswith(_OWN)


def _shown(module: nn.Module) -> str:
    """Return a layer's settings, and its kind if that is known to compute something of its own."""
    kind = type(module).__name__ if _is_own(module) or is_timm_conv(module) else "convolution"
    return f"{kind}({re.sub(', alpha=[^,]*', '', module.extra_repr())})"  # a strength is a tensor


def _difference(there: Mapping[str, Any], here: Mapping[str, Any]) -> str:
    """Return the first entry in which two mappings differ, as a part of a sentence; "" if they are the same."""
    name = next((name for name in {**there, **here} if there.get(name) != here.get(name)), None)
    if name is None:
        return ""
    return f"'{name}' is {there.get(name, 'absent')} there and {here.get(name, 'absent')} here"


def _at_most_single(value: Tensor) -> Tensor:
    return value.float() if value.dtype == torch.float64 else value


def load_checkpoint(
    path: StrPath, *, build: Callable[[ModelSpec], Classifier] = ModelSpec.build
) -> tuple[Classifier, ModelSpec]:
    """Read what `save_checkpoint` wrote.

    Args:
        path: The file.
        build: Creates the classifier that the weights are for, where it is to be of a class of its own.

    Returns:
        The classifier, in evaluation mode on the CPU, and its spec.

    Raises:
        InputError: The file is absent, damaged, or not such a checkpoint.
    """
    tensors, metadata = _read_safetensors(Path(path))
    spec = _parse_spec(Path(path), metadata)
    classifier = build(spec)
    _load_state_(classifier.network, tensors, Path(path))
    return classifier.eval(), spec


def stored_spec(path: StrPath) -> ModelSpec | None:
    """Return the spec in a file that `save_checkpoint` wrote, None where the file is another."""
    if Path(path).suffix != ".safetensors":
        return None
    with _opened(Path(path)) as file:
        metadata = file.metadata() or {}
    return _parse_spec(Path(path), metadata) if _METADATA_KEY in metadata else None


def load_weights_(model: nn.Module, path: StrPath, *, new: Collection[str] = ()) -> None:
    """Load weights into ``model`` in place, from any common kind of file, without running code that it may hold.

    Args:
        model: A network or a `Classifier`.
        path: A ``.safetensors`` file, or a file that `torch.save` wrote: a state dict, or a checkpoint that has it
            under ``"state_dict"`` (Lightning, timm), ``"model"`` (torchvision's scripts), ``"model_state_dict"`` or,
            where there is none of these, ``"state_dict_ema"``: the first in this order counts. A checkpoint may hold
            numbers, text and an ``argparse.Namespace`` besides. Names may carry the prefixes of DDP or
            ``torch.compile``, and that of the attribute in which a Lightning module has the network, such as ``net.``.
        new: Names of tensors, such as those of a new last layer, that stay as they are where the file's have another
            shape.

    Raises:
        InputError: The file is absent, damaged, holds more than weights, or belongs to another architecture; the model
            is then as before.

    Example:
        >>> import tempfile
        >>> path = Path(tempfile.mkdtemp()) / "weights.pt"
        >>> torch.save({"state_dict": {"model.weight": torch.ones(1, 2), "model.bias": torch.zeros(1)}}, path)
        >>> layer = nn.Linear(2, 1)
        >>> load_weights_(layer, path)
        >>> layer.weight.tolist()
        [[1.0, 1.0]]
    """
    path = Path(path)
    tensors, metadata = _read_safetensors(path) if path.suffix == ".safetensors" else (_read_pickle(path), {})
    model = _uncompiled(model)
    network = model.network if isinstance(model, Classifier) else model
    if _METADATA_KEY in metadata:
        _require_same_layers(network, _parse_spec(path, metadata), path, new)
    with _restored_on_error(network):
        _load_state_(network, tensors, path, new)


def _require_same_layers(network: nn.Module, stored: ModelSpec, path: Path, new: Collection[str]) -> None:
    """Refuse weights that learned with other layers in the network, also where their tensors fit.

    Those of a plain network go into one with a blur, whose convolutions stride otherwise.
    """
    learned = _structure(stored)
    difference = _difference(_own_layers(learned), _own_layers(network))
    if difference and stored.change:
        raise InputError(
            f"weights file '{path}' was stored with {stored.change} in the network: {difference}; "
            "give the model the same pushpull and layer, or read the file with load_checkpoint"
        )
    if not difference and (other := _other_convolution(learned, network, new)):
        raise InputError(_another_architecture(path, [other]))


@contextlib.contextmanager
def _restored_on_error(network: nn.Module) -> Iterator[None]:
    """Put a network's tensors back where loading fails: PyTorch copies all that fit before it says what does not."""
    tensors = [tensor for tensor in (*network.parameters(), *network.buffers()) if not is_lazy(tensor)]
    before = [tensor.detach().clone() for tensor in tensors]
    try:
        yield
    except BaseException:
        with torch.no_grad():
            for tensor, value in zip(tensors, before, strict=True):
                tensor.copy_(value)
        raise


def _load_state_(network: nn.Module, tensors: dict[str, Tensor], path: Path, new: Collection[str] = ()) -> None:
    network = _uncompiled(network)
    expected = network.state_dict()
    tensors = _without_prefixes(tensors, expected, path)
    tensors |= {name: expected[name] for name in new if name in tensors and tensors[name].shape != expected[name].shape}
    state = collections.OrderedDict(tensors)
    state._metadata = {"": {"version": network._version}}  # type: ignore[attr-defined]  # MNASNet asks for one
    try:
        result = network.load_state_dict(state, strict=False)
    except RuntimeError as error:
        shapes = [
            f"'{name}' is {list(tensors[name].shape)} instead of {list(value.shape)}"
            for name, value in expected.items()
            if name in tensors and tensors[name].shape != value.shape
        ]
        raise InputError(_another_architecture(path, shapes or [" ".join(str(error).split())])) from error
    missing = [f"'{name}' is missing" for name in result.missing_keys]
    excess = [f"'{name}' is not in the model" for name in result.unexpected_keys]
    if missing or excess:
        raise InputError(_another_architecture(path, missing[:2] + excess[:2], len(missing) + len(excess)))


def _another_architecture(path: Path, differences: list[str], count: int | None = None) -> str:
    shown = "; ".join(differences[:4])
    more = (count or len(differences)) - min(4, len(differences))
    return (
        f"weights file '{path}' belongs to another architecture: {shown}{f'; and {more} more' if more else ''}; "
        "give the file's own model name, num_classes, stem, pushpull and layer, or store the model with "
        "save_checkpoint, whose file names them"
    )


def _without_prefixes(tensors: dict[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """Strip wrappers' prefixes, one after another, until names fit ``expected`` or none is left; then any that fits."""
    given = tensors
    while not tensors.keys() & expected.keys():
        prefix = next((prefix for prefix in _PREFIXES if any(name.startswith(prefix) for name in tensors)), None)
        if prefix is None:
            return _below_any_name(given, expected, path) or tensors
        tensors = _below(tensors, prefix)
    return tensors


def _below_any_name(tensors: dict[str, Tensor], expected: Mapping[str, Tensor], path: Path) -> dict[str, Tensor]:
    """The network in the file that has all names of ``expected``, whatever it is called; empty where none has."""
    first = f".{next(iter(expected), '')}"
    names = [name.removesuffix(first) + "." for name in tensors if name.endswith(first)]
    fitting = [name for name in names if all(name + tensor in tensors for tensor in expected)]
    if len(fitting) > 1:
        raise InputError(
            f"weights file '{path}' holds {len(fitting)} networks that fit: {', '.join(fitting)}; store the state_dict "
            "of one alone"
        )
    return _below(tensors, fitting[0]) if fitting else {}


def _below(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    with _opened(path) as file:
        return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[Any]:
    safetensors = require_module("safetensors", "train")
    _require_file(path)
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            yield file
    except (safetensors.SafetensorError, OSError) as error:
        raise InputError(f"weights file '{path}' is damaged or not safetensors ({error}); copy it again") from error


def _read_pickle(path: Path) -> dict[str, Tensor]:
    _require_file(path)
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # settings, and no code
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        refused = re.search(r"GLOBAL (\S+)", str(error))
        what = f"holds {refused[1]}, a Python object" if refused else "is damaged, or holds Python objects"
        raise InputError(
            f"weights file '{path}' {what} that could run code; it was refused and "
            "nothing of it was executed; save a plain state dict or a .safetensors file instead"
        ) from error
    entries = [content.get(name) for name in _ENTRIES] if isinstance(content, dict) else []
    state = next((entry for entry in entries if isinstance(entry, dict)), content)
    if not isinstance(state, dict) or not state or not all(isinstance(value, Tensor) for value in state.values()):
        raise InputError(f"weights file '{path}' holds no state dict; save model.state_dict() with torch.save")
    return state


def _require_file(path: Path) -> None:
    if not path.is_file():
        raise InputError(f"weights file '{path}' does not exist; check the path")


def _parse_spec(path: Path, metadata: Mapping[str, str]) -> ModelSpec:
    try:
        earlier = {"layer": None, "greyscale": False}  # the first files lack them
        stored: dict[str, Any] = earlier | json.loads(metadata[_METADATA_KEY])
        values: dict[str, Any] = {field.name: stored[field.name] for field in fields(ModelSpec)}
        values |= {"name": str(values["name"]), "classes": tuple(values["classes"])}  # JSON has lists only
        values |= {name: tuple(map(float, values[name])) for name in ("mean", "std")}
    except (KeyError, TypeError, ValueError) as error:
        raise InputError(f"checkpoint '{path}' holds no model spec; read its weights with load_weights_") from error
    return ModelSpec(**values)

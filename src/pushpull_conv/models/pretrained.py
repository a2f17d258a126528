"""The trained classifiers that come with the package, each a folder of weights, counts and model card."""

import importlib.resources
from pathlib import Path

from pushpull_conv.errors import InputError, require_name
from pushpull_conv.files import MODEL_FILE
from pushpull_conv.models.checkpoint import StrPath, load_checkpoint
from pushpull_conv.models.classifier import Classifier

BASELINE = "cifar10-resnet20-baseline"
"""The shipped model that the others are compared with."""


def pretrained_models() -> tuple[str, ...]:
    """Return the names of the trained models that come with the package.

    Example:
        >>> for name in pretrained_models():
        ...     print(name)
        cifar10-resnet20-augmix-blurredconv
        cifar10-resnet20-baseline
        cifar10-resnet20-blurredconv
        cifar10-resnet20-pp3
        cifar10-resnet20-pp5
        cifar10-resnet20-pp5-trainable
    """
    return tuple(sorted(file.parent.name for file in _home().glob(f"*/{MODEL_FILE}")))


def load_pretrained(name: str) -> Classifier:
    """Load a trained model that comes with the package; nothing is downloaded.

    Args:
        name: One of `pretrained_models`.

    Returns:
        The classifier, in evaluation mode on the CPU in float32. It maps uint8 images ``[B, 3, 32, 32]`` (or floats in
        [0, 1]) to logits ``[B, 10]``; the model's card lists the classes in their order.

    Raises:
        InputError: There is no such model; the message names the nearest. Or safetensors is not installed.

    Example:
        >>> import torch
        >>> model = load_pretrained("cifar10-resnet20-pp3")
        >>> model(torch.zeros(2, 3, 32, 32, dtype=torch.uint8)).shape
        torch.Size([2, 10])
    """
    return load_checkpoint(pretrained_folder(name) / MODEL_FILE)[0]


def pretrained_folder(name: str) -> Path:
    """Return the folder of a trained model that comes with the package.

    It holds ``model.safetensors``, ``results.json`` (the counts of its benchmark), ``README.md`` (the model card) and
    ``config.json`` (what Hugging Face needs besides).

    Args:
        name: One of `pretrained_models`.

    Raises:
        InputError: There is no such model; the message names the nearest.

    Example:
        >>> sorted(file.name for file in pretrained_folder("cifar10-resnet20-pp3").iterdir())
        ['README.md', 'config.json', 'model.safetensors', 'results.json']
    """
    return _home() / require_name("pretrained model", name, pretrained_models())


def find_checkpoint(model: StrPath, *others: str) -> Path:
    """Return the file of the trained model that a user names.

    Args:
        model: A folder that holds one, its ``.safetensors`` file, or one of `pretrained_models`. A folder goes before a
            shipped model of the same name.
        others: What else the caller accepts, for the message.

    Returns:
        The path, which `load_checkpoint` looks at first.

    Raises:
        InputError: ``model`` is none of these; the message names the nearest. Or it is a folder without a model.

    Example:
        >>> find_checkpoint("cifar10-resnet20-pp3").parent.name, str(find_checkpoint("mine.safetensors"))
        ('cifar10-resnet20-pp3', 'mine.safetensors')
    """
    path = Path(model)
    if path.is_dir():
        if not (path / MODEL_FILE).exists():
            raise InputError(f"folder '{model}' has no {MODEL_FILE}; give one of a trained model")
        return path / MODEL_FILE
    if path.suffix == ".safetensors":
        return path
    allowed = [*pretrained_models(), "a folder with a trained model", "a .safetensors file", *others]
    return pretrained_folder(require_name("trained model", str(model), allowed)) / MODEL_FILE


def _home() -> Path:
    return Path(str(importlib.resources.files("pushpull_conv") / "pretrained"))

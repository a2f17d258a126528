"""Classifiers that start from the weights of another: a library's, a trained model's, or those of a file."""

import hashlib
from dataclasses import replace
from pathlib import Path

from torch import nn

from pushpull_conv.errors import InputError
from pushpull_conv.models.checkpoint import ModelSpec, load_weights_, stored_spec
from pushpull_conv.models.classifier import Classifier
from pushpull_conv.models.create import (
    change_,
    create_model,
    create_without_memory,
    pretrained_classes,
    pretrained_statistics,
    require_change,
)
from pushpull_conv.models.pretrained import find_checkpoint, pretrained_models

PRETRAINED = "pretrained"


def with_weights(spec: ModelSpec, weights: str, *, new_head: bool = False) -> tuple[Classifier, ModelSpec]:
    """Build a classifier around the weights of a plain network, in which the spec's unit or layer is then put.

    Args:
        spec: What to build. Its normalisation gives way to that of the weights: the trained model's or the library's,
            else ImageNet's; and without a new head its class names, and whether it expects luminance, to what the
            trained model says.
        weights: ``"pretrained"`` for those that timm or torchvision publish; a trained model, as `find_checkpoint`
            takes it; or a file, as `load_weights_` takes it.
        new_head: Allow weights for another number of classes; the last layer then starts afresh. Where they are for
            the same classes in another order, its rows are put into that of ``spec``.

    Returns:
        The classifier, in training mode on the CPU, and the spec that rebuilds it.

    Raises:
        InputError: There are no such weights, or they belong to another architecture or number of classes, or were
            trained with a unit or layer in the network.

    Example:
        >>> spec = ModelSpec("resnet20", 2, None, {"avg_kernel_size": 3}, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> classifier, spec = with_weights(spec, "cifar10-resnet20-baseline", new_head=True)
        >>> classifier.network.conv1.avg_kernel_size, round(spec.mean[0], 3)
        (3, 0.491)
    """
    require_change(spec.pushpull, spec.layer)
    stored = None
    if weights == PRETRAINED:
        network = create_model(spec.name, num_classes=spec.num_classes, stem=spec.stem, pretrained=True)
        if not new_head:
            _require_classes(spec)
    else:
        file = _file(weights)
        stored = stored_spec(file)
        if stored and stored.change:
            raise InputError(
                f"weights '{weights}' were trained with {stored.change} in the network, and a plain "
                "one would compute something else with them; give those of a plain network, or use the model itself"
            )
        network = create_model(spec.name, num_classes=spec.num_classes, stem=spec.stem)
        head = _head(spec) if new_head else set()
        _load_(network, file, spec, head)
        if stored and stored.classes and set(stored.classes) == set(spec.classes):
            _reorder_(network, head, [stored.classes.index(name) for name in spec.classes])
    change_(network, spec.pushpull, spec.layer)
    mean, std = (stored.mean, stored.std) if stored else pretrained_statistics(spec.name)
    spec = replace(spec, mean=mean, std=std)
    if stored and not new_head:
        spec = replace(spec, classes=stored.classes, greyscale=stored.greyscale)
    return Classifier(network, spec.mean, spec.std), spec


def identity_of_weights(weights: str) -> str:
    """Return what tells weights apart that `with_weights` takes: the digest of their file; a library's have none."""
    if weights == PRETRAINED or not (file := _file(weights)).is_file():
        return weights
    with file.open("rb") as content:
        return f"weights {hashlib.file_digest(content, 'sha256').hexdigest()[:12]}"


def _file(weights: str) -> Path:
    is_trained_model = weights in pretrained_models() or Path(weights).is_dir()
    return find_checkpoint(weights) if is_trained_model else Path(weights)


def _load_(network: nn.Module, file: Path, spec: ModelSpec, head: set[str]) -> None:
    """Load weights, but for a ``head`` of another shape; without one, say if only the number of classes differs."""
    try:
        load_weights_(network, file, new=head)
    except InputError as error:
        load_weights_(network, file, new=_head(spec))  # raises for what else differs
        raise InputError(
            f"weights '{file}' are of '{spec.name}', but for another number of classes than the data's "
            f"{spec.num_classes}; give the images of all classes that they know, or fine-tune them first, with a "
            "recipe whose model has these weights"
        ) from error


def _require_classes(spec: ModelSpec) -> None:
    if (known := pretrained_classes(spec.name)) != spec.num_classes:
        raise InputError(
            f"weights are 'pretrained', those of '{spec.name}' know {known} classes and the data have "
            f"{spec.num_classes}; fine-tune them first, with a recipe whose model has these weights"
        )


def _reorder_(network: nn.Module, head: set[str], places: list[int]) -> None:
    """Put the rows of the last layer, one for each class, into another order."""
    state = network.state_dict()
    for name in head:
        state[name].copy_(state[name][places])


def _head(spec: ModelSpec) -> set[str]:
    """Return the names of the tensors whose shape follows from the number of classes."""
    networks: list[nn.Module] = [
        create_without_memory(spec.name, num_classes=classes, stem=spec.stem) for classes in (2, 3)
    ]
    two, three = (network.state_dict() for network in networks)
    return {name for name, value in two.items() if value.shape != three[name].shape}

"""The classifier that a user names: a trained model of a run, one that is shipped, or a network with its weights."""

from collections.abc import Sequence
from pathlib import Path

from pushpull_conv.data import ImageSource
from pushpull_conv.data.spec import is_greyscale, require_own_names, shortened
from pushpull_conv.errors import InputError
from pushpull_conv.models import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    PRETRAINED,
    ChosenLogits,
    Classifier,
    ModelSpec,
    find_checkpoint,
    load_checkpoint,
    pretrained_models,
    pretrained_synsets,
    with_weights,
)


def open_classifier(
    model: str, images: ImageSource, weights: str | None = None, *, remedy: str | None = None
) -> Classifier | ChosenLogits:
    """Return the classifier that a user names; where it knows more classes than the images have, among theirs alone.

    Args:
        model: A trained model, as `find_checkpoint` takes it, or a name that `create_model` knows.
        images: What it is to classify; a model whose weights are in a file that does not name their classes gets as
            many logits as these have.
        weights: Those of a model that `create_model` knows, as `with_weights` takes them; None for a trained one.
        remedy: What to do where it does not know the images' classes; None: give others, or fine-tune it.

    Raises:
        InputError: There is no such model, it does not know the images' classes, weights are missing, do not fit or
            are too many, or the model was trained in greyscale and the images are in colour.
    """
    if Path(model).suffix == ".py":
        raise InputError(f"'{model}' is code; a network of your own is benchmarked from Python: see docs/benchmark.md")
    classifier, spec = _trained(model, images) if weights is None else _around(weights, model, images)
    if spec.greyscale and not is_greyscale(images.name):
        raise InputError(f"'{weights or model}' was trained in greyscale, {images.name} is in colour; add --greyscale")
    if not spec.classes:  # a model need not name them
        if spec.num_classes != images.num_classes:
            raise InputError(
                f"'{model}' was trained on {spec.num_classes} classes, which it does not name; {images.name} has "
                f"{images.num_classes}"
            )
        return classifier
    places = _places_of(images, spec.classes, weights or model, tunable=not spec.change, remedy=remedy)
    return classifier if places == list(range(spec.num_classes)) else ChosenLogits(classifier, places)


def _trained(model: str, images: ImageSource) -> tuple[Classifier, ModelSpec]:
    if model.startswith(("timm:", "torchvision:")):
        raise InputError(f"'{model}' is a network without weights; add --weights FILE, or --weights pretrained")
    if Path(model).is_file() and Path(model).suffix != ".safetensors":
        raise InputError(f"'{model}' does not tell its network; name that, as in timm:resnet50 --weights {model}")
    return load_checkpoint(find_checkpoint(model, "or another model's name with --weights"))


def _around(weights: str, model: str, images: ImageSource) -> tuple[Classifier, ModelSpec]:
    if Path(model).is_dir() or Path(model).suffix == ".safetensors" or model in pretrained_models():
        raise InputError(f"--weights '{weights}' goes with a model's name, but '{model}' holds its own weights")
    known = pretrained_synsets(model) if weights == PRETRAINED else ()
    if known:
        _places_of(images, known, weights, tunable=True)  # before they are downloaded
    plain = ModelSpec(model, len(known) or images.num_classes, None, None, IMAGENET_MEAN, IMAGENET_STD, known)
    return with_weights(plain, weights)


def _places_of(
    images: ImageSource, known: Sequence[str], model: str, *, tunable: bool, remedy: str | None = None
) -> list[int]:
    """Return the place of each of the images' classes among those that a model knows; `InputError` if one is not.

    ``tunable``: whether a recipe may start from its weights, which are those of a plain network. ``remedy``: as for
    `open_classifier`.
    """
    require_own_names(known, f"model '{model}'")
    places = {name: place for place, name in enumerate(known)}
    if unknown := [name for name in images.classes if name not in places]:
        tune = "a recipe whose model has these weights" if tunable else "a loop of your own, as in docs/pretrained.md"
        other = f"give images of its classes, whose folders have their names, or fine-tune it, with {tune}"
        raise InputError(
            f"'{model}' was trained on {len(known)} classes ({shortened(known)}); {images.name} has others "
            f"({shortened(unknown)}); {remedy or other}"
        )
    return [places[name] for name in images.classes]

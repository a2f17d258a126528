"""Pictures under the corruptions, under the augmentations, and in a trained unit, as the command line draws them."""

from pathlib import Path

from torch import Tensor

from pushpull_conv.augment import AUGMENTATIONS
from pushpull_conv.augment.draws import draws
from pushpull_conv.benchmark import SUITES
from pushpull_conv.corruptions import load_frost
from pushpull_conv.corruptions.spec import NAMES
from pushpull_conv.data.image_set import luminance
from pushpull_conv.data.photos import read_photo
from pushpull_conv.errors import InputError, require_name
from pushpull_conv.layers import PushPullConv2d
from pushpull_conv.models import find_checkpoint, load_checkpoint
from pushpull_conv.report import Sample, require_picture, write_augmentations, write_explanation, write_gallery

PROFILE_SIDES = {suite.profile: suite.side for suite in SUITES.values()}
"""Side in pixels of the images that each profile's severities were made for."""
DRAWS_SHOWN = 7
"""How many times `augment` draws from each augmentation."""
LARGEST_EXPLAINED = 512
"""Pixels to which `explain` scales the longer side of a larger picture: more could not be seen in its figure."""


def preview(photo: Path, out: Path, *, profile: str, seed: int, frost: str) -> Path:
    """Draw a picture under all corruptions and severities; the arguments are those of ``pushpull corrupt``.

    Raises:
        InputError: The picture cannot be read, the profile or frost source is unknown, or the figure cannot be written.
    """
    picture = _picture(photo, profile, out)
    sample = Sample(photo=picture, seed=seed, profile=profile, frost=load_frost(frost))
    return write_gallery(out, sample, NAMES)


def augment(photo: Path, out: Path, *, profile: str, seed: int) -> Path:
    """Draw a picture as each augmentation gives it; the arguments are those of ``pushpull augment``.

    Raises:
        InputError: The picture cannot be read, the profile is unknown, the figure cannot be written, or a library that
            it needs is missing.
    """
    picture = _picture(photo, profile, out)
    drawn = {known.title: draws(name, picture, DRAWS_SHOWN, seed=seed) for name, known in AUGMENTATIONS.items()}
    return write_augmentations(out, picture, drawn)


def _picture(photo: Path, profile: str, out: Path) -> Tensor:
    """Read a picture at a profile's size, for a figure that can be written."""
    side = PROFILE_SIDES[require_name("profile", profile, PROFILE_SIDES)]
    picture = read_photo(photo, side=side)
    require_picture(out)
    return picture


def explain(model: str, photo: Path, out: Path, *, filters: int) -> Path:
    """Draw what a trained push-pull stem does to a picture; the arguments are those of ``pushpull explain``.

    A model of greyscale images gets its luminance.

    Raises:
        InputError: The model or the picture cannot be read, the model has no push-pull unit that takes its three
            channels, ``filters`` is out of range, or the figure cannot be written.
    """
    classifier, spec = load_checkpoint(find_checkpoint(model))
    unit = next((module for module in classifier.modules() if isinstance(module, PushPullConv2d)), None)
    if unit is None or unit.in_channels != 3:
        has = "no push-pull unit" if unit is None else f"a push-pull unit over {unit.in_channels} channels"
        raise InputError(f"'{model}' ({spec.name}) has {has}; give a model with one over the image's three channels")
    if not 1 <= filters <= unit.out_channels:
        raise InputError(f"filters is {filters}; allowed: 1 to {unit.out_channels}, as many as the unit has")
    picture = read_photo(photo, longest=LARGEST_EXPLAINED)
    if spec.greyscale:
        picture = luminance(picture[None])[0]
    require_picture(out)
    return write_explanation(out, unit, picture, classifier.normalise(picture[None]), filters=filters)

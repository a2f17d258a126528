"""The augmentations by name: what they are, where they work, and which test corruptions they come close to.

Sources: AutoAugment, arXiv 1805.09501; RandAugment, 1909.13719; TrivialAugment, 2103.10158; AugMix, 1912.02781; PRIME,
2112.13547.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from pushpull_conv.corruptions.spec import spoken
from pushpull_conv.errors import require_name

CIFAR_SIDE = 32
"""Up to this side in pixels pictures are augmented as the papers do CIFAR-10, larger ones as they do ImageNet."""


@dataclass(frozen=True)
class Augmentation:
    """One augmentation.

    Attributes:
        name: As recipes write it.
        title: As tables and figures write it.
        where: ``"image"``: one picture at a time, while it is loaded (`image_policy`); ``"batch"``: on the device of a
            batch (`prime`).
        overlaps: For every operation that it may draw the test corruptions that the operation comes close to, so that a
            network trained with it has seen something like them; () for those that resemble none.
        remark: What `overlap_note` adds, in brackets.
    """

    name: str
    title: str
    where: Literal["image", "batch"]
    overlaps: Mapping[str, tuple[str, ...]]
    remark: str = ""


# Brightness, colour, contrast and sharpness are what the authors of AugMix leave out because ImageNet-C tests it:
# Hendrycks et al., ICLR 2020, arXiv 1912.02781. A sharpness below 1 averages neighbours.
_OVERLAPS: Mapping[str, tuple[str, ...]] = {
    "Brightness": ("brightness",),
    "Color": ("saturate",),
    "Contrast": ("contrast",),
    "Sharpness": ("defocus_blur", "gaussian_blur"),
}
_SHARED = (
    "ShearX",
    "ShearY",
    "TranslateX",
    "TranslateY",
    "Rotate",
    "Posterize",
    "Solarize",
    "AutoContrast",
    "Equalize",
)


def _operations(*names: str) -> Mapping[str, tuple[str, ...]]:
    return MappingProxyType({name: _OVERLAPS.get(name, ()) for name in names})


AUGMENTATIONS: Mapping[str, Augmentation] = MappingProxyType(
    {
        augment.name: augment
        for augment in (
            Augmentation(
                "autoaugment",
                "AutoAugment",
                "image",
                _operations(*_SHARED, *_OVERLAPS, "Invert"),
                remark="Brightness in its CIFAR-10 policy only",
            ),
            Augmentation(
                "randaugment",
                "RandAugment",
                "image",
                _operations("Identity", *_SHARED, *_OVERLAPS),
            ),
            Augmentation(
                "trivialaugment",
                "TrivialAugment",
                "image",
                _operations("Identity", *_SHARED, *_OVERLAPS),
            ),
            Augmentation(
                "augmix",
                "AugMix",
                "image",
                _operations(*_SHARED),
            ),
            Augmentation(
                "prime",
                "PRIME",
                "batch",
                MappingProxyType(
                    {
                        "random filters": ("defocus_blur", "gaussian_blur"),
                        "random warps": ("elastic_transform",),
                        "random colour maps": ("brightness", "contrast"),
                    }
                ),
            ),
        )
    }
)
"""Every augmentation by its name."""


def overlap_note(name: str) -> str:
    """Say in one sentence which test corruptions an augmentation comes close to.

    Args:
        name: One of `AUGMENTATIONS`.

    Raises:
        InputError: ``name`` is unknown.

    Example:
        >>> overlap_note("augmix")
        'AugMix draws no operation that comes close to a test corruption.'
        >>> overlap_note("trivialaugment").partition(": ")[2]
        'Brightness (brightness), Color (saturate), Contrast (contrast), Sharpness (defocus blur, gaussian blur).'
    """
    augment = AUGMENTATIONS[require_name("augmentation", name, AUGMENTATIONS)]
    close = [
        f"{operation} ({', '.join(spoken(corruption) for corruption in corruptions)})"
        for operation, corruptions in augment.overlaps.items()
        if corruptions
    ]
    if not close:
        return f"{augment.title} draws no operation that comes close to a test corruption."
    remark = f" [{augment.remark}]" if augment.remark else ""
    return f"{augment.title} draws operations that come close to test corruptions: {', '.join(close)}{remark}."

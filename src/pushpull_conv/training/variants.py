"""What a row of the comparison changes: the layer in the network, the augmentation, the teacher."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self, get_args

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from pushpull_conv.augment import AUGMENTATIONS
from pushpull_conv.errors import require_name
from pushpull_conv.files import CLUSTER_FOLDER, RECIPE_FILE, REPORT_FOLDER
from pushpull_conv.functional import check_avg_kernel_size
from pushpull_conv.repeats import SEEDS, repeat_name, repeat_teacher


class Section(BaseModel):
    """A part of a recipe: unknown keys and what is no number are refused, and nothing changes it afterwards."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _no_truth_for_numbers(cls, given: Any) -> Any:
        """Refuse what pydantic would take for 1 and 0."""
        for name, value in given.items() if isinstance(given, Mapping) else ():
            field, parts = cls.model_fields.get(name), value if isinstance(value, list | tuple) else [value]
            if field and any(isinstance(part, bool) for part in parts) and _takes_numbers(field.annotation):
                raise ValueError(f"{name} is {value}, as YAML also reads yes, no, on and off; give a number")
        return given


def _takes_numbers(annotation: Any) -> bool:
    """Whether a setting of this type is a number, may be one, or has several."""
    return annotation in (int, float) or any(map(_takes_numbers, get_args(annotation)))


def _checked(avg_kernel_size: int) -> int:
    check_avg_kernel_size(avg_kernel_size)
    return avg_kernel_size


AvgKernelSize = Annotated[int, AfterValidator(_checked)]


class PushPull(Section):
    """The unit that replaces the first convolution; the arguments of `pushpull_conv.PushPullConv2d`."""

    avg_kernel_size: AvgKernelSize = 3
    alpha: float = 1.0
    trainable_alpha: bool = False


class UpsampledPull(Section):
    """The push-pull layer of 2020 in the place of the first convolution."""

    kind: Literal["upsampled-pull"]
    scale: Annotated[float, Field(ge=1, le=2)] = 2.0
    alpha: float = 1.0
    trainable_alpha: bool = False


class BlurPool(Section):
    """A blur after the activation wherever a ResNet subsamples."""

    kind: Literal["blurpool"]
    blur_kernel_size: Annotated[int, Field(ge=2, le=7)] = 3


class BlurredConv(Section):
    """A blur after the first convolution and after every one of stride 2."""

    kind: Literal["blurred-conv"]
    blur_kernel_size: Annotated[int, Field(ge=2, le=7)] = 3


class Surround(Section):
    """Surround suppression after the first convolution."""

    kind: Literal["surround"]
    sigma: Annotated[float, Field(gt=0, le=4)] = 0.5
    alpha: float = 1.0
    trainable_alpha: bool = False


class VariedPushPull(Section):
    """The unit with its choices opened, in the first convolution and in others; see ``docs/layers.md``."""

    kind: Literal["varied-push-pull"]
    avg_kernel_sizes: Annotated[tuple[AvgKernelSize, ...], Field(min_length=1)] = (5,)
    pull_constant: Literal["filter", "channel"] = "filter"
    alpha: float = 1.0
    trainable_alpha: bool = False
    alpha_limit: Annotated[float | None, Field(gt=0)] = None
    where: Annotated[tuple[str, ...], Field(description="patterns of the names of further convolutions")] = ()
    blur: Annotated[Literal["blurpool", "blurred-conv"] | None, Field(description="blur as that layer does")] = None
    blur_kernel_size: Annotated[int, Field(ge=2, le=7)] = 3


Layer = UpsampledPull | BlurPool | BlurredConv | Surround | VariedPushPull
LAYERS: Mapping[str, type[Section]] = {
    "upsampled-pull": UpsampledPull,
    "blurpool": BlurPool,
    "blurred-conv": BlurredConv,
    "surround": Surround,
    "varied-push-pull": VariedPushPull,
}
VARIANTS: Mapping[str, PushPull | Layer | None] = {
    "baseline": None,
    "PP0": PushPull(avg_kernel_size=0),
    "PP3": PushPull(avg_kernel_size=3),
    "PP5": PushPull(avg_kernel_size=5),
    "PP0-trainable": PushPull(avg_kernel_size=0, trainable_alpha=True),
    "PP3-trainable": PushPull(avg_kernel_size=3, trainable_alpha=True),
    "PP5-trainable": PushPull(avg_kernel_size=5, trainable_alpha=True),
    "PP2020": UpsampledPull(kind="upsampled-pull"),
    "PP2020-trainable": UpsampledPull(kind="upsampled-pull", trainable_alpha=True),
    "BlurPool": BlurPool(kind="blurpool"),
    "BlurredConv": BlurredConv(kind="blurred-conv"),
    "Surround": Surround(kind="surround"),
    "Surround-trainable": Surround(kind="surround", trainable_alpha=True),
    "PP5-bounded": VariedPushPull(kind="varied-push-pull", trainable_alpha=True, alpha_limit=1.0),
    "PP5-channel": VariedPushPull(kind="varied-push-pull", pull_constant="channel"),
    "PP-mixed": VariedPushPull(kind="varied-push-pull", avg_kernel_sizes=(1, 3, 5, 7)),
    "PP5-deep": VariedPushPull(kind="varied-push-pull", where=("layer1.*.conv1",)),
    "PP5-BlurPool": VariedPushPull(kind="varied-push-pull", blur="blurpool"),
    "PP5-BlurredConv": VariedPushPull(kind="varied-push-pull", blur="blurred-conv"),
    "PP5-trainable-BlurredConv": VariedPushPull(kind="varied-push-pull", trainable_alpha=True, blur="blurred-conv"),
}
"""What a recipe may write, beside any ``PP<size>-a<alpha>``: each layer's published settings and ours, by name."""


class Augment(Section):
    """One of `pushpull_conv.augment.AUGMENTATIONS`, on top of the recipe's crop and flip."""

    policy: Annotated[str, AfterValidator(lambda name: require_name("augmentation", name, AUGMENTATIONS))]
    consistency: Annotated[
        float,
        Field(ge=0, description="weight of the Jensen-Shannon divergence between an image and two augmented versions"),
    ] = 0.0


AUGMENTS: Mapping[str, Augment] = {
    "AutoAug": Augment(policy="autoaugment"),
    "AugMix": Augment(policy="augmix"),
    "AugMix-JSD": Augment(policy="augmix", consistency=12.0),
    "PRIME": Augment(policy="prime"),
    "RandAug": Augment(policy="randaugment"),
    "TrivialAug": Augment(policy="trivialaugment"),
}
"""What a recipe may write before a ``+``, or alone: the augmentations by name; 12 is the weight in AugMix's paper."""


class Distillation(Section):
    """Learn from another variant's outputs, too (Hinton, Vinyals & Dean, arXiv 1503.02531)."""

    teacher: Annotated[str, Field(description="name of a variant of the same recipe, which is trained before")]
    temperature: Annotated[float, Field(gt=0, description="both outputs' logits are divided by it")] = 4.0
    weight: Annotated[float, Field(gt=0, le=1, description="share of the teacher's part in the loss")] = 0.9


class Variant(Section):
    """One row of the comparison: a name and what it changes (nothing: the network as it is)."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9+._-]*$")]
    pushpull: PushPull | None = None
    layer: Annotated[Layer, Field(discriminator="kind")] | None = None
    augment: Augment | None = None
    distillation: Distillation | None = None
    seed: Annotated[int | None, Field(ge=0, lt=SEEDS, description="of the training; null: the recipe's")] = None

    @model_validator(mode="after")
    def _has_a_folder_of_its_own(self) -> Self:
        if self.name in (CLUSTER_FOLDER, REPORT_FOLDER, RECIPE_FILE):
            raise ValueError(
                f"a variant cannot be called {self.name}, as other files of a run are; give it another name"
            )
        return self

    @model_validator(mode="after")
    def _one_change(self) -> Self:
        if self.pushpull and self.layer:
            raise ValueError(f"variant {self.name} has both pushpull and layer; give it one of them")
        return self

    def repeated(self, seed: int) -> Self:
        """Return the same variant, trained with another seed, as its teacher is, and called as `repeat_name` says."""
        lesson = self.distillation
        if lesson:
            lesson = lesson.model_copy(update={"teacher": repeat_teacher(lesson.teacher, seed)})
        return self.model_copy(update={"name": repeat_name(self.name, seed), "seed": seed, "distillation": lesson})

    @property
    def changes(self) -> dict[str, dict[str, Any] | None]:
        """The arguments ``pushpull`` and ``layer`` of `create_model`, as a model's file keeps them."""
        sections = {"pushpull": self.pushpull, "layer": self.layer}
        return {name: section.model_dump(mode="json") if section else None for name, section in sections.items()}


def known_variant(value: Any) -> Any:
    """Let a recipe write ``PP3``, ``PP5-a0.5``, ``AugMix`` or ``AugMix+PP3`` for the variant of that name.

    What is not text is returned as it is.

    Raises:
        InputError: The text is no such name.

    Example:
        >>> known_variant("AugMix+PP5-a2")
        Variant(name='AugMix+PP5-a2', pushpull=PushPull(avg_kernel_size=5, alpha=2.0, trainable_alpha=False), \
layer=None, augment=Augment(policy='augmix', consistency=0.0), distillation=None, seed=None)
    """
    if not isinstance(value, str):
        return value
    augmented, plus, rest = value.partition("+")
    augment = AUGMENTS.get(augmented)
    if plus and augment is None:
        require_name("augmentation", augmented, AUGMENTS)
    change = _change(rest) if plus else None if augment else _change(value)
    if isinstance(change, PushPull):
        return Variant(name=value, pushpull=change, augment=augment)
    return Variant(name=value, layer=change, augment=augment)


def _change(name: str) -> PushPull | Layer | None:
    """The change of the network that a name stands for; any ``PP<size>-a<alpha>`` is one, too."""
    if swept := re.fullmatch(r"PP(\d)-a(\d+(?:\.\d+)?)", name):
        return PushPull(avg_kernel_size=int(swept[1]), alpha=float(swept[2]))
    return VARIANTS[require_name("variant", name, VARIANTS)]

"""The recipe: one YAML file that says what to train, how to benchmark it and what to compare.

A recipe is validated whole before anything starts, and nothing rewrites it afterwards.
"""

import functools
import importlib.resources
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import ErrorDetails

from pushpull_conv.benchmark import SUITES
from pushpull_conv.benchmark.evaluation import AUTOCAST_DTYPES
from pushpull_conv.data import DATA_SETS
from pushpull_conv.errors import InputError, require_name
from pushpull_conv.models.create import create_without_memory
from pushpull_conv.repeats import SEEDS, further_seeds
from pushpull_conv.training.variants import LAYERS, Section, Variant, known_variant

CropOrFlip = Annotated[str, AfterValidator(lambda name: require_name("augmentation", name, ("crop", "flip")))]
Autocast = Annotated[str, AfterValidator(lambda name: require_name("autocast dtype", name, AUTOCAST_DTYPES))]


class Data(Section):
    """Which images; where they lie is the machine's business, not the recipe's."""

    name: Annotated[str, AfterValidator(lambda name: require_name("data set", name, DATA_SETS))]
    fraction: Annotated[float, Field(gt=0, le=1, description="share of each class's training images")] = 1.0
    greyscale: Annotated[bool, Field(description="luminance on all three channels, in training and test")] = False
    unreadable: Annotated[
        Literal["stop", "skip"], Field(description="what to do about a training image that cannot be decoded")
    ] = "stop"


class Model(Section):
    """The network, before any swap; the arguments of `pushpull_conv.create_model`."""

    name: str
    stem: Literal["cifar", "imagenet"] | None = None
    weights: Annotated[
        str | None,
        Field(description="what training starts from: pretrained, a trained model or a file; null: random weights"),
    ] = None


class LearningRate(Section):
    """One cycle with cosine slopes: ``start`` rises to ``top``, then falls to ``end``."""

    start: Annotated[float, Field(gt=0)]
    top: Annotated[float, Field(gt=0)]
    end: Annotated[float, Field(gt=0)]
    rising: Annotated[float, Field(gt=0, lt=1, description="fraction of the steps that rise")] = 0.3

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if not self.end <= self.start <= self.top:
            raise ValueError(f"needs end <= start <= top, not {self.end}, {self.start}, {self.top}")
        return self


class Training(Section):
    """SGD with momentum under a one-cycle learning rate."""

    epochs: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    learning_rate: LearningRate
    momentum: Annotated[float, Field(ge=0, lt=1)] = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-5
    augmentations: tuple[CropOrFlip, ...] = ()
    precision: Literal["32-true", "bf16-mixed", "16-mixed", "64-true"] = "32-true"
    channels_last: Annotated[bool, Field(description="keep the channels of a pixel side by side in memory")] = True
    compile: Annotated[bool, Field(description="train the network through torch.compile")] = False


class Benchmark(Section):
    """How robustness is measured; the arguments of `pushpull_conv.evaluate`."""

    suite: Annotated[str, AfterValidator(lambda name: require_name("suite", name, SUITES))]
    frost: Annotated[str, Field(description="procedural, reference, or a folder of photographs")] = "procedural"
    jpeg: Annotated[bool, Field(description="store corrupted images as JPEG where the suite does")] = True
    batch_size: Annotated[int, Field(ge=1)] = 250
    autocast: Annotated[
        Autocast | None, Field(description="precision in which the model may compute; null: its own")
    ] = None
    every: Annotated[
        int | None, Field(ge=1, description="benchmark the weights after each so many epochs, too; null: the last only")
    ] = None

    @model_validator(mode="after")
    def _jpeg_can_be_left_out(self) -> Self:
        SUITES[self.suite].quality(jpeg=self.jpeg)
        return self


class Recipe(Section):
    """A whole experiment."""

    name: Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$")]
    title: str
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] = 1234
    data: Data
    model: Model
    training: Training
    benchmark: Benchmark
    baseline: str
    variants: Annotated[tuple[Annotated[Variant, BeforeValidator(known_variant)], ...], Field(min_length=1)]
    repeats: Annotated[int, Field(ge=1, le=100, description="trainings of each variant: seed, seed + 1, ...")] = 1

    @model_validator(mode="after")
    def _names_agree(self) -> Self:
        names = [variant.name for variant in self.variants]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"variants lists {', '.join(repeated)} more than once; give each its own name")
        require_name("baseline", self.baseline, names)
        return self

    @model_validator(mode="after")
    def _teachers_come_first(self) -> Self:
        for student in self.variants:
            lesson = student.distillation
            if lesson and self.variant(lesson.teacher).distillation:
                name, teacher = student.name, lesson.teacher
                raise ValueError(f"teacher {teacher} of {name} has a teacher itself; name a variant without")
        return self

    @model_validator(mode="after")
    def _repeats_differ(self) -> Self:
        if self.seed + self.repeats > SEEDS:
            raise ValueError(f"repeats is {self.repeats} from seed {self.seed} on; seeds end at {SEEDS - 1}")
        for variant in self.variants:
            if variant.seed in further_seeds(self.seed, self.repeats):
                raise ValueError(
                    f"variant {variant.name} has the seed {variant.seed}, as one of its repeats; leave its seed out"
                )
        return self

    @model_validator(mode="after")
    def _models_exist(self) -> Self:
        """Refuse at once what cannot be built."""
        for variant in self.variants:
            _require_buildable(self.model.name, self.model.stem, json.dumps(variant.changes))
        return self

    @property
    def trainings(self) -> tuple[Variant, ...]:
        """What is trained: the variants, then all again, as ``NAME@SEED``, for every further seed."""
        seeds = further_seeds(self.seed, self.repeats)
        return (*self.variants, *(variant.repeated(seed) for seed in seeds for variant in self.variants))

    def seed_of(self, variant: Variant) -> int:
        """Return the seed with which a variant is trained."""
        return self.seed if variant.seed is None else variant.seed

    def variant(self, name: str) -> Variant:
        """Return the training called ``name``, or raise `InputError` with the nearest name."""
        by_name = {variant.name: variant for variant in self.trainings}
        return by_name[require_name("variant", name, by_name)]

    def to_yaml(self) -> str:
        """Return the resolved recipe as YAML; `load_recipe` reads it back equal."""
        return _dumped(self.model_dump(mode="json"))


@functools.cache  # a run reads its recipe many times
def _require_buildable(name: str, stem: str | None, changes: str) -> None:
    """Build a network with a variant's changes, without memory or arithmetic."""
    create_without_memory(name, num_classes=2, stem=stem, **json.loads(changes))


def shipped_recipes() -> dict[str, Path]:
    """Return the recipes that come with the package, name to file."""
    folder = Path(str(importlib.resources.files("pushpull_conv") / "recipes"))
    return {path.stem: path for path in sorted(folder.glob("*.yaml"))}


def load_recipe(name_or_path: str, overrides: Sequence[str] = ()) -> Recipe:
    """Read and validate a recipe.

    Args:
        name_or_path: A shipped recipe's name (``cifar10-resnet20``) or the path of a YAML file. A file that ``extends``
            another (a shipped one by name, any by its path beside this one) gives only what differs: sections are
            merged, everything else, lists too, is replaced.
        overrides: ``key.key=value`` settings that replace the file's, the value in YAML.

    Raises:
        InputError: No such recipe, not YAML, an unknown key or a value that is not allowed.

    Example:
        >>> recipe = load_recipe("quickstart", ["training.epochs=2"])
        >>> recipe.training.epochs, [variant.name for variant in recipe.variants]
        (2, ['baseline', 'PP3'])
    """
    content = _read(name_or_path, Path())
    for override in overrides:
        _override(content, override)
    try:
        return Recipe.model_validate(content)
    except ValidationError as error:
        raise InputError(f"recipe '{name_or_path}': {_one_line(error.errors()[0])}") from error


def is_resolved(file: Path) -> bool:
    """Whether a recipe's file is as `Recipe.to_yaml` gives it, also in an earlier version, which had fewer settings.

    What somebody wrote has comments or another layout, extends another recipe, has no seed, or names variants only.
    """
    text = file.read_text(encoding="utf-8", errors="surrogateescape")
    try:
        content = yaml.safe_load(text)
    except (yaml.YAMLError, ValueError):  # a date that is none is the latter
        return False
    if not isinstance(content, dict) or not {"seed", "variants"} < content.keys() <= Recipe.model_fields.keys():
        return False
    variants = content["variants"] if isinstance(content["variants"], list) else [None]
    return all(isinstance(variant, dict) for variant in variants) and _dumped(content) == text


def _dumped(content: dict[str, Any]) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True)


def first_difference(there: Any, here: Any, key: str = "") -> str:
    """Return the first setting in which two resolved recipes, or parts of them, differ, "" if they are the same.

    Example:
        >>> first_difference({"training": {"epochs": 4}}, {"training": {"epochs": 12}})
        'training.epochs is 4 there, 12 here'
    """
    if isinstance(there, dict) and isinstance(here, dict):
        names = {**there, **here}
        below = (first_difference(there.get(name), here.get(name), f"{key}.{name}".strip(".")) for name in names)
        return next((difference for difference in below if difference), "")
    return "" if there == here else f"{key} is {there} there, {here} here"


def _read(name_or_path: str, beside: Path, extended: tuple[Path, ...] = ()) -> dict[str, Any]:
    """Return what a recipe's file says, merged into what it extends; ``extended``: the files that led here."""
    path = _find(name_or_path, beside)
    if path.resolve() in [file.resolve() for file in extended]:
        raise InputError(f"recipe '{path}' extends itself by way of {', '.join(map(str, extended))}; end the circle")
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except (OSError, ValueError, yaml.YAMLError) as error:  # a date that is none is the second
        by = f", which '{extended[-1]}' extends," if extended else ""
        raise InputError(f"recipe '{path}'{by} cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict):
        raise InputError(f"recipe '{path}' is not a mapping of keys to values; see a shipped recipe for the form")
    base = content.pop("extends", None)
    if base is None:
        return content
    if not isinstance(base, str):
        raise InputError(f"recipe '{path}' extends {base!r}; give one recipe, by its name or file")
    linked = path.is_symlink() and not (path.parent / base).exists()
    place = path.resolve().parent if linked else path.parent
    return _merged(_read(base, place, (*extended, path)), content)


class _Loader(yaml.SafeLoader):
    """Refuses a key that is there twice, of which YAML would silently take the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = set()
        for key in (key for key, _ in node.value if isinstance(key, yaml.ScalarNode)):
            if key.value in keys:
                raise yaml.YAMLError(f"line {key.start_mark.line + 1} has the key '{key.value}' again; write it once")
            keys.add(key.value)
        return super().construct_mapping(node, deep)


def _find(name_or_path: str, beside: Path) -> Path:
    if name_or_path.endswith((".yaml", ".yml")):
        return beside / name_or_path
    shipped = shipped_recipes()
    for file in (f"{name_or_path}.yaml", f"{name_or_path}.yml"):
        if name_or_path not in shipped and os.path.isfile(beside / file):  # noqa: PTH113  # a Path raises if too long
            raise InputError(f"unknown recipe '{name_or_path}'; did you mean '{file}'? A file is given with its ending")
    return shipped[require_name("recipe", name_or_path, shipped)]


def _merged(base: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    """Return ``base`` with ``changes``, section by section."""
    both = {
        key: _merged(base[key], value)
        for key, value in changes.items()
        if isinstance(value, dict) and isinstance(base.get(key), dict)
    }
    return {**base, **changes, **both}


def _override(content: dict[str, Any], override: str) -> None:
    """Set one ``a.b=value`` in the mapping read from the file."""
    key, equals, value = override.partition("=")
    *parents, last = key.strip().split(".")
    section: Any = content
    for parent in parents:
        section = section.setdefault(parent, {}) if isinstance(section, dict) else None
    if not equals or "" in (*parents, last) or not isinstance(section, dict):
        raise InputError(f"--set '{override}' is not of the form key.key=value, for example training.epochs=2")
    try:
        section[last] = yaml.load(value, _Loader)
    except (ValueError, yaml.YAMLError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"--set '{override}': the value is not YAML ({reason}); a text may need quotes") from error


def _one_line(error: ErrorDetails) -> str:
    """Say what pydantic found in one line, with the nearest valid key where a key is unknown."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "extra_forbidden":
        allowed = _section_at(error["loc"][:-1]).model_fields
        return _message_of(lambda: require_name("recipe key", str(error["loc"][-1]), allowed), where)
    if error["type"] == "union_tag_invalid":
        return _message_of(lambda: require_name("layer kind", error["ctx"]["tag"], LAYERS), where)
    if error["type"] == "model_type":
        keys = ", ".join(_section_at(error["loc"]).model_fields)
        return f"{where}: has the keys {keys}; write KEY: VALUE below it, not {error['input']!r}"
    if error["type"] == "tuple_type":
        return f"{where}: is a list; write [ONE, ANOTHER], not {error['input']!r}"
    if error["type"] == "too_short":
        return f"{where}: is empty; give one or more"
    if error["type"] == "union_tag_not_found":
        return f"{where}: has no kind; allowed: {', '.join(LAYERS)}"
    if error["type"] == "model_attributes_type":  # in the place of a layer
        given = error["input"]
        kind = given if given in list(LAYERS) else "KIND"
        return f"{where}: is a section with a kind, one of {', '.join(LAYERS)}; write {{kind: {kind}}}, not {given!r}"
    reason = error.get("ctx", {}).get("error") or error["msg"]
    given = "" if isinstance(reason, Exception) or error["type"] == "missing" else f", not {error['input']!r}"
    return f"{where}: {reason}{given}" if where else f"{reason}{given}"


def _message_of(check: Any, where: str) -> str:
    try:
        check()
    except InputError as error:
        return f"{where}: {error}"
    raise AssertionError("an unknown key is never among the allowed ones")


def _section_at(location: tuple[int | str, ...]) -> type[BaseModel]:
    """Return the section of the recipe that a pydantic error location points into."""
    section: type[BaseModel] = Recipe
    for part in location:
        if isinstance(part, str) and part in section.model_fields:
            section = _model_in(section.model_fields[part].annotation) or section
        elif str(part) in LAYERS:  # pydantic names the kind, too
            section = LAYERS[str(part)]
    return section


def _model_in(annotation: Any) -> type[BaseModel] | None:
    """Return the section class inside ``Section | None`` or ``tuple[Section, ...]``."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    found = (_model_in(argument) for argument in getattr(annotation, "__args__", ()))
    return next((model for model in found if model), None)

"""Comparing benchmarked models, from the folders that runs leave."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.console import Console
from torch import Tensor

from pushpull_conv.augment import overlap_note
from pushpull_conv.benchmark import SUITES, Header, Results, check_comparable
from pushpull_conv.comparison_layers import UpsampledPullConv2d, VariedPushPullConv2d
from pushpull_conv.comparison_layers.inhibition import InhibitedConv2d
from pushpull_conv.corruptions import load_frost
from pushpull_conv.data.photos import read_photo
from pushpull_conv.data.sets import FOLDER
from pushpull_conv.data.spec import colour_name
from pushpull_conv.errors import InputError
from pushpull_conv.files import (
    METRICS_FILE,
    MODEL_FILE,
    RECIPE_FILE,
    RESULTS_FILE,
    UNREADABLE_FILE,
    csv_rows,
    in_its_run,
    kept_epochs,
)
from pushpull_conv.functional import pull_kernel
from pushpull_conv.layers import PushPullConv2d
from pushpull_conv.models import Classifier, count_parameters, load_checkpoint, pretrained_folder, pretrained_models
from pushpull_conv.provenance import read_provenance
from pushpull_conv.repeats import variant_of
from pushpull_conv.report import Sample, scored, terminal_table, write_report
from pushpull_conv.training.recipe import Recipe, first_difference, load_recipe


def compare(folders: Sequence[Path], baseline: str, out: Path, *, console: Console) -> Path:
    """Print the comparison of benchmarked models and write its report.

    Args:
        folders: Folders with a ``results.json`` each, or folders of runs that have such folders in them.
        baseline: The label of the model to compare with.
        out: Folder of the report.
        console: Where the table is printed.

    Returns:
        The report's page.

    Raises:
        InputError: A folder has no results, results were not made alike, two have one label, none has the baseline's,
            or trainings that would be averaged differ in more than the seed.
    """
    if out.exists() and not out.is_dir():
        raise InputError(f"output folder '{out}' is a file; choose another folder")
    found = found_results(folders)
    results = [Results.load(folder / RESULTS_FILE) for folder in found]
    check_comparable(results)
    places = dict(zip((result.model for result in results), found, strict=True))
    origins = dict(zip(places, _origins(list(places.values())), strict=True))
    kernels, alphas = _read_models(places, origins)
    runs = dict.fromkeys(folder.parent for folder in found)
    recipes = {run: load_recipe(str(run / RECIPE_FILE)) for run in runs if (run / RECIPE_FILE).exists()}
    _require_trained_alike(places, recipes)
    notes = [*_augmentation_notes(recipes, places), *_unreadable_notes(found)]
    compared = scored(results, baseline, kernels=kernels, alphas=alphas, provenance=origins)
    console.print(terminal_table(compared), crop=False)
    for note in notes:
        console.print(note, highlight=False, markup=False)
    return write_report(
        out,
        compared,
        title=_title(results, found, recipes),
        recipes=[recipe.to_yaml() for recipe in recipes.values()],
        kernels=kernels,
        sample=next((sample for folder in found if (sample := _load_sample(folder, results[0].header))), None),
        provenance=origins,
        epochs={result.model: _epochs(places[result.model], result) for result in results},
        notes=notes,
    )


def _read_models(
    places: Mapping[str, Path], origins: Mapping[str, dict[str, str]]
) -> tuple[dict[str, tuple[Tensor, Tensor, Tensor]], dict[str, Tensor]]:
    """Return by label the kernels and the strength of inhibition of the models that lie beside their results.

    How many parameters each has is added to its origins, where `pushpull evaluate` has not recorded it.
    """
    kernels, alphas = {}, {}
    for label, folder in places.items():
        if not (folder / MODEL_FILE).exists():
            continue
        classifier, _ = load_checkpoint(folder / MODEL_FILE)
        origins[label]["parameters"] = str(count_parameters(classifier))
        if kernel := _stem_kernels(classifier):
            kernels[label] = kernel
        if (alpha := _inhibition(classifier)) is not None:
            alphas[label] = alpha
    return kernels, alphas


def _require_trained_alike(places: Mapping[str, Path], recipes: Mapping[Path, Recipe]) -> None:
    """Refuse to average trainings of one variant whose recipes, where they are known, differ in more than the seed."""
    firsts: dict[str, tuple[Path, dict[str, Any]]] = {}
    for label, folder in places.items():
        recipe = recipes.get(folder.parent)
        names = {training.name for training in recipe.trainings} if recipe else set()
        if recipe is None or folder.name not in names:
            continue
        settings = _settings_of(recipe, folder.name)
        first, expected = firsts.setdefault(variant_of(label), (folder, settings))
        if difference := first_difference(expected, settings):
            raise InputError(
                f"'{folder}' would be averaged with '{first}' and was trained otherwise ({difference}); compare them "
                "apart, or benchmark one under another label (pushpull evaluate --label)"
            )


def _settings_of(recipe: Recipe, name: str) -> dict[str, Any]:
    """Return what decides a training but for its seed; which images it skipped as unreadable the report tells."""
    training = recipe.variant(name).model_dump(exclude={"name", "seed"})
    if training["distillation"]:
        training["distillation"]["teacher"] = variant_of(training["distillation"]["teacher"])
    decisive = recipe.model_dump(include={"data", "model", "training"}, exclude={"data": {"unreadable"}})
    return decisive | training


def _title(results: Sequence[Results], folders: Sequence[Path], recipes: Mapping[Path, Recipe]) -> str:
    """Return the title of the one recipe that all is of, or say how much is compared on which data."""
    trained = [{run / training.name for training in recipe.trainings} for run, recipe in recipes.items()]
    if len(trained) == 1 and trained[0].issuperset(folders):
        return next(iter(recipes.values())).title
    header, models = results[0].header, f"{len(results)} model{'s' if len(results) > 1 else ''}"
    if colour_name(header.data) == FOLDER:  # which is no name that says anything
        return f"{models} on {header.images:,} images of {len(header.classes)} classes"
    return f"{header.data}, {models}"


def _augmentation_notes(recipes: Mapping[Path, Recipe], folders: Mapping[str, Path]) -> list[str]:
    """Say of each augmentation which variants learned with it, and which test corruptions it comes close to.

    Args:
        recipes: Per folder of a run its recipe.
        folders: Per label the folder of its results.
    """
    learned: dict[str, list[str]] = {}
    for run, recipe in recipes.items():
        shown = {variant_of(label) for label, folder in folders.items() if folder.parent == run}
        for variant in recipe.variants:
            if variant.augment and variant.name in shown:
                learned.setdefault(variant.augment.policy, []).append(variant.name)
    return [f"{', '.join(names)}: {overlap_note(policy)}" for policy, names in learned.items()]


def _unreadable_notes(folders: Sequence[Path]) -> list[str]:
    """Say which variants learned without images that could not be read."""
    lists = [file for folder in folders if (file := folder / UNREADABLE_FILE).exists()]
    counts = [(file.parent.name, len(csv_rows(file))) for file in lists]
    return [
        f"{name} was trained without {count} images that could not be read: {UNREADABLE_FILE}" for name, count in counts
    ]


def _epochs(folder: Path, last: Results) -> dict[int, Results]:
    """Return the results after each benchmarked epoch of a training, the last included; empty if there is no other."""
    counted = [kept for kept in kept_epochs(folder) if (kept / RESULTS_FILE).exists()]
    earlier = {int(kept.name): Results.load(kept / RESULTS_FILE) for kept in counted}
    log = folder / METRICS_FILE
    if not earlier or not log.exists():  # without it the number of the last epoch is not known
        return {}
    return dict(sorted({**earlier, len(csv_rows(log)): last}.items()))


def found_results(folders: Sequence[Path]) -> list[Path]:
    """Return the folders with results that are in those given, as `folders_with_results`, each once and in its run."""
    found = (folder for given in folders for folder in folders_with_results(given))
    return list({folder.resolve(): in_its_run(folder) for folder in found}.values())


def folders_with_results(folder: Path) -> list[Path]:
    """Return ``folder`` itself, or those in it that have results: a recipe's variants in its order, then others.

    A file of results stands for its folder, and the name of a model that comes with the package for that of the model,
    unless there is a folder of that name.

    Raises:
        InputError: There are no results in it.
    """
    if not folder.exists() and str(folder) in pretrained_models():
        return [pretrained_folder(str(folder))]
    if folder.name == RESULTS_FILE and folder.is_file():
        return [folder.parent]
    if (folder / RESULTS_FILE).exists():
        return [folder]
    inside = {file.parent.name: file.parent for file in sorted(folder.glob(f"*/{RESULTS_FILE}"))}
    if not inside:
        raise InputError(f"'{folder}' holds no {RESULTS_FILE}; give folders that pushpull run or evaluate wrote")
    recipe = load_recipe(str(folder / RECIPE_FILE)) if (folder / RECIPE_FILE).exists() else None
    names = [variant.name for variant in recipe.trainings if variant.name in inside] if recipe else []
    return [inside[name] for name in dict.fromkeys([*names, *inside])]


def _stem_kernels(classifier: Classifier) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return push kernels, pull kernels and alpha of the first layer that has them, None where there is none."""
    for layer in classifier.modules():
        if isinstance(layer, PushPullConv2d):
            push = layer.push_kernel().detach()
            return push, pull_kernel(push), layer.alpha.detach()
        if isinstance(layer, UpsampledPullConv2d | VariedPushPullConv2d):
            return layer.weight.detach(), layer.pull_kernel().detach(), layer.strength().detach()
    return None


def _inhibition(classifier: Classifier) -> Tensor | None:
    """Return the strength of inhibition of the first layer that has one and is no push-pull unit, None without."""
    layers = (module for module in classifier.modules() if isinstance(module, InhibitedConv2d))
    layer = next(layers, None)
    return None if layer is None else layer.strength().detach()


def _origins(folders: Sequence[Path]) -> list[dict[str, str]]:
    """Flatten the provenance: what training and benchmark share in all folders under its name, the rest under both."""
    records = [read_provenance(folder) for folder in folders]
    names = dict.fromkeys(name for steps in records for step in steps.values() for name in step)
    shared = {name for name in names if name != "seconds" and all(_agree(steps, name) for steps in records)}
    return [
        {
            name if name in shared else f"{step} {name}": record[name]
            for name in names
            for step, record in steps.items()
            if name in record
        }
        for steps in records
    ]


def _agree(steps: Mapping[str, Mapping[str, str]], name: str) -> bool:
    return len({record[name] for record in steps.values() if name in record}) <= 1


def _load_sample(folder: Path, header: Header) -> Sample | None:
    """Return the image that `benchmark` kept, None where it or the frost textures are not at hand."""
    pictures = sorted(folder.glob("sample-*.png"))
    source = (header.frost or "").partition("-")[0].partition(":")[0]
    if not pictures or header.seed is None or source not in {"procedural", "reference"}:
        return None
    try:
        frost = load_frost(source)
    except InputError:  # the extra that has the photographs is not installed here
        return None
    return Sample(
        photo=read_photo(pictures[0]),
        index=int(pictures[0].stem.removeprefix("sample-")),
        seed=header.seed,
        profile=SUITES[header.suite].profile,
        frost=frost,
        jpeg_quality=header.jpeg_quality,
    )

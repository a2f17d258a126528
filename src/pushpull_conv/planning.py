"""What running a recipe would do, and about how long it would take: measured by a few small steps, not guessed."""

import dataclasses
import itertools
import math
import time
from collections.abc import Sequence

import torch
from rich.table import Table

from pushpull_conv.benchmark import suite_of
from pushpull_conv.corruptions import CORRUPTIONS, SEVERITIES, corrupt, load_frost
from pushpull_conv.experiment import Experiment
from pushpull_conv.files import MODEL_FILE, RESULTS_FILE
from pushpull_conv.models import Classifier
from pushpull_conv.training.fit import build, training_batches, training_module
from pushpull_conv.training.variants import Variant

_TIMED_SEVERITY = 3
_PROBE_PIXELS = 2**17
_PROBE_SECONDS = 0.5
_HALF = {"bf16-mixed": torch.bfloat16, "16-mixed": torch.float16}


@dataclasses.dataclass(frozen=True)
class Planned:
    """What is left to do for one variant.

    Args:
        variant: Its name.
        steps: Optimiser steps, of all epochs.
        training_seconds: Estimated time of the training; 0 where it is done.
        cells: Cells of the benchmark: the clean images, and each corruption at each severity.
        benchmark_seconds: Estimated time of the benchmark; 0 where it is done.
        bytes: Estimated size of its folder when all is done.
    """

    variant: str
    steps: int
    training_seconds: float
    cells: int
    benchmark_seconds: float
    bytes: int


def plan(experiment: Experiment) -> list[Planned]:
    """Return what is left to do for each variant of an experiment, in order.

    Times are those of this machine and one device: a few training steps and one benchmarked batch of some images are
    done for every variant, and scaled up. Nothing is written.

    Raises:
        InputError: The images do not fill one batch, or do not fit the benchmark.
    """
    planned = []
    for variant in experiment.recipe.trainings:
        with experiment.console.status(f"timing a few steps of {variant.name}"):
            planned.append(_planned(experiment, variant))
    return planned


def _planned(experiment: Experiment, variant: Variant) -> Planned:
    recipe, folder = experiment.recipe, experiment.folder / variant.name
    training, test = experiment.images("train"), experiment.images("test")
    steps = len(training_batches(recipe, variant, training, torch.device("cpu"))) * recipe.training.epochs
    classifier, _ = build(recipe, variant, training)
    trained, benchmarked = (folder / MODEL_FILE).exists(), (folder / RESULTS_FILE).exists()
    images = steps * recipe.training.batch_size
    epochs = math.ceil(recipe.training.epochs / (recipe.benchmark.every or recipe.training.epochs))
    return Planned(
        variant.name,
        steps,
        0.0 if trained else images * _training_seconds(experiment, variant, classifier),
        epochs * (len(CORRUPTIONS) * len(SEVERITIES) + 1),
        0.0 if benchmarked else epochs * len(test) * _benchmark_seconds(experiment, classifier),
        _bytes(classifier, epochs),
    )


def _probe_size(experiment: Experiment) -> int:
    """How many images to time at once: enough small ones to keep the device busy, few large ones."""
    height, width = experiment.images("test").size
    return min(experiment.recipe.training.batch_size, max(4, _PROBE_PIXELS // (height * width)))


def _training_seconds(experiment: Experiment, variant: Variant, classifier: Classifier) -> float:
    """Time training steps for half a second, at least two, and give the shortest time for each image."""
    few = {"batch_size": _probe_size(experiment), "compile": False}
    settings = experiment.recipe.training.model_copy(update=few)
    recipe = experiment.recipe.model_copy(update={"training": settings})
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    dtype = torch.float64 if settings.precision == "64-true" else torch.float32
    images, teacher = experiment.images("train"), None
    if variant.distillation:
        untrained, _ = build(recipe, recipe.variant(variant.distillation.teacher), images)
        teacher = untrained.to(device, dtype)
    module = training_module(recipe, variant, classifier.to(device, dtype), steps=10, teacher=teacher)
    epoch = training_batches(recipe, variant, images, device)
    batches = itertools.chain.from_iterable(itertools.repeat(epoch))
    next(batches)  # starts the worker processes
    times: list[float] = []
    while len(times) < 3 or sum(times[1:]) < _PROBE_SECONDS:
        started = time.perf_counter()
        batch, labels, index = (values.to(device) for values in next(batches))
        with torch.autocast(device.type, _HALF.get(settings.precision), enabled=settings.precision in _HALF):
            loss, _ = module.loss((batch, labels, index), epoch=0)
        loss.backward()
        _finish(device)
        times.append(time.perf_counter() - started)
    return min(times) / settings.batch_size


def _benchmark_seconds(experiment: Experiment, classifier: Classifier) -> float:
    """Time one image's way through the whole benchmark: each corruption at a middle severity, for all five."""
    settings, test = experiment.recipe.benchmark, experiment.images("test")
    batch = next(iter(test.batches(_probe_size(experiment))))
    device = next(classifier.parameters()).device
    profile, frost = suite_of(test, settings.suite).profile, load_frost(settings.frost)
    images, index = batch.images.to(device), batch.index.to(device)
    classifier.float().eval()
    with torch.inference_mode():
        started = time.perf_counter()
        for name in CORRUPTIONS:
            classifier(corrupt(images, name, _TIMED_SEVERITY, index=index, profile=profile, frost=frost))
        _finish(device)
    return (time.perf_counter() - started) * len(SEVERITIES) / len(images)


def _finish(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def _bytes(classifier: Classifier, epochs: int) -> int:
    """The size of two checkpoints with their momentum, of the model, and of the models of other epochs."""
    weights = sum(tensor.numel() * tensor.element_size() for tensor in classifier.state_dict().values())
    return (2 * 2 + epochs) * weights


def plan_table(planned: Sequence[Planned], title: str) -> Table:
    """Return the plan for the terminal."""
    table = Table("Variant", "Steps", "Training, h", "Cells", "Benchmark, h", "Disk, MB", title=title)
    for column in table.columns[1:]:
        column.justify = "right"
    for one in planned:
        table.add_row(
            one.variant,
            f"{one.steps:,}",
            _hours(one.training_seconds),
            str(one.cells),
            _hours(one.benchmark_seconds),
            f"{one.bytes / 1e6:,.0f}",
        )
    table.add_section()
    table.add_row(
        "all",
        f"{sum(one.steps for one in planned):,}",
        _hours(sum(one.training_seconds for one in planned)),
        str(sum(one.cells for one in planned)),
        _hours(sum(one.benchmark_seconds for one in planned)),
        f"{sum(one.bytes for one in planned) / 1e6:,.0f}",
    )
    return table


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.2f}" if seconds else "done"

"""What running a recipe would do, and about how long it would take: measured by a few small steps, not guessed."""

import dataclasses
import functools
import itertools
import math
import time
from collections.abc import Callable, Sequence

import torch

from pushpull_conv.benchmark.evaluation import AUTOCAST_DTYPES
from pushpull_conv.cluster.tasks import Run
from pushpull_conv.corruptions import CORRUPTIONS, SEVERITIES
from pushpull_conv.data import ImageSource, PictureBatches, default_workers
from pushpull_conv.experiment import Experiment
from pushpull_conv.files import MODEL_FILE
from pushpull_conv.models import Classifier
from pushpull_conv.ranks import own_device
from pushpull_conv.repeats import variant_of
from pushpull_conv.report.tables import Entry, Table
from pushpull_conv.report.wording import duration
from pushpull_conv.training.fit import build, training_batches, training_module
from pushpull_conv.training.precision import HALVES
from pushpull_conv.training.recipe import Recipe
from pushpull_conv.training.variants import Variant

_TIMED_SEVERITY = 3
_PROBE_PIXELS = 2**17
_PROBE_SECONDS = 0.5
_TRIES = 3
_LONG_SECONDS = 2.0
"""The time of a first step beside which what is prepared in it does not count."""
_CELLS = len(CORRUPTIONS) * len(SEVERITIES) + 1
"""Of the benchmark of one model, the clean images among them."""
_CHECKPOINT_COPIES = 4
"""Two checkpoints, each with the weights and their momentum."""


@dataclasses.dataclass(frozen=True)
class Planned:
    """What one variant takes, of which some may be done.

    Args:
        variant: Its name.
        steps: Optimiser steps, of all epochs.
        training_seconds: Estimated time of the epochs that are left, each with its validation; 0 where none is.
        cells: Cells of the benchmark: the clean images, and each corruption at each severity.
        benchmark_seconds: Estimated time of the cells that are not counted yet; 0 where none is left.
        bytes: Estimated size of its folder when all is done.
    """

    variant: str
    steps: int
    training_seconds: float
    cells: int
    benchmark_seconds: float
    bytes: int


@dataclasses.dataclass(frozen=True)
class _Cost:
    """Seconds for an image in training, in validation and in a network's 75 benchmarked versions; bytes of weights."""

    training: float
    validation: float
    benchmark: float
    weights: int


def plan(experiment: Experiment) -> list[Planned]:
    """Return what each variant of an experiment takes, in order, and the time that is left.

    Times are those of this machine and one device: a few training steps, one validated and one benchmarked batch of
    some images are done for every variant (once for those that differ in the seed), and scaled up to the epochs and
    cells that the run's files lack. Nothing is written.

    Raises:
        InputError: The images do not fill one batch, or do not fit the benchmark.
    """
    cost = functools.cache(functools.partial(_cost, experiment))
    corrupting = functools.cache(functools.partial(_corrupting_seconds, experiment))
    recipe, training, test = experiment.recipe, experiment.images("train"), experiment.images("test")
    epochs, run = recipe.training.epochs, Run.of(recipe.model_dump(), experiment.folder)
    models = math.ceil(epochs / (recipe.benchmark.every or epochs))
    planned = []
    for variant in recipe.trainings:
        trained = (experiment.folder / variant.name / MODEL_FILE).exists()
        left = 0 if trained else epochs - run.epochs_done(variant.name)
        missing = models * _CELLS - sum(counted for counted, _ in run.counted(variant.name).values())
        steps = len(training_batches(recipe, variant, training, torch.device("cpu")))
        with experiment.console.status(f"timing a few steps of {variant.name}"):
            one = cost(_alike(variant), train=left > 0, benchmark=missing > 0)
            corruptions = corrupting() if missing else 0.0
        planned.append(
            Planned(
                variant.name,
                steps * epochs,
                left * (steps * recipe.training.batch_size * one.training + len(test) * one.validation),
                models * _CELLS,
                missing / _CELLS * len(test) * (one.benchmark + corruptions),
                (_CHECKPOINT_COPIES + models) * one.weights,
            )
        )
    return planned


def _alike(variant: Variant) -> Variant:
    """The variant without what its repeats differ in, which changes no time: the name, the seed, the teacher's seed."""
    lesson = variant.distillation
    if lesson:
        lesson = lesson.model_copy(update={"teacher": variant_of(lesson.teacher)})
    return variant.model_copy(update={"name": "any", "seed": None, "distillation": lesson})


def _cost(experiment: Experiment, variant: Variant, *, train: bool, benchmark: bool) -> _Cost:
    classifier, _ = build(experiment.recipe, variant, experiment.images("train"))
    return _Cost(
        _training_seconds(experiment, variant, classifier) if train else 0.0,
        _validation_seconds(experiment, classifier) if train else 0.0,
        _network_seconds(experiment, classifier) if benchmark else 0.0,
        sum(tensor.numel() * tensor.element_size() for tensor in classifier.state_dict().values()),
    )


def _probe_size(experiment: Experiment) -> int:
    """How many images to time at once: enough small ones to keep the device busy, few large ones."""
    height, width = experiment.images("test").size
    return min(experiment.recipe.training.batch_size, max(4, _PROBE_PIXELS // (height * width)))


def _few(experiment: Experiment) -> ImageSource:
    """The first test images, to time what is done to them at once."""
    test = experiment.images("test")
    return test.subset(torch.arange(min(_probe_size(experiment), len(test))))


def _training_seconds(experiment: Experiment, variant: Variant, classifier: Classifier) -> float:
    """Time training steps and give the shortest time for each image: half a second of them after the first, or it."""
    few = {"batch_size": _probe_size(experiment), "compile": False}
    settings = experiment.recipe.training.model_copy(update=few)
    recipe = experiment.recipe.model_copy(update={"training": settings})
    device, dtype = own_device(), _dtype(settings.precision)
    images = experiment.images("train")
    teacher = untrained_teacher(recipe, variant, images)
    if teacher:
        teacher.to(device, dtype)
    module = training_module(recipe, variant, classifier.to(device, dtype), steps=10, teacher=teacher)
    epoch = training_batches(recipe, variant, images, device)
    batches = itertools.chain.from_iterable(itertools.repeat(epoch))
    ahead = 2 * default_workers(1) if isinstance(epoch, PictureBatches) else 0  # as many as a DataLoader makes early
    next(batches)  # starts the worker processes
    started = time.perf_counter()
    for _ in range(ahead):
        next(batches)
    loading = (time.perf_counter() - started) / max(1, ahead)
    times: list[float] = []
    while not times or (times[0] < _LONG_SECONDS and sum(times[1:]) < _PROBE_SECONDS):
        started = time.perf_counter()
        batch, labels, index = (values.to(device) for values in next(batches))
        with _autocast(HALVES.get(settings.precision)):
            loss, _ = module.loss((batch, labels, index), epoch=0)
        loss.backward()
        _finish()
        times.append(time.perf_counter() - started)
    return max(loading, min(times)) / settings.batch_size


def _validation_seconds(experiment: Experiment, classifier: Classifier) -> float:
    """The time to read and classify one test image at the training's precision, as `fit` does after every epoch."""
    few, precision, device = _few(experiment), experiment.recipe.training.precision, own_device()
    classifier.to(device, _dtype(precision)).eval()

    def validate() -> None:
        classifier(next(iter(few.batches(len(few)))).images.to(device))

    with torch.inference_mode(), _autocast(HALVES.get(precision)):
        return _shortest(validate) / len(few)


def _dtype(precision: str) -> torch.dtype:
    """The type of the weights in training."""
    return torch.float64 if precision == "64-true" else torch.float32


def _autocast(half: torch.dtype | None) -> torch.autocast:
    return torch.autocast(own_device().type, half, enabled=half is not None)


def untrained_teacher(recipe: Recipe, variant: Variant, images: ImageSource) -> Classifier | None:
    """The network that a variant learns from, which takes as long untrained; None where there is none."""
    if variant.distillation is None:
        return None
    return build(recipe, recipe.variant(variant.distillation.teacher), images)[0]


def _network_seconds(experiment: Experiment, classifier: Classifier) -> float:
    """The time of all corrupted versions of one image in the network."""
    images = next(iter(experiment.images("test").batches(_probe_size(experiment)))).images.to(own_device())
    classifier.to(own_device()).float().eval()
    half = AUTOCAST_DTYPES.get(experiment.recipe.benchmark.autocast or "")
    with torch.inference_mode(), _autocast(half):
        classifier(images)  # allocates
        seconds = _shortest(lambda: classifier(images))
    return seconds * len(CORRUPTIONS) * len(SEVERITIES) / len(images)


def _corrupting_seconds(experiment: Experiment) -> float:
    """The time to read and make all corrupted versions of one image: of each a middle severity, for all five."""
    few = _few(experiment)
    versions = experiment.versions(few)

    def make(name: str) -> None:
        next(versions.batches((name, _TIMED_SEVERITY), len(few), own_device()))

    return sum(_shortest(functools.partial(make, name)) for name in CORRUPTIONS) * len(SEVERITIES) / len(few)


def _shortest(call: Callable[[], object]) -> float:
    """The shortest of some times of a call, which other work on the machine can only lengthen."""
    times = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        call()
        _finish()
        times.append(time.perf_counter() - started)
    return min(times)


def _finish() -> None:
    if torch.cuda.is_available():
        torch.cuda.synchronize()


def plan_table(planned: Sequence[Planned], title: str) -> Table:
    """Return the plan for the terminal."""
    amounts = zip(*(dataclasses.astuple(one)[1:] for one in planned), strict=True)
    return Table(
        title=title,
        caption="Times are scaled up from a few steps and a benchmarked batch.",
        header=("Variant", "Steps", "Training", "Cells", "Benchmark", "Disk, MB"),
        rows=tuple(map(_row, (*planned, Planned("all", *map(sum, amounts))))),
    )


def _row(one: Planned) -> tuple[Entry, ...]:
    return (
        Entry(one.variant, one.variant),
        Entry(f"{one.steps:,}", one.steps),
        Entry(_time(one.training_seconds), one.training_seconds),
        Entry(str(one.cells), one.cells),
        Entry(_time(one.benchmark_seconds), one.benchmark_seconds),
        Entry(f"{one.bytes / 1e6:,.0f}", one.bytes),
    )


def _time(seconds: float) -> str:
    return duration(seconds) if seconds else "done"

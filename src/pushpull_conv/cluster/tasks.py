"""The tasks of a run, what each waits for, and which are done: known from the files of the run alone, without torch."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

from pushpull_conv.corruptions import CORRUPTIONS, SEVERITIES
from pushpull_conv.errors import InputError
from pushpull_conv.files import (
    CELLS_FOLDER,
    CLEAN,
    CLUSTER_FOLDER,
    METRICS_FILE,
    MODEL_FILE,
    RECIPE_FILE,
    REPORT_FILE,
    REPORT_FOLDER,
    RESULTS_FILE,
    cell_file,
    csv_rows,
    kept_epochs,
)
from pushpull_conv.repeats import further_seeds, repeat_name, repeat_teacher

TRAIN, COMPARE, _BENCHMARK = "train", "compare", "benchmark-"
PARTS = ((CLEAN[0], CORRUPTIONS[0]), *((name,) for name in CORRUPTIONS[1:]))
"""What each task that benchmarks a variant counts: all severities of a corruption; the first the clean images, too."""
_CELLS = {CLEAN[0]: {CLEAN}, **{name: {(name, severity) for severity in SEVERITIES} for name in CORRUPTIONS}}

Key = tuple[str, int]
"""The name of a job array and a task's number in it."""


@dataclasses.dataclass(frozen=True)
class Run:
    """What the tasks of a run depend on.

    Args:
        folder: The run's folder, absolute.
        name: The recipe's name.
        epochs: Epochs of each training.
        teachers: What is trained, each with the one that it learns from, if any.
    """

    folder: Path
    name: str
    epochs: int
    teachers: Mapping[str, str | None]

    @classmethod
    def of(cls, recipe: Mapping[str, Any], folder: Path) -> "Run":
        """Return the run of a resolved recipe, given as the mapping that its file holds."""
        once = {variant["name"]: (variant.get("distillation") or {}).get("teacher") for variant in recipe["variants"]}
        seeds = further_seeds(recipe["seed"], recipe.get("repeats", 1))
        again = {
            repeat_name(name, seed): teacher and repeat_teacher(teacher, seed)
            for seed in seeds
            for name, teacher in once.items()
        }
        return cls(folder.resolve(), recipe["name"], recipe["training"]["epochs"], once | again)

    @property
    def cluster(self) -> Path:
        """The folder of the scripts and the logs."""
        return self.folder / CLUSTER_FOLDER

    def log(self, key: Key) -> Path:
        """Where a task writes what it prints, all attempts one after the other."""
        return self.cluster / "logs" / f"{key[0]}-{key[1]}.log"

    def epochs_done(self, variant: str) -> int:
        """Epochs that a variant's training has logged."""
        file = self.folder / variant / METRICS_FILE
        return len(csv_rows(file)) if file.exists() else 0

    def counted(self, variant: str) -> dict[str, tuple[int, int]]:
        """How many cells of each corruption and of `CLEAN` are counted, of how many, over all models of a variant.

        These are its kept epochs and itself.
        """
        folder = self.folder / variant
        models = [_counted_in(model) for model in (*kept_epochs(folder), folder)]
        return {
            name: (sum(len(counted & keys) for counted in models), len(models) * len(keys))
            for name, keys in _CELLS.items()
        }


@dataclasses.dataclass(frozen=True)
class Task:
    """One task of a job array.

    Args:
        key: The array and the task's number.
        options: What the array's command gets for this task.
        waits_for: The tasks that must be done before.
        done: Whether all that it makes is there.
    """

    key: Key
    options: str
    waits_for: tuple[Key, ...]
    done: bool


def _counted_in(model: Path) -> set[tuple[str, int]]:
    """The cells that have a file of their own or are in the results, which may be a part of what a recipe asks for."""
    files = {file.name for file in (model / CELLS_FOLDER).glob("*.json")}  # one look at the disk, not one for each cell
    kept = {key for keys in _CELLS.values() for key in keys if cell_file(*key) in files}
    try:
        cells = json.loads((model / RESULTS_FILE).read_text(encoding="utf-8"))["cells"]
        return kept | {CLEAN, *((cell["corruption"], cell["severity"]) for cell in cells)}
    except (OSError, ValueError, TypeError, KeyError):  # not there, or damaged
        return kept


def open_run(folder: Path) -> Run:
    """Return the run that lies in a folder.

    Raises:
        InputError: The folder holds no run.
    """
    file = folder / RECIPE_FILE
    if not file.is_file():
        raise InputError(f"'{folder}' holds no run ({RECIPE_FILE} is missing); name one such as runs/quickstart")
    try:
        return Run.of(yaml.safe_load(file.read_text(encoding="utf-8")), folder)
    except (OSError, yaml.YAMLError, KeyError, ValueError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())
        raise InputError(f"'{file}' is no resolved recipe ({reason}); run or submit it again") from error


def benchmark_array(variant: str) -> str:
    """Return the name of the job array that benchmarks a variant."""
    return f"{_BENCHMARK}{variant}"


def variant_of_array(array: str) -> str | None:
    """Return the variant that a job array benchmarks, None where it is another array.

    Example:
        >>> variant_of_array(benchmark_array("PP3-trainable")), variant_of_array(TRAIN)
        ('PP3-trainable', None)
    """
    return array.removeprefix(_BENCHMARK) if array.startswith(_BENCHMARK) else None


def tasks(run: Run) -> list[Task]:
    """Return all tasks of a run, each after those that it waits for."""
    return [*_training(run), *_benchmarks(run), _comparison(run)]


def _training(run: Run) -> Iterator[Task]:
    numbers = {variant: number for number, variant in enumerate(run.teachers)}
    for variant in sorted(numbers, key=lambda name: run.teachers[name] is not None):
        teacher = run.teachers[variant]
        yield Task(
            (TRAIN, numbers[variant]),
            f"--variant {variant}",
            ((TRAIN, numbers[teacher]),) if teacher else (),
            (run.folder / variant / MODEL_FILE).exists(),
        )


def _benchmarks(run: Run) -> Iterator[Task]:
    for trained, variant in enumerate(run.teachers):
        counted = run.counted(variant)
        for number, part in enumerate(PARTS):
            counts = [counted[name] for name in part]
            yield Task(
                (benchmark_array(variant), number),
                " ".join(f"--corruption {name}" for name in part),
                ((TRAIN, trained),),
                all(count == wanted for count, wanted in counts),
            )


def _comparison(run: Run) -> Task:
    report = run.folder / REPORT_FOLDER / REPORT_FILE
    results = [run.folder / name / RESULTS_FILE for name in run.teachers]
    parts = [(benchmark_array(variant), number) for variant in run.teachers for number in range(len(PARTS))]
    return Task((COMPARE, 0), "", tuple(parts), _is_made_of(report, results))


def _is_made_of(made: Path, parts: Sequence[Path]) -> bool:
    """Whether a file is there and none of those that it is made of is missing or younger."""
    if not all(file.exists() for file in (made, *parts)):
        return False
    return all(part.stat().st_mtime_ns <= made.stat().st_mtime_ns for part in parts)

"""A recipe from end to end: train every variant, benchmark each, compare them.

Every step leaves a file when it is whole and is skipped when that file is there, so repeating a run that was stopped,
however hard, does only what is missing.
"""

import contextlib
import functools
import operator
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from pushpull_conv.benchmark import (
    Results,
    count_cells,
    counted_model,
    evaluate,
    generated,
    model_fingerprint,
    suite_of,
    wanted_cells,
)
from pushpull_conv.benchmark.evaluation import AUTOCAST_DTYPES
from pushpull_conv.benchmark.versions import Generated
from pushpull_conv.benchmarking import cell_bar, note_if_slow, save_sample
from pushpull_conv.classifiers import open_classifier
from pushpull_conv.comparison import compare
from pushpull_conv.corruptions import FrostTextures, load_frost
from pushpull_conv.data import (
    ImageSource,
    identity_of,
    open_images,
    require_equal_parts,
    require_outside,
    same_images,
    stratified,
)
from pushpull_conv.errors import InputError
from pushpull_conv.files import (
    CELLS_FOLDER,
    CLUSTER_FOLDER,
    LOCK_FILE,
    MODEL_FILE,
    RECIPE_FILE,
    REPORT_FOLDER,
    RESULTS_FILE,
    alone,
    in_use,
    is_in_use,
    kept_epochs,
    writable_folder,
    write_text,
)
from pushpull_conv.models import (
    ChosenLogits,
    Classifier,
    identity_of_weights,
    load_checkpoint,
)
from pushpull_conv.provenance import read_provenance, recorded
from pushpull_conv.ranks import ALONE, Ranks, own_device
from pushpull_conv.training.fit import build, fit
from pushpull_conv.training.precision import HALVES, precision_refusal
from pushpull_conv.training.recipe import Recipe, first_difference, is_resolved, load_recipe
from pushpull_conv.training.variants import Variant

_FREE_SETTINGS: dict[str, Any] = {"title": True, "data": {"unreadable"}, "benchmark": {"batch_size"}}
"""What may change when a run is begun: it decides no weight and no count."""
_SAME_DATA = "give the same --data, or another --out"
_LEARNED_FROM = {"images": (same_images, "--data"), "weights": (operator.eq, "weights")}
"""What all variants of a run have in common: how it is compared, and how it is given."""
_LOCK_SECONDS = 15.0
"""How long a training waits for the end of another's processes: a killed one's read images for some seconds more."""


class Experiment:
    """One recipe in one folder.

    Args:
        recipe: The validated recipe.
        folder: Where everything is written; made if missing. A folder that holds another recipe is refused.
        data_root: The folder of the data set, as `pushpull_conv.data.open_images` takes it.
        console: Where progress is drawn.
        ranks: The processes that do the experiment together; each makes the same calls.

    Raises:
        InputError: The folder belongs to another recipe, or lies among the images.
    """

    def __init__(
        self,
        recipe: Recipe,
        folder: Path,
        *,
        data_root: Path | None,
        console: Console,
        ranks: Ranks = ALONE,
    ) -> None:
        self.recipe = recipe
        self.folder = folder
        self.data_root = data_root
        self.console = console
        self.ranks = ranks
        self._images: dict[str, ImageSource] = {}
        self._noted: set[str] = set()
        require_outside(folder, data_root)
        ranks.by_first(self._require_own_folder)

    def check(self, devices: int) -> None:
        """Open the test images, the frost textures and the weights, so that what is wrong is said now, not hours later.

        Args:
            devices: How many are to share each batch of the trainings that are left.

        Raises:
            InputError: The data, the textures or the weights cannot be used, the images do not fit the benchmark, or
                what is trained has learned from others, or the devices cannot share a batch.
        """
        if not all((self.folder / variant.name / MODEL_FILE).exists() for variant in self.recipe.trainings):
            require_equal_parts(self.recipe.training.batch_size, devices)
        self.ranks.by_first(self._require_learned_from_these)
        self.versions(self.images("test"))
        if self.recipe.model.weights:
            build(self.recipe, self.recipe.variant(self.recipe.baseline), self.images("test"))

    def claim(self) -> None:
        """Make the folder and store the resolved recipe there: before the first thing that is written.

        Raises:
            InputError: The folder cannot be written.
        """
        self.ranks.by_first(self._claim_folder)

    def run(self) -> Path:
        """Train, benchmark and compare all variants; return the report's page."""
        self.check(self.ranks.count)
        for variant in self.recipe.trainings:
            self.train(variant)
        self.claim()
        for variant in self.recipe.trainings:
            self.benchmark(variant)
        folders = [self.folder / variant.name for variant in self.recipe.trainings]
        report = self.folder / REPORT_FOLDER
        return self.ranks.by_first(lambda: compare(folders, self.recipe.baseline, report, console=self.console))

    def train(self, variant: Variant) -> Path:
        """Train one variant and before it its teacher, or find it trained; return its model file.

        Raises:
            InputError: Another call is training it, the device cannot train in the recipe's precision, or the run has
                learned from other images.
        """
        folder = self.folder / variant.name
        if self.ranks.by_first((folder / MODEL_FILE).exists):
            self.ranks.by_first(self._require_learned_from_these)
            return folder / MODEL_FILE
        if refusal := precision_refusal(self.recipe.training.precision, own_device()):
            raise InputError(refusal)
        training, test = self.images("train"), self.images("test")
        self.claim()
        teacher = None
        if variant.distillation:
            teacher, _ = load_checkpoint(self.train(self.recipe.variant(variant.distillation.teacher)))
        with self._turn(folder, training) as trained:
            if trained:
                return folder / MODEL_FILE
            return fit(
                self.recipe,
                variant,
                training,
                test,
                folder,
                console=self.console,
                teacher=teacher,
                ranks=self.ranks,
            )

    @contextlib.contextmanager
    def _turn(self, folder: Path, training: ImageSource) -> Iterator[bool]:
        """Let no other call train in ``folder`` meanwhile, and record what is done; yield whether one has just done it.

        Raises:
            InputError: Another call trains there, or the run is of another recipe, other images or other weights.
        """
        facts = {"images": identity_of(training)}
        if self.recipe.model.weights:
            facts["weights"] = identity_of_weights(self.recipe.model.weights)
        with contextlib.ExitStack() as held:
            if self.ranks.is_first:
                held.enter_context(in_use(self.folder / RECIPE_FILE))
            self.ranks.by_first(self._require_own_folder)  # another recipe may have been started at the same time
            self.ranks.by_first(lambda: self._require_same(facts))
            if self.ranks.is_first:
                refusal = f"'{folder}' is being trained by another call; wait until it is through"
                held.enter_context(alone(writable_folder(folder) / LOCK_FILE, refusal, patience=_LOCK_SECONDS))
            trained = self.ranks.by_first((folder / MODEL_FILE).exists)
            if self.ranks.is_first and not trained:
                self.note_precision()
                held.enter_context(recorded(folder, "training", MODEL_FILE, facts))
            yield trained

    def benchmark(self, variant: Variant) -> Results:
        """Benchmark one variant, trained before if need be, and its kept epochs; or read its finished results."""
        self.train(variant)
        return [self._benchmark(folder, label) for folder, label in self._models(variant)][-1]

    def count(self, variant: Variant, cells: Sequence[tuple[str, int]]) -> None:
        """Count some cells of the benchmark of one trained variant and of its kept epochs.

        Several processes may count different cells of one variant at once; `benchmark` then finds them.

        Args:
            variant: The variant.
            cells: The cells, ``("clean", 0)`` and (corruption, severity); the ranks share them.

        Raises:
            InputError: The variant is not trained.
        """
        if not (file := self.folder / variant.name / MODEL_FILE).exists():
            raise InputError(f"{variant.name} is not trained: '{file}' does not exist; call pushpull train --variant")
        for folder, label in self._models(variant):
            classifier = _open(folder, self.images("test"))
            self._count(classifier, cells, label, self._settings(folder, label))

    def note_precision(self) -> None:
        """Say once, before the first training, if the recipe's precision is slow here."""
        precision = self.recipe.training.precision
        if precision_refusal(precision, own_device()):  # there is nothing to time
            return
        instead = "--set training.precision=32-true trains in float32, which ends at other weights"
        self._note_once(precision, HALVES.get(precision), instead)

    def note_autocast(self) -> None:
        """Say once, before the first benchmark, if the recipe's autocast is slow here."""
        if autocast := self.recipe.benchmark.autocast:
            instead = "--set benchmark.autocast=null lets the model compute in float32"
            self._note_once(autocast, AUTOCAST_DTYPES[autocast], instead)

    def _note_once(self, precision: str, half: torch.dtype | None, instead: str) -> None:
        if precision not in self._noted:
            note_if_slow(self.console, precision, half, instead)
        self._noted.add(precision)

    def _models(self, variant: Variant) -> list[tuple[Path, str]]:
        """The folders and labels of what there is to benchmark of a variant: its kept epochs, and at the end itself."""
        folder = self.folder / variant.name
        kept = ((earlier, f"{variant.name}, epoch {int(earlier.name)}") for earlier in kept_epochs(folder))
        return [*kept, (folder, variant.name)]

    def _benchmark(self, folder: Path, label: str) -> Results:
        """Benchmark the model in ``folder``, or read its finished results."""
        images, settings = self.images("test"), self._settings(folder, label)
        classifier = _open(folder, images)
        if results := self.ranks.by_first(lambda: self.finished(folder)):
            _require_results_of(folder, results, classifier, images)
            return results
        self.note_autocast()
        facts = {"images": identity_of(images)}
        with recorded(folder, "benchmark", RESULTS_FILE, facts) if self.ranks.is_first else contextlib.nullcontext():
            self._count(classifier, wanted_cells(), label, settings)
            if self.ranks.is_first:
                save_sample(images, folder)  # before the results: where these are, nothing is made again
            return self.ranks.by_first(lambda: evaluate(classifier, images, **settings))

    def _count(
        self,
        classifier: Classifier | ChosenLogits,
        cells: Sequence[tuple[str, int]],
        label: str,
        settings: Mapping[str, Any],
    ) -> None:
        """Count this process's share of some cells, and wait for the others'."""
        share, images = self.ranks.share(cells), self.images("test")
        with cell_bar(label, self.console, whole=len(cells)) as on_cell:
            count_cells(classifier, images, share, **settings, on_cell=on_cell)
            self.ranks.wait()

    def finished(self, folder: Path) -> Results | None:
        """A folder's results if they are what the recipe asks for, and not a part or another that was put there."""
        if not (folder / RESULTS_FILE).exists():
            return None
        results = Results.load(folder / RESULTS_FILE)
        images, settings = self.images("test"), self.recipe.benchmark
        suite, made = suite_of(images, settings.suite), self.versions(images).facts()
        wanted = {"suite": suite.name, "revision": suite.revision, "autocast": settings.autocast, **made}
        same = all(getattr(results.header, name) == wanted[name] for name in wanted)
        return results if same and not results.missing else None

    def versions(self, images: ImageSource) -> Generated:
        """What the recipe's benchmark makes of some images.

        Raises:
            InputError: The images do not fit the benchmark, or the frost textures cannot be read.
        """
        settings = self.recipe.benchmark
        suite = suite_of(images, settings.suite)
        return generated(images, suite, seed=self.recipe.seed, frost=self._frost, jpeg=settings.jpeg)

    @functools.cached_property
    def _frost(self) -> FrostTextures:
        return load_frost(self.recipe.benchmark.frost)

    def _settings(self, folder: Path, label: str) -> dict[str, Any]:
        """The arguments of `evaluate` for the model in ``folder``."""
        settings = self.recipe.benchmark
        return {
            "label": label,
            "suite": settings.suite,
            "seed": self.recipe.seed,
            "frost": self._frost,
            "jpeg": settings.jpeg,
            "batch_size": settings.batch_size,
            "autocast": settings.autocast,
            "store": folder,
            "device": own_device(),
        }

    def images(self, split: str) -> ImageSource:
        """Open one split as the recipe's ``data`` says, once."""
        if split not in self._images:
            settings = self.recipe.data
            images = open_images(settings.name, split, root=self.data_root, greyscale=settings.greyscale)
            if split == "train" and settings.fraction < 1:
                images = images.subset(stratified(images.labels, settings.fraction, self.recipe.seed))
            self._images[split] = images
        return self._images[split]

    def _require_own_folder(self) -> None:
        """Refuse the folder if what is done or being done there has other settings, or if a user's recipe is there."""
        file, submitted = self.folder / RECIPE_FILE, (self.folder / CLUSTER_FOLDER).exists()
        begun = (any(self.folder.glob(f"*/{name}")) for name in ("*.ckpt", MODEL_FILE))
        if submitted or any(begun) or is_in_use(file):
            if not file.is_file():
                raise InputError(
                    f"'{self.folder}' holds a run without its {RECIPE_FILE}; restore it, or choose another --out"
                )
            stored = load_recipe(str(file))
            if difference := _conflict(stored, self.recipe, numbered=submitted):
                raise InputError(f"'{self.folder}' holds a run of another recipe ({difference}); choose another --out")
            if stored == self.recipe:  # also with comments that a user put in
                return
        if file.is_file() and not is_resolved(file):
            raise InputError(
                f"'{file}' was written or changed by hand, and the resolved recipe would replace it; choose another "
                "--out, or keep it elsewhere"
            )

    def _require_same(self, facts: Mapping[str, str]) -> None:
        """Refuse to train from other images or weights than those that another variant of the run has learned from."""
        for other in self.recipe.trainings:
            record = read_provenance(self.folder / other.name).get("training", {})
            for name, found in facts.items():
                same, given = _LEARNED_FROM[name]
                if not same(record.get(name, found), found):
                    raise InputError(
                        f"{other.name} in '{self.folder}' has learned from {record[name]}, and the {name} now are "
                        f"{found}; give the same {given}, or another --out"
                    )

    def _require_learned_from_these(self) -> None:
        """Refuse other images than the run has learned from, where those for training are at hand."""
        records = (read_provenance(self.folder / training.name) for training in self.recipe.trainings)
        if not any("images" in record.get("training", {}) for record in records):
            return
        try:
            training = self.images("train")
        except InputError:  # a benchmark needs the test images alone
            return
        self._require_same({"images": identity_of(training)})

    def _claim_folder(self) -> None:
        self._require_own_folder()  # another recipe may have been started since
        stored = writable_folder(self.folder) / RECIPE_FILE
        resolved = self.recipe.to_yaml()
        if not stored.is_file() or (is_resolved(stored) and stored.read_text(encoding="utf-8") != resolved):
            write_text(stored, resolved)


def _conflict(stored: Recipe, wanted: Recipe, *, numbered: bool) -> str:
    """Return the first setting in which a stored recipe is changed, "" if nothing that is done would be otherwise.

    Trainings may be added, and `_FREE_SETTINGS` changed.

    Where the trainings are ``numbered``, as the tasks of job arrays are, those that are added must follow the others.
    """
    names = [training.name for training in stored.trainings]
    by_name = {training.name: training for training in wanted.trainings}
    if numbered:
        same = wanted.trainings[: len(names)]
    elif by_name.keys() >= set(names):
        same = tuple(by_name[name] for name in names)
    else:
        same = wanted.trainings
    return first_difference(_with(stored, stored.trainings), _with(wanted, same))


def _with(recipe: Recipe, trainings: Sequence[Variant]) -> dict[str, Any]:
    """Return the settings that decide what a recipe gives, with those of some of its trainings only."""
    settings = {training.name: training.model_dump() for training in trainings}
    whole = recipe.model_dump(exclude={"variants": True, "repeats": True, **_FREE_SETTINGS})
    return whole | {"variants": list(settings), "variant": settings}


def _open(folder: Path, images: ImageSource) -> Classifier | ChosenLogits:
    """Open the model in a folder of the run, for its own images."""
    return open_classifier(str(folder / MODEL_FILE), images, remedy=_SAME_DATA)


def _require_results_of(
    folder: Path, results: Results, classifier: Classifier | ChosenLogits, images: ImageSource
) -> None:
    """Raise `InputError` unless a folder's results are of this model and, as far as is quick to know, these images."""
    counted = results.header.images, results.header.classes
    if counted != (len(images), images.classes):
        raise InputError(
            f"'{folder}' holds results of {counted[0]} images of {len(counted[1])} classes, and the data have "
            f"{len(images)} of {images.num_classes}; {_SAME_DATA}"
        )
    found = identity_of(images)
    benchmarked = read_provenance(folder).get("benchmark", {}).get("images", found)
    if not same_images(benchmarked, found):
        raise InputError(f"'{folder}' holds results of {benchmarked}, and the data have {found}; {_SAME_DATA}")
    if images.files is None and images.fingerprint != results.header.fingerprint:  # of files it may take minutes
        raise InputError(f"'{folder}' holds results of other pictures than those of {images.name}; {_SAME_DATA}")
    if counted_model(folder / CELLS_FOLDER) not in {None, model_fingerprint(classifier)}:
        raise InputError(
            f"'{folder}' holds results of a model with other layers or weights than its {MODEL_FILE}; to benchmark "
            f"this one, delete its {RESULTS_FILE} and {CELLS_FOLDER}"
        )

"""The command ``pushpull``: each function parses, configures and calls the library.

Libraries load inside the commands, so that ``pushpull --help`` answers at once.
"""

import contextlib
import functools
import os
import sys
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer
from rich.console import Console
from rich.markup import escape

from pushpull_conv._version import __version__
from pushpull_conv.cores import usable_cores
from pushpull_conv.errors import InputError, InputWarning, require_seed
from pushpull_conv.files import RECIPE_FILE, RESULTS_FILE
from pushpull_conv.interrupts import interrupts_held

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from pushpull_conv.experiment import Experiment
    from pushpull_conv.training.recipe import Recipe
    from pushpull_conv.training.variants import Variant

app = typer.Typer(
    name="pushpull",
    help="Image classifiers that survive noise, blur, weather and compression: train, benchmark, compare.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="markdown",
)

data_app = typer.Typer(help="Look after data sets.", no_args_is_help=True, rich_markup_mode="markdown")
app.add_typer(data_app, name="data")

RecipeArgument = Annotated[str, typer.Argument(metavar="RECIPE", help="A shipped recipe's name, or a YAML file.")]
DataOption = Annotated[
    Path | None,
    typer.Option("--data", metavar="FOLDER", help="Folder of the data set. Without it, cifar10 is downloaded once."),
]


def _out(metavar: str, help: str) -> Any:
    """The option --out; in ``--out=~/runs`` a shell leaves the ``~`` as it is."""
    return typer.Option("--out", metavar=metavar, help=help, callback=lambda path: path and path.expanduser())


OutOption = Annotated[Path | None, _out("FOLDER", "Folder for the run.  [default: runs/RECIPE]")]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="KEY.KEY=VALUE", help="Replace one setting of the recipe; may be repeated."),
]
DevicesOption = Annotated[
    int, typer.Option(metavar="N", help="GPUs of this machine to work on; without GPUs, processes on its cores.")
]


def _one_each(option: typer.CallbackParam, names: list[str] | None) -> list[str] | None:
    """Refuse several names in one option that may be repeated."""
    for name in names or ():
        if "," in name:
            repeated = " ".join(f"{option.opts[0]} {part.strip()}" for part in name.split(","))
            raise InputError(f"{option.opts[0]} takes one name, not '{name}'; repeat the option: {repeated}")
    return names


VariantOption = Annotated[
    list[str] | None,
    typer.Option("--variant", help="Only this variant; may be repeated.", metavar="NAME", callback=_one_each),
]
FrostOption = Annotated[
    str,
    typer.Option(metavar="SOURCE", help="Frost textures: procedural, reference (extra) or a folder of photographs."),
]
SuiteOption = Annotated[
    str | None,
    typer.Option(
        metavar="NAME", help="The protocol: cifar10-c, tiny-imagenet-c or imagenet-c.  [default: the data set's]"
    ),
]


def _seed(value: int) -> int:
    return require_seed(value, "--seed")


SeedOption = Annotated[int, typer.Option(metavar="N", help="Key of the corruptions' randomness.", callback=_seed)]
GreyscaleOption = Annotated[
    bool, typer.Option("--greyscale", help="Turn the images to luminance, for a model that was trained so.")
]
CorruptionOption = Annotated[
    list[str] | None,
    typer.Option(
        metavar="NAME",
        help="Only this corruption, such as fog; may be repeated.  [default: the benchmark's 15]",
        callback=_one_each,
    ),
]
_RESOURCES = "What each task asks of SLURM"


def main() -> None:
    """Run the command; print what was wrong with its input, or that it was stopped, in one line; exit with 2 or 130."""
    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_warn, warnings.showwarning)
            app()
    except InputError as error:
        _refuse(str(error))
    except ModuleNotFoundError as error:
        if error.name is None or error.name.startswith("pushpull_conv"):
            raise
        _refuse(f"{error.name} is not installed; run: pip install 'pushpull-conv[train,report]'")
    except PermissionError as error:
        _refuse(f"'{error.filename}' may not be used ({error.strerror}); ask its owner for access")
    except (KeyboardInterrupt, SystemExit) as stop:
        if not _interrupted(stop):
            raise
        if "RANK" not in os.environ:  # of several processes the one that started them says it
            _say(_console(stderr=True), "stopped; the same command goes on with what is missing")
        sys.exit(130)


def _interrupted(stop: BaseException | None) -> bool:
    """Whether it began with Ctrl-C, for which typer and Lightning raise `SystemExit` with a status of their own."""
    while stop is not None and not isinstance(stop, KeyboardInterrupt):
        stop = stop.__cause__ or stop.__context__
    return stop is not None


def _warn(show: "Callable[..., None]", message: Warning | str, category: type[Warning], *place: Any) -> None:
    """Show a warning, of the input in one line and by the first of several processes alone."""
    if not issubclass(category, InputWarning):
        show(message, category, *place)
    elif os.environ.get("RANK", "0") == "0":
        _say(_console(stderr=True), f"warning: {message}")


def _refuse(reason: str) -> NoReturn:
    if os.environ.get("RANK", "0") != "0":
        time.sleep(10)  # the first of several processes most likely has the same to say, and ends this one
    _console(stderr=True, soft_wrap=True).print(f"[bold red]error:[/] {escape(reason)}", highlight=False)
    if "RANK" in os.environ:
        from pushpull_conv.ranks import leave

        leave()
    sys.exit(2)


@app.callback(invoke_without_command=True)
def _version(version: Annotated[bool, typer.Option("--version", help="Print the version and exit.")] = False) -> None:
    if version:
        typer.echo(__version__)
        raise typer.Exit


@app.command()
def run(
    recipe: RecipeArgument,
    data: DataOption = None,
    out: OutOption = None,
    settings: SetOption = None,
    devices: DevicesOption = 1,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print what would run, with estimated hours and disk, and do nothing.")
    ] = False,
) -> None:
    """Train every variant of a recipe, benchmark each and write the comparison.

    Safe to repeat: what is finished is kept, what was stopped goes on.

    Example: **pushpull run quickstart**

    Example: **pushpull run cifar10-resnet20 --data cifar10 --set training.epochs=30**
    """
    if dry_run:
        from pushpull_conv.ranks import require_devices

        require_devices(devices)
        _print_plan(recipe, data, out, settings, devices)
        return
    _on_devices(devices)
    with _experiment(recipe, data, out, settings) as experiment:
        page = experiment.run()
        _say(experiment.console, f"report: {page}")


@app.command()
def train(
    recipe: RecipeArgument,
    variant: VariantOption = None,
    data: DataOption = None,
    out: OutOption = None,
    settings: SetOption = None,
    devices: DevicesOption = 1,
) -> None:
    """Train variants of a recipe; the first part of **run**.

    Example: **pushpull train cifar10-resnet20 --variant PP3 --data cifar10**
    """
    _on_devices(devices)
    with _experiment(recipe, data, out, settings) as experiment:
        for chosen in _chosen(experiment.recipe, variant):
            _say(experiment.console, f"model: {experiment.train(chosen)}")


@app.command()
def benchmark(
    recipe: RecipeArgument,
    variant: VariantOption = None,
    data: DataOption = None,
    out: OutOption = None,
    settings: SetOption = None,
    devices: DevicesOption = 1,
    corruption: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Count only this corruption, or clean, and leave no results; repeatable.",
            callback=_one_each,
        ),
    ] = None,
) -> None:
    """Benchmark variants of a recipe; the second part of **run**.

    Without --corruption, a variant that is not trained is trained first.

    Several calls may count different corruptions of one variant at the same time. The call without --corruption finds
    them, counts what is missing and writes the results.

    Example: **pushpull benchmark cifar10-resnet20 --variant PP3 --corruption clean --corruption fog --data cifar10**
    """
    from pushpull_conv.benchmark import named_cells

    cells = named_cells(corruption) if corruption else None
    _on_devices(devices)
    with _experiment(recipe, data, out, settings) as experiment:
        for chosen in _chosen(experiment.recipe, variant):
            if cells is None:
                experiment.benchmark(chosen)
            else:
                experiment.count(chosen, cells)


@app.command()
def submit(
    recipe: RecipeArgument,
    data: DataOption = None,
    out: OutOption = None,
    settings: SetOption = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Print the scripts and the calls of sbatch, and do nothing.")
    ] = False,
    partition: Annotated[
        str | None, typer.Option(metavar="NAME", help="Where to run.", rich_help_panel=_RESOURCES)
    ] = None,
    account: Annotated[
        str | None, typer.Option(metavar="NAME", help="Whom to charge.", rich_help_panel=_RESOURCES)
    ] = None,
    time_limit: Annotated[
        str | None,
        typer.Option(
            "--time",
            metavar="LIMIT",
            help="Time limit, as 4:00:00; a task that reaches it goes back to the queue and resumes.",
            rich_help_panel=_RESOURCES,
        ),
    ] = None,
    gpus: Annotated[
        str | None,
        typer.Option(
            metavar="[TYPE:]N",
            help="GPUs of a training; a task of the benchmark takes one.",
            rich_help_panel=_RESOURCES,
        ),
    ] = None,
    cpus: Annotated[
        int | None, typer.Option(metavar="N", min=1, help="Processor cores.", rich_help_panel=_RESOURCES)
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="SIZE", help="Memory, as 32G.", rich_help_panel=_RESOURCES)
    ] = None,
    at_once: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Most tasks of an array that run at once.", rich_help_panel=_RESOURCES),
    ] = None,
    setup: Annotated[
        list[str] | None,
        typer.Option(
            metavar="LINE",
            help="Line of bash before each task, as 'module load cuda'; may be repeated.",
            rich_help_panel=_RESOURCES,
        ),
    ] = None,
    sbatch: Annotated[
        list[str] | None,
        typer.Option(
            metavar="OPTION",
            help="Another option of sbatch, as --constraint=a100; may be repeated.",
            rich_help_panel=_RESOURCES,
        ),
    ] = None,
) -> None:
    """Train, benchmark and compare a recipe's variants as SLURM job arrays.

    Safe to repeat: what is done or in the queue is left alone, what failed or is missing is submitted.

    Example: **pushpull submit cifar10-resnet20 --data cifar10 --partition gpu --gpus 1 --cpus 8 --time 4:00:00**
    """
    from pushpull_conv.cluster import slurm, submission
    from pushpull_conv.cluster.scripts import Resources
    from pushpull_conv.cluster.tasks import Run

    resources = Resources(
        partition, account, time_limit, gpus, cpus, memory, at_once, tuple(setup or ()), tuple(sbatch or ())
    )
    if not dry_run:
        slurm.require()
    with _experiment(recipe, data, out, settings) as experiment:
        run = Run.of(experiment.recipe.model_dump(), experiment.folder)
        if dry_run:
            lines = submission.dry_run(run, resources, python=sys.executable, data=data)
        else:
            experiment.check(resources.devices)
            slurm.queue()  # where SLURM does not answer, nothing is begun
            experiment.claim()
            lines = submission.submit(run, resources, python=sys.executable, data=data)
    for line in lines:
        typer.echo(line)


@app.command()
def status(
    folders: Annotated[
        list[Path] | None,
        typer.Argument(metavar="FOLDER", help="Folders of runs.  [default: all in runs]", show_default=False),
    ] = None,
) -> None:
    """Show what of a run is done, runs, waits or has failed, and the last error of what failed.

    Example: **pushpull status runs/cifar10-resnet20**
    """
    from pushpull_conv.cluster import slurm
    from pushpull_conv.cluster import status as cluster_status
    from pushpull_conv.cluster.tasks import open_run

    console = _console()
    found = folders or sorted(path.parent for path in Path("runs").glob(f"*/{RECIPE_FILE}"))
    if not found:
        raise InputError("there is no run in 'runs'; name a run's folder")
    queues, unknown = slurm.queue_if_known()
    for folder in found:
        try:
            run = open_run(folder)
        except InputError as error:
            if folders:
                raise
            _say(console, str(error))  # one folder of many, which nobody named
            continue
        table, lines = cluster_status.status(run, None if queues is None else queues.get(run.cluster, {}))
        console.print(table, crop=False)
        for line in lines:
            _say(console, line)
    if unknown:
        _say(console, f"what is queued, runs or has failed is not known: {unknown}")
    console.print(cluster_status.LEGEND, highlight=False)


@app.command()
def evaluate(
    context: typer.Context,
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="A run's folder, a .safetensors file, a name that **models** lists, or another's with --weights.",
        ),
    ],
    data_set: Annotated[
        str,
        typer.Option(
            "--data-set",
            metavar="NAME",
            help="Whose test images: cifar10, digits, tiny-imagenet, imagenet, imagenet-100, imagenet-200 or folder.",
        ),
    ],
    out: Annotated[Path, _out("FOLDER", "Folder for the results.")],
    data: DataOption = None,
    weights: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Weights for a model given by name, or **pretrained**: the library's own."),
    ] = None,
    label: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The model's name in tables; what differs in @SEED alone (me@1, me@2) is averaged there.  "
            "[default: the name of --out]",
        ),
    ] = None,
    suite: SuiteOption = None,
    seed: SeedOption = 1234,
    frost: FrostOption = "procedural",
    jpeg: Annotated[
        bool, typer.Option("--jpeg/--no-jpeg", help="Store corrupted images as JPEG where the suite does.")
    ] = True,
    greyscale: GreyscaleOption = False,
    published: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Read the corrupted images from this set; generate none.")
    ] = None,
    corruption: CorruptionOption = None,
    severity: Annotated[
        list[int] | None, typer.Option(metavar="N", help="Only this severity, 1 to 5; may be repeated.")
    ] = None,
    batch_size: Annotated[int, typer.Option(metavar="N", help="Images per forward pass.")] = 250,
    autocast: Annotated[
        str | None, typer.Option(metavar="DTYPE", help="Let the model compute in bfloat16 or float16: faster.")
    ] = None,
) -> None:
    """Benchmark one model on clean and corrupted test images.

    The corrupted images are generated while they are used, or read from a set on the disk. Safe to repeat: finished
    cells are kept.

    Example: **pushpull evaluate runs/quickstart/PP3 --data-set digits --out results/PP3**

    Example: **pushpull evaluate cifar10-resnet20-pp3 --data-set cifar10 --data cifar10 --out results/shipped**

    Example: **pushpull evaluate timm:resnet18 --weights mine.pt --data-set cifar10 --data cifar10 --out results/mine**

    Example: **pushpull evaluate timm:resnet50 --weights pretrained --data-set imagenet --data imagenet --published
    ImageNet-C --out results/published**
    """
    from pushpull_conv.benchmarking import benchmark
    from pushpull_conv.classifiers import open_classifier
    from pushpull_conv.data import open_images, require_outside
    from pushpull_conv.report.tables import error_table

    making = {"seed": "--seed", "frost": "--frost", "jpeg": "--jpeg" if jpeg else "--no-jpeg"}
    if published is not None and (misplaced := _first_given(context, making)):
        raise InputError(f"{misplaced} does not go with --published, whose images are made already; leave it out")
    require_outside(out, data)
    console = _console()
    images = open_images(data_set, "test", root=data, greyscale=greyscale)
    results = benchmark(
        open_classifier(model, images, weights),
        images,
        out,
        label=label or out.resolve().name,
        suite=suite,
        seed=seed,
        frost=frost,
        jpeg=jpeg,
        published=published,
        batch_size=batch_size,
        autocast=autocast,
        corruptions=corruption,
        severities=severity,
        console=console,
    )
    console.print(error_table(results), crop=False)


@app.command()
def compare(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Folders of a run or of results.")],
    baseline: Annotated[str, typer.Option(metavar="LABEL", help="The model that the others are compared with.")],
    out: Annotated[Path, _out("FOLDER", "Folder for the report.")],
) -> None:
    """Compare benchmarked models in a table, figures and one HTML page.

    Example: **pushpull compare runs/cifar10-resnet20 results/mine --baseline baseline --out report**
    """
    from pushpull_conv.comparison import compare as write_comparison

    console = _console()
    page = write_comparison(folders, baseline, out, console=console)
    _say(console, f"report: {page}")


@app.command()
def models() -> None:
    """List the trained models that come with the package, with their errors, and where they lie.

    Their names are what **evaluate** and **explain** take; each folder has a model card.

    Example: **pushpull models**
    """
    from pushpull_conv.benchmark import Results
    from pushpull_conv.models import pretrained_folder, pretrained_models
    from pushpull_conv.models.pretrained import BASELINE
    from pushpull_conv.report import scored, terminal_table

    console = _console()
    results = [Results.load(pretrained_folder(name) / RESULTS_FILE) for name in pretrained_models()]
    console.print(terminal_table(scored(results, BASELINE)), crop=False)
    _say(console, f"folders: {pretrained_folder(BASELINE).parent}")


@app.command()
def export(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDER", help="Folders of a run or of results.")],
    out: Annotated[Path, _out("FILE", "The table: .csv or .parquet.")],
) -> None:
    """Write benchmarked models' counts and errors to one table, a row per corruption and severity.

    Example: **pushpull export runs/cifar10-resnet20 results/mine --out results.parquet**
    """
    from pushpull_conv.benchmark import Results
    from pushpull_conv.comparison import found_results
    from pushpull_conv.interop.tidy import write_tidy

    table = write_tidy(out, [Results.load(folder / RESULTS_FILE) for folder in found_results(folders)])
    _say(_console(), f"table: {table}")


@app.command()
def corrupt(
    context: typer.Context,
    photo: Annotated[Path | None, typer.Argument(metavar="PHOTO", help="A picture that Pillow can read.")] = None,
    *,
    out: Annotated[Path, _out("PATH", "The figure (.png, .svg or .pdf), or the set's folder.")],
    data_set: Annotated[
        str | None,
        typer.Option("--data-set", metavar="NAME", help="Write this data set's corrupted test images instead."),
    ] = None,
    data: DataOption = None,
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="The constants for a picture: imagenet, tiny-imagenet or cifar.")
    ] = "imagenet",
    suite: SuiteOption = None,
    seed: SeedOption = 1234,
    frost: FrostOption = "procedural",
    corruption: CorruptionOption = None,
    greyscale: GreyscaleOption = False,
    workers: Annotated[
        int | None,
        typer.Option(metavar="N", min=1, help="Processes that write a set side by side.  [default: one for each core]"),
    ] = None,
) -> None:
    """Draw a picture under all 19 corruptions, or write a data set's corrupted images to the disk.

    The picture is scaled and cropped to the profile's size: 224, 64 or 32 pixels, and drawn at the 5 severities.

    A data set's images are written as CIFAR-10-C, Tiny-ImageNet-C or ImageNet-C lie on the disk. Safe to repeat: what
    is finished is kept.

    Example: **pushpull corrupt photo.jpg --out corruptions.png**

    Example: **pushpull corrupt --data-set cifar10 --data cifar10 --out CIFAR-10-C**
    """
    console = _console()
    if (photo is None) == (data_set is None):
        raise InputError("corrupt needs either a picture or --data-set, and not both")
    others = ("data", "suite", "corruption", "workers", "greyscale") if data_set is None else ("profile",)
    if misplaced := _first_given(context, {name: f"--{name}" for name in others}):
        raise InputError(
            f"{misplaced} does not go with {'a picture' if data_set is None else '--data-set'}; leave it out"
        )
    if photo is not None:
        from pushpull_conv.drawing import preview

        preview(photo, out, profile=profile, seed=seed, frost=frost)
        _say(console, f"figure: {out}")
    elif data_set is not None:
        from pushpull_conv.benchmarking import corrupt_set
        from pushpull_conv.data import open_images

        images = open_images(data_set, "test", root=data, greyscale=greyscale)
        manifest = corrupt_set(
            images,
            out,
            suite=suite,
            seed=seed,
            frost=frost,
            corruptions=corruption,
            workers=workers or usable_cores(),
            console=console,
        )
        _say(console, f"set: {manifest}")


@app.command()
def augment(
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A picture that Pillow can read.")],
    out: Annotated[Path, _out("FILE", "The figure: .png, .svg or .pdf.")],
    profile: Annotated[
        str, typer.Option(metavar="NAME", help="The size and the settings: imagenet, tiny-imagenet or cifar.")
    ] = "imagenet",
    seed: Annotated[
        int, typer.Option(metavar="N", help="Key of the augmentations' randomness.", callback=_seed)
    ] = 1234,
) -> None:
    """Draw a picture as each augmentation gives it to training.

    The picture is scaled and cropped to the profile's size: 224, 64 or 32 pixels.

    Example: **pushpull augment photo.jpg --out augmentations.png**
    """
    from pushpull_conv.drawing import augment as draw

    draw(photo, out, profile=profile, seed=seed)
    _say(_console(), f"figure: {out}")


@app.command()
def explain(
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="A run's folder, a .safetensors file, or a name that **models** lists."),
    ],
    photo: Annotated[Path, typer.Argument(metavar="PHOTO", help="A picture that Pillow can read.")],
    out: Annotated[Path, _out("FILE", "The figure: .png, .svg or .pdf.")],
    filters: Annotated[int, typer.Option(metavar="N", help="How many filters to show.")] = 4,
) -> None:
    """Draw what a trained push-pull unit does to a picture.

    Its kernels, their spectra, their responses, and the strengths of the inhibition.

    Example: **pushpull explain runs/quickstart/PP3 photo.jpg --out explained.png**

    Example: **pushpull explain cifar10-resnet20-pp3 photo.jpg --out explained.png**
    """
    from pushpull_conv.drawing import explain as draw

    draw(model, photo, out, filters=filters)
    _say(_console(), f"figure: {out}")


@data_app.command("check")
def check_data(
    folder: Annotated[Path, typer.Argument(metavar="FOLDER", help="A data set, or a set that **corrupt** wrote.")],
    data_set: Annotated[
        str | None, typer.Option("--data-set", metavar="NAME", help="What it is: cifar10, imagenet, folder, ...")
    ] = None,
) -> None:
    """Look over a data set before training on it: decode every image, name whatever is wrong.

    Class folders that are missing or too many, files that are no images, images that cannot be read or have another
    size. A set that **corrupt** wrote is compared with the checksums in its manifest. Exits with 1 if something is
    wrong.

    Example: **pushpull data check imagenet --data-set imagenet**

    Example: **pushpull data check CIFAR-10-C**
    """
    from pushpull_conv.checking import check

    console = _console(soft_wrap=True, highlight=False)
    problems = check(folder, data_set, console)
    for problem in problems:
        console.print(f"[bold red]wrong:[/] {escape(problem)}")
    console.print(f"problems: {len(problems)}" if problems else "nothing is wrong")
    if problems:
        raise typer.Exit(1)


@contextlib.contextmanager
def _experiment(recipe: str, data: Path | None, out: Path | None, settings: list[str] | None) -> "Iterator[Experiment]":
    """The experiment that the options of a command name, done together with the processes that the command runs in."""
    with interrupts_held():  # in the import of Triton, PyTorch takes Ctrl-C for a sign that there is none, and goes on
        from pushpull_conv.experiment import Experiment
        from pushpull_conv.ranks import joined
        from pushpull_conv.training.recipe import load_recipe

    loaded = load_recipe(recipe, settings or ())
    folder = out or Path("runs") / loaded.name
    with joined() as ranks:
        console = _console(quiet=not ranks.is_first)
        yield Experiment(loaded, folder, data_root=data, console=console, ranks=ranks)


def _print_plan(recipe: str, data: Path | None, out: Path | None, settings: list[str] | None, devices: int) -> None:
    with _experiment(recipe, data, out, settings) as experiment:
        from pushpull_conv.planning import plan, plan_table
        from pushpull_conv.ranks import own_device
        from pushpull_conv.training.precision import precision_refusal

        title = f"{experiment.recipe.title} in {experiment.folder}: estimated on one device of this machine"
        experiment.check(devices)
        planned = plan(experiment)
        experiment.console.print(plan_table(planned, title), crop=False)
        if any(one.training_seconds for one in planned):
            if refusal := precision_refusal(experiment.recipe.training.precision, own_device()):
                _say(experiment.console, f"note: {refusal}")
            experiment.note_precision()
        if any(one.benchmark_seconds for one in planned):
            experiment.note_autocast()


def _first_given(context: typer.Context, options: "Mapping[str, str]") -> str | None:
    """The first of some options, by parameter, that was written on the command line, be it with its default."""
    sources = {option: context.get_parameter_source(name) for name, option in options.items()}
    return next((option for option, source in sources.items() if source and source.name == "COMMANDLINE"), None)


def _chosen(recipe: "Recipe", names: list[str] | None) -> "Sequence[Variant]":
    """Return the trainings that --variant names, or all."""
    return [recipe.variant(name) for name in names] if names else recipe.trainings


def _on_devices(devices: int) -> None:
    """Run this very command once for each of several devices instead, unless this is one of those runs."""
    from pushpull_conv.ranks import launch, launched

    if devices != 1 and not launched():
        sys.exit(launch([sys.executable, "-m", "pushpull_conv.cli", *sys.argv[1:]], devices))


def _console(**options: Any) -> Console:
    """Return a terminal on which a name such as ``:fire:`` stays what it is."""
    return Console(emoji=False, **options)


def _say(console: Console, line: str) -> None:
    """Print a line as it is: what stands in brackets is part of a name, not markup."""
    console.print(line, markup=False, highlight=False, soft_wrap=True)


if __name__ == "__main__":
    main()

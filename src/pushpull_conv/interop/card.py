"""The model card of a trained classifier, in Hugging Face's format."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from pushpull_conv.benchmark import Results, corruption_errors, mean_error
from pushpull_conv.corruptions import CORRUPTIONS
from pushpull_conv.corruptions.spec import spoken
from pushpull_conv.errors import InputError
from pushpull_conv.files import RECIPE_FILE, RESULTS_FILE
from pushpull_conv.models import ModelSpec
from pushpull_conv.provenance import read_provenance
from pushpull_conv.report.scores import Score, score
from pushpull_conv.report.wording import duration, making_of, percent, signed
from pushpull_conv.training.recipe import load_recipe

_TAGS = ["image-classification", "robustness", "common-corruptions", "push-pull"]
_PAPERS = {
    "unit": "[PushPull-Net: Inhibition-driven ResNet robust to image corruptions](https://arxiv.org/abs/2408.04077)",
    "benchmark": "[Hendrycks & Dietterich, ICLR 2019](https://arxiv.org/abs/1903.12261)",
}
_USE = """from pushpull_conv.interop.hub import HubClassifier

model = HubClassifier.from_pretrained("FOLDER_OR_REPOSITORY")
logits = model(images)"""


def card_text(
    spec: ModelSpec,
    run: Path | None,
    license: str | None,
    *,
    baseline: Path | None = None,
    title: str | None = None,
    use: str = _USE,
    notes: str = "",
) -> str:
    """Return the card as Markdown under its metadata.

    Args:
        spec: What the model is.
        run: Folder with the model's ``results.json`` and, where there are, ``provenance.json`` and the run's recipe
            beside the folder. None: the card says nothing of results and training.
        license: The weights' licence, as Hugging Face names it; None: the card says that none is stated.
        baseline: Folder with the ``results.json`` that those of ``run`` are compared with, both of the whole benchmark;
            None: they are not.
        title: The model's name; by default the label of its results, or the network's name.
        use: Python that loads and calls the model.
        notes: More sections, in Markdown, put before how the model was trained.

    Raises:
        InputError: ``run`` or ``baseline`` holds no results, those of ``run`` are of other classes than the model's, or
            the two cannot be compared.

    Example:
        >>> spec = ModelSpec("resnet20", 10, None, {"avg_kernel_size": 3}, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> text = card_text(spec, None, "apache-2.0")
        >>> "license: apache-2.0" in text, "resnet20 with a push-pull stem (avg_kernel_size 3)" in text
        (True, True)
    """
    results = None if run is None else Results.load(run / RESULTS_FILE)
    if results and (
        len(results.header.classes) != spec.num_classes or (spec.classes and results.header.classes != spec.classes)
    ):
        raise InputError(f"run '{run}' has results of other classes than the model's; give the model's own run")
    title = title or (results.model if results else spec.name)
    sections = [_what(spec, title), f"```python\n{use}\n```"]
    if results:
        sections.append(_errors(results, None if baseline is None else Results.load(baseline / RESULTS_FILE)))
    if notes:
        sections.append(notes)
    if run is not None:
        sections += _training(run)
    sections.append(f"## Licence\n\n{f'The weights: {license}.' if license else 'None is stated for the weights.'}")
    return f"---\n{_metadata(title, results, license).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(title: str, results: Results | None, license: str | None) -> ModelCardData:
    facts: dict[str, Any] = {}
    if results:
        facts = {"model_name": title, "eval_results": _evaluations(results)}
    return ModelCardData(
        library_name="pushpull-conv", pipeline_tag="image-classification", tags=_TAGS, license=license, **facts
    )


def _evaluations(results: Results) -> list[EvalResult]:
    header = results.header
    clean = _evaluation(header.data, f"{header.data} ({header.split})", "Top-1 error", results.clean_error)
    if results.missing:
        return [clean]
    suite = f"{header.suite}, revision {header.revision}, {header.origin}"
    return [clean, _evaluation(header.suite, suite, "Mean error over 15 corruptions", mean_error(results))]


def _evaluation(kind: str, title: str, metric: str, value: float) -> EvalResult:
    return EvalResult(
        task_type="image-classification",
        dataset_type=kind,
        dataset_name=title,
        metric_type="error",
        metric_name=metric,
        metric_value=round(value, 6),
    )


def _what(spec: ModelSpec, title: str) -> str:
    stem = "a plain stem"
    if spec.pushpull is not None:
        stem = f"a push-pull stem ({_listed(_in_force(spec.pushpull))})"
    elif spec.layer is not None:
        stem = f"the layer {_listed(spec.layer)}"
    classes = (
        f" (in the order of the logits: {_escaped(', '.join(spec.classes))})" if 0 < len(spec.classes) <= 20 else ""
    )
    grey = ", in greyscale," if spec.greyscale else ""
    unit = "" if spec.pushpull is None else f" The unit: {_PAPERS['unit']}."
    return (
        f"# {_escaped(title)}\n\n"
        f"An image classifier: {spec.name} with {stem}, {spec.num_classes} classes{classes}. It takes uint8 images "
        f"`[B, 3, H, W]` or floats in [0, 1]{grey} and normalises them itself.{unit}"
    )


def _in_force(pushpull: Mapping[str, Any]) -> dict[str, Any]:
    """The unit's settings, without a strength that was learned instead."""
    learned = pushpull.get("trainable_alpha", False)
    return {name: value for name, value in pushpull.items() if not (learned and name == "alpha")}


def _errors(results: Results, baseline: Results | None) -> str:
    header = results.header
    alike = set(results.severities.values())
    severities = ", ".join(map(str, *alike)) if len(alike) == 1 else "that were run of each" if alike else "none"
    text = (
        f"## Errors\n\nTop-1 error on the {header.images:,} {header.split} images of {header.data}, clean and under "
        f"common corruptions ({_PAPERS['benchmark']}), averaged over the severities {severities}. Suite "
        f"{header.suite}, revision {header.revision}; {making_of(header)}.\n\n"
    )
    if baseline is None:
        return text + _table({"top-1 error": _error_rows(results)})
    comparison = _comparison(score(results, baseline), baseline.model)
    return (
        f"{text}{_table({'top-1 error': _error_rows(results), baseline.model: _error_rows(baseline)})}\n\n{comparison}"
    )


def _error_rows(results: Results) -> dict[str, str]:
    rows = {"clean": percent(results.clean_error)}
    rows |= {spoken(name): percent(error) for name, error in corruption_errors(results).items()}
    if not results.missing:
        rows[f"**mean error** over {len(CORRUPTIONS)} corruptions"] = f"**{percent(mean_error(results))}**"
    return rows


def _table(columns: Mapping[str, Mapping[str, str]]) -> str:
    """Return Markdown with the rows of the first column."""
    first = next(iter(columns.values()))
    titles = map(_escaped, columns)
    rows = [" | ".join([name, *(column.get(name, "–") for column in columns.values())]) for name in first]
    head = [f"| images | {' | '.join(titles)} |", f"|:--|{'--:|' * len(columns)}"]
    return "\n".join([*head, *(f"| {row} |" for row in rows)])


def _comparison(own: Score, baseline: str) -> str:
    """Say what the measures against a baseline are, and mean; one that would divide by zero is left out."""
    lines = []
    if own.mce is not None:
        lines.append(f"mCE {percent(own.mce)}: mean over the corruptions of the error as a share of the baseline's.")
    if own.relative_mce is not None:
        lines.append(
            f"relative mCE {percent(own.relative_mce)}: the same for the rise of the error above the clean one."
        )
    if own.r_net is not None:
        lines.append(
            f"R_net {signed(own.r_net)} %: half the sum of the relative gains in clean error and in mean error, the "
            "latter weighted by their ratio in the baseline; positive is better than the baseline."
        )
    return "\n".join(
        [f"Against {_escaped(baseline)} (of mCE and relative mCE less is better):\n", *(f"- {line}" for line in lines)]
    )


def _training(run: Path) -> list[str]:
    """What is recorded of the training; nothing where nothing is."""
    sections = []
    if record := dict(read_provenance(run).get("training", {})):
        if "seconds" in record:
            record["time"] = duration(float(record.pop("seconds")))
        facts = "\n".join(f"- {name}: {value}" for name, value in record.items() if value)
        sections.append(f"## Training\n\n{facts}")
    file = run.resolve().parent / RECIPE_FILE
    if file.exists():
        recipe, name = load_recipe(str(file)), run.resolve().name
        trained = {training.name: recipe.seed_of(training) for training in recipe.trainings}
        which = f"The variant `{name}` of this recipe, training seed {trained[name]}.\n\n" if name in trained else ""
        stored = file.read_text(encoding="utf-8").strip()
        sections.append(f"## Recipe\n\n{which}```yaml\n{stored}\n```")
    return sections


def _escaped(name: str) -> str:
    """Return a name of the user's as Markdown that shows it as it is, in a table, too."""
    return re.sub(r"([\\`*_|<\[])", r"\\\1", name)


def _listed(settings: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())

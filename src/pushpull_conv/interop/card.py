"""The model card of a trained classifier, in Hugging Face's format."""

from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from pushpull_conv.benchmark import Results, corruption_errors, mean_error
from pushpull_conv.corruptions import CORRUPTIONS, SEVERITIES
from pushpull_conv.errors import InputError
from pushpull_conv.files import RECIPE_FILE, RESULTS_FILE
from pushpull_conv.models import ModelSpec
from pushpull_conv.provenance import read_provenance
from pushpull_conv.report.wording import percent, spoken
from pushpull_conv.training.recipe import load_recipe

_TAGS = ["image-classification", "robustness", "common-corruptions", "push-pull"]
_PAPERS = {
    "unit": "[PushPull-Net: Inhibition-driven ResNet robust to image corruptions](https://arxiv.org/abs/2408.04077)",
    "benchmark": "[Hendrycks & Dietterich, ICLR 2019](https://arxiv.org/abs/1903.12261)",
}


def card_text(spec: ModelSpec, run: Path | None, license: str | None) -> str:
    """Return the card as Markdown under its metadata.

    Args:
        spec: What the model is.
        run: Folder with the model's ``results.json`` and, where there are, ``provenance.json`` and the run's recipe
            beside the folder. None: the card says nothing of results and training.
        license: The weights' licence, as Hugging Face names it; None: the card says that none is stated.

    Raises:
        InputError: ``run`` holds no results, or of another model's classes.

    Example:
        >>> spec = ModelSpec("resnet20", 10, None, {"avg_kernel_size": 3}, mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> text = card_text(spec, None, "apache-2.0")
        >>> "license: apache-2.0" in text, "resnet20 with a push-pull stem (avg_kernel_size 3)" in text
        (True, True)
    """
    results = None if run is None else Results.load(run / RESULTS_FILE)
    if results and spec.classes and results.header.classes != spec.classes:
        raise InputError(f"run '{run}' has results of other classes than the model's; give the model's own run")
    sections = [_what(spec, results), _use()]
    if results and run is not None:
        sections += [_scores(results), *_training(run)]
    sections.append(f"## Licence\n\n{f'The weights: {license}.' if license else 'None is stated for the weights.'}")
    return f"---\n{_metadata(results, license).to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _metadata(results: Results | None, license: str | None) -> ModelCardData:
    facts: dict[str, Any] = {}
    if results:
        facts = {"model_name": results.model, "eval_results": _evaluations(results)}
    return ModelCardData(
        library_name="pushpull-conv", pipeline_tag="image-classification", tags=_TAGS, license=license, **facts
    )


def _evaluations(results: Results) -> list[EvalResult]:
    header = results.header
    clean = _evaluation(header.data, f"{header.data} ({header.split})", "Top-1 error", results.clean_error)
    if not _whole(results):
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


def _whole(results: Results) -> bool:
    return all((name, severity) in results.cells for name in CORRUPTIONS for severity in SEVERITIES)


def _what(spec: ModelSpec, results: Results | None) -> str:
    stem = "a plain stem"
    if spec.pushpull is not None:
        stem = f"a push-pull stem ({_listed(spec.pushpull)})"
    elif spec.layer is not None:
        stem = f"the layer {_listed(spec.layer)}"
    classes = f": {', '.join(spec.classes)}" if 0 < len(spec.classes) <= 20 else ""
    return (
        f"# {results.model if results else spec.name}\n\n"
        f"An image classifier: {spec.name} with {stem}, {spec.num_classes} classes{classes}. It takes uint8 images "
        f"`[B, 3, H, W]` or floats in [0, 1] and normalises them itself. The unit: {_PAPERS['unit']}."
    )


def _use() -> str:
    return (
        "```python\nfrom pushpull_conv.interop.hub import HubClassifier\n\n"
        'model = HubClassifier.from_pretrained("FOLDER_OR_REPOSITORY")\nlogits = model(images)\n```'
    )


def _scores(results: Results) -> str:
    header = results.header
    seed = "" if header.seed is None else f", seed {header.seed}"
    lines = [f"| {spoken(name)} | {percent(error)} |" for name, error in corruption_errors(results).items()]
    if _whole(results):
        lines.append(f"| **mean error** over {len(CORRUPTIONS)} corruptions | **{percent(mean_error(results))}** |")
    severities = ", ".join(str(level) for level in sorted({severity for _, severity in results.cells}))
    return (
        f"## Errors\n\nTop-1 error on the {header.images} {header.split} images of {header.data}, clean and under "
        f"common corruptions ({_PAPERS['benchmark']}), averaged over the severities {severities or 'none'}. Suite "
        f"{header.suite}, revision {header.revision}; images {header.origin}{seed}.\n\n"
        f"| images | top-1 error |\n|:--|--:|\n| clean | {percent(results.clean_error)} |\n" + "\n".join(lines)
    )


def _training(run: Path) -> list[str]:
    """What is recorded of the training; nothing where nothing is."""
    sections = []
    if record := read_provenance(run).get("training"):
        facts = "\n".join(f"- {name}: {value}" for name, value in record.items() if value)
        sections.append(f"## Training\n\n{facts}")
    file = run.resolve().parent / RECIPE_FILE
    if file.exists():
        recipe = load_recipe(str(file))
        sections.append(f"## Recipe\n\nTraining seed {recipe.seed}.\n\n```yaml\n{recipe.to_yaml().strip()}\n```")
    return sections


def _listed(settings: Any) -> str:
    return ", ".join(f"{name} {value}" for name, value in settings.items())

"""The results that are committed: the printed tables must follow from the counts."""

import csv
from pathlib import Path

import pytest

from pushpull_conv import CORRUPTIONS, Results
from pushpull_conv.models import load_checkpoint
from pushpull_conv.training.recipe import load_recipe

ROOT = Path(__file__).parents[1]
RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/recipe.yaml"))


def results_of(run):
    recipe = load_recipe(str(run / "recipe.yaml"))
    return recipe, {variant.name: Results.load(run / variant.name / "results.json") for variant in recipe.variants}


def scores_of(result, base):
    """The measures, written out from the counts without the package's own metrics."""
    error = {key: 1 - cell.top1 / cell.n for key, cell in result.cells.items()}
    reference = {key: 1 - cell.top1 / cell.n for key, cell in base.cells.items()}
    clean, clean_base = 1 - result.clean.top1 / result.clean.n, 1 - base.clean.top1 / base.clean.n
    mean, mean_base = sum(error.values()) / 75, sum(reference.values()) / 75
    ratios, rises = [], []
    for name in CORRUPTIONS:
        ours = sum(error[name, severity] for severity in range(1, 6))
        theirs = sum(reference[name, severity] for severity in range(1, 6))
        ratios.append(ours / theirs)
        rises.append((ours - 5 * clean) / (theirs - 5 * clean_base))
    gain = (clean_base - clean) / clean_base + mean_base / clean_base * (mean_base - mean) / mean_base
    return {
        "clean_error": clean,
        "mean_error": mean,
        "mce": sum(ratios) / 15,
        "relative_mce": sum(rises) / 15,
        "r_net_percent": 100 * gain / 2,
    }


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_table_follows_from_the_counts(run):
    recipe, results = results_of(run)
    rows = {row["model"]: row for row in csv.DictReader((run / "report" / "table.csv").open())}
    assert list(rows) == list(results)
    for name, result in results.items():
        assert len(result.cells) == 75
        for measure, value in scores_of(result, results[recipe.baseline]).items():
            assert float(rows[name][measure]) == pytest.approx(value, abs=1e-12), (name, measure)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_readme_prints_the_table_of_the_report(run):
    table = [line for line in (run / "report" / "table.md").read_text().splitlines() if line.startswith("|")]
    comparison = table[: 2 + len(results_of(run)[1])]
    assert "\n".join(comparison) in (ROOT / "README.md").read_text()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_shipped_models_are_those_of_the_recipe(run):
    recipe, results = results_of(run)
    for variant in recipe.variants:
        _, spec = load_checkpoint(run / variant.name / "model.safetensors")
        assert spec.name == recipe.model.name
        assert spec.pushpull == (variant.pushpull.model_dump() if variant.pushpull else None)
        assert spec.classes == results[variant.name].header.classes

"""The results that are committed: the printed tables must follow from the counts."""

import csv
import json
import re
from pathlib import Path
from statistics import fmean, stdev

import pytest
from scipy import stats

from pushpull_conv import CORRUPTIONS, Results
from pushpull_conv.models import load_checkpoint
from pushpull_conv.training.recipe import load_recipe

ROOT = Path(__file__).parents[1]
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
RUNS = sorted(path.parent for path in (ROOT / "results").glob("*/recipe.yaml"))


def results_of(run):
    """The recipe and its trainings: the first of every variant, all of the baseline, and those of the others so far."""
    recipe = load_recipe(str(run / "recipe.yaml"))
    needed = {one.name for one in recipe.trainings if one.name.split("@")[0] in (one.name, recipe.baseline)}
    done = {folder.parent.name for folder in run.glob("*/results.json")}
    names = [one.name for one in recipe.trainings if one.name in done]
    assert needed <= done == set(names)
    return recipe, {name: Results.load(run / name / "results.json") for name in names}


def comparisons_in(path):
    """The Markdown tables that compare variants."""
    return re.findall(r"^\| Variant \| Clean .*(?:\n\|.*)*", path.read_text(), re.M)


def trainings_of(results, variant):
    return [result for name, result in results.items() if name.split("@")[0] == variant]


def scores_of(results, bases):
    """The measures, written out from the counts without the package's own metrics; of several trainings' mean."""
    error, reference = (
        {key: fmean(1 - one.cells[key].top1 / one.cells[key].n for one in several) for key in several[0].cells}
        for several in (results, bases)
    )
    clean, clean_base = (fmean(1 - one.clean.top1 / one.clean.n for one in several) for several in (results, bases))
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
    assert list(rows) == [variant.name for variant in recipe.variants]
    base = trainings_of(results, recipe.baseline)
    for name, row in rows.items():
        several = trainings_of(results, name)
        assert int(row.get("trainings") or 1) == len(several)
        assert {len(result.cells) for result in several} == {75}
        each = [scores_of([result], base) for result in several]
        for measure, value in scores_of(several, base).items():
            assert float(row[measure]) == pytest.approx(value, abs=1e-12), (name, measure)
            spread = stdev(scores[measure] for scores in each) if len(each) > 1 else ""
            assert (row[f"{measure}_sd"] and float(row[f"{measure}_sd"])) == pytest.approx(spread, abs=1e-12)


@pytest.mark.parametrize(
    ("run", "variant"), [("seeds", "PP3"), ("seeds", "PP5"), ("search", "BlurredConv"), ("search", "PP5-deep")]
)
def test_the_page_gives_the_intervals_of_what_was_trained_several_times(run, variant):
    run = ROOT / "results" / f"cifar10-resnet20-{run}"
    recipe, results = results_of(run)
    scores = {
        name: [scores_of([one], trainings_of(results, recipe.baseline)) for one in trainings_of(results, name)]
        for name in (variant, recipe.baseline)
    }
    page = " ".join((run / "report" / "index.html").read_text().split())
    for measure in ("mean_error", "clean_error"):
        own, base = ([100 * one[measure] for one in scores[name]] for name in (variant, recipe.baseline))
        low, high = stats.ttest_ind(own, base, equal_var=False).confidence_interval()
        assert f"{low:+.2f} to {high:+.2f}".replace("-", "−") in page


def test_the_comparisons_that_are_printed_are_those_of_the_reports():
    tables = {run.name: comparisons_in(run / "report" / "table.md") for run in RUNS}
    printed = comparisons_in(ROOT / "docs" / "results.md")
    assert sorted(printed) == sorted(table for one in tables.values() for table in one)
    assert comparisons_in(ROOT / "README.md") == tables["cifar10-resnet20-seeds"]
    for run in RUNS:
        (table,) = tables[run.name]
        assert len(table.splitlines()) == 2 + len(load_recipe(str(run / "recipe.yaml")).variants)


def test_the_summary_of_the_readme_follows_from_the_counts():
    def row_of(run, name):
        with (ROOT / "results" / f"cifar10-resnet20-{run}" / "report" / "table.csv").open() as table:
            (row,) = (row for row in csv.DictReader(table) if row["model"] == name)
        return row

    def shown(row, measure):
        spread = row.get(f"{measure}_sd")
        return f"{100 * float(row[measure]):.2f}" + (f" ± {100 * float(spread):.2f}" if spread else "")

    def cost(row):
        return 100 * (float(row["clean_error"]) - float(baseline["clean_error"]))

    summary = (ROOT / "README.md").read_text().split("## ")[0]
    trained = [("seeds", "baseline"), ("seeds", "PP3"), ("seeds", "PP5"), ("search", "BlurredConv")]
    trained += [("augmented", "AugMix"), ("augmented", "AugMix+BlurredConv")]
    rows = [row_of(run, name) for run, name in trained]
    expected = [(shown(row, "clean_error"), shown(row, "mean_error"), row.get("trainings") or "1") for row in rows]
    assert re.findall(r"^\| .+ \| (\d.+) \| (\d.+) \| (\d) \|$", summary, re.M) == expected
    baseline, *units, _ = rows[:4]
    assert " to ".join(f"{rise:.1f}".removesuffix(".0") for rise in sorted(map(cost, units))) + " point of" in summary
    gains = [100 * (float(baseline["mean_error"]) - float(row["mean_error"])) for row in units]
    assert f"brings** {fmean(gains):.0f} points of mean error" in summary
    assert len({row["parameters"] for row in (baseline, *units)}) == 1


def test_the_errors_with_augmentation_in_the_readme_follow_from_the_counts():
    _, results = results_of(ROOT / "results" / "cifar10-resnet20-augmented")
    scores = {name: scores_of([result], [results["baseline"]]) for name, result in results.items()}
    text = " ".join((ROOT / "README.md").read_text().split())
    mean, clean = (
        {name: f"{100 * one[key]:.2f} %" for name, one in scores.items()} for key in ("mean_error", "clean_error")
    )
    assert f"AugMix alone reaches a mean error of {mean['AugMix']} at {clean['AugMix']} clean, PRIME" in text
    assert f"PRIME {mean['PRIME']} at {clean['PRIME']};" in text
    for name in ("AugMix", "PRIME"):
        assert all(scores[f"{name}+PP3"][key] > scores[name][key] for key in ("mean_error", "clean_error"))


def test_the_errors_under_the_extra_corruptions_follow_from_the_counts():
    found = (ROOT / "results" / "cifar10-resnet20-extra").glob("*/results.json")
    counted = {file.parent.name: json.loads(file.read_text()) for file in found}
    rows = re.findall(r"^\| (\S+) \| (\d) \| ([\d.| ±]+) \|$", (ROOT / "docs" / "results.md").read_text(), re.M)
    assert sorted(name for name, *_ in rows) == sorted({name.split("@")[0] for name in counted})
    for name, trainings, printed in rows:
        several = [content for label, content in counted.items() if label.split("@")[0] == name]
        errors = [
            [fmean(100 - 100 * c["top1"] / c["n"] for c in one["cells"] if c["corruption"] == kind) for kind in EXTRA]
            for one in several
        ]
        clean = [100 - 100 * one["clean"]["top1"] / one["clean"]["n"] for one in several]
        means = [fmean(one) for one in errors]
        spread = [stdev(means)] if len(several) > 1 else []
        values = [*map(fmean, (clean, *zip(*errors, strict=True))), fmean(means), *spread]
        assert trainings == str(len(several))
        assert [float(text) for text in re.split(r" \| | ± ", printed)] == pytest.approx(values, abs=0.005 + 1e-9)


def test_the_extra_corruptions_are_counted_on_the_same_networks_and_images():
    for file in (ROOT / "results" / "cifar10-resnet20-extra").glob("*/results.json"):
        extra = Results.load(file)
        assert sorted(extra.cells) == sorted((name, severity) for name in EXTRA for severity in range(1, 6))
        others = [Results.load(run / extra.model / "results.json") for run in RUNS if (run / extra.model).exists()]
        assert any(extra.clean == other.clean for other in others), extra.model
        assert all(extra.header == other.header for other in others)


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_the_shipped_models_are_those_of_the_recipe(run):
    recipe, results = results_of(run)
    for name, result in results.items():
        variant = recipe.variant(name)
        _, spec = load_checkpoint(run / name / "model.safetensors")
        assert spec.name == recipe.model.name
        assert spec.pushpull == (variant.pushpull.model_dump() if variant.pushpull else None)
        assert spec.layer == (variant.layer.model_dump(mode="json") if variant.layer else None)
        assert spec.classes == result.header.classes

"""The whole path: recipe, training, benchmark, comparison, and calling it again."""

import csv
import dataclasses
import itertools
import json
import re
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image
from rich.console import Console
from safetensors.torch import load_file

from pushpull_conv import CORRUPTIONS, InputError, Results, evaluate, experiment, mean_error, r_net
from pushpull_conv.data import identity_of, sets
from pushpull_conv.experiment import Experiment
from pushpull_conv.models import save_checkpoint
from pushpull_conv.provenance import recorded
from pushpull_conv.training.fit import build
from pushpull_conv.training.recipe import load_recipe
from steps import refused

QUICK = ["--set", "training.epochs=1", "--set", "training.batch_size=128"]
QUICK += ["--set", "model.name=timm:test_resnet"]  # a tenth of the arithmetic of a ResNet-20


@pytest.fixture
def few_digits(monkeypatch):
    """Every sixth of the digits: enough where counts are compared with each other, and nothing need be learned."""
    split = sets._digits_split
    monkeypatch.setattr(sets, "_digits_split", lambda labels, name: split(labels, name)[::6])


@pytest.mark.slow
def test_run_leaves_a_whole_comparison_and_repeats_nothing(pushpull, tmp_path, monkeypatch, request):
    monkeypatch.chdir(tmp_path)
    code, out, err = pushpull("run", "quickstart", *QUICK)
    assert (code, err) == (0, "")
    run = tmp_path / "runs" / "quickstart"
    assert "runs/quickstart/report/index.html" in out
    assert {"baseline", "PP3", "report", "recipe.yaml"} == {path.name for path in run.iterdir()}

    results = {name: Results.load(run / name / "results.json") for name in ("baseline", "PP3")}
    assert set(results["PP3"].cells) == {(name, severity) for name in CORRUPTIONS for severity in range(1, 6)}
    rows = {row["model"]: row for row in csv.DictReader((run / "report" / "table.csv").open())}
    base = results["baseline"]
    for name, result in results.items():
        assert float(rows[name]["mean_error"]) == pytest.approx(mean_error(result))
        expected = r_net(result.clean_error, mean_error(result), base.clean_error, mean_error(base))
        assert float(rows[name]["r_net_percent"]) == pytest.approx(expected)
    page = (run / "report" / "index.html").read_text()
    assert "PP3" in page
    assert "Handwritten digits" in page
    record = json.loads((run / "PP3" / "provenance.json").read_text())
    assert set(record) == {"training", "benchmark"}
    assert [record[step]["images"][:10] for step in ("training", "benchmark")] == ["1442 image", "355 images"]

    kept = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file() and "report" not in path.parts}
    request.getfixturevalue("quick")
    code, out, err = pushpull("run", "quickstart", *QUICK)
    assert (code, err) == (0, "")
    assert "epoch" not in out
    assert {path: path.stat().st_mtime_ns for path in kept} == kept

    call = ["compare", run / "PP3", run / "baseline", "--baseline", "PP3", "--out", tmp_path / "report"]
    assert pushpull(*call)[0] == 0
    assert (tmp_path / "report" / "index.html").exists()


@pytest.mark.slow
def test_students_epochs_and_augmentations_reach_the_report(pushpull, quick, few_digits, tmp_path):
    taught = "{name: taught, pushpull: {}, distillation: {teacher: AugMix}}"
    settings = ["training.epochs=2", "benchmark.every=1", "baseline=AugMix"]
    settings += [f"variants=[{taught}, AugMix, PRIME+PP3]"]
    call = ["run", "quickstart", *QUICK, "--out", tmp_path]
    call += [word for setting in settings for word in ("--set", setting)]
    code, out, err = pushpull(*call)
    assert (code, err) == (0, "")
    assert out.index("AugMix  epoch 2/2") < out.index("taught  epoch 1/2"), "the teacher is trained first"
    for name in ("AugMix", "taught", "PRIME+PP3"):
        earlier = Results.load(tmp_path / name / "epochs" / "001" / "results.json")
        assert earlier.cells != Results.load(tmp_path / name / "results.json").cells
        assert not (tmp_path / name / "epochs" / "002").exists()
    page = (tmp_path / "report" / "index.html").read_text()
    assert "Robustness while it is learned" in page
    assert "PRIME+PP3: PRIME draws operations that come close to test corruptions" in page


@pytest.mark.slow
def test_a_benchmark_in_parts_counts_what_a_whole_one_counts(pushpull, few_digits, tmp_path):
    """Of the model and of its kept epoch; the results come with the call that finds all parts."""
    call = ["quickstart", *QUICK, "--set", "training.epochs=2", "--set", "benchmark.every=1", "--variant", "PP3"]
    assert pushpull("train", *call, "--out", tmp_path / "a")[0] == 0
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    for part in (["clean", "fog"], ["snow"]):
        words = [word for name in part for word in ("--corruption", name)]
        assert pushpull("benchmark", *call, "--out", tmp_path / "a", *words)[0] == 0
    for folder in (tmp_path / "a" / "PP3", tmp_path / "a" / "PP3" / "epochs" / "001"):
        counted = {path.name for path in (folder / "cells").iterdir()} - {"header.json"}
        severities = [f"{name}-{severity}.json" for name in ("fog", "snow") for severity in range(1, 6)]
        assert counted == {"clean.json", *severities}
        assert not (folder / "results.json").exists()
    kept = (tmp_path / "a" / "PP3" / "cells" / "fog-3.json").stat().st_mtime_ns
    for run in ("a", "b"):
        assert pushpull("benchmark", *call, "--out", tmp_path / run)[0] == 0
    assert (tmp_path / "a" / "PP3" / "cells" / "fog-3.json").stat().st_mtime_ns == kept
    for name in ("PP3", "PP3/epochs/001"):
        parts, whole = (Results.load(tmp_path / run / name / "results.json") for run in ("a", "b"))
        assert (parts.clean, parts.cells) == (whole.clean, whole.cells)


@pytest.mark.slow
def test_a_run_can_be_given_more_trainings_but_no_other_settings(pushpull, tmp_path):
    call = ["train", "quickstart", *QUICK, "--out", tmp_path, "--set"]
    assert pushpull(*call, "variants=[baseline]")[0] == 0
    first = (tmp_path / "baseline" / "model.safetensors").stat().st_mtime_ns
    assert pushpull(*call, "variants=[baseline]", "--set", "repeats=2")[0] == 0
    assert (tmp_path / "baseline" / "model.safetensors").stat().st_mtime_ns == first
    assert load_recipe(str(tmp_path / "recipe.yaml")).repeats == 2
    weights = [load_file(tmp_path / name / "model.safetensors") for name in ("baseline", "baseline@1235")]
    assert not weights[0]["fc.weight"].equal(weights[1]["fc.weight"])

    again = [*call, "variants=[baseline]", "--set"]
    assert pushpull(*again, "seed=1235")[2].count("seed is 1234 there, 1235 here") == 1
    assert "variants is ['baseline', 'baseline@1235'] there, ['baseline'] here" in pushpull(*again, "repeats=1")[2]
    other = pushpull(*call, "variants=[baseline, PP3]")[2]
    assert "variants is ['baseline', 'baseline@1235'] there, ['baseline', 'PP3'] here" in other
    more = [*call, "variants=[PP3, baseline]", "--set", "repeats=2", "--variant", "PP3"]
    (tmp_path / "cluster").mkdir()  # job arrays number the trainings
    assert "variants is ['baseline', 'baseline@1235'] there, ['PP3', 'baseline'] here" in pushpull(*more)[2]
    kept = load_recipe(str(tmp_path / "recipe.yaml"))
    assert (kept.repeats, kept.variants[0].name) == (2, "baseline")
    (tmp_path / "cluster").rmdir()
    assert pushpull(*more)[0] == 0
    assert (tmp_path / "baseline" / "model.safetensors").stat().st_mtime_ns == first
    assert [variant.name for variant in load_recipe(str(tmp_path / "recipe.yaml")).variants] == ["PP3", "baseline"]


@pytest.fixture
def fits(monkeypatch):
    """Replace training: the names of what was trained, and a list for the functions to call while something is."""
    trained, during = [], []

    def fit(recipe, variant, training, test, folder, **rest):
        for act in during:
            act()
        trained.append(variant.name)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "model.safetensors").write_text("weights")
        return folder / "model.safetensors"

    monkeypatch.setattr(experiment, "fit", fit)
    monkeypatch.setattr(experiment, "_LOCK_SECONDS", 0.0)
    return trained, during


def test_a_run_that_lost_its_recipe_says_what_to_do(tmp_path):
    (tmp_path / "PP3").mkdir()
    (tmp_path / "PP3" / "model.safetensors").write_text("weights")
    with pytest.raises(InputError, match=r"holds a run without its recipe\.yaml; restore it, or choose another --out"):
        in_folder(tmp_path)


def test_what_is_not_trained_cannot_be_counted(pushpull, tmp_path):
    call = ["benchmark", "quickstart", "--variant", "PP3", "--corruption", "fog", "--out", tmp_path]
    code, _, err = pushpull(*call)
    assert code == 2
    assert re.search(r"PP3 is not trained: '.*' does not exist; call pushpull train --variant", err)


def in_folder(folder):
    recipe = load_recipe("quickstart", ["variants=[baseline, PP3]"])
    begun = Experiment(recipe, folder, data_root=None, console=Console(quiet=True))
    return begun, *recipe.variants


def test_one_variant_is_trained_by_one_call_at_a_time(fits, pushpull, tmp_path):
    trained, during = fits
    call = ["train", "quickstart", "--out", tmp_path, "--set", "variants=[baseline, PP3]", "--variant"]
    first, baseline, _ = in_folder(tmp_path)
    codes = []

    def call_again():
        during.clear()
        code, _, err = pushpull(*call, "baseline")
        assert f"'{tmp_path / 'baseline'}' is being trained by another call; wait until it is through" in err
        codes.extend((code, pushpull(*call, "PP3")[0]))

    during.append(call_again)
    first.train(baseline)
    assert (codes, trained) == ([2, 0], ["PP3", "baseline"])
    assert not list(tmp_path.rglob(".lock"))


def test_a_model_that_another_call_finished_meanwhile_is_not_trained_again(fits, tmp_path, monkeypatch):
    trained, _ = fits
    (late, baseline, _), (first, *_) = in_folder(tmp_path), in_folder(tmp_path)
    identity_of = experiment.identity_of

    def slowly(images):  # after the late call has looked for the model, before it trains
        monkeypatch.setattr(experiment, "identity_of", identity_of)
        first.train(baseline)
        return identity_of(images)

    monkeypatch.setattr(experiment, "identity_of", slowly)
    assert late.train(baseline) == tmp_path / "baseline" / "model.safetensors"
    assert trained == ["baseline"]


@pytest.fixture
def photographs(tmp_path):
    """Two folders of photographs of the same names and classes, and the words of a recipe for them."""

    def write(name, side):
        for split in ("train", "val"):
            for label in ("ant", "bee"):
                folder = tmp_path / name / split / label
                folder.mkdir(parents=True)
                for place in range(4):
                    pixels = np.random.default_rng(place).integers(0, 256, (side, side, 3), dtype=np.uint8)
                    Image.fromarray(pixels).save(folder / f"{place}.png")
        return tmp_path / name

    settings = ["data.name=folder", "benchmark.suite=imagenet-c", "variants=[baseline, PP3]"]
    words = ["quickstart", *(word for setting in settings for word in ("--set", setting)), "--out", tmp_path / "run"]
    return write("a", 30), write("b", 40), words


def test_variants_of_a_run_learn_from_the_same_photographs(fits, pushpull, photographs):
    one, other, words = photographs
    assert pushpull("train", *words, "--data", one, "--variant", "baseline")[0] == 0
    told = ["baseline in", "has learned from 8 images of 2 classes", "give the same --data, or another --out"]
    refused(pushpull("train", *words, "--data", other, "--variant", "PP3"), *told)
    moved = one.rename(one.with_name("moved"))
    assert pushpull("train", *words, "--data", moved, "--variant", "PP3")[0] == 0
    assert fits[0] == ["baseline", "PP3"]


@pytest.mark.parametrize("verb", ["train", "run"])
def test_what_is_trained_is_not_taken_for_a_training_on_other_photographs(fits, pushpull, photographs, verb):
    one, other, words = photographs
    told = [
        "has learned from 8 images of 2 classes",
        "and the images now are",
        "give the same --data, or another --out",
    ]
    assert pushpull("train", *words, "--data", one)[0] == 0
    refused(pushpull(verb, *words, "--data", other), *told)
    shutil.copy(other / "train" / "bee" / "0.png", one / "train" / "bee" / "more.png")
    refused(pushpull(verb, *words, "--data", one), *told)


def test_photographs_that_are_not_read_are_told_in_one_line(fits, pushpull, photographs):
    one, _, words = photographs
    (one / "train" / "bee" / "5.HEIC").touch()
    code, _, err = pushpull("train", *words, "--data", one)
    assert (code, err.count("\n")) == (0, 1)
    assert err.startswith(f"warning: class folders of '{one / 'train'}' hold 1 entries that are not read (.heic); push")


def test_a_model_is_found_where_only_the_test_images_are(fits, pushpull, photographs):
    one, _, words = photographs
    assert pushpull("train", *words, "--data", one)[0] == 0
    shutil.rmtree(one / "train")
    assert pushpull("train", *words, "--data", one)[0] == 0


@pytest.fixture
def benchmarked(photographs):
    """An experiment whose variant PP3 is benchmarked on the photographs, of which only the test images are there."""
    one, other, words = photographs
    for folder in (one, other):
        shutil.rmtree(folder / "train")
    recipe = load_recipe("quickstart", [*words[2:-2:2], "model.name=timm:test_resnet"])

    def begun(data):
        return Experiment(recipe, words[-1], data_root=data, console=Console(quiet=True)), recipe.variant("PP3")

    (first, variant), folder = begun(one), words[-1] / "PP3"
    first.claim()
    classifier, spec = build(recipe, variant, first.images("test"))
    save_checkpoint(folder / "model.safetensors", classifier, spec)
    some = evaluate(classifier, first.images("test"), corruptions=["fog"], severities=[1], seed=recipe.seed)
    whole = dict.fromkeys(itertools.product(CORRUPTIONS, range(1, 6)), some.cells["fog", 1])
    with recorded(folder, "benchmark", "results.json", {"images": identity_of(first.images("test"))}):
        dataclasses.replace(some, cells=whole).save(folder / "results.json")
    return begun


def test_results_are_not_taken_for_those_of_other_photographs(benchmarked, photographs):
    one, other, _ = photographs
    first, variant = benchmarked(one)
    assert len(first.benchmark(variant).cells) == 75
    second, _ = benchmarked(other)
    told = r"holds results of 8 images of 2 classes, .* and the data have 8 images .*; give the same --data, or another"
    with pytest.raises(InputError, match=told):
        second.benchmark(variant)
    (one / "val" / "ant").rename(one / "val" / "cow")
    renamed, _ = benchmarked(one)
    with pytest.raises(InputError, match=r"others \(cow\); give the same --data, or another --out$"):
        renamed.benchmark(variant)


def test_results_are_not_taken_for_those_of_other_pictures_in_memory(tmp_path):
    """The labels of which are the same."""
    images = in_folder(tmp_path)[0].images("test")
    results = SimpleNamespace(header=SimpleNamespace(images=len(images), classes=images.classes, fingerprint="other"))
    with pytest.raises(InputError, match=r"holds results of other pictures than those of digits; give the same --data"):
        experiment._require_results_of(tmp_path / "PP3", results, None, images)


def test_a_training_that_failed_keeps_nobody_out(fits, tmp_path):
    trained, during = fits
    begun, baseline, _ = in_folder(tmp_path)
    during.append(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        begun.train(baseline)
    assert not list(tmp_path.rglob(".lock"))
    during.clear()
    begun.train(baseline)
    assert trained == ["baseline"]


def test_a_begun_run_may_change_what_decides_no_weight_and_no_count(tmp_path):
    """Two of these are what our own errors advise."""

    def call(*settings):
        recipe = load_recipe("quickstart", settings)
        Experiment(recipe, tmp_path, data_root=None, console=Console(quiet=True)).claim()

    call()
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / "last.ckpt").touch()
    call("title=Digits", "benchmark.batch_size=10", "data.unreadable=skip")
    stored = load_recipe(str(tmp_path / "recipe.yaml"))
    assert (stored.title, stored.benchmark.batch_size, stored.data.unreadable) == ("Digits", 10, "skip")
    for other in ("benchmark.every=2", "data.greyscale=true", "training.batch_size=16"):
        with pytest.raises(InputError, match=f"holds a run of another recipe .{other.partition('=')[0]} is"):
            call("title=Other", other)
    assert load_recipe(str(tmp_path / "recipe.yaml")) == stored

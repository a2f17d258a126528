"""What a recipe's ``data`` section does to an experiment's images."""

import csv
import os
import shutil
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from rich.console import Console

from pushpull_conv.benchmark import evaluate
from pushpull_conv.comparison import compare
from pushpull_conv.errors import InputError
from pushpull_conv.experiment import Experiment
from pushpull_conv.models import create_model, save_checkpoint
from pushpull_conv.ranks import ALONE
from pushpull_conv.training.callbacks import EpochLog, UnreadableLog
from pushpull_conv.training.fit import build
from pushpull_conv.training.recipe import load_recipe


def experiment(folder, *settings, data=None):
    recipe = load_recipe("quickstart", settings)
    return Experiment(recipe, folder, data_root=data, console=Console(quiet=True))


def test_a_fraction_is_taken_of_the_training_images_only(tmp_path):
    whole, part = experiment(tmp_path), experiment(tmp_path, "data.fraction=0.25")
    assert len(part.images("test")) == len(whole.images("test"))
    counts = whole.images("train").labels.bincount()
    assert part.images("train").labels.bincount().tolist() == [max(1, round(0.25 * int(count))) for count in counts]
    assert set(part.images("train").index.tolist()) < set(whole.images("train").index.tolist())


def test_greyscale_reaches_both_splits(tmp_path):
    grey = experiment(tmp_path, "data.greyscale=true")
    for split in ("train", "test"):
        images = grey.images(split).images
        assert (images[:, 0] == images[:, 1]).all()
        assert (images[:, 0] == images[:, 2]).all()
        assert "greyscale" in grey.images(split).name


def test_a_model_of_greyscale_images_says_so(tmp_path):
    for setting in (True, False):
        grey = experiment(tmp_path, f"data.greyscale={str(setting).lower()}")
        _, spec = build(grey.recipe, grey.recipe.variants[0], grey.images("train"))
        assert spec.greyscale == setting


def test_what_is_refused_leaves_no_folder(pushpull, tmp_path):
    for verb in ("train", "run", "benchmark"):
        code, _, err = pushpull(verb, "cifar10-resnet20", "--data", tmp_path / "nowhere", "--out", tmp_path / "run")
        assert code == 2
        assert "nowhere" in err
    assert list(tmp_path.iterdir()) == []


def test_variants_of_a_run_learn_from_the_same_images(tmp_path, monkeypatch):
    whole, part = (experiment(tmp_path, "training.epochs=1", "model.name=timm:test_resnet") for _ in "12")
    monkeypatch.setattr(part, "images", lambda split: whole.images(split).subset(torch.arange(300)))
    variants = {variant.name: variant for variant in whole.recipe.trainings}
    whole.train(variants["baseline"])
    with pytest.raises(InputError, match=r"baseline in .* learned from 1442 images .* the images now are 300 images"):
        part.train(variants["PP3"])
    assert not (tmp_path / "PP3" / "model.safetensors").exists()


def test_variants_of_a_run_start_from_the_same_weights(tmp_path):
    start = tmp_path / "start.pt"
    tuned = experiment(tmp_path, "training.epochs=1", "model.name=timm:test_resnet", f"model.weights={start}")
    baseline, unit = tuned.recipe.trainings
    weights = create_model("timm:test_resnet", num_classes=10).state_dict()
    torch.save(weights, start)
    tuned.train(baseline)
    torch.save({**weights, "fc.bias": weights["fc.bias"] + 1}, start)
    with pytest.raises(InputError, match=r"baseline in .* learned from weights \w+, and the weights now are weights"):
        tuned.train(unit)
    assert not (tmp_path / "PP3" / "model.safetensors").exists()


def test_finished_results_are_the_models_and_what_the_recipe_asks_for(tmp_path, monkeypatch):
    done = experiment(tmp_path, "model.name=timm:test_resnet", "benchmark.autocast=bfloat16")
    images = done.images("test").subset(torch.arange(40))
    monkeypatch.setattr(done, "images", lambda split: images)
    variant, folder = done.recipe.variant("PP3"), tmp_path / "PP3"
    classifier, spec = build(done.recipe, variant, images)
    save_checkpoint(folder / "model.safetensors", classifier, spec)
    as_asked = {"seed": done.recipe.seed, "label": "PP3", "store": folder, "autocast": "bfloat16"}
    evaluate(classifier, images, corruptions=["fog"], severities=[1], **as_asked | {"seed": 7})
    with pytest.raises(InputError, match="holds cells with seed 7, not 1234; choose another folder"):
        done.benchmark(variant)
    shutil.rmtree(folder / "cells")
    (folder / "results.json").unlink()
    evaluate(classifier, images, corruptions=["fog"], severities=[1], **as_asked)
    whole = done.benchmark(variant)
    assert len(whole.cells) == 75
    assert done.benchmark(variant) == whole
    classifier.network.fc.bias.data[0] += 1
    save_checkpoint(folder / "model.safetensors", classifier, spec)
    with pytest.raises(InputError, match=r"holds results of a model with other layers or weights than its model\.saf"):
        done.benchmark(variant)


@pytest.fixture
def damaged(tmp_path):
    """Two classes of six pictures, one of which is cut off."""
    random = np.random.default_rng(0)
    for split in ("train", "val"):
        for label in ("cat", "dog"):
            folder = tmp_path / "data" / split / label
            folder.mkdir(parents=True)
            for place in range(6):
                pixels = random.integers(0, 256, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{place}.png")
    broken = tmp_path / "data" / "train" / "dog" / "3.png"
    broken.write_bytes(broken.read_bytes()[:200])
    return tmp_path / "data"


def train(pushpull, data, out, unreadable):
    settings = [f"data={{name: folder, unreadable: {unreadable}}}", "benchmark.suite=imagenet-c", "training.epochs=2"]
    settings += ["training.batch_size=12", "variants=[baseline]", "model.name=timm:test_resnet"]
    words = [word for setting in settings for word in ("--set", setting)]
    return pushpull("train", "quickstart", "--data", data, "--out", out, *words)


def test_an_unreadable_image_stops_the_training_by_name(pushpull, damaged, tmp_path):
    code, _, err = train(pushpull, damaged, tmp_path / "run", "stop")
    assert code == 2
    assert "dog/3.png" in err
    assert "data.unreadable: skip" in err
    assert not (tmp_path / "run" / "baseline" / "model.safetensors").exists()


def test_an_unreadable_image_is_listed_whatever_its_name(tmp_path):
    """Not every file system's names are UTF-8."""
    reason = os.fsdecode(b"'caf\xe9.png' is truncated, and ") + "café.png too"
    log = UnreadableLog(tmp_path / "unreadable.csv", ALONE)
    loader = SimpleNamespace(unreadable={3: reason})
    log.on_train_epoch_end(SimpleNamespace(train_dataloader=loader, current_epoch=0, is_global_zero=True), None)
    (row,) = csv.DictReader((tmp_path / "unreadable.csv").open(encoding="utf-8"))
    assert row == {"epoch": "1", "reason": r"'caf\udce9.png' is truncated, and café.png too"}


@pytest.mark.slow
def test_an_unreadable_image_is_skipped_listed_and_told_in_the_report(pushpull, damaged, quick, tmp_path, capsys):
    assert train(pushpull, damaged, tmp_path / "run", "skip")[0] == 0
    folder = tmp_path / "run" / "baseline"
    (row,) = csv.DictReader((folder / "unreadable.csv").open())
    assert row["epoch"] == "1"
    assert "dog/3.png" in row["reason"]
    call = ["evaluate", folder, "--data-set", "folder", "--data", damaged, "--suite", "imagenet-c", "--out", folder]
    assert pushpull(*call, "--label", "baseline")[0] == 0
    page = compare([folder], "baseline", tmp_path / "report", console=Console(quiet=True))
    assert "baseline was trained without 1 images that could not be read: unreadable.csv" in page.read_text()


def test_a_training_that_met_an_unreadable_image_goes_on_without_it_as_advised(
    pushpull, damaged, tmp_path, monkeypatch
):
    """The image is readable in the first epoch only."""
    image, end_epoch = damaged / "train" / "dog" / "3.png", EpochLog.on_train_epoch_end
    broken = image.read_bytes()
    shutil.copyfile(damaged / "train" / "dog" / "4.png", image)

    def end_and_damage(log, *given):
        end_epoch(log, *given)
        image.write_bytes(broken)

    monkeypatch.setattr(EpochLog, "on_train_epoch_end", end_and_damage)
    folder = tmp_path / "run" / "baseline"
    assert "dog/3.png" in train(pushpull, damaged, tmp_path / "run", "stop")[2]
    assert (folder / "last.ckpt").exists()
    code, out, err = train(pushpull, damaged, tmp_path / "run", "skip")
    assert (code, err) == (0, "")
    assert "epoch 1/2" not in out
    (row,) = csv.DictReader((folder / "unreadable.csv").open())
    assert row["epoch"] == "2"
    assert load_recipe(str(tmp_path / "run" / "recipe.yaml")).data.unreadable == "skip"

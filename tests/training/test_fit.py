"""Training: what is learned, what is left, and that a killed run ends where an uninterrupted one does."""

import csv
import hashlib
import io
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console
from safetensors.torch import load_file
from torch import nn

from pushpull_conv.data import ImageSet, load_images
from pushpull_conv.errors import InputError
from pushpull_conv.models import Classifier, load_checkpoint, load_pretrained
from pushpull_conv.training.callbacks import SameImages, TrainingProgress
from pushpull_conv.training.fit import WholeCheckpoints, build, channel_statistics, fit, training_batches
from pushpull_conv.training.module import ClassifierTraining
from pushpull_conv.training.recipe import load_recipe
from pushpull_conv.training.variants import VARIANTS
from steps import refused

SMALL = ["training.epochs=3", "variants=[baseline, PP3-trainable]"]


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "train"), load_images("digits", "test")


def train(folder, digits, variant="PP3-trainable", overrides=()):
    recipe = load_recipe("quickstart", [*SMALL, *overrides])
    text = io.StringIO()
    folder.mkdir(parents=True, exist_ok=True)
    path = fit(recipe, recipe.variant(variant), *digits, folder, console=Console(file=text, width=200))
    return path, text.getvalue()


@pytest.mark.parametrize(("steps", "rising"), [(10, 0.1), (2, 0.5), (5, 0.2), (7, 0.3), (2, 0.9)])
def test_the_learning_rate_has_a_cycle_of_any_length(steps, rising):
    recipe = load_recipe("quickstart", [f"training.learning_rate.rising={rising}"])
    module = ClassifierTraining(Classifier(nn.Linear(1, 1), (0.5,), (0.5,)), recipe.training, steps=steps, seed=0)
    chosen, rates = module.configure_optimizers(), []
    for _ in range(steps):
        rates.append(chosen["optimizer"].param_groups[0]["lr"])
        chosen["optimizer"].step()
        if len(rates) < steps:
            chosen["lr_scheduler"]["scheduler"].step()
    rate = recipe.training.learning_rate
    assert rates[0] == pytest.approx(rate.start)
    assert rates[-1] == pytest.approx(rate.end)
    assert max(rates) <= rate.top * 1.001


def digest(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


def untimed(log):
    """The rows of a metrics file without their seconds."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in csv.DictReader(log.open())]


def test_channel_statistics_are_those_of_numpy():
    images = torch.randint(0, 256, (50, 3, 8, 8), dtype=torch.uint8, generator=torch.Generator().manual_seed(1))
    pixels = images.numpy() / 255
    mean, std = channel_statistics(images)
    assert mean == pytest.approx(pixels.mean((0, 2, 3)), abs=1e-12)
    assert std == pytest.approx(pixels.std((0, 2, 3)), abs=1e-12)


@pytest.mark.slow
def test_the_finished_model_has_learned_and_is_what_the_log_says(tmp_path, digits):
    path, text = train(tmp_path / "run", digits)
    classifier, spec = load_checkpoint(path)
    test = digits[1]
    with torch.inference_mode():
        hits = int((classifier(test.images).argmax(1) == test.labels).sum())
    rows = list(csv.DictReader((tmp_path / "run" / "metrics.csv").open()))
    assert [int(row["epoch"]) for row in rows] == [1, 2, 3]
    assert float(rows[-1]["val_accuracy"]) == pytest.approx(hits / len(test))
    assert hits / len(test) > 0.8
    assert float(rows[-1]["loss"]) < float(rows[0]["loss"]) / 3
    assert float(rows[-1]["learning_rate"]) == pytest.approx(load_recipe("quickstart").training.learning_rate.end)
    assert "epoch 3/3" in text
    assert spec.classes == test.classes
    assert spec.pushpull == {"avg_kernel_size": 3, "alpha": 1.0, "trainable_alpha": True}
    stem = classifier.network.conv1
    assert stem.trainable_alpha
    assert stem.alpha.std() > 0
    assert sorted(file.name for file in (tmp_path / "run").glob("*.ckpt")) == ["best.ckpt", "last.ckpt"]
    assert list((tmp_path / "run" / "tensorboard").glob("events*"))


@pytest.mark.slow
def test_variants_start_from_the_same_weights_and_see_the_same_batches(tmp_path, digits):
    """But for the unit the networks must not differ, or the comparison would measure luck."""
    rate = ["training.learning_rate={start: 1.0e-12, top: 1.0e-12, end: 1.0e-12}", "training.epochs=1"]
    few = [images[:64] for images in digits]
    plain = load_file(train(tmp_path / "plain", few, "baseline", rate)[0])
    unit = load_file(train(tmp_path / "unit", few, "PP3-trainable", rate)[0])
    for name, value in plain.items():
        if "running" not in name:
            assert torch.allclose(unit[name], value, atol=1e-6), name
    recipe = load_recipe("quickstart", SMALL)
    seen = [list(training_batches(recipe, variant, few[0], torch.device("cpu"))) for variant in recipe.variants]
    for batches in zip(*seen, strict=True):
        assert all(torch.equal(one, other) for one, other in zip(*batches, strict=True))


def test_one_class_is_nothing_to_learn(tmp_path, digits):
    one = [
        ImageSet(split.images, torch.zeros_like(split.labels), ("photos",), split.index, "folder", split.split)
        for split in digits
    ]
    with pytest.raises(InputError, match=r"^folder has one class only, 'photos'; training needs two or more$"):
        train(tmp_path / "run", one)
    assert list((tmp_path / "run").iterdir()) == []


def test_a_training_does_not_go_on_with_other_images(digits):
    begun, other = SameImages(digits[0]), SameImages(digits[0][:160])
    begun.load_state_dict(SameImages(digits[0]).state_dict())
    with pytest.raises(InputError, match=r"begun on other images \(1442 images .* at hand \(160 images of 10 classes"):
        other.load_state_dict(begun.state_dict())


@pytest.mark.slow
def test_training_starts_from_the_recipes_weights(tmp_path, digits):
    start = ["model.weights=cifar10-resnet20-baseline", "training.epochs=1"]
    rate = ["training.learning_rate={start: 1.0e-12, top: 1.0e-12, end: 1.0e-12}"]
    path, _ = train(tmp_path / "unit", [images[:64] for images in digits], overrides=start + rate)
    tuned, shipped = load_file(path), load_pretrained("cifar10-resnet20-baseline")
    for name, value in shipped.network.state_dict().items():
        if "running" not in name and "num_batches" not in name:
            assert torch.allclose(tuned[name], value, atol=1e-6), name
    assert load_checkpoint(path)[1].mean == pytest.approx(shipped.mean.flatten().tolist())


@pytest.mark.slow
def test_a_killed_run_ends_at_the_weights_of_an_uninterrupted_one(pushpull, tmp_path):
    call = ["train", "quickstart", "--variant", "PP3-trainable"]
    short = ["training.epochs=6", "model.name=timm:test_resnet"]  # many epochs of a tenth of a ResNet-20's arithmetic
    call += [word for override in (*SMALL, *short) for word in ("--set", override)]
    assert pushpull(*call, "--out", tmp_path / "whole")[0] == 0

    call, folder = [*call, "--out", str(tmp_path / "killed")], tmp_path / "killed" / "PP3-trainable"
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pushpull_conv.cli", *call]
    process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 120
    while not (folder / "last.ckpt").exists():
        assert process.poll() is None, "finished before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.3)  # into the second epoch
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert not (folder / "model.safetensors").exists()
    assert pushpull(*call)[0] == 0

    whole = tmp_path / "whole" / "PP3-trainable"
    assert digest(folder / "model.safetensors") == digest(whole / "model.safetensors")
    columns = ["epoch", "loss", "accuracy", "val_loss", "val_accuracy", "learning_rate"]
    rows = [
        [{name: row[name] for name in columns} for row in csv.DictReader((run / "metrics.csv").open())]
        for run in (folder, whole)
    ]
    assert rows[0] == rows[1]


@pytest.mark.slow
def test_a_run_that_is_asked_to_stop_says_that_it_is_not_finished(tmp_path):
    command = [sys.executable, "-m", "pushpull_conv.cli", "train", "quickstart", "--variant", "PP3"]
    command += ["--set", "model.name=timm:test_resnet", "--set", "training.epochs=10000"]
    environment, folder = {**os.environ, "OMP_NUM_THREADS": "1"}, tmp_path / "run" / "PP3"
    process = subprocess.Popen([*command, "--out", str(folder.parent)], env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 300  # of a busy machine
    while not (folder / "last.ckpt").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.terminate()
    assert process.wait(60) in (128 + signal.SIGTERM, -signal.SIGTERM)
    assert not (folder / "model.safetensors").exists()


def test_the_bar_of_a_long_training_fits_into_a_narrow_terminal():
    screen = io.StringIO()
    bar = TrainingProgress("baseline", Console(file=screen, width=80, force_terminal=True, color_system=None))
    trainer = SimpleNamespace(
        is_global_zero=True, estimated_stepping_batches=4692, global_step=1234, current_epoch=3, max_epochs=12
    )
    bar.on_train_start(trainer, None)
    bar.on_train_batch_end(trainer, None, {"loss": 2.1, "accuracy": 0.281}, None, 0)
    bar.on_train_end(trainer, None)
    assert re.search(r"1234/4692 epoch 4/12  loss 2\.100  accuracy 28\.1% left -:--:--", screen.getvalue())
    assert "…" not in screen.getvalue()


def test_a_checkpoint_replaces_the_last_one_only_when_it_is_whole(tmp_path, monkeypatch):
    path, checkpoints = tmp_path / "last.ckpt", WholeCheckpoints()
    checkpoints.save_checkpoint({"epoch": 1}, path)

    def stop_half_way(file, content):
        with file.open("wb") as half:
            half.write(content[:100])
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", stop_half_way)
    with pytest.raises(KeyboardInterrupt):
        checkpoints.save_checkpoint({"epoch": 2}, path)
    assert torch.load(path, weights_only=True) == {"epoch": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_training_that_diverges_is_stopped_and_leaves_no_epoch(pushpull, tmp_path):
    steep = ["training.learning_rate={start: 1.0e+30, top: 1.0e+30, end: 1.0e+30}", "model.name=timm:test_resnet"]
    words = [word for setting in (*steep, "data.fraction=0.1", "training.epochs=2") for word in ("--set", setting)]
    result = pushpull("train", "quickstart", "--variant", "baseline", *words, "--out", tmp_path)
    refused(result, "the loss on the test images is nan after epoch 1: the training diverged; lower training.learning")
    assert not [path for path in tmp_path.rglob("*") if path.suffix in {".ckpt", ".csv", ".safetensors"}]
    assert not (tmp_path / "baseline" / "provenance.json").exists()


@pytest.mark.parametrize("variant", [name for name, change in VARIANTS.items() if change is not None])
def test_every_known_variant_trains_a_step_through_a_recipe(tmp_path, digits, variant):
    """One step of all that a recipe can name: the file loads again, and what is to be learned has moved."""
    few = [images[:32] for images in digits]
    overrides = ["training.epochs=1", f"variants=[{variant}]", f"baseline={variant}", "training.batch_size=32"]
    path, _ = train(tmp_path / "run", few, variant, overrides)
    classifier, spec = load_checkpoint(path)
    recipe = load_recipe("quickstart", [*SMALL, *overrides])
    torch.manual_seed(recipe.seed)
    fresh, _ = build(recipe, recipe.variant(variant), few[0])
    assert (spec.layer, spec.pushpull) == tuple(
        part and part.model_dump(mode="json")
        for part in (recipe.variant(variant).layer, recipe.variant(variant).pushpull)
    )
    assert repr(classifier) == repr(fresh)
    start = dict(fresh.named_parameters())
    moved = {name for name, value in classifier.named_parameters() if not torch.equal(value, start[name])}
    assert "network.conv1.weight" in moved
    assert ("network.conv1.alpha" in moved) == getattr(VARIANTS[variant], "trainable_alpha", False)
    assert ("network.conv1.pooling" in moved) == (variant == "PP-mixed")

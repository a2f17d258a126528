"""The scripts that measure speed run at their smallest; what they measure is no test's."""

import functools
import importlib
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]


def printed_by(script, *arguments):
    command = [sys.executable, ROOT / "benchmarks" / script, *arguments]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=300).stdout


def test_corruptions_beside_their_peer():
    pytest.importorskip("imagecorruptions")
    table = printed_by("corruptions.py", "--sides", "32", "--rounds", "2", "--names", "contrast")
    (row,) = [line for line in table.splitlines() if line.startswith("| contrast |")]
    assert "imagecorruptions / ours" in table
    assert " cores" in table
    assert row.count(" x |") == 2  # the ratio and the memory
    assert "fails" not in row


def test_a_corruption_is_timed_on_the_device(monkeypatch):
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    severities = []
    assert importlib.import_module("corruptions").on_gpu(severities.append, 2) > 0
    assert severities == [1, 2, 3, 4, 5] * 3


def test_augmentations_at_both_sizes():
    table = printed_by("augmentations.py", "--rounds", "2")
    assert sum(line.startswith("| PRIME |") for line in table.splitlines()) == 1
    assert " cores" in table


@pytest.mark.data
@pytest.mark.skipif("PUSHPULL_DATA" not in os.environ, reason="PUSHPULL_DATA does not name the folder of the data sets")
def test_where_the_time_of_a_benchmark_goes():
    folder = Path(os.environ["PUSHPULL_DATA"], "cifar10")
    assert "Extrapolated to cells of 10000 images" in printed_by(
        "evaluate.py", "--data", folder, "--images", "8", "--model", "timm:test_resnet"
    )


def test_where_the_time_of_training_goes(monkeypatch, capsys):
    """Of each step as `fit` does it: with the augmentation, its loss of consistency, and the teacher."""
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    script = importlib.import_module("training")
    plainest = next(iter(script.FORMS))
    monkeypatch.setattr(script, "FORMS", {plainest: script.FORMS[plainest]})
    monkeypatch.setattr(script, "load_recipe", functools.partial(small_recipe, script.load_recipe))
    steps = ["--variants", "baseline", "AugMix-JSD", "PRIME", "taught", "--steps", "2", "--threads", "1"]
    monkeypatch.setattr("sys.argv", ["training.py", "quickstart", *steps])
    script.main()
    printed = capsys.readouterr().out
    for variant in ("baseline", "AugMix-JSD", "PRIME", "taught"):
        assert f"| {variant} | {plainest} | " in printed
    digits = script.open_images("digits", "train")[:128]
    recipe = script.load_recipe("quickstart")
    assert script.Stepper(recipe, "AugMix-JSD", digits).module.consistency == 12
    assert script.Stepper(recipe, "taught", digits).module.lesson.teacher == "baseline"


def small_recipe(load, name, overrides=()):
    taught = "{name: taught, pushpull: {}, distillation: {teacher: baseline}}"
    few = [f"variants=[baseline, AugMix-JSD, PRIME, {taught}]", "model.name=timm:test_resnet", "training.batch_size=16"]
    return load(name, [*few, *overrides])

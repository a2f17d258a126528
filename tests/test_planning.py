"""What a dry run tells, and that it does nothing."""

import pytest
from rich.console import Console

from pushpull_conv.experiment import Experiment
from pushpull_conv.files import MODEL_FILE
from pushpull_conv.planning import plan
from pushpull_conv.training.recipe import load_recipe


def test_a_plan_counts_steps_cells_and_bytes_and_writes_nothing(tmp_path):
    recipe = load_recipe("quickstart", ["training.epochs=5", "benchmark.every=2", "variants=[baseline, PRIME+PP3]"])
    experiment = Experiment(recipe, tmp_path / "run", data_root=None, console=Console(quiet=True), claim=False)
    planned = plan(experiment)
    assert list(tmp_path.iterdir()) == []
    assert [one.variant for one in planned] == ["baseline", "PRIME+PP3"]
    for one in planned:
        assert one.steps == 5 * (1442 // 32)
        assert one.cells == 3 * 76, "after epochs 2 and 4, and the last"
        assert one.bytes == pytest.approx(7 * 4 * 272_000, rel=0.02), "a ResNet-20 of 0.27 million weights"
        assert one.training_seconds > 0
        assert one.benchmark_seconds > 0


def test_what_is_done_takes_no_time(tmp_path):
    recipe = load_recipe("quickstart", ["variants=[baseline]"])
    (tmp_path / "baseline").mkdir()
    (tmp_path / "baseline" / MODEL_FILE).touch()
    (one,) = plan(Experiment(recipe, tmp_path, data_root=None, console=Console(quiet=True), claim=False))
    assert one.training_seconds == 0
    assert one.benchmark_seconds > 0


def test_the_command_prints_the_plan_and_does_nothing(pushpull, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    code, out, err = pushpull("run", "quickstart", "--dry-run")
    assert (code, err) == (0, "")
    assert "PP3" in out
    assert "540" in out
    assert list(tmp_path.iterdir()) == []

"""The note on precisions that a processor computes slowly."""

import pytest
import torch

from pushpull_conv.models import create_model
from pushpull_conv.training import precision
from pushpull_conv.training.precision import slow_precision_note

SMALL = [
    "quickstart",
    "--set",
    "training.epochs=1",
    "--set",
    "data.fraction=0.1",
    "--set",
    "training.precision=bf16-mixed",
    "--set",
    "model.name=timm:test_resnet",
]


@pytest.fixture
def halves_take(monkeypatch):
    """Let a convolution in a lower precision take so many times as long as in float32."""

    def take(ratio):
        monkeypatch.setattr(precision, "_seconds", lambda half: 0.5 * ratio if half else 0.5)

    return take


def test_a_slow_precision_is_told_with_what_to_do(halves_take):
    halves_take(8.3)
    note = slow_precision_note("bf16-mixed", torch.bfloat16, torch.device("cpu"))
    assert note == "bf16-mixed makes a convolution take 8 times as long as in float32 on this processor"


@pytest.mark.parametrize(
    ("half", "device", "ratio"), [(None, "cpu", 9), (torch.bfloat16, "cuda", 9), (torch.bfloat16, "cpu", 1.2)]
)
def test_nothing_is_said_where_nothing_is_slow(halves_take, half, device, ratio):
    halves_take(ratio)
    assert slow_precision_note("any", half, torch.device(device)) == ""


@pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16])
def test_a_convolution_is_timed_in_each_precision(half):
    assert 0 < precision._seconds(half) < 60


@pytest.mark.parametrize("command", [["run", "--dry-run"], ["train"]])
def test_the_command_line_tells_it_once(pushpull, halves_take, tmp_path, command):
    halves_take(8)
    code, out, err = pushpull(*command, *SMALL, "--out", tmp_path / "run")
    assert code == 0, err
    assert out.count("note: bf16-mixed makes a convolution take 8 times as long") == 1
    assert "this processor; --set training.precision=32-true trains in float32" in out


def test_a_benchmark_tells_it_of_its_autocast(pushpull, halves_take, tmp_path):
    halves_take(8)
    code, out, err = pushpull("run", "--dry-run", *SMALL, "--set", "benchmark.autocast=bfloat16")
    assert (code, err) == (0, "")
    assert out.count("note: bfloat16 makes a convolution take 8 times as long") == 1
    torch.save(create_model("timm:test_resnet", num_classes=10).state_dict(), tmp_path / "mine.pt")
    call = ["evaluate", "timm:test_resnet", "--weights", tmp_path / "mine.pt", "--data-set", "digits"]
    call += ["--out", tmp_path / "out", "--corruption", "fog", "--severity", 1, "--autocast", "float16"]
    code, out, err = pushpull(*call)
    assert (code, err) == (0, "")
    assert "note: float16 makes a convolution take 8 times as long" in out
    assert "without --autocast the model computes in float32" in out


def test_float16_is_not_trained_in_without_a_gpu(pushpull, tmp_path, monkeypatch):
    """Lightning would train in bfloat16, and say so where nobody sees it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    said = "training.precision is 16-mixed, which needs a GPU; on a processor use bf16-mixed or 32-true"
    call = ["quickstart", "--set", "training.precision=16-mixed", "--set", "model.name=timm:test_resnet"]
    call += ["--set", "variants=[baseline]", "--out", tmp_path / "run"]
    code, out, err = pushpull("run", "--dry-run", *call)
    assert (code, err, out.count(f"note: {said}"), out.count("note:")) == (0, "", 1, 1)
    for verb in ("train", "run"):
        code, out, err = pushpull(verb, *call)
        assert (code, out, err) == (2, "", f"error: {said}\n")
    assert not list(tmp_path.iterdir())

"""The note on precisions that a processor computes slowly."""

import pytest
import torch

from pushpull_conv.training import precision
from pushpull_conv.training.precision import slow_precision_note

CPU = torch.device("cpu")
SMALL = [
    "quickstart",
    "--set",
    "training.epochs=1",
    "--set",
    "data.fraction=0.1",
    "--set",
    "training.precision=bf16-mixed",
]


@pytest.fixture
def halves_take(monkeypatch):
    """Let a convolution in a lower precision take so many times as long as in float32."""

    def take(ratio):
        monkeypatch.setattr(precision, "_seconds", lambda half: 0.5 * ratio if half else 0.5)

    return take


def test_a_slow_precision_is_told_with_what_to_do(halves_take):
    halves_take(8.3)
    note = slow_precision_note("bf16-mixed", CPU)
    assert note.startswith("bf16-mixed makes a convolution take 8 times as long as in float32 on this processor; ")
    assert "--set training.precision=32-true" in note


@pytest.mark.parametrize(
    ("name", "device", "ratio"),
    [("32-true", "cpu", 9), ("64-true", "cpu", 9), ("bf16-mixed", "cuda", 9), ("bf16-mixed", "cpu", 1.2)],
)
def test_nothing_is_said_where_nothing_is_slow(halves_take, name, device, ratio):
    halves_take(ratio)
    assert slow_precision_note(name, torch.device(device)) == ""


@pytest.mark.parametrize("half", [None, torch.bfloat16, torch.float16])
def test_a_convolution_is_timed_in_each_precision(half):
    assert 0 < precision._seconds(half) < 60


@pytest.mark.parametrize("command", [["run", "--dry-run"], ["train"]])
def test_the_command_line_tells_it_once(pushpull, halves_take, tmp_path, command):
    halves_take(8)
    code, out, err = pushpull(*command, *SMALL, "--out", tmp_path / "run")
    assert code == 0, err
    assert out.count("note: bf16-mixed makes a convolution take 8 times as long") == 1

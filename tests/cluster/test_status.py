"""The table of a run, and the error that is told of what failed."""

import dataclasses
import io
import re
from pathlib import Path

import pytest
from rich.console import Console
from run_files import finish_cells, finish_training

from pushpull_conv.cluster.slurm import Queued
from pushpull_conv.cluster.status import last_error, status

RUNNING, WAITING = Queued("1", True, "None"), Queued("1", False, "Resources")


def shown(run, queue):
    """The table's rows as lists of cells, and the lines below it."""
    table, lines = status(run, queue)
    rows = [re.split(" {2,}", line.strip()) for line in printed(table, width=200)]
    return {name: cells for name, *cells in rows}, lines


def printed(table, width):
    """The lines below the table's head."""
    file = io.StringIO()
    Console(file=file, width=width).print(table, crop=False)
    lines = file.getvalue().splitlines()
    return lines[next(place for place, line in enumerate(lines) if "───" in line) + 1 :]


def write_log(run, key, text):
    run.log(key).parent.mkdir(parents=True, exist_ok=True)
    run.log(key).write_text(text)


def test_each_state_is_shown(run):
    finish_training(run, "baseline")
    finish_cells(run, "baseline", "gaussian_noise")
    finish_cells(run, "baseline", "shot_noise", [1, 2])
    finish_cells(run, "baseline", "snow", [1])
    (run.folder / "PP3").mkdir()
    (run.folder / "PP3" / "metrics.csv").write_text("epoch,loss\n1,2.0\n2,1.0\n")
    write_log(run, ("train", 1), "== attempt 1\nRuntimeError: CUDA out of memory\n")
    write_log(run, ("train", 2), "== attempt 1\n")
    write_log(run, ("benchmark-baseline", 7), "== attempt 1\nerror: frost\n")
    write_log(run, ("benchmark-baseline", 1), "== attempt 1\nerror: passed\n")
    queue = {
        ("train", 2): RUNNING,
        ("benchmark-baseline", 1): RUNNING,
        ("benchmark-baseline", 2): WAITING,
        ("benchmark-baseline", 14): WAITING,
    }
    rows, lines = shown(run, queue)
    assert rows["baseline"] == ["done", "8 of 76", "5 r q", "0 0 0 0", "F 0 0 0", "0 0 0 q"]
    assert rows["student"][:2] == ["failed, epoch 0 of 3", "0 of 76"]
    assert rows["PP3"][0] == "running, epoch 2 of 3"
    assert lines == [
        "49 tasks: 1 done, 2 running, 2 queued (2 Resources), 2 failed, 42 not submitted; report: not yet",
        f"failed: train 1: RuntimeError: CUDA out of memory ({run.log(('train', 1))})",
        f"failed: benchmark-baseline 7: error: frost ({run.log(('benchmark-baseline', 7))})",
    ]


def test_a_folder_of_cells_is_listed_and_not_asked_for_each(run, monkeypatch):
    """A file system over a network answers each question slowly, and there may be thousands."""
    finish_cells(run, "PP3", "snow")
    asked, exists = [], Path.exists
    monkeypatch.setattr(Path, "exists", lambda path: asked.append(path) or exists(path))
    rows, _ = shown(run, None)
    assert rows["PP3"][1] == "5 of 76"
    assert asked
    assert not [path for path in asked if path.parent.name == "cells"]


def test_no_name_is_cut_in_a_narrow_terminal(run):
    table, _ = status(dataclasses.replace(run, teachers={"PP5-trainable-BlurredConv@1235": None}), None)
    lines = printed(table, width=80)
    assert max(map(len, lines)) <= 80
    assert "".join(line[:18].strip() for line in lines) == "PP5-trainable-BlurredConv@1235"


@pytest.mark.parametrize("width", [20, 60, 70, 80, 120])
def test_no_word_is_cut_in_a_narrow_terminal(run, width):
    long = dataclasses.replace(run, teachers={"baseline": None, "PP5-trainable-BlurredConv": None})
    lines = printed(status(long, {("train", 0): RUNNING})[0], width)
    assert max(map(len, lines)) <= max(width, 64)
    assert {len(line) for line in lines} == {len(lines[0])}
    words = " ".join(lines).split()
    assert {"baseline", "running,"} <= set(words)
    for line in (lines[0], next(line for line in lines if line.startswith("PP5-"))):
        assert line.endswith("0 of 76  0 0 0  0 0 0 0  0 0 0 0  0 0 0 0")
    name = [word for word in words if word.startswith(("PP5", "trainable", "Blurred"))]
    assert "".join(name) == "PP5-trainable-BlurredConv"
    assert all(part.endswith(("-", "Conv")) for part in name)


def test_without_slurm_the_files_alone_speak(run):
    finish_training(run, "baseline")
    finish_cells(run, "baseline", "fog", [1, 2, 3])
    write_log(run, ("train", 1), "== attempt 1\n")
    rows, lines = shown(run, None)
    assert rows["baseline"][4] == "0 0 3 0"
    assert rows["student"][0] == "epoch 0 of 3"
    assert lines == ["49 tasks: 1 done; report: not yet"]


@pytest.mark.parametrize(
    ("log", "said"),
    [
        (
            "== attempt 1\nValueError: old\n== ended\n== attempt 2\nTraceback\nOSError: [Errno 28] No space left\n",
            28,
        ),
        ("== attempt 1\nerror: recipe\nmore words\n", "error: recipe"),
        ("== attempt 1\nslurmstepd: error: *** JOB 25 ON n CANCELLED AT 2026 ***\n", "CANCELLED"),
        ("== attempt 1\nscript: line 7: 18959 Killed   python\n== ended with status 137\n", "Killed"),
        ("== attempt 1\nValueError: old\n== attempt 2\nPP3  epoch 1/2\n\n", "PP3  epoch 1/2"),
        ("== attempt 1\n", "ended without a word"),
        ("", "ended without a word"),
        ("bash: module: command not found\n", "module: command not found"),
        ("x" * 100_000 + "\nerror: after much\n", "error: after much"),
    ],
)
def test_the_last_error_of_the_last_attempt_is_told(tmp_path, log, said):
    (tmp_path / "log").write_text(log)
    assert str(said) in last_error(tmp_path / "log")

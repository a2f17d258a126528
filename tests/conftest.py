"""What all tests share."""

import os

import pytest

os.environ.setdefault("OMP_NUM_THREADS", "1")  # tests run side by side

import hypothesis
import torch

torch.set_num_threads(1)
# No test is about time: a shared machine may be slow.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")


def pytest_collection_modifyitems(items):
    """Begin with the modules that have slow tests, so that at the end no process waits long for another's last."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture
def quick(monkeypatch):
    """Leave out of reports the pictures that are slow to write; their pages show others."""
    from pushpull_conv.report import style

    monkeypatch.setattr(style, "write", lambda figure, path: path.touch())


@pytest.fixture
def pushpull(monkeypatch, capsys):
    """Call the command line in this process: ``code, output, errors = pushpull("evaluate", ...)``."""
    from pushpull_conv.cli import main

    def call(*words):
        monkeypatch.setattr("sys.argv", ["pushpull", *map(str, words)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return call

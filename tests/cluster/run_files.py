"""Leave the files that tasks leave."""

import itertools
import json

from pushpull_conv import CORRUPTIONS


def finish_training(run, variant):
    (run.folder / variant).mkdir(parents=True, exist_ok=True)
    (run.folder / variant / "model.safetensors").write_text("")


def finish_results(folder, corruptions=CORRUPTIONS, severities=range(1, 6)):
    """Results of which only the names of the cells are there."""
    cells = [
        {"corruption": name, "severity": severity} for name, severity in itertools.product(corruptions, severities)
    ]
    (folder / "results.json").write_text(json.dumps({"cells": cells}))


def finish_cells(run, variant, corruption, severities=range(1, 6)):
    cells = run.folder / variant / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    for severity in severities:
        (cells / f"{corruption}-{severity}.json").write_text("{}")

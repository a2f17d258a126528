"""Leave the files that tasks leave."""


def finish_training(run, variant):
    (run.folder / variant).mkdir(parents=True, exist_ok=True)
    (run.folder / variant / "model.safetensors").write_text("")


def finish_cells(run, variant, corruption, severities=range(1, 6)):
    cells = run.folder / variant / "cells"
    cells.mkdir(parents=True, exist_ok=True)
    for severity in severities:
        (cells / f"{corruption}-{severity}.json").write_text("{}")

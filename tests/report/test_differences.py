"""Where variants differ most, against counting by hand."""

import base64
import dataclasses
import io

import numpy as np
import pytest
import torch
from PIL import Image

from pushpull_conv.benchmark import Cell, Results
from pushpull_conv.corruptions.spec import CORRUPTIONS, SEVERITIES
from pushpull_conv.report import page, pictures
from pushpull_conv.report.differences import cells_table, class_table, differing_cells, differing_classes
from pushpull_conv.report.scores import class_errors


def changed(result: Results, label: str, wrong: dict[tuple[str, int], int]) -> Results:
    """The results with so many more images of the first class wrong (or fewer, below zero) in some cells."""
    cells = dict(result.cells)
    for key, count in wrong.items():
        cell = cells[key]
        right = (cell.class_top1[0] - count, *cell.class_top1[1:])
        cells[key] = dataclasses.replace(cell, top1=cell.top1 - count, class_top1=right)
    return dataclasses.replace(result, model=label, cells=cells)


@pytest.fixture
def three(make_results):
    base = make_results("baseline")
    one = changed(base, "one", {("fog", 2): -30, ("contrast", 5): 4})
    two = changed(base, "two", {("fog", 2): 10, ("snow", 1): 20, ("pixelate", 3): -10})
    return [base, one, two]


def test_the_cells_are_those_furthest_from_the_baseline_on_either_side(three):
    cells = [("fog", 2), ("snow", 1), ("pixelate", 3), ("contrast", 5)]
    assert differing_cells(three, three[0], 75) == cells
    assert differing_cells(three, three[0], 2) == cells[:2]
    assert differing_cells(three[:1], three[0], 10) == []


def test_the_table_of_cells_says_error_and_difference(three):
    table = cells_table(three, three[0], [("fog", 2), ("contrast", 5)])
    assert table.header == ("Corruption and severity", "baseline", "one", "two")
    cell = three[0].cells["fog", 2]
    wrong = cell.n - cell.top1
    name, *entries = table.rows[0]
    assert name.text == "fog 2"
    assert [entry.value for entry in entries] == pytest.approx([wrong / 2000, (wrong - 30) / 2000, (wrong + 10) / 2000])
    assert entries[0].text == f"{wrong / 20:.2f}"
    assert entries[1].text == f"{(wrong - 30) / 20:.2f} (−1.50)"
    assert entries[2].text == f"{(wrong + 10) / 20:.2f} (+0.50)"
    assert [entry.best for entry in entries] == [False, True, False]
    assert [entry.best for entry in table.rows[1][1:]] == [True, False, True]
    assert "in percent" in table.caption


def test_the_table_of_classes_says_the_differences(three):
    table = class_table(class_errors(three), "baseline", ("airplane", "cat"))
    assert table.header == ("Class", "baseline, %", "one, points", "two, points")
    airplane, cat = table.rows
    counts = three[0].cells.values()
    assert airplane[1].value == pytest.approx(sum(200 - cell.class_top1[0] for cell in counts) / (75 * 200))
    assert [entry.value for entry in airplane[2:]] == pytest.approx([-26 / 150, 20 / 150])
    assert [entry.text for entry in airplane[2:]] == ["−0.17", "+0.13"]
    assert [entry.text for entry in cat[2:]] == ["0.00", "0.00"]
    assert "percentage points" in table.caption


def results_of_classes(like: Results, label: str, wrong: list[int]) -> Results:
    """Results with ten images of each class, so many of them wrong in every cell."""
    n = 10 * len(wrong)
    cell = Cell(n, n - sum(wrong), n, (10,) * len(wrong), tuple(10 - count for count in wrong))
    header = dataclasses.replace(like.header, images=n, classes=tuple(f"c{i}" for i in range(len(wrong))))
    cells = {(name, severity): cell for name in CORRUPTIONS for severity in SEVERITIES}
    return dataclasses.replace(like, model=label, header=header, clean=cell, cells=cells)


def test_of_many_classes_those_that_differ_most_are_named_in_their_order(results):
    base = results_of_classes(results[0], "baseline", [5] * 40)
    own = results_of_classes(results[0], "PP3", [5 + (i % 2) * (-1) ** i * (1 + i // 10) for i in range(40)])
    errors = class_errors([base, own])
    assert differing_classes(errors, "baseline", 5) == ["c31", "c33", "c35", "c37", "c39"]
    assert differing_classes(errors, "baseline", 40) == [f"c{i}" for i in range(40)]


def test_the_gallery_frames_the_cells(sample):
    figure = pictures.gallery_figure(sample, ("gaussian_noise", "fog", "contrast"), framed=[("fog", 2)])
    left, right = figure.figure.axes
    assert not left.patches
    (frame,) = right.patches
    assert frame.get_xy() == (1 * 34 - 0.5, -0.5)
    assert (frame.get_width(), frame.get_height()) == (32, 32)
    assert "Framed" in figure.caption
    assert "Framed" not in pictures.gallery_figure(sample, ("fog",)).caption


def test_a_photo_in_an_address_is_the_photo(sample):
    photo = sample.cell("fog", 2)
    assert torch.equal(photo, sample.row("fog")[1])
    data = base64.b64decode(page.photo_uri(photo).removeprefix("data:image/png;base64,"))
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), photo.permute(1, 2, 0).numpy())
    large = base64.b64decode(page.photo_uri(photo.repeat(1, 10, 5)).removeprefix("data:image/png;base64,"))
    assert Image.open(io.BytesIO(large)).size == (96, 192)

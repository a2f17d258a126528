import dataclasses
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushpull_conv.benchmark import Cell, Header, Results, check_comparable
from pushpull_conv.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES
from pushpull_conv.errors import InputError

HEADER = Header(
    data="cifar10",
    split="test",
    fingerprint="ab12",
    images=10,
    classes=("cat", "dög", "frog"),
    suite="cifar10-c",
    revision=1,
    seed=7,
    frost="procedural",
    version="0.1.0",
)


def cell(*class_top1: int, class_n=(4, 6, 0), more_in_top5: int = 0) -> Cell:
    top1 = sum(class_top1)
    return Cell(n=sum(class_n), top1=top1, top5=top1 + more_in_top5, class_n=class_n, class_top1=class_top1)


def make(cells=None, **changes) -> Results:
    cells = {("fog", 1): cell(4, 3, 0), ("fog", 5): cell(1, 2, 0)} if cells is None else cells
    return Results(**{"model": "PP3", "header": HEADER, "clean": cell(4, 5, 0), "cells": cells} | changes)


@st.composite
def any_results(draw) -> Results:
    keys = st.tuples(st.sampled_from(CORRUPTIONS + EXTRA_CORRUPTIONS), st.sampled_from(SEVERITIES))
    counts = st.builds(lambda a, b: cell(a, b, 0), st.integers(0, 4), st.integers(0, 6))
    return make(
        draw(st.dictionaries(keys, counts, max_size=20)),
        clean=draw(counts),
        model=draw(st.text().filter(str.isprintable)),
    )


@given(any_results())
def test_what_is_saved_is_loaded(tmp_path_factory, results):
    path = tmp_path_factory.mktemp("results") / "results.json"
    results.save(path)
    loaded = Results.load(path)
    assert loaded == results
    assert loaded.header.version == "0.1.0"
    json.loads(path.read_text(encoding="utf-8"))


@given(any_results())
def test_errors_come_in_the_order_of_the_benchmark(results):
    names = CORRUPTIONS + EXTRA_CORRUPTIONS
    assert list(results.errors) == sorted(results.errors, key=names.index)
    for name, errors in results.errors.items():
        severities = sorted(s for corruption, s in results.cells if corruption == name)
        assert errors == tuple((10 - results.cells[name, s].top1) / 10 for s in severities)


def test_derived_errors():
    results = make()
    assert results.clean_error == 0.1
    assert results.errors == {"fog": (0.3, 0.7)}
    assert results.clean.class_errors == (0.0, pytest.approx(1 / 6), None)
    assert cell(4, 3, 0, more_in_top5=2).top5_error == 0.1


def test_the_file_has_one_cell_a_line_and_no_order_but_the_benchmarks(tmp_path):
    forward, backward = make(), make(dict(reversed(make().cells.items())))
    forward.save(tmp_path / "a.json")
    backward.save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()
    lines = (tmp_path / "a.json").read_text(encoding="utf-8").splitlines()
    assert lines[6].startswith('  {"corruption": "fog", "severity": 1, "n": 10, "top1": 7,')
    assert "dög" in lines[3]


# Counts that cannot be


@pytest.mark.parametrize(
    "changes",
    [
        {"top1": 8},
        {"top5": 6},
        {"top5": 11},
        {"n": 11},
        {"class_top1": (5, 2, 0)},
        {"class_top1": (4, 3)},
        {"n": 0, "top1": 0, "top5": 0, "class_n": (), "class_top1": ()},
        {"top1": -1},
        {"top1": 7.0},
        {"top5": True},
        {"class_n": (4, 6.0, 0)},
    ],
)
def test_contradicting_counts_are_refused(changes):
    with pytest.raises(InputError, match=r"counts of a cell (must be integers|contradict each other)"):
        dataclasses.replace(cell(4, 3, 0), **changes)


def test_cells_must_count_the_same_images():
    with pytest.raises(InputError, match="count other images in one cell than in another"):
        make({("fog", 1): cell(4, 3, 0, class_n=(5, 5, 0))})
    with pytest.raises(InputError, match="count other images"):
        make(header=dataclasses.replace(HEADER, images=11))
    with pytest.raises(InputError, match="count 3 classes, not those they name"):
        make(header=dataclasses.replace(HEADER, classes=("cat", "dog")))


def test_unknown_cells_are_refused():
    with pytest.raises(InputError, match="unknown corruption 'fogg'; did you mean 'fog'"):
        make({("fogg", 1): cell(4, 3, 0)})
    with pytest.raises(InputError, match="severity is 6; allowed are the integers"):
        make({("fog", 6): cell(4, 3, 0)})


# Files that cannot be


@pytest.mark.parametrize("label", ["two\nlines", "a bell\a", "\u202ereversed"])
def test_a_label_that_cannot_be_printed_is_refused(label):
    with pytest.raises(InputError, match="signs that can be printed"):
        make(model=label)


def test_severities_go_with_the_errors():
    results = make({("fog", 5): cell(1, 2, 0), ("frost", 3): cell(2, 2, 0), ("fog", 1): cell(4, 3, 0)})
    assert results.severities == {"frost": (3,), "fog": (1, 5)}
    assert results.errors["fog"] == (results.cells["fog", 1].error, results.cells["fog", 5].error)


def test_a_missing_file(tmp_path):
    with pytest.raises(InputError, match=r"nothing.json' cannot be read \(No such file"):
        Results.load(tmp_path / "nothing.json")


@given(st.data())
def test_a_truncated_file_is_never_taken_for_whole(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("results") / "results.json"
    make().save(path)
    content = path.read_bytes()
    path.write_bytes(content[: data.draw(st.integers(0, len(content) - 3))])
    with pytest.raises(InputError, match=r"results.json' is truncated or not JSON"):
        Results.load(path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c.update(format=2), "format is 2, this version reads 1"),
        (lambda c: c.pop("clean"), "is not a results file"),
        (lambda c: c["clean"].pop("n"), "a cell must have the fields"),
        (lambda c: c["clean"].update(extra=1), "a cell must have the fields"),
        (lambda c: c["clean"].update(class_n=5), "is not a results file"),
        (lambda c: c["header"].pop("seed"), "a header must have the fields"),
        (lambda c: c["cells"][0].update(top1=9), "counts of a cell contradict"),
        (lambda c: c["cells"][0].update(corruption="smog"), "unknown corruption 'smog'"),
        (lambda c: c["cells"][0].update(severity="1"), "severity is '1'; allowed"),
        (lambda c: c["cells"].append(c["cells"][0]), "a corruption and severity is there twice"),
        (lambda c: c["cells"].append(3), "is not a results file"),
        (lambda c: c.update(cells=None), "is not a results file"),
    ],
)
def test_a_changed_file_is_refused(tmp_path, change, message):
    path = tmp_path / "results.json"
    make().save(path)
    content = json.loads(path.read_text(encoding="utf-8"))
    change(content)
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(InputError, match=message) as caught:
        Results.load(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("content", ["[]", "3", "null", '"text"', "{}"])
def test_another_json_file_is_refused(tmp_path, content):
    (tmp_path / "other.json").write_text(content)
    with pytest.raises(InputError, match=r"other.json' is not a results file"):
        Results.load(tmp_path / "other.json")


def test_a_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        make().save(tmp_path / "file" / "results.json")


# Comparing


def test_equal_headers_compare_whatever_the_version():
    check_comparable([])
    check_comparable([make()])
    check_comparable([make(), make(header=dataclasses.replace(HEADER, version="9.9")), make({})])


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 8},
        {"fingerprint": "ff"},
        {"data": "digits"},
        {"split": "train"},
        {"suite": "imagenet-c"},
        {"revision": 2},
        {"frost": "reference"},
        {"classes": ("dog", "cat", "frog")},
        {"seed": 8, "frost": "reference"},
    ],
)
def test_results_made_differently_are_not_compared(changes):
    other = make(header=dataclasses.replace(HEADER, **changes), model="other")
    with pytest.raises(InputError, match="results of 'PP3' and 'other' cannot be compared") as caught:
        check_comparable([make(), make(), other])
    for name, value in changes.items():
        assert f"{name} {getattr(HEADER, name)!r} and {value!r}" in str(caught.value)

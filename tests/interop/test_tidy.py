"""The tidy table: every count is in it, and what is written reads back equal."""

import csv
import dataclasses
from pathlib import Path

import pyarrow.parquet as pq
import pytest

from pushpull_conv import InputError, Results, mean_error
from pushpull_conv.corruptions import CORRUPTIONS, GROUPS
from pushpull_conv.interop.tidy import COLUMNS, tidy_rows, write_tidy

RUN = Path(__file__).parents[2] / "results" / "cifar10-resnet20"
KINDS = {"string": str, "int64": int, "uint64": int, "float64": float}


@pytest.fixture(scope="module")
def results():
    return [Results.load(RUN / name / "results.json") for name in ("baseline", "PP3")]


def read_back(path):
    """The rows of a written table, by another reader than wrote them where there is one."""
    if path.suffix == ".parquet":
        return pq.read_table(path).to_pylist()
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    return [{name: KINDS[COLUMNS[name]](text) if text else None for name, text in row.items()} for row in rows]


def test_the_rows_hold_every_count(results):
    rows = tidy_rows(results[1])
    assert len(rows) == 76
    assert all(list(row) == list(COLUMNS) for row in rows)
    clean, *corrupted = rows
    assert (clean["corruption"], clean["severity"], clean["top1"]) == ("clean", 0, results[1].clean.top1)
    for row in corrupted:
        cell = results[1].cells[row["corruption"], row["severity"]]
        assert (row["n"], row["top1"], row["top5"]) == (cell.n, cell.top1, cell.top5)
        assert row["error"] == pytest.approx(1 - cell.top1 / cell.n, abs=1e-12)
        assert row["corruption"] in GROUPS[row["group"]]
    assert [row["corruption"] for row in corrupted[::5]] == list(CORRUPTIONS)
    assert {(row["data"], row["suite"], row["corruption_seed"], row["origin"]) for row in rows} == {
        ("cifar10", "cifar10-c", 1234, "generated")
    }


def test_the_trainings_of_a_variant_have_its_name():
    folder = RUN.parent / "cifar10-resnet20-seeds" / "PP3@1235"
    row = tidy_rows(Results.load(folder / "results.json"))[0]
    assert (row["model"], row["variant"]) == ("PP3@1235", "PP3")


def test_the_mean_error_is_a_mean_of_the_rows(results):
    errors = [row["error"] for row in tidy_rows(results[1]) if row["group"] not in {"clean", "extra"}]
    assert sum(errors) / len(errors) == pytest.approx(mean_error(results[1]), abs=1e-12)


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_largest_seed_is_written(results, tmp_path, ending):
    header = dataclasses.replace(results[0].header, seed=2**64 - 1)
    path = tmp_path / f"table.{ending}"
    write_tidy(path, [dataclasses.replace(results[0], header=header)])
    assert {row["corruption_seed"] for row in read_back(path)} == {2**64 - 1}


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_what_is_written_reads_back_equal(results, tmp_path, ending):
    path = write_tidy(tmp_path / f"results.{ending}", results)
    assert read_back(path) == [row for result in results for row in tidy_rows(result)]
    assert [file.name for file in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("ending", ["csv", "parquet"])
def test_the_command_writes_a_runs_models_in_the_recipes_order(pushpull, results, tmp_path, ending):
    path = tmp_path / f"table.{ending}"
    code, out, err = pushpull("export", RUN, "--out", path)
    assert (code, out.strip(), err) == (0, f"table: {path}", "")
    rows = read_back(path)
    assert list(dict.fromkeys(row["model"] for row in rows)) == [
        "baseline",
        "PP3",
        "PP5",
        "PP3-trainable",
        "PP5-trainable",
    ]
    assert [row for row in rows if row["model"] == "PP3"] == tidy_rows(results[1])


def test_results_that_are_named_twice_are_written_once(pushpull, results, tmp_path):
    path = tmp_path / "table.csv"
    assert pushpull("export", RUN / "PP3", RUN / ".." / RUN.name / "PP3", "--out", path)[0] == 0
    assert read_back(path) == tidy_rows(results[1])


def test_what_cannot_be_exported_is_said(pushpull, tmp_path):
    code, _, err = pushpull("export", RUN, "--out", tmp_path / "table.xlsx")
    assert code == 2
    assert "must end in .csv or .parquet" in err
    code, _, err = pushpull("export", tmp_path, "--out", tmp_path / "table.csv")
    assert code == 2
    assert "holds no results.json" in err
    with pytest.raises(InputError, match="would be empty"):
        write_tidy(tmp_path / "none.csv", [])

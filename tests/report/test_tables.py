import csv
import dataclasses
import importlib.resources
import io
import re
import shutil
import subprocess

import pytest
import torch
from rich.console import Console

from pushpull_conv.benchmark import Cell, Results, mean_error
from pushpull_conv.corruptions import CORRUPTIONS
from pushpull_conv.report import scored, terminal_table
from pushpull_conv.report.averages import averaged
from pushpull_conv.report.scores import score
from pushpull_conv.report.tables import (
    comparison_table,
    corruption_table,
    corruptions_csv,
    error_table,
    scores_csv,
    to_latex,
    to_markdown,
)


def rows_of(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text)))


def on_imagenet_c(results: Results) -> Results:
    """The same errors as of the published set, among as many classes."""

    def among_all(cell: Cell) -> Cell:
        none = (0,) * (1000 - len(cell.class_n))
        return dataclasses.replace(cell, class_n=cell.class_n + none, class_top1=cell.class_top1 + none)

    classes = tuple(map(str, range(1000)))
    published = {"origin": "published 12", "seed": None, "frost": None}
    header = dataclasses.replace(results.header, suite="imagenet-c", data="imagenet", classes=classes, **published)
    cells = {key: among_all(cell) for key, cell in results.cells.items()}
    return dataclasses.replace(results, header=header, clean=among_all(results.clean), cells=cells)


def printed(table, width=120) -> str:
    console = Console(width=width, file=io.StringIO(), color_system=None)
    console.print(table, crop=False)
    return console.file.getvalue()


def test_the_csv_gives_back_every_number_exactly(results, scores):
    rows = rows_of(scores_csv(scores, scores[0]))
    assert [row["model"] for row in rows] == [result.model for result in results]
    assert {row["baseline"] for row in rows} == {"baseline"}
    assert [float(row["mean_error"]) for row in rows] == [mean_error(result) for result in results]
    assert [float(row["r_net_percent"]) for row in rows] == [own.r_net for own in scores]
    assert {row["alpha_mean"] for row in rows} == {""}


def test_the_csv_can_be_recomputed_from_result_files(tmp_path, results, scores):
    for i, result in enumerate(results):
        result.save(tmp_path / f"{i}.json")
    loaded = [Results.load(tmp_path / f"{i}.json") for i in range(len(results))]
    again = [score(result, loaded[0]) for result in loaded]
    assert scores_csv(again, again[0]) == scores_csv(scores, scores[0])
    assert corruptions_csv(loaded) == corruptions_csv(results)


def test_the_corruption_csv_holds_the_errors_of_every_cell(results):
    rows = rows_of(corruptions_csv(results))
    assert len(rows) == 5 * 15
    for row in rows:
        result = next(result for result in results if result.model == row["model"])
        errors = [float(row[f"error_{severity}"]) for severity in range(1, 6)]
        assert errors == list(result.errors[row["corruption"]])
        assert float(row["ce"]) == pytest.approx(sum(errors) / 5)


def test_the_best_of_each_column_is_emphasised(scores):
    table = comparison_table(scores, scores[0])
    best = {
        title: [row[0].text for row in table.rows if row[column].best]
        for column, title in enumerate(table.header)
        if column
    }
    assert best["Clean error, %"] == [min(scores, key=lambda row: row.clean_error).model]
    assert best["R_net, %"] == [max(scores, key=lambda row: row.r_net).model]


def test_entries_that_read_the_same_share_the_emphasis(results, make_results):
    twins = [results[0], make_results("twin")]
    table = comparison_table([score(result, twins[0]) for result in twins], score(twins[0], twins[0]))
    assert all(entry.best for row in table.rows for entry in row[1:])


def test_the_spread_does_not_part_what_reads_the_same(scores):
    twins = [
        dataclasses.replace(scores[0], model=name, trainings=2, clean_error=error, sd={"clean_error": sd})
        for name, error, sd in (("one", 0.19001, 0.001), ("two", 0.19003, 0.003), ("three", 0.2, 0.001))
    ]
    table = comparison_table(twins, scores[0])
    place = table.header.index("Clean error, %")
    found = [(row[place].text, row[place].best) for row in table.rows]
    assert found == [("19.00 ± 0.10", True), ("19.00 ± 0.30", True), ("20.00 ± 0.10", False)]


def test_the_lowest_error_of_each_corruption_is_emphasised(results):
    table = corruption_table(results)
    assert table.header == ("Corruption", "Group", *(result.model for result in results))
    for row in table.rows:
        lowest = min(entry.value for entry in row[2:])
        assert [entry.best for entry in row[2:]] == [entry.text == f"{100 * lowest:.2f}" for entry in row[2:]]


def test_a_terminal_that_is_too_narrow_cuts_no_number(make_results):
    names = ("baseline", "a-variant-with-a-name-of-many-letters")
    trained = [make_results(f"{name}{seed}", error) for name in names for seed, error in (("", 0.1), ("@2", 0.12))]
    table = terminal_table(scored(trained, "baseline"))
    wide, narrow = printed(table, 160), printed(table, 72)
    assert "11.00 ± 1.41" in wide
    assert max(map(len, narrow.splitlines())) <= 72
    numbers = re.compile(r"[+−]?\d+(?:[.,]\d+)?")
    assert sorted(numbers.findall(narrow)) == sorted(numbers.findall(wide))


@pytest.mark.parametrize("width", [1, 40, 60])
def test_a_terminal_too_narrow_for_the_numbers_gets_names_and_numbers_whole(make_results, width):
    """Its lines are then longer than the terminal's, which it wraps itself."""
    compared = [make_results(label, 0.1) for label in ("baseline", "PP3", "PP5", "PP5-trainable")]
    table = terminal_table(scored(compared, "baseline"))
    narrow = printed(table, width)
    numbers = re.compile(r"[+−]?\d+(?:[.,]\d+)?")
    assert sorted(numbers.findall(narrow)) == sorted(numbers.findall(printed(table, 200)))
    firsts = [line.split()[0] for line in narrow.splitlines() if line.strip()]
    assert "".join(firsts[firsts.index("baseline") :]).startswith("baselinePP3PP5PP5-trainable")


def test_a_name_too_long_for_a_terminal_breaks_at_its_signs(make_results):
    compared = [make_results("baseline"), make_results("baseline@2", 0.2), make_results("PP5-trainable-BlurredConv")]
    lines = [line.split()[0] for line in printed(terminal_table(scored(compared, "baseline")), 64).splitlines() if line]
    assert lines[lines.index("PP5-trainable-") + 1] == "BlurredConv"


def test_every_table_names_its_scale(results, scores):
    for table in (comparison_table(scores, scores[0]), corruption_table(results), error_table(results[0])):
        for text in (to_markdown(table), printed(table)):
            assert "in percent" in text


def test_on_imagenet_c_alexnet_is_a_second_baseline(results):
    rows = [on_imagenet_c(result) for result in results[:2]]
    table = comparison_table([score(row, rows[0]) for row in rows], score(rows[0], rows[0]))
    column = table.header.index("mCE (AlexNet), %")
    with importlib.resources.files("pushpull_conv.benchmark").joinpath("alexnet_imagenet_c.csv").open() as file:
        alexnet = dict(line.strip().split(",") for line in file if not line.startswith("#"))
    for row, entries in zip(rows, table.rows, strict=True):
        expected = sum(sum(row.errors[name]) / 5 / float(alexnet[name]) for name in CORRUPTIONS) / 15
        assert entries[column].text == f"{100 * expected:.2f}"
        assert f"AlexNet's published errors: {100 * expected:.2f} %." in error_table(row).caption
    assert "AlexNet's published errors" in table.caption


def test_on_other_images_alexnet_is_not_mentioned(results, scores):
    assert "AlexNet" not in to_markdown(comparison_table(scores, scores[0]))
    caption = error_table(results[0]).caption
    assert caption.endswith(f" Mean error over 15 corruptions: {100 * mean_error(results[0]):.2f} %.")
    part = dataclasses.replace(results[0], cells={("fog", 3): results[0].cells["fog", 3]})
    assert "Mean error" not in error_table(part).caption


def test_columns_of_text_begin_at_the_left(results):
    lines = to_markdown(corruption_table(results[:2])).splitlines()
    assert lines[2:4] == ["| Corruption | Group | baseline | PP3 |", "| :-- | :-- | --: | --: |"]


def test_a_measure_nobody_has_makes_no_column(scores):
    header = comparison_table(scores, scores[0]).header
    assert "α" not in header
    assert "Params" not in header


def test_undefined_measures_are_shown_as_such(results, make_results):
    perfect = make_results("perfect", 0.0, dict.fromkeys(("noise", "blur", "weather", "digital"), 0.0))
    rows = [score(result, perfect) for result in (perfect, results[1])]
    table = comparison_table(rows, rows[0])
    assert "R_net, %" not in table.header
    assert "not defined" in table.caption


def test_labels_are_text_and_never_markup(make_results):
    label = "[red]a|b[/red] *c* <script>"
    results = [make_results("baseline"), make_results(label, 0.16)]
    assert label in printed(terminal_table(scored(results, "baseline")))
    assert label in printed(error_table(results[1]))
    rows = [score(result, results[0]) for result in results]
    escaped = r"\[red\]a\|b\[/red\] \*c\* \<script\>"
    assert escaped in to_markdown(comparison_table(rows, rows[0]))
    assert escaped in to_markdown(corruption_table(results)).split("\n")[2]  # the header


def test_latex_keeps_the_number_of_columns_and_escapes_labels(make_results):
    results = [make_results("baseline"), make_results(r"50% & \input{x}_$1$", 0.16)]
    scores = [score(result, results[0]) for result in results]
    text = to_latex(comparison_table(scores, scores[0]), "comparison", "Mine; 4 images.")
    assert r"50\% \& \textbackslash{}input\{x\}\_\$1\$ & " in text
    assert r"$R_\mathrm{net}$, \%" in text
    rows = [line for line in text.splitlines() if line.endswith(r"\\")]
    assert {len(re.findall(r"(?<!\\)&", row)) for row in rows} == {5}
    assert "{lrrrrr}" in text
    assert "Mine; 4 images.}\n\\label{tab:comparison}\n" in text


@pytest.mark.parametrize("label", ["[ours] PP3", "*star"])
def test_latex_rows_do_not_lend_their_start_to_the_end_of_the_row_before(make_results, label):
    scores = [score(make_results(name, 0.16), make_results("baseline")) for name in ("baseline", label)]
    assert f"\n{{}}{label} & " in to_latex(comparison_table(scores, scores[0]), "comparison", "Mine; 4 images.")


@pytest.mark.parametrize(
    ("label", "written"),
    [
        ("lr--0.01---a", "lr-{}-0.01-{}-{}-a"),
        ("``x'''", "`{}`x'{}'{}'"),
        ("a,,b?`", "a,{},b?{}`"),
        ("–-", "--{}-"),
        ("PP3-trainable, 'a' `b`", "PP3-trainable, 'a' `b`"),
    ],
)
def test_latex_sets_no_other_sign_for_two_of_a_label(make_results, label, written):
    scores = [score(make_results(name, 0.16), make_results("baseline")) for name in ("baseline", label)]
    assert f"\n{written} & " in to_latex(comparison_table(scores, scores[0]), "comparison", "Mine; 4 images.")


@pytest.mark.parametrize(("label", "unknown"), [("é ß ł ő – — ’ … “±” − α", ""), ("模型 é 模β", "模型β")])
def test_latex_tells_of_signs_that_pdflatex_may_not_know(make_results, label, unknown):
    scores = [score(make_results(name, 0.16), make_results("baseline")) for name in ("baseline", label)]
    text = to_latex(comparison_table(scores, scores[0]), "comparison", "Mine; 4 images.")
    comments = [line for line in text.splitlines() if line.startswith("% compile")]
    asked = f"% compile with lualatex or xelatex, and a font that has these signs: {unknown}"
    assert comments == ([asked] if unknown else [])


@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="pdflatex is not installed (Debian: texlive-latex-base)")
def test_latex_compiles_and_fits_the_column(results, make_results, kernels, provenance, tmp_path):
    """Alone and in a narrow column, with labels of every sign that TeX reads otherwise."""
    strange = [make_results(label, 0.16) for label in (r"~^_<>|{\}$&#% “±” −", "--``,,''?` é ß ł ő — ’ …")]
    rows = [score(result, results[0]) for result in (*results, *strange)]
    tables = [comparison_table(rows, rows[0]), corruption_table([*results, *strange])]
    (tmp_path / "tables.tex").write_text(
        "\n".join(to_latex(table, f"t{place}", "Of 4 images.") for place, table in enumerate(tables))
    )
    for options in ("", "twocolumn"):
        lines = [
            rf"\documentclass[{options}]{{article}}",
            r"\usepackage[T1]{fontenc}",
            r"\usepackage{booktabs,graphicx}",
        ]
        lines += [r"\begin{document}", r"\input{tables}", r"\end{document}"]
        (tmp_path / "paper.tex").write_text("\n".join(lines))
        call = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "paper.tex"]
        done = subprocess.run(call, cwd=tmp_path, capture_output=True, text=True, errors="replace")
        assert done.returncode == 0, done.stdout
        assert "Overfull" not in done.stdout


def test_the_terminal_table_shows_alpha_and_parameters(results, kernels, provenance):
    text = printed(terminal_table(scored(results, "baseline", kernels=kernels, provenance=provenance)))
    assert "272,474" in text
    alpha = kernels["PP3-trainable"][2].double()
    assert f"{alpha.mean():.2f} ± {alpha.std(correction=0):.2f}" in text


def test_the_table_shows_alpha_of_models_without_kernels(results):
    text = printed(terminal_table(scored(results, "baseline", alphas={"PP5": torch.tensor([0.25, 0.75])})))
    assert "0.50 ± 0.25" in text


def test_repeated_trainings_are_shown_with_their_spread(make_results):
    results = [make_results("baseline"), make_results("PP3", 0.16), make_results("PP3@7", 0.18)]
    text = printed(terminal_table(scored(results, "baseline")))
    assert "PP3@7" not in text
    errors = [100 * result.clean_error for result in results[1:]]
    assert f"{sum(errors) / 2:.2f} ± {abs(errors[0] - errors[1]) / 2**0.5:.2f}" in text
    rows = averaged(results)
    scores = [score(row, rows[0]) for row in rows]
    baseline, unit = rows_of(scores_csv(scores, scores[0]))
    assert (baseline["trainings"], baseline["clean_error_sd"]) == ("1", "")
    assert (unit["trainings"], float(unit["r_net_percent_sd"])) == ("2", scores[1].sd["r_net"])
    assert "it is not the uncertainty of a difference from the baseline" in comparison_table(scores, scores[0]).caption
    assert "Trainings" not in comparison_table(scores[:1], scores[0]).header

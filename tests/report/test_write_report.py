import errno
import re
import sys

import pytest
import torch

from pushpull_conv.errors import InputError
from pushpull_conv.report import pictures, scored, style, write_gallery, write_report
from steps import refuses

FIGURES = ("severity", "severity_by_corruption", "tradeoff", "corruptions", "classes", "kernels", "gallery")
EVIL = "<script>alert(1)</script>\"'&"


def test_all_files_are_there_and_readable(report):
    figures = {f"figures/{name}.{form}" for name in FIGURES for form in ("svg", "png", "pdf")}
    files = {file.relative_to(report).as_posix(): file for file in report.rglob("*") if file.is_file()}
    assert set(files) == {"index.html", "table.md", "table.tex", "table.csv", "corruptions.csv", *figures}
    assert all(file.stat().st_mode & 0o444 == 0o444 for file in files.values())


def test_a_malicious_label_stays_text(quick, tmp_path, make_results):
    results = [make_results("baseline"), make_results(EVIL, 0.16)]
    known = {
        "kernels": {EVIL: (torch.randn(4, 3, 3, 3), torch.randn(4, 3, 3, 3), torch.rand(4))},
        "provenance": {EVIL: {EVIL: EVIL}},
    }
    page = write_report(tmp_path, scored(results, "baseline", **known), title=EVIL, recipes=[EVIL], **known)
    html = page.read_text(encoding="utf-8")
    assert "alert(1)" in html
    assert "<script>alert" not in html
    assert html.count("<script>") == 1


def test_the_smallest_report(quick, tmp_path, results):
    page = write_report(tmp_path / "a" / "b", scored(results[:1], "baseline"), title="One")
    html = page.read_text(encoding="utf-8")
    assert "Only baseline was measured" in html
    assert "Recipe" not in html
    assert 'id="gallery"' not in html


def test_of_several_trainings_the_kernels_and_epochs_of_the_first_are_shown(quick, tmp_path, make_results):
    """Also where none of them has the variant's plain name."""
    trained = [make_results(label, 0.2) for label in ("baseline@1", "baseline@2", "PP3@1", "PP3@2")]
    alphas = {"PP3@1": torch.tensor(0.25), "PP3@2": torch.tensor(0.75)}
    kernels = {label: (torch.ones(4, 3, 3, 3), -torch.ones(4, 3, 3, 3), alpha) for label, alpha in alphas.items()}
    page = write_report(
        tmp_path,
        scored(trained, "baseline", kernels=kernels),
        title="Seeds",
        kernels=kernels,
        epochs={
            result.model: {epoch: make_results(result.model, 0.1 * (i + epoch)) for epoch in (1, 2)}
            for i, result in enumerate(trained)
        },
    )
    html = page.read_text(encoding="utf-8")
    assert "PP3: α = 0.25, fixed" in html
    assert "PP3: α = 0.75" not in html
    assert "baseline, epoch 2: 80.00 %" in html
    assert "PP3, epoch 2: 60.00 %" in html
    assert "PP3, epoch 2: 50.00 %" not in html


def test_writing_again_replaces_the_report_and_leaves_other_files(quick, tmp_path, results):
    (tmp_path / "notes.txt").write_text("mine")
    pages = [
        write_report(tmp_path, scored(results[:1], "baseline"), title=title).read_text(encoding="utf-8")
        for title in ("First", "Second")
    ]
    assert pages[1] == pages[0].replace("First", "Second")
    assert (tmp_path / "notes.txt").read_text() == "mine"
    assert not list(tmp_path.glob(".*"))


def test_a_failure_leaves_nothing_behind(tmp_path, results, monkeypatch):
    def fail(figure, path):
        path.write_text("half")
        raise OSError("disk full")

    monkeypatch.setattr(style, "write", fail)
    with pytest.raises(OSError, match="disk full"):
        write_report(tmp_path, scored(results[:1], "baseline"), title="Broken")
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_in_one_line(tmp_path, results, monkeypatch):
    def fail(figure, path):
        path.write_text("half")
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(style, "write", fail)
    refuses(
        write_report,
        f"'{re.escape(str(tmp_path))}' cannot be written: No space left on device; free some space and repeat",
        tmp_path,
        scored(results[:1], "baseline"),
        title="Broken",
    )
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"baseline": "PP4"}, "unknown baseline 'PP4'; did you mean 'PP"),
        ({"kernels": {"PP9": (torch.ones(1, 3, 3, 3), torch.ones(1))}}, "unknown variant 'PP9'"),
        ({"provenance": {"PP9": {}}}, "unknown variant 'PP9'"),
    ],
)
def test_bad_input_is_named_before_anything_is_written(tmp_path, results, arguments, message):
    with pytest.raises(InputError, match=re.escape(message)):
        write_report(tmp_path / "report", scored(results, **{"baseline": "baseline", **arguments}), title="Bad")
    assert not (tmp_path / "report").exists()


def test_incomparable_results_are_refused(tmp_path, results, make_results):
    compared = [results[0], make_results("PP3", seed=1)]
    with pytest.raises(InputError, match="seed"):
        write_report(tmp_path / "report", scored(compared, "baseline"), title="Bad")
    assert not (tmp_path / "report").exists()


def test_a_missing_library_names_the_extra(tmp_path, results, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(InputError, match=r"pip install 'pushpull-conv\[report\]'"):
        write_report(tmp_path, scored(results, "baseline"), title="Bare")


@pytest.mark.parametrize("suffix", ["png", "svg", "pdf"])
def test_a_gallery_in_one_file(tmp_path, sample, suffix):
    path = write_gallery(tmp_path / f"grid.{suffix}", sample, ("fog", "speckle_noise"))
    assert path.stat().st_size > 1000
    assert [file.name for file in tmp_path.iterdir()] == [f"grid.{suffix}"]


def test_a_gallery_in_an_unknown_format_is_refused(tmp_path, sample):
    with pytest.raises(InputError, match=r"'grid\.gif' must end in \.png, \.svg, \.pdf"):
        write_gallery(tmp_path / "grid.gif", sample)
    assert list(tmp_path.iterdir()) == []


def test_a_gallery_that_fails_leaves_nothing_behind(tmp_path, sample, monkeypatch):
    monkeypatch.setattr(pictures, "gallery_figure", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_gallery(tmp_path / "grid.png", sample)
    assert list(tmp_path.iterdir()) == []

"""The documentation site: it builds without a warning, fetches nothing, and shows what it should."""

import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import pushpull_conv
from steps import load_script

pytest.importorskip("material")
pytest.importorskip("mkdocstrings")
ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """The built pages, by their paths."""
    folder = tmp_path_factory.mktemp("site")
    call = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder]
    built = subprocess.run(call, cwd=ROOT, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stdout + built.stderr
    return {path.relative_to(folder).as_posix(): path.read_text(encoding="utf-8") for path in folder.rglob("*.html")}


def test_every_document_is_a_page(site):
    assert {f"{document.stem}.html" for document in (ROOT / "docs").glob("*.md")} <= set(site)


def test_no_page_fetches_anything(site):
    for name, page in site.items():
        assert not re.findall(r'<(?:script|img|iframe|source)[^>]*\ssrc="?(?:https?:)?//', page), name
        assert not re.findall(r'<link[^>]*\shref="?(?:https?:)?//', page), name
        assert not re.findall(r"url\([\"']?(?:https?:)?//", page), name


def test_formulas_are_mathml(site):
    assert site["concepts.html"].count("<math") > 20
    assert "<mfrac>" in site["concepts.html"]
    assert site["api.html"].count("<math") > 3
    for name, page in site.items():
        assert not re.search(r"\$<code>|language-math|:math:|\.\. math", page), name
        assert not re.search(r"<m[ino][^>]*>(&amp;|&(?!#)|\\)", page), f"{name}: LaTeX that became no MathML"


def test_the_reference_has_every_public_name_with_its_examples(site):
    for name in pushpull_conv.__all__:
        value = getattr(pushpull_conv, name)
        if inspect.isclass(value) or inspect.isfunction(value):
            assert f'id="{value.__module__}.{name}"' in site["api.html"], name
    assert "Example:" not in site["api.html"]
    assert site["api.html"].count("&gt;&gt;&gt;") > 50


def test_the_reports_and_figures_of_the_results_are_there(site):
    links = re.findall(r'(?:href|src)="(results/[^"#]+)"', site["results.html"])
    assert any(link.endswith("report/index.html") for link in links)
    for link in links:
        assert (ROOT / link).exists(), link
        assert link in site or link.endswith(".svg"), link


def test_the_results_page_follows_from_the_results():
    results_page = load_script(ROOT / "scripts" / "results_page.py")
    message = "run python scripts/results_page.py"
    assert results_page.PAGE.read_text(encoding="utf-8") == results_page.page(), message

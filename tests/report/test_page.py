import dataclasses
import itertools
import re
from html.parser import HTMLParser

import pytest
from colours import contrast
from scipy.stats import binomtest

from pushpull_conv.report import page, style
from pushpull_conv.report.figures import severity_figure
from pushpull_conv.report.intervals import wilson_interval

VOID = {"meta", "link", "br", "img", "hr", "input"}


class Reader(HTMLParser):
    """Checks that elements nest, and keeps what a test asks about."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.texts.append(data)


@pytest.fixture(scope="module")
def html(report):
    return (report / "index.html").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def read(html):
    return Reader(html)


def test_the_page_needs_nothing_else(html, read):
    for _, attributes in read.tags:
        for name in ("src", "href", "xlink:href", "data", "action", "srcset"):
            assert (attributes.get(name) or "#").startswith(("#", "data:image/png;base64,"))
    styles = re.findall(r"url\(([^)]*)\)", html)
    assert all(target.startswith("#") for target in styles)
    assert "@import" not in html


def test_the_page_shows_every_variant_number_and_source(read, results, provenance):
    text = "".join(read.texts)
    for result in results:
        assert f"{100 * result.clean_error:.2f}" in text
        assert result.model in text
    header = results[0].header
    for part in (
        header.fingerprint,
        header.frost,
        header.suite,
        "name: cifar10-resnet20",
        "Example CPU",
        "36 min 28 s",
    ):
        assert part in text


def test_links_lead_to_sections_and_ids_are_unique(read):
    ids = [attributes["id"] for _, attributes in read.tags if "id" in attributes]
    assert len(ids) == len(set(ids))
    targets = [attributes["href"] for tag, attributes in read.tags if tag == "a"]
    assert targets
    assert all(target[1:] in ids for target in targets)
    for _, attributes in read.tags:
        for name in ("aria-labelledby", "aria-describedby"):
            assert attributes.get(name) is None or attributes[name] in ids


def test_text_and_marks_stand_out_in_both_colour_schemes(html):
    style = html[html.index("<style>") : html.index("</style>")]
    light, dark = style.split("prefers-color-scheme: dark")
    for scheme in (light, dark):
        colors = dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", scheme))
        for name in ("ink", "muted", "accent"):
            assert min(contrast(colors[name], colors[ground]) for ground in ("paper", "wash")) >= 4.5
        for name in (name for name in colors if name.startswith("series-")):
            assert min(contrast(colors[name], colors[ground]) for ground in ("paper", "wash")) >= 3


def test_headings_step_down_one_level_at_a_time(read):
    levels = [int(tag[1]) for tag, _ in read.tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after - before <= 1 for before, after in itertools.pairwise(levels))


def test_marks_tell_their_values(html):
    assert "<title>PP3, severity 5: " in html
    assert "<title>PP5, shot noise: −" in html


@pytest.mark.parametrize(("wrong", "images"), [(0, 355), (2, 355), (355, 355), (1378, 10_000)])
def test_the_interval_of_an_error_holds_also_where_nothing_was_wrong(wrong, images):
    expected = binomtest(wrong, images).proportion_ci(method="wilson")
    assert wilson_interval(wrong / images, images) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert expected.low < expected.high


def test_the_page_says_how_to_repeat_a_row(read):
    text = " ".join("".join(read.texts).split())
    assert "pushpull run recipe.yaml" in text
    assert "pushpull train recipe.yaml --variant NAME" in text


def test_figures_leave_the_shade_of_their_edges_seen(html):
    """Where there is more of a figure to the right, the frame behind it is in shade there."""
    drawings = re.findall(r"<svg.*?</svg>", html, re.DOTALL)
    assert drawings
    for drawing in drawings:
        assert style.PAPER not in drawing
        assert "--paper" not in drawing


def test_figures_follow_the_colours_of_the_page(html):
    svg = html[html.index("<svg") : html.rindex("</svg>")]
    for color in page._TOKENS:
        assert color not in svg
    style = html[html.index("<style>") : html.index("</style>")]
    for token in page._TOKENS.values():
        assert style.count(f"--{token}:") == 2  # light and dark


def test_a_label_that_looks_like_a_colour_is_shown_as_it_is(make_results):
    label = style.SERIES[0]
    results = [make_results("baseline"), make_results(label, 0.16)]
    drawn = severity_figure(results, results[0], style.looks(["baseline", label], "baseline"))
    drawing = page.inline_svg(drawn, style.svg_text(drawn))
    assert f">{label}<" in drawing
    assert f"<title>{label}, severity 5: " in drawing


def test_the_page_says_how_the_images_were_made_and_the_model_computed(results):
    header = dataclasses.replace(results[0].header, jpeg_quality=85, autocast="bfloat16")
    facts = page.describe_benchmark(header)
    assert facts["Model computed under autocast to"] == "bfloat16"
    assert facts["Corrupted images"] == "generated"
    assert facts["Stored as JPEG of quality"] == "85"
    assert "Seed of the corruptions" in facts
    published = dataclasses.replace(header, origin="published 12ab", seed=None, frost=None, jpeg_quality=None)
    facts = page.describe_benchmark(published)
    assert facts["Corrupted images"] == "published 12ab"
    assert not {"Stored as JPEG of quality", "Seed of the corruptions", "Frost texture"} & set(facts)

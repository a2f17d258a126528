"""The page in a real browser: a headless Chromium, driven by Playwright."""

import csv
import re
import shutil

import pytest
import torch
from colours import contrast

from pushpull_conv.benchmark import Results
from pushpull_conv.corruptions.spec import CORRUPTIONS, SEVERITIES
from pushpull_conv.report import scored, style, write_report

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
CHROMIUM = next(filter(None, map(shutil.which, NAMES)), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on the PATH (Debian: chromium)"),
]
playwright = pytest.importorskip("playwright.sync_api")
QUIET = ("--disable-gpu", "--disable-background-networking", "--disable-component-update", "--disable-sync")
LONG = ("AutoAugment+PP3-trainable", "AutoAugment+PP5-trainable", "AugMix+PP2020-trainable")
SEEDS = tuple(enumerate(("", "@1", "@2")))
PAPER = 673
"""Width in CSS pixels of what is printed on an A4 page with the margins of the style sheet."""


@pytest.fixture(scope="module")
def compared(results, make_results) -> list[Results]:
    """Eight variants, some with long names."""
    return [*results, *(make_results(label, 0.15 + 0.01 * i, {"blur": 0.9}) for i, label in enumerate(LONG))]


@pytest.fixture(scope="module")
def folder(tmp_path_factory, compared, kernels, sample, provenance):
    folder = tmp_path_factory.mktemp("report")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(style, "write", lambda figure, path: path.touch())  # the page does not need the slow pictures
        write_report(
            folder,
            scored(compared, "baseline", kernels=kernels, provenance=provenance),
            title="ResNet-20 on CIFAR-10",
            recipes=["name: cifar10-resnet20\n" + "about: " + "word " * 60],
            kernels=kernels,
            sample=sample,
            provenance=provenance,
            epochs={r.model: dict.fromkeys((1, 2, 3), r) for r in compared[:2]},
            notes=["A note."],
        )
    return folder


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=QUIET)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser, folder):
    """Open the report; in the end no page may have asked for anything but itself or have met an error."""
    address = (folder / "index.html").as_uri()
    contexts, asked, wrong = [], [], []

    def call(width=1200, **options):
        context = browser.new_context(viewport={"width": width, "height": 800}, **options)
        contexts.append(context)
        page = context.new_page()
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: wrong.append(message.text) if message.type in {"error", "warning"} else None)
        page.on("pageerror", lambda error: wrong.append(str(error)))
        page.goto(address)
        return page

    yield call
    for context in contexts:
        context.close()
    assert wrong == []
    assert asked == [address] * len(contexts)


def rows_of(file):
    with file.open() as lines:
        return list(csv.DictReader(lines))


def numbers_of_scores(folder, compared):
    """Per column of the comparison its values by row, from the CSV file."""
    fields = {
        "Variant": "model",
        "Clean error, %": "clean_error",
        "Mean error, %": "mean_error",
        "mCE, %": "mce",
        "Rel. mCE, %": "relative_mce",
        "Rnet, %": "r_net_percent",
        "α": "alpha_mean",
        "Params": "parameters",
    }
    rows = rows_of(folder / "table.csv")
    return {title: {row["model"]: number(row[field]) for row in rows} for title, field in fields.items()}


def numbers_of_corruptions(folder, compared):
    rows = rows_of(folder / "corruptions.csv")
    spoken = {name: name.replace("_", " ").replace("jpeg", "JPEG") for name in CORRUPTIONS}
    columns = {
        "Corruption": {spoken[row["corruption"]]: row["corruption"] for row in rows},
        "Group": {spoken[row["corruption"]]: row["group"] for row in rows},
    }
    for row in rows:
        columns.setdefault(row["model"], {})[spoken[row["corruption"]]] = float(row["ce"])
    return columns


def numbers_of_classes(folder, compared):
    names = compared[0].header.classes
    wrong = {
        result.model: [
            sum(cell.class_n[i] - cell.class_top1[i] for cell in result.cells.values()) for i in range(len(names))
        ]
        for result in compared
    }
    base = dict(zip(names, wrong["baseline"], strict=True))
    differences = {
        f"{label}, points": {name: count - base[name] for name, count in zip(names, counts, strict=True)}
        for label, counts in wrong.items()
        if label != "baseline"
    }
    return {"Class": {name: name for name in names}, "baseline, %": base, **differences}


def numbers_of_cells(folder, compared):
    cells = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]
    counts = {
        result.model: {f"{name.replace('_', ' ')} {severity}": result.cells[name, severity] for name, severity in cells}
        for result in compared
    }
    wrong = {label: {name: cell.n - cell.top1 for name, cell in own.items()} for label, own in counts.items()}
    base = wrong["baseline"]
    gaps = {name: max(abs(own[name] - base[name]) for own in wrong.values()) for name in base}
    least = sorted(gaps.values(), reverse=True)[9]
    chosen = [cell for cell in gaps if gaps[cell] >= least]
    columns = {label: {cell: own[cell] for cell in chosen} for label, own in wrong.items()}
    return {"Corruption and severity": {cell: cell for cell in chosen}, **columns}


def number(text):
    try:
        return float(text) if text else None
    except ValueError:
        return text


TABLES = {
    "Comparison with baseline": numbers_of_scores,
    "Error by corruption": numbers_of_corruptions,
    "Difference by class": numbers_of_classes,
    "Where the variants differ most": numbers_of_cells,
}


def as_read(value):
    return value.casefold() if isinstance(value, str) else value


def press(how):
    def by_key(button):
        button.focus()
        button.press(how)

    return (lambda button: button.click()) if how == "mouse" else by_key


@pytest.mark.parametrize("how", ["mouse", "Enter", "Space"])
@pytest.mark.parametrize("title", TABLES)
def test_every_column_sorts_both_ways(open_page, folder, compared, title, how):
    columns = TABLES[title](folder, compared)
    table = open_page().get_by_role("table", name=title, exact=True)
    heads = table.locator("thead th")
    assert heads.all_text_contents() == list(columns)
    for column, values in enumerate(columns.values()):
        for direction in ("ascending", "descending"):
            press(how)(heads.nth(column).get_by_role("button"))
            sorts = heads.evaluate_all("heads => heads.map(head => head.getAttribute('aria-sort'))")
            assert sorts == [direction if i == column else None for i in range(len(columns))]
            names = table.locator("tbody th").all_text_contents()
            assert len(names) == len(set(names))
            assert set(names) <= set(values)
            shown = [values[name] for name in names]
            known = [value for value in shown if value is not None]
            assert known == sorted(known, key=as_read, reverse=direction == "descending")
            assert shown[: len(known)] == known


def test_the_table_of_cells_shows_the_largest_differences_first(open_page, folder, compared):
    columns = numbers_of_cells(folder, compared)
    table = open_page().get_by_role("table", name="Where the variants differ most")
    names = table.locator("tbody th").all_text_contents()
    gaps = [max(abs(columns[r.model][name] - columns["baseline"][name]) for r in compared) for name in names]
    assert len(gaps) == 10
    assert gaps == sorted(gaps, reverse=True)
    images = compared[0].header.images
    for name, row in zip(names, table.locator("tbody tr").all(), strict=True):
        for result, text in zip(compared, row.locator("td").all_text_contents(), strict=True):
            error = columns[result.model][name] / images
            assert text.split()[0] == f"{100 * error:.2f}"
    pictures = table.locator("img")
    assert pictures.count() == 10
    assert pictures.evaluate_all("images => images.every(image => image.naturalWidth === 32)")


COLOURS = """() => [...document.querySelectorAll("body *")].filter((element) =>
    element.checkVisibility() && [...element.childNodes].some((node) => node.nodeType === 3 && node.data.trim())
    && !["SCRIPT", "STYLE", "style", "title"].includes(element.tagName)
).map((element) => {
    let ground = element;
    const clear = (element) => getComputedStyle(element).backgroundColor === "rgba(0, 0, 0, 0)";
    while (clear(ground)) ground = ground.parentElement;
    const style = getComputedStyle(element);
    return [element.textContent.trim().slice(0, 30), element instanceof SVGElement ? style.fill : style.color,
            getComputedStyle(ground).backgroundColor];
})"""


def hexadecimal(colour):
    assert re.fullmatch(r"rgb\(\d+, \d+, \d+\)", colour), colour
    return "#" + "".join(f"{int(channel):02x}" for channel in re.findall(r"\d+", colour))


def test_all_text_stands_out_in_light_and_dark(open_page):
    grounds = []
    for scheme in ("light", "dark"):
        texts = open_page(color_scheme=scheme).evaluate(COLOURS)
        assert len(texts) > 500
        poor = [(*entry, ratio) for entry in texts if (ratio := contrast(*map(hexadecimal, entry[1:]))) < 4.5]
        assert poor == []
        grounds.append({ground for _, _, ground in texts})
    assert grounds[0].isdisjoint(grounds[1])


def test_the_marks_change_colour_with_the_scheme(open_page):
    strokes = [
        open_page(color_scheme=scheme).evaluate("getComputedStyle(document.querySelector('#severity use')).fill")
        for scheme in ("light", "dark")
    ]
    assert strokes[0] != strokes[1]


@pytest.mark.parametrize("width", [320, 390])
def test_on_a_phone_only_tables_and_figures_scroll_sideways(open_page, width):
    page = open_page(width, has_touch=True, is_mobile=True)
    assert page.evaluate("document.documentElement.scrollWidth") == width
    outside = """width => [...document.querySelectorAll("body *")].filter((element) =>
        element.getBoundingClientRect().right > width + 1 && !element.closest(".scroll, pre")
    ).map((element) => element.outerHTML)"""
    assert page.evaluate(outside, width) == []


def marks_of(page, figure, label, count):
    """The marks of one variant in a figure, by what they tell."""
    marks = page.locator(f"#{figure} use[data-value^='{label}, ']")
    assert marks.count() == count
    return marks


@pytest.mark.parametrize("touch", [False, True])
def test_marks_tell_their_values_where_a_reader_points(open_page, compared, touch):
    page = open_page(390 if touch else 1200, has_touch=touch)
    value = page.locator("#value")
    for result in (compared[0], compared[2]):
        marks = marks_of(page, "severity", result.model, 12)
        curve = [result.clean_error, *(sum(column) / 15 for column in zip(*result.errors.values(), strict=True))]
        for severity in (0, 5):
            mark = marks.nth(severity)
            mark.tap(force=True) if touch else mark.hover(force=True)
            at = f"severity {severity}" if severity else "clean"
            assert f"{result.model}, {at}: {100 * curve[severity]:.2f} %" in value.inner_text().splitlines()
            box, width, place = value.bounding_box(), page.viewport_size["width"], mark.bounding_box()
            assert min(abs(place["y"] - box["y"] - box["height"]), abs(place["y"] + place["height"] - box["y"])) < 30
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= width
    heading = page.get_by_role("heading", level=1)
    heading.tap() if touch else heading.hover()
    assert value.inner_text() == ""


FIGURES = ("tradeoff", "severity", "epochs", "corruptions", "severity_by_corruption", "classes")


@pytest.mark.parametrize("figure", FIGURES)
def test_the_arrow_keys_step_through_the_values(open_page, figure):
    page = open_page()
    value, frame = page.locator("#value"), page.locator(f"#{figure} .scroll")
    curves = page.locator(f"#{figure} svg").evaluate(
        """drawing => Object.values([...drawing.querySelectorAll("use[data-value]")].reduce((curves, mark) => {
            (curves[mark.parentNode.dataset.test ??= Object.keys(curves).length] ??= []).push(mark.dataset.value);
            return curves;
        }, {}))"""
    )
    page.keyboard.press("Tab")  # what gets the focus from now on gets it by keyboard
    frame.focus()
    told = [value.inner_text()]
    for key in [*["ArrowRight"] * (len(curves[0]) - 1), *["ArrowDown"] * (len(curves) - 1)]:
        page.keyboard.press(key)
        told.append(value.inner_text())
    assert told == [*curves[0], *(curve[-1] for curve in curves[1:])]
    page.keyboard.press("ArrowRight")  # at the end there is no more
    page.keyboard.press("ArrowDown")
    assert value.inner_text() == told[-1]
    page.keyboard.press("ArrowLeft")
    assert value.inner_text() == curves[-1][-2:][0]
    page.keyboard.press("Escape")
    assert value.inner_text() == ""
    page.keyboard.press("ArrowLeft")
    assert value.inner_text() != ""
    page.evaluate("document.activeElement.blur()")
    assert value.inner_text() == ""


def test_everything_that_can_be_used_is_reached_by_keyboard_and_shows_it(open_page):
    page = open_page()
    usable = page.locator("a, button, [tabindex='0']")
    seen = set()
    for _ in range(usable.count()):
        page.keyboard.press("Tab")
        place, outline = page.evaluate(
            """[[...document.querySelectorAll("a, button, [tabindex='0']")].indexOf(document.activeElement),
                getComputedStyle(document.activeElement).outlineStyle]"""
        )
        assert outline == "solid"
        seen.add(place)
    assert seen == set(range(usable.count()))


def test_everything_that_must_have_a_name_has_one(open_page):
    page = open_page()
    named = page.locator("svg, img, table, section, nav, a, button, [role=region], [role=application]")
    assert named.count() > 80
    for element in named.all():
        playwright.expect(element).to_have_accessible_name(re.compile(r"\S"), timeout=1)
    figures = page.locator("figure svg")
    assert figures.count() == len(FIGURES) + 2
    for figure in figures.all():
        playwright.expect(figure).to_have_accessible_description(re.compile(r"\S"), timeout=1)


def test_targets_are_large_enough_to_hit(open_page):
    """24 CSS pixels, as WCAG 2.2 asks for."""
    sizes = """elements => elements.map((element) => [element.textContent, element.getBoundingClientRect().height])"""
    for text, height in open_page(390).locator("nav a, button").evaluate_all(sizes):
        assert height >= 24, text


def test_headings_are_in_order(open_page):
    levels = open_page().locator("h1, h2, h3, h4").evaluate_all("heads => heads.map(head => Number(head.tagName[1]))")
    assert levels[:2] == [1, 2]
    assert set(levels[1:]) == {2, 3}


def test_on_paper_nothing_is_cut_and_nothing_dark(open_page):
    page = open_page(PAPER, color_scheme="dark")
    page.emulate_media(media="print")
    cut = """width => [...document.querySelectorAll("body *")].filter((element) =>
        element.checkVisibility() && [null, element].includes(element.closest("svg"))
        && (element.getBoundingClientRect().right > width + 1 || element.scrollWidth > element.clientWidth + 1)
        && element.clientWidth > 0
    ).map((element) => element.outerHTML.slice(0, 100))"""
    assert page.evaluate(cut, PAPER) == []
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(254, 254, 254)"
    assert not page.locator("nav").is_visible()
    assert page.pdf(format="A4", prefer_css_page_size=True).startswith(b"%PDF")


def test_a_figure_of_many_units_is_no_higher_than_a_printed_page(browser, tmp_path, make_results, quick):
    """One that is leaves a page with its heading alone, and is cut."""
    several = [make_results("baseline"), *(make_results(f"PP3-{place}", 0.16) for place in range(9))]
    kernels = {row.model: (torch.randn(16, 3, 3, 3), torch.randn(16, 3, 3, 3), torch.ones(16)) for row in several[1:]}
    write_report(tmp_path, scored(several, "baseline", kernels=kernels), title="Units", kernels=kernels)
    page = browser.new_page(viewport={"width": PAPER, "height": 800})
    page.emulate_media(media="print")
    page.goto((tmp_path / "index.html").as_uri())
    heights = page.locator("figure").evaluate_all("all => all.map((figure) => figure.getBoundingClientRect().height)")
    assert max(heights) < (297 - 2 * 18) * 96 / 25.4  # of A4 with the margins of the style sheet
    page.close()


def test_a_comparison_of_repeated_trainings_fits_a_desktop(browser, tmp_path, make_results, quick, provenance):
    several = [make_results(f"{label}{seed}", 0.15 + 0.01 * i) for label in ("baseline", "PP3") for i, seed in SEEDS]
    known = {label: record for label, record in provenance.items() if label in ("baseline", "PP3")}
    alphas = {"PP3": torch.ones(16)}
    rows = scored(several, "baseline", alphas=alphas, provenance=known)
    write_report(tmp_path, rows, title="Seeds", provenance=known)
    page = browser.new_page(viewport={"width": 1024, "height": 800})
    page.goto((tmp_path / "index.html").as_uri())
    frame = page.get_by_role("region", name="Comparison with baseline")
    assert frame.locator("thead th").count() == 9
    assert frame.evaluate("frame => frame.scrollWidth <= frame.clientWidth")
    page.close()


def test_no_text_of_a_figure_is_cut(open_page):
    cut = """texts => texts.filter((text) => {
        const inner = text.getBoundingClientRect(), outer = text.closest("svg").getBoundingClientRect();
        return inner.left < outer.left - 2 || inner.right > outer.right + 2
            || inner.top < outer.top - 2 || inner.bottom > outer.bottom + 2;
    }).map((text) => [text.closest("figure").id, text.textContent])"""
    assert open_page().locator("svg text").evaluate_all(cut) == []


def test_without_scripts_the_page_is_whole_and_marks_have_tooltips(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("table").count() == 5
    assert page.locator("button").count() == 0
    assert not page.locator("#values-hint").is_visible()
    assert page.locator("#severity use > title").first.text_content() == "baseline, clean: 15.50 %"

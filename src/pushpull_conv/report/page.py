"""The comparison as one HTML file that needs nothing else: no network, no other file, scripts only for convenience."""

import base64
import io
from collections.abc import Mapping, Sequence
from importlib import resources
from xml.etree import ElementTree

import jinja2
from markupsafe import Markup, escape
from PIL import Image
from torch import Tensor

from pushpull_conv.benchmark import Header
from pushpull_conv.report.intervals import wilson_interval
from pushpull_conv.report.scores import Comparison, changes_note, findings
from pushpull_conv.report.style import INK, MUTED, PAPER, RULE, SERIES, WASH, Figure
from pushpull_conv.report.tables import Table
from pushpull_conv.report.wording import duration, percent

_SVG = "http://www.w3.org/2000/svg"
_XLINK = "http://www.w3.org/1999/xlink"
_PHOTO_PIXELS = 192
_TOKENS = {
    INK: "ink",
    MUTED: "muted",
    RULE: "rule",
    WASH: "wash",
    **{color: f"series-{i}" for i, color in enumerate(SERIES, 1)},
}
"""The page's style sheet gives these colours a second value for dark screens."""


def render_page(
    *,
    title: str,
    compared: Comparison,
    tables: Mapping[str, Table],
    photos: Sequence[str],
    figures: Sequence[Figure],
    drawings: Mapping[str, str],
    recipes: Sequence[str],
    provenance: Mapping[str, Mapping[str, str]],
    notes: Sequence[str] = (),
) -> str:
    """Return the page as HTML; every text that comes from outside is escaped.

    Args:
        title: The page's heading.
        compared: The variants and their scores.
        tables: ``"comparison"``, ``"corruptions"``, ``"cells"`` and ``"classes"``.
        photos: For each row of ``"cells"`` a photo under that corruption, as `photo_uri` gives it; empty without one.
        figures: In any order; the page knows their places by name.
        drawings: Each figure by name as an SVG document.
        recipes: Every recipe as YAML.
        provenance: Per variant, what its numbers come from, as names and strings.
        notes: Sentences to show below the comparison.
    """
    environment = jinja2.Environment(
        autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    results, scores, baseline = compared.results, compared.scores, compared.base_score
    shared, varying = split_provenance(provenance)
    return environment.from_string(_asset("page.html")).render(
        title=title,
        findings=findings(scores, baseline),
        baseline=baseline,
        tables=tables,
        photos=photos,
        figures={figure.name: figure for figure in figures},
        drawings={figure.name: inline_svg(figure, drawings[figure.name]) for figure in figures},
        benchmark=describe_benchmark(results[0].header),
        interval=[percent(end) for end in wilson_interval(baseline.clean_error, results[0].clean.n)],
        clean_error=percent(baseline.clean_error),
        images=results[0].clean.n,
        repeated=any(score.trainings > 1 for score in scores),
        changes=changes_note(scores, baseline),
        show_gallery=bool(tables["cells"].rows or photos),
        recipes=recipes,
        notes=notes,
        shared=shared,
        varying=varying,
        labels=list(provenance),
        subscript=subscript,
        style=Markup(_asset("page.css")),
        script=Markup(_asset("page.js")),
    )


def describe_benchmark(header: Header) -> dict[str, str]:
    """Return what the results were made from, name to text, in reading order."""
    few = len(header.classes) <= 20
    facts = {
        "Images": f"{header.data}, {header.split} split, {header.images:,} images",
        "Classes": ", ".join(header.classes) if few else f"{len(header.classes):,}",
        "Corruptions": f"{header.suite}, revision {header.revision}",
        "Corrupted images": header.origin,
        "Stored as JPEG of quality": header.jpeg_quality,
        "Seed of the corruptions": header.seed,
        "Frost texture": header.frost,
        "Model computed under autocast to": header.autocast,
        "Data fingerprint": header.fingerprint,
        "pushpull_conv": header.version,
    }
    return {name: str(fact) for name, fact in facts.items() if fact is not None}


def subscript(text: str) -> Markup:
    """Escape a text and set the "net" of R_net low.

    Example:
        >>> subscript("R_net < 0")
        Markup('<i>R</i><sub>net</sub> &lt; 0')
    """
    return Markup(escape(text).replace("R_net", Markup("<i>R</i><sub>net</sub>")))


def inline_svg(figure: Figure, drawing: str) -> Markup:
    """Turn the figure's SVG document into an element that takes its colours from the page and tells its values."""
    ElementTree.register_namespace("", _SVG)
    ElementTree.register_namespace("xlink", _XLINK)
    root = ElementTree.fromstring(drawing)
    for metadata in root.findall(f"{{{_SVG}}}metadata"):
        root.remove(metadata)
    for group in root.iter(f"{{{_SVG}}}g"):
        marks = group.iter(f"{{{_SVG}}}use")
        for mark, text in zip(marks, figure.values.get(group.attrib.pop("id", ""), ()), strict=False):
            ElementTree.SubElement(mark, f"{{{_SVG}}}title").text = text
    root.attrib |= {
        "role": "img",
        "aria-labelledby": f"{figure.name}-title",
        "aria-describedby": f"{figure.name}-caption",
    }
    for size in ("width", "height"):
        root.attrib.pop(size)
    for element in root.iter():  # not the texts: a label may look like a colour
        element.attrib.update({name: _in_page_colors(value) for name, value in element.attrib.items()})
    return Markup(ElementTree.tostring(root, encoding="unicode"))


def _in_page_colors(value: str) -> str:
    for color, token in _TOKENS.items():
        value = value.replace(color, f"var(--{token})")
    return value.replace(PAPER, "none")  # clear, so that the shade of an edge with more behind it is seen


def photo_uri(photo: Tensor) -> str:
    """Return a photo as a PNG in a ``data:`` address, at most so large as the page shows it on a dense screen.

    Args:
        photo: uint8 ``[3, H, W]``.

    Example:
        >>> import torch
        >>> photo_uri(torch.zeros(3, 2, 2, dtype=torch.uint8)).partition(",")[0]
        'data:image/png;base64'
    """
    image = Image.fromarray(photo.permute(1, 2, 0).numpy())
    image.thumbnail((_PHOTO_PIXELS, _PHOTO_PIXELS))
    buffer = io.BytesIO()
    image.save(buffer, "png", optimize=True)
    return "data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode()


def split_provenance(
    provenance: Mapping[str, Mapping[str, str]],
) -> tuple[dict[str, str], dict[str, tuple[str, ...]]]:
    """Part what all variants share (name to value) from what differs (name to one value per variant).

    Example:
        >>> split_provenance({"baseline": {"torch": "2.6", "seconds": "30"}, "PP3": {"torch": "2.6", "seconds": "90"}})
        ({'torch': '2.6'}, {'time': ('30 s', '1 min 30 s')})
    """
    names = dict.fromkeys(name for record in provenance.values() for name in record)
    values = dict(_readable(name, [record.get(name, "") for record in provenance.values()]) for name in names)
    shared = {name: texts[0] for name, texts in values.items() if len(set(texts)) == 1}
    return shared, {name: texts for name, texts in values.items() if name not in shared}


def _readable(name: str, texts: Sequence[str]) -> tuple[str, tuple[str, ...]]:
    """Return a name and its values, seconds as a time in larger units and a moment without its letters."""
    if name.endswith("started"):
        return name, tuple(text.replace("T", " ").replace("+00:00", " UTC") for text in texts)
    if not name.endswith("seconds"):
        return name, tuple(texts)
    return name.removesuffix("seconds") + "time", tuple(duration(float(text)) if text else "" for text in texts)


def _asset(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")

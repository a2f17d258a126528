"""How a figure of this package looks, and how it becomes a file.

Figures are built from `matplotlib.figure.Figure` directly: no pyplot, no window, no state shared between figures.
"""

import contextlib
import io
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from textwrap import fill
from types import MappingProxyType
from typing import Any, Literal

import matplotlib
from matplotlib.figure import Figure as Canvas
from matplotlib.font_manager import get_font_names
from matplotlib.lines import Line2D

INK, MUTED, RULE, WASH, PAPER = "#1f2328", "#59616c", "#d9dde3", "#f1f4f7", "#fefefe"
SERIES = ("#0072b2", "#d55e00", "#009e73", "#c4629a", "#563a9c")
"""Okabe and Ito's colours, the pink darkened to 3:1 against white; told apart with any colour vision."""

_MARKERS = "os^Dvph"
_DASHES = ("-", (0, (5, 1.6)), (0, (1.4, 1.4)))
_DPI = 200
_LETTERS_AN_INCH = 17  # of a caption
_OTHER_SCRIPTS = (
    "Noto Sans CJK SC", "Source Han Sans SC", "Microsoft YaHei", "PingFang SC", "Hiragino Sans", "Malgun Gothic",
    "Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Devanagari", "Noto Sans Thai", "Arial Unicode MS",
)  # fmt: skip
"""Fonts for the labels' signs that the first font lacks, as far as this machine has them."""
_UNDATED = {"svg": {"Date": None}, "pdf": {"CreationDate": None}}  # the same results give the same files
_RC: Any = {
    "font.family": ["sans-serif", *(name for name in _OTHER_SCRIPTS if name in get_font_names())],
    "font.size": 8.5,
    "axes.titlesize": 9,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "axes.labelsize": 8.5,
    "axes.labelcolor": INK,
    "axes.edgecolor": MUTED,
    "axes.linewidth": 0.7,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": RULE,
    "grid.linewidth": 0.6,
    "text.color": INK,
    "text.parse_math": False,  # a dollar sign in a variant's label is a dollar sign
    "xtick.color": MUTED,
    "ytick.color": MUTED,
    "xtick.labelcolor": INK,
    "ytick.labelcolor": INK,
    "xtick.major.size": 2.5,
    "ytick.major.size": 2.5,
    "lines.linewidth": 1.5,
    "lines.markersize": 4.5,
    "legend.frameon": False,
    "legend.fontsize": 8.5,
    "figure.facecolor": PAPER,
    "savefig.facecolor": PAPER,
    "svg.fonttype": "none",
    "pdf.fonttype": 42,
}


@contextlib.contextmanager
def _house_style() -> Iterator[None]:
    with matplotlib.rc_context(_RC), warnings.catch_warnings():
        # An SVG file, as a page shows it, leaves signs that no font here has to its reader's.
        warnings.filterwarnings("ignore", "Glyph .* missing from", UserWarning)
        yield


in_style = _house_style()
"""Decorator: the function draws in the style of the house and leaves matplotlib's own settings as they were."""


@dataclass(frozen=True)
class Figure:
    """A drawing and what a reader needs to understand it.

    Attributes:
        name: File name without suffix.
        title: One line that names what is shown.
        figure: The matplotlib figure.
        caption: What is shown, in which unit, and how to read it.
        values: Per group of marks (its SVG id) what each mark stands for, in drawing order; a page shows it on hover.
        dpi: Dots an inch of the PNG file.
    """

    name: str
    title: str
    figure: Canvas
    caption: str
    values: Mapping[str, Sequence[str]] = field(default_factory=lambda: MappingProxyType({}))
    dpi: float = _DPI

    def __post_init__(self) -> None:
        """Lay the figure out once and for all: every file then shows the same, and saving is faster."""
        if layout := self.figure.get_layout_engine():
            layout.execute(self.figure)
        self.figure.set_layout_engine("none")


@dataclass(frozen=True)
class Look:
    """Colour, marker and dash of one variant, the same in every figure."""

    color: str
    marker: str
    linestyle: str | tuple[float, tuple[float, ...]]


def looks(labels: Sequence[str], baseline: str) -> dict[str, Look]:
    """Give every variant its look: the baseline in neutral ink, the others a colour and a marker each.

    Example:
        >>> [look.color for look in looks(["baseline", "PP3"], "baseline").values()]
        ['#1f2328', '#0072b2']
    """
    others = [label for label in labels if label != baseline]
    chosen = {
        label: Look(SERIES[i % len(SERIES)], _MARKERS[i % len(_MARKERS)], _DASHES[i // len(SERIES) % len(_DASHES)])
        for i, label in enumerate(others)
    }
    return {label: chosen.get(label, Look(INK, "X", "-")) for label in labels}


def canvas(width: float, height: float) -> Canvas:
    """Return an empty figure of ``width`` x ``height`` inches that lays itself out."""
    return Canvas(figsize=(width, height), dpi=_DPI, layout="constrained")


def look_of_line(look: Look) -> dict[str, Any]:
    """Return the look as arguments of ``Axes.plot``."""
    return {"color": look.color, "marker": look.marker, "linestyle": look.linestyle}


def legend_above(figure: Canvas, looks: Mapping[str, Look]) -> None:
    """Name the variants' lines in rows above the axes."""
    name_above(figure, {label: Line2D([], [], **look_of_line(look)) for label, look in looks.items()}, most=5)


def name_above(figure: Canvas, handles: Mapping[str, Line2D], most: int) -> None:
    """Name marks above the axes in as few rows as the figure has room for, at most ``most`` side by side.

    The figure grows by all rows but the first, so that its axes keep their size.
    """
    heights = []
    for rows in range(1, len(handles) + 1):
        columns = math.ceil(len(handles) / rows)
        legend = figure.legend(list(handles.values()), list(handles), loc="outside upper left", ncols=columns)
        extent = legend.get_window_extent()
        heights.append(extent.height)
        if columns <= most and (columns == 1 or extent.width <= figure.bbox.width):
            figure.set_figheight(figure.get_figheight() + (heights[-1] - heights[0]) / figure.dpi)
            return
        legend.remove()


def moved_apart(positions: Sequence[float], gap: float) -> list[float]:
    """Move positions apart until neighbours are ``gap`` from each other, each as little as possible.

    The order is kept and the sum of squared moves is the smallest (pool adjacent violators).

    Example:
        >>> moved_apart([0.0, 10.0, 10.5], gap=1.0)
        [0.0, 9.75, 10.75]
    """
    order = sorted(range(len(positions)), key=lambda i: positions[i])
    blocks: list[tuple[float, int]] = []  # mean and size of runs that touch, after taking the wanted gaps out
    for rank, i in enumerate(order):
        mean, size = positions[i] - rank * gap, 1
        while blocks and blocks[-1][0] > mean:
            other, count = blocks.pop()
            mean, size = (other * count + mean * size) / (count + size), count + size
        blocks.append((mean, size))
    levels = [mean for mean, size in blocks for _ in range(size)]
    moved = dict(zip(order, (level + rank * gap for rank, level in enumerate(levels)), strict=True))
    return [moved[i] for i in range(len(positions))]


def svg_text(figure: Figure) -> str:
    """Return the figure as an SVG document; the same figure gives the same text."""
    buffer = io.StringIO()
    _save(figure, buffer, "svg")
    return buffer.getvalue()


def write(figure: Figure, path: Path) -> None:
    """Write one file in the format that its suffix names: ``.svg``, ``.png`` or ``.pdf``."""
    _save(figure, path, path.suffix.removeprefix("."))


@in_style
def write_captioned(figure: Figure, path: Path) -> None:
    """Write one file as `write` does, with the caption below the picture."""
    width, height = figure.figure.get_size_inches()
    text = fill(figure.caption, int(_LETTERS_AN_INCH * width))
    figure.figure.text(0.01, -0.1 / height, text, va="top", fontsize=7.5, color=MUTED)
    _save(figure, path, path.suffix.lower().removeprefix("."), bbox_inches="tight")


def _save(figure: Figure, target: Path | io.StringIO, form: str, bbox_inches: Literal["tight"] | None = None) -> None:
    metadata = {"Title": figure.title, **_UNDATED.get(form, {})}
    with _house_style(), matplotlib.rc_context({"svg.hashsalt": figure.name}):
        figure.figure.savefig(target, format=form, metadata=metadata, dpi=figure.dpi, bbox_inches=bbox_inches)

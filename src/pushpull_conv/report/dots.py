"""Figures of a comparison made of dots: the error, and beside it the difference to the baseline, row by row."""

from collections.abc import Iterable, Mapping, Sequence

from matplotlib.axes import Axes

from pushpull_conv.benchmark import corruption_errors
from pushpull_conv.corruptions.spec import CORRUPTIONS, by_group, spoken
from pushpull_conv.report.averages import Row
from pushpull_conv.report.scores import shared_corruptions
from pushpull_conv.report.style import WASH, Figure, Look, canvas, in_style, legend_above
from pushpull_conv.report.wording import percent, shortened, signed

_NAME_LENGTH = 21  # characters of the baseline's name below a panel; longer ones would leave the figure


@in_style
def corruptions_figure(results: Sequence[Row], baseline: Row, looks: Mapping[str, Look]) -> Figure:
    """Draw the error under each corruption, averaged over the severities, one row per corruption."""
    groups = {
        group.capitalize(): [spoken(name) for name in names]
        for group, names in by_group(shared_corruptions(results)).items()
    }
    errors = {
        result.model: {spoken(name): error for name, error in corruption_errors(result.errors).items()}
        for result in results
    }
    return _rows("corruptions", "corruption", "averaged over the severities", groups, errors, baseline.model, looks)


@in_style
def classes_figure(
    errors: Mapping[str, Mapping[str, float]], baseline: str, looks: Mapping[str, Look], names: Sequence[str]
) -> Figure:
    """Draw the error on the named classes, averaged over corruptions and severities, one row per class."""
    over = f"averaged over the {len(CORRUPTIONS)} corruptions and their severities"
    if len(names) < len(errors[baseline]):
        over += f"; the {len(names)} of {len(errors[baseline])} classes that differ most"
    return _rows("classes", "class", over, {"Class": names}, errors, baseline, looks)


def _rows(
    name: str,
    of: str,
    over: str,
    groups: Mapping[str, Sequence[str]],
    errors: Mapping[str, Mapping[str, float]],
    baseline: str,
    looks: Mapping[str, Look],
) -> Figure:
    """Draw both panels.

    Args:
        name: The figure's name.
        of: What a row is.
        over: What its errors are a mean of.
        groups: The rows in order, under their headings.
        errors: Per variant the error of every row.
        baseline: The variant that the others are compared with.
        looks: How each variant is drawn.
    """
    headings, places, depth = _places(groups)
    figure = canvas(7.2, 0.9 + depth * (0.17 + 0.02 * len(errors)))
    left, right = figure.subplots(1, 2, sharey=True)
    left.update_datalim([(0, 0)], updatey=False)  # the margin at the right is a share of the whole width
    values = {}
    for i, (label, own) in enumerate(errors.items()):
        look, shift = looks[label], 0.7 * ((i + 0.5) / len(errors) - 0.5)  # side by side within the row
        heights = [place + shift for place in places.values()]
        differences = [100 * (own[row] - errors[baseline][row]) for row in places]
        dots = {"linestyle": "none", "color": look.color, "marker": look.marker, "markersize": 4, "clip_on": False}
        left.plot([100 * own[row] for row in places], heights, gid=f"{name}-error-{i}", **dots)
        values[f"{name}-error-{i}"] = [f"{label}, {row}: {percent(own[row])}" for row in places]
        if label != baseline:
            right.hlines(heights, 0, differences, color=look.color, linewidth=1)
            right.plot(differences, heights, gid=f"{name}-difference-{i}", **dots)
            values[f"{name}-difference-{i}"] = [
                f"{label}, {row}: {signed(points)} points" for row, points in zip(places, differences, strict=True)
            ]
    right.axvline(0, color=looks[baseline].color, linewidth=1.1)
    left.set_yticks(list(places.values()), list(places))
    left.set_ylim(depth - 0.6, -0.6)
    left.set_xlim(0)
    left.set_xlabel("Top-1 error, %")
    right.set_xlabel(f"Difference to {shortened(baseline, _NAME_LENGTH)}, points")
    for axes in (left, right):
        _band(axes, places.values())
    for heading, place in headings.items():
        corner = {"xycoords": ("axes fraction", "data"), "xytext": (-4, 0), "textcoords": "offset points"}
        left.annotate(heading, (0, place), ha="right", va="center", fontweight="bold", **corner)
    legend_above(figure, looks)
    caption = (
        f"Left: top-1 error in percent for each {of}, {over}. Right: the same minus that of {baseline}, in percentage "
        "points; left of the line a variant makes fewer errors."
    )
    return Figure(name, f"Error by {of}", figure, caption, values)


def _places(groups: Mapping[str, Sequence[str]]) -> tuple[dict[str, float], dict[str, float], float]:
    """Return the height of every heading and of every row, from the top, and the height of all."""
    headings: dict[str, float] = {}
    places: dict[str, float] = {}
    depth = 0.0
    for heading, rows in groups.items():
        headings[heading] = depth
        places |= {row: depth + 1 + i for i, row in enumerate(rows)}
        depth += len(rows) + 1.3
    return headings, places, depth


def _band(axes: Axes, places: Iterable[float]) -> None:
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)
    for place in places:
        axes.axhspan(place - 0.42, place + 0.42, color=WASH, linewidth=0, zorder=0)

"""Figures of a comparison made of lines: error against severity, and the trade with the clean error."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean

from matplotlib.axes import Axes
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from pushpull_conv.benchmark import Results, mean_error, r_net
from pushpull_conv.corruptions.spec import CORRUPTIONS, SEVERITIES, by_group, spoken
from pushpull_conv.report.averages import Row
from pushpull_conv.report.scores import Score, defined, shared_corruptions
from pushpull_conv.report.style import (
    INK,
    MUTED,
    WASH,
    Figure,
    Look,
    canvas,
    in_style,
    legend_above,
    look_of_line,
    moved_apart,
    name_above,
)
from pushpull_conv.report.wording import percent, shortened, signed

_NAME_HEIGHT, _AROUND_AXES = 0.17, 0.8  # inches: of a line's name with room, and what a figure has above and below axes
_NAME_LENGTH = 27  # characters of a name beside an axis; longer ones would take the panels' place


@in_style
def severity_figure(results: Sequence[Row], baseline: Row, looks: Mapping[str, Look]) -> Figure:
    """Draw the error against the severity, averaged over the benchmark's corruptions, and the difference it makes."""
    figure = canvas(7.2, max(3.7, _AROUND_AXES + _NAME_HEIGHT * len(results)))
    errors, differences = figure.subplots(1, 2)
    curves = {result.model: _mean_curve(result) for result in results}
    values = {}
    ends = {}
    for i, (label, curve) in enumerate(curves.items()):
        difference = [own - base for own, base in zip(curve, curves[baseline.model], strict=True)]
        for axes, heights, mark in ((errors, curve, f"mean-curve-{i}"), (differences, difference, f"mean-gain-{i}")):
            axes.plot(range(len(curve)), heights, gid=mark, **look_of_line(looks[label]))
        values[f"mean-curve-{i}"] = [f"{label}, {_at(k)}: {error:.2f} %" for k, error in enumerate(curve)]
        values[f"mean-gain-{i}"] = [
            f"{label}, {_at(k)}: {signed(points)} points" for k, points in enumerate(difference)
        ]
        ends[label] = difference[-1]
    _from_zero(errors)
    errors.set_ylabel("Top-1 error, %")
    differences.set_ylabel(f"Difference to {shortened(baseline.model, _NAME_LENGTH)}, points")
    for axes in (errors, differences):
        _severity_axis(axes)
    _label_ends(differences, ends, looks)
    caption = (
        f"Left: top-1 error in percent against severity, averaged over the {len(CORRUPTIONS)} corruptions; the left "
        f"end of every line is the error on the clean images. Right: the same minus that of {baseline.model}, in "
        "percentage points; below zero a variant makes fewer errors."
    )
    return Figure("severity", "Error against severity", figure, caption, values)


@in_style
def severity_by_corruption_figure(results: Sequence[Row], looks: Mapping[str, Look]) -> Figure:
    """Draw the error against the severity once for each corruption, one row of panels per group."""
    groups = by_group(shared_corruptions(results))
    values = {}
    figure = canvas(7.2, 0.4 + 1.7 * len(groups))
    panels = figure.subplots(len(groups), max(map(len, groups.values())), sharey=True, squeeze=False)
    for depth, (row, (group, names)) in enumerate(zip(panels, groups.items(), strict=True), 1):
        row[0].set_ylabel(f"{group.capitalize()}\nTop-1 error, %")
        for axes in row[len(names) :]:
            axes.set_visible(False)
        for axes, name in zip(row, names, strict=False):
            axes.set_title(spoken(name), fontweight="normal")
            _severity_axis(axes, label=depth == len(groups))
            for i, result in enumerate(results):
                curve = _in_percent([result.clean_error, *result.errors[name]])
                look = look_of_line(looks[result.model]) | {"markersize": 2.6, "linewidth": 1}
                axes.plot(range(len(curve)), curve, gid=f"{name}-curve-{i}", **look)
                values[f"{name}-curve-{i}"] = [
                    f"{result.model}, {spoken(name)}, {_at(k)}: {error:.2f} %" for k, error in enumerate(curve)
                ]
    _from_zero(panels[0, 0])
    legend_above(figure, looks)
    caption = (
        "Top-1 error in percent against severity for each corruption, one row per group. "
        "The left end of every line is the error on the clean images."
    )
    return Figure("severity_by_corruption", "Error against severity for each corruption", figure, caption, values)


@in_style
def tradeoff_figure(scores: Sequence[Score], baseline: Score, looks: Mapping[str, Look]) -> Figure:
    """Draw mean error against clean error, with the line where R_net is zero.

    With the default beta = M_b / E_b the two relative gains have the common divisor E_b,
    R_net = 50 ((E_b - E) + (M_b - M)) / E_b percent, so it is zero where E + M = E_b + M_b.
    """
    figure = canvas(7.2, 4.6)
    axes = figure.subplots()
    values = {}
    for i, score in enumerate(scores):
        _draw_point(axes, score, looks[score.model], f"tradeoff-{i}")
        errors = f"clean error {percent(score.clean_error)}, mean error {percent(score.mean_error)}"
        gain = "" if score.r_net is None else f", R_net {signed(score.r_net)} %"
        values[f"tradeoff-{i}"] = [f"{score.model}: {errors}{gain}"]
    axes.margins(0.25)
    axes.set(xlim=_possible(axes.get_xlim()), ylim=_possible(axes.get_ylim()))
    axes.set(xlabel="Clean top-1 error, %", ylabel=f"Mean top-1 error over {len(CORRUPTIONS)} corruptions, %")
    if baseline.r_net is not None:
        _draw_r_net(axes, baseline)
    handles = {
        s.model if s.r_net is None else f"{s.model} ({signed(s.r_net)} %)": Line2D(
            [], [], color=looks[s.model].color, marker=looks[s.model].marker, markersize=7, linestyle="none"
        )
        for s in scores
    }
    name_above(figure, handles, most=3)
    caption = (
        "Mean error over the corruptions against clean error, both in percent; lower left is better. "
        + (
            f"There is no R_net against {baseline.model}, whose clean or mean error is zero."
            if baseline.r_net is None
            else f"R_net (in brackets and as dotted lines, in percent) is zero on the solid line through "
            f"{baseline.model} and positive in the shaded half below it, where the mean error falls by more points "
            "than the clean error rises."
        )
        + (" Bars: standard deviation over the trainings." if any(score.sd for score in scores) else "")
    )
    return Figure("tradeoff", "Robustness against clean accuracy", figure, caption, values)


@in_style
def epochs_figure(epochs: Mapping[str, Mapping[int, Results]], baseline: str, looks: Mapping[str, Look]) -> Figure:
    """Draw how clean accuracy, mean error and R_net change while the variants are trained.

    Args:
        epochs: Per label the results after some epochs, epoch (from 1) to results, of whole benchmarks.
        baseline: The label that R_net compares with, epoch by epoch; where it lacks an epoch there is no R_net.
        looks: Per label.
    """
    figure = canvas(7.2, 3.4)
    accuracy, errors, gains = panels = figure.subplots(1, 3)
    values = {}
    for i, (label, results) in enumerate(epochs.items()):
        shared = [epoch for epoch in results if epoch in epochs.get(baseline, {})]
        against = [_r_net_of(results[epoch], epochs[baseline][epoch]) for epoch in shared]
        for axes, places, heights, mark in (
            (accuracy, list(results), [100 - 100 * result.clean_error for result in results.values()], "accuracy"),
            (errors, list(results), [100 * mean_error(result) for result in results.values()], "error"),
            (gains, shared, against, "gain"),
        ):
            axes.plot(places, heights, gid=f"epochs-{mark}-{i}", **look_of_line(looks[label]))
            values[f"epochs-{mark}-{i}"] = [
                f"{label}, epoch {epoch}: {height:.2f} %" for epoch, height in zip(places, heights, strict=True)
            ]
    for axes, title in zip(panels, ("Clean accuracy, %", "Mean error, %", "R_net, %"), strict=True):
        axes.set_ylabel(title if title != "R_net, %" else r"$R_\mathrm{net}$, %", parse_math=True)
        axes.set_xlabel("Epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    legend_above(figure, {label: looks[label] for label in epochs})
    caption = (
        f"Clean top-1 accuracy, mean error over the {len(CORRUPTIONS)} corruptions and R_net against {baseline} after "
        "the same number of epochs, all in percent, at the epochs that were benchmarked."
    )
    return Figure("epochs", "Robustness while it is learned", figure, caption, values)


def _r_net_of(result: Results, baseline: Results) -> float:
    value = defined(lambda: r_net(result.clean_error, mean_error(result), baseline.clean_error, mean_error(baseline)))
    return math.nan if value is None else value  # a gap in the line


def r_net_line(clean_errors: Sequence[float], baseline: Score, r_net: float = 0.0) -> list[float]:
    """Return the mean errors at which variants with these clean errors have the given R_net (default beta).

    Args:
        clean_errors: Clean errors, fractions in [0, 1].
        baseline: The baseline's score.
        r_net: R_net in percent.

    Example:
        >>> baseline = Score("baseline", 0.2, 0.5, mce=1.0, relative_mce=1.0, r_net=0.0)
        >>> [round(mean_error, 3) for mean_error in r_net_line([0.2, 0.25], baseline)]
        [0.5, 0.45]
    """
    total = baseline.mean_error + baseline.clean_error * (1 - r_net / 50)
    return [total - error for error in clean_errors]


def _draw_point(axes: Axes, score: Score, look: Look, mark: str) -> None:
    """Mark a variant's clean and mean error, with their standard deviations where there are any."""
    at = (100 * score.clean_error, 100 * score.mean_error)
    (dot,) = axes.plot(*at, gid=mark, marker=look.marker, color=look.color, markersize=8, linestyle="none", zorder=3)
    dot.set_clip_on(False)  # at no errors it stands on the frame
    if score.sd:
        x_sd, y_sd = (100 * score.sd[name] for name in ("clean_error", "mean_error"))
        axes.errorbar(*at, xerr=x_sd, yerr=y_sd, fmt="none", ecolor=look.color, elinewidth=0.8, zorder=2)


def _draw_r_net(axes: Axes, baseline: Score) -> None:
    """Shade the half where R_net is positive and rule the plane with lines of equal R_net."""
    (left, right), (bottom, top) = axes.get_xlim(), axes.get_ylim()
    ends = [left / 100, right / 100]
    zero = _in_percent(r_net_line(ends, baseline))
    axes.fill_between([left, right], [min(bottom, *zero)] * 2, zero, color=WASH, linewidth=0, zorder=0)
    best, worst = (
        r_net(x / 100, y / 100, baseline.clean_error, baseline.mean_error) for x, y in ((left, bottom), (right, top))
    )
    for level in MaxNLocator(nbins=9, steps=[1, 2, 2.5, 5, 10]).tick_values(worst, best):
        heights = _in_percent(r_net_line(ends, baseline, level))
        width, dash = (0.5, (0, (1, 2))) if level else (1.1, "-")
        axes.plot([left, right], heights, color=MUTED if level else INK, linewidth=width, linestyle=dash, zorder=1)
        start = (left, heights[0]) if heights[0] <= top else (left + heights[0] - top, top)  # where the line comes in
        if left <= start[0] < right - 0.05 * (right - left) and start[1] > bottom + 0.05 * (top - bottom):
            name = rf"$R_\mathrm{{net}}$ {level:+g}".replace("-", "−") if level else r"$R_\mathrm{net}$ 0"
            axes.annotate(
                name,
                start,
                (5, -1),
                textcoords="offset points",
                va="bottom",
                fontsize=7,
                color=MUTED,
                parse_math=True,
            )
    axes.set(xlim=(left, right), ylim=(bottom, top))
    axes.grid(visible=False)


def _from_zero(axes: Axes) -> None:
    """Begin at zero, and leave above the lines a margin for their marks even where all errors are alike."""
    axes.update_datalim([(0, 0)])
    axes.autoscale_view()
    axes.set_ylim(0)


def _possible(limits: tuple[float, float]) -> tuple[float, float]:
    """Cut limits to what errors in percent can be."""
    return max(limits[0], 0), min(limits[1], 100)


def _in_percent(fractions: Sequence[float]) -> list[float]:
    return [100 * fraction for fraction in fractions]


def _mean_curve(result: Row) -> list[float]:
    """Return the clean error and the mean error at each severity, in percent."""
    by_severity = zip(*(result.errors[name] for name in CORRUPTIONS), strict=True)
    return _in_percent([result.clean_error, *map(fmean, by_severity)])


def _at(severity: int) -> str:
    return f"severity {severity}" if severity else "clean"


def _severity_axis(axes: Axes, *, label: bool = True) -> None:
    axes.set_xticks(range(len(SEVERITIES) + 1), ["clean", *map(str, SEVERITIES)])
    if label:
        axes.set_xlabel("Severity")


def _label_ends(axes: Axes, ends: Mapping[str, float], looks: Mapping[str, Look]) -> None:
    """Name every line at its right end, moved apart where the ends are closer than a line of text."""
    bottom, top = axes.get_ylim()
    inch = (top - bottom) / (axes.figure.bbox.height / axes.figure.dpi - _AROUND_AXES)
    heights = moved_apart(list(ends.values()), gap=_NAME_HEIGHT * inch)
    for (label, end), height in zip(ends.items(), heights, strict=True):
        axes.annotate(
            shortened(label, _NAME_LENGTH),
            (len(SEVERITIES), end),
            (len(SEVERITIES) + 0.28, height),
            va="center",
            annotation_clip=False,
            arrowprops={
                "arrowstyle": "-",
                "color": looks[label].color,
                "linewidth": 0.6,
                "shrinkA": 1,
                "shrinkB": 4,
                "relpos": (0, 0.5),
            },
        )

"""The comparison as tables: one set of rows, rendered for the terminal, Markdown, LaTeX, CSV and the page."""

import csv
import io
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table as RichTable
from rich.text import Text

from pushpull_conv.benchmark import Results, corruption_errors, mean_error
from pushpull_conv.corruptions.spec import CORRUPTIONS, SEVERITIES, by_group, spoken
from pushpull_conv.repeats import broken_name
from pushpull_conv.report.averages import Row
from pushpull_conv.report.scores import SPREAD, Score, alexnet_mce, defined, shared_corruptions
from pushpull_conv.report.wording import percent, signed, with_spread

UNKNOWN = "–"
_TEX = str.maketrans(
    {
        **{sign: rf"\{sign}" for sign in "&%$#_{}"},
        "\\": r"\textbackslash{}",
        "~": r"\textasciitilde{}",
        "^": r"\textasciicircum{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"$\pm$",
        "α": r"$\alpha$",
        "−": "$-$",
        "–": "--",
        "“": "``",
        "”": "''",
    }
)
_LEAST_NAME = 10
"""Characters to a line of a name, at the least, in a terminal too narrow for the table."""
_LIGATURES = re.compile(r"(?<=[-–])(?=[-–])|(?<=[`“?!])(?=[`“])|(?<=['”])(?=['”])|(?<=,)(?=,)")
"""The places between signs that TeX would set as one: a dash, a quotation mark, or an inverted ? or !."""
_BEYOND_PDFTEX = re.compile(r"[^\x00-\u017f\u2010-\u2026]")
"""What pdflatex may have no font for: all but Latin letters, dashes and quotation marks."""


@dataclass(frozen=True)
class Entry:
    """One entry of a table: how it reads, what it sorts by, and whether it is the best of its peers."""

    text: str
    value: str | float | None
    best: bool = False


@dataclass(frozen=True)
class Table:
    """A table ready to be rendered.

    Attributes:
        title: One line that names what is compared.
        caption: The scale of the numbers and what the emphasis means.
        header: Column titles; the first column holds names.
        rows: One tuple of entries per row, as long as the header.
    """

    title: str
    caption: str
    header: tuple[str, ...]
    rows: tuple[tuple[Entry, ...], ...]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yield the table for a terminal: in narrow columns if it is too wide otherwise."""
        wide = to_rich(self)
        fits = Measurement.get(console, options.update(max_width=10_000), wide).maximum <= options.max_width
        yield wide if fits else to_rich(self, options.max_width)


def _hundredfold(fraction: float | None) -> str:
    return UNKNOWN if fraction is None else f"{100 * fraction:.2f}"


@dataclass(frozen=True)
class _Measure:
    """One column of the comparison: a field of `Score`, its title, how its value is written, which extreme is best."""

    field: str
    title: str
    text: Callable[[Any], str]
    best: Callable[[Iterable[float]], float] | None = None


_MEASURES = (
    _Measure("clean_error", "Clean error, %", _hundredfold, min),
    _Measure("mean_error", "Mean error, %", _hundredfold, min),
    _Measure("mce", "mCE, %", _hundredfold, min),
    _Measure("relative_mce", "Rel. mCE, %", _hundredfold, min),
    _Measure("r_net", "R_net, %", signed, max),
    _Measure("alexnet_mce", "mCE (AlexNet), %", _hundredfold, min),
    _Measure("top5_error", "Clean top-5 error, %", _hundredfold, min),
    _Measure("alpha_mean", "α", "{:.2f}".format),
    _Measure("trainings", "Trainings", str),
    _Measure("parameters", "Params", "{:,}".format),
)
_RELATIVE = [measure for measure in _MEASURES if measure.field in ("mce", "relative_mce", "r_net")]


_ON_SPREAD = (
    " ± is the standard deviation over the trainings, with the baseline's mean taken as exact: it is not the "
    "uncertainty of a difference from the baseline, to which the baseline's own spread adds. For α it is over the "
    "filters."
)
_ON_ALEXNET = " mCE (AlexNet) is relative to AlexNet's published errors, as papers print it for ImageNet-C."
_WITHOUT_LOSS = "makes no errors, or loses nothing under some corruption"


def comparison_table(scores: Sequence[Score], baseline: Score) -> Table:
    """Return one row per variant; measures that no variant has are left out, and the trainings where each had one."""
    repeated = any(score.trainings > 1 for score in scores)
    known = [measure for measure in _MEASURES if any(_value(score, measure) is not None for score in scores)]
    measures = [measure for measure in known if repeated or measure.field != "trainings"]
    columns = [_column(measure, scores) for measure in measures]
    names = [Entry(score.model, score.model) for score in scores]
    undefined = [measure.title.removesuffix(", %") for measure in _RELATIVE if _value(baseline, measure) is None]
    return Table(
        title=f"Comparison with {baseline.model}",
        caption=(
            f"Errors, mCE and relative (rel.) mCE in percent, lower is better; R_net in percent, higher is better. "
            f"Mean error is over {len(CORRUPTIONS)} corruptions at {len(SEVERITIES)} severities; mCE, relative mCE and "
            f"R_net are relative to {baseline.model}. The best of each column is in bold."
            + (_ON_ALEXNET if any(score.alexnet_mce is not None for score in scores) else "")
            + (_ON_SPREAD if repeated else "")
            + (f" {', '.join(undefined)}: not defined, as {baseline.model} {_WITHOUT_LOSS}." if undefined else "")
        ),
        header=("Variant", *(measure.title for measure in measures)),
        rows=tuple(zip(names, *columns, strict=True)),
    )


def corruption_table(results: Sequence[Row]) -> Table:
    """Return one row per corruption, one column per variant: the error averaged over the severities."""
    rows = []
    for group, names in by_group(shared_corruptions(results)).items():
        for name in names:
            errors = [corruption_errors(result.errors)[name] for result in results]
            texts = [_hundredfold(error) for error in errors]
            entries = [*map(Entry, texts, errors, read_as_best(texts, errors))]
            rows.append((Entry(spoken(name), name), Entry(group, group), *entries))
    over = "the severities" if all(isinstance(row, Results) for row in results) else "the severities and the trainings"
    return Table(
        title="Error by corruption",
        caption=f"Top-1 error in percent, averaged over {over}; the lowest of each row is in bold.",
        header=("Corruption", "Group", *(result.model for result in results)),
        rows=tuple(rows),
    )


def error_table(results: Results) -> Table:
    """Return the errors of one model: one row per corruption, one column per severity, and their mean."""
    severities = sorted({severity for _, severity in results.cells})
    rows = [(Entry("clean", "clean"), *[Entry("", None)] * len(severities), _error(results.clean_error))]
    for name, mean in corruption_errors(results).items():
        cells = [results.cells.get((name, severity)) for severity in severities]
        entries = [_error(cell.error if cell else None) for cell in cells]
        rows.append((Entry(spoken(name), name), *entries, _error(mean)))
    return Table(
        title=f"{results.model} on {results.header.data}",
        caption=f"Top-1 error in percent, by severity.{_whole_benchmark(results)}",
        header=("Corruption", *map(str, severities), "Mean"),
        rows=tuple(rows),
    )


def _whole_benchmark(results: Results) -> str:
    """Say what the 15 corruptions together come to, "" if not all were counted."""
    if (mean := defined(lambda: mean_error(results))) is None:
        return ""
    relative = alexnet_mce(results)
    return f" Mean error over {len(CORRUPTIONS)} corruptions: {percent(mean)}." + (
        "" if relative is None else f" mCE, relative to AlexNet's published errors: {percent(relative)}."
    )


def to_rich(table: Table, width: int | None = None) -> RichTable:
    """Return the table for a terminal; names are shown as they are, never read as markup.

    In a ``width`` too small for it a spread stands below its number, and a name takes as many lines as it needs, broken
    after a sign if that suffices. No number is cut: where that would not do, the table is wider. None: it takes as much
    as it needs.
    """
    padding = 1 if width is None else 0
    rich = RichTable(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, padding, 0, 0))
    rich.title, rich.caption, rich.caption_justify = Text(table.title), Text(table.caption), "left"
    shown = [[entry.text for entry in row] for row in table.rows]
    widths: list[int | None] = [None] * len(table.header)
    if width is not None:
        shown, needed = _narrowed(table.header, shown, width)
        whole = _LEAST_NAME + sum(needed) + len(needed)
        widths[1:] = needed
        if whole > width:
            rich.width = whole
    for title, least in zip(table.header, widths, strict=True):
        justify: Literal["left", "right"] = "right" if rich.columns else "left"
        rich.add_column(Text(title), justify=justify, overflow="fold", width=least)
    for row, texts in zip(table.rows, shown, strict=True):
        styles = ("bold green" if entry.best else "" for entry in row)
        rich.add_row(*(Text(text, style=style) for text, style in zip(texts, styles, strict=True)))
    return rich


def _narrowed(header: Sequence[str], shown: list[list[str]], width: int) -> tuple[list[list[str]], list[int]]:
    """Break the texts of a table into lines; return them with the width of each column but the first, of the names."""
    shown = [[text.replace(" ± ", "\n± ") for text in texts] for texts in shown]
    _, *columns = zip(header, *shown, strict=True)
    needed = [
        max(len(word) for text in (title.replace(" ", "\n"), *texts) for word in text.splitlines())
        for title, *texts in columns
    ]
    room = max(width - sum(needed) - len(needed), _LEAST_NAME)
    return [[broken_name(name, room), *texts] for name, *texts in shown], needed


def to_markdown(table: Table) -> str:
    """Return the table as Markdown, title above and caption below.

    Example:
        >>> row = (Entry("PP3", "PP3"), Entry("9.10", 0.091, best=True))
        >>> print(to_markdown(Table("Errors", "In percent.", ("Variant", "Clean"), (row,))))
        **Errors**
        <BLANKLINE>
        | Variant | Clean |
        | :-- | --: |
        | PP3 | **9.10** |
        <BLANKLINE>
        In percent.
        <BLANKLINE>
    """
    lines = [
        [_plain(title) for title in table.header],
        [":--" if is_text else "--:" for is_text in _are_texts(table)],
        *([f"**{_plain(entry.text)}**" if entry.best else _plain(entry.text) for entry in row] for row in table.rows),
    ]
    body = "\n".join(f"| {' | '.join(line)} |" for line in lines)
    return f"**{_plain(table.title)}**\n\n{body}\n\n{_plain(table.caption)}\n"


def to_latex(table: Table, name: str, about: str) -> str:
    """Return the table for a paper, as a ``table`` float; it needs the packages ``booktabs`` and ``graphicx``.

    Wider than the column, it is scaled down to it. A comment tells of signs that pdflatex may not know.

    Args:
        table: The table.
        name: The float's label is ``tab:NAME``.
        about: What the numbers are of, the end of the caption.
    """
    rows = [
        " & ".join(rf"\textbf{{{_tex(entry.text)}}}" if entry.best else _tex(entry.text) for entry in row)
        for row in table.rows
    ]
    sides = ("l" if is_text else "r" for is_text in _are_texts(table))
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{_tex(f'{table.title}. {table.caption} {about}')}}}",
        rf"\label{{tab:{name}}}",
        r"\smallskip",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{''.join(sides)}}}",
        r"\toprule",
        " & ".join(map(_tex, table.header)) + r" \\",
        r"\midrule",
        *(rf"{{}}{row} \\" if row.startswith(("[", "*")) else rf"{row} \\" for row in rows),  # or \\ takes them
        r"\bottomrule",
        r"\end{tabular}}",
        r"\end{table}",
    ]
    needed = [r"% needs \usepackage{booktabs,graphicx}"]
    if beyond := dict.fromkeys(_BEYOND_PDFTEX.findall("".join(lines))):
        needed.append(f"% compile with lualatex or xelatex, and a font that has these signs: {''.join(beyond)}")
    return "\n".join(needed + lines) + "\n"


def scores_csv(scores: Sequence[Score], baseline: Score) -> str:
    """Return the scores at full precision: errors, mCE and relative mCE as fractions, R_net in percent."""
    return _csv([{"model": score.model, "baseline": baseline.model, **_csv_fields(score)} for score in scores])


def corruptions_csv(results: Sequence[Results]) -> str:
    """Return one row per variant and corruption: CE and the error at each severity, fractions at full precision."""
    groups = by_group(shared_corruptions(results))
    rows = [
        {
            "model": result.model,
            "corruption": name,
            "group": group,
            "ce": corruption_errors(result)[name],
            **{f"error_{severity}": error for severity, error in zip(SEVERITIES, result.errors[name], strict=True)},
        }
        for result in results
        for group, names in groups.items()
        for name in names
    ]
    return _csv(rows)


def read_as_best(
    texts: Sequence[str], values: Sequence[float | None], best: Callable[[Iterable[float]], float] = min
) -> list[bool]:
    """Tell which of several numbers read as the best does and are emphasised; none where there is only one.

    Args:
        texts: The numbers as they are written, without a spread.
        values: The numbers; None: not known.
        best: Which is the best.

    Example:
        >>> read_as_best(["9.10", "9.10", "9.20", "–"], [0.09101, 0.09104, 0.092, None])
        [True, True, False, False]
    """
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return [False] * len(values)
    first = texts[values.index(best(known))]
    return [text == first for text in texts]


def _column(measure: _Measure, scores: Sequence[Score]) -> list[Entry]:
    """Make one measure's entries."""
    values = [_value(score, measure) for score in scores]
    texts = [UNKNOWN if value is None else measure.text(value) for value in values]
    spread = [
        text if value is None else with_spread(text, _spread(score, measure.field))
        for text, value, score in zip(texts, values, scores, strict=True)
    ]
    marks = read_as_best(texts, values, measure.best) if measure.best else [False] * len(values)
    return [*map(Entry, spread, values, marks)]


def _value(score: Score, measure: _Measure) -> float | None:
    return getattr(score, measure.field)


def _spread(score: Score, field: str) -> float | None:
    """The deviation of a measure over the trainings as it is written, of alpha that over the filters."""
    if field == "alpha_mean":
        return score.alpha_sd or None
    sd = score.sd.get(field)
    return sd if sd is None or field == "r_net" else 100 * sd


def _error(fraction: float | None) -> Entry:
    return Entry(_hundredfold(fraction), fraction)


def _are_texts(table: Table) -> list[bool]:
    """Return for each column whether it holds texts, which begin at the left."""
    return [isinstance(entry.value, str) for entry in table.rows[0]]


def _plain(text: str) -> str:
    """Keep a label from being read as Markdown or HTML."""
    return re.sub(r"([\\`*_|<>\[\]])", r"\\\1", text)


def _csv_fields(score: Score) -> dict[str, object]:
    """Return the score's fields by name; the one that is no fraction has its unit in its name."""
    fields = {name: value for name, value in vars(score).items() if name != "sd"}
    fields |= {f"{name}_sd": score.sd.get(name) for name in SPREAD}
    return {re.sub("^r_net", "r_net_percent", name): value for name, value in fields.items()}


def _tex(text: str) -> str:
    """Keep a label from being read as LaTeX, and set the symbols that the tables use."""
    return "{}".join(part.translate(_TEX) for part in _LIGATURES.split(text)).replace(r"R\_net", r"$R_\mathrm{net}$")


def _csv(rows: Sequence[dict[str, object]]) -> str:
    buffer = io.StringIO()
    writer = csv.DictWriter(buffer, rows[0].keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return buffer.getvalue()

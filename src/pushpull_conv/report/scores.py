"""What each variant scored against the baseline: the numbers that every table, figure and sentence is made from."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean, stdev
from types import MappingProxyType
from typing import Any

import torch
from torch import Tensor

from pushpull_conv.benchmark import Results, check_comparable, mce, mean_error, r_net, relative_mce
from pushpull_conv.corruptions.spec import CORRUPTIONS, SEVERITIES
from pushpull_conv.errors import InputError, require_name
from pushpull_conv.report.averages import Row, averaged, trainings_of
from pushpull_conv.report.intervals import welch_interval
from pushpull_conv.report.wording import percent, signed

Kernels = Mapping[str, tuple[Tensor, Tensor, Tensor]]
Alphas = Mapping[str, Tensor]
Provenance = Mapping[str, Mapping[str, str]]
Intervals = dict[str, tuple[float, float]]

SPREAD = ("clean_error", "mean_error", "mce", "relative_mce", "r_net", "alexnet_mce", "top5_error")
"""The measures that differ from training to training."""
_CHANGES = ("mean_error", "clean_error")  # whose change from the baseline has an interval
_TELLING_CLASSES = 50  # among fewer classes five guesses are a large share, and top-5 says little


@dataclass(frozen=True)
class Score:
    """One variant's row of the comparison.

    Errors, mCE and relative mCE are fractions (1.0 is the baseline's own mCE); ``r_net`` is in percent. The three that
    divide by what the baseline loses are None where it loses nothing.

    Attributes:
        model: Label of the variant.
        clean_error: Top-1 error on the clean images.
        mean_error: Mean over the benchmark's corruptions and severities of the top-1 error.
        mce: Mean over the corruptions of the error relative to the baseline's.
        relative_mce: The same for the rise of the error above the clean error.
        r_net: Net gain over the baseline in percent.
        alexnet_mce: mCE relative to AlexNet's published errors, or None where these are not of the same images.
        top5_error: Top-5 error on the clean images, or None where the classes are too few for it to say anything.
        parameters: Number of parameters, or None if unknown.
        alpha_mean: Mean over the stem's filters of the inhibition strength, or None without a push-pull stem.
        alpha_sd: Its standard deviation over the filters; 0 where alpha is the same for all.
        trainings: Over how many trainings the measures are averaged.
        sd: The standard deviation over these trainings (of the sample: divided by their number less one) by field, with
            the baseline's mean taken as exact.
    """

    model: str
    clean_error: float
    mean_error: float
    mce: float | None
    relative_mce: float | None
    r_net: float | None
    alexnet_mce: float | None = None
    top5_error: float | None = None
    parameters: int | None = None
    alpha_mean: float | None = None
    alpha_sd: float | None = None
    trainings: int = 1
    sd: Mapping[str, float] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Comparison:
    """Variants, and what each scored against one of them; `scored` makes it.

    Attributes:
        results: One for each training.
        rows: One for each variant: the results of its training, or the average of its trainings.
        scores: The score of each row.
        place: The baseline's place among them.
    """

    results: Sequence[Results]
    rows: Sequence[Row]
    scores: Sequence[Score]
    place: int

    @property
    def baseline(self) -> Row:
        """The baseline's row."""
        return self.rows[self.place]

    @property
    def base_score(self) -> Score:
        """The baseline's score."""
        return self.scores[self.place]


def scored(
    results: Sequence[Results],
    baseline: str,
    *,
    kernels: Kernels = MappingProxyType({}),
    alphas: Alphas = MappingProxyType({}),
    provenance: Provenance = MappingProxyType({}),
) -> Comparison:
    """Score variants against one of them.

    Args:
        results: One for each training, all of the same images; their order is kept. Those whose labels differ only in
            a seed (``PP3``, ``PP3@1235``; see `pushpull_conv.repeats`) are averaged and scored as one variant.
        baseline: The label of the results that the others are compared with.
        kernels: Per label of a model with push and pull kernels in its first layer the push kernels
            ``[O, C / groups, kh, kw]``, the pull kernels (their sides may be others) and alpha (``[O]``, or one value
            for all filters).
        alphas: Per label of a model whose first layer inhibits in another way its alpha, ``[O]``.
        provenance: Per label what its numbers come from, name to text; of it ``"parameters"`` (a whole number) is read.

    Raises:
        InputError: The baseline or a label is not among the results, or these cannot be compared or lack a part of the
            benchmark.
    """
    for label in (*kernels, *alphas, *provenance):
        require_name("variant", label, [result.model for result in results])
    rows = averaged(results)
    base = find_baseline(rows, baseline)
    for result in results:
        if missing := result.missing:
            raise InputError(
                f"results of '{result.model}' lack {len(missing)} of the {len(CORRUPTIONS) * len(SEVERITIES)} cells "
                f"({missing[0][0]} at severity {missing[0][1]}, ...); evaluate it again with the same --out, but "
                "without --corruption and --severity"
            )
    alphas = {**alphas, **{label: alpha for label, (_, _, alpha) in kernels.items()}}
    return Comparison(results, rows, [_score(row, base, alphas, provenance) for row in rows], rows.index(base))


def _score(row: Row, baseline: Row, alphas: Alphas, provenance: Provenance) -> Score:
    labels = [result.model for result in trainings_of(row)]
    known = [alphas[label].reshape(-1) for label in labels if label in alphas]
    parameters = _parameters(provenance.get(labels[0], {}))
    return score(row, baseline, alpha=torch.cat(known) if known else None, parameters=parameters)


def _parameters(record: Mapping[str, str]) -> int | None:
    return int(record["parameters"]) if "parameters" in record else None


def find_baseline(results: Sequence[Row], label: str) -> Row:
    """Return the row whose label is ``label``.

    Raises:
        InputError: There is none; the message lists the labels.
    """
    labels = [result.model for result in results]
    require_name("baseline", label, labels)
    return results[labels.index(label)]


def score(row: Row, baseline: Row, *, alpha: Tensor | None = None, parameters: int | None = None) -> Score:
    """Score one variant against the baseline.

    Where either was trained several times, the errors are means over the trainings, and so are, as they are linear in
    the variant's errors, the measures relative to the baseline's mean errors.

    Args:
        row: The variant's results.
        baseline: The baseline's results, made from the same images.
        alpha: The stem's inhibition strength, one per filter.
        parameters: Number of parameters of the model.

    Raises:
        InputError: The two cannot be compared, or one lacks a corruption or severity of the benchmark.
    """
    trainings = trainings_of(row)
    check_comparable([*trainings_of(baseline), *trainings])
    each = [_measures(result, baseline) for result in trainings] if len(trainings) > 1 else []
    spread = {
        name: stdev(values) for name in SPREAD if each and None not in (values := [measured[name] for measured in each])
    }
    return Score(
        model=row.model,
        **_measures(row, baseline),
        parameters=parameters,
        alpha_mean=None if alpha is None else alpha.double().mean().item(),
        alpha_sd=None if alpha is None else alpha.double().std(correction=0).item(),
        trainings=len(trainings),
        sd=spread,
    )


def _measures(row: Row, baseline: Row) -> dict[str, Any]:
    """Return the measures of `SPREAD` by name."""
    clean, mean = row.clean_error, mean_error(row.errors)
    base_clean, base = baseline.clean_error, baseline.errors
    relative = {"clean_error": clean, "baseline_clean_error": base_clean}
    telling = len(row.header.classes) >= _TELLING_CLASSES
    return {
        "clean_error": clean,
        "mean_error": mean,
        "mce": defined(lambda: mce(row.errors, base)),
        "relative_mce": defined(lambda: relative_mce(row.errors, base, **relative)),
        "r_net": defined(lambda: r_net(clean, mean, base_clean, mean_error(base))),
        "alexnet_mce": alexnet_mce(row),
        "top5_error": fmean(result.clean.top5_error for result in trainings_of(row)) if telling else None,
    }


def alexnet_mce(row: Row) -> float | None:
    """Return the mCE that papers print for ImageNet-C, or None where the results are of other images or not whole."""
    return defined(lambda: fmean(mce(result, "alexnet") for result in trainings_of(row)))


def shared_corruptions(results: Sequence[Row]) -> list[str]:
    """Return the corruptions that all results have at every severity, in benchmark order."""
    everywhere = [
        {name for name, errors in result.errors.items() if len(errors) == len(SEVERITIES)} for result in results
    ]
    return [name for name in results[0].errors if all(name in names for names in everywhere)]


def class_errors(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """Return by label each class's error, averaged over the benchmark's corruptions and severities.

    A class without images has no entry.
    """
    return {row.model: _class_errors(row) for row in rows}


def _class_errors(row: Row) -> dict[str, float]:
    cells = [
        result.cells[name, severity].class_errors
        for result in trainings_of(row)
        for name in CORRUPTIONS
        for severity in SEVERITIES
    ]
    known = {
        name: [error for error in errors if error is not None]
        for name, errors in zip(row.header.classes, zip(*cells, strict=True), strict=True)
    }
    return {name: fmean(errors) for name, errors in known.items() if errors}


def findings(scores: Sequence[Score], baseline: Score) -> str:
    """Say which variant gains most over the baseline, what it costs on clean images, and how far chance reaches.

    Example:
        >>> base = Score("baseline", 0.20, 0.50, mce=1.0, relative_mce=1.0, r_net=0.0)
        >>> unit = Score("PP3", 0.21, 0.45, mce=0.9, relative_mce=0.8, r_net=10.0)
        >>> findings([base, unit], base).split(": ")[0]
        'PP3 has the best R_net, +10.00 % over baseline'
    """
    others = [row for row in scores if row.model != baseline.model]
    if not others:
        clean, mean = percent(baseline.clean_error), percent(baseline.mean_error)
        return f"Only {baseline.model} was measured. Its clean error is {clean}, its mean error {mean}."
    best = min(others, key=_sum_of_errors)  # the order of R_net, where that is defined
    if best.r_net is None and _sum_of_errors(best) < _sum_of_errors(baseline):
        lead = f"{best.model} has the lowest sum of errors"
    elif best.r_net is None:
        lead = f"No variant gains over {baseline.model}; the best of them is {best.model}"
    elif round(best.r_net, 2) > 0:  # sums of fractions differ in the last bit
        lead = f"{best.model} has the best R_net, {signed(best.r_net)} % over {baseline.model}"
    else:
        lead = (
            f"No variant gains over {baseline.model}; the best of them, {best.model}, has R_net {signed(best.r_net)} %"
        )
    ends = intervals_of_change(best, baseline)
    rise = best.clean_error - baseline.clean_error
    errors = "more errors" if rise > 0 else "fewer errors" if rise < 0 else "as many errors"
    return (
        f"{lead}: its mean error over the {len(CORRUPTIONS)} corruptions is {percent(best.mean_error)} against "
        f"{percent(baseline.mean_error)} ({_change(best, baseline, 'mean_error', ends)}). "
        f"On clean images it makes {errors}: {percent(best.clean_error)} against {percent(baseline.clean_error)} "
        f"({_change(best, baseline, 'clean_error', ends)})." + _chance(best, baseline, ends)
    )


def intervals_of_change(row: Score, baseline: Score) -> Intervals:
    """Return the ends of the 95 % intervals of the change in mean and in clean error, in points, by field.

    Empty where the variant or the baseline was trained once; without the errors that all trainings share.
    """
    intervals = {
        name: welch_interval(
            100 * (getattr(row, name) - getattr(baseline, name)),
            (100 * row.sd[name], 100 * baseline.sd[name]),
            (row.trainings, baseline.trainings),
        )
        for name in _CHANGES
        if name in row.sd and name in baseline.sd
    }
    return {name: ends for name, ends in intervals.items() if ends}


def changes_note(scores: Sequence[Score], baseline: Score) -> str:
    """Write the intervals of every variant that has them; empty if none has."""
    others = [row for row in scores if row.model != baseline.model]
    known = {row.model: ends for row in others if (ends := intervals_of_change(row, baseline))}
    written = [
        f"{name} {' and '.join(_written(ends[field]) if field in ends else 'unknown' for field in _CHANGES)}"
        for name, ends in known.items()
    ]
    lead = f"95 % intervals of the change from {baseline.model}, in points of mean and of clean error: "
    return f"{lead}{'; '.join(written)}." if written else ""


def _change(row: Score, baseline: Score, name: str, ends: Intervals) -> str:
    """Write how many points an error is above the baseline's, and the interval of that where there is one."""
    points = f"{signed(100 * (getattr(row, name) - getattr(baseline, name)))} points"
    return f"{points}, 95 % interval {_written(ends[name])}" if name in ends else points


def _written(ends: tuple[float, float]) -> str:
    return " to ".join(map(signed, ends))


def _chance(best: Score, baseline: Score, ends: Intervals) -> str:
    """Say what the trainings do not settle, and how much R_net varies between them."""
    if once := [row.model for row in (best, baseline) if row.trainings == 1]:
        unsettled = f" {once[0]} was trained once, which cannot tell how much of it is chance."
    else:
        unknown = [name.replace("_", " ") for name, (low, high) in ends.items() if low <= 0 <= high]
        unsettled = (
            f" {best.trainings} trainings of {best.model} and {baseline.trainings} of {baseline.model} do not settle "
            f"whether the {' and the '.join(unknown)} fell or rose: zero lies within the interval."
            if unknown
            else ""
        )
    varying = [f"± {row.sd['r_net']:.2f} % for {row.model}" for row in (best, baseline) if "r_net" in row.sd]
    return unsettled + (f" Between trainings R_net varies by {' and '.join(varying)}." if varying else "")


def _sum_of_errors(row: Score) -> float:
    return row.clean_error + row.mean_error


def defined(measure: Callable[[], float]) -> float | None:
    """Return the measure, or None where the results or the baseline do not allow it."""
    try:
        return measure()
    except InputError:
        return None

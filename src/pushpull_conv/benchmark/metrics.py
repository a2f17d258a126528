"""Measures of robustness: pure functions of errors.

Errors are fractions in [0, 1], never percentages or accuracies. Sources: Hendrycks & Dietterich, arXiv 1903.12261
(mCE, relative mCE); Bennabhaktula et al., arXiv 2408.04077 (mean error, R_net).
"""

import csv
import functools
import importlib.resources
from collections.abc import Collection, Mapping, Sequence
from numbers import Real
from statistics import fmean
from typing import Literal

from pushpull_conv.benchmark.results import GENERATED, Header, Results, check_comparable
from pushpull_conv.corruptions import CORRUPTIONS, SEVERITIES
from pushpull_conv.errors import InputError, is_finite, require_name

Errors = Mapping[str, Sequence[float]]
"""Top-1 error of each severity, mildest first, by corruption."""
Baseline = Results | Errors | Literal["alexnet"]
IMAGENET_CLASSES = 1000
_ROUNDING = 1e-12  # a difference below is none: one image of five cells of a million is 2e-7


def corruption_errors(results: Results | Errors) -> dict[str, float]:
    """CE: the mean over the severities of the top-1 error, for every corruption there is, the extra four included.

    Raises:
        InputError: An error is not a fraction in [0, 1], or a corruption has none.

    Example:
        >>> corruption_errors({"fog": (0.1, 0.2, 0.3, 0.4, 0.5)})
        {'fog': 0.3}
    """
    errors = _checked(results, "results")
    if empty := [name for name, values in errors.items() if not len(values)]:
        raise InputError(f"results must give {empty[0]} one error per severity, or leave it out; it has none")
    return {name: fmean(values) for name, values in errors.items()}


def mean_error(results: Results | Errors) -> float:
    """Mean over the 15 corruptions of CE, in [0, 1]; arXiv 2408.04077 prints it as "mCE".

    Args:
        results: Results, or the error of each of the 5 severities by corruption. The extra four never enter.

    Raises:
        InputError: One of the 15 corruptions or a severity is missing, or an error is not a fraction in [0, 1].

    Example:
        >>> from pushpull_conv.corruptions import CORRUPTIONS
        >>> round(mean_error({name: (0.1, 0.2, 0.3, 0.4, 0.5) for name in CORRUPTIONS}), 6)
        0.3
    """
    return fmean(_benchmark_errors(results, "results").values())


def mce(results: Results | Errors, baseline: Baseline) -> float:
    """Mean over the 15 corruptions of CE relative to a baseline's; 1.0 is as good as the baseline, less is better.

    Args:
        results: Results, or the error of each of the 5 severities by corruption.
        baseline: The same of the baseline, or ``"alexnet"`` for its published errors on ImageNet-C, all 1000 classes;
            results must then be on the published set, or made with the frost ``"reference"`` and the JPEG step.

    Raises:
        InputError: As `mean_error`; no baseline; it was made from other images or never errs.

    Example:
        >>> from pushpull_conv.corruptions import CORRUPTIONS
        >>> errors = {name: (0.1, 0.2, 0.3, 0.4, 0.5) for name in CORRUPTIONS}
        >>> mce(errors, baseline=errors), round(mce(errors, baseline="alexnet"), 4)
        (1.0, 0.388)
    """
    own, base = _benchmark_errors(results, "results"), _baseline_errors(results, baseline)
    return fmean(_ratio(own[name], base[name], name) for name in CORRUPTIONS)


def relative_mce(
    results: Results | Errors,
    baseline: Baseline,
    *,
    clean_error: float | None = None,
    baseline_clean_error: float | None = None,
) -> float:
    """Mean over the 15 corruptions of CE - E relative to a baseline's: of what is lost to corruption alone.

    Args:
        results: Results, or the error of each of the 5 severities by corruption.
        baseline: The same of the baseline, or ``"alexnet"`` for its published errors on ImageNet and ImageNet-C.
        clean_error: E of ``results`` where these are a mapping.
        baseline_clean_error: E of the baseline where this is a mapping.

    Raises:
        InputError: As `mce`; a clean error is missing; the baseline loses nothing to a corruption.

    Example:
        >>> from pushpull_conv.corruptions import CORRUPTIONS
        >>> errors = {name: (0.1, 0.2, 0.3, 0.4, 0.5) for name in CORRUPTIONS}
        >>> round(relative_mce(errors, errors, clean_error=0.2, baseline_clean_error=0.1), 6)
        0.5
    """
    own, base = _benchmark_errors(results, "results"), _baseline_errors(results, baseline)
    clean = _clean_error(results, clean_error, "clean_error")
    base_clean = _clean_error(baseline, baseline_clean_error, "baseline_clean_error")
    return fmean(_ratio(own[name] - clean, base[name] - base_clean, name) for name in CORRUPTIONS)


def r_net(
    clean_error: float,
    mean_error: float,
    baseline_clean_error: float,
    baseline_mean_error: float,
    beta: float | None = None,
) -> float:
    """Net gain over a baseline, in percent: of clean and mean error together; 0 for the baseline, more is better.

    Args:
        clean_error: E of the model, in [0, 1].
        mean_error: Its `mean_error`, in [0, 1].
        baseline_clean_error: E of the baseline, above 0.
        baseline_mean_error: The `mean_error` of the baseline, above 0.
        beta: Weight of the gain in mean error. None: the baseline's mean error over its clean error, which weighs a
            percentage point of either error alike.

    Raises:
        InputError: An error is not a fraction in [0, 1], or one of the baseline's is 0; ``beta`` is no finite number.

    Example:
        >>> round(r_net(0.276, 0.645, baseline_clean_error=0.269, baseline_mean_error=0.667), 2)
        2.79
    """
    given = {
        "clean_error": clean_error,
        "mean_error": mean_error,
        "baseline_clean_error": baseline_clean_error,
        "baseline_mean_error": baseline_mean_error,
    }
    for name, value in given.items():
        _require_fraction(value, name)
    if not baseline_clean_error or not baseline_mean_error:
        raise InputError("r_net is undefined against a baseline without errors; choose another baseline")
    if beta is not None and not (isinstance(beta, Real) and is_finite(beta)):
        raise InputError(f"beta is {beta!r}; give a finite number, or None to weigh a point of either error alike")
    if beta is None:
        beta = baseline_mean_error / baseline_clean_error
    clean_gain = (baseline_clean_error - clean_error) / baseline_clean_error
    mean_gain = (baseline_mean_error - mean_error) / baseline_mean_error
    return 100 * (clean_gain + beta * mean_gain) / 2


def _baseline_errors(results: Results | Errors, baseline: Baseline) -> Mapping[str, float]:
    if isinstance(baseline, str):
        require_name("baseline", baseline, ["alexnet"])
        if isinstance(results, Results):
            _require_imagenet_c(results.header)
        return _alexnet()
    if isinstance(baseline, Results) and isinstance(results, Results):
        check_comparable([baseline, results])
    return _benchmark_errors(baseline, "baseline")


def _require_imagenet_c(header: Header) -> None:
    """Raise `InputError` where AlexNet's errors do not belong: fewer classes or milder images are easier to tell."""
    if (header.suite, header.data, len(header.classes)) != ("imagenet-c", "imagenet", IMAGENET_CLASSES):
        raise InputError(
            f"baseline 'alexnet' has errors on imagenet-c with {IMAGENET_CLASSES} classes, the results are on "
            f"{header.suite} with {len(header.classes)} of {header.data}; give the results of a baseline on the same "
            "images"
        )
    faithful = (header.frost or "").startswith("reference") and header.jpeg_quality is not None
    ours = header.origin == GENERATED or header.frost is not None  # `write_set` leaves what it made a set with
    if ours and not faithful:
        step = "no JPEG step" if header.jpeg_quality is None else f"JPEG of quality {header.jpeg_quality}"
        raise InputError(
            f"baseline 'alexnet' has errors on the published ImageNet-C, the results are on images made with frost "
            f"{header.frost} and {step}; evaluate the published set, or with the frost 'reference' and the JPEG step, "
            "or give the results of a baseline on the same images"
        )


def _benchmark_errors(given: Results | Errors, argument: str) -> dict[str, float]:
    """CE of the 15 corruptions; every one of them must be there at every severity."""
    errors = _checked(given, argument)
    incomplete = [name for name in CORRUPTIONS if len(errors.get(name, ())) != len(SEVERITIES)]
    if incomplete:
        raise InputError(
            f"{argument} must have errors for all {len(CORRUPTIONS)} corruptions at {len(SEVERITIES)} severities; "
            f"missing or incomplete: {', '.join(incomplete)}"
        )
    return {name: fmean(errors[name]) for name in CORRUPTIONS}


def _checked(given: Results | Errors, argument: str) -> Errors:
    if isinstance(given, Results):
        return given.errors
    if not isinstance(given, Mapping):
        raise InputError(f"{argument} must be Results or a mapping from corruption to errors, not {given!r}")
    for name, values in given.items():
        if not isinstance(values, Collection) or isinstance(values, str):
            raise InputError(f"{argument} must give {name} one error per severity, not {values!r}")
        for value in values:
            _require_fraction(value, f"error of {name} in {argument}")
    return given


def _clean_error(given: Baseline | Errors, stated: float | None, argument: str) -> float:
    if isinstance(given, Results):
        return given.clean_error
    if isinstance(given, str):
        return _alexnet()["clean"]
    if stated is None:
        raise InputError(f"{argument} is missing; relative mCE needs it beside errors by corruption")
    _require_fraction(stated, argument)
    return stated


def _require_fraction(value: float, name: str) -> None:
    if not is_finite(value) or not 0 <= value <= 1:
        raise InputError(f"{name} must be a fraction in [0, 1], not {value}; divide percentages by 100")


def _ratio(own: float, base: float, corruption: str) -> float:
    if base < _ROUNDING:
        raise InputError(f"the baseline loses nothing to {corruption}, so the ratio to it is undefined; choose another")
    return own / base


@functools.cache
def _alexnet() -> dict[str, float]:
    text = importlib.resources.files(__package__).joinpath("alexnet_imagenet_c.csv").read_text(encoding="utf-8")
    rows = csv.DictReader(line for line in text.splitlines() if not line.startswith("#"))
    return {row["corruption"]: float(row["error"]) for row in rows}

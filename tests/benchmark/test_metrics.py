import csv
import itertools
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pushpull_conv.benchmark import Cell, Header, Results, corruption_errors, mce, mean_error, r_net, relative_mce
from pushpull_conv.benchmark.metrics import _alexnet
from pushpull_conv.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS
from pushpull_conv.errors import InputError

fractions = st.floats(0, 1, allow_subnormal=False)
positive = st.floats(0.01, 1)


def tables(errors=fractions):
    """Strategy: the errors of the 15 corruptions at 5 severities."""
    return st.fixed_dictionaries({name: st.tuples(*[errors] * 5) for name in CORRUPTIONS})


def array(errors) -> np.ndarray:
    return np.array([errors[name] for name in CORRUPTIONS])


def flat(error: float) -> dict[str, tuple[float, ...]]:
    return dict.fromkeys(CORRUPTIONS, (error,) * 5)


def results(errors: dict[str, tuple[float, ...]], clean: float, n: int = 1000, **header) -> Results:
    def cell(error: float) -> Cell:
        right = round(n * (1 - error))
        none = (0,) * (len(header.get("classes", ("a",))) - 1)
        return Cell(n=n, top1=right, top5=n, class_n=(n, *none), class_top1=(right, *none))

    made = {"data": "d", "split": "test", "fingerprint": "f", "images": n, "classes": ("a",), "suite": "cifar10-c"}
    made |= {"revision": 1, "seed": 0, "frost": "procedural", "version": "0"} | header
    cells = {(name, place): cell(e) for name, values in errors.items() for place, e in enumerate(values, 1)}
    return Results(model="m", header=Header(**made), clean=cell(clean), cells=cells)


# The published numbers


PAPER = list(csv.DictReader(Path(__file__).with_name("paper_table.csv").read_text().splitlines()))


@pytest.mark.parametrize("row", PAPER, ids=lambda row: row["variant"])
def test_r_net_meets_the_published_table_to_its_rounding(row):
    """The table gives the four errors to three digits, so each stands for an interval of a thousandth.

    R_net falls in either error of the model and rises in either of the baseline's, hence its extremes over the
    intervals are at corners; the printed value, itself rounded to a hundredth, must lie between them.
    """
    base = PAPER[0]
    given = [float(row["E"]), float(row["mean_error"]), float(base["E"]), float(base["mean_error"])]
    if row is base:  # the same errors, not two roundings of them
        assert r_net(*given) == float(row["R_net"]) == 0
        return
    corners = itertools.product(*[(value - 0.0005, value + 0.0005) for value in given])
    possible = [r_net(*corner) for corner in corners]
    assert min(possible) - 0.005 <= float(row["R_net"]) <= max(possible) + 0.005


def test_the_published_errors_of_alexnet_and_resnet50_agree():
    """ResNet-50 in arXiv 1903.12261, in percent of AlexNet: CE (mCE 76.7) and relative CE (mean 105.0), rounded.

    The relative CE follow from the CE, ResNet-50's clean error 23.9 % and AlexNet's, so they check the latter,
    which the authors print as 43.5 %, and with it the formula.
    """
    ce = [80, 82, 83, 75, 89, 78, 80, 78, 75, 66, 57, 71, 85, 77, 77]
    relative = [104, 107, 107, 97, 126, 107, 110, 101, 97, 79, 62, 89, 146, 111, 132]
    alexnet = _alexnet()
    bounds = []
    for percent in (-0.5, 0.5):
        errors = {name: ((c + percent) / 100 * alexnet[name],) * 5 for name, c in zip(CORRUPTIONS, ce, strict=True)}
        clean = 0.239 - np.sign(percent) * 0.0005
        bounds.append((errors, clean))
        rises = [(errors[name][0] - clean) / (alexnet[name] - alexnet["clean"]) * 100 for name in CORRUPTIONS]
        assert (np.sign(percent) * (np.array(rises) - relative) > -0.5).all()
    low, high = bounds
    assert 100 * mce(low[0], "alexnet") <= 76.7 <= 100 * mce(high[0], "alexnet")
    published = [100 * relative_mce(errors, "alexnet", clean_error=clean) for errors, clean in bounds]
    assert published[0] <= 105.0 <= published[1]


def test_alexnet_is_as_published():
    alexnet = _alexnet()
    assert set(alexnet) == {"clean", *CORRUPTIONS}
    assert 100 * alexnet["clean"] == pytest.approx(43.5, abs=0.05)
    assert alexnet["gaussian_noise"] == 0.886428
    assert alexnet["jpeg_compression"] == 0.6065
    # AlexNet against itself
    errors = {name: (alexnet[name],) * 5 for name in CORRUPTIONS}
    assert mce(errors, "alexnet") == pytest.approx(1)
    assert relative_mce(errors, "alexnet", clean_error=alexnet["clean"]) == pytest.approx(1)


# The formulas, written a second time with numpy


@given(tables())
def test_mean_error_is_the_mean_over_all_cells(errors):
    assert mean_error(errors) == pytest.approx(array(errors).mean())
    assert corruption_errors(errors) == pytest.approx({name: np.mean(values) for name, values in errors.items()})


@given(tables(), tables(positive))
def test_mce_is_the_mean_ratio_of_sums(errors, baseline):
    expected = (array(errors).sum(1) / array(baseline).sum(1)).mean()
    assert mce(errors, baseline) == pytest.approx(expected)


@given(tables(), tables(st.floats(0.6, 1)), fractions, st.floats(0, 0.5))
def test_relative_mce_is_the_mean_ratio_of_rises(errors, baseline, clean, base_clean):
    expected = ((array(errors) - clean).sum(1) / (array(baseline) - base_clean).sum(1)).mean()
    found = relative_mce(errors, baseline, clean_error=clean, baseline_clean_error=base_clean)
    assert found == pytest.approx(expected)


@given(fractions, fractions, positive, positive, st.floats(0, 10))
def test_r_net_is_the_weighted_gain(clean, mean, base_clean, base_mean, beta):
    expected = 50 * ((base_clean - clean) / base_clean + beta * (base_mean - mean) / base_mean)
    assert r_net(clean, mean, base_clean, base_mean, beta) == pytest.approx(expected)
    by_default = 50 * (base_clean - clean + base_mean - mean) / base_clean
    assert r_net(clean, mean, base_clean, base_mean) == pytest.approx(by_default, abs=1e-9)


# What holds for any errors


@given(tables(positive), st.randoms())
def test_the_baseline_measures_one_whatever_the_order(errors, random):
    names = list(errors)
    random.shuffle(names)
    shuffled = {name: errors[name] for name in names}
    assert mce(shuffled, errors) == pytest.approx(1)
    assert mean_error(shuffled) == mean_error(errors)


@given(tables(), tables(positive), st.floats(0, 1))
def test_scaling_the_errors_scales_the_measures(errors, baseline, factor):
    scaled = {name: tuple(factor * value for value in values) for name, values in errors.items()}
    assert mce(scaled, baseline) == pytest.approx(factor * mce(errors, baseline), abs=1e-12)
    assert mean_error(scaled) == pytest.approx(factor * mean_error(errors), abs=1e-12)


@given(tables())
def test_mean_error_lies_between_the_extremes(errors):
    assert array(errors).min() - 1e-12 <= mean_error(errors) <= array(errors).max() + 1e-12


@given(tables(), tables(positive), st.tuples(*[fractions] * 5))
def test_the_extra_corruptions_never_enter(errors, baseline, values):
    extra = dict.fromkeys(EXTRA_CORRUPTIONS, values)
    assert mean_error(errors | extra) == mean_error(errors)
    assert mce(errors | extra, baseline | extra) == mce(errors, baseline)
    assert "spatter" in corruption_errors(errors | extra)


@given(positive, positive)
def test_the_baseline_gains_nothing_over_itself(clean, mean):
    assert r_net(clean, mean, clean, mean) == 0


def test_results_and_mappings_give_the_same():
    errors, base = dict.fromkeys(CORRUPTIONS, (0.1, 0.2, 0.3, 0.4, 0.5)), flat(0.6)
    one, other = results(errors, 0.05), results(base, 0.1)
    assert mean_error(one) == pytest.approx(0.3)
    assert mce(one, other) == pytest.approx(mce(errors, base)) == pytest.approx(0.5)
    assert relative_mce(one, other) == pytest.approx(0.25 / 0.5)
    assert mce(one, base) == pytest.approx(mce(errors, other))
    arrays = {name: np.array(values) for name, values in errors.items()}
    assert mean_error(arrays) == pytest.approx(0.3)


# Bad input


def test_percentages_are_refused():
    with pytest.raises(InputError, match=r"error of fog in results must be a fraction in \[0, 1\], not 30; divide"):
        mean_error(flat(0.3) | {"fog": (30, 40, 50, 60, 70)})
    with pytest.raises(InputError, match="clean_error must be a fraction"):
        r_net(26.9, 0.6, 0.269, 0.667)
    with pytest.raises(InputError, match="baseline_mean_error must be a fraction"):
        r_net(0.2, 0.6, 0.269, 66.7)
    with pytest.raises(InputError, match="clean_error must be a fraction"):
        relative_mce(flat(0.5), flat(0.5), clean_error=20, baseline_clean_error=0.2)


@pytest.mark.parametrize("beta", [float("nan"), float("inf"), "2"])
def test_a_weight_that_is_no_number_is_refused(beta):
    with pytest.raises(InputError, match=f"beta is {beta!r}; give a finite number, or None"):
        r_net(0.2, 0.6, 0.269, 0.667, beta)


@pytest.mark.parametrize("value", [-0.1, 1.001, float("nan"), float("inf")])
def test_what_is_no_fraction_is_refused(value):
    with pytest.raises(InputError, match="must be a fraction"):
        mean_error(flat(0.3) | {"fog": (0.1, 0.2, value, 0.4, 0.5)})


def test_missing_corruptions_are_named():
    errors = flat(0.3)
    del errors["fog"], errors["snow"]
    with pytest.raises(InputError, match="all 15 corruptions at 5 severities; missing or incomplete: snow, fog"):
        mean_error(errors)
    with pytest.raises(InputError, match="baseline must have errors for all 15"):
        mce(flat(0.3), errors)


def test_missing_severities_are_named():
    with pytest.raises(InputError, match="missing or incomplete: fog"):
        mean_error(flat(0.3) | {"fog": (0.3, 0.4)})
    partial = results(dict.fromkeys(CORRUPTIONS, (0.1, 0.2)), 0.1)
    with pytest.raises(InputError, match="missing or incomplete: gaussian_noise, shot_noise"):
        mean_error(partial)


@pytest.mark.parametrize("baseline", [None, 1.0, [0.1, 0.2]])
def test_there_is_no_silent_baseline(baseline):
    with pytest.raises(InputError, match="baseline must be Results or a mapping from corruption to errors, not"):
        mce(flat(0.3), baseline)


def test_an_unknown_baseline_name():
    with pytest.raises(InputError, match="unknown baseline 'AlexNett'; did you mean 'alexnet'"):
        mce(flat(0.3), "AlexNett")


def test_a_corruption_without_errors_has_no_mean():
    with pytest.raises(InputError, match="results must give fog one error per severity, or leave it out; it has none"):
        corruption_errors({"snow": [0.1], "fog": []})


@pytest.mark.parametrize("values", [0.3, None, "high", iter([0.3])])
def test_errors_must_be_per_severity(values):
    with pytest.raises(InputError, match="results must give fog one error per severity, not"):
        mean_error(flat(0.3) | {"fog": values})


@pytest.mark.parametrize("missing", ["clean_error", "baseline_clean_error"])
def test_relative_mce_of_mappings_needs_the_clean_errors(missing):
    clean = {"clean_error": 0.1, "baseline_clean_error": 0.1}
    del clean[missing]
    with pytest.raises(InputError, match=f"^{missing} is missing"):
        relative_mce(flat(0.3), flat(0.3), **clean)


def test_a_baseline_that_loses_nothing():
    with pytest.raises(InputError, match="the baseline loses nothing to gaussian_noise"):
        mce(flat(0.3), flat(0))
    with pytest.raises(InputError, match="the baseline loses nothing to gaussian_noise"):
        relative_mce(flat(0.3), flat(0.2), clean_error=0.1, baseline_clean_error=0.2)
    with pytest.raises(InputError, match="against a baseline without errors"):
        r_net(0.1, 0.2, 0, 0.3)


@given(st.integers(1, 1000), st.data())
def test_a_baseline_that_loses_nothing_but_to_rounding(images, data):
    """Errors around that of the clean images, whose mean is exactly that and whose sum of floats need not be."""
    wrong = data.draw(st.integers(0, images - 1))
    moves = data.draw(st.lists(st.integers(0, min(wrong, images - wrong)), min_size=2, max_size=2))
    counts = [wrong, *(wrong + move for move in moves), *(wrong - move for move in moves)]
    errors = flat(1.0) | {"fog": [count / images for count in counts]}
    with pytest.raises(InputError, match="the baseline loses nothing to fog"):
        relative_mce(flat(1.0), errors, clean_error=0.1, baseline_clean_error=wrong / images)


def test_results_made_otherwise_are_not_compared():
    one, other = results(flat(0.3), 0.1), results(flat(0.3), 0.1, seed=1)
    with pytest.raises(InputError, match="cannot be compared, they are made with seed 1 and 0"):
        mce(one, other)


@pytest.mark.parametrize(
    ("suite", "data", "classes"),
    [("cifar10-c", "cifar10", 10), ("imagenet-c", "imagenet-100", 100), ("imagenet-c", "folder", 1000)],
)
def test_alexnets_errors_are_of_the_whole_imagenet(suite, data, classes):
    own = results(flat(0.3), 0.1, suite=suite, data=data, classes=tuple(map(str, range(classes))))
    message = (
        f"'alexnet' has errors on imagenet-c with 1000 classes, the results are on {suite} with {classes} of {data};"
    )
    with pytest.raises(InputError, match=message):
        mce(own, "alexnet")
    with pytest.raises(InputError, match=message):
        relative_mce(own, "alexnet")


IMAGENET_C = {"suite": "imagenet-c", "data": "imagenet", "classes": tuple(map(str, range(1000)))}


@pytest.mark.parametrize(
    "made",
    [
        {"frost": "reference:0123", "jpeg_quality": 85},
        {"frost": None, "seed": None, "origin": "published 4567"},
    ],
)
def test_alexnet_is_a_baseline_on_the_whole_imagenet(made):
    own = results(flat(0.3), 0.1, **IMAGENET_C, **made)
    assert mce(own, "alexnet") == pytest.approx(0.388, abs=1e-3)


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (
            {"frost": "procedural-1", "jpeg_quality": 85},
            "made with frost procedural-1 and JPEG of quality 85; evaluate",
        ),
        ({"frost": "reference:0123"}, "made with frost reference:0123 and no JPEG step; evaluate"),
        (
            {"frost": "procedural-1", "jpeg_quality": 85, "seed": None, "origin": "published 4567"},
            "made with frost procedural-1 and JPEG of quality 85; evaluate",
        ),
    ],
)
def test_alexnet_is_no_baseline_on_images_that_are_not_imagenet_c(made, message):
    own = results(flat(0.3), 0.1, **IMAGENET_C, **made)
    for measure in (mce, relative_mce):
        with pytest.raises(InputError, match=message):
            measure(own, "alexnet")

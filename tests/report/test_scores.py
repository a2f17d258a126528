import dataclasses
import re
from statistics import fmean

import numpy as np
import pytest
import torch
from scipy import stats

from pushpull_conv.benchmark import Cell, Results, r_net
from pushpull_conv.corruptions.spec import CORRUPTIONS, SEVERITIES
from pushpull_conv.errors import InputError
from pushpull_conv.report.averages import averaged, trainings_of
from pushpull_conv.report.figures import r_net_line
from pushpull_conv.report.intervals import t_quantile, welch_interval
from pushpull_conv.report.scores import Score, changes_note, find_baseline, findings, intervals_of_change, score


def wrong(result: Results, name: str, severity: int) -> int:
    cell = result.cells[name, severity]
    return cell.n - cell.top1


def test_every_measure_follows_from_the_counts(results):
    base, own = results[0], results[2]
    row = score(own, base, alpha=torch.tensor([0.2, 0.6]), parameters=12)
    images = own.header.images
    clean, base_clean = (1 - r.clean.top1 / images for r in (own, base))
    wrongs = {r.model: [sum(wrong(r, c, s) for s in SEVERITIES) for c in CORRUPTIONS] for r in (own, base)}
    pairs = list(zip(wrongs[own.model], wrongs[base.model], strict=True))
    mean, base_mean = (sum(counts) / (75 * images) for counts in zip(*pairs, strict=True))

    assert row.clean_error == pytest.approx(clean)
    assert row.mean_error == pytest.approx(mean)
    assert row.mce == pytest.approx(fmean(a / b for a, b in pairs))
    assert row.relative_mce == pytest.approx(
        fmean((a / images - 5 * clean) / (b / images - 5 * base_clean) for a, b in pairs)
    )
    assert row.r_net == pytest.approx(50 * ((base_clean - clean) + (base_mean - mean)) / base_clean)
    assert (row.alpha_mean, row.alpha_sd) == pytest.approx((0.4, 0.2))
    assert row.parameters == 12
    assert row.top5_error is None  # ten classes: five guesses are half of them


def test_the_baseline_scores_one_and_zero(results):
    row = score(results[0], results[0])
    assert (row.mce, row.relative_mce, row.r_net) == (1.0, 1.0, 0.0)


def test_an_unknown_baseline_lists_the_labels(results):
    with pytest.raises(InputError, match=r"unknown baseline 'base line'.*baseline, PP3, PP5, PP3-trainable"):
        find_baseline(results, "base line")


def test_two_results_with_one_label_are_refused(results):
    with pytest.raises(InputError, match="two results are labelled 'PP3'"):
        averaged([*results, results[1]])


def test_rows_with_one_label_are_refused(results, make_results):
    """The third training of what is itself called a second one."""
    named = [make_results(label) for label in ("PP3@2", "PP3@2@3", "PP3@2@4")]
    assert len(averaged([results[0], *named[1:]])) == 2
    with pytest.raises(InputError, match="two results are labelled 'PP3@2'"):
        averaged([results[0], *named])


def test_results_made_with_another_seed_are_refused(results, make_results):
    with pytest.raises(InputError, match="seed"):
        score(make_results("PP3", seed=1), results[0])


def test_a_baseline_that_loses_nothing_leaves_measures_undefined(results, make_results):
    perfect = make_results("perfect", 0.0, dict.fromkeys(("noise", "blur", "weather", "digital"), 0.0))
    row = score(results[1], perfect)
    assert (row.mce, row.relative_mce, row.r_net) == (None, None, None)
    assert row.mean_error > 0


@pytest.mark.parametrize("wanted", [-3.0, 0.0, 4.5])
@pytest.mark.parametrize("clean", [0.1, 0.155, 0.3])
def test_the_line_of_equal_r_net_agrees_with_r_net(results, clean, wanted):
    base = score(results[0], results[0])
    (mean,) = r_net_line([clean], base, wanted)
    assert r_net(clean, mean, base.clean_error, base.mean_error) == pytest.approx(wanted, abs=1e-9)


BASE = Score("baseline", 0.20, 0.50, mce=1.0, relative_mce=1.0, r_net=0.0)


def test_findings_name_the_gain_and_its_price():
    best = Score("PP5", 0.21, 0.45, mce=0.9, relative_mce=0.8, r_net=10.0)
    other = Score("PP3", 0.20, 0.49, mce=0.98, relative_mce=0.97, r_net=2.5)
    said = (
        "PP5 has the best R_net, +10.00 % over baseline: its mean error over the 15 corruptions is 45.00 % against "
        "50.00 % (−5.00 points). On clean images it makes more errors: 21.00 % against 20.00 % (+1.00 points)."
    )
    once = " PP5 was trained once, which cannot tell how much of it is chance."
    assert findings([BASE, other, best], BASE) == said + once
    assert findings([BASE, other, dataclasses.replace(best, trainings=2)], BASE) == said + once.replace(
        "PP5", "baseline"
    )
    twice = dataclasses.replace(BASE, trainings=2)
    assert findings([twice, other, dataclasses.replace(best, trainings=2)], twice) == said


def test_findings_are_plain_when_the_unit_does_not_help():
    worse = Score("PP3", 0.20, 0.52, mce=1.1, relative_mce=1.1, r_net=-5.0)
    text = findings([BASE, worse], BASE)
    assert text.startswith("No variant gains over baseline; the best of them, PP3, has R_net −5.00 %")
    same = dataclasses.replace(BASE, model="PP3", r_net=2e-14)  # what sums of the same fractions in another order leave
    assert findings([BASE, same], BASE).startswith(
        "No variant gains over baseline; the best of them, PP3, has R_net 0.00 %"
    )
    assert "makes as many errors" in text


def test_findings_beside_a_baseline_without_errors_on_clean_images():
    base, worse, better = (
        Score(name, 0.0, mean, mce=1.0, relative_mce=1.0, r_net=None)
        for name, mean in (("baseline", 0.1), ("PP3", 0.2), ("PP5", 0.05))
    )
    equal = dataclasses.replace(base, model="PP7")
    assert findings([base, worse, better], base).startswith("PP5 has the lowest sum of errors: its mean error")
    assert findings([base, worse], base).startswith("No variant gains over baseline; the best of them is PP3: its")
    assert findings([base, worse, equal], base).startswith("No variant gains over baseline; the best of them is PP7")


def test_findings_of_a_baseline_alone():
    assert findings([BASE], BASE).startswith("Only baseline was measured")


def test_trainings_that_differ_in_the_seed_are_one_row(make_results):
    """Mean and sample standard deviation of each measure, all against the mean baseline."""
    base = [make_results("baseline", 0.15), make_results("baseline@1", 0.17)]
    unit = [make_results(label, clean) for label, clean in (("PP3", 0.16), ("PP3@1", 0.18), ("PP3@2", 0.20))]
    alone = make_results("PP5", 0.16)
    rows = averaged([base[0], unit[0], alone, base[1], *unit[1:]])
    assert [(row.model, len(trainings_of(row))) for row in rows] == [("baseline", 2), ("PP3", 3), ("PP5", 1)]

    mean_of = {name: fmean(result.errors[name][2] for result in unit) for name in CORRUPTIONS}
    assert {name: errors[2] for name, errors in rows[1].errors.items()} == pytest.approx(mean_of)
    scored = score(rows[1], rows[0])
    cleans = [result.clean_error for result in unit]
    means = [fmean(fmean(errors) for errors in result.errors.values()) for result in unit]
    base_clean = fmean(result.clean_error for result in base)
    base_mean = fmean(fmean(errors) for result in base for errors in result.errors.values())
    gains = [r_net(clean, mean, base_clean, base_mean) for clean, mean in zip(cleans, means, strict=True)]
    assert (scored.clean_error, scored.mean_error, scored.trainings) == pytest.approx((fmean(cleans), fmean(means), 3))
    assert scored.r_net == pytest.approx(fmean(gains))
    assert scored.sd["clean_error"] == pytest.approx(np.std(cleans, ddof=1))
    assert scored.sd["r_net"] == pytest.approx(np.std(gains, ddof=1))
    assert "top5_error" not in scored.sd  # ten classes
    assert (score(alone, rows[0]).trainings, dict(score(alone, rows[0]).sd)) == (1, {})
    assert score(rows[0], rows[0]).r_net == pytest.approx(0)


@pytest.mark.parametrize("images", [355, 1000, 10_000])
def test_trainings_that_err_as_often_have_the_same_mean_error(make_results, images):
    """However the trainings share the errors; means of rounded fractions differ in the last bit."""

    none = (0,) * 9
    header = dataclasses.replace(make_results("any").header, images=images)

    def row(label, *wrong):
        cells = [Cell(images, images - few, images, (images, *none), (images - few, *none)) for few in wrong]
        return averaged(
            [Results(f"{label}@{place}", header, cell, {("fog", 3): cell}) for place, cell in enumerate(cells)]
        )[0]

    for total in range(30, 60):
        base = row("baseline", total, 0, 0)
        assert base.clean_error == pytest.approx(total / 3 / images)
        for first in range(0, total, 7):
            unit = row("PP3", first, (total - first) // 2, total - first - (total - first) // 2)
            assert (unit.clean_error, unit.errors) == (base.clean_error, base.errors)


def test_a_row_keeps_the_corruptions_that_every_training_has(make_results):
    parts = []
    for label, missing in (("PP3", {("frost", 1)}), ("PP3@1", {("fog", 3), ("frost", 5)})):
        whole = make_results(label)
        cells = {key: cell for key, cell in whole.cells.items() if key not in missing}
        parts.append(dataclasses.replace(whole, cells=cells))
    (row,) = averaged(parts)
    assert set(CORRUPTIONS) - set(row.errors) == {"fog", "frost"}  # frost at as many severities, but at others


def test_findings_tell_the_spread():
    best = Score("PP5", 0.21, 0.45, mce=0.9, relative_mce=0.8, r_net=10.0, trainings=3, sd={"r_net": 1.25})
    text = findings([BASE, best], BASE)
    assert text.startswith("PP5 has the best R_net, +10.00 % over baseline")
    assert text.endswith(" Between trainings R_net varies by ± 1.25 % for PP5.")


def test_the_findings_tell_how_much_the_baseline_itself_varies(make_results):
    several = [make_results("baseline"), make_results("baseline@1", 0.16), make_results("PP3", 0.15, {"noise": 0.8})]
    rows = averaged(several)
    scores = [score(row, rows[0]) for row in rows]
    assert f"R_net varies by ± {scores[0].sd['r_net']:.2f} % for baseline" in findings(scores, scores[0])
    alone = [score(row, several[0]) for row in several[::2]]
    assert "varies" not in findings(alone, alone[0])


@pytest.mark.parametrize("freedom", [1, 1.02, 1.37, 2, 2.05, 3.84, 7, 30, 400.5])
def test_the_quantile_of_t_is_scipys(freedom):
    assert t_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-5)


@pytest.mark.parametrize(
    ("own", "base"),
    [([0.1, 0.2, 0.4], [0.3, 0.35, 0.31]), ([0.1, 0.3], [0.5, 0.1, 0.2, 0.9]), ([0.1, 0.3], [0.2, 0.21])],
)
def test_the_interval_of_a_difference_is_welchs(own, base):
    expected = stats.ttest_ind(own, base, equal_var=False).confidence_interval()
    ends = welch_interval(fmean(own) - fmean(base), (np.std(own, ddof=1), np.std(base, ddof=1)), (len(own), len(base)))
    assert ends == pytest.approx(tuple(expected), rel=1e-5)


def test_trainings_that_score_alike_leave_no_interval():
    assert welch_interval(0.5, (0.0, 0.0), (2, 3)) is None


SCORES = {"baseline": ((0.20, 0.21, 0.22), (0.50, 0.52, 0.48)), "PP3": ((0.25, 0.26, 0.24), (0.48, 0.44, 0.49))}


def summed_up(name, cleans, means, r_net):
    sd = {"clean_error": np.std(cleans, ddof=1), "mean_error": np.std(means, ddof=1)}
    return Score(name, fmean(cleans), fmean(means), 1.0, 1.0, r_net, trainings=len(cleans), sd=sd)


def test_the_findings_give_the_intervals_and_what_they_leave_open():
    base, unit = (summed_up(name, *errors, r_net=0.0) for name, errors in SCORES.items())
    said = []
    for place in (0, 1):
        own, other = ([100 * error for error in SCORES[name][place]] for name in ("PP3", "baseline"))
        low, high = stats.ttest_ind(own, other, equal_var=False).confidence_interval()
        said.append(f"{low:+.2f} to {high:+.2f}".replace("-", "−"))
    clean, mean = said
    assert (mean[0], clean[0]) == ("−", "+")
    assert "to +" in mean  # zero is in it
    text = findings([base, unit], base)
    assert f"(−3.00 points, 95 % interval {mean}). On clean" in text
    assert f"(+4.00 points, 95 % interval {clean})." in text
    assert "3 trainings of PP3 and 3 of baseline do not settle whether the mean error fell or rose: zero" in text
    better = summed_up("PP5", (0.10, 0.11), (0.20, 0.21), r_net=5.0)
    text = findings([base, unit, better], base)
    assert "do not settle" not in text
    assert f"in points of mean and of clean error: PP3 {mean} and {clean}; PP5 " in changes_note(
        [base, unit, better], base
    )


def test_errors_that_all_trainings_share_have_no_interval():
    """They are alike by chance, and the next training may differ."""
    alike = summed_up("baseline", (0.1, 0.1), (0.3, 0.3), r_net=0.0)
    unit = summed_up("PP3", (0.1, 0.1), (0.26, 0.28), r_net=1.0)
    assert set(intervals_of_change(unit, alike)) == {"mean_error"}
    assert intervals_of_change(summed_up("PP3", (0.2, 0.2), (0.2, 0.2), r_net=0.0), alike) == {}
    assert re.search(r"PP3 \S+ to \S+ and unknown\.$", changes_note([alike, unit], alike))
    assert findings([alike, unit], alike).count("95 % interval") == 1


def test_a_variant_or_a_baseline_trained_once_has_no_interval():
    base, unit = (summed_up(name, *errors, r_net=0.0) for name, errors in SCORES.items())
    assert intervals_of_change(unit, BASE) == intervals_of_change(dataclasses.replace(BASE, model="PP3"), base) == {}
    assert "interval" not in findings([BASE, unit], BASE) + changes_note([BASE, unit], BASE)

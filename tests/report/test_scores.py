from statistics import fmean

import pytest
import torch

from pushpull_conv.benchmark import Results, r_net
from pushpull_conv.corruptions.spec import CORRUPTIONS, SEVERITIES
from pushpull_conv.errors import InputError
from pushpull_conv.report.figures import r_net_line
from pushpull_conv.report.scores import Score, find_baseline, findings, score


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
        find_baseline([*results, results[1]], "baseline")


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
    assert findings([BASE, other, best], BASE) == (
        "PP5 has the best R_net, +10.00 % over baseline: its mean error over the 15 corruptions is 45.00 % against "
        "50.00 % (−5.00 points). On clean images it makes more errors: 21.00 % against 20.00 % (+1.00 points)."
    )


def test_findings_are_plain_when_the_unit_does_not_help():
    worse = Score("PP3", 0.20, 0.52, mce=1.1, relative_mce=1.1, r_net=-5.0)
    text = findings([BASE, worse], BASE)
    assert text.startswith("No variant gains over baseline; the best of them, PP3, has R_net −5.00 %")
    assert "makes as many errors" in text


def test_findings_of_a_baseline_alone():
    assert findings([BASE], BASE).startswith("Only baseline was measured")

import dataclasses
import math
import re
import warnings
from xml.etree import ElementTree

import matplotlib
import numpy as np
import pytest
import torch

from pushpull_conv.benchmark import corruption_errors, mean_error, r_net
from pushpull_conv.corruptions.spec import GROUPS
from pushpull_conv.functional import pull_kernel
from pushpull_conv.report import pictures, style
from pushpull_conv.report.dots import classes_figure, corruptions_figure
from pushpull_conv.report.figures import (
    epochs_figure,
    severity_by_corruption_figure,
    severity_figure,
    tradeoff_figure,
)
from pushpull_conv.report.scores import class_errors, score


@pytest.fixture(scope="module")
def looks(results):
    return style.looks([result.model for result in results], "baseline")


@pytest.fixture(scope="module")
def epochs(make_results):
    """The baseline after epochs 2, 4 and 6, PP3 after 4, 6 and 7."""
    return {
        "baseline": {epoch: make_results("baseline", 0.4 - 0.02 * epoch) for epoch in (2, 4, 6)},
        "PP3": {epoch: make_results("PP3", 0.4 - 0.03 * epoch, seed=epoch) for epoch in (4, 6, 7)},
    }


@pytest.fixture(scope="module")
def plots(results, scores, looks, epochs):
    return {
        figure.name: figure
        for figure in (
            severity_figure(results, results[0], looks),
            severity_by_corruption_figure(results, looks),
            tradeoff_figure(scores, scores[0], looks),
            corruptions_figure(results, results[0], looks),
            classes_figure(class_errors(results), "baseline", looks, results[0].header.classes),
            epochs_figure(epochs, "baseline", looks),
        )
    }


def test_an_epoch_at_which_the_baseline_makes_no_errors_is_a_gap(make_results, looks):
    perfect = make_results("baseline", 0.0)
    of = {"baseline": {1: make_results("baseline", 0.2), 2: perfect}, "PP3": {1: make_results("PP3"), 2: perfect}}
    gains = marked(epochs_figure(of, "baseline", looks), "epochs-gain-1").get_ydata()
    assert [math.isnan(gain) for gain in gains] == [False, True]


def marked(figure, mark):
    (artist,) = figure.figure.findobj(lambda artist: artist.get_gid() == mark)
    return artist


def test_every_plot_has_a_caption_and_labelled_axes(plots):
    for figure in plots.values():
        assert "percent" in figure.caption
        shown = [axes for axes in figure.figure.axes if axes.get_visible()]
        assert any(axes.get_ylabel() or axes.get_yticklabels() for axes in shown)
        assert any("%" in axes.get_xlabel() + axes.get_ylabel() for axes in shown)
        assert any(axes.get_xlabel() for axes in shown)


def test_marks_at_the_top_of_errors_that_are_nearly_alike_are_whole(make_results):
    """As of networks at the level of chance: a margin of the range of the errors would be none."""
    flat = [make_results(label, 0.85, dict.fromkeys(GROUPS, 0.01)) for label in ("baseline", "PP3")]
    looks = style.looks(["baseline", "PP3"], "baseline")
    for drawn in (severity_figure(flat, flat[0], looks), severity_by_corruption_figure(flat, looks)):
        bottom, top = drawn.figure.axes[0].get_ylim()
        assert bottom == 0
        assert top > 1.04 * max(max(line.get_ydata()) for line in drawn.figure.axes[0].lines)


def test_figures_fit_a_page_and_are_vector_graphics(plots, tmp_path):
    """Text block of an A4 page: 18 cm x 25 cm; pictures inside a PDF file would be XObjects."""
    for name, figure in plots.items():
        width, height = figure.figure.get_size_inches()
        assert width == 7.2
        assert height <= 10
        style.write(figure, tmp_path / f"{name}.pdf")
        assert b"/Subtype /Image" not in (tmp_path / f"{name}.pdf").read_bytes()


def test_the_curves_are_the_errors(plots, results):
    for i, result in enumerate(results):
        curve = marked(plots["severity"], f"mean-curve-{i}").get_ydata()
        assert curve[0] == pytest.approx(100 * result.clean_error)
        assert np.mean(curve[1:]) == pytest.approx(100 * mean_error(result))


def test_the_points_are_the_scores(plots, scores):
    for i, row in enumerate(scores):
        point = marked(plots["tradeoff"], f"tradeoff-{i}").get_xydata()
        assert point[0] == pytest.approx([100 * row.clean_error, 100 * row.mean_error])


def test_epochs_are_compared_with_the_same_epoch_of_the_baseline(plots, epochs):
    for i, (label, own) in enumerate(epochs.items()):
        accuracy = marked(plots["epochs"], f"epochs-accuracy-{i}").get_xydata()
        errors = marked(plots["epochs"], f"epochs-error-{i}").get_xydata()
        assert accuracy == pytest.approx(np.array([(k, 100 - 100 * r.clean_error) for k, r in own.items()])), label
        assert errors == pytest.approx(np.array([(k, 100 * mean_error(r)) for k, r in own.items()])), label
    gains = marked(plots["epochs"], "epochs-gain-1").get_xydata()
    pairs = [(epochs["PP3"][k], epochs["baseline"][k]) for k in (4, 6)]
    expected = [r_net(a.clean_error, mean_error(a), b.clean_error, mean_error(b)) for a, b in pairs]
    assert gains == pytest.approx(np.array(list(zip((4, 6), expected, strict=True))))


def test_the_plane_ends_where_errors_do(scores, looks):
    """One variant far off would widen the margins to below 0 and above 100 %."""
    far = dataclasses.replace(scores[1], model="far", clean_error=0.97, mean_error=0.99)
    near = dataclasses.replace(scores[0], clean_error=0.01)
    figure = tradeoff_figure([near, far], near, {"far": looks["PP3"], near.model: looks[near.model]})
    assert figure.figure.axes[0].get_xlim() == (0, 100)
    assert figure.figure.axes[0].get_ylim()[1] == 100


def test_without_r_net_the_plane_has_no_lines_and_its_caption_tells_of_none(scores, looks):
    perfect, other = (dataclasses.replace(row, clean_error=0.0, r_net=None) for row in scores[:2])
    figure = tradeoff_figure([perfect, other], perfect, looks)
    assert "There is no R_net against baseline" in figure.caption
    assert not re.search("dotted|solid|shaded", figure.caption)
    assert figure.figure.axes[0].get_xlim()[0] == 0
    assert len(figure.figure.axes[0].lines) == 2  # the points


def test_the_differences_are_to_the_baseline(plots, results):
    base, own = corruption_errors(results[0]), corruption_errors(results[2])
    figure = plots["corruptions"]
    expected = [100 * (own[name] - base[name]) for name in base]
    assert marked(figure, "corruptions-difference-2").get_xdata() == pytest.approx(expected)
    said = [
        float(text.split(": ")[1].split()[0].replace("−", "-")) for text in figure.values["corruptions-difference-2"]
    ]
    assert said == pytest.approx(expected, abs=0.005)


def test_class_errors_are_those_of_the_counts(plots, results):
    cells = results[1].cells.values()
    wrong = [sum(cell.class_n[i] - cell.class_top1[i] for cell in cells) for i in range(10)]
    errors = marked(plots["classes"], "classes-error-1").get_xdata()
    assert errors == pytest.approx([100 * count / (75 * 200) for count in wrong])


def test_values_stand_for_one_mark_each(plots):
    for figure in plots.values():
        for mark, texts in figure.values.items():
            assert len(texts) == len(marked(figure, mark).get_xydata())


def test_the_baseline_is_neutral_and_variants_differ(looks):
    assert looks["baseline"].color == style.INK
    assert len({(look.color, look.marker) for look in looks.values()}) == len(looks)


def test_many_variants_still_look_different():
    chosen = style.looks([f"variant {i}" for i in range(15)], "variant 0").values()
    assert len({(look.color, look.marker, look.linestyle) for look in chosen}) == 15


def test_a_legend_is_no_wider_than_its_figure(make_results):
    labels = ["baseline", *(f"AutoAugment+PP{i}-trainable" for i in range(3, 8))]
    results = [make_results(label) for label in labels]
    looks = style.looks(labels, "baseline")
    scores = [score(result, results[0]) for result in results]
    for drawn in (corruptions_figure(results, results[0], looks), tradeoff_figure(scores, scores[0], looks)):
        (legend,) = drawn.figure.legends
        assert legend.get_window_extent().width <= drawn.figure.bbox.width
        assert len(legend.get_texts()) == 6


@pytest.fixture(scope="module")
def draw_all(make_results):
    """Draw every figure that has a legend, of one variant for each label."""

    def draw(labels):
        results = [make_results(label, 0.1 + 0.02 * i) for i, label in enumerate(labels)]
        base, looks = results[0], style.looks(labels, labels[0])
        scores = [score(result, base) for result in results]
        drawn = (
            tradeoff_figure(scores, scores[0], looks),
            severity_by_corruption_figure(results, looks),
            corruptions_figure(results, base, looks),
            classes_figure(class_errors(results), base.model, looks, base.header.classes[:4]),
            epochs_figure({result.model: {1: result, 2: result} for result in results}, base.model, looks),
        )
        return {figure.name: figure.figure for figure in drawn}

    return draw


def test_a_legend_of_many_rows_takes_nothing_from_the_axes(draw_all):
    few = draw_all(["baseline", "PP3", "PP5"])
    long = [f"vit_base_patch16_clip_{side}.laion2b_ft_in12k_in1k-for-90-epochs-lr0.01" for side in (112, 224, 448)]
    for name, figure in draw_all(long).items():
        (legend,) = figure.legends
        assert legend.get_window_extent().height > 1.8 * few[name].legends[0].get_window_extent().height
        top = max(axes.get_tightbbox().y1 for axes in figure.axes if axes.get_visible())
        assert top < legend.get_window_extent().y0, name
        for axes, like in zip(figure.axes, few[name].axes, strict=True):
            assert axes.bbox.height == pytest.approx(like.bbox.height, abs=0.02 * figure.dpi), name


def test_a_legend_of_one_row_leaves_the_figure_as_it_is(draw_all):
    heights = {name: figure.get_figheight() for name, figure in draw_all(["baseline", "PP3", "PP5"]).items()}
    assert (heights["tradeoff"], heights["severity_by_corruption"], heights["epochs"]) == (4.6, 7.2, 3.4)


def test_a_long_name_of_the_baseline_stays_inside_the_figure(draw_all):
    drawn = draw_all(["resnet50-augmix-blurredconv-finetuned-with-a-cosine-schedule-for-90-epochs-lr0.01", "PP3"])
    for name in ("corruptions", "classes"):
        left, right = (axes.xaxis.label.get_window_extent() for axes in drawn[name].axes)
        assert left.x1 < right.x0
        assert right.x1 <= drawn[name].bbox.width


@pytest.mark.parametrize("error", [0.0, 0.46])
def test_dots_are_whole_where_all_errors_are_alike(make_results, looks, error):
    same = dict.fromkeys(GROUPS, 0.0)
    results = [make_results("baseline", error, same), make_results("PP3", error + 0.03, same)]
    figure = corruptions_figure(results, results[0], looks)
    left = figure.figure.axes[0]
    assert left.get_xlim()[0] == 0
    for i in range(2):
        dots = marked(figure, f"corruptions-error-{i}")
        assert not dots.get_clip_on()
        reach = left.transData.transform(dots.get_xydata())[:, 0].max()
        assert reach + dots.get_markersize() / 2 * figure.figure.dpi / 72 < left.bbox.x1


def test_spread_keeps_order_and_gap():
    moved = style.moved_apart([3.0, 1.0, 1.1, 1.0], gap=0.5)
    assert np.diff(np.sort(moved)).min() >= 0.5 - 1e-12
    assert sum(moved) == pytest.approx(6.1)
    assert max(moved) == moved[0]


def test_drawing_leaves_matplotlib_as_it_was(results, looks):
    before = dict(matplotlib.rcParams)
    severity_figure(results, results[0], looks)
    assert dict(matplotlib.rcParams) == before


def test_svg_is_xml_and_the_same_each_time(plots):
    for figure in plots.values():
        text = style.svg_text(figure)
        assert ElementTree.fromstring(text).tag.endswith("svg")
        assert text == style.svg_text(figure)


def test_a_dollar_sign_in_a_label_is_no_mathematics(make_results):
    results = [make_results("baseline"), make_results("$x_1$ & <b>", 0.16)]
    figure = severity_figure(results, results[0], style.looks([r.model for r in results], "baseline"))
    assert "$x_1$ &amp; &lt;b&gt;" in style.svg_text(figure)


def test_a_long_label_leaves_room_for_the_curves(make_results):
    long = "resnet50-augmix-blurredconv-finetuned-with-a-cosine-schedule-for-90-epochs-lr0.01"
    for labels in (("baseline", long), (long, "PP3")):
        results = [make_results(label, 0.1 + 0.06 * i) for i, label in enumerate(labels)]
        drawn = severity_figure(results, results[0], style.looks([r.model for r in results], labels[0]))
        assert all(axes.get_position().width > 0.27 for axes in drawn.figure.axes)
        assert "resnet50-augm…epochs-lr0.01" in (text := style.svg_text(drawn))
        assert f"{long}, severity 5" in str(drawn.values)
        assert long not in text


def test_signs_that_no_font_here_has_are_left_to_the_readers(make_results):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        results = [make_results("飞机"), make_results("鳥", 0.16)]
        figure = severity_figure(results, results[0], style.looks([r.model for r in results], "飞机"))
        text = style.svg_text(figure)
    assert "飞机" in text
    assert "鳥" in text


def test_the_pull_picture_is_the_negative_of_the_push_picture():
    weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
    figure = pictures.kernels_figure({"PP3": (weight, pull_kernel(weight), torch.ones(4))})
    (image,) = figure.figure.axes[0].images
    pixels = np.asarray(image.get_array(), dtype=int)
    step = pictures._TILE + pictures._GAP // 2
    push, pull = (
        pixels[: pictures._TILE, : pictures._TILE, :3],
        pixels[step : step + pictures._TILE, : pictures._TILE, :3],
    )
    assert np.abs(push + pull - 255).max() <= 1


def test_learned_alphas_stand_below_their_kernels_in_falling_order():
    alpha = torch.tensor([0.25, 0.75, 0.5])
    few, many = torch.randn(3, 1, 5, 5), torch.randn(64, 3, 7, 7)
    figure = pictures.kernels_figure(
        {"PP3": (few, pull_kernel(few), alpha), "PP5": (many, pull_kernel(many), torch.tensor(1.0))}
    )
    learned, fixed = figure.figure.axes
    assert [text.get_text() for text in learned.texts] == ["0.75", "0.50", "0.25"]
    assert learned.get_title(loc="left") == "PP3: α = 0.50 ± 0.20, learned"
    assert fixed.get_title(loc="left") == "PP5: α = 1.00, fixed"
    assert not fixed.texts


def test_a_pull_kernel_of_another_size_and_range_is_shown_on_the_scale_of_the_pair():
    push, pull = torch.zeros(1, 3, 3, 3), torch.full((1, 3, 7, 7), -1.0)
    push[..., 0, 0] = 1
    (image,) = pictures.kernels_figure({"PP2020": (push, pull, torch.ones(1))}).figure.axes[0].images
    pixels = np.asarray(image.get_array(), dtype=int)[..., 0]
    step = pictures._TILE + pictures._GAP // 2
    assert [pixels[0, 0], pixels[pictures._TILE - 1, 0], pixels[step, 0]] == [255, 128, 0]


def test_stems_beyond_one_page_are_told_in_the_caption():
    kernels = {f"PP{i}": (torch.ones(4, 3, 3, 3), torch.ones(4, 3, 3, 3), torch.ones(1)) for i in range(12)}
    figure = pictures.kernels_figure(kernels)
    assert len(figure.figure.axes) == 9
    assert "3 further variants with such kernels are not shown" in figure.caption


def test_the_gallery_shows_each_corrupted_picture_in_its_place(sample):
    figure = pictures.gallery_figure(sample, ("gaussian_noise", "fog", "contrast"))
    left, right = (np.asarray(axes.images[0].get_array()) for axes in figure.figure.axes)
    side, step = 32, 32 + 2
    photo = sample.photo.permute(1, 2, 0).numpy()
    assert (left[:side, :side, :3] == photo).all()
    noisy = sample.row("gaussian_noise")[2].permute(1, 2, 0).numpy()
    assert (left[step : step + side, 2 * step : 2 * step + side, :3] == noisy).all()
    foggy = sample.row("fog")[4].permute(1, 2, 0).numpy()
    assert (right[:side, 4 * step : 4 * step + side, :3] == foggy).all()
    assert [label.get_text() for axes in figure.figure.axes for label in axes.get_yticklabels()] == [
        "clean",
        "gaussian noise",
        "fog",
        "contrast",
    ]

import copy
import json
import shutil

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader

from pushpull_conv import PushPullConv2d
from pushpull_conv.benchmark import (
    CellEvent,
    Results,
    check_comparable,
    evaluate,
    evaluation,
    model_fingerprint,
)
from pushpull_conv.corruptions import CORRUPTIONS, EXTRA_CORRUPTIONS, SEVERITIES, load_frost
from pushpull_conv.data import ImageSet, load_images
from pushpull_conv.errors import InputError
from steps import Killed, files

NAMES = CORRUPTIONS + EXTRA_CORRUPTIONS


def darken(images, name, severity, *, index, seed, profile, frost):
    """Stands in for the corruptions: each image loses brightness by a number that depends on all that may matter."""
    assert images.dtype == torch.uint8
    assert profile == "cifar"
    amount = (index * 7 + NAMES.index(name) * 5 + seed * 3 + len(frost.identity)) % 50 * severity // 2
    return (images.short() - amount[:, None, None, None]).clamp(0, 255).to(torch.uint8)


@pytest.fixture
def darkened(monkeypatch):
    monkeypatch.setattr(evaluation, "corrupt", darken)


@pytest.fixture(scope="module")
def source() -> ImageSet:
    """57 digits from the middle of the set, so that place and index differ."""
    return load_images("digits", "test")[100:157]


class Linear(nn.Module):
    """A classifier with fixed weights whose integer logits no order of summation can change."""

    def __init__(self, classes: int = 10) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        weight = torch.randint(-9, 10, (classes, 64), generator=generator).double()
        self.weight = nn.Parameter(64 * weight - weight.sum(1, keepdim=True))  # blind to brightness, sees patterns
        self.dropout = nn.Dropout(0.5)

    def forward(self, images):
        small = nn.functional.avg_pool2d(images.double().mean(1, keepdim=True) * 3, 4) * 16
        return self.dropout(small.flatten(1)) @ self.weight.T


def by_hand(model: nn.Module, source: ImageSet, key=None, seed=0) -> tuple[int, int, list[int]]:
    """Independent oracle: one image at a time, ranked by a stable sort in numpy."""
    model = model.eval()
    top1, top5, class_top1 = 0, 0, [0] * source.num_classes
    for image, label, index in zip(source.images, source.labels.tolist(), source.index, strict=True):
        batch = image[None]
        if key:
            batch = darken(batch, *key, index=index[None], seed=seed, profile="cifar", frost=load_frost("procedural"))
        order = np.argsort(-model(batch)[0].detach().numpy(), kind="stable").tolist()
        top1 += order[0] == label
        class_top1[label] += order[0] == label
        top5 += label in order[:5]
    return top1, top5, class_top1


# What is counted


def test_counts_are_those_made_by_hand(darkened, source):
    results = evaluate(Linear(), source, seed=4, label="linear", corruptions=["fog", "snow"], severities=[1, 4])
    assert list(results.cells) == [("snow", 1), ("snow", 4), ("fog", 1), ("fog", 4)]
    for key, cell in {None: results.clean, **results.cells}.items():
        assert (cell.top1, cell.top5, list(cell.class_top1)) == by_hand(Linear(), source, key, seed=4)
        assert cell.class_n == tuple(source.labels.bincount(minlength=10).tolist())
    assert len(set(results.cells.values())) > 1
    assert results.model == "linear"
    header = results.header
    assert (header.data, header.split, header.fingerprint) == ("digits", "test", source.fingerprint)
    assert (header.images, header.suite, header.seed, header.frost) == (
        57,
        "cifar10-c",
        4,
        load_frost("procedural").identity,
    )


def test_the_benchmark_is_fifteen_by_five(darkened, source):
    results = evaluate(Linear(), source)
    assert list(results.cells) == [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]


@pytest.mark.parametrize("batch_size", [1, 7, 56, 57, 1000])
def test_batch_size_does_not_matter(darkened, source, batch_size):
    options = {"corruptions": ["fog"], "severities": [3]}
    assert evaluate(Linear(), source, batch_size=batch_size, **options) == evaluate(Linear(), source, **options)


def test_ties_are_decided_for_the_lower_class(darkened, source):
    class Constant(nn.Module):
        def forward(self, images):
            return torch.zeros(len(images), 10)

    cell = evaluate(Constant(), source, corruptions=[]).clean
    assert cell.class_top1 == (cell.class_n[0], *[0] * 9)
    assert cell.top5 == sum(cell.class_n[:5])


def test_with_fewer_than_five_classes_all_are_in_the_top_five(darkened, source):
    few = ImageSet(source.images, source.labels % 3, ("a", "b", "c"), source.index, "few", "test")
    cell = evaluate(Linear(classes=3), few, corruptions=[]).clean
    assert cell.top5 == cell.n == 57
    assert cell.top1 == by_hand(Linear(classes=3), few)[0]


def test_the_model_comes_back_as_it_was(darkened, source):
    model = nn.Sequential(Linear(), nn.BatchNorm1d(10, dtype=torch.float64)).train()
    model[1].eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    evaluate(model, source, corruptions=[])
    assert [module.training for module in model.modules()] == [True, True, True, False]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not torch.is_inference_mode_enabled()
    assert model[0].weight.requires_grad


@pytest.mark.parametrize("seed", [-1, 2**64])
def test_a_seed_that_gives_the_images_of_another_is_refused(source, seed):
    with pytest.raises(InputError, match=f"seed is {seed}; allowed: 0 to 18446744073709551615"):
        evaluate(Linear(), source, seed=seed, corruptions=[])
    assert evaluate(Linear(), source, seed=seed % 2**64, corruptions=[]).header.seed == seed % 2**64
    with pytest.raises(InputError, match="seed is None; allowed: 0 to"):
        evaluate(Linear(), source, seed=None, corruptions=[])


def test_the_model_comes_back_as_it_was_after_an_error(darkened, source):
    model = Linear(classes=3).train()
    with pytest.raises(InputError):
        evaluate(model, source)
    assert model.training


def test_every_cell_is_announced(darkened, source, tmp_path):
    events: list[CellEvent] = []
    results = evaluate(Linear(), source, corruptions=["fog"], severities=[2, 1], store=tmp_path, on_cell=events.append)
    assert [(e.corruption, e.severity, e.done, e.total) for e in events] == [
        ("clean", 0, 1, 3),
        ("fog", 1, 2, 3),
        ("fog", 2, 3, 3),
    ]
    assert events[1].cell == results.cells["fog", 1]
    again: list[CellEvent] = []
    evaluate(Linear(), source, corruptions=["fog"], severities=[2, 1], store=tmp_path, on_cell=again.append)
    assert again == events


# The store


def mortal(lives: int) -> Linear:
    """A classifier that counts its calls and dies on the ``lives + 1``-th."""
    model = Linear()
    model.calls = 0

    def count(module, images):
        module.calls += 1
        if module.calls > lives:
            raise Killed

    model.register_forward_pre_hook(count)
    return model


@pytest.mark.parametrize("lives", [0, 1, 2, 9, 151])
def test_a_killed_run_goes_on_and_ends_the_same(darkened, source, tmp_path, lives):
    options = {"seed": 2, "label": "linear", "batch_size": 30}  # two batches a cell, so some deaths are within a cell
    evaluate(Linear(), source, store=tmp_path / "whole", **options)
    with pytest.raises(Killed):
        evaluate(mortal(lives), source, store=tmp_path / "killed", **options)
    assert not (tmp_path / "killed" / "results.json").exists()
    whole_cells = lives // 2
    assert len(list((tmp_path / "killed" / "cells").glob("*.json"))) == whole_cells + bool(whole_cells)  # the header
    second = mortal(1000)
    evaluate(second, source, store=tmp_path / "killed", **options)
    assert second.calls == 2 * (76 - lives // 2)
    assert files(tmp_path / "killed") == files(tmp_path / "whole")


def test_a_finished_store_asks_nothing_of_the_model(darkened, source, tmp_path):
    first = evaluate(Linear(), source, store=tmp_path, corruptions=["fog"])
    written = files(tmp_path)
    assert evaluate(mortal(0), source, store=tmp_path, corruptions=["fog"]) == first
    assert files(tmp_path) == written
    assert Results.load(tmp_path / "results.json") == first


def test_a_store_gathers_what_several_calls_counted(darkened, source, tmp_path):
    evaluate(Linear(), source, store=tmp_path, corruptions=["snow"])
    both = evaluate(Linear(), source, store=tmp_path, corruptions=["fog"])
    assert both == evaluate(Linear(), source, corruptions=["fog", "snow"])
    assert Results.load(tmp_path / "results.json") == both


def test_cells_that_another_process_finishes_meanwhile_are_not_counted_again(darkened, source, tmp_path):
    asked = {"corruptions": ["fog"], "severities": [1, 2], "store": tmp_path}
    model = mortal(lives=1)  # one batch of clean images
    done = []

    def meanwhile(event):
        if not done:
            evaluate(Linear(), source, **asked)
        done.append(event.severity)

    assert evaluate(model, source, **asked, on_cell=meanwhile) == evaluate(Linear(), source, **asked)
    assert done == [0, 1, 2]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 1}, "holds cells with seed 0, not 1; choose another folder"),
        ({"label": "other"}, "holds the results of 'model', not 'other'"),
        ({"model": Linear().double().requires_grad_(False)}, None),
        ({"model": nn.Sequential(Linear())}, "holds cells of a model with other layers or weights"),
        ({"source": slice(0, 50)}, "holds cells of other images"),
    ],
)
def test_a_store_of_something_else_is_refused(darkened, source, tmp_path, changes, message):
    call = {"model": Linear(), "source": source, "store": tmp_path, "corruptions": ["fog"], "severities": [1]}
    evaluate(**call)
    written = files(tmp_path)
    changes = {name: source[value] if name == "source" else value for name, value in changes.items()}
    if message is None:
        evaluate(**call | changes)
    else:
        with pytest.raises(InputError, match=message):
            evaluate(**call | changes)
    assert files(tmp_path) == written


def test_other_weights_are_refused(darkened, source, tmp_path):
    evaluate(Linear(), source, store=tmp_path, corruptions=[])
    changed = Linear()
    changed.weight.data[0, 0] += 1
    with pytest.raises(InputError, match="holds cells of a model with other layers or weights"):
        evaluate(changed, source, store=tmp_path, corruptions=[])


def test_other_layers_around_the_same_weights_are_refused(darkened, source, tmp_path):
    """Networks that differ in an activation, a pooling or the averaging of a push-pull unit hold the same tensors."""
    plain = nn.Sequential(Linear(), nn.ReLU())
    evaluate(plain, source, store=tmp_path, corruptions=[])
    with pytest.raises(InputError, match="holds cells of a model with other layers or weights"):
        evaluate(nn.Sequential(plain[0], nn.ELU(alpha=1.0)), source, store=tmp_path, corruptions=[])


def test_corruptions_and_severities_may_be_anything_that_gives_them(darkened, source):
    generated = evaluate(Linear(), source, corruptions=(name for name in ("fog", "snow")), severities=np.arange(1, 3))
    assert generated == evaluate(Linear(), source, corruptions=["fog", "snow"], severities=[1, 2])
    assert len(generated.cells) == 4
    assert {type(severity) for _, severity in generated.cells} == {int}


def test_fingerprints_tell_units_apart_and_not_where_a_function_lies():
    class Applied(nn.Module):
        def __init__(self, function):
            super().__init__()
            self.function = function

        def extra_repr(self):
            return f"function={self.function!r}"

    unit = PushPullConv2d(3, 8, 3, avg_kernel_size=3)
    wider = PushPullConv2d(3, 8, 3, avg_kernel_size=5)
    wider.load_state_dict(unit.state_dict())
    assert model_fingerprint(unit) == model_fingerprint(copy.deepcopy(unit)) != model_fingerprint(wider)
    assert model_fingerprint(Applied(lambda x: x)) == model_fingerprint(Applied(copy.copy(lambda x: x)))


def test_results_whose_cells_are_gone_are_not_replaced_by_fewer(darkened, source, tmp_path):
    whole = evaluate(Linear(), source, store=tmp_path, corruptions=["fog", "snow"])
    shutil.rmtree(tmp_path / "cells")
    with pytest.raises(InputError, match=r"has 5 cells, snow at severity 1 among them, that are neither asked for nor"):
        evaluate(Linear(), source, store=tmp_path, corruptions=["fog"])
    with pytest.raises(InputError, match="holds the results of 'model', not 'other'"):
        evaluate(Linear(), source, store=tmp_path, label="other", corruptions=["fog", "snow"])
    assert Results.load(tmp_path / "results.json") == whole
    more = evaluate(Linear(), source, store=tmp_path, corruptions=["fog", "snow", "frost"])
    assert whole.cells.items() <= more.cells.items()


def test_results_made_otherwise_are_not_replaced_where_their_cells_are_gone(darkened, source, tmp_path):
    whole = evaluate(Linear(), source, store=tmp_path, corruptions=["fog"], seed=1)
    shutil.rmtree(tmp_path / "cells")
    with pytest.raises(InputError, match=r"results\.json' holds results with seed 1, not 2; choose another folder"):
        evaluate(Linear(), source, store=tmp_path, corruptions=["fog"], seed=2)
    assert not (tmp_path / "cells").exists()
    assert Results.load(tmp_path / "results.json") == whole


def test_a_network_that_flattens_with_view_is_taken(darkened, source):
    class Flattening(Linear):
        def forward(self, images):
            return super().forward(images.view(len(images), -1).view(images.shape))

    assert evaluate(Flattening(), source, corruptions=["fog"]) == evaluate(Linear(), source, corruptions=["fog"])


def test_a_model_that_is_refused_leaves_the_folder_to_another(darkened, source, tmp_path):
    with pytest.raises(InputError, match="gives logits of shape"):
        evaluate(nn.Sequential(Linear(), nn.Flatten(0)), source, store=tmp_path, corruptions=[])
    assert evaluate(Linear(), source, store=tmp_path, corruptions=[]).clean.n == len(source)


def test_a_damaged_cell_is_named(darkened, source, tmp_path):
    evaluate(Linear(), source, store=tmp_path, corruptions=["fog"], severities=[1])
    path = tmp_path / "cells" / "fog-1.json"
    for content in ('{"n": 5', json.dumps(json.loads(path.read_text()) | {"top1": 999}), "[]"):
        path.write_text(content)
        with pytest.raises(InputError, match=r"finished cell '.*fog-1.json' is damaged .*delete it to count it again"):
            evaluate(Linear(), source, store=tmp_path, corruptions=["fog"], severities=[1])


def test_what_a_killed_write_left_is_not_taken_for_a_cell(darkened, source, tmp_path):
    whole = evaluate(Linear(), source, store=tmp_path / "a", corruptions=["fog"])
    (tmp_path / "b" / "cells").mkdir(parents=True)
    (tmp_path / "b" / "cells" / ".fog-1.json.x7z.json").write_text('{"n": 5')
    assert evaluate(Linear(), source, store=tmp_path / "b", corruptions=["fog"]) == whole


def test_a_store_that_cannot_be_written(darkened, source, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot be written"):
        evaluate(Linear(), source, store=tmp_path / "file")


# In another precision


class Rounded(nn.Module):
    """A classifier of float32 weights that keeps the dtypes in which it computed."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(3)
        self.weight = nn.Parameter(torch.randn(10, 64, generator=generator))
        self.dtypes = []

    def forward(self, images):
        small = nn.functional.avg_pool2d(images.float().mean(1, keepdim=True), 4) / 255 - 0.3
        logits = nn.functional.linear(small.flatten(1), self.weight)
        self.dtypes.append(logits.dtype)
        return logits


@pytest.mark.parametrize(("autocast", "dtype"), [(None, "float32"), ("bfloat16", "bfloat16"), ("float16", "float16")])
def test_the_model_computes_under_autocast_and_nothing_else_does(monkeypatch, source, autocast, dtype):
    def darken_exactly(images, *args, **keywords):
        assert not torch.is_autocast_enabled("cpu")
        return darken(images, *args, **keywords)

    monkeypatch.setattr(evaluation, "corrupt", darken_exactly)
    model = Rounded()
    results = evaluate(model, source, corruptions=["fog"], severities=[2], autocast=autocast)
    assert set(model.dtypes) == {getattr(torch, dtype)}
    assert results.header.autocast == autocast
    images = darken(
        source.images, "fog", 2, index=source.index, seed=0, profile="cifar", frost=load_frost("procedural")
    )
    with torch.autocast("cpu", getattr(torch, dtype), enabled=autocast is not None):
        logits = model(images).detach().float().numpy()
    assert results.cells["fog", 2].top1 == (logits.argmax(axis=1) == source.labels.numpy()).sum()  # of equals the first


def test_results_of_different_precision_are_not_compared(darkened, source, tmp_path):
    exact = evaluate(Rounded(), source, corruptions=["fog"], store=tmp_path)
    rounded = evaluate(Rounded(), source, corruptions=["fog"], autocast="bfloat16")
    with pytest.raises(InputError, match="made with autocast None and 'bfloat16'"):
        check_comparable([exact, rounded])
    with pytest.raises(InputError, match="holds cells with autocast None, not 'bfloat16'"):
        evaluate(Rounded(), source, corruptions=["fog"], store=tmp_path, autocast="bfloat16")


# Bad input


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"suite": "cifar-c"}, "unknown suite 'cifar-c'; did you mean 'cifar10-c'"),
        ({"corruptions": ["fogg"]}, "unknown corruption 'fogg'; did you mean 'fog'"),
        ({"severities": [0]}, "severity is 0; allowed are the integers 1, 2, 3, 4 and 5"),
        ({"severities": [1, 6]}, "severity is 6; allowed"),
        ({"severities": [1.0]}, r"severity is 1\.0; allowed are the integers"),
        ({"severities": [True]}, r"severity is True; allowed are the integers"),
        ({"severities": 1}, r"severities is 1; give several as a list, one as \[1\]"),
        ({"corruptions": "fog"}, r"corruptions is 'fog'; give several as a list, one as \['fog'\]"),
        ({"frost": None}, "frost is None; give 'procedural', 'reference' or a folder of pictures"),
        ({"source": DataLoader([])}, r"source is a DataLoader; give what pushpull_conv\.data\.open_images returns"),
        ({"model": lambda images: images}, r"model is a function; give a torch\.nn\.Module"),
        ({"batch_size": 0}, "batch_size must be 1 or more, not 0"),
        ({"batch_size": 2.0}, r"batch_size must be an integer of 1 or more, not 2\.0"),
        ({"batch_size": True}, "batch_size must be an integer of 1 or more, not True"),
        ({"batch_size": "a"}, "batch_size must be an integer of 1 or more, not 'a'"),
        ({"label": None}, "label is None; allowed: letters, digits"),
        ({"autocast": "bf16"}, "unknown autocast dtype 'bf16'; did you mean 'bfloat16'"),
        ({"frost": "nowhere"}, "nowhere"),
    ],
)
def test_bad_arguments_are_refused_before_anything_is_written(darkened, source, tmp_path, options, message):
    with pytest.raises(InputError, match=message):
        evaluate(**{"model": Linear(), "source": source, "store": tmp_path / "store", **options})
    assert not (tmp_path / "store").exists()


def test_a_model_of_other_classes(darkened, source):
    with pytest.raises(InputError, match=r"logits of shape \[57, 3\] where the data's 10 classes need \[57, 10\]"):
        evaluate(Linear(classes=3), source)


def test_a_model_that_gives_no_tensor(darkened, source):
    class Paired(Linear):
        def forward(self, images):
            return super().forward(images), None

    with pytest.raises(InputError, match="the model gives a tuple, not a tensor of logits"):
        evaluate(Paired(), source)


def test_a_network_of_normalised_floats_is_told_of_the_classifier(darkened, source):
    network = nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    with pytest.raises(
        InputError, match=r"cannot take uint8 images \[\d+, 3, 32, 32\] .*pushpull_conv.models.Classifier"
    ):
        evaluate(network, source)


def test_what_fails_after_the_first_batch_is_not_taken_for_the_callers_mistake(darkened, source):
    class Failing(Linear):
        calls = 0

        def forward(self, images):
            self.calls += 1
            if self.calls > 1:
                raise RuntimeError("CUDA error: uncorrectable ECC error encountered")
            return super().forward(images)

    with pytest.raises(RuntimeError, match="CUDA error: uncorrectable"):
        evaluate(Failing(), source)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_logits_that_are_not_finite_name_the_cell(darkened, source, tmp_path, value):
    class Overflowing(Linear):
        def forward(self, images):
            logits = super().forward(images)
            logits[images.double().mean((1, 2, 3)) < 60, 4] = value
            return logits

    with pytest.raises(InputError, match="logits are not finite on gaussian_noise at severity"):
        evaluate(Overflowing(), source, store=tmp_path)
    assert not (tmp_path / "cells" / "gaussian_noise-5.json").exists()


# With the real corruptions


def test_real_corruptions_do_not_depend_on_the_cut(source):
    options = {"corruptions": ["gaussian_noise", "glass_blur", "frost"], "severities": [3], "seed": 5}
    whole = evaluate(Linear(), source, **options)
    assert evaluate(Linear(), source, batch_size=10, **options) == whole
    assert evaluate(Linear(), source, **options | {"seed": 6}).cells != whole.cells


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_gpu_counts_the_same(darkened, source):
    options = {"corruptions": ["fog", "snow"]}
    here = evaluate(Linear(), source, **options)
    model = Linear()
    assert evaluate(model, source, device="cuda", **options) == here
    assert model.weight.is_cuda

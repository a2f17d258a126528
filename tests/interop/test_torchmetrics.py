"""The torchmetrics give what the benchmark's own functions give, in one process and in two."""

import os

import pytest
import torch
from torch import distributed, multiprocessing, nn
from torchmetrics import MetricCollection

from pushpull_conv import CORRUPTIONS, InputError, evaluate, mce, mean_error
from pushpull_conv.corruptions import SEVERITIES, corrupt
from pushpull_conv.data import load_images
from pushpull_conv.interop.metrics import MCE, MeanError

BASE = {name: [0.2 + 0.01 * place + 0.1 * level for level in range(5)] for place, name in enumerate(CORRUPTIONS)}
CELLS = [(name, severity) for name in CORRUPTIONS for severity in SEVERITIES]


def batch_of(cell, images=40):
    """Logits and labels that differ from cell to cell; every other image is of a class that is often right."""
    generator = torch.Generator().manual_seed(CELLS.index(cell))
    labels = torch.randint(5, (images,), generator=generator)
    logits = torch.randn(images, 5, generator=generator)
    logits[::2] += 2 * torch.nn.functional.one_hot(labels[::2], 5)
    return logits, labels


def errors_by_hand():
    errors = {name: [] for name in CORRUPTIONS}
    for name, severity in CELLS:
        logits, labels = batch_of((name, severity))
        errors[name].append((logits.argmax(1) != labels).double().mean().item())
    return errors


def test_they_are_the_functions_of_the_same_errors():
    metrics = MetricCollection({"mean_error": MeanError(), "mce": MCE(BASE)})
    for name, severity in CELLS:
        for logits, labels in zip(*(part.split(15) for part in batch_of((name, severity))), strict=True):
            metrics.update(logits, labels, corruption=name, severity=severity)
    values, errors = metrics.compute(), errors_by_hand()
    assert values["mean_error"].item() == pytest.approx(mean_error(errors), abs=1e-6)
    assert values["mce"].item() == pytest.approx(mce(errors, BASE), abs=1e-6)
    assert len(metrics.compute_groups) == 1, "the two share their counts"


def test_a_call_counts_as_an_update_does():
    called, updated = MeanError(), MeanError()
    for name, severity in CELLS:
        batch = batch_of((name, severity))
        assert called(*batch, corruption=name, severity=severity) is None
        updated.update(*batch, corruption=name, severity=severity)
    assert called.compute() == updated.compute()


def test_a_collection_may_be_called_and_updated_in_turn():
    """Between the two its metrics share their counts, and a call goes to each of them."""
    mixed, updated = (MetricCollection({"mean_error": MeanError(), "mce": MCE(BASE)}) for _ in "12")
    for place, (name, severity) in enumerate(CELLS * 2):
        images, labels = batch_of((name, severity), images=40 - place % 7)
        count = mixed if place % 2 else mixed.update
        count(images, labels, corruption=name, severity=severity)
        updated.update(images, labels, corruption=name, severity=severity)
        if place == len(CELLS):
            mixed.compute()
    assert mixed.compute() == updated.compute()
    for name in ("mean_error", "mce"):
        assert mixed[name].seen.sum() == sum(40 - place % 7 for place in range(2 * len(CELLS)))


def test_alexnet_is_a_baseline_on_its_own_classes_only():
    with pytest.raises(InputError, match="'alexnet' has errors on 1000 classes, the logits have 5"):
        MCE("alexnet").update(*batch_of(CELLS[0]), corruption="fog", severity=1)


@pytest.mark.parametrize(
    ("baseline", "said"),
    [
        ("alexnt", "unknown baseline 'alexnt'; did you mean 'alexnet'"),
        ({}, "baseline must have errors for all 15 corruptions at 5 severities"),
        ({**BASE, "fog": (0.1,)}, "fog"),
        ({**BASE, "fog": (50, 60, 70, 80, 90)}, "error of fog in baseline must be a fraction"),
        ({**BASE, "fog": (0.0,) * 5}, "fog"),
    ],
)
def test_a_baseline_is_checked_before_the_first_batch(baseline, said):
    with pytest.raises(InputError, match=said):
        MCE(baseline)


class Linear(nn.Module):
    """A classifier of uint8 images."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(10, 3072, dtype=torch.float64))

    def forward(self, images):
        return images.double().flatten(1) @ self.weight.T


def test_a_loop_of_ones_own_finds_what_evaluate_finds():
    digits = load_images("digits", "test")
    few = digits[:100]
    torch.manual_seed(0)
    model, metric = Linear(), MeanError()
    for name, severity in CELLS:
        corrupted = corrupt(few.images, name, severity, index=few.index, seed=7, profile="cifar")
        metric.update(model(corrupted), few.labels, corruption=name, severity=severity)
    assert metric.compute().item() == pytest.approx(mean_error(evaluate(model, few, seed=7)), abs=1e-6)


def test_the_extra_corruptions_play_no_part_and_reset_forgets():
    metric = MeanError()
    for cell in CELLS:
        metric.update(*batch_of(cell), corruption=cell[0], severity=cell[1])
    before = metric.compute()
    metric.update(torch.eye(5), torch.tensor([1, 2, 3, 4, 0]), corruption="spatter", severity=1)
    assert metric.compute() == before
    metric.reset()
    metric.update(*batch_of(CELLS[0]), corruption="fog", severity=1)
    with pytest.raises(InputError, match="missing or incomplete: gaussian_noise"):
        metric.compute()


def test_what_cannot_be_counted_is_said():
    metric = MeanError()
    logits, labels = torch.eye(3), torch.arange(3)
    with pytest.raises(InputError, match="did you mean 'fog'"):
        metric.update(logits, labels, corruption="fogg", severity=1)
    with pytest.raises(InputError, match="severity is 0; allowed are the integers"):
        metric.update(logits, labels, corruption="fog", severity=0)
    with pytest.raises(InputError, match=r"\[3, 3\] and labels \[2\]"):
        metric.update(logits, labels[:2], corruption="fog", severity=1)
    with pytest.raises(InputError, match="labels are 1 to 3; allowed: 0 to 2"):
        metric.update(logits, labels + 1, corruption="fog", severity=1)
    metric.update(logits / 0, labels, corruption="fog", severity=1)
    with pytest.raises(InputError, match="logits of 3 images are not finite"):
        metric.compute()


def count_half(rank, file, found):
    distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    metric = MeanError()
    for cell in CELLS:
        logits, labels = batch_of(cell)
        half = slice(0, 10) if rank == 0 else slice(10, None)  # unequal, so that a mean of means would be wrong
        metric.update(logits[half], labels[half], corruption=cell[0], severity=cell[1])
    found[rank] = metric.compute().item()
    distributed.destroy_process_group()
    os._exit(0)  # now and then PyTorch's own threads abort a process that is shut down in order


@pytest.mark.slow
def test_two_processes_sum_their_counts(tmp_path):
    with multiprocessing.Manager() as manager:
        found = manager.dict()
        multiprocessing.spawn(count_half, (tmp_path / "meeting", found), nprocs=2)
        values = dict(found)
    assert values[0] == values[1] == pytest.approx(mean_error(errors_by_hand()), abs=1e-6)

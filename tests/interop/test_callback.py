"""The callback logs what the benchmark counts, changes nothing of the training, and shares the work under DDP."""

import csv
from statistics import fmean

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from pushpull_conv import InputError, evaluate
from pushpull_conv.data import load_images
from pushpull_conv.interop.callback import CorruptionBenchmark
from pushpull_conv.models import Classifier

MEAN, STD = (0.4, 0.5, 0.6), (0.2, 0.25, 0.3)


class Module(LightningModule):
    """A user's own module: floats in, statistics of the last batches, a head besides, and dropout that draws."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        normal = nn.BatchNorm1d(192, momentum=0.9)
        self.body = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), normal, nn.Dropout(0.2), nn.Linear(192, 10))
        self.frozen = nn.BatchNorm1d(10).eval()

    def forward(self, images):
        return self.body(images)

    def training_step(self, batch, batch_idx):
        return nn.functional.cross_entropy(self.frozen(self(batch[0])), batch[1])

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=0.1)


@pytest.fixture(scope="module")
def digits():
    return load_images("digits", "test")[:60]


def fit(folder, digits, *callbacks, epochs=2, **settings):
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    data = TensorDataset((digits.images / 255 - mean) / std, digits.labels)
    trainer = Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=CSVLogger(folder, name="", version=""),
        callbacks=list(callbacks),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=any(isinstance(callback, ModelCheckpoint) for callback in callbacks),
        log_every_n_steps=1,
        **settings,
    )
    module = Module()
    trainer.fit(module, DataLoader(data, batch_size=20))
    return module, trainer


def logged(folder):
    rows = csv.DictReader((folder / "metrics.csv").open())
    return [
        (int(row["epoch"]), float(row["clean_error"]), float(row["mean_error"])) for row in rows if row["mean_error"]
    ]


def test_it_logs_what_evaluate_counts_after_every_kth_epoch(tmp_path, digits):
    chosen = {"corruptions": ["contrast", "fog"], "severities": [1, 5], "seed": 3}
    callback = CorruptionBenchmark(digits, every_n_epochs=2, mean=MEAN, std=STD, **chosen)
    module, trainer = fit(tmp_path, digits, callback, epochs=5)
    assert [epoch for epoch, _, _ in logged(tmp_path)] == [1, 3]
    module, trainer = fit(tmp_path / "again", digits, callback, epochs=4)
    results = evaluate(Classifier(module, MEAN, STD), digits, **chosen)
    expected = fmean(fmean(errors) for errors in results.errors.values())
    assert logged(tmp_path / "again")[-1] == (3, pytest.approx(results.clean_error), pytest.approx(expected))
    assert trainer.callback_metrics["mean_error"].item() == pytest.approx(expected)
    assert 0 < results.clean_error < expected, "the network has learned, and loses by the corruptions"


def test_corruptions_and_severities_may_be_anything_that_gives_them(digits):
    callback = CorruptionBenchmark(digits, corruptions=(name for name in ["fog"]), severities=(n for n in [5, 1]))
    assert (callback.corruptions, callback.settings["severities"]) == (["fog"], [1, 5])


def test_the_training_is_the_same_with_and_without_it(tmp_path, digits):
    callback = CorruptionBenchmark(digits, corruptions=["gaussian_noise"], severities=[3], mean=MEAN, std=STD)
    plain, _ = fit(tmp_path / "plain", digits)
    watched, _ = fit(tmp_path / "watched", digits, callback)
    for (name, value), (_, other) in zip(plain.state_dict().items(), watched.state_dict().items(), strict=True):
        assert torch.equal(value, other), name
    assert watched.body.training
    assert watched.frozen.training == plain.frozen.training


def test_the_users_own_wrapper_takes_the_place_of_mean_and_std(tmp_path, digits):
    chosen = {"corruptions": ["fog"], "severities": [2]}
    by_statistics = CorruptionBenchmark(digits, mean=MEAN, std=STD, **chosen)
    by_wrapper = CorruptionBenchmark(digits, network=lambda module: Classifier(module.body, MEAN, STD), **chosen)
    fit(tmp_path / "statistics", digits, by_statistics)
    fit(tmp_path / "wrapper", digits, by_wrapper)
    assert logged(tmp_path / "statistics") == logged(tmp_path / "wrapper")


@pytest.mark.parametrize("precision", ["bf16-mixed", "bf16-true"])
def test_it_runs_at_the_trainers_precision(tmp_path, digits, precision):
    callback = CorruptionBenchmark(digits, corruptions=["fog"], severities=[1], mean=MEAN, std=STD)
    seen = []
    callback.network = lambda module: nn.Sequential(module, Watch(seen))
    fit(tmp_path, digits, callback, epochs=1, precision=precision)
    assert set(seen) == {torch.bfloat16}
    assert len(logged(tmp_path)) == 1


class Watch(nn.Module):
    def __init__(self, seen):
        super().__init__()
        self.seen = seen

    def forward(self, logits):
        self.seen.append(logits.dtype)
        return logits


def test_it_runs_in_a_trainer_of_pytorch_lightning(digits):
    other = pytest.importorskip("pytorch_lightning")

    class Foreign(other.LightningModule):
        forward = Module.forward
        training_step, configure_optimizers = Module.training_step, Module.configure_optimizers

        def __init__(self):
            super().__init__()
            self.body = nn.Sequential(nn.AvgPool2d(4), nn.Flatten(), nn.Linear(192, 10))
            self.frozen = nn.Identity()

    callback = CorruptionBenchmark(digits, corruptions=["fog"], severities=[1], mean=MEAN, std=STD)
    quiet = dict.fromkeys(["logger", "enable_progress_bar", "enable_model_summary", "enable_checkpointing"], False)
    trainer = other.Trainer(max_epochs=1, accelerator="cpu", callbacks=[callback], **quiet)
    trainer.fit(Foreign(), DataLoader(TensorDataset(digits.images / 255, digits.labels), batch_size=20))
    assert {"clean_error", "mean_error"} <= trainer.callback_metrics.keys()


def test_a_checkpoint_can_follow_it(tmp_path, digits):
    best = ModelCheckpoint(tmp_path, monitor="mean_error", save_on_train_epoch_end=True, every_n_epochs=2)
    callback = CorruptionBenchmark(digits, every_n_epochs=2, corruptions=["fog"], severities=[1], mean=MEAN, std=STD)
    fit(tmp_path, digits, best, callback, epochs=4)
    assert best.best_model_score.item() == pytest.approx(min(error for _, _, error in logged(tmp_path)))


def test_what_cannot_be_run_is_said(digits):
    for settings, message in [
        ({"every_n_epochs": 0}, "every_n_epochs must be 1 or more, not 0"),
        ({"mean": MEAN}, "mean and std must be given together"),
        ({"corruptions": ["fogg"]}, "did you mean 'fog'"),
        ({"severities": []}, "must not be empty"),
        ({"suite": "imagenet-c"}, "for images of 224 x 224"),
        ({"seed": -1}, "seed is -1; allowed: 0 to"),
        ({"batch_size": 0}, "batch_size must be 1 or more, not 0"),
        ({"mean": (1, 1, 1), "std": (0, 1, 1)}, "std"),
    ]:
        with pytest.raises(InputError, match=message):
            CorruptionBenchmark(digits, **settings)


def test_a_strategy_that_splits_the_model_is_refused(digits):
    class FSDPStrategy:
        pass

    trainer = type("Trainer", (), {"strategy": FSDPStrategy()})()
    with pytest.raises(InputError, match="cannot run under FSDPStrategy"):
        CorruptionBenchmark(digits).setup(trainer, Module(), "fit")


@pytest.mark.slow
@pytest.mark.parametrize("corruptions", [["fog"], ["contrast", "fog", "pixelate"]], ids=len)
def test_two_processes_share_the_corruptions_and_log_what_one_would(tmp_path, digits, corruptions):
    chosen = {"corruptions": corruptions, "severities": [3, 5]}
    callback = CorruptionBenchmark(digits, mean=MEAN, std=STD, **chosen)
    module, _ = fit(tmp_path, digits, callback, epochs=1, strategy="ddp_spawn", devices=2)
    results = evaluate(Classifier(module, MEAN, STD), digits, **chosen)
    expected = fmean(fmean(errors) for errors in results.errors.values())
    assert logged(tmp_path) == [(0, pytest.approx(results.clean_error), pytest.approx(expected))]

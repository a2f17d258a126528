"""Train one variant of a recipe, resuming where an earlier call was stopped."""

import logging
import warnings
from pathlib import Path

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from rich.console import Console
from torch import Tensor

from pushpull_conv.data import EvaluationBatches, ImageSet, TrainingBatches
from pushpull_conv.files import MODEL_FILE
from pushpull_conv.models import Classifier, ModelSpec, save_checkpoint
from pushpull_conv.training.callbacks import EpochLog, TrainingProgress
from pushpull_conv.training.module import ClassifierTraining
from pushpull_conv.training.recipe import Recipe, Variant


def fit(
    recipe: Recipe, variant: Variant, training: ImageSet, test: ImageSet, folder: Path, *, console: Console
) -> Path:
    """Train ``variant`` as ``recipe`` says and save the finished model.

    The learning-rate cycle ends at the last epoch, so the last weights are the model; ``best.ckpt`` (highest accuracy
    on the held-out images) is kept for inspection and never benchmarked, because choosing it looks at test images.

    Args:
        recipe: The validated recipe.
        variant: One of its variants.
        training: Images to learn from.
        test: Held-out images, for the accuracy shown after every epoch.
        folder: Receives ``last.ckpt``, ``best.ckpt``, ``metrics.csv``, ``tensorboard/`` and at the end
            ``model.safetensors``. When it holds a ``last.ckpt``, training goes on from there.
        console: Where progress is drawn.

    Returns:
        The path of ``model.safetensors``.
    """
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    settings = recipe.training
    batches = TrainingBatches(
        training.to(device),
        batch_size=settings.batch_size,
        seed=recipe.seed,
        crop_padding=4 if "crop" in settings.augmentations else 0,
        flip="flip" in settings.augmentations,
    )
    seed_everything(recipe.seed, verbose=False)
    classifier, spec = build(recipe, variant, training)
    module = ClassifierTraining(classifier, settings, steps=len(batches) * settings.epochs, seed=recipe.seed)
    trainer = _trainer(
        recipe, folder, device, [EpochLog(folder / "metrics.csv"), TrainingProgress(variant.name, console)]
    )
    last = folder / "last.ckpt"
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", module="lightning"
        )  # advice on data loaders and old folders, meant for others
        trainer.fit(
            module,
            batches,
            EvaluationBatches(test.to(device), batch_size=500),
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )
    save_checkpoint(folder / MODEL_FILE, classifier, spec)
    return folder / MODEL_FILE


def build(recipe: Recipe, variant: Variant, images: ImageSet) -> tuple[Classifier, ModelSpec]:
    """Return the untrained classifier of ``variant`` for ``images``, and the spec that rebuilds it."""
    mean, std = channel_statistics(images.images)
    spec = ModelSpec(
        name=recipe.model.name,
        num_classes=images.num_classes,
        stem=recipe.model.stem,
        mean=mean,
        std=std,
        classes=images.classes,
        **variant.changes,
    )
    return spec.build().to(memory_format=torch.channels_last), spec


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Return mean and standard deviation per channel of uint8 images ``[N, C, H, W]``, on the scale [0, 1].

    Exact, from each channel's histogram of its 256 values.

    Example:
        >>> channel_statistics(torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1))
        ((0.5,), (0.5,))
    """
    levels = torch.arange(256, dtype=torch.float64) / 255
    means, deviations = [], []
    for channel in images.unbind(dim=1):
        share = torch.bincount(channel.flatten(), minlength=256).double().cpu() / channel.numel()
        mean = (share * levels).sum()
        means.append(mean.item())
        deviations.append((share * (levels - mean) ** 2).sum().sqrt().item())
    return tuple(means), tuple(deviations)


def _trainer(recipe: Recipe, folder: Path, device: torch.device, callbacks: list[Callback]) -> Trainer:
    """Return a trainer that checkpoints every epoch into ``folder`` and is silent but for ``callbacks``."""
    logging.getLogger("lightning.pytorch").setLevel(logging.WARNING)
    checkpoints = ModelCheckpoint(
        folder,
        filename="best",
        monitor="val_accuracy",
        mode="max",
        save_last=True,
        save_on_train_epoch_end=True,
        enable_version_counter=False,
    )
    return Trainer(
        max_epochs=recipe.training.epochs,
        precision=recipe.training.precision,
        accelerator="gpu" if device.type == "cuda" else "cpu",
        devices=1,
        callbacks=[*callbacks, checkpoints],
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

"""Train one variant of a recipe, resuming where an earlier call was stopped."""

import io
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, Trainer, seed_everything
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.environments import LightningEnvironment
from lightning.pytorch.plugins.io import TorchCheckpointIO
from rich.console import Console
from torch import Tensor

from pushpull_conv.augment import AUGMENTATIONS, prime, settings_for
from pushpull_conv.augment.policies import image_policy
from pushpull_conv.data import (
    PADDING,
    EvaluationBatches,
    ImageSet,
    ImageSource,
    PictureBatches,
    Preparation,
    TrainingBatches,
    default_workers,
)
from pushpull_conv.errors import InputError
from pushpull_conv.files import METRICS_FILE, MODEL_FILE, UNREADABLE_FILE, atomic_write
from pushpull_conv.models import IMAGENET_MEAN, IMAGENET_STD, Classifier, ModelSpec, save_checkpoint, with_weights
from pushpull_conv.ranks import ALONE, Ranks, own_device
from pushpull_conv.repeats import SEEDS
from pushpull_conv.training.callbacks import (
    EpochLog,
    KeptEpochs,
    PlainTermination,
    SameImages,
    TrainingProgress,
    UnreadableLog,
)
from pushpull_conv.training.module import BatchAugmentation, ClassifierTraining
from pushpull_conv.training.recipe import Recipe
from pushpull_conv.training.shared_statistics import with_shared_statistics
from pushpull_conv.training.variants import Variant


def fit(
    recipe: Recipe,
    variant: Variant,
    training: ImageSource,
    test: ImageSource,
    folder: Path,
    *,
    console: Console,
    teacher: Classifier | None = None,
    ranks: Ranks = ALONE,
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
        teacher: The trained classifier from which a variant with a ``distillation`` learns.
        ranks: The processes that train together; each calls this function alike.

    Returns:
        The path of ``model.safetensors``.

    Raises:
        InputError: The images do not fill a batch or are all of one class, or the loss is not finite after an epoch, of
            which nothing is kept.
    """
    device = own_device()
    settings = recipe.training
    batches = training_batches(recipe, variant, training, device, ranks)
    seed_everything(recipe.seed_of(variant), verbose=False)
    classifier, spec = build(recipe, variant, training)
    trained = classifier if ranks.count == 1 else with_shared_statistics(classifier, device)
    module = training_module(recipe, variant, trained, steps=len(batches) * settings.epochs, teacher=teacher)
    callbacks = [
        PlainTermination(),
        SameImages(training),
        *_records(recipe, folder, classifier, spec, ranks),
        TrainingProgress(variant.name, console),
    ]
    last = folder / "last.ckpt"
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", module="lightning"
        )  # advice on data loaders and old folders, meant for others
        _trainer(recipe, folder, device, callbacks, ranks).fit(
            module,
            batches,
            EvaluationBatches(_part_of(test, ranks, device), batch_size=recipe.benchmark.batch_size),
            ckpt_path=last if last.exists() else None,
            weights_only=True,
        )
    if ranks.is_first:
        save_checkpoint(folder / MODEL_FILE, classifier, spec)
    ranks.wait()
    return folder / MODEL_FILE


def build(recipe: Recipe, variant: Variant, images: ImageSource) -> tuple[Classifier, ModelSpec]:
    """Return the classifier of ``variant`` for ``images`` as training starts from it, and the spec that rebuilds it.

    Images in memory are normalised by their own mean and deviation, others by ImageNet's; with the recipe's weights, as
    these expect it.
    """
    mean: tuple[float, ...] = IMAGENET_MEAN
    std: tuple[float, ...] = IMAGENET_STD
    if isinstance(images, ImageSet):
        mean, std = channel_statistics(images.images)
    spec = ModelSpec(
        name=recipe.model.name,
        num_classes=images.num_classes,
        stem=recipe.model.stem,
        mean=mean,
        std=std,
        classes=images.classes,
        greyscale=recipe.data.greyscale,
        **variant.changes,
    )
    weights = recipe.model.weights
    classifier, spec = with_weights(spec, weights, new_head=True) if weights else (spec.build(), spec)
    return classifier.to(memory_format=torch.channels_last) if recipe.training.channels_last else classifier, spec


def training_module(
    recipe: Recipe, variant: Variant, classifier: Classifier, *, steps: int, teacher: Classifier | None = None
) -> ClassifierTraining:
    """Return what trains ``variant``: ``classifier``, in ``steps`` steps, by ``teacher`` if the variant has one."""
    return ClassifierTraining(
        classifier,
        recipe.training,
        steps=steps,
        seed=recipe.seed_of(variant),
        augment=_batch_augmentation(recipe, variant),
        consistency=variant.augment.consistency if variant.augment else 0.0,
        lesson=variant.distillation,
        teacher=teacher,
    )


def training_batches(
    recipe: Recipe, variant: Variant, images: ImageSource, device: torch.device, ranks: Ranks = ALONE
) -> TrainingBatches | PictureBatches:
    """Return the batches that ``variant`` learns from, cut on the device if possible, else by worker processes.

    Raises:
        InputError: The images do not fill a batch, or are all of one class.
    """
    if images.num_classes < 2:
        raise InputError(f"{images.name} has one class only, '{images.classes[0]}'; training needs two or more")
    settings = recipe.training
    crop, flip = ("crop" in settings.augmentations, "flip" in settings.augmentations)
    policy = None
    if variant.augment and AUGMENTATIONS[variant.augment.policy].where == "image":
        policy = image_policy(variant.augment.policy, max(images.size))
    if isinstance(images, ImageSet) and policy is None:
        return TrainingBatches(
            images.to(device),
            batch_size=settings.batch_size,
            seed=recipe.seed_of(variant),
            crop_padding=PADDING if crop else 0,
            flip=flip,
            rank=ranks.rank,
            ranks=ranks.count,
        )
    views = 3 if policy and variant.augment and variant.augment.consistency else 1
    return PictureBatches(
        images,
        batch_size=settings.batch_size,
        seed=recipe.seed_of(variant),
        preparation=Preparation(policy, views=views, crop=crop, flip=flip),
        workers=default_workers(ranks.count),
        rank=ranks.rank,
        ranks=ranks.count,
        skip_unreadable=recipe.data.unreadable == "skip",
    )


def _batch_augmentation(recipe: Recipe, variant: Variant) -> BatchAugmentation | None:
    """Return what changes the batches of ``variant`` on the device, None where nothing does."""
    if variant.augment is None or AUGMENTATIONS[variant.augment.policy].where != "batch":
        return None

    def augment(images: Tensor, index: Tensor, epoch: int, view: int) -> Tensor:
        seed, settings = recipe.seed_of(variant) + view * SEEDS, settings_for(images.shape[-1])
        return prime(images, index=index, epoch=epoch, seed=seed, settings=settings)

    return augment


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


def _records(recipe: Recipe, folder: Path, classifier: Classifier, spec: ModelSpec, ranks: Ranks) -> list[Callback]:
    """Return what leaves files of a training in ``folder``, besides the checkpoints."""
    records: list[Callback] = [EpochLog(folder / METRICS_FILE)]
    if recipe.benchmark.every:
        records.append(KeptEpochs(folder, classifier, spec, recipe.benchmark.every))
    if recipe.data.unreadable == "skip":
        records.append(UnreadableLog(folder / UNREADABLE_FILE, ranks))
    return records


def _part_of(images: ImageSource, ranks: Ranks, device: torch.device) -> ImageSource:
    """Return this rank's share of ``images``, on the device if they are in memory."""
    part = images if ranks.count == 1 else images.subset(torch.arange(ranks.rank, len(images), ranks.count))
    return part.to(device) if isinstance(part, ImageSet) else part


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints that appear whole; Lightning's are written in the system's folder for temporary files and copied."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        """Write a checkpoint beside its place and move it there."""
        content = io.BytesIO()  # what torch raises on a full disk is no OSError
        torch.save(checkpoint, content)
        with atomic_write(path) as temporary:
            temporary.write_bytes(content.getbuffer())


def _trainer(recipe: Recipe, folder: Path, device: torch.device, callbacks: list[Callback], ranks: Ranks) -> Trainer:
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
        devices=ranks.count if ranks.count > 1 or device.type == "cpu" else [torch.cuda.current_device()],
        strategy="ddp" if ranks.count > 1 else "auto",
        plugins=[LightningEnvironment(), WholeCheckpoints()],  # the processes are started already
        use_distributed_sampler=False,  # each rank's batches are its part already
        callbacks=[*callbacks, checkpoints],
        logger=TensorBoardLogger(folder, name="", version="tensorboard"),
        num_sanity_val_steps=0,
        enable_progress_bar=False,
        enable_model_summary=False,
    )

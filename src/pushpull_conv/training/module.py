"""The optimisation of one classifier, as a thin Lightning module."""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy

from pushpull_conv.errors import InputError, is_finite
from pushpull_conv.models import Classifier
from pushpull_conv.training.losses import distillation, jensen_shannon
from pushpull_conv.training.recipe import Training
from pushpull_conv.training.variants import Distillation

Batch = tuple[Tensor, Tensor, Tensor]
"""Images uint8 ``[B, 3, H, W]`` or, in V views, ``[B, V, 3, H, W]``; labels int64 ``[B]``; index int64 ``[B]``."""
BatchAugmentation = Callable[[Tensor, Tensor, int, int], Tensor]
"""From images uint8 ``[B, 3, H, W]``, their index, the epoch and the number of the view to images like the given."""


class ClassifierTraining(LightningModule):
    """Cross-entropy, SGD with momentum and a one-cycle learning rate stepped every batch.

    Logs ``loss`` and ``accuracy`` of the training batches and ``val_loss`` and ``val_accuracy`` of the held-out images,
    each as a mean over the epoch and all ranks; accuracies are fractions in [0, 1], of the first view of each image.

    Args:
        classifier: Maps uint8 images ``[B, 3, H, W]`` to logits ``[B, classes]``.
        settings: The recipe's ``training`` section.
        steps: Optimiser steps in the whole training, for the learning-rate cycle.
        seed: Reseeds the global generators at every epoch, so that a resumed run repeats the interrupted one
            also where the network itself draws (dropout, stochastic depth).
        augment: Changes training images on the device.
        consistency: Weight of the Jensen-Shannon divergence between an image and two augmented views of it.
        lesson: How to learn from ``teacher``.
        teacher: A trained classifier of the same classes.
    """

    def __init__(
        self,
        classifier: Classifier,
        settings: Training,
        *,
        steps: int,
        seed: int,
        augment: BatchAugmentation | None = None,
        consistency: float = 0.0,
        lesson: Distillation | None = None,
        teacher: Classifier | None = None,
    ) -> None:
        super().__init__()
        self.classifier = classifier
        self.settings = settings
        self.steps = steps
        self.seed = seed
        self.augment = augment
        self.consistency = consistency
        self.lesson = lesson
        if settings.compile:
            classifier.compile()
        self._teacher = [teacher.eval().requires_grad_(False)] if teacher else []  # in a list it is no part of us

    def on_train_start(self) -> None:
        """Bring the teacher, which is not trained and not saved, to the device."""
        for teacher in self._teacher:
            teacher.to(self.device)

    def on_train_epoch_start(self) -> None:
        """Make every draw of the epoch depend on (seed, epoch, rank) alone."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch + self.global_rank * 1_000_000_007)

    def training_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Return the mean ``loss`` of one batch, weighted by what this rank has of it, and the ``accuracy``."""
        loss, accuracy = self.loss(batch, self.current_epoch)
        means = {"loss": loss, "accuracy": accuracy}
        self.log_dict(means, on_step=False, on_epoch=True, batch_size=len(batch[1]), sync_dist=True)
        return means | {"loss": loss * self._share(loss, len(batch[1]))}

    def _share(self, loss: Tensor, count: int) -> Tensor:
        """This rank's images over an equal part: gradients are averaged over ranks, and one may have skipped images."""
        total = self.trainer.strategy.reduce(loss.new_full((), count), reduce_op="sum")
        return self.trainer.world_size * count / total

    def loss(self, batch: Batch, epoch: int) -> tuple[Tensor, Tensor]:
        """Return the loss of a training batch and the accuracy on its first views; ``epoch`` keys the draws."""
        views, labels = self._views(batch, epoch), batch[1]
        logits = _at_least_single(self.classifier(views.flatten(0, 1))).unflatten(0, views.shape[:2])
        loss = cross_entropy(logits[0], labels)
        if self.lesson:
            with torch.no_grad():
                taught = _at_least_single(self._teacher[0](views[0]))
            learned = distillation(logits[0], taught, self.lesson.temperature)
            loss = (1 - self.lesson.weight) * loss + self.lesson.weight * learned
        if self.consistency:
            loss = loss + self.consistency * jensen_shannon(logits)
        return loss, (logits[0].argmax(dim=1) == labels).float().mean()

    def on_validation_epoch_start(self) -> None:
        """Start to count."""
        self._sums = torch.zeros(3, dtype=torch.float64, device=self.device)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Add the loss and the hits of one batch of held-out images."""
        images, labels, _ = batch
        logits = _at_least_single(self.classifier(images))
        hits = (logits.argmax(dim=1) == labels).sum()
        self._sums += torch.stack([cross_entropy(logits, labels, reduction="sum"), hits, hits.new_tensor(len(labels))])

    def on_validation_epoch_end(self) -> None:
        """Log the mean loss and accuracy over the images of all ranks, however many each of them had.

        Raises:
            InputError: The loss is not finite. Nothing has been kept of the epoch yet.
        """
        loss, hits, count = self.trainer.strategy.reduce(self._sums, reduce_op="sum")
        if not is_finite(loss):
            raise InputError(
                f"the loss on the test images is {float(loss)} after epoch {self.current_epoch + 1}: the training "
                "diverged; lower training.learning_rate.top or train in precision 32-true, with another --out"
            )
        self.log_dict({"val_loss": loss / count, "val_accuracy": hits / count}, rank_zero_only=False)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return SGD and its one-cycle schedule; the momentum stays as the recipe says."""
        rate = self.settings.learning_rate
        rising = rate.rising if rate.rising * self.steps != 1 else 1.5 / self.steps  # OneCycleLR divides by zero there
        optimizer = torch.optim.SGD(
            self.classifier.parameters(),
            lr=rate.start,
            momentum=self.settings.momentum,
            weight_decay=self.settings.weight_decay,
        )
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=rate.top,
            total_steps=self.steps,
            pct_start=rising,
            div_factor=rate.top / rate.start,
            final_div_factor=rate.start / rate.end,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _views(self, batch: Batch, epoch: int) -> Tensor:
        """Return the views of the batch's images, augmented: uint8 ``[V, B, 3, H, W]``."""
        images, _, index = batch
        views = list(images.unbind(1)) if images.ndim == 5 else [images]
        if self.augment and self.consistency:
            views = [images, *(self.augment(images, index, epoch, view) for view in (1, 2))]
        elif self.augment:
            views = [self.augment(images, index, epoch, 0)]
        return torch.stack(views)


def _at_least_single(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))

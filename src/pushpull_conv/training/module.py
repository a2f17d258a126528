"""The optimisation of one classifier, as a thin Lightning module."""

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from torch.nn.functional import cross_entropy

from pushpull_conv.models import Classifier
from pushpull_conv.training.recipe import Training


class ClassifierTraining(LightningModule):
    """Cross-entropy, SGD with momentum and a one-cycle learning rate stepped every batch.

    Logs ``loss`` and ``accuracy`` of the training batches and ``val_loss`` and ``val_accuracy`` of the held-out images,
    each as a mean over the epoch; accuracies are fractions in [0, 1].

    Args:
        classifier: Maps uint8 images ``[B, 3, H, W]`` to logits ``[B, classes]``.
        settings: The recipe's ``training`` section.
        steps: Optimiser steps in the whole training, for the learning-rate cycle.
        seed: Reseeds the global generators at every epoch, so that a resumed run repeats the interrupted one
            also where the network itself draws (dropout, stochastic depth).
    """

    def __init__(self, classifier: Classifier, settings: Training, *, steps: int, seed: int) -> None:
        super().__init__()
        self.classifier = classifier
        self.settings = settings
        self.steps = steps
        self.seed = seed

    def on_train_epoch_start(self) -> None:
        """Make every draw of the epoch depend on (seed, epoch) alone."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> dict[str, Tensor]:
        """Return the mean cross-entropy (``loss``) and the accuracy of one batch of uint8 images and labels."""
        loss, accuracy = self._loss_and_accuracy(batch)
        self.log_dict({"loss": loss, "accuracy": accuracy}, on_step=False, on_epoch=True, batch_size=len(batch[1]))
        return {"loss": loss, "accuracy": accuracy}

    def validation_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> None:
        """Log the loss and accuracy of one batch of held-out images."""
        loss, accuracy = self._loss_and_accuracy(batch)
        self.log_dict({"val_loss": loss, "val_accuracy": accuracy}, batch_size=len(batch[1]))

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """Return SGD and its one-cycle schedule; the momentum stays as the recipe says."""
        rate = self.settings.learning_rate
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
            pct_start=rate.rising,
            div_factor=rate.top / rate.start,
            final_div_factor=rate.start / rate.end,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def _loss_and_accuracy(self, batch: tuple[Tensor, Tensor]) -> tuple[Tensor, Tensor]:
        images, labels = batch
        logits = self.classifier(images).float()
        return cross_entropy(logits, labels), (logits.argmax(dim=1) == labels).float().mean()

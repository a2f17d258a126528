"""What a user sees of a training while it runs, and the record that stays."""

import contextlib
import csv
import signal
import threading
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console

from pushpull_conv.data import ImageSource, identity_of, same_images
from pushpull_conv.errors import InputError
from pushpull_conv.files import EPOCHS_FOLDER, MODEL_FILE, atomic_write
from pushpull_conv.models import Classifier, ModelSpec, save_checkpoint
from pushpull_conv.progress import progress_bar
from pushpull_conv.ranks import Ranks

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


class EpochLog(Callback):
    """Keep one row of metrics per epoch in a CSV file, whole also over interruptions.

    The rows travel in the checkpoint, so a resumed run neither loses the earlier epochs nor repeats one.

    Args:
        path: The CSV file; columns ``epoch, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds``. The
            rate is that of the epoch's last step.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._started = self._rate = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._started = time.monotonic()

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Note the learning rate with which the step is made."""
        self._rate = trainer.optimizers[0].param_groups[0]["lr"]

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row; checkpoints are written after this hook, so the row is in them."""
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        row |= {name: float(trainer.callback_metrics[name]) for name in METRICS}
        row["learning_rate"] = self._rate
        row["seconds"] = round(time.monotonic() - self._started, 2)
        self.rows.append(row)
        if trainer.is_global_zero:
            _write_rows(self.path, self.rows)

    def state_dict(self) -> dict[str, Any]:
        """Return the rows for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows back from the checkpoint."""
        self.rows = state_dict["rows"]


class SameImages(Callback):
    """Refuse to go on with a training that was begun on other images, as far as `identity_of` tells.

    Args:
        images: What is learned from.
    """

    def __init__(self, images: ImageSource) -> None:
        self.identity = identity_of(images)

    def state_dict(self) -> dict[str, Any]:
        """Return the identity for the checkpoint."""
        return {"images": self.identity}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Compare that of the checkpoint."""
        if not same_images(state_dict["images"], self.identity):
            raise InputError(
                f"the training was begun on other images ({state_dict['images']}) than those at hand "
                f"({self.identity}); give the same --data, or another --out"
            )


class PlainTermination(Callback):
    """Let SIGTERM end a training as it ends any other program: at once, and with a status that says so.

    Lightning's handler ends it with status 0, as if the model were there, and has several ranks wait for each other.
    Nothing is lost without it, because every epoch's checkpoint is whole. Make it before the training starts.
    """

    def __init__(self) -> None:
        self.found = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Put back what Lightning has just replaced."""
        if threading.current_thread() is threading.main_thread():  # elsewhere Lightning leaves the signals alone, too
            signal.signal(signal.SIGTERM, self.found)
        if trainer.received_sigterm:
            signal.raise_signal(signal.SIGTERM)


class KeptEpochs(Callback):
    """Keep the weights after every so many epochs, for a benchmark of how robustness grows; not the last, the model.

    Args:
        folder: Receives ``epochs/<epoch>/model.safetensors``.
        classifier: What is trained.
        spec: Rebuilds it.
        every: The number of epochs.
    """

    def __init__(self, folder: Path, classifier: Classifier, spec: ModelSpec, every: int) -> None:
        self.folder = folder
        self.classifier = classifier
        self.spec = spec
        self.every = every

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Save the weights if it is their turn."""
        epoch = trainer.current_epoch + 1
        if trainer.is_global_zero and epoch % self.every == 0 and epoch != trainer.max_epochs:
            folder = self.folder / EPOCHS_FOLDER / f"{epoch:03}"
            folder.mkdir(parents=True, exist_ok=True)
            save_checkpoint(folder / MODEL_FILE, self.classifier, self.spec)


class UnreadableLog(Callback):
    """Keep a list of the training images that could not be read, whole also over interruptions.

    Args:
        path: The CSV file; columns ``epoch`` (the first that missed it), ``reason``. There is none without such images.
        ranks: The processes that train together.
    """

    def __init__(self, path: Path, ranks: Ranks) -> None:
        self.path = path
        self.ranks = ranks
        self.rows: dict[str, dict[str, Any]] = {}

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add what the epoch has met with."""
        for unreadable in self.ranks.gather(getattr(trainer.train_dataloader, "unreadable", {})):
            for reason in unreadable.values():
                self.rows.setdefault(reason, {"epoch": trainer.current_epoch + 1, "reason": reason})
        if self.rows and trainer.is_global_zero:
            _write_rows(self.path, list(self.rows.values()))

    def state_dict(self) -> dict[str, Any]:
        """Return the rows for the checkpoint."""
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take the rows back from the checkpoint."""
        self.rows = state_dict["rows"]


class TrainingProgress(Callback):
    """A bar over all steps with loss, accuracy and time left, and one line that stays per epoch.

    Args:
        label: The variant's name.
        console: Where to draw; the bar shows on terminals only, the lines everywhere.
    """

    def __init__(self, label: str, console: Console) -> None:
        self.label = label
        self.console = console
        self._bar = contextlib.ExitStack()
        self._loss = self._accuracy = float("nan")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar where the run begins or resumes."""
        if not trainer.is_global_zero:
            return
        self._show = self._bar.enter_context(progress_bar(self.console, self.label))
        self._total = int(trainer.estimated_stepping_batches)
        self._show(trainer.global_step, self._total, "")

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar; read the loss rarely, because reading waits for the device."""
        if not trainer.is_global_zero:
            return
        if batch_idx % 10 == 0:
            self._loss, self._accuracy = float(outputs["loss"]), float(outputs["accuracy"])
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        state = f"{epoch}  loss {self._loss:.3f}  accuracy {self._accuracy:.1%}"
        self._show(trainer.global_step, self._total, state)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave one line for the epoch."""
        if not trainer.is_global_zero:
            return
        loss, accuracy, _, val_accuracy = (float(trainer.callback_metrics[name]) for name in METRICS)
        self.console.print(
            f"{self.label}  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {loss:.3f}  "
            f"accuracy {accuracy:.1%} training, {val_accuracy:.1%} test",
            highlight=False,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._bar.close()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back whatever went wrong."""
        self._bar.close()


def _write_rows(path: Path, rows: list[dict[str, Any]]) -> None:
    with (
        atomic_write(path) as temporary,
        temporary.open("w", newline="", encoding="utf-8", errors="backslashreplace") as file,  # any name of an image
    ):
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)

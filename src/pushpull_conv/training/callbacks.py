"""What a user sees of a training while it runs, and the record that stays."""

import csv
import time
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, LightningModule, Trainer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from pushpull_conv.files import atomic_write

METRICS = ("loss", "accuracy", "val_loss", "val_accuracy")


class EpochLog(Callback):
    """Keep one row of metrics per epoch in a CSV file, whole also over interruptions.

    The rows travel in the checkpoint, so a resumed run neither loses the earlier epochs nor repeats one.

    Args:
        path: The CSV file; columns ``epoch, loss, accuracy, val_loss, val_accuracy, learning_rate, seconds``.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, float]] = []
        self._started = 0.0

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Start the epoch's clock."""
        self._started = time.monotonic()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Add the epoch's row; checkpoints are written after this hook, so the row is in them."""
        row: dict[str, float] = {"epoch": trainer.current_epoch + 1}
        row |= {name: float(trainer.callback_metrics[name]) for name in METRICS}
        row["learning_rate"] = trainer.optimizers[0].param_groups[0]["lr"]
        row["seconds"] = round(time.monotonic() - self._started, 2)
        self.rows.append(row)
        with atomic_write(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, fieldnames=list(row))
            writer.writeheader()
            writer.writerows(self.rows)

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
        self._loss = self._accuracy = float("nan")

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Open the bar where the run begins or resumes."""
        self._progress = Progress(
            TextColumn("[bold]{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
        )
        total = int(trainer.estimated_stepping_batches)
        self._task = self._progress.add_task(self.label, total=total, completed=trainer.global_step, state="")
        self._progress.start()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Advance the bar; read the loss rarely, because reading waits for the device."""
        if batch_idx % 10 == 0:
            self._loss, self._accuracy = float(outputs["loss"]), float(outputs["accuracy"])
        epoch = f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}"
        state = f"{epoch}  loss {self._loss:.3f}  accuracy {self._accuracy:.1%}"
        self._progress.update(self._task, completed=trainer.global_step, state=state)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Leave one line for the epoch."""
        loss, accuracy, _, val_accuracy = (float(trainer.callback_metrics[name]) for name in METRICS)
        self.console.print(
            f"{self.label}  epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  loss {loss:.3f}  "
            f"accuracy {accuracy:.1%} training, {val_accuracy:.1%} test",
            highlight=False,
        )

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Close the bar."""
        self._progress.stop()

    def on_exception(self, trainer: Trainer, pl_module: LightningModule, exception: BaseException) -> None:
        """Give the terminal back whatever went wrong."""
        if hasattr(self, "_progress"):
            self._progress.stop()

"""A Lightning callback that benchmarks a module while it trains."""

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.plugins import Precision
from torch import Tensor, nn

from pushpull_conv.benchmark import corruption_errors, evaluate, generated, suite_of
from pushpull_conv.benchmark.evaluation import wanted_cells
from pushpull_conv.corruptions import FrostTextures, load_frost
from pushpull_conv.data import ImageSource
from pushpull_conv.errors import InputError, require_positive
from pushpull_conv.models import Classifier

# By name, because pytorch_lightning has its own; by the exact one, because a subclass may split the model.
_STRATEGIES = ("SingleDeviceStrategy", "DDPStrategy")


class CorruptionBenchmark(Callback):
    """Log ``clean_error`` and ``mean_error`` of the module at the end of every k-th training epoch.

    ``mean_error`` is the mean over the chosen corruptions of the top-1 error averaged over the chosen severities; with
    all of both, `pushpull_conv.mean_error`. Both are fractions in [0, 1] and go to the module's logger. The module
    trains on as it would have without the callback: its training flags and random generators are left as they were.

    The processes of a DDP run share the corruptions between them and log the same numbers as one process does. Other
    distributed strategies are refused.

    A `lightning.pytorch.callbacks.ModelCheckpoint` that monitors one of them needs ``save_on_train_epoch_end=True`` and
    the same ``every_n_epochs``.

    Args:
        source: The clean images.
        every_n_epochs: How often: after epochs k, 2k, ...
        network: What of the module maps images to logits, as a function of the module. None: the module itself.
        mean: Mean of each channel for pixels in [0, 1], and
        std: their standard deviation: the network gets floats, normalised by them. None: it gets uint8 images.
        suite: As `pushpull_conv.evaluate`, like the rest.
        seed: Seed of the corruptions.
        corruptions: Names to run; None: the 15 of the benchmark.
        severities: Severities to run; None: 1 to 5.
        frost: The textures of frost.
        jpeg: Store corrupted images as JPEG, where the suite does.
        batch_size: Images at a time.

    Raises:
        InputError: An argument is unknown or does not fit the source; ``mean`` without ``std``.

    Example:
        >>> from pushpull_conv.data import load_images
        >>> digits = load_images("digits", "test")
        >>> callback = CorruptionBenchmark(digits, every_n_epochs=5, severities=[3], mean=(0.5,) * 3, std=(0.25,) * 3)
        >>> trainer = Trainer(max_epochs=20, callbacks=[callback], accelerator="cpu", logger=False)
    """

    def __init__(
        self,
        source: ImageSource,
        *,
        every_n_epochs: int = 1,
        network: Callable[[LightningModule], nn.Module] | None = None,
        mean: Sequence[float] | None = None,
        std: Sequence[float] | None = None,
        suite: str | None = None,
        seed: int = 0,
        corruptions: Iterable[str] | None = None,
        severities: Iterable[int] | None = None,
        frost: str | os.PathLike[str] | FrostTextures = "procedural",
        jpeg: bool = True,
        batch_size: int = 250,
    ) -> None:
        require_positive("every_n_epochs", every_n_epochs)
        if (mean is None) != (std is None):
            raise InputError("mean and std must be given together; give the other one too, or neither")
        _, *cells = wanted_cells(corruptions, severities)
        if not cells:
            raise InputError("corruptions and severities must not be empty; give at least one of each, or None for all")
        require_positive("batch_size", batch_size)
        textures = load_frost(frost)
        generated(source, suite_of(source, suite), seed=seed, frost=textures, jpeg=jpeg)  # refuses what does not fit
        self.source = source
        self.every_n_epochs = every_n_epochs
        self.network = network
        self.normalisation = None if mean is None or std is None else (mean, std)
        if self.normalisation:
            Classifier(nn.Identity(), *self.normalisation)
        self.corruptions = list(dict.fromkeys(name for name, _ in cells))
        self.settings: dict[str, Any] = {
            "suite": suite,
            "seed": seed,
            "severities": sorted({severity for _, severity in cells}),
            "frost": textures,
            "jpeg": jpeg,
            "batch_size": batch_size,
        }

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse a strategy under which processes cannot classify on their own."""
        strategy = type(trainer.strategy).__name__
        if strategy not in _STRATEGIES:
            raise InputError(
                f"CorruptionBenchmark cannot run under {strategy}; use one device or DDP, or evaluate the finished "
                "model"
            )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Benchmark, after every k-th epoch, and log."""
        if (trainer.current_epoch + 1) % self.every_n_epochs:
            return
        with _first_ranks_buffers(pl_module, trainer.world_size):
            results = evaluate(
                self._classifier(trainer, pl_module),
                self.source,
                corruptions=self.corruptions[trainer.global_rank :: trainer.world_size],
                device=pl_module.device,
                **self.settings,
            )
        own = torch.tensor(sum(corruption_errors(results).values()), dtype=torch.float32, device=pl_module.device)
        mean_error = trainer.strategy.reduce(own, reduce_op="sum") / len(self.corruptions)
        pl_module.log_dict({"clean_error": results.clean_error, "mean_error": mean_error})

    def _classifier(self, trainer: Trainer, module: LightningModule) -> nn.Module:
        """What maps uint8 images to logits at the trainer's precision."""
        network = _AtPrecision(self.network(module) if self.network else module, trainer.precision_plugin)
        return Classifier(network, *self.normalisation) if self.normalisation else network


@contextlib.contextmanager
def _first_ranks_buffers(module: LightningModule, ranks: int) -> Iterator[None]:
    """Let every process classify with the statistics of the first, which are those that a checkpoint holds."""
    buffers = list(module.buffers()) if ranks > 1 else []
    own = [buffer.clone() for buffer in buffers]
    for buffer in buffers:
        dist.broadcast(buffer, 0)
    try:
        yield
    finally:
        for buffer, kept in zip(buffers, own, strict=True):
            buffer.copy_(kept)


class _AtPrecision(nn.Module):
    """A network that runs as it does in the trainer's own steps."""

    def __init__(self, network: nn.Module, precision: Precision) -> None:
        super().__init__()
        self.network = network
        self.precision = precision

    def forward(self, images: Tensor) -> Tensor:
        with self.precision.forward_context():
            return self.network(self.precision.convert_input(images))

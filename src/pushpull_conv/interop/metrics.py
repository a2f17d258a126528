"""Mean error and mCE as torchmetrics, for an evaluation loop of one's own."""

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from pushpull_conv.benchmark import mce, mean_error
from pushpull_conv.benchmark.evaluation import label_ranks
from pushpull_conv.benchmark.metrics import IMAGENET_CLASSES, Baseline
from pushpull_conv.corruptions import CORRUPTIONS, SEVERITIES, require_severity
from pushpull_conv.corruptions.spec import NAMES
from pushpull_conv.errors import InputError, require_name


class _CorruptionMetric(Metric):
    """Counts of hits by corruption and severity, summed over the processes of a distributed run.

    Every update is of one corruption at one severity. The extra four corruptions are taken and play no part.
    """

    is_differentiable = False
    higher_is_better = False
    full_state_update = False

    seen: Tensor
    right: Tensor
    not_finite: Tensor

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        shape = (len(NAMES), len(SEVERITIES))
        self.add_state("seen", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("right", torch.zeros(shape, dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("not_finite", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")

    def update(self, logits: Tensor, labels: Tensor, *, corruption: str, severity: int) -> None:
        """Count one batch.

        Args:
            logits: ``[B, K]``.
            labels: int64 ``[B]``.
            corruption: The images' corruption.
            severity: Its severity, 1 to 5.

        Raises:
            InputError: There is no such corruption or severity, or logits and labels do not fit each other.
        """
        row = NAMES.index(require_name("corruption", corruption, NAMES))
        require_severity(severity)
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            raise InputError(f"logits have shape {[*logits.shape]} and labels {[*labels.shape]}; give [B, K] and [B]")
        if len(labels) and not 0 <= int(labels.min()) <= int(labels.max()) < logits.shape[1]:
            raise InputError(
                f"labels are {int(labels.min())} to {int(labels.max())}; allowed: 0 to {logits.shape[1] - 1}"
            )
        ranks = label_ranks(logits, labels)
        cell = torch.zeros_like(self.seen)
        cell[row, severity - 1] = 1
        # Never in place: the metrics of a collection share these tensors, and in its `forward` each of them counts.
        self.seen = self.seen + cell * len(labels)
        self.right = self.right + cell * (ranks == 0).sum()
        self.not_finite = self.not_finite + (ranks < 0).sum()

    def forward(self, *args: Any, **kwargs: Any) -> None:
        """Count one batch, as `update`; a batch is of one corruption and has no value of its own."""
        self.update(*args, **kwargs)

    def _errors(self) -> dict[str, list[float]]:
        """The error of each severity that was seen, by corruption."""
        if self.not_finite:
            raise InputError(f"logits of {int(self.not_finite)} images are not finite; check weights and precision")
        counted = zip(NAMES, self.right.tolist(), self.seen.tolist(), strict=True)
        return {
            name: [(n - hits) / n for hits, n in zip(right, seen, strict=True) if n] for name, right, seen in counted
        }

    def _scalar(self, value: float) -> Tensor:
        return torch.tensor(value, device=self.seen.device)


class MeanError(_CorruptionMetric):
    """Mean over the 15 corruptions of the top-1 error averaged over the 5 severities, in [0, 1].

    It is `pushpull_conv.mean_error` of the images that were seen.

    Args:
        kwargs: Arguments of `torchmetrics.Metric` (``dist_sync_on_step``, ``sync_on_compute``, ...).

    Example:
        >>> from pushpull_conv import CORRUPTIONS
        >>> metric = MeanError()
        >>> for corruption in CORRUPTIONS:
        ...     for severity in range(1, 6):
        ...         metric.update(torch.eye(4), torch.tensor([0, 1, 2, 0]), corruption=corruption, severity=severity)
        >>> metric.compute()
        tensor(0.2500)
    """

    def compute(self) -> Tensor:
        """Return the mean error of all that was counted, a float32 scalar.

        Raises:
            InputError: A corruption or severity of the benchmark was never seen, or a logit was not finite.
        """
        return self._scalar(mean_error(self._errors()))


class MCE(_CorruptionMetric):
    """Mean over the 15 corruptions of the error relative to a baseline's; 1.0 is as good as the baseline.

    It is `pushpull_conv.mce` of the images that were seen. In a `torchmetrics.MetricCollection` it shares its counts
    with `MeanError`.

    Args:
        baseline: `pushpull_conv.Results`, or the error of each of the 5 severities by corruption, or ``"alexnet"`` for
            its published errors on ImageNet-C.
        kwargs: As `MeanError`.

    Raises:
        InputError: The baseline is not one of these, lacks a corruption or severity, or never errs.

    Example:
        >>> from pushpull_conv import CORRUPTIONS
        >>> metric = MCE(baseline={name: (0.1, 0.2, 0.5, 0.8, 0.9) for name in CORRUPTIONS})
        >>> for corruption in CORRUPTIONS:
        ...     for severity in range(1, 6):
        ...         metric.update(torch.eye(4), torch.tensor([0, 1, 2, 0]), corruption=corruption, severity=severity)
        >>> metric.compute()
        tensor(0.5000)
    """

    def __init__(self, baseline: Baseline, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        mce(dict.fromkeys(CORRUPTIONS, (0.0,) * len(SEVERITIES)), baseline)  # now, not after the last batch
        self.baseline = baseline

    def update(self, logits: Tensor, labels: Tensor, *, corruption: str, severity: int) -> None:
        """Count one batch, as `MeanError.update`; against ``"alexnet"`` the logits must be of 1000 classes."""
        if self.baseline == "alexnet" and logits.shape[-1] != IMAGENET_CLASSES:
            raise InputError(
                f"baseline 'alexnet' has errors on {IMAGENET_CLASSES} classes, the logits have {logits.shape[-1]}; "
                "give the errors of a baseline of yours"
            )
        super().update(logits, labels, corruption=corruption, severity=severity)

    def compute(self) -> Tensor:
        """Return the mCE of all that was counted, a float32 scalar; 1.0 is the baseline's.

        Raises:
            InputError: As `MeanError.compute`.
        """
        return self._scalar(mce(self._errors(), self.baseline))

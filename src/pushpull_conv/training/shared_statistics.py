"""Batch normalisation by the whole batch where several processes share it."""

from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from pushpull_conv.errors import InputError, require_module
from pushpull_conv.models import Classifier


def with_shared_statistics(classifier: Classifier, device: torch.device) -> Classifier:
    """Let batch normalisation take mean and variance over all ranks, so that the training is that of one process.

    On GPUs by torch's own `SyncBatchNorm`. Parameters and buffers stay the same tensors; the classifier is changed in
    place and returned.

    Raises:
        InputError: The devices are CPUs and a layer is not exactly a `BatchNorm2d`, such as timm's with an activation.
    """
    if device.type == "cuda":
        layers = require_module("timm.layers", "train")
        return layers.convert_sync_batchnorm(classifier)  # torch's drops the activation that is in some of timm's
    for name, module in classifier.named_modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            usual = type(module) is nn.BatchNorm2d and module.affine and module.track_running_stats
            if not usual or module.momentum is None:
                shown = f"{type(module).__name__}({module.extra_repr()})"
                raise InputError(
                    f"model's layer '{name}' is {shown}, whose statistics several processes on CPUs cannot share; use "
                    "--devices 1, or GPUs"
                )
            module.__class__ = SharedBatchNorm2d
    return classifier


class SharedBatchNorm2d(nn.BatchNorm2d):
    """A `BatchNorm2d` whose batch is that of all ranks together, however many images each of them has."""

    num_batches_tracked: Tensor
    running_mean: Tensor
    running_var: Tensor
    momentum: float

    def forward(self, input: Tensor) -> Tensor:
        """Normalise ``[B, C, H, W]``; while training, by statistics of all ranks."""
        if not self.training:
            return super().forward(input)
        values = input.to(self.running_mean.dtype)
        own = values.new_tensor([values.numel() // values.shape[1]])
        totals = _SumOverRanks.apply(torch.cat([values.sum((0, 2, 3)), own]))  # at once: each sum waits for all ranks
        count = totals[-1].detach().double()
        mean = totals[:-1] / count
        centred = values - mean[:, None, None]
        variance = _SumOverRanks.apply(centred.square().sum((0, 2, 3))) / count
        self._follow(mean.detach(), variance.detach(), count)
        scale = self.weight * torch.rsqrt(variance + self.eps)
        return (centred * scale[:, None, None] + self.bias[:, None, None]).to(input.dtype)

    def _follow(self, mean: Tensor, variance: Tensor, count: Tensor) -> None:
        """Move the running statistics as `torch.nn.functional.batch_norm` does."""
        self.num_batches_tracked.add_(1)
        self.running_mean.lerp_(mean, self.momentum)
        self.running_var.lerp_(variance * (count / (count - 1)), self.momentum)


class _SumOverRanks(torch.autograd.Function):
    """The sum of every rank's tensor; every rank's loss depends on each of them, so gradients are summed alike."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        return _summed(values)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        return _summed(*gradients)


def _summed(values: Tensor) -> Tensor:
    total = values.contiguous().clone()
    dist.all_reduce(total)
    return total

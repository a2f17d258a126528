"""What a network is trained to make small, beside the cross-entropy."""

import math

from torch import Tensor
from torch.nn.functional import kl_div, log_softmax, softmax


def jensen_shannon(logits: Tensor) -> Tensor:
    """Return the Jensen-Shannon divergence between a network's outputs for the views of an image, in nats.

    It is 0 where all views are classified alike and at most ln V (Hendrycks et al., AugMix, arXiv 1912.02781, eq. 2).

    Args:
        logits: ``[V, B, classes]``, floating point.

    Returns:
        The mean over the batch, a scalar.

    Example:
        >>> import torch
        >>> jensen_shannon(torch.tensor([[[20.0, -20.0]], [[-20.0, 20.0]]])).item()  # ln 2
        0.6931471824645996
    """
    log_shares = log_softmax(logits, dim=-1)
    log_mixture = log_shares.logsumexp(dim=0) - math.log(len(logits))
    return (log_shares.exp() * (log_shares - log_mixture)).sum(dim=-1).mean()


def distillation(student: Tensor, teacher: Tensor, temperature: float) -> Tensor:
    """Return how far a student's softened outputs are from its teacher's (Hinton, Vinyals & Dean, arXiv 1503.02531).

    The Kullback-Leibler divergence at the temperature T times T^2, so that its gradient does not fade with T.

    Args:
        student: Logits ``[B, classes]``.
        teacher: Logits ``[B, classes]``; no gradient reaches them.
        temperature: T, above 0.

    Returns:
        The mean over the batch, a scalar.
    """
    wanted = softmax(teacher.detach() / temperature, dim=-1)
    return kl_div(log_softmax(student / temperature, dim=-1), wanted, reduction="batchmean") * temperature**2

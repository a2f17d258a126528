"""The losses against their formulas, written out in float64."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pushpull_conv.training.losses import distillation, jensen_shannon


def logits(*shape, seed=0, scale=3.0):
    return torch.from_numpy(np.random.default_rng(seed).normal(scale=scale, size=shape))


def shares(values):
    exponentials = np.exp(values - values.max(-1, keepdims=True))
    return exponentials / exponentials.sum(-1, keepdims=True)


@given(views=st.integers(2, 4), seed=st.integers(0, 1000))
def test_jensen_shannon_is_the_mean_divergence_to_the_mixture(views, seed):
    values = logits(views, 5, 7, seed=seed)
    parts = shares(values.numpy())
    mixture = parts.mean(0)
    expected = np.mean([(part * np.log(part / mixture)).sum(-1) for part in parts])
    assert jensen_shannon(values).item() == pytest.approx(expected, rel=1e-10)
    assert 0 <= jensen_shannon(values) <= math.log(views)


def test_jensen_shannon_of_equal_views_is_zero_and_of_certain_opposites_ln_2():
    same = logits(1, 4, 10).expand(3, -1, -1)
    assert jensen_shannon(same).item() == pytest.approx(0, abs=1e-12)
    certain = torch.tensor([[[1e4, 0.0]], [[0.0, 1e4]]])
    assert jensen_shannon(certain).item() == pytest.approx(math.log(2))


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_distillation_is_the_softened_divergence_times_the_square(temperature):
    student, teacher = logits(6, 10, seed=1).requires_grad_(), logits(6, 10, seed=2).requires_grad_()
    wanted, given_ = (shares(values.detach().numpy() / temperature) for values in (teacher, student))
    expected = temperature**2 * np.mean((wanted * np.log(wanted / given_)).sum(-1))
    loss = distillation(student, teacher, temperature)
    assert loss.item() == pytest.approx(expected, rel=1e-10)
    loss.backward()
    assert teacher.grad is None
    assert np.allclose(student.grad.numpy(), temperature * (given_ - wanted) / 6)

"""Probabilities that keep the order of their logits."""

import math

import torch

from cxrtut.nn.probability import probabilities


def test_it_is_the_logistic_function():
    logits = torch.tensor([[-3.0, 0.0], [0.5, 8.0]])
    found = probabilities(logits)
    assert found.shape == logits.shape and found[0, 1] == 0.5
    for p, z in zip(found.flatten().tolist(), logits.flatten().tolist(), strict=True):
        assert math.isclose(p, 1 / (1 + math.exp(-z)), rel_tol=1e-12)


def test_sure_logits_keep_their_order():
    logits = torch.linspace(-30, 30, 601)
    assert (torch.sigmoid(logits).diff() == 0).any(), "in float32 they do not"
    assert (probabilities(logits).diff() > 0).all()


def test_probabilities_stay_between_0_and_1_whatever_the_logits():
    found = probabilities(torch.tensor([-1e9, -800.0, 800.0, 1e9, math.inf, -math.inf]))
    assert found.tolist() == [0, 0, 1, 1, 1, 0]
    assert probabilities(torch.tensor([math.nan])).isnan().all()


def test_half_precision_is_worked_out_in_double():
    logits = torch.tensor([4.0, -9.0], dtype=torch.bfloat16)
    assert probabilities(logits).dtype == torch.float64
    assert torch.equal(probabilities(logits), torch.sigmoid(logits.double()))


def test_no_logits_are_no_probabilities():
    assert probabilities(torch.zeros(0, 3)).shape == (0, 3)


def test_the_gradient_is_p_times_1_minus_p():
    logits = torch.tensor([-2.0, 0.0, 3.0], requires_grad=True)
    probabilities(logits).sum().backward()
    p = torch.sigmoid(logits.detach())
    assert torch.allclose(logits.grad, p * (1 - p), atol=1e-6)

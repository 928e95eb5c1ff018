import inspect
import math
import re

import pytest
import torch
from torch import Tensor

from cxrtut.losses.weighted_bce import weighted_bce_loss

BOTH = pytest.mark.parametrize("weights", ["batch", "class"])


def batch(n: int = 7, classes: int = 4, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits, and labels with a one and a zero in every class."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    labels = (torch.rand(n, classes, generator=generator) < 0.25).double()
    labels[0], labels[1] = 1.0, 0.0
    return logits, labels


def printed(logits: list[float], labels: list[float]) -> float:
    """Eq. (10) as printed, entry by entry, with the sigmoid and the logarithms."""
    n_positive = sum(labels)
    n_negative = len(labels) - n_positive
    total = 0.0
    for z, y in zip(logits, labels, strict=True):
        p = 1 / (1 + math.exp(-z))
        if y == 1:
            total += (n_positive + n_negative) / n_positive * -math.log(p)
        else:
            total += (n_positive + n_negative) / n_negative * -math.log(1 - p)
    return total


@BOTH
@pytest.mark.parametrize(("n", "classes"), [(2, 1), (7, 4), (32, 14)])
def test_a_classifier_that_knows_nothing_loses_twice_the_logarithm_of_two(weights, n, classes):
    logits, labels = batch(n, classes)
    loss = weighted_bce_loss(torch.zeros_like(logits), labels, weights=weights)
    assert math.isclose(loss.item(), 2 * math.log(2), rel_tol=1e-12)


def test_the_sum_in_print_is_the_number_of_labels_times_ours():
    logits, labels = batch()
    loss = weighted_bce_loss(logits, labels)
    expected = printed(logits.flatten().tolist(), labels.flatten().tolist())
    assert math.isclose(labels.numel() * loss.item(), expected, rel_tol=1e-9)


def test_weights_by_class_are_the_printed_equation_on_each_column():
    logits, labels = batch()
    loss = weighted_bce_loss(logits, labels, weights="class")
    columns = zip(logits.T.tolist(), labels.T.tolist(), strict=True)
    expected = sum(printed(z, y) / len(y) for z, y in columns) / labels.shape[1]
    assert math.isclose(loss.item(), expected, rel_tol=1e-9)
    assert not math.isclose(loss.item(), weighted_bce_loss(logits, labels).item(), rel_tol=1e-2)


def test_the_batch_counts_labels_over_all_classes_and_not_images():
    """One ill image of two, with one label of four: w_P = 8 / 1, not 2 / 1."""
    labels = torch.zeros(2, 4)
    labels[0, 0] = 1.0
    logits = torch.zeros(2, 4, requires_grad=True)
    weighted_bce_loss(logits, labels).backward()
    assert math.isclose(logits.grad[0, 0].item(), -0.5 * 8 / 8, rel_tol=1e-6)
    assert torch.allclose(logits.grad[1], torch.tensor(0.5 * (8 / 7) / 8))


@BOTH
def test_positives_weigh_as_much_as_negatives(weights):
    """At chance every label pulls with half its weight: the pulls of the halves are equal."""
    logits, labels = batch(n=64)
    logits = torch.zeros_like(logits, requires_grad=True)
    weighted_bce_loss(logits, labels, weights=weights).backward()
    pull = -logits.grad * (2 * labels - 1)
    assert (pull > 0).all()
    over = (0, 1) if weights == "batch" else (0,)
    positive, negative = (pull * labels).sum(over), (pull * (1 - labels)).sum(over)
    assert torch.allclose(positive, negative) and math.isclose(pull.sum(), 1.0, rel_tol=1e-12)


@pytest.mark.parametrize("label", [0.0, 1.0])
@BOTH
def test_an_empty_half_is_dropped(label, weights):
    logits, labels = batch()[0], torch.full((7, 4), label, dtype=torch.float64)
    logits.requires_grad_()
    loss = weighted_bce_loss(logits, labels, weights=weights)
    loss.backward()
    plain = torch.nn.functional.binary_cross_entropy_with_logits(logits, labels)
    assert math.isclose(loss.item(), plain.item(), rel_tol=1e-9)
    assert logits.grad.isfinite().all() and (logits.grad * (1 - 2 * label) > 0).all()


def test_a_class_without_positives_keeps_its_negatives_and_leaves_the_others_alone():
    logits, labels = batch()
    labels[:, 2] = 0.0
    each = [weighted_bce_loss(logits[:, [k]], labels[:, [k]]) for k in range(4)]
    whole = weighted_bce_loss(logits, labels, weights="class")
    assert torch.allclose(whole, torch.stack(each).mean())
    softplus = torch.nn.functional.softplus(logits[:, 2])
    assert torch.allclose(each[2], softplus.mean())


@BOTH
def test_logits_of_a_thousand_give_finite_losses_and_gradients(weights):
    logits = torch.tensor([[1000.0, -1000.0], [-1000.0, 1000.0]], requires_grad=True)
    for labels, expected in ((torch.eye(2), 0.0), (1 - torch.eye(2), 2000.0)):
        logits.grad = None
        loss = weighted_bce_loss(logits, labels, weights=weights)
        loss.backward()
        assert loss.item() == expected and logits.grad.isfinite().all()


@BOTH
def test_the_gradient_agrees_with_finite_differences(weights):
    logits, labels = batch()
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda z: weighted_bce_loss(z, labels, weights=weights), logits)


@BOTH
def test_a_logit_on_the_wrong_side_costs_more(weights):
    labels = torch.tensor([[1.0], [0.0]])
    losses = [
        weighted_bce_loss(torch.tensor([[z], [-z]]), labels, weights=weights)
        for z in (-2.0, 0.0, 2.0)
    ]
    assert losses[0] > losses[1] > losses[2]


@BOTH
def test_no_value_is_read_back_from_the_device(weights):
    """Tensors on the meta device have no values: to read one, or to branch on it, raises."""
    logits = torch.zeros(3, 2, device="meta", requires_grad=True)
    labels = torch.zeros(3, 2, device="meta")
    loss = weighted_bce_loss(logits, labels, weights=weights)
    loss.backward()
    assert loss.shape == () and logits.grad.shape == (3, 2)


def test_half_precision_is_computed_in_float32():
    logits, labels = (x.bfloat16() for x in batch(n=600))
    loss = weighted_bce_loss(logits, labels)
    assert loss.dtype == torch.float32
    assert torch.equal(loss, weighted_bce_loss(logits.float(), labels.float()))


@pytest.mark.parametrize("weights", ["image", "", "Batch"])
def test_unknown_weights_are_an_error(weights):
    with pytest.raises(ValueError, match=f'expected "batch" or "class", got {weights!r}'):
        weighted_bce_loss(*batch(), weights=weights)


@pytest.mark.parametrize(
    ("logits", "labels"), [((3, 2), (3, 1)), ((3, 2), (2, 3)), ((0, 2), (0, 2)), ((3, 0), (3, 0))]
)
def test_shapes_that_do_not_fit_are_an_error(logits, labels):
    with pytest.raises(ValueError, match=re.escape(f"at least one, got {logits} and {labels}")):
        inspect.unwrap(weighted_bce_loss)(torch.zeros(logits), torch.zeros(labels))

"""The losses of a translation between domains: by hand, sign by sign."""

import math

import pytest
import torch
from torch import Tensor, nn

from cxrtut.losses.domain_translation import (
    discriminator_loss,
    domain_loss,
    domain_vector,
    healthy_domain,
    origin_and_target,
    translation_loss,
)

LAMBDAS = {"lambda_gp": 10.0, "lambda_cls": 1.0}


class Judge(nn.Module):
    """Two patches: w and 3 w times the sum of an image; logits -v and v times its mean."""

    def __init__(self, w: float = 0.5, v: float = 2.0) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.tensor(w)), nn.Parameter(torch.tensor(v))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        total, mean = x.sum((1, 2, 3)), x.mean((1, 2, 3))
        score = torch.stack((self.w * total, 3 * self.w * total), 1)[:, None, None]
        return score, torch.stack((-self.v * mean, self.v * mean), 1)


def images() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    generator = torch.Generator().manual_seed(2)
    real, fake = (torch.rand(3, 2, 4, 4, generator=generator) * 2 - 1 for _ in range(2))
    domain = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    return real, fake, domain, torch.tensor([0.25, 0.5, 1.0])


def log_probability(judge: Judge, image: Tensor, domain: int) -> float:
    z = judge.v.item() * image.mean().item()
    logits = (-z, z)
    return logits[domain] - math.log(sum(math.exp(v) for v in logits))


def test_any_disease_makes_an_image_of_the_second_domain():
    labels = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    assert domain_vector(labels).tolist() == [[1, 0], [0, 1], [0, 1]]
    assert domain_vector(torch.zeros(0, 3)).shape == (0, 2)


def test_each_disease_can_be_a_domain_and_several_of_an_image_share_it():
    labels = torch.tensor([[0.0, 0.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 1.0]])
    assert domain_vector(labels, 4).tolist() == [[1, 0, 0, 0], [0, 0, 0, 1], [0, 0.5, 0, 0.5]]
    assert domain_vector(torch.zeros(0, 3), 4).shape == (0, 4)
    one = torch.tensor([[0.0], [1.0]])
    assert torch.equal(domain_vector(one, 2), domain_vector(one))


@pytest.mark.parametrize("domains", [1, 3, 5])
def test_another_number_of_domains_is_refused(domains):
    with pytest.raises(ValueError, match=f"expected 2, or 4 for 3 diseases, got {domains}"):
        domain_vector(torch.zeros(2, 3), domains)


def test_the_healthy_domain_is_that_of_images_without_disease():
    found = healthy_domain(torch.zeros(3, 1, 4, 4, dtype=torch.float64))
    assert found.dtype == torch.float64
    assert torch.equal(found.float(), domain_vector(torch.zeros(3, 5)))


def test_origin_and_target_are_the_labels_and_those_that_are_asked_for():
    labels, asked = torch.tensor([[0.0, 1.0], [0.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])
    origin, target = origin_and_target(labels, asked)
    assert origin.tolist() == [[0, 1], [1, 0]] and target.tolist() == [[1, 0], [0, 1]]
    origin, target = origin_and_target(labels, asked, 3)
    assert origin.tolist() == [[0, 0, 1], [1, 0, 0]]
    assert target.tolist() == [[1, 0, 0], [0, 0.5, 0.5]]


def test_a_batch_without_target_labels_is_refused():
    with pytest.raises(ValueError, match="target_vector: expected target labels, got none; ask"):
        origin_and_target(torch.zeros(2, 1), None)


def test_the_domain_loss_is_minus_the_mean_log_probability_of_the_domain():
    logits = torch.tensor([[1.0, -1.0], [0.0, 0.0], [3.0, 1.0]])
    domain = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    each = [math.log(1 + math.exp(-2)), math.log(2), math.log(1 + math.exp(2))]
    assert domain_loss(logits, domain).item() == pytest.approx(sum(each) / 3, rel=1e-6)


def test_the_domain_loss_of_k_domains_is_log_k_for_a_blind_judge_whatever_the_logits_level():
    domain = torch.eye(5)
    assert domain_loss(torch.full((5, 5), 40.0), domain).item() == pytest.approx(math.log(5))


def test_the_domain_loss_of_logits_in_half_precision_is_that_in_float32():
    logits, domain = torch.tensor([[2.5, -1.25], [0.75, 0.5]]), torch.eye(2)
    half = domain_loss(logits.bfloat16(), domain)
    assert half.dtype == torch.float32 and torch.equal(half, domain_loss(logits, domain))


def test_the_discriminator_loss_is_that_of_the_formula():
    judge, (real, fake, domain, mix) = Judge(), images()
    loss, terms = discriminator_loss(judge, real, fake, domain, mix, lambda_gp=7.0, lambda_cls=3.0)
    # patches w s and 3 w s: their mean is 2 w s, and the slope of their sum 4 w at 32 numbers
    distance = 2 * 0.5 * (real.sum((1, 2, 3)).mean() - fake.sum((1, 2, 3)).mean()).item()
    penalty = (4 * 0.5 * math.sqrt(32) - 1) ** 2
    known = [int(d.argmax()) for d in domain]
    cls = -sum(log_probability(judge, x, d) for x, d in zip(real, known, strict=True)) / 3
    assert {k: v.item() for k, v in terms.items()} == {
        "distance": pytest.approx(distance, rel=1e-4), "penalty": pytest.approx(penalty, rel=1e-5),
        "cls": pytest.approx(cls, rel=1e-5),
    }  # fmt: skip
    assert loss.item() == pytest.approx(-distance + 7 * penalty + 3 * cls, rel=1e-5)


def test_the_penalty_is_taken_of_each_whole_image_between_the_real_and_the_fake():
    def judge(x):
        return 1.5 * x.square().sum((1, 2, 3))[:, None, None, None], x.mean((2, 3))

    real, fake, domain, mix = images()
    _, terms = discriminator_loss(judge, real, fake, domain, mix, **LAMBDAS)
    expected = 0.0
    for a, x, y in zip(mix.tolist(), real, fake, strict=True):
        squares = sum(v**2 for v in (a * x + (1 - a) * y).flatten().tolist())
        expected += (3 * math.sqrt(squares) - 1) ** 2 / 3
    assert terms["penalty"].item() == pytest.approx(expected, rel=1e-5)


def test_a_step_of_the_discriminator_raises_real_above_fake_and_names_domains_better():
    torch.manual_seed(0)
    layers = nn.Sequential(nn.Conv2d(2, 8, 3, 2, 1), nn.LeakyReLU(0.01), nn.Conv2d(8, 3, 2))

    def judge(x):
        answers = layers(x)
        return answers[:, :1], answers[:, 1:].mean((2, 3))

    real, fake, domain, mix = images()
    for lambdas, name, rises in (
        ({"lambda_gp": 0.0, "lambda_cls": 0.0}, "distance", True),
        ({"lambda_gp": 1e3, "lambda_cls": 0.0}, "penalty", False),
        ({"lambda_gp": 0.0, "lambda_cls": 1e3}, "cls", False),
    ):
        optimizer = torch.optim.Adam(layers.parameters(), 1e-3)
        loss, before = discriminator_loss(judge, real, fake, domain, mix, **lambdas)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        after = discriminator_loss(judge, real, fake, domain, mix, **lambdas)[1][name]
        assert (after > before[name]) == rises and after != before[name]


def test_the_discriminator_loss_sends_no_gradient_to_the_fake_or_the_real():
    judge, (real, fake, domain, mix) = Judge(), images()
    fake.requires_grad_()
    discriminator_loss(judge, real, fake, domain, mix, **LAMBDAS)[0].backward()
    assert fake.grad is None
    assert judge.w.grad is not None and judge.v.grad is not None
    assert judge.w.grad != 0 and judge.v.grad != 0


def test_the_domains_of_fakes_teach_the_discriminator_nothing():
    judge, (real, fake, domain, mix) = Judge(), images()
    one = discriminator_loss(judge, real, fake, domain, mix, **LAMBDAS)[1]["cls"]
    other = discriminator_loss(judge, real, -fake, domain, mix, **LAMBDAS)[1]["cls"]
    assert torch.equal(one, other)


def test_the_translation_loss_is_that_of_the_formula():
    judge, (_, fake, target, _) = Judge(), images()
    loss, terms = translation_loss(judge, fake, target, lambda_cls=3.0)
    adversarial = -2 * 0.5 * fake.sum((1, 2, 3)).mean().item()
    known = [int(d.argmax()) for d in target]
    cls = -sum(log_probability(judge, x, d) for x, d in zip(fake, known, strict=True)) / 3
    assert {k: v.item() for k, v in terms.items()} == {
        "adversarial": pytest.approx(adversarial, rel=1e-5), "cls": pytest.approx(cls, rel=1e-5)
    }  # fmt: skip
    assert loss.item() == pytest.approx(adversarial + 3 * cls, rel=1e-5)


def test_the_translation_loss_moves_the_fake_to_a_higher_score_and_to_its_target():
    _, fake, target, _ = images()
    fake.requires_grad_()
    (slope,) = torch.autograd.grad(
        translation_loss(Judge(v=0.0), fake, target, lambda_cls=1.0)[0], fake
    )
    assert torch.allclose(slope, torch.full_like(fake, -2 * 0.5 / 3))  # higher is more real
    (slope,) = torch.autograd.grad(
        translation_loss(Judge(w=0.0), fake, target, lambda_cls=1.0)[0], fake
    )
    healthy = target[:, 0] == 1  # the judge calls dark images healthy
    assert (slope[healthy] > 0).all() and (slope[~healthy] < 0).all()


def test_no_images_are_refused():
    real, fake, domain, mix = (x[:0] for x in images())
    with pytest.raises(ValueError, match="expected at least one score"):
        discriminator_loss(Judge(), real, fake, domain, mix, **LAMBDAS)
    with pytest.raises(ValueError, match="expected at least one score"):
        translation_loss(Judge(), fake, domain, lambda_cls=1.0)

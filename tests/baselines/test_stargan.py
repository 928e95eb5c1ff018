"""StarGAN, equation by equation, with networks that can be worked out by hand."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from baselines.translating import Fixed, domain_batch, domains, moved_by
from torch import Tensor, nn

from cxrtut.baselines.stargan import StarGAN, to_healthy, translate
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.nn.stargan import StarGANDiscriminator, StarGANGenerator


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Shift(nn.Module):
    """Adds a number to an image, another one for each domain."""

    def __init__(self) -> None:
        super().__init__()
        self.by = nn.Parameter(torch.tensor([-0.5, 2.0]))

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        return image + (target @ self.by)[:, None, None, None]


def small() -> StarGAN:
    return StarGAN(StarGANGenerator(1, 2, 4, 1), StarGANDiscriminator(1, 2, 4, 16, 2))


def stub(**lambdas: float) -> StarGAN:
    judge = StarGANDiscriminator(1, 2, 4, 16, 2)
    for parameter in judge.parameters():
        parameter.data *= 3
    return StarGAN(Shift(), judge, **lambdas)


def test_an_image_is_made_anew_and_the_tanh_is_around_all_of_it():
    image, target = torch.rand(2, 1, 4, 4), torch.eye(2)
    found = translate(Shift(), image, target)
    expected = torch.stack([torch.tanh(image[0] - 0.5), torch.tanh(image[1] + 2)])
    torch.testing.assert_close(found, expected)


def test_nothing_of_the_image_reaches_the_answer_but_through_the_generator():
    generator = StarGANGenerator(1, 2, 4, 1)
    nn.init.zeros_(generator.output.weight)
    image = torch.rand(2, 1, 16, 16)
    assert not translate(generator, image, torch.eye(2)).any()  # Fixed-Point GAN: tanh(x)


def test_the_healthy_domain_is_the_first():
    image = torch.rand(3, 1, 4, 4)
    torch.testing.assert_close(to_healthy(Shift(), image), torch.tanh(image - 0.5))


def test_equations_1_2_and_5_are_those_of_a_loop_over_images():
    task, batch = stub(lambda_gp=7.0, lambda_cls=3.0), domain_batch()
    D, o = task.networks["discriminator"], domains(batch.label_vector)
    distance = penalty = cls = 0.0
    for k, shift in enumerate((-0.5, -0.5, 2.0, 2.0)):  # the targets of the batch
        x = batch.image[k, None]
        fake = torch.tanh(x + shift)
        distance += (D(x)[0].mean() - D(fake)[0].mean()).item() / 4
        between = batch.uniforms[k] * x + (1 - batch.uniforms[k]) * fake
        between.requires_grad_()
        (slope,) = torch.autograd.grad(D(between)[0].sum(), between)
        penalty += (math.sqrt(slope.square().sum().item()) - 1) ** 2 / 4
        cls -= torch.log_softmax(D(x)[1][0], 0)[int(o[k].argmax())].item() / 4
    loss, terms = task.discriminator_loss(batch)
    assert {k: v.item() for k, v in terms.items()} == {
        "distance": pytest.approx(distance, rel=1e-3), "penalty": pytest.approx(penalty, rel=1e-3),
        "cls": pytest.approx(cls, rel=1e-3),
    }  # fmt: skip
    assert loss.item() == pytest.approx(-distance + 7 * penalty + 3 * cls, rel=1e-3)
    assert abs(distance) > 1e-3 and penalty > 1e-2


def test_equations_3_4_and_6_are_those_of_a_loop_over_images():
    task, batch = stub(lambda_rec=5.0, lambda_cls=3.0), domain_batch()
    D, by = task.networks["discriminator"], task.networks["generator"].by
    expected = {"adversarial": 0.0, "cls": 0.0, "rec": 0.0}
    for k, (target, own) in enumerate(((0, 0), (0, 1), (1, 0), (1, 1))):
        x = batch.image[k, None]
        fake = torch.tanh(x + by[target])
        score, logits = D(fake)
        expected["adversarial"] -= score.mean() / 4
        expected["cls"] -= torch.log_softmax(logits[0], 0)[target] / 4
        expected["rec"] += (torch.tanh(fake + by[own]) - x).abs().mean() / 4
    loss, terms = task.generator_loss(batch)
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-3, atol=1e-5)
    total = sum({"adversarial": 1, "cls": 3, "rec": 5}[k] * v for k, v in expected.items())
    torch.testing.assert_close(loss, total, rtol=1e-3, atol=1e-5)
    # both passes are differentiated
    slopes = [torch.autograd.grad(value, by)[0] for value in (loss, total)]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-4)


def test_the_generator_runs_twice_in_its_step_and_once_without_gradient_in_the_discriminators():
    task, asked = small(), []
    task.networks["generator"].register_forward_hook(
        lambda _, given, found: asked.append((given[1].argmax(1).tolist(), found.requires_grad))
    )
    task.generator_loss(domain_batch())
    assert asked == [([0, 0, 1, 1], True), ([0, 1, 0, 1], True)]
    asked.clear()
    task.discriminator_loss(domain_batch())
    assert asked == [([0, 0, 1, 1], False)]


def test_it_is_a_task_with_one_update_of_g_for_five_of_d():
    task = small()
    assert isinstance(task, Task) and task.n_uniforms == 1
    check_task(task)
    d, g = ("D", ("discriminator",)), ("G", ("generator",))
    phases = [[(p.name, p.updates) for p in task.phases(step, 0)] for step in range(10)]
    assert phases == [[d]] * 4 + [[d, g]] + [[d]] * 4 + [[d, g]]
    first, second = task.phases(4, 0)
    assert (first.loss, second.loss) == (task.discriminator_loss, task.generator_loss)


def test_the_papers_numbers_are_the_defaults():
    task = small()
    assert (task.lambda_cls, task.lambda_rec, task.lambda_gp, task.critic_steps) == (1, 10, 10, 5)
    for optimizer in task.optimizers.values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"]) == (1e-4, (0.5, 0.999))


@pytest.mark.parametrize(("phase", "network"), [("D", "discriminator"), ("G", "generator")])
def test_a_phase_moves_its_own_network_only(phase, network):
    assert moved_by(small(), phase, domain_batch()) == {network}


def test_the_losses_reach_every_parameter_they_should():
    task = small()
    task.discriminator_loss(domain_batch())[0].backward()
    assert all(p.grad is None for p in task.networks["generator"].parameters())
    assert all(p.grad.abs().max() > 0 for p in task.networks["discriminator"].parameters())
    task.generator_loss(domain_batch())[0].backward()
    assert all(p.grad.abs().max() > 0 for p in task.networks["generator"].parameters())


def test_reconstructions_become_better_in_thirty_steps():
    task, batch = (
        StarGAN(
            StarGANGenerator(1, 2, 8, 1), StarGANDiscriminator(1, 2, 4, 16, 2),
            learning_rate=2e-3, critic_steps=1,
        ),
        domain_batch(),
    )  # fmt: skip
    smooth = F.interpolate(batch.image[:, :, ::8, ::8], scale_factor=8.0)
    batch = replace(batch, image=smooth)
    before = task.generator_loss(batch)[1]["rec"]
    train(task, Fixed(batch), steps=30, batch_size=4)
    assert task.generator_loss(batch)[1]["rec"] < 0.8 * before


@pytest.mark.parametrize("which", ["discriminator_loss", "generator_loss"])
def test_a_batch_without_targets_is_refused(which):
    with pytest.raises(ValueError, match="target_vector: expected target labels, got none"):
        getattr(small(), which)(replace(domain_batch(), target_vector=None))


def test_a_step_without_uniforms_says_so():
    with pytest.raises(AssertionError, match="a batch for training has uniform numbers"):
        small().discriminator_loss(replace(domain_batch(), uniforms=None))


def test_with_more_domains_each_disease_is_one():
    """Seven domains: the losses of labels of six diseases see vectors of seven numbers."""
    batch = domain_batch()
    labels = F.one_hot(torch.tensor([0, 3, 5, 5]), 6).float()
    labels[0] = 0
    many = replace(batch, label_vector=labels, target_vector=labels.flip(0))
    task = StarGAN(StarGANGenerator(1, 7, 4, 1), StarGANDiscriminator(1, 7, 4, 16, 2), domains=7)
    origin, target = task.origin_and_target(many)
    assert origin.argmax(1).tolist() == [0, 4, 6, 6] and torch.equal(target, origin.flip(0))
    _, terms = task.discriminator_loss(many)
    logits = task.networks["discriminator"](batch.image)[1]
    assert terms["cls"].item() == pytest.approx(F.cross_entropy(logits, origin).item(), rel=1e-5)
    assert task.generator_loss(many)[1]["cls"].isfinite()

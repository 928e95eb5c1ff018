"""Fixed-Point GAN: the sum, the branch of an image's own domain, and what the critic sees of it."""

from dataclasses import replace

import pytest
import torch
from baselines.translating import Fixed, domain_batch, moved_by
from torch import Tensor, nn

from cxrtut.baselines import stargan
from cxrtut.baselines.fixed_point_gan import FixedPointGAN, to_healthy, translate
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.nn.stargan import StarGANDiscriminator, StarGANGenerator

ASKED, OWN = [0, 0, 1, 1], [0, 1, 0, 1]  # target and own domains of a batch


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Constant(nn.Module):
    """A number for each domain, whatever the image is."""

    def __init__(self, *numbers: float) -> None:
        super().__init__()
        self.numbers = nn.Parameter(torch.tensor(numbers))

    def forward(self, image: Tensor, target: Tensor) -> Tensor:
        return (target @ self.numbers)[:, None, None, None].expand_as(image)


def small(**settings: float) -> FixedPointGAN:
    return FixedPointGAN(
        StarGANGenerator(1, 2, 4, 1), StarGANDiscriminator(1, 2, 4, 16, 2), **settings
    )


def stub(**lambdas: float) -> FixedPointGAN:
    judge = StarGANDiscriminator(1, 2, 4, 16, 2)
    for parameter in judge.parameters():
        parameter.data *= 3
    return FixedPointGAN(Constant(-0.5, 1.0), judge, **lambdas)


def test_the_generator_says_what_to_add_and_the_tanh_is_around_the_sum():
    image = torch.rand(2, 1, 4, 4) * 2 - 1
    found = translate(Constant(-0.5, 3.0), image, torch.eye(2))
    expected = torch.stack([torch.tanh(image[0] - 0.5), torch.tanh(image[1] + 3)])
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(to_healthy(Constant(-0.5, 3.0), image), torch.tanh(image - 0.5))


def test_adding_nothing_leaves_no_image_as_it_is_but_a_grey_one():
    image = torch.tensor([-1.0, -0.5, 0.0, 0.5, 1.0]).view(1, 1, 1, 5)
    unchanged = to_healthy(Constant(0.0, 0.0), image)
    torch.testing.assert_close(unchanged, torch.tanh(image))
    change = (unchanged - image).abs().flatten().tolist()
    assert change == pytest.approx([0.2384, 0.0379, 0.0, 0.0379, 0.2384], abs=1e-4)


def test_the_generator_loss_is_that_of_a_loop_over_images_and_branches():
    task, batch = stub(lambda_rec=5.0, lambda_cls=3.0), domain_batch()
    D, adds = task.networks["discriminator"], task.networks["generator"].numbers
    names = ("adversarial", "cls", "rec")
    expected = dict.fromkeys((*names, *(f"{name} same" for name in names), "id"), 0.0)
    for k in range(4):
        x = batch.image[k, None]
        for target, mark in ((ASKED[k], ""), (OWN[k], " same")):
            fake = torch.tanh(x + adds[target])
            back = torch.tanh(fake + adds[OWN[k]])
            score, logits = D(fake)
            expected["adversarial" + mark] -= score.mean() / 4
            expected["cls" + mark] -= torch.log_softmax(logits[0], 0)[target] / 4
            expected["rec" + mark] += (back - x).abs().mean() / 4
        expected["id"] += (fake - x).abs().mean() / 4  # of its own domain
    loss, terms = task.generator_loss(batch)
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-3, atol=1e-5)
    weights = {"adversarial": 1, "cls": 3, "rec": 5, "id": 10}
    total = sum(weights[k.removesuffix(" same")] * v for k, v in expected.items())
    torch.testing.assert_close(loss, total, rtol=1e-3, atol=1e-5)
    # both passes of both branches are differentiated
    slopes = [torch.autograd.grad(v, adds, retain_graph=True)[0] for v in (loss, total)]
    torch.testing.assert_close(*slopes, rtol=1e-3, atol=1e-4)
    task.lambda_id = 0.1  # that of the public code's command line
    torch.testing.assert_close(task.generator_loss(batch)[0], total - 9.9 * expected["id"])


def test_the_branch_of_the_own_domain_has_a_cycle_of_its_own():
    task, batch, asked = small(), domain_batch(), []
    task.networks["generator"].register_forward_hook(
        lambda _, given, found: asked.append((*given, torch.tanh(given[0] + found)))
    )
    task.generator_loss(batch)
    assert [target.argmax(1).tolist() for _, target, _ in asked] == [ASKED, OWN, OWN, OWN]
    (first, _, fake), (second, *_), (third, _, same), (fourth, *_) = asked
    assert torch.equal(first, batch.image) and torch.equal(third, batch.image)
    assert torch.equal(second, fake) and torch.equal(fourth, same)


def test_the_discriminator_and_its_penalty_see_translations_to_the_target_only():
    task, batch, seen = stub(), domain_batch(), []
    task.networks["discriminator"].register_forward_pre_hook(
        lambda _, given: seen.append(given[0].detach())
    )
    task.discriminator_loss(batch)
    adds = torch.tensor([(-0.5, 1.0)[k] for k in ASKED])[:, None, None, None]
    fake, mix = torch.tanh(batch.image + adds), batch.uniforms[:, :, None, None]
    expected = [batch.image, fake, mix * batch.image + (1 - mix) * fake]
    found_images = torch.cat(seen).split(len(batch.image))
    for found, known in zip(found_images, expected, strict=True):
        torch.testing.assert_close(found, known)


def test_it_is_a_task_with_the_settings_of_stargan():
    task = small(learning_rate=5e-4, lambda_rec=4.0, critic_steps=2)
    assert isinstance(task, Task) and isinstance(task, stargan.StarGAN)
    check_task(task)
    assert task.lambda_id == 10 and task.lambda_rec == 4
    phases = [[phase.name for phase in task.phases(step, 0)] for step in range(4)]
    assert phases == [["D"], ["D", "G"], ["D"], ["D", "G"]]
    assert task.optimizers["generator"].param_groups[0]["lr"] == 5e-4


@pytest.mark.parametrize(("phase", "network"), [("D", "discriminator"), ("G", "generator")])
def test_a_phase_moves_its_own_network_only(phase, network):
    assert moved_by(small(), phase, domain_batch()) == {network}


def test_the_generator_loss_reaches_every_parameter_of_the_generator():
    task = small()
    task.generator_loss(domain_batch())[0].backward()
    assert all(p.grad.abs().max() > 0 for p in task.networks["generator"].parameters())


def test_images_are_left_more_as_they_are_after_thirty_steps():
    task, batch = small(learning_rate=2e-3, critic_steps=1), domain_batch()
    before = task.generator_loss(batch)[1]
    train(task, Fixed(batch), steps=30, batch_size=4)
    after = task.generator_loss(batch)[1]
    assert after["rec"] < 0.9 * before["rec"] and after["id"] < 0.9 * before["id"]


def test_a_batch_without_targets_is_refused():
    with pytest.raises(ValueError, match="target_vector: expected target labels, got none"):
        small().generator_loss(replace(domain_batch(), target_vector=None))

"""The Biomarker paper, equation by equation."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cxrtut import evaluation_mode
from cxrtut.data.sample import Batch, System
from cxrtut.papers.biomarker import (
    COLAB,
    CPU,
    PAPER,
    SMOKE,
    Biomarker,
    BiomarkerLocaliser,
    Config,
    Generator,
    Pretraining,
    ResidualGenerator,
    WarmUp,
    WithoutClassifier,
    WithoutCritic,
    ce_loss,
    ed_loss,
    make_classifier,
    make_generator,
    to_healthy,
)

TINY = replace(SMOKE, size=16, base=4, depth=1, stem=1, critic_base=4, classifier_width=4)


def make_batch(n=4, size=16, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return Batch(
        image=torch.rand(n, 1, size, size, generator=generator) * 1.6 - 0.8,
        label_vector=(torch.arange(n) % 2).float()[:, None],
        boxes=torch.zeros(n, 1, 4), box_label=torch.full((n, 1), -1), index=torch.arange(n),
        uniforms=torch.rand(n, 4, generator=generator),
    )  # fmt: skip


class Subtract(nn.Module):
    """G(x) = x - d."""

    def __init__(self, d):
        super().__init__()
        self.d = nn.Parameter(torch.tensor(d))

    def forward(self, x):
        return x - self.d


class Linear(nn.Module):
    """A critic or classifier whose every score is a weighted mean of the image."""

    def __init__(self, weight, outputs=None):
        super().__init__()
        self.weight, self.outputs = nn.Parameter(torch.tensor(weight)), outputs

    def forward(self, x):
        score = self.weight * x.mean((1, 2, 3))
        return score if self.outputs is None else torch.stack([-score, score], 1)


def stub(d=0.25, critic=2.0, classifier=3.0, config=TINY):
    task = Biomarker(config)
    task.networks = {
        "generator": Subtract(d), "discriminator": Linear(critic),
        "classifier": Linear(classifier, 2),
    }  # fmt: skip
    return task


def value(scalar):
    return scalar.detach().item()


def gradients(task):
    return {
        name: any(p.grad is not None and p.grad.abs().sum() > 0 for p in network.parameters())
        for name, network in task.networks.items()
    }


def test_the_papers_networks_have_the_sheets_parameter_counts():
    with torch.device("meta"):
        generator, classifier = make_generator(PAPER), make_classifier(PAPER)
        small = make_generator(replace(PAPER, base=16))
    count = [sum(p.numel() for p in n.parameters()) for n in (generator, classifier, small)]
    assert count == [31_043_651, 11_177_538, 1_944_083]
    assert isinstance(generator, Generator) and isinstance(make_generator(SMOKE), ResidualGenerator)


def test_the_papers_numbers_are_the_defaults():
    c = Config()
    assert (c.lambda_1, c.lambda_2, c.eta) == (0.4, 10.0, 10.0)
    assert (c.learning_rate, c.batch_size, c.size) == (2e-4, 32, 128)
    same = {"lambda_1", "lambda_2", "eta", "input_scale", "beta_1", "beta_2"}
    for preset in (COLAB, CPU, SMOKE):
        assert all(getattr(preset, name) == getattr(PAPER, name) for name in same)
    assert not COLAB.residual and SMOKE.residual


def test_l_ed_is_the_mean_absolute_difference_over_everything():
    x = torch.zeros(2, 3, 4, 5)
    y = x.clone()
    y[0, 1] = -1.5
    assert ed_loss(x, y) == pytest.approx(1.5 / 6)
    assert ed_loss(x, x) == 0


def test_l_ce_is_log_2_for_a_blind_classifier_and_falls_when_it_sees_the_label():
    batch = make_batch()
    blind = Linear(0.0, 2)
    loss = value(ce_loss(blind, batch.image, batch.label_vector))
    assert loss == pytest.approx(0.693147, abs=1e-5)
    lesion = batch.label_vector[:, :, None, None].expand_as(batch.image)
    sure = value(ce_loss(Linear(20.0, 2), lesion - 0.5, batch.label_vector))
    wrong = value(ce_loss(Linear(-20.0, 2), lesion - 0.5, batch.label_vector))
    assert sure < 1e-6 and wrong > 15


def test_any_disease_makes_an_image_abnormal():
    labels = torch.tensor([[0.0, 0, 0], [0, 0, 1], [1, 1, 0]])
    image = torch.ones(3, 1, 2, 2)
    classifier = Linear(2.0, 2)
    expected = F.cross_entropy(classifier(image), torch.tensor([0, 1, 1]))
    assert ce_loss(classifier, image, labels) == expected


def test_equation_2_is_lambda_1_ce_plus_lambda_2_ed_on_the_signed_difference():
    labels = torch.tensor([[0.0], [1.0], [1.0], [1.0]])  # unequal, or a wrong sign would not show
    task, batch = stub(d=0.25), replace(make_batch(), label_vector=labels)
    loss, terms = task.loss_1(batch)
    seen = torch.full_like(batch.image, 0.25)  # x - G(x), not G(x) - x
    ce = F.cross_entropy(task.networks["classifier"](seen), torch.tensor([0, 1, 1, 1]))
    assert value(loss) == pytest.approx(0.4 * value(ce) + 10 * 0.25, rel=1e-5)
    assert value(terms["CE"]) == pytest.approx(value(ce)) and value(terms["ED"]) == pytest.approx(
        0.25
    )


def test_equation_3_for_the_critic_in_closed_form():
    task, batch = stub(d=0.25, critic=2.0), make_batch()
    loss, terms = task.critic_loss(batch)
    means = batch.image.mean((1, 2, 3))
    distance = 2.0 * (means[0::2].mean() - (means[1::2] - 0.25).mean())
    slope = 2.0 / 16  # of the mean of 16 x 16 pixels, its norm: w / sqrt(n)
    assert value(terms["distance"]) == pytest.approx(value(distance), abs=1e-5)
    assert value(terms["penalty"]) == pytest.approx((slope - 1) ** 2, abs=1e-5)
    assert value(loss) == pytest.approx(-value(distance) + 10 * (slope - 1) ** 2, abs=1e-4)


def test_equation_3_for_the_generator_in_closed_form():
    task, batch = stub(d=0.25, critic=2.0), make_batch()
    loss, _ = task.loss_2(batch)
    fake = batch.image[1::2].mean((1, 2, 3)) - 0.25
    assert value(loss) == pytest.approx(-2 * value(fake.mean()) + 10 * 0.25, rel=1e-4)


def test_the_critic_sees_normal_images_as_real_and_abnormal_ones_made_healthy_as_fake():
    task, batch = stub(critic=1.0), make_batch()
    brighter = replace(batch, image=batch.image.clone())
    brighter.image[0::2] += 0.1  # normal ones: more real
    assert task.critic_loss(brighter)[0] < task.critic_loss(batch)[0]
    assert torch.equal(
        task.loss_2(brighter)[1]["adversarial"], task.loss_2(batch)[1]["adversarial"]
    )


def test_looking_ill_costs_the_generator_more():
    batch = make_batch()
    healthy, ill = stub(d=0.0), stub(d=0.0)
    ill.networks["discriminator"] = Linear(-2.0)
    bright = replace(batch, image=batch.image.abs())
    assert ill.loss_2(bright)[0] > healthy.loss_2(bright)[0]


@pytest.mark.parametrize(
    ("name", "reached"),
    [
        ("loss_1", {"generator", "classifier"}),
        ("loss_2", {"generator", "discriminator"}),
        ("critic_loss", {"discriminator"}),
    ],
)
def test_gradients_go_where_the_equations_say(name, reached):
    task = stub()
    loss, _ = getattr(task, name)(make_batch())
    loss.backward()
    assert {k for k, there in gradients(task).items() if there} == reached


def test_the_arms_leave_out_their_part():
    config = replace(TINY, critic_steps=2)

    def names(task):
        made = task(config)
        return [[(p.name, p.updates) for p in made.phases(step, 0)] for step in range(4)]

    d, g = ("D", ("discriminator",)), ("G", ("generator",))
    gc = ("GC", ("generator", "classifier"))
    assert names(Biomarker) == [[d], [d, gc, g]] * 2
    assert names(WithoutClassifier) == [[d], [d, g]] * 2
    assert names(WithoutCritic) == [[gc]] * 4
    assert names(Pretraining) == [[("ED", ("generator",))]] * 4
    assert names(WarmUp) == [[("C", ("classifier",))]] * 4


def test_a_stage_goes_on_with_the_networks_of_the_one_before():
    task = Biomarker(TINY)
    stage = WarmUp(TINY, networks=task.networks)
    assert stage.networks is task.networks
    assert stage.optimizers["classifier"] is not task.optimizers["classifier"]


def test_the_tanh_generator_can_reach_black_and_white():
    class Inverse(nn.Module):
        def forward(self, x):
            return torch.atanh(x)

    generator = Generator(replace(PAPER, base=4, depth=1, channels=1))
    generator.unet = Inverse()
    x = torch.tensor([-1.0, -0.5, 0.0, 1.0]).view(1, 1, 2, 2)
    assert torch.allclose(generator(x), x, atol=1e-6)
    generator.unet = nn.Identity()
    assert torch.allclose(generator(x), torch.tanh(0.9 * x) / 0.9)


def test_the_residual_generator_begins_close_to_the_identity_but_not_at_it():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        generator = ResidualGenerator(SMOKE)
    image = make_batch(4, 64).image
    difference = (generator(image) - image).abs().mean()
    assert 1e-4 < difference < 0.1


def test_the_same_seed_gives_the_same_networks():
    def flat(seed):
        task = Biomarker(TINY, seed=seed)
        return torch.cat([p.flatten() for n in task.networks.values() for p in n.parameters()])

    assert torch.equal(flat(0), flat(0)) and not torch.equal(flat(0), flat(1))


def test_making_healthy_runs_in_evaluation_mode_clips_and_puts_the_mode_back(monkeypatch):
    task = Biomarker(TINY)
    generator = task.networks["generator"].train()
    images = make_batch(5).image
    monkeypatch.setattr(evaluation_mode, "_ON_A_CPU", 2 * 16 * 16)
    healthy = to_healthy(generator, images)
    monkeypatch.undo()
    assert generator.training and torch.allclose(healthy, to_healthy(generator, images), atol=1e-6)
    assert to_healthy(Subtract(-5.0), images).max() == 1
    assert to_healthy(Subtract(5.0), images).min() == -1
    assert to_healthy(generator, images[:0]).shape == (0, 1, 16, 16)


def test_a_prediction_is_the_healthy_image_and_what_was_removed():
    generator = Biomarker(TINY).networks["generator"].train()
    system = BiomarkerLocaliser(TINY, ("Pneumonia",), generator)
    images = make_batch(5).image
    found = system.predict(images)
    assert isinstance(system, System) and system.networks == {"generator": generator}
    assert (system.classes, system.size, system.channels) == (("Pneumonia",), 16, 1)
    assert torch.equal(found.image, to_healthy(generator, images)) and generator.training
    assert torch.equal(found.heatmap, (images - found.image).abs())  # of one channel
    assert found.scores is None and found.boxes is None and system.reader is None


def test_rates_are_constant_or_fall_from_a_share_of_the_steps():
    assert Biomarker(TINY).schedule(0) == {}
    task = Biomarker(replace(TINY, steps=10, decay_from=0.6))
    rates = [set(task.schedule(step).values()) for step in range(10)]
    assert set(task.schedule(7)) == {"generator", "classifier", "discriminator"}
    assert rates[:7] == [{1.0}] * 7 and rates[9] == {0.25}
    for stage in (WarmUp, Pretraining):
        assert stage(replace(TINY, decay_from=0.0)).schedule(10**6) == {}


def test_several_diseases_share_one_heat_map():
    system = BiomarkerLocaliser(TINY, ("Mass", "Nodule"), Subtract(0.25))
    assert system.classes == ("any of Mass, Nodule",)
    heat = system.predict(torch.zeros(2, 1, 16, 16)).heatmap
    assert torch.equal(heat, torch.full((2, 1, 16, 16), 0.25))


def test_a_step_without_uniforms_says_so():
    with pytest.raises(AssertionError, match="a batch for training has uniform numbers"):
        stub().critic_loss(replace(make_batch(), uniforms=None))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classifier_layers": 50}, "classifier_layers: expected 10 or 18, got 50"),
        ({"critic_steps": 0}, "critic_steps: expected 1 or more, got 0"),
        ({"batch_size": 15}, "batch_size: expected an even number, got 15"),
        ({"decay_from": 1.5}, r"decay_from: expected one in \[0, 1\], got 1.5"),
        ({"input_scale": 0.0}, r"input_scale: expected one in \(0, 1\], got 0.0"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(PAPER, **change)


def test_every_network_learns_at_the_rate_and_with_the_betas_of_the_configuration():
    task = Biomarker(replace(TINY, learning_rate=3e-3, beta_1=0.4, beta_2=0.95))
    for optimizer in task.optimizers.values():
        (group,) = optimizer.param_groups
        assert (group["lr"], group["betas"]) == (3e-3, (0.4, 0.95))


@pytest.mark.parametrize("name", ["loss_1", "loss_2"])
def test_changing_a_normal_image_costs_the_generator_as_much(name):
    class Halve(nn.Module):
        def forward(self, x):
            return x / 2

    task, batch = stub(), make_batch()
    task.networks["generator"] = Halve()
    image = batch.image.clone()
    image[0::2] /= 10  # unequal, or leaving out the normal ones would not show
    _, terms = getattr(task, name)(replace(batch, image=image))
    assert value(terms["ED"]) == pytest.approx(value(image.abs().mean()) / 2, rel=1e-5)


def test_the_generator_sees_the_whole_batch_also_where_abnormal_images_alone_count():
    class Centred(nn.Module):
        """Subtracts the mean of all images, as batch norm does."""

        def forward(self, x):
            return x - x.mean()

    task, batch = stub(critic=2.0), make_batch()
    task.networks["generator"] = Centred()
    normal, ill = (batch.image[k::2].mean() for k in (0, 1))
    fake = ill - batch.image.mean()
    distance = task.critic_loss(batch)[1]["distance"]
    assert value(distance) == pytest.approx(2 * value(normal - fake), abs=1e-6)
    adversarial = task.loss_2(batch)[1]["adversarial"]
    assert value(adversarial) == pytest.approx(-2 * value(fake), abs=1e-6)


def test_the_penalty_is_taken_between_a_normal_image_and_a_healed_one_where_the_numbers_say():
    class Square(nn.Module):
        """A critic whose slope is the image."""

        def forward(self, x):
            return x.square().sum((1, 2, 3)) / 2

    task, batch = stub(d=0.25), make_batch()
    task.networks["discriminator"] = Square()
    share = batch.uniforms[0::2, 0, None, None, None]
    between = share * batch.image[0::2] + (1 - share) * (batch.image[1::2] - 0.25)
    expected = (between.flatten(1).norm(dim=1) - 1).square().mean()
    _, terms = task.critic_loss(batch)
    assert value(terms["penalty"]) == pytest.approx(value(expected), rel=1e-5)

"""PILLET-GAN, equation by equation."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from baselines.translating import Fixed, domain_batch, domains, moved_by
from torch import Tensor, nn

from cxrtut.data.sample import System
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.papers.pillet_gan import (
    COLAB,
    CPU,
    PAPER,
    SMOKE,
    Config,
    LesionGenerator,
    LesionLocaliser,
    PilletGAN,
    SpatialAttention,
    make_networks,
)

TINY = replace(
    SMOKE, size=16, base=4, residual_blocks=1, discriminator_base=4, halvings=2, batch_size=4
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def generator_of(**changes) -> LesionGenerator:
    """A small generator whose biases are not zero, and whose lesion map is not small."""
    generator = LesionGenerator(replace(TINY, **changes))
    for parameter in generator.parameters():
        if parameter.ndim == 1:
            parameter.data += 0.3 * torch.randn_like(parameter)
    generator.mixing.weight.data *= 2
    return generator


def one_hot(*labels: int) -> Tensor:
    return F.one_hot(torch.tensor(labels), 2).float()


def image_of(n=3, size=16, channels=1) -> Tensor:
    return torch.rand(n, channels, size, size) * 2 - 1


# Networks


def test_the_papers_generator_has_the_sheets_number_of_parameters():
    def count(config):
        with torch.device("meta"):
            return sum(p.numel() for p in LesionGenerator(config).parameters())

    assert count(PAPER) == 8_443_010
    assert count(replace(PAPER, channels=3)) == 8_449_412
    assert count(replace(PAPER, attention="none")) == 8_405_440 + 65
    assert count(replace(PAPER, attention="plain")) == count(PAPER)


def attention_by_hand(block: SpatialAttention, features: Tensor) -> Tensor:
    n, channels, height, width = features.shape
    cells = features.reshape(n, channels, height // 4, 4, width // 4, 4).mean((3, 5))
    x = F.conv2d(F.pad(cells, (1, 1, 1, 1)), block.first.weight, block.first.bias)
    middle = x.mean((2, 3), keepdim=True)
    x = (x - middle) / ((x - middle).square().mean((2, 3), keepdim=True) + 1e-5).sqrt()
    x = F.conv2d(F.pad(x.clamp(min=0), (1, 1, 1, 1)), block.second.weight, block.second.bias)
    a = 1 / (1 + (-x[:, 0]).exp())
    found = torch.zeros(n, 1, height, width)
    for i in range(height):
        for j in range(width):
            # the middle of the pixel, in cells whose middles are whole numbers
            y = min(max((i + 0.5) / 4 - 0.5, 0), height // 4 - 1)
            z = min(max((j + 0.5) / 4 - 0.5, 0), width // 4 - 1)
            top, left = int(y), int(z)
            below, right = min(top + 1, height // 4 - 1), min(left + 1, width // 4 - 1)
            upper = a[:, top, left] * (1 - z + left) + a[:, top, right] * (z - left)
            lower = a[:, below, left] * (1 - z + left) + a[:, below, right] * (z - left)
            found[:, 0, i, j] = upper * (1 - y + top) + lower * (y - top)
    return found


def test_equations_1_and_2_make_a_probability_for_every_pixel():
    block, features = SpatialAttention(6), torch.randn(2, 6, 16, 24)
    for layer in (block.first, block.second):
        layer.weight.data *= 4
    attention = block(features)
    assert attention.shape == (2, 1, 16, 24)
    expected = attention_by_hand(block, features)
    torch.testing.assert_close(attention, expected, rtol=1e-4, atol=1e-5)
    assert attention.min() > 0 and attention.max() < 1 and attention.std() > 0.1


def test_the_norm_takes_away_what_all_cells_have_in_common():
    block, features = SpatialAttention(4), torch.randn(1, 4, 32, 32)
    block.first.weight.data *= F.pad(torch.ones(1, 1), (1, 1, 1, 1))  # sees no padding
    torch.testing.assert_close(block(features + 3), block(features), rtol=1e-3, atol=1e-4)
    assert block(features).std() > 1e-3


@pytest.mark.parametrize("channels", [1, 3])
def test_equation_3_is_the_tanh_of_a_mixture_of_what_is_attended_to(channels):
    generator, image = generator_of(channels=channels), image_of(channels=channels)
    target = one_hot(0, 1, 0)
    features = generator.trunk(image, target)
    attended = (attention_by_hand(generator.attention, features) + 1) * features
    weight, bias = generator.mixing.weight[:, :, 0, 0], generator.mixing.bias
    expected = torch.tanh(torch.einsum("bchw,kc->bkhw", attended, weight) + bias[:, None, None])
    lesion = generator.lesion_map(image, target)
    torch.testing.assert_close(lesion, expected, rtol=1e-4, atol=1e-5)
    assert lesion.std() > 0.1 and lesion.abs().max() <= 1
    assert torch.equal(generator.attention_map(image, target), generator.attention(features))


def test_equation_4_adds_the_map_and_may_leave_the_range_of_images():
    generator, image, target = generator_of(), image_of().sign(), one_hot(0, 1, 1)
    fake = generator(image, target)
    torch.testing.assert_close(fake, image + generator.lesion_map(image, target))
    assert 1.1 < fake.abs().max() < 2


@pytest.mark.parametrize(
    ("attention", "factor"), [("residual", 1.25), ("plain", 0.25), ("none", 1.0)]
)
def test_the_variants_of_the_attention_weigh_the_features_otherwise(attention, factor):
    class Quarter(nn.Module):
        def forward(self, features):
            return torch.full_like(features[:, :1], 0.25)

    generator, image, target = generator_of(attention=attention), image_of(), one_hot(0, 1, 1)
    if attention != "none":
        generator.attention = Quarter()
    expected = generator.mixing(factor * generator.trunk(image, target))
    torch.testing.assert_close(generator.mixed(image, target), expected)
    assert hasattr(generator, "attention") == (attention != "none")


def test_the_variant_of_the_output_has_the_tanh_around_the_sum():
    generator, image, target = generator_of(output="tanh"), image_of(), one_hot(0, 1, 1)
    expected = torch.tanh(image + generator.mixed(image, target))
    torch.testing.assert_close(generator(image, target), expected)
    torch.testing.assert_close(generator.lesion_map(image, target), expected - image)


def test_a_generator_without_attention_has_no_attention_map():
    with pytest.raises(ValueError, match="expected a generator with spatial attention, got one w"):
        generator_of(attention="none").attention_map(image_of(), one_hot(0, 1, 1))


def test_training_and_evaluation_say_the_same():
    generator, image = generator_of(), image_of()
    trained = generator.train()(image, one_hot(0, 1, 1))
    assert torch.equal(generator.eval()(image, one_hot(0, 1, 1)), trained)


# Losses


def task_of(**changes) -> PilletGAN:
    task = PilletGAN(replace(TINY, **changes))
    task.networks["generator"].mixing.weight.data *= 2
    for p in task.networks["discriminator"].parameters():
        p.data *= 3
    return task


def minus_log_probability(logits: Tensor, domain: Tensor) -> Tensor:
    shares = logits.exp()
    return -(shares[int(domain.argmax())] / shares.sum()).log()


def assert_same_terms_and_slopes(found, expected, weights, network):
    """Terms, their weighted sum, and its gradient at every parameter of a network."""
    loss, terms = found
    assert list(terms) == list(expected)
    for name, value in expected.items():
        torch.testing.assert_close(terms[name], value, rtol=1e-3, atol=1e-5)
    total = sum(weights[name] * value for name, value in expected.items())
    torch.testing.assert_close(loss, total, rtol=1e-3, atol=1e-4)
    parameters = list(network.parameters())
    for one, other in zip(
        torch.autograd.grad(loss, parameters), torch.autograd.grad(total, parameters), strict=True
    ):
        torch.testing.assert_close(
            one, other, rtol=1e-2, atol=1e-3 * float(other.abs().max()) + 1e-5
        )


def test_equations_6_9_and_11_are_those_of_a_loop_over_images():
    task, batch = task_of(lambda_gp=7.0, lambda_cls=3.0), domain_batch()
    G, D = task.networks["generator"], task.networks["discriminator"]
    o, t = domains(batch.label_vector), domains(batch.target_vector)
    expected = dict.fromkeys(("distance", "penalty", "cls"), 0.0)
    for k in range(4):
        x = batch.image[k, None]
        fake = G(x, t[k, None]).detach()
        expected["distance"] += (D(x)[0].mean() - D(fake)[0].mean()) / 4
        between = batch.uniforms[k] * x + (1 - batch.uniforms[k]) * fake
        between.requires_grad_()
        (slope,) = torch.autograd.grad(D(between)[0].sum(), between, create_graph=True)
        expected["penalty"] += (slope.square().sum().sqrt() - 1) ** 2 / 4
        expected["cls"] += minus_log_probability(D(x)[1][0], o[k]) / 4
    # D makes Eq. (6) large: its distance less the penalty
    weights = {"distance": -1, "penalty": 7, "cls": 3}
    assert_same_terms_and_slopes(task.discriminator_loss(batch), expected, weights, D)
    assert abs(expected["distance"]) > 1e-3 and expected["penalty"] > 1e-2


def test_equations_5_7_8_10_and_12_are_those_of_a_loop_over_images():
    lambdas = {"lambda_cls": 3.0, "lambda_recon": 5.0, "lambda_target": 7.0, "lambda_origin": 11.0}
    task, batch = task_of(**lambdas), domain_batch()
    G, D = task.networks["generator"], task.networks["discriminator"]
    o, t = domains(batch.label_vector), domains(batch.target_vector)
    expected = dict.fromkeys(("adversarial", "cls", "recon", "target", "origin"), 0.0)
    for k in range(4):
        x, origin, target = batch.image[k, None], o[k, None], t[k, None]
        fake = G(x, target)
        expected["adversarial"] -= D(fake)[0].mean() / 4
        expected["cls"] += minus_log_probability(D(fake)[1][0], t[k]) / 4
        expected["recon"] += (G(fake, origin) - x).abs().mean() / 4
        expected["target"] += (fake - x).abs().mean() / 4
        expected["origin"] += (G(x, origin) - x).abs().mean() / 4
    weights = {"adversarial": 1, "cls": 3, "recon": 5, "target": 7, "origin": 11}
    assert_same_terms_and_slopes(task.generator_loss(batch), expected, weights, G)


@pytest.mark.parametrize(
    ("coefficient", "name", "which"),
    [
        ("lambda_cls", "cls", "generator_loss"),
        ("lambda_recon", "recon", "generator_loss"),
        ("lambda_target", "target", "generator_loss"),
        ("lambda_origin", "origin", "generator_loss"),
        ("lambda_gp", "penalty", "discriminator_loss"),
        ("lambda_cls", "cls", "discriminator_loss"),
    ],
)
def test_a_coefficient_of_zero_switches_off_its_term_and_no_other(coefficient, name, which):
    batch = domain_batch()
    loss, terms = getattr(task_of(), which)(batch)
    without, same = getattr(task_of(**{coefficient: 0.0}), which)(batch)
    assert all(torch.equal(same[key], value) for key, value in terms.items())
    left_out = getattr(PAPER, coefficient) * terms[name].item()
    assert without.item() == pytest.approx(loss.item() - left_out, rel=1e-4)
    assert abs(left_out) > 1e-2


def test_the_first_identity_term_is_the_map_whatever_the_target_is():
    task, batch = task_of(), domain_batch()
    for labels in (batch.target_vector, batch.label_vector, 1 - batch.label_vector):
        _, terms = task.generator_loss(replace(batch, target_vector=labels))
        lesion = task.networks["generator"].lesion_map(batch.image, domains(labels))
        torch.testing.assert_close(terms["target"], lesion.abs().mean())
        assert terms["target"] > 0.01
    _, terms = task.generator_loss(replace(batch, target_vector=batch.label_vector))
    torch.testing.assert_close(terms["target"], terms["origin"])


def test_the_losses_see_an_image_that_has_left_the_range_as_it_is():
    seen = []
    task, batch = task_of(), domain_batch()
    task.networks["generator"].mixing.bias.data.fill_(5.0)
    for network in task.networks.values():
        network.register_forward_pre_hook(lambda _, given: seen.append(given[0].max().item()))
    task.discriminator_loss(batch)
    judged = seen[1:]  # real and fake, between
    assert judged[0] > 1.5 and judged[1] > 1.1
    seen.clear()
    task.generator_loss(batch)
    assert [value > 1.5 for value in seen] == [False, True, True, False]  # G, D, G again, G


def test_any_disease_makes_a_batchs_image_ill():
    task, batch = task_of(), domain_batch()
    labels, targets = (F.pad(v, (1, 1)) for v in (batch.label_vector, batch.target_vector))
    many = replace(batch, label_vector=labels, target_vector=targets)
    for which in (task.discriminator_loss, task.generator_loss):
        assert torch.equal(which(many)[0], which(batch)[0])


def test_it_is_a_task_with_one_update_of_g_for_five_of_d():
    task = PilletGAN(replace(TINY, critic_steps=PAPER.critic_steps))
    assert isinstance(task, Task) and task.n_uniforms == 1
    check_task(task)
    d, g = ("D", ("discriminator",)), ("G", ("generator",))
    phases = [[(p.name, p.updates) for p in task.phases(step, 0)] for step in range(10)]
    assert phases == [[d]] * 4 + [[d, g]] + [[d]] * 4 + [[d, g]]
    first, second = task.phases(4, 0)
    assert (first.loss, second.loss) == (task.discriminator_loss, task.generator_loss)
    group = task.optimizers["generator"].param_groups[0]
    assert (group["lr"], group["betas"]) == (TINY.learning_rate, (0.5, 0.999))


@pytest.mark.parametrize(("phase", "network"), [("D", "discriminator"), ("G", "generator")])
def test_a_phase_moves_its_own_network_only(phase, network):
    assert moved_by(task_of(), phase, domain_batch()) == {network}


def test_the_discriminator_loss_sends_no_gradient_to_the_generator():
    task, kept = task_of(), []
    task.networks["generator"].register_forward_hook(lambda *seen: kept.append(seen[2].grad_fn))
    task.discriminator_loss(domain_batch())[0].backward()
    assert all(p.grad is None for p in task.networks["generator"].parameters())
    assert kept == [None]  # no graph is kept of it either
    for name, p in task.networks["discriminator"].named_parameters():
        assert p.grad is not None and p.grad.abs().max() > 0, name


@pytest.mark.parametrize("attention", ["residual", "plain", "none"])
def test_the_generator_loss_reaches_every_parameter_of_the_generator(attention):
    task = task_of(attention=attention)
    task.generator_loss(domain_batch())[0].backward()
    for name, p in task.networks["generator"].named_parameters():
        # a bias before a norm without weights is subtracted again
        silent = name == "attention.first.bias"
        assert p.grad is not None and (p.grad.abs().max() > 1e-6) != silent, name


def test_reconstructions_become_better_in_thirty_steps():
    task, batch = PilletGAN(replace(TINY, critic_steps=1)), domain_batch()
    before = task.generator_loss(batch)[1]
    train(task, Fixed(batch), steps=30, batch_size=4)
    after = task.generator_loss(batch)[1]
    assert after["recon"] < 0.8 * before["recon"]
    assert after["target"] < 0.8 * before["target"]


def test_the_same_seed_gives_the_same_networks():
    def flat(seed):
        networks = make_networks(TINY, seed)
        return torch.cat([p.flatten() for n in networks.values() for p in n.parameters()])

    state = torch.get_rng_state()
    assert torch.equal(flat(0), flat(0)) and not torch.equal(flat(0), flat(1))
    assert torch.equal(torch.get_rng_state(), state)
    task = PilletGAN(TINY, seed=1)
    weights = [p.flatten() for n in task.networks.values() for p in n.parameters()]
    assert torch.equal(torch.cat(weights), flat(1))


def test_the_networks_and_what_the_optimisers_own_are_on_the_device():
    task = PilletGAN(TINY, device="meta")
    check_task(task)
    assert all(p.is_meta for n in task.networks.values() for p in n.parameters())


@pytest.mark.parametrize("which", ["discriminator_loss", "generator_loss"])
def test_a_batch_without_targets_is_refused(which):
    with pytest.raises(ValueError, match="target_vector: expected target labels, got none"):
        getattr(task_of(), which)(replace(domain_batch(), target_vector=None))


def test_a_step_without_uniforms_says_so():
    with pytest.raises(AssertionError, match="a batch for training has uniform numbers"):
        task_of().discriminator_loss(replace(domain_batch(), uniforms=None))


class Known(LesionGenerator):
    """Its map is +0.75 in the first half of the channels' rows and -0.75 below."""

    def lesion_map(self, image, target):
        assert not self.training and torch.equal(target, one_hot(0).expand(len(image), 2))
        self.parts = [*getattr(self, "parts", []), len(image)]
        lesion = torch.full_like(image, 0.75)
        lesion[:, :, image.shape[2] // 2 :] *= -1
        return lesion


def test_a_prediction_is_the_clipped_healthy_image_and_the_size_of_the_map():
    generator = Known(TINY).train()
    system = LesionLocaliser(TINY, ("Pneumonia",), generator)
    assert isinstance(system, System) and system.networks == {"generator": generator}
    assert (system.classes, system.size, system.channels) == (("Pneumonia",), 16, 1)
    images = image_of(2)
    found = system.predict(images)
    sign = torch.tensor([0.75] * 8 + [-0.75] * 8)[:, None]
    assert torch.equal(found.image, (images + sign).clamp(-1, 1)) and generator.training
    assert torch.equal(found.heatmap, torch.full((2, 1, 16, 16), 0.75))  # nothing was clipped
    assert found.image.abs().max() == 1 and found.scores is None and found.boxes is None


def test_a_prediction_is_that_of_equation_4_and_carries_no_gradient():
    generator = generator_of(channels=3)
    system = LesionLocaliser(replace(TINY, channels=3), ("Mass", "Nodule"), generator)
    images = image_of(3, channels=3)
    found = system.predict(images)
    lesion = generator.lesion_map(images, one_hot(0, 0, 0))
    torch.testing.assert_close(found.heatmap[:, 0], lesion.abs().mean(1))
    torch.testing.assert_close(found.image, (images + lesion).clamp(-1, 1))
    assert system.classes == ("any of Mass, Nodule",) and system.channels == 3
    assert not found.image.requires_grad and not found.heatmap.requires_grad


def test_many_images_are_read_in_parts_and_none_is_no_error():
    system = LesionLocaliser(TINY, ("Pneumonia",), Known(TINY))
    assert system.lesion_map(torch.zeros(5, 1, 128, 128)).shape == (5, 1, 128, 128)
    assert system.networks["generator"].parts == [2, 2, 1]  # on a CPU, 8 x 64 x 64 pixels at once
    found = LesionLocaliser(TINY, ("Pneumonia",), generator_of()).predict(image_of(0))
    assert found.image.shape == found.heatmap.shape == (0, 1, 16, 16)


def test_the_papers_numbers_are_the_defaults():
    c = Config()
    assert c == PAPER
    assert (c.lambda_cls, c.lambda_recon, c.lambda_gp) == (1.0, 10.0, 10.0)
    assert (c.lambda_target, c.lambda_origin, c.critic_steps) == (10.0, 10.0, 5)
    assert (c.learning_rate, c.batch_size, c.steps) == (1e-4, 8, 100_000)
    assert (c.base, c.residual_blocks, c.discriminator_base, c.halvings) == (64, 6, 64, 6)
    assert (c.attention, c.output, c.classifier_layers) == ("residual", "sum", 121)


@pytest.mark.parametrize("preset", [PAPER, COLAB, CPU, SMOKE])
def test_presets_change_size_and_length_and_never_the_equations(preset):
    same = (
        "lambda_cls", "lambda_recon", "lambda_target", "lambda_origin", "lambda_gp", "output",
        "attention", "beta_1", "beta_2", "batch_size", "vagan_lambda", "vagan_critic_steps",
    )  # fmt: skip
    assert preset.critic_steps == (2 if preset in (CPU, SMOKE) else 5)  # of few steps G needs more
    assert all(getattr(preset, name) == getattr(PAPER, name) for name in same)
    with torch.device("meta"):
        networks = make_networks(preset, 0)
        image = torch.empty(2, preset.channels, preset.size, preset.size)
        fake = networks["generator"](image, torch.empty(2, 2))
        assert networks["discriminator"](fake)[1].shape == (2, 2)
    cells = preset.size // preset.classifier_stride
    assert fake.shape == image.shape and cells == 8


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"attention": "half"}, "attention: expected one of residual, plain, none, got 'half'"),
        ({"output": "clip"}, "output: expected one of sum, tanh, got 'clip'"),
        ({"size": 72}, r"size: expected a multiple of 16 \(4 by strides, 4 by pooling\), got 72"),
        ({"classifier_layers": 50}, "classifier_layers: expected 21 or 121, got 50"),
        ({"critic_steps": 0}, "critic_steps: expected 1 or more, got 0"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(PAPER, **change)

"""VA-GAN: its networks layer by layer, its schedule against a loop, and the slips of its ports."""

import math
from dataclasses import replace
from itertools import count, islice

import pytest
import torch
import torch.nn.functional as F
from baselines.translating import Fixed, domain_batch, moved_by
from torch import Tensor, nn

from cxrtut.baselines.pseudo_healthy import PseudoHealthy
from cxrtut.baselines.vagan import VAGAN, MapGenerator, VAGANCritic, is_map_step, to_healthy
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.papers.pillet_gan import COLAB, CPU, PAPER, SMOKE


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def parameters(network: nn.Module) -> int:
    return sum(parameter.numel() for parameter in network.parameters())


def stirred(network: nn.Module) -> nn.Module:
    """Norms and biases as they do not begin, so that each of them shows."""
    for part in network.modules():
        if isinstance(part, nn.BatchNorm2d):
            for values, low in (
                (part.weight.data, 0.5), (part.bias.data, -0.5), (part.running_mean, -0.3),
                (part.running_var, 0.5),
            ):  # fmt: skip
                values.uniform_(low, low + 1)
        elif isinstance(part, nn.Conv2d) and part.bias is not None:
            part.bias.data.uniform_(-0.5, 0.5)
    return network


class Shift(nn.Module):
    """M(x) = d."""

    def __init__(self, d: float) -> None:
        super().__init__()
        self.d = nn.Parameter(torch.tensor(d))

    def forward(self, x: Tensor) -> Tensor:
        return self.d.expand_as(x)


class Sum(nn.Module):
    """D(x) = w times the sum of an image, or of its squares."""

    def __init__(self, w: float, power: int = 1) -> None:
        super().__init__()
        self.w, self.power = nn.Parameter(torch.tensor(w)), power

    def forward(self, x: Tensor) -> Tensor:
        return self.w * (x**self.power).sum((1, 2, 3))


def small(**settings: float) -> VAGAN:
    return VAGAN(MapGenerator(1, 2), VAGANCritic(1, 2), **settings)


# Networks


def test_the_networks_have_the_published_number_of_parameters():
    with torch.device("meta"):
        assert parameters(MapGenerator()) == 462_305
        assert parameters(VAGANCritic()) == 1_757_249
        assert parameters(MapGenerator(3)) == 462_305 + 2 * (16 + 16) * 9 + 2
        assert parameters(VAGANCritic(3)) == 1_757_249 + 2 * 16 * 9


def map_by_hand(network: MapGenerator, image: Tensor, *, training: bool) -> Tensor:
    layers = [m for m in network.modules() if isinstance(m, nn.Conv2d | nn.ConvTranspose2d)]
    norms = iter([m for m in network.modules() if isinstance(m, nn.BatchNorm2d)])
    down, enlarge = layers[:8], [m for m in layers if isinstance(m, nn.ConvTranspose2d)]
    up = [m for m in layers[8:-1] if isinstance(m, nn.Conv2d)]

    def unit(x: Tensor, norm: nn.BatchNorm2d) -> Tensor:
        middle, spread = norm.running_mean, norm.running_var
        if training:
            middle, spread = x.mean((0, 2, 3)), x.var((0, 2, 3), unbiased=False)
        x = (x - middle[:, None, None]) / (spread[:, None, None] + 1e-3).sqrt()
        return (x * norm.weight[:, None, None] + norm.bias[:, None, None]).clamp(min=0)

    x, seen = image, []
    for k, layer in enumerate(down):
        if k in (2, 4, 6):
            seen.append(x)
            x = F.max_pool2d(x, 2)
        x = unit(F.conv2d(x, layer.weight, padding=1), next(norms))
    of_enlarged, of_up = list(islice(norms, 3)), list(norms)
    for k, layer in enumerate(enlarge):
        x = F.conv_transpose2d(x, layer.weight, stride=2, padding=1)
        x = torch.cat((unit(x, of_enlarged[k]), seen.pop()), 1)
        for conv, norm in zip(up[2 * k : 2 * k + 2], of_up[2 * k : 2 * k + 2], strict=True):
            x = unit(F.conv2d(x, conv.weight, padding=1), norm)
    assert not seen and [c.out_channels for c in enlarge] == [network.output.in_channels] * 3
    return F.conv2d(x, network.output.weight, network.output.bias, padding=1)


@pytest.mark.parametrize("training", [True, False])
def test_the_map_generator_is_that_of_the_formulas(training):
    network = stirred(MapGenerator(2, 3)).train(training)
    image = torch.randn(3, 2, 16, 24)
    expected = map_by_hand(network, image, training=training)
    found = network(image)
    assert found.shape == image.shape and expected.std() > 0.1
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_running_statistics_move_by_a_hundredth():
    network, image = MapGenerator(1, 2), torch.randn(2, 1, 16, 16)
    conv, norm = network.down[0][0], network.down[0][1]
    network(image)
    expected = 0.01 * conv(image).mean((0, 2, 3))
    torch.testing.assert_close(norm.running_mean, expected)


def test_the_map_is_linear_with_no_norm_and_no_tanh_behind_it():
    """Against a port with a batch norm on the map and a tanh around it."""
    network = MapGenerator(1, 2)
    nn.init.zeros_(network.output.weight)
    network.output.bias.data.fill_(5.0)
    assert torch.equal(network(torch.randn(2, 1, 16, 16)), torch.full((2, 1, 16, 16), 5.0))


def test_the_tanh_is_around_the_sum():
    """Against the same port: there y = x + tanh(M(x)), here y is an image whatever M says."""
    image = torch.tensor([-1.0, 0.0, 0.5]).view(3, 1, 1, 1)
    found = to_healthy(Shift(2.0), image)
    assert found.flatten().tolist() == pytest.approx([math.tanh(v) for v in (1, 2, 2.5)])
    torch.testing.assert_close(to_healthy(Shift(0.0), image), torch.tanh(image))


def critic_by_hand(network: VAGANCritic, image: Tensor, base: int) -> Tensor:
    *hidden, last = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    widths = [c.out_channels // base for c in hidden]
    assert widths == [1, 2, 4, 4, 8, 8, 16, 16, 16]
    for k, layer in enumerate(hidden):
        if k and widths[k] != widths[k - 1]:
            image = F.max_pool2d(image, 2)
        image = F.conv2d(image, layer.weight, layer.bias, padding=1).clamp(min=0)
    return (image.mean((2, 3)) * last.weight.flatten()).sum(1) + last.bias


def test_the_critic_is_that_of_the_formulas():
    network = stirred(VAGANCritic(2, 3))
    image = torch.randn(4, 2, 32, 48)
    expected = critic_by_hand(network, image, 3)
    found = network(image)
    assert found.shape == (4,) and expected.std() > 1e-3
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_the_last_layer_of_the_critic_has_no_ring_of_pure_bias():
    """Against a port that pads its 1x1 convolution: a map of one cell would have nine."""
    network = VAGANCritic(1, 2)
    assert network.layers(torch.zeros(1, 1, 16, 16)).shape == (1, 1, 1, 1)
    assert network.layers(torch.zeros(1, 1, 48, 32)).shape == (1, 1, 3, 2)


def test_the_initial_weights_are_he_et_als():
    convolutions = nn.Conv2d | nn.ConvTranspose2d
    for network in (MapGenerator(1, 16), VAGANCritic(1, 16)):
        for part in network.modules():
            if isinstance(part, convolutions) and part.weight.numel() > 4000:
                fan_in = part.weight[0].numel()
                assert part.weight.std().item() == pytest.approx((2 / fan_in) ** 0.5, rel=0.06)
            if isinstance(part, nn.Conv2d) and part.bias is not None:
                assert not part.bias.any()


# Losses


def test_equation_2_for_the_critic_in_closed_form():
    task, batch = VAGAN(Shift(0.5), Sum(0.125), lambda_gp=7.0), domain_batch()
    loss, terms = task.critic_loss(batch)
    sums = batch.image.sum((1, 2, 3)), torch.tanh(batch.image + 0.5).sum((1, 2, 3))
    distance = 0.125 * (sums[0][0::2].mean() - sums[1][1::2].mean()).item()
    assert terms["distance"].item() == pytest.approx(distance, rel=1e-4)
    # a slope of 1/8 at 256 pixels: over the whole image its norm is 2, over a column 1/2
    assert terms["penalty"].item() == pytest.approx(1.0, rel=1e-5)
    assert loss.item() == pytest.approx(-distance + 7, rel=1e-4)


def test_the_penalty_lies_between_healthy_and_translated_images():
    """Neither per column, as in the authors' code, nor between diseased and translated, as in a
    port of it.
    """
    task, batch = VAGAN(Shift(0.5), Sum(0.5, power=2)), domain_batch()
    expected = 0.0
    for k in (0, 2):  # healthy; the diseased image stands behind it
        a, x, y = batch.uniforms[k], batch.image[k], torch.tanh(batch.image[k + 1] + 0.5)
        between = (a * x + (1 - a) * y).flatten().tolist()  # its slope, too
        expected += (math.sqrt(sum(v**2 for v in between)) - 1) ** 2 / 2
    assert task.critic_loss(batch)[1]["penalty"].item() == pytest.approx(expected, rel=1e-4)


def test_equations_1_to_3_for_the_map_in_closed_form():
    task, batch = VAGAN(Shift(0.5), Sum(0.125), lambda_reg=30.0), domain_batch()
    x = batch.image[1::2]
    y = torch.tanh(x + 0.5)
    loss, terms = task.map_loss(batch)
    adversarial, reg = -0.125 * y.sum((1, 2, 3)).mean().item(), (y - x).abs().mean().item()
    assert terms["adversarial"].item() == pytest.approx(adversarial, rel=1e-4)
    assert terms["reg"].item() == pytest.approx(reg, rel=1e-4)
    assert loss.item() == pytest.approx(adversarial + 30 * reg, rel=1e-4)
    (slope,) = torch.autograd.grad(loss, task.networks["generator"].d)
    inner = 1 - y.square()  # of the tanh
    expected = -0.125 * inner.sum((1, 2, 3)).mean() + 30 * ((y - x).sign() * inner).mean()
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-5)


def test_a_map_of_zero_is_not_the_cheapest():
    """What is kept small is |y - x|, and tanh(x) is not x."""
    batch = domain_batch()
    exact = VAGAN(Shift(0.0), Sum(0.0))
    assert exact.map_loss(batch)[1]["reg"] > 0.03

    class Undone(nn.Module):
        def forward(self, x):
            return torch.atanh(x) - x

    exact.networks["generator"] = Undone()
    assert exact.map_loss(batch)[1]["reg"] < 1e-5


def test_the_map_step_never_sees_healthy_images():
    task, batch = small(), domain_batch()
    other = replace(batch, image=batch.image.clone())
    other.image[0::2] *= -1
    assert torch.equal(task.map_loss(batch)[0], task.map_loss(other)[0])
    assert not torch.equal(task.critic_loss(batch)[0], task.critic_loss(other)[0])


# The schedule


def map_steps_by_hand(critic_steps: int, long: int, first: int, every: int):
    for done in count():
        often = done < first or done % every == 0
        yield from [False] * (long if often else critic_steps)
        yield True


@pytest.mark.parametrize(
    ("critic_steps", "long", "first", "every"),
    [
        (5, 100, 25, 100), (5, 50, 10, 100), (5, 50, 5, 100), (5, 10, 2, 100), (1, 3, 2, 5),
        (2, 7, 1, 3), (3, 4, 4, 4), (1, 1, 1, 1), (4, 2, 2, 6), (2, 5, 1, 1),
    ],
)  # fmt: skip
def test_the_schedule_is_that_of_a_loop(critic_steps, long, first, every):
    settings = {"critic_steps": critic_steps, "long": long, "first": first, "every": every}
    found = [is_map_step(step, **settings) for step in range(6000)]
    assert found == list(islice(map_steps_by_hand(**settings), 6000))


def test_a_thousand_map_steps_take_as_many_critic_steps_as_in_the_authors_code():
    done = [is_map_step(step) for step in range(9_230)]
    assert sum(done) == 1000 and done[-1]
    assert done.count(False) == 25 * 100 + 9 * 100 + 966 * 5 == 8_230


@pytest.mark.parametrize("preset", [PAPER, COLAB, CPU, SMOKE])
def test_the_maps_of_every_preset_move_within_its_steps(preset):
    settings = {"long": preset.vagan_long, "first": preset.vagan_first, "every": preset.vagan_every}
    done = [is_map_step(step, **settings) for step in range(preset.steps)]
    assert sum(done) > preset.vagan_first and preset.batch_size % 2 == 0


@pytest.mark.parametrize(
    ("step", "settings"),
    [
        (-1, {}), (0, {"critic_steps": 0}), (0, {"long": 0}), (0, {"first": 0}),
        (0, {"first": 101}), (0, {"first": 1, "every": 0}),
    ],
)  # fmt: skip
def test_a_schedule_that_cannot_be_is_refused(step, settings):
    now = {"critic_steps": 5, "long": 100, "every": 100, "first": 25} | settings
    words = f"got {step}, {now['critic_steps']}, {now['long']}, {now['every']} and {now['first']}"
    with pytest.raises(ValueError, match=f"expected a step of 0 or more, .*{words}"):
        is_map_step(step, **settings)


# Training


def test_it_is_a_task_that_moves_one_network_a_step():
    task = small(critic_steps=1, long=3, first=1, every=2)
    assert isinstance(task, Task) and task.n_uniforms == 1
    check_task(task)
    phases = [list(task.phases(step, 0)) for step in range(10)]
    assert all(len(step) == 1 for step in phases)
    assert "".join(step[0].name for step in phases) == "DDDM" + "DM" + "DDDM"
    d, m = phases[0][0], phases[3][0]
    assert (d.updates, d.loss) == (("discriminator",), task.critic_loss)
    assert (m.updates, m.loss) == (("generator",), task.map_loss)
    assert d.eval_mode == m.eval_mode == ()
    for optimizer in task.optimizers.values():
        group = optimizer.param_groups[0]
        assert (group["lr"], group["betas"]) == (1e-4, (0.0, 0.9))
    assert (task.lambda_reg, task.lambda_gp) == (100, 10)


def test_without_settings_the_schedule_is_the_papers():
    task = small()
    names = [next(task.phases(step, 0)).name for step in range(3200)]
    assert [name == "M" for name in names] == [is_map_step(step) for step in range(3200)]


@pytest.mark.parametrize(("phase", "network"), [("D", "discriminator"), ("M", "generator")])
def test_a_phase_moves_its_own_network_only(phase, network):
    assert moved_by(small(), phase, domain_batch()) == {network}


def test_the_statistics_of_the_map_generator_move_in_critic_steps_too_and_not_in_reading():
    task, batch = small(), domain_batch()
    generator = task.networks["generator"]

    def statistics() -> Tensor:
        values = [v.flatten() for n, v in generator.named_buffers() if "running" in n]
        return torch.cat(values)

    before = statistics()
    moved_by(task, "D", batch)
    after = statistics()
    assert generator.training and not torch.equal(after, before)
    system = PseudoHealthy(generator, to_healthy, ("Pneumonia",), size=16, channels=1)
    found = system.predict(batch.image).image
    assert torch.equal(statistics(), after) and generator.training
    alone = [system.predict(image[None]).image for image in batch.image]
    torch.testing.assert_close(found, torch.cat(alone))  # no statistics of a batch


def test_the_critic_step_sends_no_gradient_to_the_map_generator():
    task, kept = small(), []
    task.networks["generator"].register_forward_hook(lambda *seen: kept.append(seen[2].grad_fn))
    task.critic_loss(domain_batch())[0].backward()
    assert kept == [None]  # against a port that keeps its graph
    assert all(p.grad is None for p in task.networks["generator"].parameters())
    assert all(p.grad is not None for p in task.networks["discriminator"].parameters())
    task.map_loss(domain_batch())[0].backward()
    assert all(p.grad.abs().max() > 0 for p in task.networks["generator"].parameters())


def test_the_maps_become_smaller_in_thirty_steps():
    task = small(learning_rate=2e-3, critic_steps=1, long=1, first=1)
    batch = domain_batch()
    before = task.map_loss(batch)[1]["reg"]
    train(task, Fixed(batch), steps=30, batch_size=4)
    assert task.map_loss(batch)[1]["reg"] < 0.8 * before


def test_a_step_without_uniforms_says_so():
    with pytest.raises(AssertionError, match="a batch for training has uniform numbers"):
        small().critic_loss(replace(domain_batch(), uniforms=None))


# Errors


@pytest.mark.parametrize("make", [MapGenerator, VAGANCritic])
def test_networks_without_channels_are_refused(make):
    with pytest.raises(ValueError, match="channels: expected 1 or more, got 0"):
        make(0)
    with pytest.raises(ValueError, match="base: expected 1 or more, got -1"):
        make(1, -1)


@pytest.mark.parametrize(("make", "divisor"), [(MapGenerator, 8), (VAGANCritic, 16)])
def test_images_that_cannot_be_halved_so_often_are_refused(make, divisor):
    size, other = divisor, divisor + divisor // 2
    for height, width in ((size, other), (other, size)):
        words = f"height and width divisible by {divisor}, got {height} x {width}"
        with pytest.raises(ValueError, match=words):
            make(1, 2)(torch.zeros(1, 1, height, width))

"""CycleGAN: its losses by hand, what its discriminators see, and that a run keeps its pools."""

from dataclasses import replace

import pytest
import torch
from baselines.translating import domain_batch
from torch import Tensor, nn

from cxrtut.baselines.cyclegan import CycleGAN, to_healthy
from cxrtut.baselines.pseudo_healthy import PseudoHealthy
from cxrtut.data.sample import abnormal, normal
from cxrtut.engine.task import Task, check_task
from cxrtut.nn.instance_norm import InstanceNorm2d
from cxrtut.nn.patchgan import PatchGAN
from cxrtut.nn.resnet_generator import ResNetGenerator


class Shift(nn.Module):
    """x + d."""

    def __init__(self, d: float) -> None:
        super().__init__()
        self.d = nn.Parameter(torch.tensor(d))

    def forward(self, x: Tensor) -> Tensor:
        return x + self.d


class Mean(nn.Module):
    """w times the mean of an image."""

    def __init__(self, w: float) -> None:
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x: Tensor) -> Tensor:
        return self.w * x.mean((1, 2, 3))


def batch(b=4, size=8, seed=0):
    draw = torch.Generator().manual_seed(seed)
    made = domain_batch(b, size)
    return replace(
        made, image=torch.rand(made.image.shape, generator=draw),
        uniforms=torch.rand(b, 2, generator=draw),
    )  # fmt: skip


def by_hand(**how):
    return CycleGAN(Shift(-0.25), Shift(0.5), Mean(2.0), Mean(3.0), size=8, **how)


def small(size=16, pool=4):
    torch.manual_seed(0)
    made = [ResNetGenerator(1, 4, 1) for _ in range(2)]
    judges = [PatchGAN(1, 4, 1, InstanceNorm2d) for _ in range(2)]
    return CycleGAN(*made, *judges, size=size, pool=pool)


def test_the_generators_loss_is_the_sum_of_equation_3_and_the_identity():
    data = batch()
    loss, terms = by_hand().generator_loss(data)
    x, y = abnormal(data.image), normal(data.image)
    adversarial = ((2 * (x - 0.25).mean((1, 2, 3)) - 1) ** 2).mean()
    adversarial = adversarial + ((3 * (y + 0.5).mean((1, 2, 3)) - 1) ** 2).mean()
    assert terms["adversarial"].item() == pytest.approx(adversarial.item(), rel=1e-5)
    assert terms["cycle"].item() == pytest.approx(0.5)  # |-.25 + .5| twice
    assert terms["identity"].item() == pytest.approx(0.75)
    expected = adversarial.item() + 10 * 0.5 + 5 * 0.75
    assert loss.item() == pytest.approx(expected, rel=1e-5)


def test_without_the_identity_its_term_is_not_there():
    loss, terms = by_hand(lambda_identity=0.0).generator_loss(batch())
    assert set(terms) == {"adversarial", "cycle"}
    assert loss.item() == pytest.approx(terms["adversarial"].item() + 5.0, rel=1e-5)


def test_each_discriminator_sees_its_own_domain_and_what_the_generators_made():
    task, data = by_hand(), batch()
    task.generator_loss(data)
    loss, terms = task.discriminator_loss(data)
    x, y = abnormal(data.image), normal(data.image)
    means = [t.mean((1, 2, 3)) for t in (y, x - 0.25, x, y + 0.5)]
    of_normal = ((2 * means[0] - 1) ** 2).mean() + ((2 * means[1]) ** 2).mean()
    of_abnormal = ((3 * means[2] - 1) ** 2).mean() + ((3 * means[3]) ** 2).mean()
    assert terms["normal"].item() == pytest.approx(of_normal.item() / 2, rel=1e-5)
    assert terms["abnormal"].item() == pytest.approx(of_abnormal.item() / 2, rel=1e-5)
    assert loss.item() == pytest.approx((of_normal + of_abnormal).item() / 2, rel=1e-5)


def test_discriminators_are_shown_fakes_of_this_step_and_old_ones():
    task, old, shown_old = small(pool=2), [], 0
    for seed in range(8):
        data = batch(4, 16, seed)
        task.generator_loss(data)
        with torch.no_grad():
            new = list(task.networks["generator"](abnormal(data.image)))
        for shown, made in zip(task.pools[0].shown, new, strict=True):
            is_new = torch.allclose(shown, made, atol=1e-5)
            assert is_new or any(torch.allclose(shown, x, atol=1e-5) for x in old)
            assert is_new or seed > 0  # at first the pool is filled
            shown_old += not is_new
        old += new
    assert 2 <= shown_old <= 12 and int(task.pools[0].filled) == 2


def test_a_phase_moves_both_generators_or_both_discriminators():
    task = small()
    check_task(task)
    assert isinstance(task, Task)
    phases = list(task.phases(0, 0))
    assert [p.updates for p in phases] == [
        ("generator", "back"), ("normal_discriminator", "abnormal_discriminator"),
    ]  # fmt: skip
    data = batch(4, 16)
    loss, _ = phases[0].loss(data)
    loss.backward()
    for name in phases[0].updates:
        assert all(p.grad is not None for p in task.networks[name].parameters())
    for network in task.networks.values():
        network.zero_grad()
    loss, _ = phases[1].loss(data)
    loss.backward()
    for name in phases[0].updates:
        assert all(p.grad is None for p in task.networks[name].parameters())


def test_the_pools_are_networks_of_the_run_and_are_saved_with_it():
    task = small()
    assert task.networks["normal_pool"] is task.pools[0]
    assert task.networks["abnormal_pool"] is task.pools[1]
    assert set(task.optimizers) == set(task.networks) - {"normal_pool", "abnormal_pool"}


def test_it_learns_to_take_the_brightness_away():
    """Abnormal images are brighter by .8: G learns to darken them, and F to brighten."""
    torch.manual_seed(0)
    task = by_hand(lambda_identity=0.0, learning_rate=0.02)
    task.networks["generator"].d.data.fill_(0.0)
    task.networks["back"].d.data.fill_(0.0)
    for step in range(150):
        data = batch(8, 8, step)
        shade = torch.zeros(8, 1, 1, 1)
        shade[1::2] = 0.8
        data = replace(data, image=data.image * 0.1 + shade - 0.4)
        for phase in task.phases(step, 0):
            for name in task.optimizers:
                task.networks[name].requires_grad_(name in phase.updates)
            loss, _ = phase.loss(data)
            for name in phase.updates:
                task.optimizers[name].zero_grad()
            loss.backward()
            for name in phase.updates:
                task.optimizers[name].step()
    down, up = float(task.networks["generator"].d), float(task.networks["back"].d)
    assert down < -0.2 and up > 0.2 and abs(down + up) < 0.2


def test_as_a_system_it_gives_the_normal_image_and_the_difference():
    system = PseudoHealthy(Shift(-0.25), to_healthy, ("A",), size=8, channels=1)
    answer = system.predict(torch.zeros(2, 1, 8, 8))
    assert torch.allclose(answer.image, torch.full((2, 1, 8, 8), -0.25))
    assert torch.allclose(answer.heatmap, torch.full((2, 1, 8, 8), 0.25))

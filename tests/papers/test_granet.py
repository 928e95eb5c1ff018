"""GRANet, equation by equation."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cxrtut.data.device_store import DeviceStore
from cxrtut.data.loader import Loader
from cxrtut.data.sample import Batch, from_uint8, to_uint8
from cxrtut.engine.loop import train
from cxrtut.engine.task import Task, check_task
from cxrtut.nn.pyramids import SmallPyramid
from cxrtut.nn.residual_attention import AttendedBackbone, ResidualAttention
from cxrtut.nn.retinanet import retinanet
from cxrtut.papers.granet import (
    PAPER,
    AbnormalToNormal,
    Config,
    GRANet,
    Realistic,
    made_realistic,
    make_networks,
    translated,
)
from cxrtut.randomness import balanced

TINY = replace(PAPER, size=32, base=4, residual_blocks=1, patch_halvings=1, batch_size=4)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


class Less(nn.Module):
    """G(x) = x - d."""

    def __init__(self, d):
        super().__init__()
        self.d = nn.Parameter(torch.tensor(d))

    def forward(self, x):
        return x - self.d


class Patches(nn.Module):
    """Four logits of an image, all w times its mean."""

    def __init__(self, w=2.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor(w))

    def forward(self, x):
        return (self.w * x.mean((1, 2, 3)))[:, None, None, None].expand(-1, 1, 2, 2)


def batch_of():
    """Normal .1 and .3, abnormal .5 and .7, and for these blended .2 and .4."""
    values = torch.tensor([0.1, 0.5, 0.3, 0.7])
    healthy = torch.tensor([0.1, 0.2, 0.3, 0.4])
    images, twins = (v[:, None, None, None].expand(4, 1, 32, 32).clone() for v in (values, healthy))
    return Batch(
        image=images, label_vector=torch.tensor([[0.0], [1.0], [0.0], [1.0]]),
        boxes=torch.zeros(4, 1, 4), box_label=torch.full((4, 1), -1), index=torch.arange(4),
        healthy=twins,
    )  # fmt: skip


def stub(of, d=0.1, w=2.0, **changes):
    task = of(replace(TINY, **changes))
    task.networks = {"generator": Less(d), "discriminator": Patches(w)}
    return task


def softplus(value):
    return math.log1p(math.exp(value))


def test_equation_2_asks_blended_images_to_look_real_and_to_stay_as_they_are():
    loss, terms = stub(Realistic).generator_loss(batch_of())
    fakes = (0.2 - 0.1, 0.4 - 0.1)
    adversarial = sum(softplus(-2 * fake) for fake in fakes) / 2
    assert terms["adversarial"].item() == pytest.approx(adversarial, rel=1e-5)
    assert terms["L1"].item() == pytest.approx(0.1, rel=1e-5)
    assert loss.item() == pytest.approx(adversarial + 100 * 0.1, rel=1e-5)


def test_equation_3_sees_the_image_and_wants_the_pseudo_normal_one():
    loss, terms = stub(AbnormalToNormal).generator_loss(batch_of())
    fakes = (0.5 - 0.1, 0.7 - 0.1)
    adversarial = sum(softplus(-2 * fake) for fake in fakes) / 2
    l1 = (abs(0.4 - 0.2) + abs(0.6 - 0.4)) / 2
    assert terms["adversarial"].item() == pytest.approx(adversarial, rel=1e-5)
    assert terms["L1"].item() == pytest.approx(l1, rel=1e-5)
    assert terms["identity"].item() == pytest.approx(0.1, rel=1e-5)
    assert loss.item() == pytest.approx(adversarial + 100 * l1 + 50 * 0.1, rel=1e-5)


def test_a_g_that_adds_to_normal_images_pays_as_one_that_takes_away():
    for d in (0.1, -0.1):
        terms = stub(AbnormalToNormal, d=d).generator_loss(batch_of())[1]
        assert terms["identity"].item() == pytest.approx(0.1, rel=1e-5)


def test_without_a_weight_the_identity_is_told_and_costs_nothing():
    plain = stub(AbnormalToNormal, lambda_identity=0.0).generator_loss(batch_of())[0]
    whole, terms = stub(AbnormalToNormal).generator_loss(batch_of())
    assert (whole - plain).item() == pytest.approx(50 * terms["identity"].item(), rel=1e-4)


@pytest.mark.parametrize(("of", "fakes"), [(Realistic, (0.1, 0.3)), (AbnormalToNormal, (0.4, 0.6))])
def test_d_tells_normal_images_from_what_g_makes_halved_and_turned_round(of, fakes):
    loss, _ = stub(of).discriminator_loss(batch_of())
    real = sum(softplus(-2 * y) for y in (0.1, 0.3)) / 2
    fake = sum(softplus(2 * x) for x in fakes) / 2
    assert loss.item() == pytest.approx(0.5 * (real + fake), rel=1e-5)


@pytest.mark.parametrize("of", [Realistic, AbnormalToNormal])
def test_d_sends_g_no_gradient(of):
    task = stub(of)
    loss, _ = task.discriminator_loss(batch_of())
    loss.backward()
    assert task.networks["generator"].d.grad is None and task.networks["discriminator"].w.grad


@pytest.mark.parametrize("of", [Realistic, AbnormalToNormal])
def test_a_batch_without_pairs_is_refused(of):
    with pytest.raises(ValueError, match="batch: expected one of pseudo-pairs, with healthy"):
        stub(of).generator_loss(replace(batch_of(), healthy=None))


@pytest.mark.parametrize("of", [Realistic, AbnormalToNormal])
def test_they_are_tasks_whose_generator_moves_first(of):
    task = of(TINY)
    assert isinstance(task, Task) and task.n_uniforms == 0
    check_task(task)
    assert [(p.name, p.updates) for p in task.phases(3, 1)] == [
        ("G", ("generator",)), ("D", ("discriminator",)),
    ]  # fmt: skip
    group = task.optimizers["generator"].param_groups[0]
    assert (group["lr"], group["betas"]) == (2e-4, (0.5, 0.999))


def test_the_two_generators_begin_apart_and_each_seed_with_its_own():
    first, again = (Realistic(TINY, seed=1).networks["generator"].state_dict() for _ in range(2))
    other = AbnormalToNormal(TINY, seed=1).networks["generator"].state_dict()
    third = Realistic(TINY, seed=2).networks["generator"].state_dict()
    assert all(torch.equal(v, again[k]) for k, v in first.items())
    for different in (other, third):
        assert not torch.equal(first["output.0.weight"], different["output.0.weight"])


def test_the_papers_networks_have_the_parameters_of_cyclegans():
    with torch.device("meta"):
        networks = [make_networks_counted(channels) for channels in (1, 3)]
    assert networks == [(11_365_633, 2_762_689), (11_378_179, 2_764_737)]


def make_networks_counted(channels):
    from cxrtut.nn.instance_norm import InstanceNorm2d
    from cxrtut.nn.patchgan import PatchGAN
    from cxrtut.nn.resnet_generator import ResNetGenerator

    made = ResNetGenerator(channels), PatchGAN(channels, norm=InstanceNorm2d)
    return tuple(sum(p.numel() for p in network.parameters()) for network in made)


def test_initial_weights_have_the_spread_of_cyclegan():
    weights = make_networks(TINY, 0, "a")["generator"].state_dict()
    flat = torch.cat([v.flatten() for k, v in weights.items() if k.endswith("weight")])
    assert flat.std().item() == pytest.approx(0.02, rel=0.05)
    assert not any(v.any() for k, v in weights.items() if k.endswith("bias"))


def pairs(n=8):
    """Bright squares on smooth noise, half of them; without the square as healthy."""
    smooth = F.interpolate(torch.rand(n, 1, 4, 4) - 0.5, scale_factor=8.0, mode="bilinear")
    ill = smooth.clone()
    ill[n // 2 :, :, 8:16, 8:16] += 0.4
    return DeviceStore(
        images=to_uint8(ill), healthy=to_uint8(smooth), index=torch.arange(n),
        label_vector=(torch.arange(n) >= n // 2).float()[:, None],
        boxes=torch.zeros(n, 1, 4), box_label=torch.full((n, 1), -1),
    )  # fmt: skip


def loader_of(store):
    n = len(store)
    return Loader(store, balanced(torch.arange(n // 2), torch.arange(n // 2, n)))


def test_it_learns_to_take_the_square_away_and_leaves_normal_images():
    store = pairs(16)
    task = AbnormalToNormal(replace(TINY, base=8, learning_rate=2e-3, lambda_l1=100.0))
    batch = store.batch(torch.tensor([0, 8, 1, 9]))
    before = task.generator_loss(batch)[1]
    train(task, loader_of(store), steps=60, batch_size=4)
    after = task.generator_loss(batch)[1]
    assert after["L1"] < 0.5 * before["L1"] and after["identity"] < 0.5 * before["identity"]


def granet(**changes):
    """Small networks; the detector attends to the residual of the task's own G."""
    config = replace(TINY, detector_learning_rate=1e-3, **changes)
    networks = make_networks(config, 0, "abnormal to normal")
    backbone = AttendedBackbone(
        SmallPyramid(1, 8, 16, (4,)), ResidualAttention(networks["generator"])
    )
    return GRANet(config, retinanet(backbone, 1, 32, sizes=[(8, 12)]), networks=networks)


def boxed_pairs():
    store = pairs(8)
    boxes = torch.tensor([8.0, 8.0, 16.0, 16.0]).repeat(8, 1, 1)
    label = torch.where(store.label_vector > 0, 0, -1).long()
    return replace(store, boxes=boxes * (label >= 0)[..., None], box_label=label)


def states(task):
    return {
        name: {k: v.clone() for k, v in network.state_dict().items()}
        for name, network in task.networks.items()
    }


def changed(before, task):
    now = states(task)
    return {
        name
        for name in before
        if any(not torch.equal(v, now[name][k]) for k, v in before[name].items())
    }


def names(task, epoch):
    return [phase.name for phase in task.phases(0, epoch)]


@pytest.mark.parametrize(
    ("n", "m", "turns"),
    [(2, 2, "ddggddgg"), (1, 3, "dgggdggg"), (5, 1, "dddddgdd"), (2, 0, "dddddddd")],
)
def test_epochs_of_the_detector_and_of_g_alternate(n, m, turns):
    task = granet(detector_epochs=n, generator_epochs=m)
    for epoch, turn in enumerate(turns):
        assert names(task, epoch) == (["detector"] if turn == "d" else ["G", "D"])


def test_joint_training_moves_all_on_every_batch():
    assert names(granet(joint=True), 0) == names(granet(joint=True), 3) == ["detector", "G", "D"]


def test_in_the_turn_of_one_side_the_other_is_unchanged_to_the_bit():
    task, store = granet(detector_epochs=1, generator_epochs=1), boxed_pairs()
    before = states(task)
    train(task, loader_of(store), steps=2, batch_size=4)  # an epoch is two batches
    assert changed(before, task) == {"detector"}
    task = granet(detector_epochs=1, generator_epochs=1)
    between = {}

    class Later:
        """The second epoch, begun with the first."""

        def __getattr__(self, name):
            return getattr(task, name)

        def phases(self, step, epoch):
            yield from task.phases(step, epoch + 1)

    between = states(task)
    train(Later(), loader_of(store), steps=2, batch_size=4)
    assert changed(between, task) == {"generator", "discriminator"}


def test_g_feels_the_frozen_detector_as_long_as_its_loss_has_a_weight():
    store = boxed_pairs()
    batch = store.batch(torch.tensor([0, 4, 1, 5]))
    task = granet()
    loss, terms = task.generator_loss(batch)
    alone = granet(lambda_detection=0.0)
    alone.networks.update(task.networks)
    without, fewer = alone.generator_loss(batch)
    assert "detection" in terms and "detection" not in fewer
    assert (loss - without).item() == pytest.approx(terms["detection"].item(), rel=1e-4)
    task.networks["detector"].requires_grad_(False)
    terms["detection"].backward()
    grads = [p.grad for p in task.networks["generator"].parameters() if p.grad is not None]
    assert any(g.abs().max() > 0 for g in grads)


def test_the_detector_learns_with_its_own_rate_and_g_goes_on_with_a_smaller_one():
    task = granet(generator_learning_rate=3e-5)
    rates = {name: o.param_groups[0]["lr"] for name, o in task.optimizers.items()}
    assert rates == {"generator": 3e-5, "discriminator": 3e-5, "detector": 1e-3}
    check_task(task)
    (phase,) = task.phases(0, 0)
    assert phase.max_norm == task.config.detector_max_norm


def test_batch_norms_and_dropouts_of_a_frozen_side_stand_still():
    """Whoever is not moved is not changed, not even by what it sees."""
    task, store = granet(detector_epochs=1, generator_epochs=1), boxed_pairs()
    norm, dropout = nn.BatchNorm2d(16), nn.Dropout(0.5)
    tower = task.networks["detector"].head.classification_head.conv
    tower.append(nn.Sequential(norm, dropout))
    batch, before = store.batch(torch.tensor([0, 4, 1, 5])), norm.running_mean.clone()
    task.generator_loss(batch)
    assert torch.equal(norm.running_mean, before) and norm.training and dropout.training
    task.detection_loss(batch)
    assert not torch.equal(norm.running_mean, before)
    (phase,) = task.phases(0, 0)
    assert phase.eval_mode == ("generator",)


def test_a_detector_that_attends_to_another_generator_is_refused():
    networks, others = (make_networks(TINY, seed, "a") for seed in (0, 1))
    for attention in (ResidualAttention(others["generator"]), lambda x: x[:, :1]):
        backbone = AttendedBackbone(SmallPyramid(1, 8, 16, (4,)), attention)
        with pytest.raises(ValueError, match="detector: expected one whose backbone attends to"):
            GRANet(TINY, retinanet(backbone, 1, 32, sizes=[(8, 12)]), networks=networks)
    plain = retinanet(SmallPyramid(1, 8, 16, (4,)), 1, 32, sizes=[(8, 12)])
    with pytest.raises(ValueError, match="got another"):
        GRANet(TINY, plain, networks=networks)


def test_labels_begin_where_the_detector_has_them():
    store = boxed_pairs()
    batch = store.batch(torch.tensor([0, 4, 1, 5]))
    seen = []
    task = granet()
    task.networks["detector"].register_forward_pre_hook(lambda _, given: seen.append(given[1]))
    task.detection_loss(batch)
    task.first = 1
    with pytest.raises((IndexError, RuntimeError)):  # there is no second class
        task.detection_loss(batch)
    labels = [[t["labels"].tolist() for t in targets] for targets in seen]
    assert labels == [[[], [0], [], [0]], [[], [1], [], [1]]]


def test_realistic_images_replace_the_blended_ones_of_abnormal_images_alone():
    store = pairs()
    made = made_realistic(Less(0.2), store)
    assert torch.equal(made.images, store.images)
    assert torch.equal(made.healthy[:4], store.healthy[:4])
    expected = to_uint8(from_uint8(store.healthy[4:]) - 0.2)
    assert torch.equal(made.healthy[4:], expected)
    with pytest.raises(ValueError, match="pairs: expected blended images as healthy ones"):
        made_realistic(Less(0.2), replace(store, healthy=None))


def test_translations_are_made_in_evaluation_mode_and_the_mode_is_put_back():
    network = nn.Sequential(nn.Dropout(0.5)).train()
    image = torch.rand(3, 1, 8, 8)
    assert torch.equal(translated(network, image), image) and network.training
    assert translated(network, image[:0]).shape == (0, 1, 8, 8)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 30}, "size: expected a multiple of 4, 32 at least, got 30"),
        ({"size": 28}, "size: expected a multiple of 4, 32 at least, got 28"),
        ({"batch_size": 5}, "batch_size: expected an even number, got 5"),
        ({"detector_batch_size": 3}, "detector_batch_size: expected an even number, got 3"),
        ({"neighbours": 0}, "neighbours: expected 1 or more, got 0"),
        ({"attention": "sum"}, "attention: expected one of residual, product, got 'sum'"),
        ({"detector_epochs": 0}, "expected detector_epochs of 1 or more"),
        ({"generator_epochs": -1}, "no negative generator_epochs, got 2 and -1"),
    ],
)
def test_a_configuration_that_cannot_work_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(PAPER, **change)


def test_the_papers_numbers_are_the_defaults():
    c = Config()
    assert c == PAPER
    assert (c.size, c.learning_rate, c.batch_size, c.neighbours) == (512, 2e-4, 4, 1)
    assert (c.base, c.residual_blocks, c.patch_halvings) == (64, 9, 3)

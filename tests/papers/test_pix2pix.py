"""Pix2Pix augmentation, line by line of Algorithm 1."""

from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cxrtut.data.boxes import boxes_to_mask
from cxrtut.data.device_store import DeviceStore
from cxrtut.data.loader import Loader
from cxrtut.data.sample import Batch, from_uint8, to_uint8
from cxrtut.engine.loop import train
from cxrtut.engine.task import check_task
from cxrtut.papers.pix2pix import (
    PAPER,
    Pix2Pix,
    box_mask,
    composite,
    make_networks,
    pathology_only,
    synthesise,
)
from cxrtut.randomness import shuffled

TINY = replace(
    PAPER, size=32, base=8, halvings=4, patch_halvings=2, batch_size=4, steps=20, stargan_halvings=4
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def pairs_of(n=6, size=32) -> DeviceStore:
    """Noise, brighter to the right, with a box of its own for each image."""
    draw = torch.Generator().manual_seed(3)
    ramp = torch.arange(size) * 4
    noise = torch.randint(0, 20, (n, 1, size, size), generator=draw)
    corner = torch.randint(0, size // 2, (n, 2), generator=draw).float()
    extent = torch.randint(4, size // 2, (n, 2), generator=draw).float()
    labels = torch.arange(n) % 2
    return DeviceStore(
        images=(noise + ramp).to(torch.uint8), label_vector=F.one_hot(labels, 2).float(),
        boxes=torch.cat((corner, corner + extent), 1)[:, None], box_label=labels[:, None],
        index=torch.arange(n),
    )  # fmt: skip


def batch_of(n=4) -> Batch:
    return pairs_of(n).batch(torch.arange(n))


# Lines 4 to 7


def test_a_mask_is_one_in_the_boxes_and_nowhere_else():
    boxes = torch.tensor([[[1.0, 2, 4, 5], [0, 0, 0, 0]], [[0, 0, 2, 1], [3, 3, 5, 4.4]]])
    batch = Batch(
        image=torch.zeros(2, 1, 5, 6), label_vector=torch.zeros(2, 1), boxes=boxes,
        box_label=torch.tensor([[0, -1], [0, 0]]), index=torch.arange(2),
    )  # fmt: skip
    expected = torch.zeros(2, 1, 5, 6)
    expected[0, 0, 2:5, 1:4] = 1
    expected[1, 0, 0, 0:2] = 1
    expected[1, 0, 3, 3:5] = 1  # the centres of the row below, at 4.5, lie outside
    assert torch.equal(box_mask(batch), expected)


def test_a_pixel_is_inside_by_the_rule_of_every_other_mask():
    batch, masks = batch_of(6), box_mask(batch_of(6))
    moved = replace(batch, boxes=batch.boxes + 0.3)
    for given, found in ((batch, masks), (moved, box_mask(moved))):
        for boxes, mask in zip(given.boxes, found[:, 0], strict=True):
            assert torch.equal(mask.bool(), boxes_to_mask(boxes, 32, 32))


def test_the_input_is_the_image_in_the_box_and_zero_a_mid_grey_around_it():
    image = torch.rand(1, 1, 4, 4) * 2 - 1
    mask = torch.zeros(1, 1, 4, 4)
    mask[..., 1:3, 1:3] = 1
    x = pathology_only(image, mask)
    assert torch.equal(x[..., 1:3, 1:3], image[..., 1:3, 1:3])
    assert to_uint8(x[0, 0, 0]).tolist() == [128] * 4
    assert x.abs().sum() == x[..., 1:3, 1:3].abs().sum()


def test_the_composite_is_line_7_where_zero_is_nothing_and_right_in_every_range():
    image, made = torch.rand(2, 1, 4, 4) * 2 - 1, torch.rand(2, 1, 4, 4) * 2 - 1
    mask = (torch.rand(2, 1, 4, 4) < 0.5).float()
    whole = composite(image, made, mask)
    torch.testing.assert_close(whole, image * mask + made * (1 - mask))
    assert whole.abs().max() <= 1
    # The trap: a file blacked out before it is scaled has -1 outside, and line 7 adds it
    blackened = from_uint8(to_uint8(image) * mask.to(torch.uint8))
    assert (blackened + made * (1 - mask)).min() < -1
    inside = mask.bool()
    assert torch.equal(whole[inside], image[inside])


# Losses


class Reads(nn.Module):
    """A discriminator that says w times the mean of what it sees, and keeps it."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.seen = nn.Parameter(torch.tensor(2.0)), []

    def forward(self, pair):
        self.seen.append(pair.detach())
        return self.w * pair.mean((1, 2, 3), keepdim=True)


class Grey(nn.Module):
    """A generator that makes everything of one grey."""

    def __init__(self) -> None:
        super().__init__()
        self.value = nn.Parameter(torch.tensor(0.25))

    def forward(self, x):
        return self.value.expand_as(x)


def by_hand() -> Pix2Pix:
    task = Pix2Pix(TINY)
    task.networks = {"generator": Grey(), "discriminator": Reads()}
    return task


def test_the_generators_loss_is_eq_3_of_the_composite():
    task, batch = by_hand(), batch_of()
    loss, terms = task.generator_loss(batch)
    mask = box_mask(batch)
    fake = batch.image * mask + 0.25 * (1 - mask)
    x = batch.image * mask
    logit = 2 * torch.cat((x, fake), 1).mean((1, 2, 3))
    adversarial = F.binary_cross_entropy_with_logits(logit, torch.ones(4))
    l1 = (batch.image - fake).abs().mean()
    torch.testing.assert_close(loss, adversarial + 100 * l1)
    torch.testing.assert_close(terms["L1"], l1)
    torch.testing.assert_close(task.networks["discriminator"].seen[0], torch.cat((x, fake), 1))


def test_the_discriminators_loss_is_half_the_cross_entropy_of_real_and_made_pairs():
    task, batch = by_hand(), batch_of()
    loss, _ = task.discriminator_loss(batch)
    x, fake = task.made(batch)
    real = 2 * torch.cat((x, batch.image), 1).mean((1, 2, 3))
    made = 2 * torch.cat((x, fake), 1).mean((1, 2, 3))
    logits, labels = torch.cat((real, made)), torch.tensor([1.0] * 4 + [0.0] * 4)
    torch.testing.assert_close(loss, F.binary_cross_entropy_with_logits(logits, labels))


def test_each_network_gets_the_gradient_of_its_own_loss_alone():
    task, batch = by_hand(), batch_of()
    G, D = task.networks["generator"].value, task.networks["discriminator"].w
    task.discriminator_loss(batch)[0].backward()
    assert G.grad is None and D.grad is not None
    D.grad = None
    task.generator_loss(batch)[0].backward()
    assert G.grad is not None


def test_d_learns_from_what_g_makes_now_and_sends_it_no_gradient():
    task, batch = by_hand(), batch_of()
    G, D = task.networks["generator"], task.networks["discriminator"]
    task.generator_loss(batch)
    with torch.no_grad():
        G.value.fill_(0.75)  # G has moved
    loss, _ = task.discriminator_loss(batch)
    loss.backward()
    torch.testing.assert_close(D.seen[-1], torch.cat(task.made(batch), dim=1))
    assert not torch.equal(D.seen[-1], D.seen[0]) and G.value.grad is None


# Training


def test_the_rate_is_constant_for_half_of_the_steps_and_then_falls_to_nothing():
    task = Pix2Pix(replace(TINY, steps=100))
    rates = [task.schedule(step)["generator"] for step in range(100)]
    assert rates[:51] == [1.0] * 51
    assert rates[99] == pytest.approx(1 / 50)
    assert rates[75] == pytest.approx(0.5)
    assert task.schedule(99).keys() == task.networks.keys()
    constant = Pix2Pix(replace(TINY, steps=10, decay_from=1.0))
    assert constant.schedule(9)["discriminator"] == 1.0


def test_the_paper_trains_200_passes_over_its_annotations():
    assert PAPER.steps == 200 * 573 and PAPER.synthetic == round(1.2 * 573)


def test_the_weights_of_a_seed_are_pix2pixs():
    one, again, other = (make_networks(TINY, seed) for seed in (0, 0, 1))
    for name, network in one.items():
        state = network.state_dict()
        assert all(torch.equal(v, again[name].state_dict()[k]) for k, v in state.items())
        assert any(not torch.equal(v, other[name].state_dict()[k]) for k, v in state.items())
    weight = one["generator"].encoder[3][1].weight
    assert weight.detach().std() == pytest.approx(0.02, rel=0.1)


def test_it_trains_and_learns_to_paint_around_a_box():
    task = Pix2Pix(replace(TINY, steps=60, learning_rate=2e-3))
    check_task(task)
    loader = Loader(pairs_of(8), shuffled(torch.arange(8)))
    reports = train(task, loader, steps=60, batch_size=4, seed=0, report_every=10)
    assert reports[-1].terms["G/L1"] < 0.6 * reports[0].terms["G/L1"]
    assert {"G/adversarial", "G/L1", "D/loss"} <= set(reports[-1].terms)


# Synthetic images


@pytest.fixture
def generator():
    return make_networks(TINY, 0)["generator"]


def test_the_lesion_is_the_same_to_the_grey_level_in_every_synthetic_image(generator):
    pairs = pairs_of()
    made = synthesise(generator, pairs, 20, seed=0, batch_size=4)
    assert len(made) == 20 and made.images.dtype == torch.uint8
    mirrored = 0
    for i in range(20):
        source = int(made.index[i])
        (x0, y0, x1, y1), (a0, b0, a1, b1) = (
            s.boxes[k, 0].long().tolist() for s, k in ((made, i), (pairs, source))
        )
        before, after = pairs.images[source, 0, b0:b1, a0:a1], made.images[i, 0, y0:y1, x0:x1]
        turned = (x0, x1) != (a0, a1)
        mirrored += turned
        assert torch.equal(after, before.flip(-1) if turned else before)
        assert (y0, y1) == (b0, b1) and (not turned or (x0, x1) == (32 - a1, 32 - a0))
        assert torch.equal(made.label_vector[i], pairs.label_vector[source])
        outside = torch.ones(32, 32, dtype=torch.bool)
        outside[y0:y1, x0:x1] = False
        image = pairs.images[source, 0].flip(-1) if turned else pairs.images[source, 0]
        assert (made.images[i, 0] != image)[outside].float().mean() > 0.9
    assert 4 <= mirrored <= 16


def test_every_annotation_serves_equally_often_and_no_two_images_are_the_same(generator):
    made = synthesise(generator, pairs_of(), 15, seed=0)
    assert sorted(made.index.bincount(minlength=6).tolist()) == [2, 2, 2, 3, 3, 3]
    assert len(made.images.flatten(1).unique(dim=0)) == 15


def test_a_seed_makes_its_images_and_leaves_the_generator_as_it_was(generator):
    generator.eval()
    before = {k: v.clone() for k, v in generator.state_dict().items()}
    state = torch.get_rng_state()
    first, again, other = (
        synthesise(generator, pairs_of(), 5, seed=seed, batch_size=2).images for seed in (0, 0, 1)
    )
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert all(torch.equal(v, before[k]) for k, v in generator.state_dict().items())
    assert not generator.training and torch.equal(torch.get_rng_state(), state)


def test_no_images_are_made_of_nothing_and_none_where_none_are_wanted(generator):
    assert len(synthesise(generator, pairs_of(), 0, seed=0)) == 0
    with pytest.raises(ValueError, match="pairs: expected annotations"):
        synthesise(generator, pairs_of(0), 3, seed=0)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"size": 40}, "size: expected a multiple of 2.halvings = 16, got 40"),
        ({"batch_size": 0}, "batch_size of 1 or more"),
        ({"synthetic": -1}, "no negative numbers"),
        ({"annotated": 0}, "annotated images"),
        ({"decay_from": 1.5}, "decay_from"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(change, words):
    with pytest.raises(ValueError, match=words):
        replace(TINY, **change)
